package sparkplug_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
)

// patience is how long tests wait for what must happen.
const patience = 20 * time.Second

// A seen is one packet that the edge node sent.
type seen struct {
	server string
	conn   int // counts connections over all servers
	packet *packets.Packet
	kind   string // NBIRTH and so on for messages, else CONNECT, SUBSCRIBE, DISCONNECT, END
	device string
	p      payload.Payload
}

func (s *seen) String() string { return fmt.Sprintf("%s %s (connection %d)", s.kind, s.device, s.conn) }

// metric returns the metric of that name, nil if there is none.
func (s *seen) metric(name string) *payload.Metric {
	for i := range s.p.Metrics {
		if s.p.Metrics[i].Name == name {
			return &s.p.Metrics[i]
		}
	}
	return nil
}

// A recorder is what several servers saw, in order.
type recorder struct {
	t     *testing.T
	mu    sync.Mutex
	all   []*seen
	conns map[*clienttest.Session]int
	count int
}

// A server is one server with the STATE that it retains.
type server struct {
	*clienttest.Server
	r    *recorder
	name string

	mu      sync.Mutex
	states  map[string]string // by topic
	ignored bool              // UNSUBSCRIBE gets no answer
	asked   int               // UNSUBSCRIBEs that came
}

func newRecorder(t *testing.T) *recorder {
	return &recorder{t: t, conns: map[*clienttest.Session]int{}}
}

func (r *recorder) server(name string) *server {
	s := &server{r: r, name: name, states: map[string]string{}}
	s.Server = clienttest.Start(r.t, clienttest.Options{OnPublish: s.onPublish, OnPacket: s.onPacket})
	return s
}

func (s *server) add(ses *clienttest.Session, p *packets.Packet, kind string) *seen {
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	if kind == "CONNECT" {
		s.r.count++
		s.r.conns[ses] = s.r.count
	}
	m := &seen{server: s.name, conn: s.r.conns[ses], packet: p, kind: kind}
	s.r.all = append(s.r.all, m)
	return m
}

func (s *server) onPublish(ses *clienttest.Session, p *packets.Packet) int {
	levels := strings.Split(p.TopicName, "/")
	if len(levels) < 4 || len(levels) > 5 {
		s.r.t.Errorf("topic %q", p.TopicName)
		return 0
	}
	m := &seen{}
	if err := payload.Decode(append([]byte(nil), p.Payload...), &m.p); err != nil {
		s.r.t.Errorf("%s: %v", p.TopicName, err)
	}
	if len(levels) == 5 {
		m.device = levels[4]
	}
	s.r.mu.Lock()
	defer s.r.mu.Unlock()
	m.server, m.conn, m.packet, m.kind = s.name, s.r.conns[ses], p, levels[2]
	s.r.all = append(s.r.all, m)
	return 0
}

func (s *server) onPacket(ses *clienttest.Session, p *packets.Packet) bool {
	switch p.FixedHeader.Type {
	case packets.Connect:
		m := s.add(ses, p, "CONNECT")
		if err := payload.Decode(p.Connect.WillPayload, &m.p); err != nil {
			s.r.t.Errorf("will: %v", err)
		}
	case packets.Subscribe:
		s.add(ses, p, "SUBSCRIBE")
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, f := range p.Filters {
			for topic, text := range s.states {
				if f.Filter == topic {
					go ses.Send(publish(topic, []byte(text), true))
				}
			}
		}
	case packets.Unsubscribe:
		s.mu.Lock()
		defer s.mu.Unlock()
		s.asked++
		return s.ignored
	case packets.Disconnect:
		s.add(ses, p, "DISCONNECT")
	}
	return false
}

func publish(topic string, body []byte, retain bool) *packets.Packet {
	return &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: retain}, TopicName: topic, Payload: body}
}

// retain sets a STATE without telling anybody.
func (s *server) retain(host string, online bool, stamp int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.states["spBv1.0/STATE/"+host] = fmt.Sprintf(`{"online":%t,"timestamp":%d}`, online, stamp)
}

// state tells a STATE to the connections there are.
func (s *server) state(host string, online bool, stamp int64) {
	s.say("spBv1.0/STATE/"+host, fmt.Appendf(nil, `{"timestamp":%d,"online":%t}`, stamp, online), false)
}

// say publishes to all connections.
func (s *server) say(topic string, body []byte, retain bool) {
	for _, c := range s.Sessions() {
		if err := c.Send(publish(topic, body, retain)); err != nil {
			s.r.t.Log(err)
		}
	}
}

// seen returns a copy of what was seen.
func (r *recorder) seen() []*seen {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]*seen(nil), r.all...)
}

// await waits until something holds of what was seen.
func (r *recorder) await(what string, holds func([]*seen) bool) {
	r.t.Helper()
	for deadline := time.Now().Add(patience); !holds(r.seen()); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			for _, m := range r.seen() {
				r.t.Log(m)
			}
			r.t.Fatalf("waited for %s", what)
		}
	}
}

