package forward_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hil/fault"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/forward"
	"holdfast/hub/journal"
	"holdfast/hub/upstream/mqtt"
)

const linkBound = 2 * time.Second

// TestLinkFaults forwards from a real journal to a real broker over a link that
// breaks in each way while records keep coming. The loss must be seen within
// the bound, nothing may be missing at the far side, and each sender's records
// must arrive in order, repetitions aside.
func TestLinkFaults(t *testing.T) {
	m := clienttest.StartMosquitto(t, "max_inflight_messages 200")
	var all sync.WaitGroup // they wait for bounds, not for the processor: all at once
	defer all.Wait()
	for _, c := range []struct {
		name string
		fail func(*fault.Link)
	}{
		{"cut", func(l *fault.Link) { l.Set(fault.Refuse); l.Cut() }},
		{"reset", func(l *fault.Link) { l.Set(fault.Refuse); l.Reset() }},
		{"half-open", func(l *fault.Link) { l.Set(fault.HalfOpen) }},
		{"black-hole", func(l *fault.Link) { l.Set(fault.BlackHole) }},
		{"stall", func(l *fault.Link) { l.Set(fault.Stall) }},
	} {
		for _, busy := range []bool{true, false} {
			all.Go(func() {
				t.Run(fmt.Sprintf("%s/busy=%v", c.name, busy), func(t *testing.T) {
					breakLink(t, m, c.fail, busy, strings.ReplaceAll(t.Name(), "/", "-"))
				})
			})
		}
	}
}

func breakLink(t *testing.T, m *clienttest.Mosquitto, fail func(*fault.Link), busy bool, site string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	link, err := fault.Open(fault.Options{Target: m.Addr})
	if err != nil {
		t.Fatal(err)
	}
	far := listen(t, ctx, m.URL, site)
	j := openJournal(t, disktest.New())

	up, err := mqtt.New(mqtt.Options{URL: "mqtt://" + link.Addr(), Topic: site + "/{sender}", Identify: true, Bound: linkBound})
	if err != nil {
		t.Fatal(err)
	}
	const window = 100
	f, err := forward.New("$upstream", forward.FromJournal(j), up, forward.Options{
		Window: window, MinPause: 50 * time.Millisecond, MaxPause: 200 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	run(t, link.Run)
	run(t, f.Run)

	n := 0
	write := func(count int) {
		for range count {
			n++
			appendRecord(t, ctx, j, n)
		}
	}
	wait := func(what string, cond func(forward.Stats) bool) forward.Stats {
		t.Helper()
		for {
			s := f.Stats()
			if cond(s) {
				return s
			}
			if ctx.Err() != nil {
				t.Fatalf("%s: not in time; %d written, %d arrived, %+v", what, n, far.count(), s)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
	for round := range 2 {
		write(300)
		if !busy {
			wait("all confirmed before", func(s forward.Stats) bool { return int(s.Confirmed) == n })
		}
		wait("up", func(s forward.Stats) bool { return s.Link.Phase == forward.Up })
		fail(link)
		begin := time.Now()
		if busy {
			write(300)
		}
		s := wait("the loss is seen", func(s forward.Stats) bool { return s.Link.Phase != forward.Up })
		if took := time.Since(begin); took > linkBound+2*time.Second { // the slack is for a loaded machine
			t.Errorf("round %d: the loss was seen after %v, the bound is %v", round, took, linkBound)
		}
		if s.Link.Reason == "" {
			t.Error("no reason is told")
		}
		link.Set(fault.Pass)
	}
	write(100)
	s := wait("all confirmed", func(s forward.Stats) bool { return int(s.Confirmed) == n })
	far.check(t, ctx, n, 2*window)
	t.Logf("%d written, %d arrived, %d connections", n, far.count(), s.Connects)
}

// run runs f until the test ends.
func run(t *testing.T, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func openJournal(t testing.TB, fs *disktest.FS) *journal.Journal {
	j, err := journal.Open(fs, journal.Options{SegmentBytes: 1 << 20, CursorDelay: 10 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- j.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		j.Close()
	})
	return j
}

const senders = 4

// appendRecord appends the n-th record, counted from 1, of one of the senders.
func appendRecord(t testing.TB, ctx context.Context, j *journal.Journal, n int) {
	r := hub.Record{
		QoS: 1, Received: time.Now().UnixMicro(), Sender: fmt.Appendf(nil, "s%d", n%senders), Topic: []byte("t"),
		Payload: strconv.AppendInt(nil, int64(n), 10), Targets: hub.Targets(nil).Append("$upstream", 5, 0),
	}
	if _, err := j.Append(ctx, journal.Entry{Class: 5, Time: r.Received, Body: r.Append(nil)}); err != nil {
		t.Fatal(err)
	}
}

// listener is a subscriber at the broker.
type listener struct {
	mu      sync.Mutex
	seen    map[string]int // by epoch and offset
	newest  map[string]int // by sender
	trouble []string
}

func listen(t *testing.T, ctx context.Context, url, site string) *listener {
	l := &listener{seen: map[string]int{}, newest: map[string]int{}}
	c, _, err := client.Dial(ctx, client.Options{URL: url, OnMessage: func(_ *client.Conn, m *client.Message) { l.take(m) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Subscribe(ctx, client.Subscription{Filter: site + "/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *listener) take(m *client.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	epoch, _ := m.UserProperty(mqtt.PropEpoch)
	offset, _ := m.UserProperty(mqtt.PropOffset)
	sender := string(m.Topic[strings.LastIndexByte(string(m.Topic), '/')+1:])
	n, _ := strconv.Atoi(string(m.Payload))
	key := epoch + "/" + offset
	if l.seen[key]++; l.seen[key] > 1 {
		return // the far side drops it
	}
	if want := fmt.Sprintf("s%d", n%senders); sender != want {
		l.trouble = append(l.trouble, fmt.Sprintf("record %d came from %q", n, sender))
	}
	if n <= l.newest[sender] {
		l.trouble = append(l.trouble, fmt.Sprintf("%q: %d came after %d", sender, n, l.newest[sender]))
	}
	l.newest[sender] = n
}

func (l *listener) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.seen)
}

// check waits for the broker's last deliveries and compares.
func (l *listener) check(t *testing.T, ctx context.Context, n, repeats int) {
	t.Helper()
	for l.count() < n && ctx.Err() == nil {
		time.Sleep(5 * time.Millisecond)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	total := 0
	for _, c := range l.seen {
		total += c
	}
	if len(l.seen) != n || total-n > repeats {
		t.Errorf("%d of %d records arrived, %d times again, want at most %d", len(l.seen), n, total-n, repeats)
	}
	for _, s := range l.trouble {
		t.Error(s)
	}
}
