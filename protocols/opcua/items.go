package opcua

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// modelHandle is the client handle of the item that tells of changes of the
// address space: the one after those of the tags. (Servers take 2^32-1 for none.)
func (s *subscription) modelHandle() uint32 { return uint32(len(s.items)) }

// create makes the subscription and its items on a server that has neither.
// why is what may be missing before the first values, if there were values
// before. An error is of the connection; that the server refuses is told by the
// tags and tried again later. The caller holds mu.
func (s *subscription) create(ctx context.Context, c *conn, why string) error {
	s.id.Store(0)
	s.conn, s.last, s.doubts = nil, 0, false
	for _, it := range s.items {
		it.live, it.number, it.keeps, it.gap, it.local = false, 0, unasked, "", 0
		s.out.Lock()
		if it.have {
			it.gap = why
		}
		s.out.Unlock()
	}
	keepAlive := s.keepAliveCount(s.every)
	lifetime := max(3*keepAlive, uint32(min(c.ticket.timeout/s.every, math.MaxUint32/4)))
	var res wire.CreatedSubscription
	err := c.call(ctx, &ua.CreateSubscriptionRequest{
		RequestedPublishingInterval: float64(s.every) / float64(time.Millisecond),
		RequestedLifetimeCount:      lifetime, RequestedMaxKeepAliveCount: keepAlive, PublishingEnabled: true,
		MaxNotificationsPerPublish: 10_000,
	}, &res)
	if err != nil {
		return s.turnedDown(err)
	}
	if res.Interval <= 0 || res.KeepAlive == 0 || res.ID == 0 {
		return s.turnedDown(&badNode{point.BadUnexpectedError, "the server made a subscription without an interval"})
	}
	s.setLimit(res.Interval, res.KeepAlive)
	s.heard.Store(int64(s.l.clk.Elapsed()))
	s.conn = c
	s.id.Store(res.ID)
	if res.Interval != s.every || res.KeepAlive != keepAlive {
		s.l.log.Debug("the server revised a subscription", "interval", res.Interval, "keep_alive", res.KeepAlive)
	}
	c.publisher.kick()
	if err := s.monitor(ctx, c, s.items); err != nil {
		return err
	}
	s.monitorModel(ctx, c)
	return nil
}

// turnedDown tells the tags that the server makes no subscription. An error that is
// not the server's answer is returned.
func (s *subscription) turnedDown(err error) error {
	var status ua.StatusCode
	var bad *badNode
	if !errors.As(err, &status) && !errors.As(err, &bad) || sessionGone(status) {
		return err
	}
	for _, it := range s.items {
		s.fail(it, err)
	}
	return nil
}

// fail tells a tag that it cannot be monitored.
func (s *subscription) fail(it *item, err error) {
	if it.failed != nil && it.failed.Error() == err.Error() {
		return
	}
	it.failed = err
	sample := bad(err)
	s.out.Lock()
	defer s.out.Unlock()
	if !s.ended {
		it.mute = false
		s.sink(it.at, sample)
	}
}

// monitor makes monitored items.
func (s *subscription) monitor(ctx context.Context, c *conn, items []*item) error {
	addrs := make([]*address, len(items))
	for i, it := range items {
		addrs[i] = &it.addr
	}
	nodes, err := c.resolve(ctx, addrs)
	if err != nil {
		return err
	}
	var ask []*item
	for i, it := range items {
		switch {
		case it.kind == aMethod:
			it.live = true // there is nothing to monitor
			s.fail(it, &badNode{point.BadNotSupported, "a method has no value; it is called by writing"})
		case nodes[i].err != nil:
			s.fail(it, nodes[i].err)
		default:
			it.node = nodes[i].id
			ask = append(ask, it)
		}
	}
	if err := s.askRanges(ctx, c, ask); err != nil {
		return err
	}
	return chunks(len(ask), c.limits.items, func(from, to int) error {
		return s.monitorSome(ctx, c, ask[from:to], true)
	})
}

