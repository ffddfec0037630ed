package forward

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hub"
	"holdfast/hub/journal"
)

// life runs a journal and a forwarder on a disk.
type life struct {
	t    testing.TB
	j    *journal.Journal
	f    *Forwarder
	stop func()
}

func live(t testing.TB, fs *disktest.FS, segment int64, far hub.Upstream, o Options) *life {
	t.Helper()
	j, err := journal.Open(fs, journal.Options{SegmentBytes: segment, CursorDelay: 2 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	f, err := New(endpoint, FromJournal(j), far, o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	keep, end := context.WithCancel(context.Background())
	var forwarding, keeping sync.WaitGroup
	keeping.Go(func() { j.Run(keep) })
	forwarding.Go(func() { f.Run(ctx) })
	l := &life{t: t, j: j, f: f}
	l.stop = sync.OnceFunc(func() {
		cancel()
		forwarding.Wait()
		end()
		keeping.Wait()
		j.Close()
	})
	t.Cleanup(l.stop)
	return l
}

func (l *life) until(what string, cond func() bool) {
	l.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			l.t.Fatalf("not in time: %s; %+v", what, l.f.Stats())
		}
	}
}

// TestPowerCuts cuts the power of journal and forwarder together, several times
// in a row. Whatever the journal confirmed must reach the far side, and not more
// than the window twice.
func TestPowerCuts(t *testing.T) {
	const cuts = 8
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	fs := disktest.New()
	far := &far{}
	o := Options{Window: 32, DuplicateWindow: 128, SaveEvery: time.Millisecond, MinPause: time.Millisecond, Priorities: []uint8{0, 5}}
	written := map[string]bool{} // by payload: numbers may be given anew after a cut
	got := map[string]int{}
	for life := range cuts + 1 {
		l := live(t, fs, 64<<10, &byPayload{far, got, &sync.Mutex{}}, o)
		l.until("running", func() bool { return l.f.Stats().Connects > 0 })
		for i := range 100 + rng.IntN(300) {
			p := fmt.Sprintf("%d/%d", life, i)
			prio := uint8(rng.IntN(2) * 5)
			r := hub.Record{
				QoS: 1, Received: time.Now().UnixMicro(), Sender: fmt.Appendf(nil, "s%d", i%3), Topic: []byte("t"),
				Payload: []byte(p), Targets: hub.Targets(nil).Append(endpoint, prio, 0),
			}
			if _, err := l.j.Append(context.Background(), journal.Entry{Class: prio, Body: r.Append(nil)}); err != nil {
				t.Fatal(err)
			}
			written[p] = true
		}
		if life < cuts {
			fs = fs.CrashClone(rng.Uint64())
			l.stop()
			continue
		}
		l.until("drained", func() bool {
			s := l.f.Stats()
			return s.InFlight == 0 && s.Queued[0] == 0 && s.Queued[1] == 0
		})
		l.stop()
	}
	again := 0
	for p := range written {
		if got[p] == 0 {
			t.Errorf("record %q is lost", p)
		}
		again += max(0, got[p]-1)
	}
	if len(got) != len(written) || again > cuts*o.DuplicateWindow {
		t.Errorf("%d written, %d arrived, %d of them again", len(written), len(got), again)
	}
	t.Logf("%d records, %d cuts, %d arrived again", len(written), cuts, again)
}

// byPayload counts what a far side confirmed.
type byPayload struct {
	far *far
	got map[string]int
	mu  *sync.Mutex
}

func (b *byPayload) Connect(ctx context.Context) (hub.Link, error) {
	return &counter{b: b, done: make(chan struct{})}, nil
}

// counter is a link that confirms everything at once.
type counter struct {
	b    *byPayload
	once sync.Once
	mu   sync.Mutex
	err  error
	done chan struct{}
	wg   sync.WaitGroup
}

func (c *counter) Send(m *hub.Outgoing, settled func(error)) error {
	c.b.mu.Lock()
	c.b.got[string(m.Record.Payload)]++
	c.b.mu.Unlock()
	c.wg.Go(func() { settled(nil) })
	return nil
}

func (c *counter) Done() <-chan struct{} { return c.done }

func (c *counter) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

func (c *counter) Close() error {
	c.once.Do(func() {
		c.mu.Lock()
		c.err = context.Canceled
		c.mu.Unlock()
		c.wg.Wait()
		close(c.done)
	})
	return nil
}

// TestDeadLettersOnJournal keeps refused records in a journal of their own, and
// reads them back.
func TestDeadLettersOnJournal(t *testing.T) {
	dead, err := journal.Open(disktest.New(), journal.Options{SegmentBytes: 64 << 10, MaxBytes: 4 * 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { dead.Run(ctx) })
	defer wg.Wait()
	defer cancel()

	far := &far{judge: func(m *hub.Outgoing) verdict { return reject }}
	l := live(t, disktest.New(), 64<<10, far, Options{DeadLetters: NewDeadLetters(dead)})
	for i := range 20 {
		r := hub.Record{Sender: []byte("s"), Topic: []byte("t"), Payload: fmt.Append(nil, i+1), Targets: hub.Targets(nil).Append(endpoint, 5, 0)}
		if _, err := l.j.Append(ctx, journal.Entry{Class: 5, Body: r.Append(nil)}); err != nil {
			t.Fatal(err)
		}
	}
	l.until("all are kept", func() bool { return l.f.Stats().DeadLettered == 20 })
	r := dead.NewReader(1)
	for i := range 20 {
		rec, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		var d DeadLetter
		if err := d.Parse(rec.Body); err != nil || d.Offset != uint64(i+1) || string(d.Record.Payload) != fmt.Sprint(i+1) || d.Epoch != l.j.Epoch() {
			t.Errorf("dead letter %d: %+v, %v", i, d, err)
		}
	}
}

// BenchmarkForward forwards records of 1 KiB from a journal in memory to a link
// that confirms at once, in batches as a network would.
func BenchmarkForward(b *testing.B) {
	l := live(b, disktest.New(), 64<<20, sink{}, Options{Window: 4096, WindowBytes: 16 << 20})
	body := (&hub.Record{
		QoS: 1, Received: time.Now().UnixMicro(), Sender: []byte("line 1"), Topic: []byte("plant/line1/boiler"),
		Payload: make([]byte, 1024), Targets: hub.Targets(nil).Append(endpoint, 5, 0),
	}).Append(nil)
	var batch []journal.Entry
	for range 500 {
		batch = append(batch, journal.Entry{Class: 5, Body: body})
	}
	b.SetBytes(1024)
	b.ReportAllocs()
	written := 0
	for b.Loop() {
		if written++; written%len(batch) == 0 {
			if _, err := l.j.Append(context.Background(), batch...); err != nil {
				b.Fatal(err)
			}
			// Keeps the backlog within what the tail cache holds twice over.
			l.until("it keeps up", func() bool { return written-int(l.f.Stats().Confirmed) < 20*len(batch) })
		}
	}
	written -= written % len(batch)
	l.until("all are confirmed", func() bool { return int(l.f.Stats().Confirmed) >= written })
}

// sink is an upstream whose links confirm everything, many at a time.
type sink struct{}

func (sink) Connect(context.Context) (hub.Link, error) {
	s := &sinkLink{wake: make(chan struct{}, 1), done: make(chan struct{})}
	go s.run()
	return s, nil
}

type sinkLink struct {
	mu    sync.Mutex
	queue []func(error)
	ended bool
	wake  chan struct{}
	done  chan struct{}
}

func (s *sinkLink) run() {
	defer close(s.done)
	var queue []func(error)
	for range s.wake {
		s.mu.Lock()
		queue, s.queue = s.queue, queue[:0]
		ended := s.ended
		s.mu.Unlock()
		for _, settled := range queue {
			settled(nil)
		}
		if ended {
			return
		}
	}
}

func (s *sinkLink) kick() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *sinkLink) Send(_ *hub.Outgoing, settled func(error)) error {
	s.mu.Lock()
	s.queue = append(s.queue, settled)
	s.mu.Unlock()
	s.kick()
	return nil
}

func (s *sinkLink) Done() <-chan struct{} { return s.done }

func (s *sinkLink) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		return context.Canceled
	}
	return nil
}

func (s *sinkLink) Close() error {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.kick()
	<-s.done
	return nil
}
