package sparkplug_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
)

// TestCourses has the assertions that need a course of events of their own. The
// names of the subtests are their ids.
func TestCourses(t *testing.T) {
	for ids, test := range map[string]func(*testing.T){
		"tck-id-message-flow-edge-node-birth-publish-phid-wait tck-id-operational-behavior-edge-node-birth-sequence-wait":                                                                      waitsForHost,
		"tck-id-message-flow-edge-node-birth-publish-phid-wait-id":                                                                                                                             func(t *testing.T) { notOnline(t, "spBv1.0/STATE/other", `{"online":true,"timestamp":100}`) },
		"tck-id-message-flow-edge-node-birth-publish-phid-wait-online":                                                                                                                         func(t *testing.T) { notOnline(t, "spBv1.0/STATE/scada", `{"online":false,"timestamp":100}`) },
		"tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp":                                                                                                                      olderOnline,
		"tck-id-message-flow-edge-node-birth-publish-phid-offline tck-id-operational-behavior-edge-node-termination-host-offline":                                                              hostGoes,
		"tck-id-operational-behavior-edge-node-termination-host-offline-timestamp":                                                                                                             olderOffline,
		"tck-id-operational-behavior-edge-node-termination-host-offline-reconnect tck-id-operational-behavior-primary-application-state-with-multiple-servers-walk":                            walks,
		"tck-id-operational-behavior-primary-application-state-with-multiple-servers-single-server":                                                                                            oneServer,
		"tck-id-operational-behavior-data-commands-rebirth-action-1 tck-id-operational-behavior-data-commands-rebirth-action-2":                                                                reborn,
		"tck-id-operational-behavior-data-commands-ncmd-rebirth-verb tck-id-operational-behavior-data-commands-ncmd-rebirth-name tck-id-operational-behavior-data-commands-ncmd-rebirth-value": notReborn,
		"tck-id-operational-behavior-data-commands-dcmd-verb tck-id-operational-behavior-data-commands-dcmd-metric-name tck-id-operational-behavior-data-commands-dcmd-metric-value":           deviceCommands,
		"tck-id-payloads-dbirth-order":                                                        birthOrder,
		"tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50":                     leavesV5,
		"tck-id-topic-structure-namespace-valid-group-id tck-id-intro-group-id-chars":         func(t *testing.T) { badID(t, func(o *sparkplug.Options, id string) { o.Group = id }) },
		"tck-id-topic-structure-namespace-valid-edge-node-id tck-id-intro-edge-node-id-chars": func(t *testing.T) { badID(t, func(o *sparkplug.Options, id string) { o.Node = id }) },
		"tck-id-topic-structure-namespace-valid-device-id tck-id-intro-device-id-chars":       badDevices,
	} {
		for _, id := range strings.Fields(ids) {
			t.Run(id, test)
		}
	}
}

// attempt connects in the background.
func (e *edge) attempt() <-chan error {
	e.t.Helper()
	answer := make(chan error, 1)
	ctx, cancel := context.WithCancel(context.Background())
	e.t.Cleanup(cancel)
	go func() {
		l, err := e.up.Connect(ctx)
		if err == nil {
			e.link = l
			e.t.Cleanup(func() { l.Close() })
		}
		answer <- err
	}()
	return answer
}

// fails waits for an attempt to fail while time goes by.
func (e *edge) fails(answer <-chan error) error {
	e.t.Helper()
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		select {
		case err := <-answer:
			if err == nil {
				e.t.Fatal("connected")
			}
			return err
		case <-time.After(time.Millisecond):
			e.clk.Advance(100 * time.Millisecond)
		}
	}
	e.t.Fatal("the attempt did not end")
	return nil
}

func hosted(t *testing.T) (*recorder, *server, *edge) {
	r := newRecorder(t)
	srv := r.server("a")
	return r, srv, newEdge(t, sparkplug.Options{URL: srv.URL, PrimaryHost: "scada", Means: sparkplug.Means{Devices: plant}})
}

func waitsForHost(t *testing.T) {
	r, srv, e := hosted(t)
	answer := e.attempt()
	r.awaitCount("SUBSCRIBE", 1)
	if got := r.kinds(1); got != "CONNECT, SUBSCRIBE" {
		t.Error(got)
	}
	srv.state("scada", true, 1)
	if err := wait(t, answer); err != nil {
		t.Fatal(err)
	}
	r.awaitCount("DBIRTH", 2)
	if got := r.kinds(1); got != "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH press, DBIRTH oven" {
		t.Error(got)
	}
}

