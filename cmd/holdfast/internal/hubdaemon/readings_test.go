package hubdaemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	upstreams "holdfast/hub/upstream/all"
	"holdfast/hub/upstream/mqtt"
	"holdfast/protocols/payload"
	"holdfast/protocols/point"
)

// TestFieldsAgree: the upstream checks the fields that the payload forms have.
func TestFieldsAgree(t *testing.T) {
	if a, b := mqtt.Fields(), payload.FieldNames(); !slices.Equal(a, b) {
		t.Errorf("upstream %q, payload %q", a, b)
	}
}

const plant = `
[[field.device]]
name = "press7"
protocol = "any"
path = "acme/site1/press"
[[field.device.tag]]
name = "temp"
address = "1"
unit = "Cel"
class = "normal"
[[field.device.tag]]
name = "speed"
address = "2"
`

// TestEveryForm checks that every form that settings allow can be made, and
// that what settings refuse is what the forms refuse.
func TestEveryForm(t *testing.T) {
	c := load(t, t.TempDir(), plant)
	tags := NewTags(c)
	for _, form := range []string{"json", "cbor", "protobuf"} {
		for _, times := range []string{"us", "ms", "s", "rfc3339"} {
			for _, qualities := range []string{"name", "code"} {
				for _, fields := range []map[string]any{nil, {"value": "v", "path": "p"}, {"value": "tag"}, {"readings": ""}} {
					settings := map[string]any{"url": "mqtt://x", "payload": form, "times": times, "qualities": qualities}
					if fields != nil {
						settings["fields"] = fields
					}
					o, bad := mqtt.Parse("up", settings, mqtt.Env{})
					if _, err := tags.Readings(o.Form); (err == nil) != (bad == nil) {
						t.Errorf("%v: the settings say %v, the form %v", settings, bad, err)
					}
				}
			}
		}
	}
	if _, err := tags.Readings(mqtt.Form{Payload: "xml"}); err == nil {
		t.Error("xml")
	}
}

func TestTagsAreLookedUp(t *testing.T) {
	dir := t.TempDir()
	tags := NewTags(load(t, dir, plant))
	r, err := tags.Readings(mqtt.Form{Payload: "json", PerReading: true, Paths: []mqtt.PathRule{{Match: "*/speed", Path: "drives"}}})
	if err != nil {
		t.Fatal(err)
	}
	rec := &hub.Record{Received: 1000, Payload: []byte(`{"device":"press7","readings":[{"tag":"temp","value":1,"quality":"BadTimeout"},{"tag":"speed","value":2},{"tag":"new","value":3}]}`)}
	look := func(want ...mqtt.About) {
		t.Helper()
		if n, ok := r.Open(rec); n != len(want) || !ok {
			t.Fatal(n, ok)
		}
		for i := range want {
			if got := r.About(i); got != want[i] {
				t.Errorf("got %+v, want %+v", got, want[i])
			}
		}
	}
	look(mqtt.About{Device: "press7", Tag: "temp", Unit: "Cel", Class: "normal", Path: "acme/site1/press", Quality: "BadTimeout"},
		mqtt.About{Device: "press7", Tag: "speed", Class: "normal", Path: "drives", Quality: "Good"},
		mqtt.About{Device: "press7", Tag: "new", Path: "acme/site1/press", Quality: "Good"})
	if got, want := string(r.Append(nil, 2)), `{"device":"press7","seq":0,"boot":"0000000000000000","tag":"new","value":3,"quality":"Good","time":1000}`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	tags.Set(load(t, dir, `
[[field.device]]
name = "press7"
protocol = "any"
[[field.device.tag]]
name = "temp"
address = "1"
unit = "K"
`))
	look(mqtt.About{Device: "press7", Tag: "temp", Unit: "K", Class: "normal", Quality: "BadTimeout"},
		mqtt.About{Device: "press7", Tag: "speed", Path: "drives", Quality: "Good"}, mqtt.About{Device: "press7", Tag: "new", Quality: "Good"})
	if _, ok := r.Open(&hub.Record{Payload: []byte(`{"alarm":1}`)}); ok {
		t.Error("took an alarm for readings")
	}
}

