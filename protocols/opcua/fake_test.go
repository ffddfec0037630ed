package opcua

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock"
	"holdfast/protocols/opcua/channel"
	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// A fakeServer is a server as the ladder sees it: one session, one subscription,
// items by their place, and channels that the test breaks.
type fakeServer struct {
	mu       sync.Mutex
	session  uint32 // number of the live session, 0 = none
	sessions uint32
	transfer bool // subscriptions outlive their session
	sub      *fakeSub
	subs     uint32
	values   map[uint32]float64 // present value, by node
	waiting  []func(wire.Message, error)
	live     *fakeCarrier
	down     bool // nobody can connect
	log      []string
	acked    map[uint32]bool
	read     int
}

type fakeSub struct {
	id    uint32
	seq   uint32 // of the last message
	kept  map[uint32]*ua.NotificationMessage
	queue []*ua.NotificationMessage // made while no publish request waited
	items map[uint32]uint32         // handle by node
}

var fakeStart = time.Date(2024, 6, 1, 0, 0, 0, 0, time.UTC)

// stamp is the source time of the value n: values count up, one each second.
func stamp(n float64) time.Time { return fakeStart.Add(time.Duration(n) * time.Second) }

func newFakeServer() *fakeServer {
	return &fakeServer{values: map[uint32]float64{}, acked: map[uint32]bool{}}
}

func (f *fakeServer) note(format string, args ...any) {
	f.log = append(f.log, fmt.Sprintf(format, args...))
}

// did counts how often something happened.
func (f *fakeServer) did(what string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range f.log {
		if l == what {
			n++
		}
	}
	return n
}

// dial implements [dialer].
func (f *fakeServer) dial(context.Context) (carrier, target, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		return nil, target{}, errors.New("no route")
	}
	f.note("dial")
	f.live = &fakeCarrier{f: f, done: make(chan struct{})}
	e := wire.Endpoint{Mode: ua.MessageSecurityModeNone, PolicyURI: ua.SecurityPolicyURINone}
	e.Tokens = []wire.TokenPolicy{{ID: "a", Type: ua.UserTokenTypeAnonymous}}
	return f.live, target{Endpoint: e}, nil
}

// cut ends the connection.
func (f *fakeServer) cut() {
	f.mu.Lock()
	c := f.live
	f.waiting = nil
	f.mu.Unlock()
	if c != nil {
		c.end(errors.New("cut"))
	}
}

// set gives a node a value and reports it.
func (f *fakeServer) set(node uint32, v float64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[node] = v
	if f.sub == nil {
		return
	}
	if handle, ok := f.sub.items[node]; ok {
		f.publish(f.message(handle, v))
	}
}

// message makes the next message of the subscription. The caller holds mu.
func (f *fakeServer) message(handle uint32, v float64) *ua.NotificationMessage {
	f.sub.seq = following(f.sub.seq)
	m := &ua.NotificationMessage{SequenceNumber: f.sub.seq, PublishTime: stamp(v), NotificationData: []*ua.ExtensionObject{
		ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: []*ua.MonitoredItemNotification{{
			ClientHandle: handle,
			Value:        &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp, Value: ua.MustVariant(v), SourceTimestamp: stamp(v)},
		}}, DiagnosticInfos: []*ua.DiagnosticInfo{}}),
	}}
	f.sub.kept[m.SequenceNumber] = m
	return m
}

// lose makes a message that is sent and never arrives.
func (f *fakeServer) lose(node uint32, v float64, keep bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.values[node] = v
	m := f.message(f.sub.items[node], v)
	if !keep {
		delete(f.sub.kept, m.SequenceNumber)
	}
}

// keepAlive sends an empty message.
func (f *fakeServer) keepAlive() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.publish(&ua.NotificationMessage{SequenceNumber: following(f.sub.seq)})
}

func (f *fakeServer) publish(m *ua.NotificationMessage) {
	if len(f.waiting) == 0 {
		f.sub.queue = append(f.sub.queue, m)
		return
	}
	deliver := f.waiting[0]
	f.waiting = f.waiting[1:]
	deliver(encoded(id.PublishResponse_Encoding_DefaultBinary, &ua.PublishResponse{
		ResponseHeader: okHeader(ua.StatusOK), SubscriptionID: f.sub.id, NotificationMessage: m,
	}), nil)
}

