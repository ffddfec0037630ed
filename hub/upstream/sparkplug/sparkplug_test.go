package sparkplug_test

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
)

// open connects an edge node with the plant's devices to a server of its own.
func open(t *testing.T, o sparkplug.Options) (*recorder, *server, *edge) {
	r := newRecorder(t)
	srv := r.server("a")
	o.URL = srv.URL
	e := newEdge(t, o)
	if o.PrimaryHost != "" {
		srv.retain(o.PrimaryHost, true, 100)
	}
	e.connect()
	return r, srv, e
}

// values returns what was said of one metric in data: the value, and "old" in
// front of it when it is historical.
func (r *recorder) values(device, name string) (list []string) {
	aliases := map[uint64]string{}
	for _, m := range r.seen() {
		for i := range m.p.Metrics {
			w := &m.p.Metrics[i]
			if w.Name != "" {
				aliases[w.Alias] = m.device + "/" + w.Name
			}
			if m.kind[1:] != "DATA" || aliases[w.Alias] != device+"/"+name {
				continue
			}
			v, _ := w.Scalar.Decode(natural(w.Scalar.Field))
			text := v.String()
			if w.Historical {
				text = "old " + text
			}
			list = append(list, text)
		}
	}
	return list
}

func natural(f payload.Field) payload.Datatype {
	return [...]payload.Datatype{payload.Unknown, payload.Int32, payload.Int64, payload.Float, payload.Double, payload.Boolean, payload.String, payload.Bytes}[f]
}

func expect(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// TestHistory sends what was buffered, and looks for the current values after it.
func TestHistory(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{})
	e.sendOld(3*time.Second, "saw", number("speed", 1), number("feed", 7))
	e.sendOld(2*time.Second, "saw", number("speed", 2))
	expect(t, "speed", r.values("saw", "speed"), "old 1", "old 2")
	// News of the same device bring what only history has told.
	e.send("saw", number("speed", 3))
	expect(t, "speed", r.values("saw", "speed"), "old 1", "old 2", "3")
	expect(t, "feed", r.values("saw", "feed"), "old 7", "7")
	// So does a second without history.
	e.sendOld(time.Second, "oven", number("temp", 5))
	e.clk.Advance(900 * time.Millisecond)
	e.send("saw", number("speed", 4))
	expect(t, "temp", r.values("oven", "temp"), "old 5")
	e.clk.Advance(time.Second)
	r.await("the current value", func([]*seen) bool { return len(r.values("oven", "temp")) == 2 })
	expect(t, "temp", r.values("oven", "temp"), "old 5", "5")
	e.clk.Advance(time.Minute)
	e.send("oven", number("temp", 6))
	expect(t, "temp", r.values("oven", "temp"), "old 5", "5", "6")
	if n := e.up.Stats().Historical; n != 3 {
		t.Errorf("%d records were historical", n)
	}
}

// TestSentAgain: a second attempt is history, whenever it was received.
func TestSentAgain(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{})
	e.send("saw", number("speed", 1))
	m := &hub.Outgoing{Record: hub.Record{Received: e.clk.Now().UnixMicro(), Payload: []byte("1")}, Attempt: 2}
	answer := make(chan error, 1)
	if err := e.link.Send(m, func(err error) { answer <- err }); err != nil {
		t.Fatal(err)
	}
	if err := wait(t, answer); err != nil {
		t.Fatal(err)
	}
	expect(t, "speed", r.values("saw", "speed"), "1", "old 1")
}

// TestOvertaken: a reading older than one that was sent is history.
func TestOvertaken(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{})
	now := e.clk.Now()
	at := func(f float64, d time.Duration) sparkplug.Reading {
		x := number("speed", f)
		x.Time = now.Add(d)
		return x
	}
	e.send("saw", at(2, 2*time.Second))
	e.send("saw", at(1, time.Second))
	e.send("saw", at(4, 4*time.Second), at(3, 3*time.Second), at(5, 5*time.Second))
	expect(t, "speed", r.values("saw", "speed"), "2", "old 1", "old 3", "4", "5")
}

// TestClockSet: what is news does not depend on what the clock said before it
// was set.
func TestClockSet(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		r, _, e := open(t, sparkplug.Options{})
		e.clk.Advance(time.Second)
		e.clk.Jump(jump)
		e.clk.SetQuality(clock.Synced)
		e.send("saw", number("speed", 1))
		e.sendOld(2*time.Second, "oven", number("temp", 1))
		expect(t, "speed", r.values("saw", "speed"), "1")
		expect(t, "temp", r.values("oven", "temp"), "old 1")
	}
}

