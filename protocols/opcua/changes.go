package opcua

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// process hands on what one message brought. The caller holds mu.
func (s *subscription) process(ctx context.Context, c *conn, n *wire.Notification) {
	s.values(ctx, c, n.Changes)
	for i := range n.Events {
		e := &n.Events[i]
		if e.Handle == s.modelHandle() {
			s.recheck.Store(true)
		} else if it := s.item(e.Handle); it != nil && it.kind != aValue {
			s.event(ctx, c, it, e.Fields)
		}
	}
}

// item returns the item of a client handle, nil if there is none.
func (s *subscription) item(handle uint32) *item {
	if int64(handle) >= int64(len(s.items)) {
		return nil
	}
	return s.items[handle]
}

// values hands on new values, and first what is missing before them.
func (s *subscription) values(ctx context.Context, c *conn, changes []wire.Change) {
	var holes map[*item]*hole
	for i := range changes {
		ch := &changes[i]
		it := s.item(ch.Handle)
		if it == nil || it.kind != aValue {
			continue
		}
		if h := s.hole(it, &ch.Value); h != nil {
			if holes == nil {
				holes = map[*item]*hole{}
			}
			if holes[it] == nil { // the first one; a later one in the same message is told as it comes
				h.change = i
				holes[it] = h
			}
		}
	}
	if holes != nil {
		s.backfill(ctx, c, holes)
	}
	for i := range changes {
		ch := &changes[i]
		it := s.item(ch.Handle)
		if it == nil || it.kind != aValue {
			continue
		}
		if h := holes[it]; h != nil && h.change == i {
			s.bridge(ctx, c, it, h)
		} else if h := s.hole(it, &ch.Value); h != nil {
			s.bridge(ctx, c, it, h)
		}
		it.gap = ""
		if s.repeated(it, ch.Value.Source) {
			continue
		}
		s.emit(it, c.sample(ctx, it.spec, &ch.Value))
	}
}

// repeated reports whether a value is older than one that was read out of turn.
func (s *subscription) repeated(it *item, source time.Time) bool {
	if it.read.IsZero() {
		return false
	}
	// A device's clock may be set back: after a while what it says counts again.
	if source.After(it.read) || s.l.clk.Elapsed()-it.readAt > 10*time.Second {
		it.read = time.Time{}
		return false
	}
	return true
}

// verify reads the values of items that have not come since some were lost: a tag
// that changed once in the hole and stands still now would stay wrong for ever.
func (s *subscription) verify(ctx context.Context, c *conn) {
	if !s.doubts {
		return
	}
	s.doubts = false
	var items []*item
	var nodes []*ua.ReadValueID
	for _, it := range s.items {
		switch {
		case it.gap == "" || !it.live:
		case it.kind == aValue:
			r := attribute(it.node, ua.AttributeIDValue)
			r.IndexRange = it.spec.index
			items, nodes = append(items, it), append(nodes, r)
		case it.kind != aMethod:
			s.missedEvents(ctx, c, it)
		}
	}
	values, err := c.readNodes(ctx, nodes, ua.TimestampsToReturnBoth)
	if err != nil {
		s.doubts = true // on the next message
		return
	}
	changes := make([]wire.Change, len(values))
	for i, v := range values {
		changes[i] = wire.Change{Handle: uint32(items[i].at), Value: v}
	}
	s.values(ctx, c, changes)
	for i, it := range items {
		it.read, it.readAt = values[i].Source, s.l.clk.Elapsed()
	}
}

// A hole is a time of which values of an item are missing.
type hole struct {
	change   int // index of the change that ends it
	from, to time.Time
	why      string
	values   []wire.DataValue // what the server's history has of it
	rest     string           // why it is not closed; "" = it is
	restFrom time.Time
}

// hole reports what is missing before a value, nil if nothing is.
func (s *subscription) hole(it *item, d *wire.DataValue) *hole {
	s.out.Lock()
	have, last := it.have, it.last
	s.out.Unlock()
	if !have {
		return nil
	}
	why := it.gap
	if why == "" && d.Status&0xffff&overflow == overflow {
		why = "the server's queue was full"
	}
	if why == "" || !last.Source.IsZero() && last.Source.Equal(d.Source) {
		return nil // the same value still: nothing has happened
	}
	return &hole{from: last.Source, to: d.Source, why: why}
}

// bridge gives the sink what is known of a hole: the values from the server's
// history, and a sample that says what is missing.
func (s *subscription) bridge(ctx context.Context, c *conn, it *item, h *hole) {
	if h.rest == "" && h.values == nil {
		h.rest, h.restFrom = h.why, h.from
	}
	if h.rest != "" && (len(h.values) == 0 || !h.restFrom.After(h.from)) {
		s.tell(it, gapSample(h.from, h.firstOr(h.to), h.rest))
	}
	for i := range h.values {
		s.emit(it, c.sample(ctx, it.spec, &h.values[i]))
	}
	if h.rest != "" && len(h.values) > 0 && h.restFrom.After(h.from) {
		s.tell(it, gapSample(h.restFrom, h.to, h.rest))
	}
}

func (h *hole) firstOr(t time.Time) time.Time {
	if len(h.values) > 0 {
		return h.values[0].Source
	}
	return t
}

