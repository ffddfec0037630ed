package sparkplug_test

import (
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
	"holdfast/hub/upstream/upstreamtest"
)

// far is a scripted server and host.
type far struct {
	t   *testing.T
	clk *clocktest.Fake
	srv *clienttest.Server
	up  hub.Upstream

	mu     sync.Mutex
	answer upstreamtest.Answer
	got    []string
	gone   bool
}

const bound = 10 * time.Second

// TestConformance runs the suite against forms of the edge node.
func TestConformance(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]sparkplug.Options{
		"v311": {},
		"v5":   {Version: client.Version5, NoAliases: true},
		"host": {PrimaryHost: "scada", HostGrace: 20 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstreamtest.Run(t, func(t *testing.T) upstreamtest.Far { return openFar(t, o) })
		})
	}
}

func openFar(t *testing.T, o sparkplug.Options) *far {
	f := &far{t: t, clk: clocktest.New(time.Time{})}
	f.srv = clienttest.Start(t, clienttest.Options{OnPublish: f.onPublish, OnPacket: f.onPacket})
	o.URL, o.Bound, o.Clock, o.Group, o.Node = f.srv.URL, bound, f.clk, "G", "N"
	o.Decode = f.decode
	var err error
	if f.up, err = sparkplug.New(o); err != nil {
		t.Fatal(err)
	}
	return f
}

// decode makes a text of the payload. It is also where a record is refused:
// QoS 0 leaves the server no word for that.
func (f *far) decode(r *hub.Record, b *sparkplug.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.answer == upstreamtest.Reject {
		return errors.New("not a reading")
	}
	b.Device = "d"
	b.Readings = append(b.Readings, sparkplug.Reading{Tag: "text", Value: payload.StringValue(string(r.Payload))})
	return nil
}

func (f *far) onPacket(s *clienttest.Session, p *packets.Packet) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone && p.FixedHeader.Type != packets.Disconnect {
		return true
	}
	if p.FixedHeader.Type == packets.Unsubscribe && f.answer == upstreamtest.Ignore {
		return true
	}
	if p.FixedHeader.Type == packets.Subscribe {
		go func() {
			for _, sub := range p.Filters {
				if sub.Filter == "spBv1.0/STATE/scada" {
					s.Send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Retain: true}, TopicName: sub.Filter,
						Payload: []byte(`{"online":true,"timestamp":1}`)})
				}
			}
		}()
	}
	return false
}

func (f *far) onPublish(_ *clienttest.Session, p *packets.Packet) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.answer == upstreamtest.Ignore {
		return clienttest.Silent
	}
	if p.TopicName != "spBv1.0/G/DDATA/N/d" {
		return 0
	}
	var m payload.Payload
	if err := payload.Decode(p.Payload, &m); err != nil {
		f.t.Error(err)
	}
	for i := range m.Metrics {
		v, err := m.Metrics[i].Value(payload.String)
		if err != nil {
			f.t.Error(err)
		}
		f.got = append(f.got, v.String())
	}
	return 0
}

func (f *far) Upstream() hub.Upstream { return f.up }

// Cannot: QoS 0 has no "not now".
func (f *far) Cannot(a upstreamtest.Answer) bool { return a == upstreamtest.Refuse }

func (f *far) Answer(a upstreamtest.Answer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.answer = a
}

func (f *far) Got() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.got...)
}

func (f *far) Vanish() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.gone = true
}

func (f *far) Cut()                 { f.srv.Cut() }
func (f *far) Bound() time.Duration { return bound }
func (f *far) Pass(d time.Duration) { f.clk.Advance(d) }
