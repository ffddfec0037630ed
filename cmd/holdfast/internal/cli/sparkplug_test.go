package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/sparkplug/payload"
)

// edgeMessage is a message of the edge node as its host gets it.
type edgeMessage struct {
	kind, device string
	p            payload.Payload
}

func (m *edgeMessage) metric(name string) *payload.Metric {
	for i := range m.p.Metrics {
		if m.p.Metrics[i].Name == name {
			return &m.p.Metrics[i]
		}
	}
	return nil
}

func property(m *payload.Metric, key string) string {
	for _, p := range m.Properties {
		if p.Key == key {
			if v, err := p.Scalar.Decode(p.Datatype); err == nil {
				return string(v.Raw())
			}
		}
	}
	return ""
}

// TestEdgeNode runs the whole gateway as a Sparkplug edge node of a broker that
// nobody here wrote: births tell what is configured, data follow, a command of
// the host reaches the device and comes back as data, and the next run has the
// next birth number.
func TestEdgeNode(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	dir, err := os.MkdirTemp("", "hf") // its name is part of a socket's, which is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "c.toml")
	text := `
name = "line-7"
data = "` + dir + `/data"
run = "` + dir + `/run"
[metrics]
hub_listen = ""
field_listen = ""
[hub.routes]
readings = "FROM /messages/modules/field/outputs/* INTO $upstream"
[[hub.upstream]]
name = "scada"
type = "sparkplug"
url = "` + m.URL + `"
group = "plant"
commands = true
[field.classes]
normal = "100ms"
[field.commands]
allow_unsynced = true
[[field.device]]
name = "trial"
protocol = "sim"
[[field.device.tag]]
name = "wave"
address = "sine"
[[field.device.tag]]
name = "set"
address = "constant"
access = "rw"
unit = "Cel"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	got := make(chan edgeMessage, 4096)
	host, _, err := client.Dial(ctx, client.Options{URL: m.URL, OnMessage: func(_ *client.Conn, msg *client.Message) {
		parts := strings.Split(string(msg.Topic), "/")
		if len(parts) < 4 || parts[1] != "plant" || parts[3] != "line-7" {
			t.Errorf("topic %q", msg.Topic)
			return
		}
		e := edgeMessage{kind: parts[2]}
		if len(parts) == 5 {
			e.device = parts[4]
		}
		// A host keeps what it is told longer than the client keeps the message.
		if err := payload.Decode(append([]byte(nil), msg.Payload...), &e.p); err != nil {
			t.Errorf("%s: %v", msg.Topic, err)
		}
		select {
		case got <- e:
		default:
			t.Error("too many messages")
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if _, err := host.Subscribe(ctx, client.Subscription{Filter: "spBv1.0/+/NBIRTH/#"}, client.Subscription{Filter: "spBv1.0/+/DBIRTH/#"},
		client.Subscription{Filter: "spBv1.0/+/DDATA/#"}, client.Subscription{Filter: "spBv1.0/+/NDEATH/#"}); err != nil {
		t.Fatal(err)
	}
	var log *lockedBuffer
	next := func(what string, ok func(*edgeMessage) bool) edgeMessage {
		t.Helper()
		for {
			select {
			case e := <-got:
				if ok(&e) {
					return e
				}
			case <-ctx.Done():
				t.Fatalf("no %s\n%s", what, log)
			}
		}
	}
	run := func() (stop func()) {
		running, cancel := context.WithCancel(context.Background())
		done := make(chan int, 1)
		log = &lockedBuffer{}
		sys := system("", io.Discard, log, nil)
		go func() { done <- Main(running, []string{"run", "-c", file}, sys) }()
		var stopped bool
		stop = func() {
			if stopped {
				return
			}
			stopped = true
			cancel()
			if status := <-done; status != 0 {
				t.Errorf("it exits with %d:\n%s", status, log)
			}
		}
		t.Cleanup(stop)
		return stop
	}

	stop := run()
	birth := next("birth of the node", func(e *edgeMessage) bool { return e.kind == "NBIRTH" })
	if v := birth.metric("Properties/Version"); v == nil || birth.metric("Node Control/Rebirth") == nil {
		t.Errorf("birth %+v", birth.p)
	} else if text, err := v.Value(payload.String); err != nil || string(text.Raw()) != "v0-test" {
		t.Errorf("version %v, %v", text, err)
	}
	first := number(t, &birth)
	device := next("birth of the device", func(e *edgeMessage) bool {
		return e.kind == "DBIRTH" && e.metric("wave") != nil
	})
	set := device.metric("set")
	if device.device != "trial" || set == nil || property(set, "engUnit") != "Cel" {
		t.Fatalf("birth %+v of %q", device.p, device.device)
	}
	wave := device.metric("wave").Alias
	data := func(alias uint64, want func(float64) bool) func(*edgeMessage) bool {
		return func(e *edgeMessage) bool {
			for i := range e.p.Metrics {
				if x := &e.p.Metrics[i]; e.kind == "DDATA" && e.device == "trial" && x.HasAlias && x.Alias == alias && !x.Null {
					v, err := x.Value(payload.Double)
					f, _ := v.Double()
					return err == nil && want(f)
				}
			}
			return false
		}
	}
	next("wave", data(wave, func(f float64) bool { return f >= 0 && f <= 1 }))

	// A command of the host.
	scalar, err := payload.Encode(payload.Double, payload.DoubleValue(71.5))
	if err != nil {
		t.Fatal(err)
	}
	order := payload.Append(nil, &payload.Payload{Timestamp: uint64(time.Now().UnixMilli()), HasTimestamp: true,
		Metrics: []payload.Metric{{Name: "set", Datatype: payload.Double, Scalar: scalar}}})
	if err := host.PublishWait(ctx, &client.Message{Topic: []byte("spBv1.0/plant/DCMD/line-7/trial"), Payload: order, QoS: 1}); err != nil {
		t.Fatal(err)
	}
	next("what the command set", data(set.Alias, func(f float64) bool { return f == 71.5 }))

	stop()
	next("death", func(e *edgeMessage) bool { return e.kind == "NDEATH" })
	run()
	birth = next("second birth", func(e *edgeMessage) bool { return e.kind == "NBIRTH" })
	if second := number(t, &birth); second != first+1 {
		t.Errorf("birth number %d after %d", second, first)
	}
}

// number returns bdSeq.
func number(t *testing.T, e *edgeMessage) int64 {
	t.Helper()
	x := e.metric("bdSeq")
	if x == nil {
		t.Fatalf("no bdSeq in %+v", e.p)
	}
	v, err := x.Value(payload.Int64)
	if err != nil {
		t.Fatal(err)
	}
	return v.Int()
}