// TestNamespace sends batches through a hub to a broker that nobody here wrote,
// and changes the plant while it runs.
func TestNamespace(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	dir := shortDir(t)
	text := `
name = "line-7"
[hub.routes]
all = "FROM /* INTO $upstream"
[[hub.upstream]]
name = "uns"
type = "mqtt"
url = "` + m.URL + `"
payload = "json"
per_reading = true
annotate = true
reading_topic = "{path}/{device}/{tag}/{unit}"
topic = "other/{topic}"
fields = { value = "v", seq = "", boot = "", device = "", gateway = "gw" }
`
	c := load(t, dir, text+plant)
	tags := NewTags(c)
	d, err := Open(c, Options{Clock: clock.NewReal(), Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Version: "test", Tags: tags, Upstream: func(u config.Upstream) (hub.Upstream, error) {
		return upstreams.New(u.Type, u.Name, u.Settings, upstreams.Env{Device: "line-7", Readings: tags.Readings})
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	run, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(run, func() error { return errors.New("no file to read") }) }()
	defer func() {
		cancel()
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	type message struct{ topic, payload, contentType, quality, unit, index string }
	got := make(chan message, 10)
	sub, _, err := client.Dial(ctx, client.Options{URL: m.URL, OnMessage: func(_ *client.Conn, m *client.Message) {
		x := message{topic: string(m.Topic), payload: string(m.Payload), contentType: m.ContentType()}
		x.quality, _ = m.UserProperty(mqtt.PropQuality)
		x.unit, _ = m.UserProperty(mqtt.PropUnit)
		x.index, _ = m.UserProperty(mqtt.PropIndex)
		got <- x
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, err := sub.Subscribe(ctx, client.Subscription{Filter: "#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	field, _, err := client.Dial(ctx, client.Options{URL: "unix://" + dir + "/run/hub.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer field.Close()
	batch := point.AppendBatch(nil, &point.Batch{Device: "press7", Sequence: 1, Time: time.UnixMicro(1760000000123456), Readings: []point.Reading{
		{Tag: "temp", Value: point.FloatValue(21.5)}, {Tag: "speed", Quality: point.BadTimeout},
	}})
	publish := func(topic string, payload []byte) {
		t.Helper()
		if err := field.PublishWait(ctx, &client.Message{Topic: []byte(topic), Payload: payload, QoS: 1, Props: client.AppendContentType(nil, "application/json")}); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want ...message) {
		t.Helper()
		for _, w := range want {
			select {
			case g := <-got:
				if !json.Valid([]byte(g.payload)) || g != w {
					t.Errorf("got  %+v\nwant %+v", g, w)
				}
			case <-ctx.Done():
				t.Fatalf("%+v does not arrive", w)
			}
		}
	}
	publish("field/press7/readings", batch)
	temp := message{"acme/site1/press/press7/temp/Cel", `{"gw":"line-7","tag":"temp","v":21.5,"unit":"Cel","quality":"Good","time":1760000000123456}`, "application/json", "Good", "Cel", "0"}
	speed := message{"acme/site1/press/press7/speed", `{"gw":"line-7","tag":"speed","v":null,"quality":"BadTimeout","time":1760000000123456}`, "application/json", "BadTimeout", "", "1"}
	expect(temp, speed)
	publish("alarm/press7", []byte(`{"on":true}`))
	expect(message{topic: "other/alarm/press7", payload: `{"on":true}`, contentType: "application/json"})

	if err := d.Reload(load(t, dir, text+`
[[field.device]]
name = "press7"
protocol = "any"
path = "acme/site2"
[[field.device.tag]]
name = "temp"
address = "1"
unit = "Cel"
`)); err != nil {
		t.Fatal(err)
	}
	publish("field/press7/readings", batch)
	temp.topic, speed.topic = "acme/site2/press7/temp/Cel", "acme/site2/press7/speed"
	expect(temp, speed)
}

// BenchmarkReadings sends batches of a hundred readings, ten in flight, over TCP
// to a server that does nothing but confirm: all that a reading costs behind the
// journal.
func BenchmarkReadings(b *testing.B) {
	c := &config.Config{Name: "line-7"}
	device := config.Device{Name: "press7", Path: "acme/site1/press"}
	batch := point.Batch{Device: "press7", Sequence: 1, Boot: 2, Time: time.UnixMicro(1760000000123456)}
	for i := range 100 {
		name := fmt.Sprintf("zone%d-temperature", i)
		device.Tags = append(device.Tags, point.Tag{Name: name, Unit: "Cel"})
		batch.Readings = append(batch.Readings, point.Reading{Tag: name, Value: point.FloatValue(20 + float64(i)/10)})
	}
	c.Field.Devices = []config.Device{device}
	tags := NewTags(c)
	rec := hub.Record{Sender: []byte("field"), Topic: []byte("field/press7/readings"), Payload: point.AppendBatch(nil, &batch), Received: 1}
	for _, x := range []struct {
		name string
		form mqtt.Form
	}{
		{"stored", mqtt.Form{}},
		{"json batch", mqtt.Form{Payload: "json"}},
		{"cbor batch", mqtt.Form{Payload: "cbor"}},
		{"protobuf batch", mqtt.Form{Payload: "protobuf"}},
		{"json each", mqtt.Form{Payload: "json", PerReading: true}},
		{"cbor each", mqtt.Form{Payload: "cbor", PerReading: true}},
		{"protobuf each", mqtt.Form{Payload: "protobuf", PerReading: true}},
	} {
		b.Run(x.name, func(b *testing.B) {
			up, err := mqtt.New(mqtt.Options{URL: clienttest.StartSink(b), Form: x.form, Identify: true, Aliases: 256, Env: mqtt.Env{Device: "line-7", Readings: tags.Readings}})
			if err != nil {
				b.Fatal(err)
			}
			l, err := up.Connect(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			out := &hub.Outgoing{Record: rec, Epoch: 1}
			window := make(chan struct{}, 10)
			var wg sync.WaitGroup
			settled := func(err error) {
				if err != nil {
					b.Error(err)
				}
				<-window
				wg.Done()
			}
			b.ReportAllocs()
			for b.Loop() {
				window <- struct{}{}
				wg.Add(1)
				if err := l.Send(out, settled); err != nil {
					b.Fatal(err)
				}
			}
			wg.Wait()
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/reading")
		})
	}
}