// monitorSome makes as many items as one request takes. Those whose filter the
// server does not know are made without, once.
func (s *subscription) monitorSome(ctx context.Context, c *conn, items []*item, filtered bool) error {
	req := &ua.CreateMonitoredItemsRequest{SubscriptionID: s.number(), TimestampsToReturn: ua.TimestampsToReturnBoth}
	for _, it := range items {
		r, err := s.request(c, it, filtered)
		if err != nil {
			s.fail(it, err)
			r = &ua.MonitoredItemCreateRequest{ItemToMonitor: attribute(wire.NodeID{}, 0), RequestedParameters: &ua.MonitoringParameters{}}
		}
		req.ItemsToCreate = append(req.ItemsToCreate, r)
	}
	var res wire.CreatedItems
	if err := c.call(ctx, req, &res); err != nil {
		return s.turnedDown(err)
	}
	if len(res.Results) != len(items) {
		return errCount
	}
	var plain []*item
	for i, r := range res.Results {
		it := items[i]
		switch {
		case r.Status>>30 == 0:
			it.live, it.number, it.failed = true, r.ID, nil
			s.note(it, r)
		case filtered && it.kind == aValue && aboutFilter(r.Status):
			plain = append(plain, it)
		default:
			s.fail(it, r.Status)
		}
	}
	if len(plain) > 0 {
		return s.monitorSome(ctx, c, plain, false)
	}
	for _, it := range items {
		if it.kind == alarms && it.live {
			s.refresh(ctx, c)
			break
		}
	}
	return nil
}

// note logs what the server made of a request.
func (s *subscription) note(it *item, r wire.CreatedItem) {
	if want := s.queue(it); int(r.Queue) < want && it.kind == aValue {
		s.l.log.Debug("the server shortens a queue", "tag", it.tag.Name, "queue", r.Queue, "want", want, "sampling", r.Sampling)
	}
	if it.kind != aValue {
		s.tell(it, listening)
	}
}

func aboutFilter(status ua.StatusCode) bool {
	switch status {
	case ua.StatusBadMonitoredItemFilterInvalid, ua.StatusBadMonitoredItemFilterUnsupported, ua.StatusBadFilterNotAllowed,
		ua.StatusBadDeadbandFilterInvalid, ua.StatusBadFilterOperatorUnsupported:
		return true
	}
	return false
}

// request describes one item to the server.
func (s *subscription) request(c *conn, it *item, filtered bool) (*ua.MonitoredItemCreateRequest, error) {
	r := &ua.MonitoredItemCreateRequest{
		ItemToMonitor:  attribute(it.node, ua.AttributeIDValue),
		MonitoringMode: ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{
			ClientHandle: uint32(it.at), SamplingInterval: float64(s.sampling(it)) / float64(time.Millisecond),
			QueueSize: uint32(s.queue(it)), DiscardOldest: true,
		},
	}
	if it.kind != aValue {
		filter, err := eventFilter(it.spec, c.namespaces())
		if err != nil {
			return nil, err
		}
		r.ItemToMonitor.AttributeID = ua.AttributeIDEventNotifier
		r.RequestedParameters.SamplingInterval = 0
		r.RequestedParameters.Filter = ua.NewExtensionObject(filter)
		return r, nil
	}
	r.ItemToMonitor.IndexRange = it.spec.index
	f := &ua.DataChangeFilter{Trigger: it.trigger}
	if filtered {
		f.DeadbandType, f.DeadbandValue = it.deadband()
	}
	if f.DeadbandType != 0 || it.trigger != triggers[0] {
		r.RequestedParameters.Filter = ua.NewExtensionObject(f)
	}
	if it.local = 0; f.DeadbandType == 0 {
		it.local = it.width
	}
	return r, nil
}

// sampling returns the sampling interval of an item.
func (s *subscription) sampling(it *item) time.Duration {
	if it.spec.sampling >= 0 {
		return it.spec.sampling
	}
	return s.every
}

// queue returns how many values the server is to keep of an item: enough for the
// time of the setting buffer, and twice what one publishing interval brings.
func (s *subscription) queue(it *item) int {
	const most = 100_000
	if it.spec.queue > 0 {
		return it.spec.queue
	}
	if it.kind != aValue {
		return 1000
	}
	every := max(s.sampling(it), time.Millisecond)
	n := (s.l.s.buffer+every-1)/every + 2*((s.every+every-1)/every)
	return int(min(max(n, 2), most))
}

// deadband returns the server's part of an item's dead-band: it keeps back what
// the gateway would keep back too.
func (it *item) deadband() (kind uint32, value float64) {
	if it.percent > 0 {
		return uint32(ua.DeadbandTypePercent), it.percent
	}
	d := it.tag.Dead
	width := d.Value
	switch {
	case d.Kind == point.Percent:
		width = math.Abs(it.tag.Scale.EngHigh-it.tag.Scale.EngLow) * d.Value / 100
	case d.Kind != point.Absolute:
		return 0, 0
	}
	switch sc := it.tag.Scale; sc.Kind {
	case point.Factor:
		width /= math.Abs(sc.Factor)
	case point.Linear:
		width *= math.Abs((sc.RawHigh - sc.RawLow) / (sc.EngHigh - sc.EngLow))
	}
	if !(width > 0) || math.IsInf(width, 0) {
		return 0, 0
	}
	return uint32(ua.DeadbandTypeAbsolute), width
}