func TestDeviceDeath(t *testing.T) {
	r, srv, e := open(t, sparkplug.Options{Means: sparkplug.Means{Devices: plant}})
	e.send("press", number("temp", 1), reading("count", payload.IntValue(1)))
	e.send("press", lostReading("temp"))                                                              // count is still good
	e.send("press", sparkplug.Reading{Tag: "count", Value: payload.IntValue(1), Quality: 0x808B0000}) // none is
	e.send("press", lostReading("temp"), lostReading("count"))                                        // its death has said so
	e.send("press", number("temp", 2))
	e.sendOld(time.Hour, "press", lostReading("temp"))                  // an old story
	e.send("oven", sparkplug.Reading{Tag: "temp", Quality: 0x803C0000}) // bad, but not for want of communication
	const births = "NBIRTH, DBIRTH press, DBIRTH oven"
	want := "CONNECT, SUBSCRIBE, " + births + ", DDATA press, DDATA press, DDATA press, DDEATH press, DBIRTH press, DDATA press, DDATA press, DDATA oven"
	if got := r.kinds(1); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	// A device that died is not born with the others, and is when it comes back.
	e.send("press", lostReading("temp"))
	srv.Cut()
	e.ends()
	e.connect()
	e.send("oven", number("temp", 3))
	e.send("press", number("temp", 4))
	if got, want := r.kinds(2), "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH oven, DDATA oven, DBIRTH press, DDATA press"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// TestDeathInHistory: that a device was lost while nobody listened is told when
// history is over.
func TestDeathInHistory(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{})
	e.sendOld(3*time.Second, "saw", number("speed", 1))
	e.sendOld(2*time.Second, "saw", lostReading("speed"))
	if n := count(r, "DDEATH"); n != 0 {
		t.Error("died in the middle of history")
	}
	e.clk.Advance(time.Second)
	r.awaitCount("DDEATH", 1)
	expect(t, "speed", r.values("saw", "speed"), "old 1", "old null", "null")
}

func TestSilentDevice(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{DeviceTimeout: time.Minute, Means: sparkplug.Means{Devices: plant}})
	e.clk.Advance(30 * time.Second)
	e.send("press", number("temp", 1))
	e.clk.Advance(30 * time.Second)
	if m := r.awaitCount("DDEATH", 1); m.device != "oven" {
		t.Error(m)
	}
	e.clk.Advance(31 * time.Second)
	if m := r.awaitCount("DDEATH", 2); m.device != "press" {
		t.Error(m)
	}
	e.send("oven", number("temp", 1))
	if got, want := r.kinds(1), "DDATA press, DDEATH oven, DDEATH press, DBIRTH oven, DDATA oven"; !strings.HasSuffix(got, want) {
		t.Error(got)
	}
}

// TestLargeRecord is split, with all of it sent.
func TestLargeRecord(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{MaxMessage: 1000})
	var many []sparkplug.Reading
	for i := range 100 {
		many = append(many, reading(fmt.Sprintf("t%d", i), payload.StringValue(strings.Repeat("x", 50))))
	}
	many = append(many, reading("big", payload.StringValue(strings.Repeat("x", 5000))))
	e.send("saw", many...)
	seen := 0
	for _, m := range r.seen() {
		if m.kind == "DDATA" {
			seen += len(m.p.Metrics)
			if n := len(m.packet.Payload); n > 1000 && len(m.p.Metrics) > 1 {
				t.Errorf("a message of %d bytes", n)
			}
		}
	}
	if seen != 101 {
		t.Errorf("%d metrics", seen)
	}
}

// TestServerLimit: one record, or one device, that the server has no room for
// does not stop the others.
func TestServerLimit(t *testing.T) {
	small := clienttest.Start(t, clienttest.Options{OnConnect: func(_, ack *packets.Packet) *packets.Packet {
		ack.Properties.MaximumPacketSize = 2000
		return ack
	}})
	var wide []sparkplug.Tag
	for i := range 200 {
		wide = append(wide, sparkplug.Tag{Name: fmt.Sprintf("a tag with a name %d", i), Datatype: payload.Int8})
	}
	e := newEdge(t, sparkplug.Options{URL: small.URL, Version: client.Version5, Means: sparkplug.Means{
		Devices: func() []sparkplug.Device { return []sparkplug.Device{{Name: "wide", Tags: wide}} },
	}})
	e.connect()
	refused := func(device string, r sparkplug.Reading) {
		if err := wait(t, e.start(e.clk.Now(), device, r)); !errors.Is(err, hub.ErrRejected) {
			t.Errorf("%s: %v", device, err)
		}
	}
	e.send("saw", reading("name", payload.StringValue("x")))
	refused("saw", reading("name", payload.StringValue(strings.Repeat("x", 3000))))
	refused("wide", reading(wide[0].Name, payload.IntValue(1)))
	e.send("oven", number("temp", 1))
}

