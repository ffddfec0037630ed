package session

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/disk"
	"holdfast/drivers/disk/disktest"
	"holdfast/hub/broker"
)

// patience bounds every wait of a test.
const patience = 30 * time.Second

// house is a hub on a disk, driven without an engine.
type house struct {
	t    testing.TB
	hub  *Hub
	fs   disk.FS
	o    Options
	stop context.CancelFunc
	done chan error
}

// everyone lets everybody in; the name is the client identifier unless there is
// a user name.
type everyone struct{}

type anyone string

func (everyone) Authenticate(_ context.Context, c *broker.Connect) (broker.Principal, error) {
	if c.HasUsername {
		return anyone(c.Username), nil
	}
	return anyone(c.ClientID), nil
}

func (a anyone) Name() string             { return string(a) }
func (anyone) MayPublish([]byte) bool     { return true }
func (anyone) MaySubscribe(f string) bool { return !strings.HasPrefix(f, "secret/") }

func open(t testing.TB, fs disk.FS, o Options) *house {
	t.Helper()
	if o.Access == nil {
		o.Access = everyone{}
	}
	if o.Journal.SegmentBytes == 0 {
		o.Journal.SegmentBytes = 1 << 20
	}
	w := &house{t: t, fs: fs, o: o}
	w.start()
	t.Cleanup(func() { w.close() })
	return w
}

func (w *house) start() {
	w.t.Helper()
	h, err := Open(w.fs, w.o)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hub = h
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan error, 1)
	go func() { w.done <- h.Run(ctx) }()
}

// close ends the hub and returns what Run said.
func (w *house) close() error {
	if w.stop == nil {
		return nil
	}
	w.stop()
	w.stop = nil
	select {
	case err := <-w.done:
		return errors.Join(err, w.hub.Close())
	case <-time.After(patience):
		w.t.Error("the hub does not end")
		return nil
	}
}

// restart ends the hub in order and opens it again.
func (w *house) restart() {
	w.t.Helper()
	if err := w.close(); err != nil {
		w.t.Fatal(err)
	}
	w.start()
}

// crash opens the hub on what a power cut leaves.
func (w *house) crash(seed uint64) *house {
	w.t.Helper()
	fs := w.fs.(*disktest.FS).CrashClone(seed)
	return open(w.t, fs, w.o)
}

// client plays the engine for one connection.
type client struct {
	w    *house
	s    broker.Session
	id   string
	wake chan struct{}

	mu     sync.Mutex
	closed byte
	gone   bool
	auto   bool // detaches when told to close
	next   uint16
}

func (c *client) Wake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *client) Close(code byte, _ string) {
	c.mu.Lock()
	c.closed = code
	auto := c.auto && !c.gone
	c.gone = c.gone || auto
	c.mu.Unlock()
	if auto {
		go c.s.Detach(broker.Detachment{TakenOver: true, SessionExpiry: broker.Forever})
	}
}

// connect attaches a client; the session expires after expiry.
func (w *house) connect(id string, expiry time.Duration, change ...func(*broker.Connect)) *client {
	w.t.Helper()
	c, err := w.tryConnect(id, expiry, change...)
	if err != nil {
		w.t.Fatalf("connect %q: %v", id, err)
	}
	return c
}

func (w *house) tryConnect(id string, expiry time.Duration, change ...func(*broker.Connect)) (*client, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	k := &broker.Connect{ClientID: id, Version: 5, SessionExpiry: expiry, ReceiveMaximum: 65535}
	for _, f := range change {
		f(k)
	}
	p, err := w.hub.Authenticate(ctx, k)
	if err != nil {
		return nil, err
	}
	c := &client{w: w, id: id, wake: make(chan struct{}, 1)}
	c.s, err = w.hub.Attach(ctx, p, k, c)
	return c, err
}

func clean(k *broker.Connect) { k.CleanStart = true }

func old(k *broker.Connect) { k.Version = 4 }

// leave detaches the client; how may be left out for a lost connection.
func (c *client) leave(how ...broker.Detachment) {
	c.w.t.Helper()
	d := broker.Detachment{SessionExpiry: broker.Forever}
	if len(how) > 0 {
		d = how[0]
	}
	c.mu.Lock()
	c.gone = true
	c.mu.Unlock()
	c.s.Detach(d)
}

func (c *client) subscribe(qos byte, filters ...string) []byte {
	c.w.t.Helper()
	var subs []broker.Subscription
	for _, f := range filters {
		subs = append(subs, broker.Subscription{Filter: f, QoS: qos})
	}
	return c.subscribeTo(subs...)
}

func (c *client) subscribeTo(subs ...broker.Subscription) []byte {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	codes, err := c.s.Subscribe(ctx, subs)
	if err != nil {
		c.w.t.Fatalf("subscribe: %v", err)
	}
	return codes
}

