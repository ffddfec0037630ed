package sparkplug_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/hub"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
)

// TestQualityRecovers: the first good value after a bad one says so.
func TestQualityRecovers(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{})
	e.send("saw", number("speed", 1))
	e.send("saw", sparkplug.Reading{Tag: "speed", Value: payload.DoubleValue(1), Quality: 0x803C0000})
	e.send("saw", number("speed", 2))
	e.send("saw", number("speed", 3))
	var got []string
	for n := range 4 {
		text := "none"
		for _, p := range r.awaitCount("DDATA", n+1).p.Metrics[0].Properties {
			if p.Key == "Quality" {
				text = fmt.Sprint(p.Scalar.Bits)
			}
		}
		got = append(got, text)
	}
	expect(t, "qualities", got, "192", "0", "192", "none") // before the first it was born without a value
}

// TestDatatypeWidens makes a birth when a value does not fit, and none when it does.
func TestDatatypeWidens(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{Means: sparkplug.Means{Devices: plant}})
	r.awaitCount("DBIRTH", 2)
	born := 2
	datatype := func(device, tag string) payload.Datatype {
		t.Helper()
		var last *seen
		for _, m := range r.seen() {
			if m.kind == "DBIRTH" && m.device == device {
				last = m
			}
		}
		return last.metric(tag).Datatype
	}
	for _, c := range []struct {
		device, tag string
		v           payload.Value
		births      int
		want        payload.Datatype
	}{
		{"press", "count", payload.IntValue(7), 0, payload.Int16},
		{"press", "count", payload.IntValue(40000), 1, payload.Int64},
		{"press", "count", payload.DoubleValue(0.5), 1, payload.Double},
		{"press", "count", payload.IntValue(8), 0, payload.Double},
		{"press", "count", payload.StringValue("?"), 1, payload.String},
		{"press", "temp", payload.DoubleValue(1), 0, payload.Float},
		{"press", "hydraulics/pressure", payload.Value{}, 0, payload.Double}, // nothing is known yet
		{"press", "hydraulics/pressure", payload.DoubleValue(1), 0, payload.Double},
	} {
		e.send(c.device, reading(c.tag, c.v))
		born += c.births
		if n := count(r, "DBIRTH"); n != born || datatype(c.device, c.tag) != c.want {
			t.Errorf("%s = %v: %d births, datatype %d, want %d and %d", c.tag, c.v, n, datatype(c.device, c.tag), born, c.want)
		}
	}
	expect(t, "count", r.values("press", "count"), "7", "40000", "0.5", "8", "?")
}

// TestToldOnce: what a birth or news have told as current is not told again.
func TestToldOnce(t *testing.T) {
	r, srv, e := open(t, sparkplug.Options{})
	e.sendOld(3*time.Second, "saw", number("speed", 1), number("feed", 7))
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), false)
	r.awaitCount("NBIRTH", 2)
	e.clk.Advance(2 * time.Second)
	e.send("oven", number("temp", 1)) // by now the quiet second is over
	expect(t, "speed", r.values("saw", "speed"), "old 1")
	e.sendOld(time.Hour, "saw", number("speed", 0)) // older than what a birth told
	e.sendOld(-time.Second, "saw", number("feed", 8))
	e.sendOld(time.Hour, "saw", number("speed", 0))
	e.clk.Advance(2 * time.Second)
	e.send("oven", number("temp", 2))
	expect(t, "speed", r.values("saw", "speed"), "old 1", "old 0", "old 0")
	expect(t, "feed", r.values("saw", "feed"), "old 7", "8")

	e.sendOld(time.Hour, "mill", number("a", 1), number("b", 1))
	e.send("mill", number("a", 2)) // tells b too
	e.sendOld(time.Hour, "mill", number("c", 1))
	e.clk.Advance(2 * time.Second)
	e.send("oven", number("temp", 3))
	expect(t, "b", r.values("mill", "b"), "old 1", "1")
	expect(t, "c", r.values("mill", "c"), "old 1", "1")
}

// TestNewsWaited: a record that waited a little inside the session is news.
func TestNewsWaited(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{})
	e.clk.Advance(time.Minute)
	e.sendOld(59*time.Second, "saw", number("speed", 1))
	e.sendOld(61*time.Second, "oven", number("temp", 1))
	expect(t, "speed", r.values("saw", "speed"), "1")
	expect(t, "temp", r.values("oven", "temp"), "old 1")
}

// TestSilenceStartsAnew: the time of a device counts from the session's birth.
func TestSilenceStartsAnew(t *testing.T) {
	r, srv, e := open(t, sparkplug.Options{DeviceTimeout: time.Minute})
	e.send("saw", number("speed", 1))
	srv.Cut()
	e.ends()
	e.clk.Advance(time.Hour)
	e.connect()
	e.clk.Advance(59 * time.Second)
	e.send("oven", number("temp", 1))
	if got := r.kinds(2); got != "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH saw, DBIRTH oven, DDATA oven" {
		t.Error(got)
	}
	e.clk.Advance(2 * time.Second)
	if m := r.awaitCount("DDEATH", 1); m.device != "saw" {
		t.Error(m)
	}
}

// TestQuestionsStop: when everything is settled nobody is asked any more.
func TestQuestionsStop(t *testing.T) {
	_, srv, e := open(t, sparkplug.Options{})
	for i := range 5 {
		e.send("saw", number("speed", float64(i)))
	}
	for range 50 {
		e.clk.Advance(10 * time.Second)
		time.Sleep(time.Millisecond)
	}
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.asked == 0 || srv.asked > 5 {
		t.Errorf("%d questions for 5 records", srv.asked)
	}
}

// TestBurstInterrupted ends the connection in the middle of a burst: each
// record of it is settled.
func TestBurstInterrupted(t *testing.T) {
	r := newRecorder(t)
	srv := r.server("a")
	closed := make(chan struct{})
	var once sync.Once
	e := newEdge(t, sparkplug.Options{URL: srv.URL, Means: sparkplug.Means{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &closing{nc, func() { once.Do(func() { close(closed) }) }}, err
		},
	}})
	e.connect()
	e.send("saw", number("speed", 0))
	e.middle = func() {
		srv.Cut()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Error("the connection did not end")
		}
	}
	var answers []<-chan error
	for i := range 10 {
		answers = append(answers, e.start(e.clk.Now(), "saw", number("speed", float64(i))))
	}
	for i, a := range answers {
		if err := wait(t, a); err == nil {
			t.Errorf("record %d was confirmed", i)
		}
	}
}

// closing is a connection that tells of its end.
type closing struct {
	net.Conn
	told func()
}

func (c *closing) Close() error {
	err := c.Conn.Close()
	c.told()
	return err
}

// TestDecoderFails refuses one record and goes on.
func TestDecoderFails(t *testing.T) {
	_, _, e := open(t, sparkplug.Options{})
	answer := make(chan error, 1)
	if err := e.link.Send(&hub.Outgoing{Record: hub.Record{Payload: []byte("not a batch")}}, func(err error) { answer <- err }); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, answer); err == nil || !strings.Contains(err.Error(), hub.ErrRejected.Error()) {
		t.Error(err)
	}
	e.send("saw", number("speed", 1))
}