func TestRefused(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{MaxMetrics: 3})
	e.send("saw", number("a", 1), number("b", 1))
	for name, answer := range map[string]<-chan error{
		"too many": e.start(e.clk.Now(), "oven", number("a", 1), number("b", 1)),
		"no name":  e.start(e.clk.Now(), "saw", number("", 1)),
		"not text": e.start(e.clk.Now(), "saw", number("\xff", 1)),
		"bdSeq":    e.start(e.clk.Now(), "", number("bdSeq", 1)),
		"control":  e.start(e.clk.Now(), "", number("Node Control/Rebirth", 1)),
	} {
		if err := wait(t, answer); !errors.Is(err, hub.ErrRejected) {
			t.Errorf("%s: %v", name, err)
		}
	}
	e.send("oven", number("a", 1))
	e.send("oven") // nothing in it
	if got := r.kinds(1); got != "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH saw, DDATA saw, DBIRTH oven, DDATA oven" {
		t.Error(got)
	}
}

// TestConfigurationChanges between two connections.
func TestConfigurationChanges(t *testing.T) {
	devices := plant()
	r, srv, e := open(t, sparkplug.Options{Means: sparkplug.Means{Devices: func() []sparkplug.Device { return devices }}})
	e.send("press", number("temp", 1), number("learned", 2))
	e.send("oven", number("temp", 1))
	devices = []sparkplug.Device{{Name: "press", Tags: devices[0].Tags[1:]}, {Name: "saw", Tags: []sparkplug.Tag{{Name: "speed", Datatype: payload.UInt32}}}}
	srv.Cut()
	e.ends()
	e.connect()
	e.send("saw", reading("speed", payload.IntValue(1)))
	if got := r.kinds(2); got != "CONNECT, SUBSCRIBE, NBIRTH, DBIRTH press, DBIRTH saw, DDATA saw" {
		t.Error(got)
	}
	press := r.awaitCount("DBIRTH", 4)
	if press.device != "press" || press.metric("temp") != nil || press.metric("learned") == nil || press.metric("count").Datatype != payload.Int16 {
		t.Errorf("%+v", press.p)
	}
	if saw := r.awaitCount("DBIRTH", 5); saw.metric("speed").Datatype != payload.UInt64 { // which everybody reads
		t.Errorf("%+v", saw.p)
	}
}

// TestBirthValues looks into a birth.
func TestBirthValues(t *testing.T) {
	r, srv, e := open(t, sparkplug.Options{Means: sparkplug.Means{Devices: plant, Properties: map[string]string{"OS": "Linux"}}})
	e.send("press", sparkplug.Reading{Tag: "temp", Value: payload.DoubleValue(21.5), Quality: 0x40940000, Detail: "above its range"})
	srv.Cut()
	e.ends()
	e.connect()
	e.send("oven", number("temp", 1))
	if m := r.awaitCount("NBIRTH", 2).metric("Properties/OS"); m == nil || string(m.Scalar.Raw) != "Linux" {
		t.Errorf("%+v", m)
	}
	b := r.awaitCount("DBIRTH", 3)
	props := func(name string) (list []string) {
		for _, p := range b.metric(name).Properties {
			v, err := p.Scalar.Decode(p.Datatype)
			if err != nil {
				t.Error(err)
			}
			list = append(list, p.Key+"="+v.String())
		}
		return list
	}
	expect(t, "temp", props("temp"), "Quality=500", "opcuaStatus=1083441152", "detail=above its range", "engUnit=Cel", "readOnly=true")
	expect(t, "running", props("running"), "Quality=0", "opcuaStatus=2150760448")
	if m := b.metric("temp"); m.Datatype != payload.Float || m.Scalar.Bits != 0x41ac0000 || m.Timestamp != uint64(e.clk.Now().Add(-time.Millisecond).UnixMilli()) {
		t.Errorf("%+v", m)
	}
}