func (c *client) unsubscribe(filters ...string) []byte {
	c.w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	codes, err := c.s.Unsubscribe(ctx, filters)
	if err != nil {
		c.w.t.Fatalf("unsubscribe: %v", err)
	}
	return codes
}

// send hands a batch in and returns a channel on which it is answered.
func (c *client) send(items ...broker.Item) <-chan *broker.Inbound {
	done := make(chan *broker.Inbound, 1)
	c.s.Publish(&broker.Inbound{Items: items, Done: func(in *broker.Inbound) { done <- in }})
	return done
}

func (c *client) await(done <-chan *broker.Inbound) []broker.Item {
	c.w.t.Helper()
	select {
	case in := <-done:
		return in.Items
	case <-time.After(patience):
		c.w.t.Fatal("a batch is not answered")
		return nil
	}
}

func message(topic, payload string, qos byte) broker.Item {
	return broker.Item{Message: broker.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: qos}}
}

// publish sends a message, waits for its answer and returns the code.
func (c *client) publish(topic, payload string, qos byte, change ...func(*broker.Item)) byte {
	c.w.t.Helper()
	it := message(topic, payload, qos)
	if qos > 0 {
		c.next++
		it.PacketID = c.next
	}
	for _, f := range change {
		f(&it)
	}
	return c.await(c.send(it))[0].Code
}

func retain(it *broker.Item) { it.Message.Retain = true }

// got is a delivery with memory of its own.
type got struct {
	id      uint64
	topic   string
	payload string
	qos     byte
	retain  bool
	ids     []uint32
	expiry  time.Duration
}

func own(d *broker.Delivery) got {
	return got{d.ID, string(d.Message.Topic), string(d.Message.Payload), d.Message.QoS, d.Message.Retain, slices.Clone(d.SubIDs), d.Message.Expiry}
}

// fetch returns what one Fetch brings.
func (c *client) fetch(most int) []got {
	var list []got
	for _, d := range c.s.Fetch(nil, most, 1<<20) {
		list = append(list, own(&d))
	}
	return list
}

// take fetches until n deliveries are there and settles them.
func (c *client) take(n int) []got {
	c.w.t.Helper()
	return c.gather(n, true)
}

// hold is take without settling.
func (c *client) hold(n int) []got {
	c.w.t.Helper()
	return c.gather(n, false)
}

// gather fetches as the engine does: until nothing comes, and then when woken.
func (c *client) gather(n int, settle bool) []got {
	c.w.t.Helper()
	var list []got
	timeout := time.After(patience)
	for {
		some := c.fetch(min(n-len(list), 256))
		list = append(list, some...)
		if settle {
			c.settle(some...)
		}
		if len(list) == n {
			return list
		}
		if len(some) > 0 {
			continue
		}
		select {
		case <-c.wake:
		case <-timeout:
			c.w.t.Fatalf("%s: %d of %d deliveries; the last: %v", c.id, len(list), n, payloads(list[max(0, len(list)-10):]))
		}
	}
}

func (c *client) settle(list ...got) {
	var ids []uint64
	for _, g := range list {
		if g.qos > 0 {
			ids = append(ids, g.id)
		}
	}
	if len(ids) > 0 {
		c.s.Settle(ids)
	}
}

// nothing checks that there is nothing to deliver, after everything that was
// published so far has been offered.
func (c *client) nothing() {
	c.w.t.Helper()
	c.w.flush()
	if list := c.fetch(10); len(list) > 0 {
		c.w.t.Fatalf("%s: unexpected deliveries %v", c.id, list)
	}
}

// flush waits until everything that was submitted has been applied.
func (w *house) flush() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := w.hub.commit(ctx, nil, control{kind: kindEnded, number: 1 << 60}); err != nil {
		w.t.Fatal(err)
	}
}

func payloads(list []got) []string {
	var p []string
	for _, g := range list {
		p = append(p, g.payload)
	}
	return p
}

func want(t testing.TB, list []got, payload ...string) {
	t.Helper()
	if got := payloads(list); !slices.Equal(got, payload) {
		t.Fatalf("got %q, want %q", got, payload)
	}
}

func numbers(prefix string, from, to int) []string {
	var list []string
	for i := from; i < to; i++ {
		list = append(list, fmt.Sprintf("%s%d", prefix, i))
	}
	return list
}

// publishAll sends the payloads in batches and waits for all answers.
func (c *client) publishAll(topic string, list []string, qos byte) {
	c.w.t.Helper()
	for len(list) > 0 {
		n := min(len(list), 500)
		var items []broker.Item
		for _, p := range list[:n] {
			it := message(topic, p, qos)
			c.next++
			it.PacketID = max(c.next, 1)
			items = append(items, it)
		}
		for _, it := range c.await(c.send(items...)) {
			if it.Code != 0 {
				c.w.t.Fatalf("publication refused with %#x", it.Code)
			}
		}
		list = list[n:]
	}
}

// eventually waits for what other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