// refuse answers a waiting publish request with an error.
func (f *fakeServer) refuse(status ua.StatusCode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	deliver := f.waiting[0]
	f.waiting = f.waiting[1:]
	deliver(encoded(id.ServiceFault_Encoding_DefaultBinary, &ua.ServiceFault{ResponseHeader: okHeader(status)}), nil)
}

// rubbish answers a waiting publish request with half a message.
func (f *fakeServer) rubbish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	deliver := f.waiting[0]
	f.waiting = f.waiting[1:]
	m := encoded(id.PublishResponse_Encoding_DefaultBinary, &ua.PublishResponse{
		ResponseHeader: okHeader(ua.StatusOK), SubscriptionID: f.sub.id, NotificationMessage: f.message(0, 1),
	})
	m.Body = m.Body[:len(m.Body)-20]
	deliver(m, nil)
}

func okHeader(s ua.StatusCode) *ua.ResponseHeader {
	return &ua.ResponseHeader{ServiceResult: s, ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

// encoded encodes with gopcua what wire decodes.
func encoded(typeID uint32, v any) wire.Message {
	body, err := ua.Encode(v)
	if err != nil {
		panic(err)
	}
	return wire.Message{Type: typeID, Body: body}
}

// A fakeCarrier is one connection to the fake server.
type fakeCarrier struct {
	f    *fakeServer
	once sync.Once
	done chan struct{}
	err  error
}

func (c *fakeCarrier) end(err error) {
	c.once.Do(func() {
		c.err = err
		close(c.done)
	})
}

func (c *fakeCarrier) Run(ctx context.Context) error {
	select {
	case <-c.done:
	case <-ctx.Done():
	}
	return c.err
}

func (c *fakeCarrier) Done() <-chan struct{} { return c.done }
func (c *fakeCarrier) Close()                { c.end(channel.ErrClosed) }
func (c *fakeCarrier) Secure() bool          { return false }

func (c *fakeCarrier) Err() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}

func (c *fakeCarrier) Signature([]byte) ([]byte, string, error) { return nil, "", nil }
func (c *fakeCarrier) SignWith(string, *rsa.PrivateKey, []byte) ([]byte, string, error) {
	return nil, "", nil
}
func (c *fakeCarrier) Verify([]byte, []byte) error                    { return nil }
func (c *fakeCarrier) Encrypt(string, []byte) ([]byte, string, error) { return nil, "", nil }

// Start takes publish requests.
func (c *fakeCarrier) Start(req ua.Request, _ *ua.NodeID, _ time.Duration, deliver func(wire.Message, error)) error {
	f := c.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if c.Err() != nil || f.live != c {
		return errors.New("not connected")
	}
	for _, a := range req.(*ua.PublishRequest).SubscriptionAcknowledgements {
		f.acked[a.SequenceNumber] = true
		if f.sub != nil {
			delete(f.sub.kept, a.SequenceNumber)
		}
	}
	f.waiting = append(f.waiting, deliver)
	if f.sub != nil && len(f.sub.queue) > 0 {
		m := f.sub.queue[0]
		f.sub.queue = f.sub.queue[1:]
		f.publish(m)
	}
	return nil
}

// Call answers what the ladder asks.
func (c *fakeCarrier) Call(_ context.Context, req ua.Request, token *ua.NodeID, res wire.Response) error {
	f := c.f
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := c.Err(); err != nil {
		return &channel.Lost{Err: err}
	}
	if token != nil && (f.session == 0 || token.IntID() != f.session) {
		return ua.StatusBadSessionIDInvalid
	}
	switch r := req.(type) {
	case *ua.CreateSessionRequest:
		f.sessions++
		f.session = f.sessions
		f.note("session")
		res.(*wire.CreatedSession).Token = wire.Num(1, f.session)
		res.(*wire.CreatedSession).Timeout = time.Minute
		if !f.transfer {
			f.sub = nil
		}
	case *ua.ActivateSessionRequest:
		f.note("activate")
	case *ua.ReadRequest:
		f.answerRead(r, res.(*wire.Read))
	case *ua.CreateSubscriptionRequest:
		f.subs++
		f.sub = &fakeSub{id: f.subs, kept: map[uint32]*ua.NotificationMessage{}, items: map[uint32]uint32{}}
		f.note("create")
		*res.(*wire.CreatedSubscription) = wire.CreatedSubscription{ID: f.sub.id, Interval: 10 * time.Millisecond, Lifetime: 1000, KeepAlive: 1000}
	case *ua.CreateMonitoredItemsRequest:
		f.monitor(r, res.(*wire.CreatedItems))
	case *ua.TransferSubscriptionsRequest:
		f.note("transfer")
		status := ua.StatusBadSubscriptionIDInvalid
		if f.sub != nil && f.sub.id == r.SubscriptionIDs[0] {
			status = ua.StatusOK
		}
		res.(*wire.Transferred).Results = []wire.Transfer{{Status: status}}
	case *ua.RepublishRequest:
		return f.republish(r, res.(*wire.Republish))
	}
	return nil
}

func (f *fakeServer) answerRead(r *ua.ReadRequest, res *wire.Read) {
	for _, n := range r.NodesToRead {
		v := wire.DataValue{Status: ua.StatusBadNodeIDUnknown}
		switch {
		case n.NodeID.Namespace() == 0 && n.NodeID.IntID() == id.Server_NamespaceArray:
			b, _ := ua.MustVariant([]string{"http://opcfoundation.org/UA/", "urn:test"}).Encode()
			v = wire.DataValue{Value: wire.NewReader(b).Variant()}
		case n.NodeID.Namespace() == 1 && n.AttributeID == ua.AttributeIDValue:
			f.read++
			b, _ := ua.MustVariant(f.values[n.NodeID.IntID()]).Encode()
			v = wire.DataValue{Value: wire.NewReader(b).Variant(), Source: stamp(f.values[n.NodeID.IntID()])}
		}
		res.Results = append(res.Results, v)
	}
}

func (f *fakeServer) monitor(r *ua.CreateMonitoredItemsRequest, res *wire.CreatedItems) {
	for i, it := range r.ItemsToCreate {
		if it.ItemToMonitor.AttributeID != ua.AttributeIDValue {
			res.Results = append(res.Results, wire.CreatedItem{Status: ua.StatusBadAttributeIDInvalid})
			continue
		}
		node := it.ItemToMonitor.NodeID.IntID()
		f.sub.items[node] = it.RequestedParameters.ClientHandle
		res.Results = append(res.Results, wire.CreatedItem{ID: uint32(i + 1), Queue: it.RequestedParameters.QueueSize})
		f.publish(f.message(it.RequestedParameters.ClientHandle, f.values[node]))
	}
}

func (f *fakeServer) republish(r *ua.RepublishRequest, res *wire.Republish) error {
	f.note("republish %d", r.RetransmitSequenceNumber)
	if f.sub == nil || f.sub.id != r.SubscriptionID {
		return ua.StatusBadSubscriptionIDInvalid
	}
	m := f.sub.kept[r.RetransmitSequenceNumber]
	if m == nil {
		return ua.StatusBadMessageNotAvailable
	}
	return wire.Decode(encoded(id.RepublishResponse_Encoding_DefaultBinary,
		&ua.RepublishResponse{ResponseHeader: okHeader(ua.StatusOK), NotificationMessage: m}), res)
}

// openFake subscribes to nodes 1 to n of a fake server, and waits for their first
// values.
func openFake(t *testing.T, f *fakeServer, n int) (*session, *recorder) {
	t.Helper()
	set, err := parseSettings(map[string]any{
		"endpoint": "opc.tcp://fake", "security_policy": "None", "reconnect_min": "10ms", "reconnect_max": "20ms",
		"publishing_interval": "10ms", "keep_alive": "10s",
	})
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(set, clock.NewReal(), slog.New(slog.NewTextHandler(testWriter{t}, nil)), f, &user{s: set})
	s := &session{settings: set, link: l, results: map[string]point.Sample{}}
	t.Cleanup(func() { s.Close() })
	var tags []point.Tag
	for i := range n {
		tags = append(tags, point.Tag{Name: fmt.Sprint(i), Address: fmt.Sprintf("ns=1;i=%d", i+1)})
	}
	r, _ := subscribe(t, s, tags...)
	for i := range n {
		eventually(t, "a first value", func() bool { return len(r.of(i)) > 0 })
	}
	eventually(t, "publish requests", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.waiting) >= leastPublishes
	})
	return s, r
}