// TestHostGrace: what the server has is settled only when the host has stayed.
func TestHostGrace(t *testing.T) {
	r, srv, e := open(t, sparkplug.Options{PrimaryHost: "scada", HostGrace: 2 * time.Second})
	first := e.start(e.clk.Now(), "saw", number("speed", 1))
	r.awaitCount("DDATA", 1)
	e.clk.Advance(1900 * time.Millisecond)
	second := e.start(e.clk.Now(), "saw", number("speed", 2))
	r.awaitCount("DDATA", 2)
	select {
	case err := <-first:
		t.Fatalf("settled too early: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	e.clk.Advance(200 * time.Millisecond)
	if err := wait(t, first); err != nil {
		t.Fatal(err)
	}
	srv.state("scada", false, 100)
	if err := wait(t, second); err == nil {
		t.Fatal("settled although the host went away")
	}
	e.ends()
}

// TestSilentServer: data that the server may not have read are not settled.
func TestSilentServer(t *testing.T) {
	r, srv, e := open(t, sparkplug.Options{})
	srv.mu.Lock()
	srv.ignored = true
	srv.mu.Unlock()
	answer := e.start(e.clk.Now(), "saw", number("speed", 1))
	r.awaitCount("DDATA", 1)
	srv.Cut()
	if err := wait(t, answer); err == nil || errors.Is(err, hub.ErrRejected) {
		t.Errorf("settled with %v", err)
	}
}

func TestDatatypesInData(t *testing.T) {
	r, _, e := open(t, sparkplug.Options{Datatypes: true})
	e.send("saw", reading("speed", payload.IntValue(1)))
	if m := r.awaitCount("DDATA", 1); m.p.Metrics[0].Datatype != payload.Int64 {
		t.Errorf("%+v", m.p)
	}
}

func TestParse(t *testing.T) {
	means := sparkplug.Means{Device: "gw7"}
	o, err := sparkplug.Parse("scada", map[string]any{
		"url": "mqtt://a", "servers": []any{"mqtts://b", "mqtt://c"}, "group": "Plant 1", "primary_host": "ignition", "host_wait": "5s",
		"version": "5", "username": "u", "password": "p", "aliases": false, "datatypes": true, "max_message": "64KiB", "max_metrics": 500,
		"device_timeout": "1h", "commands": true, "command_expires": "30s", "bound": "5s", "keep_alive": "30s",
	}, means)
	if err != nil {
		t.Fatal(err)
	}
	want := sparkplug.Options{
		URL: "mqtt://a", Servers: []string{"mqtts://b", "mqtt://c"}, Group: "Plant 1", Node: "gw7", PrimaryHost: "ignition", HostWait: 5 * time.Second,
		HostGrace: 2 * time.Second, Version: client.Version5, ClientID: "gw7/scada", Username: "u", NoAliases: true, Datatypes: true, MaxMessage: 64 << 10, MaxMetrics: 500,
		DeviceTimeout: time.Hour, Commands: true, CommandExpires: 30 * time.Second, Bound: 5 * time.Second, KeepAlive: 30 * time.Second, Means: means,
	}
	want.Credentials.Password = "p"
	if !reflect.DeepEqual(o, want) {
		t.Errorf("got  %+v\nwant %+v", o, want)
	}
	for name, c := range map[string]struct {
		table map[string]any
		want  []string
	}{
		"empty":      {map[string]any{}, []string{`"url" is missing`, `"group" is missing`}},
		"names":      {map[string]any{"url": "mqtt://a", "group": "a/b", "node": "#", "primary_host": "x+"}, []string{`"group": ID "a/b"`, `"node": ID "#"`, `"primary_host": ID "x+"`}},
		"servers":    {map[string]any{"url": "http://a", "group": "g", "servers": []any{"b"}}, []string{`"url": `, `"servers": `}},
		"types":      {map[string]any{"url": "mqtt://a", "group": "g", "servers": "b"}, []string{`"servers": must be a list of strings`}},
		"no host":    {map[string]any{"url": "mqtt://a", "group": "g", "host_grace": "1s"}, []string{`need "primary_host"`}},
		"long grace": {map[string]any{"url": "mqtt://a", "group": "g", "primary_host": "h", "host_grace": "21s"}, []string{`"host_grace"`}},
		"unknown":    {map[string]any{"url": "mqtt://a", "grup": "g"}, []string{`unknown key "grup", did you mean "group"?`}},
		"secrets":    {map[string]any{"url": "mqtt://a", "group": "g", "password": "x", "password_file": "y", "key": "z"}, []string{`"password_file"`, `"certificate" and "key"`}},
	} {
		_, err := sparkplug.Parse("up", c.table, means)
		for _, w := range c.want {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v, want %s", name, err, w)
			}
		}
	}
	if _, err := sparkplug.New(want); err == nil || !strings.Contains(err.Error(), "nothing to read records with") {
		t.Error(err)
	}
}