// askRanges finds the widths of percent dead-bands for servers that cannot do
// them: from EURange, once for each session.
func (s *subscription) askRanges(ctx context.Context, c *conn, items []*item) error {
	var ask []*item
	var nodes []wire.NodeID
	for _, it := range items {
		if it.percent > 0 {
			ask, nodes = append(ask, it), append(nodes, it.node)
		}
	}
	shapes, err := c.shapesOf(ctx, nodes)
	if err != nil {
		return err
	}
	for i, it := range ask {
		it.width = 0
		if r := shapes[i].span; r != nil && r.High > r.Low {
			it.width = (r.High - r.Low) * it.percent / 100
		}
	}
	return nil
}

// monitorModel watches for changes of the address space (OPC 10000-3, 9.32),
// where the server tells of them.
func (s *subscription) monitorModel(ctx context.Context, c *conn) {
	filter := &ua.EventFilter{
		SelectClauses: []*ua.SimpleAttributeOperand{selectField(wire.Num(0, id.BaseEventType), wire.Name{Name: "EventType"})},
		WhereClause:   where(ofType(wire.Num(0, id.GeneralModelChangeEventType))),
	}
	r := &ua.MonitoredItemCreateRequest{
		ItemToMonitor:  attribute(wire.Num(0, id.Server), ua.AttributeIDEventNotifier),
		MonitoringMode: ua.MonitoringModeReporting,
		RequestedParameters: &ua.MonitoringParameters{
			ClientHandle: s.modelHandle(), QueueSize: 10, DiscardOldest: true, Filter: ua.NewExtensionObject(filter),
		},
	}
	var res wire.CreatedItems
	_ = c.call(ctx, &ua.CreateMonitoredItemsRequest{
		SubscriptionID: s.number(), TimestampsToReturn: ua.TimestampsToReturnNeither,
		ItemsToCreate: []*ua.MonitoredItemCreateRequest{r},
	}, &res)
}

// mend makes the items again that the server refused, and moves those whose
// address has come to mean another node.
func (s *subscription) mend(ctx context.Context) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.conn
	s.l.mu.Lock()
	current := s.l.conn
	s.l.mu.Unlock()
	if current == nil || c != nil && c != current {
		return // restore comes
	}
	ctx, release := s.l.bind(ctx)
	defer release()
	var err error
	if c == nil {
		c = current
		err = s.create(ctx, c, "the server had no subscription")
	} else {
		err = s.mendItems(ctx, c)
	}
	if err != nil && ctx.Err() == nil {
		c.Close()
	}
}

func (s *subscription) mendItems(ctx context.Context, c *conn) error {
	moved := s.recheck.Swap(false)
	var again []*item
	var gone []uint32
	if moved {
		var err error
		if gone, err = s.moved(ctx, c); err != nil {
			s.recheck.Store(true)
			return err
		}
	}
	for _, it := range s.items {
		if !it.live {
			again = append(again, it)
		}
	}
	if len(gone) > 0 {
		err := c.call(ctx, &ua.DeleteMonitoredItemsRequest{SubscriptionID: s.number(), MonitoredItemIDs: gone},
			&wire.Statuses{Type: id.DeleteMonitoredItemsResponse_Encoding_DefaultBinary})
		var status ua.StatusCode
		if err != nil && !errors.As(err, &status) {
			return err
		}
	}
	if len(again) == 0 {
		return nil
	}
	return s.monitor(ctx, c, again)
}

// moved takes the items down whose address means another node now, and returns
// the numbers of their monitored items.
func (s *subscription) moved(ctx context.Context, c *conn) (gone []uint32, err error) {
	c.mu.Lock()
	c.forgetNodes()
	c.mu.Unlock()
	addrs := make([]*address, len(s.items))
	for i, it := range s.items {
		addrs[i] = &it.addr
	}
	nodes, err := c.resolve(ctx, addrs)
	if err != nil {
		return nil, err
	}
	for i, it := range s.items {
		if it.kind == aMethod || it.live && nodes[i].err == nil && nodes[i].id == it.node {
			continue
		}
		if it.live && it.number != 0 {
			gone = append(gone, it.number)
		}
		it.live, it.failed, it.keeps = false, nil, unasked
		it.gap = "the address has come to mean another node"
	}
	return gone, nil
}