// notOnline says something that does not make the primary host online.
func notOnline(t *testing.T, topic, body string) {
	r, srv, e := hosted(t)
	answer := e.attempt()
	r.awaitCount("SUBSCRIBE", 1)
	srv.say(topic, []byte(body), true)
	if err := e.fails(answer); !strings.Contains(err.Error(), `primary host is offline: "scada"`) {
		t.Error(err)
	}
	r.awaitCount("DISCONNECT", 1)
	if got := r.kinds(1); got != "CONNECT, SUBSCRIBE, NDEATH, DISCONNECT" {
		t.Error(got)
	}
}

func olderOnline(t *testing.T) {
	r, srv, e := hosted(t)
	answer := e.attempt()
	r.awaitCount("SUBSCRIBE", 1)
	srv.state("scada", false, 100)
	srv.state("scada", true, 99)
	srv.state("scada", false, 100)
	select {
	case err := <-answer:
		t.Fatalf("took an online that is older than the offline: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	srv.state("scada", true, 100)
	if err := wait(t, answer); err != nil {
		t.Fatal(err)
	}
}

// online connects with a host that is online since 100.
func (e *edge) online(srv *server) {
	e.t.Helper()
	srv.retain("scada", true, 100)
	e.connect()
}

func (e *edge) ends() {
	e.t.Helper()
	select {
	case <-e.link.Done():
	case <-time.After(patience):
		e.t.Fatal("the link did not end")
	}
}

func hostGoes(t *testing.T) {
	for name, stamp := range map[string]int64{"same session": 100, "newer": 101} {
		t.Run(name, func(t *testing.T) {
			r, srv, e := hosted(t)
			e.online(srv)
			e.send("press", number("temp", 1))
			srv.mu.Lock()
			srv.ignored = true // nothing is confirmed any more
			srv.mu.Unlock()
			answer := e.start(e.clk.Now(), "press", number("temp", 2))
			r.awaitCount("DDATA", 2)
			srv.state("scada", false, stamp)
			if err := wait(t, answer); err == nil || errors.Is(err, hub.ErrRejected) {
				t.Errorf("settled with %v", err)
			}
			e.ends()
			if err := e.link.Err(); !strings.Contains(err.Error(), "primary host is offline") {
				t.Error(err)
			}
			r.awaitCount("DISCONNECT", 1)
			if got := r.kinds(1); !strings.HasSuffix(got, "DDATA press, DDATA press, NDEATH, DISCONNECT") {
				t.Error(got)
			}
		})
	}
}

func olderOffline(t *testing.T) {
	r, srv, e := hosted(t)
	e.online(srv)
	srv.state("scada", false, 99)
	e.send("press", number("temp", 1))
	if got := r.kinds(1); strings.Contains(got, "NDEATH") {
		t.Error(got)
	}
	if err := e.link.Err(); err != nil {
		t.Error(err)
	}
}

func walks(t *testing.T) {
	r := newRecorder(t)
	a, b := r.server("a"), r.server("b")
	e := newEdge(t, sparkplug.Options{URL: a.URL, Servers: []string{b.URL}, PrimaryHost: "scada"})
	b.retain("scada", true, 100)
	e.online(a)
	a.state("scada", false, 100)
	e.ends()
	e.connect()
	b.state("scada", false, 100)
	e.ends()
	a.retain("scada", false, 100)
	b.retain("scada", true, 200)
	e.connect() // a is tried and left at once
	var order []string
	for _, m := range r.seen() {
		if m.kind == "CONNECT" {
			order = append(order, m.server)
		}
	}
	if !slices.Equal(order, []string{"a", "b", "a", "b"}) {
		t.Error(order)
	}
}

// oneServer asks for the next server, and connects before the link has ended.
func oneServer(t *testing.T) {
	r := newRecorder(t)
	a, b := r.server("a"), r.server("b")
	e := newEdge(t, sparkplug.Options{URL: a.URL, Servers: []string{b.URL}})
	e.connect()
	before := e.link
	e.connect()
	if before.Err() == nil {
		t.Error("two links live")
	}
	if m := r.awaitCount("NBIRTH", 2).metric("Node Control/Next Server"); m == nil || m.Datatype != payload.Boolean || m.Scalar.Bits != 0 {
		t.Errorf("%+v", m)
	}
	next := rebirth()
	next.Name = "Node Control/Next Server"
	a.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), next), false)
	e.ends()
	e.connect()
	live := map[int]bool{}
	for _, m := range r.seen() {
		switch m.kind {
		case "CONNECT":
			if len(live) > 0 {
				t.Errorf("connected to %q while connected", m.server)
			}
			live[m.conn] = true
			if want := []string{"a", "a", "b"}[m.conn-1]; m.server != want {
				t.Errorf("connection %d went to %q", m.conn, m.server)
			}
		case "NDEATH": // the server has confirmed it before the next CONNECT
			delete(live, m.conn)
		}
	}
}

