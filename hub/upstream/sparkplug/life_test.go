package sparkplug_test

import (
	"context"
	"testing"
	"time"

	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
)

func plant() []sparkplug.Device {
	return []sparkplug.Device{
		{Name: "press", Tags: []sparkplug.Tag{
			{Name: "temp", Datatype: payload.Float, Unit: "Cel"}, {Name: "count", Datatype: payload.Int16},
			{Name: "running", Datatype: payload.Boolean, Writable: true}, {Name: "hydraulics/pressure", Unit: "bar"},
		}},
		{Name: "oven", Tags: []sparkplug.Tag{{Name: "temp", Datatype: payload.Double}}},
	}
}

// life is a long life of an edge node on one server with MQTT 3.1.1: every kind
// of message, the sequence number around its end, every reason for a birth, and
// three connections of which the first is closed and the second is cut.
func life(t *testing.T) []*seen {
	r := newRecorder(t)
	srv := r.server("a")
	orders := make(chan sparkplug.Command, 10)
	e := newEdge(t, sparkplug.Options{URL: srv.URL, Commands: true, Means: sparkplug.Means{
		Devices: plant, Properties: map[string]string{"Hardware Make": "x"},
		Command: func(_ context.Context, c sparkplug.Command) error { orders <- c; return nil },
	}})
	e.connect()
	e.send("press", number("temp", 21.5), reading("count", payload.IntValue(-5)), reading("running", payload.BoolValue(true)), number("hydraulics/pressure", 1.25))
	e.send("", reading("cpu", payload.IntValue(3)))              // a new metric of the node: NBIRTH again
	e.send("", reading("cpu", payload.IntValue(4)))              //
	e.send("oven", number("temp", 200))                          //
	e.send("press", number("new", 1))                            // a new metric of a device: DBIRTH again
	e.send("saw", reading("speed", payload.Value{}))             // a new device
	e.send("saw", reading("speed", payload.StringValue("fast"))) // another datatype
	for i := range 300 {
		e.send("press", number("temp", float64(i)))
	}
	now := e.clk.Now()
	e.send("press", // out of order, uncertain, bad
		sparkplug.Reading{Tag: "temp", Value: payload.DoubleValue(2), Time: now.Add(2 * time.Millisecond), Quality: 0x408F0000},
		sparkplug.Reading{Tag: "count", Value: payload.IntValue(7), Time: now.Add(time.Millisecond)},
		sparkplug.Reading{Tag: "running", Time: now, Quality: 0x803C0000, Detail: "out of range"})
	e.send("press", number("temp", 3)) // good again
	e.send("oven", lostReading("temp"))
	e.send("oven", number("temp", 20))
	e.sendOld(time.Hour, "press", number("temp", 19))
	births := count(r, "NBIRTH")
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), false)
	r.awaitCount("NBIRTH", births+1)
	e.send("oven", number("temp", 21))
	srv.say("spBv1.0/G/DCMD/N/press", command(e.clk.Now(), payload.Metric{Name: "running", Scalar: payload.Scalar{Field: payload.BoolField, Bits: 1}}), false)
	select {
	case c := <-orders:
		if c.Device != "press" || c.Tag != "running" || !c.Value.Bool() || !c.Issued.Equal(e.clk.Now().Truncate(time.Millisecond)) {
			t.Errorf("%+v", c)
		}
	case <-time.After(patience):
		t.Fatal("no command")
	}
	if err := e.link.Close(); err != nil {
		t.Fatal(err)
	}
	r.awaitCount("DISCONNECT", 1)
	e.connect()
	e.send("press", number("temp", 5))
	srv.Cut()
	<-e.link.Done()
	e.connect()
	e.send("press", number("temp", 6))
	return r.seen()
}

func count(r *recorder, kind string) (n int) {
	for _, m := range r.seen() {
		if m.kind == kind {
			n++
		}
	}
	return n
}

// lifeV5 is a short life with MQTT 5 and names instead of aliases.
func lifeV5(t *testing.T) []*seen {
	r := newRecorder(t)
	srv := r.server("a")
	e := newEdge(t, sparkplug.Options{URL: srv.URL, Version: client.Version5, NoAliases: true, Means: sparkplug.Means{Devices: plant}})
	e.connect()
	e.send("press", number("temp", 21.5))
	e.link.Close()
	return r.seen()
}

// lifeWithHost has two servers and a primary host that goes away and comes back.
func lifeWithHost(t *testing.T) []*seen {
	r := newRecorder(t)
	a, b := r.server("a"), r.server("b")
	e := newEdge(t, sparkplug.Options{URL: a.URL, Servers: []string{b.URL}, PrimaryHost: "scada", Means: sparkplug.Means{Devices: plant}})
	a.retain("scada", false, 10)
	connected := make(chan hub.Link)
	go func() {
		l, err := e.up.Connect(context.Background())
		if err != nil {
			t.Error(err)
		}
		connected <- l
	}()
	r.await("the second server", func(all []*seen) bool {
		return len(all) > 0 && all[len(all)-1].server == "b" && all[len(all)-1].kind == "SUBSCRIBE"
	})
	b.state("other", true, 100)
	b.say("spBv1.0/STATE/scada", []byte("ONLINE"), false)
	b.say("spBv1.0/STATE/scada", []byte(`{"online":true}`), false)
	select {
	case <-connected:
		t.Fatal("born without its primary host")
	case <-time.After(50 * time.Millisecond):
	}
	b.state("scada", true, 100)
	if e.link = <-connected; e.link == nil {
		t.FailNow()
	}
	t.Cleanup(func() { e.link.Close() })
	e.send("press", number("temp", 1))
	b.state("scada", false, 99) // of an earlier session of the host
	e.send("press", number("temp", 2))
	b.state("scada", true, 100) // as a host answers it
	e.send("press", number("temp", 3))
	a.retain("scada", true, 200)
	b.state("scada", false, 100)
	select {
	case <-e.link.Done():
	case <-time.After(patience):
		t.Fatal("the link did not end")
	}
	e.connect()
	e.send("press", number("temp", 4))
	return r.seen()
}
