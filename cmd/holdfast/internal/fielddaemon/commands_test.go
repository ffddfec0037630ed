package fielddaemon

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/client"
	"holdfast/protocols"
	"holdfast/protocols/command"
	"holdfast/protocols/point"
	"holdfast/protocols/poll"
	"holdfast/protocols/sim"
)

// bench is a field daemon's commands with one simulated device, and somebody
// who sends commands.
type bench struct {
	t      *testing.T
	clock  *clocktest.Fake
	poller *poll.Poller
	sender *client.Conn

	mu      sync.Mutex
	answers map[string][]string // by topic: correlation and status
}

func newBench(t *testing.T) *bench {
	t.Helper()
	f := startFar(t, 0)
	b := &bench{t: t, clock: clocktest.New(time.Now()), answers: map[string][]string{}}
	log := slog.New(slog.DiscardHandler)
	adapter := sim.New(protocols.Env{Clock: clock.NewReal(), Log: log}, sim.Options{})
	b.poller = poll.New(map[string]protocols.Adapter{"sim": adapter}, discard{}, poll.Options{Clock: clock.NewReal(), Log: log})
	tags := []point.Tag{{Name: "set", Address: "constant", Access: point.ReadWrite}, {Name: "wave", Address: "sine"}}
	if _, err := b.poller.Apply([]poll.Device{{Name: "trial", Protocol: "sim", Tags: tags, Class: "c", Classes: map[string]poll.Class{"c": {Period: time.Hour}}}}); err != nil {
		t.Fatal(err)
	}
	handler, err := command.New(b.poller, command.Options{Clock: b.clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	c := &commands{handler: handler, enabled: true, key: []byte("key"), log: log, queue: make(chan order, commandQueue),
		known: func(d string) bool { return d == "trial" }}
	ctx, cancel := context.WithCancel(context.Background())
	dial := func(id string, take func(*client.Conn, *client.Message)) *client.Conn {
		conn, _, err := client.Dial(ctx, client.Options{URL: "mqtt://" + f.link.Addr(), ClientID: id, OnMessage: take})
		if err != nil {
			t.Fatal(err)
		}
		return conn
	}
	field := dial("field", c.take)
	if err := c.subscribe(ctx, field); err != nil {
		t.Fatal(err)
	}
	b.sender = dial("sender", b.take)
	if _, err := b.sender.Subscribe(ctx, client.Subscription{Filter: "#", QoS: 1, NoLocal: true}); err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() { c.run(ctx) })
	all.Go(func() { b.poller.Run(ctx) })
	t.Cleanup(func() {
		field.Close()
		b.sender.Close()
		cancel()
		all.Wait()
		adapter.Close()
	})
	return b
}

type discard struct{}

func (discard) Publish(context.Context, *point.Batch) error { return nil }

func (b *bench) take(_ *client.Conn, m *client.Message) {
	r, err := command.ParseResult(m.Payload)
	if err != nil {
		return
	}
	_, correlation := m.ResponseTopic()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[string(m.Topic)] = append(b.answers[string(m.Topic)], fmt.Sprintf("%s %s %s", correlation, r.Status, r.Reason))
}

// send publishes a command and returns the nth answer that comes on a topic.
func (b *bench) send(r command.Request, props []byte, retain bool, topic string, n int) string {
	b.t.Helper()
	r.Device, r.Expires = "trial", b.clock.Now().Add(5*time.Second)
	payload := command.AppendRequest(nil, &r)
	if props == nil {
		props = client.AppendUserProperty(nil, signatureProperty, fmt.Sprintf("%x", sum([]byte("key"), payload)))
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := b.sender.PublishWait(ctx, &client.Message{Topic: []byte(CommandTopic), Payload: payload, Props: props, QoS: 1, Retain: retain}); err != nil {
		b.t.Fatal(err)
	}
	for start := time.Now(); time.Since(start) < patience; time.Sleep(2 * time.Millisecond) {
		b.mu.Lock()
		got := b.answers[topic]
		b.mu.Unlock()
		if len(got) >= n {
			return strings.TrimSpace(got[n-1])
		}
	}
	b.t.Fatalf("no answer %d on %q: %v", n, topic, b.answers)
	return ""
}

func TestCommandsAreAnswered(t *testing.T) {
	b := newBench(t)
	set := command.Request{Tag: "set", Value: point.FloatValue(5)}
	with := func(id string) command.Request { r := set; r.ID = id; return r }

	if got := b.send(with("a"), nil, false, "field/results/a", 1); got != "done" {
		t.Errorf("a command: %q", got)
	}
	if got := b.send(with("a"), nil, false, "field/results/a", 2); !strings.HasPrefix(got, "refused the id") {
		t.Errorf("its repeat: %q", got)
	}
	r := with("b")
	r.Tag = "wave"
	if got := b.send(r, nil, false, "field/results/b", 1); !strings.HasPrefix(got, "refused tag") {
		t.Errorf("a tag that is read only: %q", got)
	}
	r.Tag, r.ID = "nothing", "c"
	if got := b.send(r, nil, false, "field/results/c", 1); !strings.HasPrefix(got, "refused no tag") {
		t.Errorf("a tag that is not there: %q", got)
	}

	if got := b.send(with("r"), nil, true, "field/results/r", 1); !strings.HasPrefix(got, "refused a retained command") {
		t.Errorf("a retained one: %q", got)
	}

	// A response topic counts below field/results only, and correlation data
	// come back.
	props := client.AppendCorrelation(client.AppendResponseTopic(nil, "field/results/mine/1"), []byte("42"))
	if got := b.send(with("d"), props, false, "field/results/mine/1", 1); !strings.HasPrefix(got, "42 ") {
		t.Errorf("on its response topic: %q", got)
	}
	props = client.AppendResponseTopic(nil, "plc/stop")
	b.send(with("e"), props, false, "field/results/e", 1)
	b.mu.Lock()
	if got := b.answers["plc/stop"]; got != nil {
		t.Errorf("an answer was published where its sender wanted to make us write: %q", got)
	}
	b.mu.Unlock()
}

// TestRemoteCommandsNeedTheClock: while nobody knows whether the clock is right,
// only commands that prove to come from this machine are carried out.
func TestRemoteCommandsNeedTheClock(t *testing.T) {
	b := newBench(t)
	set := command.Request{Tag: "set", Value: point.FloatValue(5)}
	b.clock.SetQuality(clock.Unsynced)
	for i, test := range []struct {
		what  string
		props []byte
		want  string
	}{
		{"signed", nil, "done"},
		{"not signed", []byte{}, "refused the clock is not synchronised"},
		{"signed wrongly", client.AppendUserProperty(nil, signatureProperty, strings.Repeat("00", 32)), "refused the clock is not synchronised"},
		{"signed with nonsense", client.AppendUserProperty(nil, signatureProperty, "xyz"), "refused the clock is not synchronised"},
	} {
		r := set
		r.ID = fmt.Sprint("id", i)
		if got := b.send(r, test.props, false, ResultPrefix+r.ID, 1); !strings.HasPrefix(got, test.want) {
			t.Errorf("%s: %q, want %q", test.what, got, test.want)
		}
	}
}

func TestSign(t *testing.T) {
	dir := t.TempDir()
	if _, err := Sign(dir, nil, []byte("x")); err == nil {
		t.Error("signed without a key")
	}
	key, err := makeKey(dir)
	if err != nil {
		t.Fatal(err)
	}
	props, err := Sign(dir, nil, []byte("payload"))
	if err != nil {
		t.Fatal(err)
	}
	m := client.Message{Props: props}
	proof, _ := m.UserProperty(signatureProperty)
	if !signed(key, []byte("payload"), proof) || signed(key, []byte("payloae"), proof) || signed([]byte("other"), []byte("payload"), proof) {
		t.Errorf("proof %q", proof)
	}
	again, err := makeKey(dir)
	if err != nil || string(again) == string(key) {
		t.Errorf("the key of another start is the same: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, keyFile)); err != nil || info.Mode().Perm()&0o007 != 0 {
		t.Errorf("who may read the key: %v, %v", info.Mode(), err)
	}
}