func reborn(t *testing.T) {
	r := newRecorder(t)
	srv := r.server("a")
	e := newEdge(t, sparkplug.Options{URL: srv.URL, Means: sparkplug.Means{Devices: plant}})
	e.connect()
	e.send("press", number("temp", 1))
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), false)
	r.awaitCount("NBIRTH", 2)
	// The next request comes too soon: data wait for it, and one birth answers both.
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), false)
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), false)
	srv.say("spBv1.0/G/NCMD/N", nil, true) // is refused, which tells that the requests were read
	r.await("a refusal", func([]*seen) bool { return e.up.Stats().RefusedCommands == 1 })
	answer := e.start(e.clk.Now(), "press", number("temp", 2))
	time.Sleep(20 * time.Millisecond)
	if n := count(r, "DDATA"); n != 1 {
		t.Errorf("%d DDATA while a rebirth is due", n)
	}
	e.clk.Advance(time.Second)
	if err := wait(t, answer); err != nil {
		t.Fatal(err)
	}
	const births = "NBIRTH, DBIRTH press, DBIRTH oven, "
	if got := r.kinds(1); got != "CONNECT, SUBSCRIBE, "+births+"DDATA press, "+births+births+"DDATA press" {
		t.Error(got)
	}
	b := r.awaitCount("DBIRTH", 5) // of the press: its value is told
	if m := b.metric("temp"); b.device != "press" || m == nil || m.Null {
		t.Errorf("%v %+v", b, m)
	}
}

// notReborn has requests that are none.
func notReborn(t *testing.T) {
	r := newRecorder(t)
	srv := r.server("a")
	e := newEdge(t, sparkplug.Options{URL: srv.URL})
	e.connect()
	refused := rebirth()
	refused.Scalar.Bits = 0
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), refused), false)  // a request is true
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), true) // retained
	srv.say("spBv1.0/G/NCMD/N", []byte{0xff}, false)
	srv.say("spBv1.0/G/DCMD/N/press", command(e.clk.Now(), rebirth()), false) // the verb is NCMD
	other := rebirth()
	other.Name = "Node Control/Reboot"
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), other), false)
	e.send("press", number("temp", 1))
	r.await("all of it to be refused", func([]*seen) bool { return e.up.Stats().RefusedCommands == 4 })
	if n := count(r, "NBIRTH"); n != 1 {
		t.Errorf("%d births", n)
	}
	srv.say("spBv1.0/G/NCMD/N", command(e.clk.Now(), rebirth()), false)
	r.awaitCount("NBIRTH", 2)
}

func deviceCommands(t *testing.T) {
	r := newRecorder(t)
	srv := r.server("a")
	orders := make(chan sparkplug.Command, 10)
	e := newEdge(t, sparkplug.Options{URL: srv.URL, Commands: true, CommandExpires: 5 * time.Second, Means: sparkplug.Means{
		Devices: plant, Command: func(_ context.Context, c sparkplug.Command) error { orders <- c; return errors.New("told in the log") },
	}})
	e.connect()
	e.send("saw", reading("speed", payload.IntValue(1)), number("feed", 0.5), reading("name", payload.StringValue("x")))
	speed := r.awaitCount("DBIRTH", 3).metric("speed")
	now := e.clk.Now()
	scalar := func(f payload.Field, bits uint64) payload.Scalar { return payload.Scalar{Field: f, Bits: bits} }
	say := func(device string, at time.Time, m ...payload.Metric) {
		srv.say("spBv1.0/G/DCMD/N/"+device, command(at, m...), false)
	}
	say("saw", now, payload.Metric{Alias: speed.Alias, HasAlias: true, Scalar: scalar(payload.LongField, 1<<64-7)},
		payload.Metric{Name: "feed", Scalar: scalar(payload.IntField, 3)})
	say("saw", now, payload.Metric{Name: "name", Datatype: payload.String, Scalar: payload.Scalar{Field: payload.StringField, Raw: []byte("y")}})
	for _, want := range []struct {
		tag string
		v   payload.Value
	}{{"speed", payload.IntValue(-7)}, {"feed", payload.DoubleValue(3)}, {"name", payload.StringValue("y")}} {
		select {
		case c := <-orders:
			if c.Device != "saw" || c.Tag != want.tag || !c.Value.Equal(want.v) || c.Expires.Sub(c.Issued) != 5*time.Second || c.ID == "" {
				t.Errorf("%+v, want %+v", c, want)
			}
		case <-time.After(patience):
			t.Fatal("no command")
		}
	}
	// The same message has the same ids, so that whoever carries it out can tell.
	same := payload.Metric{Name: "running", Scalar: scalar(payload.BoolField, 1)}
	say("press", now, same)
	say("press", now, same)
	say("press", now.Add(time.Millisecond), same)
	a, b, c := <-orders, <-orders, <-orders
	if a.ID != b.ID || b.ID == c.ID {
		t.Error(a.ID, b.ID, c.ID)
	}
	bad := []payload.Metric{
		{Name: "temp", Scalar: scalar(payload.FloatField, 0)},                          // read only
		{Name: "running", Scalar: scalar(payload.IntField, 1)},                         // not a truth value
		{Name: "running", Null: true},                                                  // nothing
		{Name: "running", Datatype: payload.Int8, Scalar: scalar(payload.IntField, 1)}, // of another type
		{Name: "nobody", Scalar: scalar(payload.IntField, 1)},
		{Alias: 4711, HasAlias: true, Scalar: scalar(payload.IntField, 1)},
	}
	before := e.up.Stats()
	for _, m := range bad {
		say("press", now, m)
	}
	say("nobody", now, same)
	srv.say("spBv1.0/G/DCMD/N/press", payload.Append(nil, &payload.Payload{Metrics: []payload.Metric{same}}), false) // no time
	srv.say("spBv1.0/G/DCMD/N/press", command(now, same), true)
	r.await("refusals", func([]*seen) bool { return e.up.Stats().RefusedCommands == before.RefusedCommands+uint64(len(bad))+3 })
	if got := e.up.Stats().Commands; got != before.Commands || len(orders) > 0 {
		t.Errorf("%d commands were taken", got-before.Commands)
	}
}