// awaitCount waits until so many messages of a kind were seen, and returns the
// last of these.
func (r *recorder) awaitCount(kind string, n int) (nth *seen) {
	r.t.Helper()
	r.await(fmt.Sprintf("%d %s", n, kind), func(all []*seen) bool {
		count := 0
		for _, m := range all {
			if m.kind != kind {
				continue
			}
			if count++; count == n {
				nth = m
				return true
			}
		}
		return false
	})
	return nth
}

// kinds returns the kinds and devices of what was seen on a connection.
func (r *recorder) kinds(conn int) string {
	var list []string
	for _, m := range r.seen() {
		if m.conn == conn {
			list = append(list, strings.TrimSpace(m.kind+" "+m.device))
		}
	}
	return strings.Join(list, ", ")
}

// An edge is an edge node in the hands of a test.
type edge struct {
	t    *testing.T
	clk  *clocktest.Fake
	up   *sparkplug.Upstream
	link hub.Link

	mu      sync.Mutex
	batches map[uint64]*sparkplug.Batch
	offset  uint64
	middle  func() // called when a record is read
}

func newEdge(t *testing.T, o sparkplug.Options) *edge {
	e := &edge{t: t, clk: clocktest.New(time.Time{}), batches: map[uint64]*sparkplug.Batch{}}
	if o.Group == "" {
		o.Group = "G"
	}
	if o.Bound == 0 {
		o.Bound = 24 * time.Hour // time is the test's; a server of a test is never silent
	}
	o.Node, o.Clock, o.Decode = "N", e.clk, e.decode
	var err error
	if e.up, err = sparkplug.New(o); err != nil {
		t.Fatal(err)
	}
	return e
}

// decode finds the batch that the test has put aside for a record.
func (e *edge) decode(r *hub.Record, b *sparkplug.Batch) error {
	if e.middle != nil {
		e.middle()
		e.middle = nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	var n uint64
	if _, err := fmt.Sscan(string(r.Payload), &n); err != nil {
		return err
	}
	b.Device, b.Readings = e.batches[n].Device, append(b.Readings, e.batches[n].Readings...)
	return nil
}

func (e *edge) connect() {
	e.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := e.up.Connect(ctx)
	if err != nil {
		e.t.Fatal(err)
	}
	e.link = l
	e.t.Cleanup(func() { l.Close() })
}

// start sends a record that was received at a time, and returns its settlement.
func (e *edge) start(at time.Time, device string, readings ...sparkplug.Reading) <-chan error {
	e.t.Helper()
	e.mu.Lock()
	e.offset++
	n := e.offset
	e.batches[n] = &sparkplug.Batch{Device: device, Readings: readings}
	e.mu.Unlock()
	answer := make(chan error, 1)
	m := &hub.Outgoing{Record: hub.Record{Received: at.UnixMicro(), Payload: fmt.Append(nil, n)}, Offset: n, Attempt: 1}
	if err := e.link.Send(m, func(err error) { answer <- err }); err != nil {
		answer <- err
	}
	return answer
}

// send sends news and waits for its settlement.
func (e *edge) send(device string, readings ...sparkplug.Reading) {
	e.t.Helper()
	e.clk.Advance(time.Millisecond)
	if err := wait(e.t, e.start(e.clk.Now(), device, readings...)); err != nil {
		e.t.Fatal(err)
	}
}

// sendOld sends history.
func (e *edge) sendOld(age time.Duration, device string, readings ...sparkplug.Reading) {
	e.t.Helper()
	if err := wait(e.t, e.start(e.clk.Now().Add(-age), device, readings...)); err != nil {
		e.t.Fatal(err)
	}
}

func wait(t *testing.T, answer <-chan error) error {
	t.Helper()
	select {
	case err := <-answer:
		return err
	case <-time.After(patience):
		t.Fatal("not settled")
		return nil
	}
}

func reading(tag string, v payload.Value) sparkplug.Reading {
	return sparkplug.Reading{Tag: tag, Value: v}
}

func number(tag string, f float64) sparkplug.Reading { return reading(tag, payload.DoubleValue(f)) }

func lostReading(tag string) sparkplug.Reading {
	return sparkplug.Reading{Tag: tag, Quality: 0x80310000, Detail: "no route to host"}
}

// command returns the payload of NCMD or DCMD.
func command(at time.Time, metrics ...payload.Metric) []byte {
	return payload.Append(nil, &payload.Payload{Timestamp: uint64(at.UnixMilli()), HasTimestamp: true, Metrics: metrics})
}

func rebirth() payload.Metric {
	return payload.Metric{Name: "Node Control/Rebirth", Datatype: payload.Boolean, Scalar: payload.Scalar{Field: payload.BoolField, Bits: 1}}
}
