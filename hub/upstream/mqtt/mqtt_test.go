package mqtt_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/batch"
	"holdfast/hub/upstream/mqtt"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func connect(t *testing.T, up hub.Upstream) hub.Link {
	t.Helper()
	l, err := up.Connect(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// received is a message as a subscriber got it.
type received struct {
	topic, payload                string
	epoch, offset, encoding, user string
	expiry                        time.Duration
	retain                        bool
}

func subscribe(t *testing.T, url, filter string) <-chan received {
	t.Helper()
	got := make(chan received, 1000)
	c, _, err := client.Dial(testContext(t), client.Options{URL: url, OnMessage: func(_ *client.Conn, m *client.Message) {
		r := received{topic: string(m.Topic), payload: string(m.Payload), expiry: m.Expiry, retain: m.Retain}
		r.epoch, _ = m.UserProperty(mqtt.PropEpoch)
		r.offset, _ = m.UserProperty(mqtt.PropOffset)
		r.encoding, _ = m.UserProperty(mqtt.PropEncoding)
		r.user, _ = m.UserProperty("unit")
		got <- r
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Subscribe(testContext(t), client.Subscription{Filter: filter, QoS: 1, RetainAsPublished: true, RetainHandling: 2}); err != nil {
		t.Fatal(err)
	}
	return got
}

// send sends one record and returns its settlement.
func send(t *testing.T, l hub.Link, m *hub.Outgoing) error {
	t.Helper()
	answer := make(chan error, 1)
	if err := l.Send(m, func(err error) { answer <- err }); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-testContext(t).Done():
		t.Fatal("not settled")
		return nil
	}
}

func TestWhatTravels(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	clk := clocktest.New(time.Time{})
	for _, c := range []struct {
		name string
		o    mqtt.Options
		rec  hub.Record
		want received
	}{
		{
			"everything", mqtt.Options{Topic: "site 1/{gateway}/{sender}/{topic}", Identify: true, Retain: true},
			hub.Record{
				Sender: []byte("line/1+%"), Topic: []byte("a/b"), Payload: []byte("21.5"), Retain: true,
				Props: client.AppendUserProperty(nil, "unit", "°C"), Expires: clocktest.Epoch.Add(90 * time.Second).UnixMicro(),
			},
			received{topic: "site 1/gw%2F7/line%2F1%2B%25/a/b", payload: "21.5", epoch: "18446744073709551615", offset: "42", user: "°C", expiry: 90 * time.Second, retain: true},
		},
		{
			"bare", mqtt.Options{},
			hub.Record{Sender: []byte("s"), Topic: []byte("a/b"), Payload: []byte("x"), Retain: true},
			received{topic: "a/b", payload: "x"},
		},
		{
			"expired while it was on its way", mqtt.Options{},
			hub.Record{Topic: []byte("a"), Payload: []byte("x"), Expires: 1},
			received{topic: "a", payload: "x", expiry: time.Second},
		},
		{
			"too small to compress", mqtt.Options{Compress: true},
			hub.Record{Topic: []byte("a"), Payload: []byte("small")},
			received{topic: "a", payload: "small"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.o.URL, c.o.Device, c.o.Clock, c.o.Bound = m.URL, "gw/7", clk, time.Minute
			up, err := mqtt.New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			got := subscribe(t, m.URL, "#")
			if err := send(t, connect(t, up), &hub.Outgoing{Record: c.rec, Epoch: 1<<64 - 1, Offset: 42}); err != nil {
				t.Fatal(err)
			}
			if r := <-got; r != c.want {
				t.Errorf("got  %+v\nwant %+v", r, c.want)
			}
		})
	}
}

func TestCompressedPayload(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	up, err := mqtt.New(mqtt.Options{URL: m.URL, Compress: true})
	if err != nil {
		t.Fatal(err)
	}
	got := subscribe(t, m.URL, "#")
	payload := bytes.Repeat([]byte(`{"tag":"boiler","value":21.5}`), 100)
	if err := send(t, connect(t, up), &hub.Outgoing{Record: hub.Record{Topic: []byte("a"), Payload: payload}}); err != nil {
		t.Fatal(err)
	}
	r := <-got
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	plain, err := d.DecodeAll([]byte(r.payload), nil)
	if err != nil || !bytes.Equal(plain, payload) || r.encoding != "zstd" || len(r.payload) > len(payload)/10 {
		t.Errorf("%d bytes became %d with encoding %q, %v", len(payload), len(r.payload), r.encoding, err)
	}
}

// TestBatchFlushes checks each of the three reasons for which a frame leaves.
func TestBatchFlushes(t *testing.T) {
	for _, c := range []struct {
		name  string
		o     mqtt.Options
		sizes []int // of the payloads sent
		pass  time.Duration
		want  []int // records in each frame
	}{
		{"full", mqtt.Options{BatchRecords: 3, BatchDelay: time.Hour}, []int{1, 1, 1, 1, 1, 1}, 0, []int{3, 3}},
		{"large", mqtt.Options{BatchBytes: 1000, BatchDelay: time.Hour}, []int{400, 400, 2000, 990}, 0, []int{2, 1, 1}},
		{"late", mqtt.Options{BatchDelay: time.Second}, []int{1, 1}, time.Second, []int{2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			frames := make(chan []batch.Entry, 10)
			srv := clienttest.Start(t, clienttest.Options{OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
				epoch, entries, err := batch.Parse(p.Payload, 1<<20)
				if err != nil || epoch != 9 || p.TopicName != "holdfast/gw/batch" {
					t.Errorf("topic %q, epoch %d, %v", p.TopicName, epoch, err)
				}
				frames <- entries
				return 0
			}})
			clk := clocktest.New(time.Time{})
			c.o.URL, c.o.Batch, c.o.Device, c.o.Clock, c.o.Bound = srv.URL, true, "gw", clk, time.Hour
			up, err := mqtt.New(c.o)
			if err != nil {
				t.Fatal(err)
			}
			l := connect(t, up)
			settled := make(chan error, 10)
			for i, n := range c.sizes {
				r := hub.Record{Sender: []byte("s"), Topic: []byte("t"), Payload: make([]byte, n), Received: 5}
				if err := l.Send(&hub.Outgoing{Record: r, Epoch: 9, Offset: uint64(i + 1)}, func(err error) { settled <- err }); err != nil {
					t.Fatal(err)
				}
			}
			if c.pass > 0 {
				time.Sleep(20 * time.Millisecond)
				if len(frames) > 0 {
					t.Error("left before its time")
				}
				for len(frames) == 0 {
					clk.Advance(c.pass)
					time.Sleep(time.Millisecond)
				}
			}
			offset := uint64(0)
			for i, n := range c.want {
				f := <-frames
				if len(f) != n {
					t.Errorf("frame %d has %d records, want %d", i, len(f), n)
				}
				for _, e := range f {
					if offset++; e.Offset != offset {
						t.Errorf("offset %d, want %d", e.Offset, offset)
					}
				}
				for range n {
					if err := <-settled; err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// TestBadRecordDoesNotTakeItsBatchAlong has a far side that refuses frames with
// one certain record in them.
func TestBadRecordDoesNotTakeItsBatchAlong(t *testing.T) {
	srv := clienttest.Start(t, clienttest.Options{OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
		_, entries, err := batch.Parse(p.Payload, 1<<20)
		if err != nil {
			t.Error(err)
		}
		for _, e := range entries {
			if string(e.Payload) == "bad" {
				return 0x99
			}
		}
		return 0
	}})
	up, err := mqtt.New(mqtt.Options{URL: srv.URL, Batch: true, BatchRecords: 5})
	if err != nil {
		t.Fatal(err)
	}
	l := connect(t, up)
	answers := make([]chan error, 5)
	for i := range answers {
		answers[i] = make(chan error, 2)
		r := hub.Record{Topic: []byte("t"), Payload: []byte("good")}
		if i == 2 {
			r.Payload = []byte("bad")
		}
		if err := l.Send(&hub.Outgoing{Record: r, Offset: uint64(i + 1)}, func(err error) { answers[i] <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for i, a := range answers {
		if err := <-a; errors.Is(err, hub.ErrRejected) != (i == 2) || i != 2 && err != nil {
			t.Errorf("record %d: %v", i, err)
		}
	}
}

// TestRefusedFrameGoesBeforeTheNext refuses a frame while the next one waits for
// the window.
func TestRefusedFrameGoesBeforeTheNext(t *testing.T) {
	var frames [][]uint64
	sent := make(chan struct{})
	srv := clienttest.Start(t, clienttest.Options{OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
		_, entries, err := batch.Parse(p.Payload, 1<<20)
		if err != nil {
			t.Error(err)
		}
		var offsets []uint64
		for _, e := range entries {
			offsets = append(offsets, e.Offset)
		}
		if frames = append(frames, offsets); len(frames) == 1 {
			<-sent
			return 0x99
		}
		return 0
	}})
	up, err := mqtt.New(mqtt.Options{URL: srv.URL, Batch: true, BatchRecords: 2, Window: 1})
	if err != nil {
		t.Fatal(err)
	}
	l := connect(t, up)
	settled := make(chan error, 4)
	for i := range 4 {
		r := hub.Record{Topic: []byte("t"), Payload: []byte("x")}
		if err := l.Send(&hub.Outgoing{Record: r, Offset: uint64(i + 1)}, func(err error) { settled <- err }); err != nil {
			t.Fatal(err)
		}
	}
	close(sent)
	for range 4 {
		if err := <-settled; err != nil {
			t.Error(err)
		}
	}
	if want := [][]uint64{{1, 2}, {1}, {2}, {3, 4}}; !reflect.DeepEqual(frames, want) {
		t.Errorf("frames %v, want %v", frames, want)
	}
}

// TestCannotBeSent checks that the link finds out by itself what no broker
// takes, or this one does not.
func TestCannotBeSent(t *testing.T) {
	limit := func(_, ack *packets.Packet) *packets.Packet {
		ack.Properties.MaximumPacketSize = 200
		return ack
	}
	for _, isBatch := range []bool{false, true} {
		srv := clienttest.Start(t, clienttest.Options{OnConnect: limit})
		up, err := mqtt.New(mqtt.Options{URL: srv.URL, Batch: isBatch, BatchRecords: 1})
		if err != nil {
			t.Fatal(err)
		}
		l := connect(t, up)
		if err := send(t, l, &hub.Outgoing{Record: hub.Record{Topic: []byte("t"), Payload: make([]byte, 300)}}); !errors.Is(err, hub.ErrRejected) {
			t.Errorf("batch %v, too large: %v", isBatch, err)
		}
		if err := send(t, l, &hub.Outgoing{Record: hub.Record{Topic: []byte("a/#")}}); errors.Is(err, hub.ErrRejected) == isBatch {
			t.Errorf("batch %v, wildcard: %v", isBatch, err)
		}
		if err := send(t, l, &hub.Outgoing{Record: hub.Record{Topic: []byte("t"), Payload: make([]byte, 20)}}); err != nil {
			t.Errorf("batch %v, afterwards: %v", isBatch, err)
		}
	}
}

func TestTLSFromFiles(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	settings := map[string]any{"url": m.TLSURL, "ca": m.CAFile, "certificate": m.CertFile, "key": m.KeyFile}
	o, err := mqtt.Parse("up", settings, mqtt.Env{ReadFile: os.ReadFile, Device: "gw"})
	if err != nil {
		t.Fatal(err)
	}
	up, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := send(t, connect(t, up), &hub.Outgoing{Record: hub.Record{Topic: []byte("t")}}); err != nil {
		t.Error(err)
	}
	o.Credentials.CAFile = ""
	if up, err = mqtt.New(o); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Connect(testContext(t)); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority: %v", err)
	}
	o.Credentials.CAFile = "missing.pem"
	if up, err = mqtt.New(o); err != nil {
		t.Fatal(err)
	}
	if _, err := up.Connect(testContext(t)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a missing file: %v", err)
	}
}

func TestPasswordFile(t *testing.T) {
	passwords := make(chan string, 1)
	srv := clienttest.Start(t, clienttest.Options{OnConnect: func(p, ack *packets.Packet) *packets.Packet {
		passwords <- string(p.Connect.Username) + ":" + string(p.Connect.Password) + ":" + p.Connect.ClientIdentifier
		return ack
	}})
	o, err := mqtt.Parse("up", map[string]any{"url": srv.URL, "username": "me", "password_file": "secret"}, mqtt.Env{
		Device:   "gw",
		ReadFile: func(name string) ([]byte, error) { return []byte("pass word\n"), nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	up, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	connect(t, up)
	if got := <-passwords; got != "me:pass word:gw/up" {
		t.Errorf("got %q", got)
	}
}

func TestSettingsAreChecked(t *testing.T) {
	for want, s := range map[string]map[string]any{
		`"url" is missing`:                          {},
		`"url": server address "http://x"`:          {"url": "http://x"},
		`unknown key "user", did you mean`:          {"url": "mqtt://x", "user": "me"},
		`"password_file": there is a password`:      {"url": "mqtt://x", "password": "a", "password_file": "b"},
		`"certificate" and "key" go together`:       {"url": "mqtts://x", "certificate": "a"},
		`"identify": MQTT 3.1.1`:                    {"url": "mqtt://x", "version": "3.1.1", "identify": true},
		`"compress": MQTT 3.1.1`:                    {"url": "mqtt://x", "version": "3.1.1", "compress": "zstd"},
		`"topic": "{name}" is not one of`:           {"url": "mqtt://x", "topic": "a/{name}"},
		`; this gateway is {gateway}`:               {"url": "mqtt://x", "topic": "a/{device}"},
		`"payload": "jsn" is not one of stored, js`: {"url": "mqtt://x", "payload": "jsn"},
		`"per_reading": what is sent as stored`:     {"url": "mqtt://x", "per_reading": true},
		`"times": what is sent as stored has none`:  {"url": "mqtt://x", "times": "ms"},
		`"paths": what is sent as stored has none`:  {"url": "mqtt://x", "paths": []any{map[string]any{"match": "a/*", "path": "x"}}},
		`"times": protobuf has its own`:             {"url": "mqtt://x", "payload": "protobuf", "times": "ms"},
		`"fields": protobuf has its own`:            {"url": "mqtt://x", "payload": "protobuf", "fields": map[string]any{"value": "v"}},
		`"fields": unknown key "valeu", did you`:    {"url": "mqtt://x", "payload": "json", "fields": map[string]any{"valeu": "v"}},
		`"fields": "value" cannot be left out`:      {"url": "mqtt://x", "payload": "json", "fields": map[string]any{"value": ""}},
		`"fields": "tag" and "value" have the same`: {"url": "mqtt://x", "payload": "json", "fields": map[string]any{"value": "tag"}},
		`"paths": match "press": want device/tag`:   {"url": "mqtt://x", "payload": "json", "paths": []any{map[string]any{"match": "press", "path": "x"}}},
		`"paths": path "a//b": want levels`:         {"url": "mqtt://x", "payload": "json", "paths": []any{map[string]any{"match": "a/*", "path": "a//b"}}},
		`"reading_topic": "{tag}" is not one of`:    {"url": "mqtt://x", "payload": "json", "reading_topic": "{tag}"},
		`"reading_topic": what is sent as stored`:   {"url": "mqtt://x", "reading_topic": "{device}"},
		`"annotate": only messages with "per_read`:  {"url": "mqtt://x", "payload": "json", "annotate": true},
		`"annotate": MQTT 3.1.1 has no properties`:  {"url": "mqtt://x", "payload": "json", "per_reading": true, "annotate": true, "version": "3.1.1"},
		`"batch": frames hold messages as stored`:   {"url": "mqtt://x", "payload": "cbor", "batch": true},
		`"topic_aliases": must be a whole number`:   {"url": "mqtt://x", "topic_aliases": 70000},
		`"topic": braces`:                           {"url": "mqtt://x", "topic": "a/{topic"},
		`"topic": "a/#" holds a wildcard`:           {"url": "mqtt://x", "topic": "a/#"},
		`"batch_topic": "{topic}" is not one of`:    {"url": "mqtt://x", "batch_topic": "{topic}"},
		`"bound": must be a time`:                   {"url": "mqtt://x", "bound": "1ms"},
		`"version": "4" is not one of 5, 3.1.1`:     {"url": "mqtt://x", "version": "4"},
		`"batch_size": must be a size with its uni`: {"url": "mqtt://x", "batch_size": "1GiB"},
	} {
		if _, err := mqtt.Parse("up", s, mqtt.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v\ngives %v\nwant  %s", s, err, want)
		}
	}
	for _, s := range []map[string]any{
		{"url": "mqtt://x", "version": "3.1.1", "batch": true, "compress": "zstd"},
		{"url": "mqtt://x", "version": "3.1.1", "payload": "protobuf", "per_reading": true},
		{
			"url": "mqtt://x", "payload": "json", "per_reading": true, "annotate": true, "compress": "zstd", "times": "rfc3339", "qualities": "code",
			"reading_topic": "{enterprise}/{path[1:]}/{class|none}/{unit|1}/{gateway}/{device}/{tag}", "topic": "{gateway}/{topic[1:]}",
			"fields": map[string]any{"value": "v", "seq": "", "path": "path"}, "paths": []any{map[string]any{"match": "press*/*", "path": "acme/site 1"}},
		},
	} {
		if _, err := mqtt.Parse("up", s, mqtt.Env{}); err != nil {
			t.Error(err)
		}
	}
	o, err := mqtt.Parse("up", map[string]any{"url": "mqtt://x", "payload": "json"}, mqtt.Env{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mqtt.New(o); err == nil || !strings.Contains(err.Error(), "nothing here writes readings") {
		t.Error(err)
	}
}
