package sparkplug

import (
	"context"
	"errors"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/sparkplug/payload"
)

func testLink(t *testing.T, o Options) *link {
	o.URL, o.Group, o.Node, o.Clock = "mqtt://x", "G", "N", clocktest.New(time.Time{})
	o.Decode = func(*hub.Record, *Batch) error { return nil }
	u, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return newLink(u, 0)
}

// TestInboxIsBounded: what comes faster than it is read is refused and counted.
func TestInboxIsBounded(t *testing.T) {
	l := testLink(t, Options{})
	const size = 100 << 10
	m := client.Message{Topic: []byte("spBv1.0/G/NCMD/N"), Payload: make([]byte, size)}
	for range 20 {
		l.onMessage(nil, &m)
	}
	if n := len(l.inbox); n != inboxBytes/size || l.u.Stats().RefusedCommands != uint64(20-n) {
		t.Errorf("%d messages wait, %d were refused", n, l.u.Stats().RefusedCommands)
	}
}

// TestOfflineStopsAtOnce: when STATE has come, nothing that is being sent goes
// on, and an answer behind it settles nothing.
func TestOfflineStopsAtOnce(t *testing.T) {
	l := testLink(t, Options{PrimaryHost: "scada"})
	l.born, l.probed = true, 1
	l.sent = []item{{settled: func(err error) { t.Errorf("settled with %v", err) }}}
	say := func(text string) {
		l.onMessage(nil, &client.Message{Topic: []byte("spBv1.0/STATE/scada"), Payload: []byte(text)})
	}
	say(`{"online":true,"timestamp":2}`)
	say(`{"online":false,"timestamp":1}`)
	if l.ctx.Err() != nil || l.isOffline() {
		t.Error("an offline of an earlier session was believed")
	}
	say(`{"online":false,"timestamp":2}`)
	if l.ctx.Err() == nil || !l.isOffline() {
		t.Error("sending goes on")
	}
	l.settle(time.Hour)
}

// TestOrdersAreBounded: commands that nobody takes in time are refused.
func TestOrdersAreBounded(t *testing.T) {
	o := Options{Commands: true}
	o.Command = func(context.Context, Command) error { return nil }
	l := testLink(t, o)
	if err := l.s.n.configure([]Device{{Name: "d", Tags: []Tag{{Name: "t", Datatype: payload.Boolean, Writable: true}}}}); err != nil {
		t.Fatal(err)
	}
	p := payload.Payload{HasTimestamp: true, Metrics: []payload.Metric{{Name: "t", Scalar: payload.Scalar{Field: payload.BoolField, Bits: 1}}}}
	for range commandQueue + 10 {
		p.Timestamp++
		if err := l.read(&letter{topic: "spBv1.0/G/DCMD/N/d", payload: payload.Append(nil, &p)}, 0); err != nil {
			t.Fatal(err)
		}
	}
	if s := l.u.Stats(); s.Commands != commandQueue || s.RefusedCommands != 10 || len(l.orders) != commandQueue {
		t.Errorf("%+v, %d wait", s, len(l.orders))
	}
}

// FuzzCommand reads whatever a server may send.
func FuzzCommand(f *testing.F) {
	for _, p := range []payload.Payload{
		{HasTimestamp: true, Timestamp: 1, Metrics: []payload.Metric{{Name: "t", Scalar: payload.Scalar{Field: payload.BoolField, Bits: 1}}}},
		{HasTimestamp: true, Timestamp: 1 << 63, Metrics: []payload.Metric{{Alias: 1, HasAlias: true, Null: true}}},
		{Metrics: []payload.Metric{{Name: metricRebirth, Datatype: payload.Boolean, Scalar: payload.Scalar{Field: payload.BoolField, Bits: 1}}}},
	} {
		f.Add("spBv1.0/G/DCMD/N/d", payload.Append(nil, &p), false)
		f.Add("spBv1.0/G/NCMD/N", payload.Append(nil, &p), true)
	}
	f.Fuzz(func(t *testing.T, topic string, body []byte, retain bool) {
		o := Options{Commands: true, Servers: []string{"mqtt://y"}}
		o.Command = func(context.Context, Command) error { return nil }
		l := testLink(t, o)
		if err := l.s.n.configure([]Device{{Name: "d", Tags: []Tag{{Name: "t", Datatype: payload.Boolean, Writable: true}}}}); err != nil {
			t.Fatal(err)
		}
		if err := l.read(&letter{topic, body, retain}, 0); err != nil && !errors.Is(err, errNextServer) {
			t.Fatal(err)
		}
		for range len(l.orders) {
			if c := <-l.orders; c.Device != "d" || c.Tag != "t" || c.Value.Kind() != payload.BoolKind || retain || !c.Expires.After(c.Issued) {
				t.Fatalf("%+v", c)
			}
		}
		if retain && l.rebirth {
			t.Fatal("a retained request was taken")
		}
	})
}