// gapSample says that values are missing. Its source time is just after the last
// value that is there.
func gapSample(from, to time.Time, why string) point.Sample {
	at := func(t time.Time) string {
		if t.IsZero() {
			return "an unknown time"
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	s := point.Sample{Quality: point.BadNoData, Detail: fmt.Sprintf("gap from %s to %s: %s", at(from), at(to), why)}
	if !from.IsZero() {
		s.Source = from.Add(time.Microsecond)
	}
	return s
}

// Bounds of one backfill: what is not there by then is a gap.
const (
	backfillTime   = 20 * time.Second
	backfillValues = 100_000 // of one item
	historyPage    = 5000    // values of one item in one answer
)

// backfill asks the server's history for what is missing (OPC 10000-11, 6.4.3).
func (s *subscription) backfill(ctx context.Context, c *conn, holes map[*item]*hole) {
	if !s.l.s.backfill {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, backfillTime)
	defer cancel()
	s.askHistory(ctx, c, holes)
	var items []*item
	for it, h := range holes {
		if it.keeps == kept && !h.from.IsZero() && h.to.After(h.from) {
			items = append(items, it)
		}
	}
	_ = chunks(len(items), min(c.limits.history, 100), func(from, to int) error {
		return s.readHistory(ctx, c, items[from:to], holes)
	})
	for _, it := range items {
		h := holes[it]
		if c.started.After(h.from) && c.started.Before(h.to) && h.rest == "" {
			// What happened while the server was down is in nobody's history.
			h.rest, h.restFrom = "the server was started at "+c.started.Format(time.RFC3339Nano), h.from
		}
	}
}

// askHistory finds out which items have a history that may be read.
func (s *subscription) askHistory(ctx context.Context, c *conn, holes map[*item]*hole) {
	var items []*item
	var nodes []*ua.ReadValueID
	for it := range holes {
		if it.keeps == unasked {
			items, nodes = append(items, it), append(nodes, attribute(it.node, ua.AttributeIDUserAccessLevel))
		}
	}
	values, err := c.readNodes(ctx, nodes, ua.TimestampsToReturnNeither)
	if err != nil {
		return
	}
	const historyRead = 4 // OPC 10000-3, 8.57
	for i, it := range items {
		it.keeps = notKept
		if values[i].Status>>30 == 0 && values[i].Value.Num&historyRead != 0 && it.spec.index == "" {
			it.keeps = kept
		}
	}
}

// readHistory reads the history of some items, from the earliest hole to the latest.
func (s *subscription) readHistory(ctx context.Context, c *conn, items []*item, holes map[*item]*hole) error {
	first, last := holes[items[0]].from, holes[items[0]].to
	for _, it := range items {
		if h := holes[it]; h.from.Before(first) {
			first = h.from
		}
		if h := holes[it]; h.to.After(last) {
			last = h.to
		}
	}
	details := ua.NewExtensionObject(&ua.ReadRawModifiedDetails{StartTime: first, EndTime: last, NumValuesPerNode: historyPage})
	points := make([][]byte, len(items))
	for open := items; len(open) > 0; {
		req := &ua.HistoryReadRequest{HistoryReadDetails: details, TimestampsToReturn: ua.TimestampsToReturnBoth}
		for i, it := range open {
			req.NodesToRead = append(req.NodesToRead, &ua.HistoryReadValueID{
				NodeID: it.node.UA(), DataEncoding: &ua.QualifiedName{}, ContinuationPoint: points[i],
			})
		}
		var res wire.HistoryRead
		err := c.call(ctx, req, &res)
		if err == nil && len(res.Results) != len(open) {
			err = errCount
		}
		if err != nil {
			_, text := qualityOf(err)
			for _, it := range open {
				holes[it].cut("the server's history: " + text)
			}
			var status ua.StatusCode
			if errors.As(err, &status) {
				return nil
			}
			return err
		}
		var more []*item
		var next [][]byte
		for i, it := range open {
			if holes[it].take(&res.Results[i]) {
				more, next = append(more, it), append(next, res.Results[i].More)
			}
		}
		open, points = more, next
	}
	return nil
}

// take adds a page of history and reports whether there is more to ask for.
func (h *hole) take(page *wire.History) (more bool) {
	if page.Status>>30 != 0 {
		h.cut("the server's history: " + wire.StatusText(page.Status))
		return false
	}
	for _, v := range page.Values {
		prev := h.from
		if n := len(h.values); n > 0 {
			prev = h.values[n-1].Source
		}
		if v.Source.After(prev) && v.Source.Before(h.to) {
			h.values = append(h.values, v)
		}
	}
	switch {
	case len(h.values) > backfillValues:
		h.cut(fmt.Sprintf("the hole has more than %d values", backfillValues))
		return false
	case len(page.More) > 0:
		return true
	case len(h.values) == 0:
		h.cut(h.why + "; the server's history has nothing of it")
	}
	return false
}

// cut notes that the history ends before the hole does.
func (h *hole) cut(why string) {
	h.rest, h.restFrom = why, h.from
	if n := len(h.values); n > 0 {
		h.restFrom = h.values[n-1].Source
	}
}