// birthOrder: all known devices are born right after the node, before any data.
func birthOrder(t *testing.T) {
	r := newRecorder(t)
	srv := r.server("a")
	e := newEdge(t, sparkplug.Options{URL: srv.URL, Means: sparkplug.Means{Devices: plant}})
	e.connect()
	e.send("saw", number("speed", 1))
	srv.Cut()
	e.ends()
	e.connect()
	e.send("oven", number("temp", 1))
	if got := r.kinds(2); got != "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH press, DBIRTH oven, DBIRTH saw, DDATA oven" {
		t.Error(got)
	}
}

// leavesV5: a DISCONNECT of MQTT 5 would have to keep the will; there is none.
func leavesV5(t *testing.T) {
	var wrote bytes.Buffer
	r := newRecorder(t)
	e := newEdge(t, sparkplug.Options{URL: r.server("a").URL, Version: client.Version5, Means: sparkplug.Means{
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &tapped{nc, &wrote}, err
		},
	}})
	e.connect()
	e.send("saw", number("speed", 1))
	e.link.Close()
	var types []byte
	for in := bufio.NewReader(&wrote); ; {
		version := byte(5)
		if types == nil {
			version = 0
		}
		p, err := clienttest.ReadPacket(in, version)
		if err != nil {
			break
		}
		types = append(types, p.FixedHeader.Type)
	}
	if n := len(types); n < 5 || types[0] != packets.Connect || types[n-1] != packets.Publish {
		t.Errorf("packets %v: does not end with NDEATH", types)
	}
	if got := r.kinds(1); !strings.HasSuffix(got, "DDATA saw, NDEATH") {
		t.Error(got)
	}
}

// tapped is a connection that keeps what is written. One goroutine writes.
type tapped struct {
	net.Conn
	wrote *bytes.Buffer
}

func (c *tapped) Write(b []byte) (int, error) {
	c.wrote.Write(b)
	return c.Conn.Write(b)
}

var badIDs = []string{"", "a/b", "a+", "#", "a\x00", "a\xff"}

func badID(t *testing.T, set func(*sparkplug.Options, string)) {
	for _, id := range badIDs {
		o := sparkplug.Options{URL: "mqtt://x", Group: "G", Node: "N", Means: sparkplug.Means{Decode: func(*hub.Record, *sparkplug.Batch) error { return nil }}}
		if _, err := sparkplug.New(o); err != nil {
			t.Fatal(err)
		}
		set(&o, id)
		if _, err := sparkplug.New(o); err == nil {
			t.Errorf("took %q", id)
		}
	}
}

func badDevices(t *testing.T) {
	r := newRecorder(t)
	e := newEdge(t, sparkplug.Options{URL: r.server("a").URL})
	e.connect()
	for _, id := range badIDs[1:] {
		if err := wait(t, e.start(e.clk.Now(), id, number("temp", 1))); !errors.Is(err, hub.ErrRejected) {
			t.Errorf("device %q: %v", id, err)
		}
	}
	e.send("a b", number("temp", 1)) // a space is allowed
	if got := r.kinds(1); got != "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH a b, DDATA a b" {
		t.Error(got)
	}
}
