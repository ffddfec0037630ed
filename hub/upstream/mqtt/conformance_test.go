package mqtt_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/batch"
	"holdfast/hub/upstream/mqtt"
	"holdfast/hub/upstream/upstreamtest"
)

// far is a scripted broker.
type far struct {
	t     *testing.T
	clk   *clocktest.Fake
	srv   *clienttest.Server
	up    hub.Upstream
	batch bool

	mu     sync.Mutex
	answer upstreamtest.Answer
	got    []string
	gone   bool
}

const bound = 10 * time.Second

// TestConformance runs the suite against each form of the upstream.
func TestConformance(t *testing.T) {
	for name, o := range map[string]mqtt.Options{
		"v5":       {Identify: true},
		"batch":    {Batch: true, BatchDelay: 10 * time.Millisecond},
		"compress": {Batch: true, Compress: true, BatchRecords: 7},
		"narrow":   {Window: 2},
		"aliases":  {Aliases: 1},
		"readings": {Identify: true, Env: mqtt.Env{Readings: newSplit}, Form: mqtt.Form{Payload: "json", PerReading: true}, ReadingTopic: "{device}/{tag}"},
		"several":  {Window: 3, Env: mqtt.Env{Readings: newThree}, Form: mqtt.Form{Payload: "json", PerReading: true}, ReadingTopic: "{device}/{tag}"},
	} {
		t.Run(name, func(t *testing.T) {
			upstreamtest.Run(t, func(t *testing.T) upstreamtest.Far {
				f := &far{t: t, clk: clocktest.New(time.Time{}), batch: o.Batch}
				f.srv = clienttest.Start(t, clienttest.Options{OnConnect: aliases, OnPublish: f.onPublish, OnPacket: f.onPacket})
				o := o
				o.URL, o.Bound, o.Clock = f.srv.URL, bound, f.clk
				var err error
				if f.up, err = mqtt.New(o); err != nil {
					t.Fatal(err)
				}
				return f
			})
		})
	}
}

// aliases allows the one that a test asks for.
func aliases(_, ack *packets.Packet) *packets.Packet {
	ack.Properties.TopicAliasMaximum = 5
	return ack
}

func (f *far) onPacket(_ *clienttest.Session, p *packets.Packet) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.gone && p.FixedHeader.Type != packets.Disconnect
}

func (f *far) onPublish(_ *clienttest.Session, p *packets.Packet) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.gone || f.answer == upstreamtest.Ignore {
		return clienttest.Silent
	}
	switch f.answer {
	case upstreamtest.Reject:
		return 0x99 // payload format invalid
	case upstreamtest.Refuse:
		return 0x97 // quota exceeded
	}
	if !f.batch {
		f.got = append(f.got, strings.TrimSuffix(string(p.Payload), " 3 of 3"))
		if strings.HasSuffix(string(p.Payload), " of 3") && !strings.HasSuffix(string(p.Payload), " 3 of 3") {
			f.got = f.got[:len(f.got)-1] // a record has arrived with its last message
		}
		return 0
	}
	_, entries, err := batch.Parse(p.Payload, 1<<20)
	if err != nil {
		f.t.Error(err)
	}
	for _, e := range entries {
		f.got = append(f.got, string(e.Payload))
	}
	return 0
}

func (f *far) Upstream() hub.Upstream { return f.up }

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

// TestConformanceOf311 leaves the refusals out: MQTT 3.1.1 has none.
func TestConformanceOf311(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	up, err := mqtt.New(mqtt.Options{URL: m.URL, Version: client.Version311, Topic: "up/{topic}"})
	if err != nil {
		t.Fatal(err)
	}
	got := subscribe(t, m.URL, "up/#")
	link := connect(t, up)
	settled := make(chan error, 100)
	for i := range 100 {
		out := &hub.Outgoing{Record: hub.Record{Topic: fmt.Appendf(nil, "t/%d", i), Payload: []byte("x"), Props: []byte{1, 1}}, Offset: uint64(i)}
		if err := link.Send(out, func(err error) { settled <- err }); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 100 {
		if err := <-settled; err != nil {
			t.Error(err)
		}
		if m := <-got; m.topic != fmt.Sprintf("up/t/%d", i) || m.payload != "x" {
			t.Errorf("message %d is %+v", i, m)
		}
	}
}
