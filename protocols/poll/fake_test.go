package poll

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// counting is an adapter whose devices answer as the test says and that counts
// what is asked of it.
type counting struct {
	mu     sync.Mutex
	opened map[string]int // sessions by device
	closed map[string]int
	groups map[string]int // groups made, by device
	reads  map[string]int // by device/tag
	answer func(device string, t point.Tag, n int) point.Sample
	before func(ctx context.Context, device string, tags []point.Tag) // called at the start of each read
	subs   map[string]func(tag int, s point.Sample)                   // sinks by device
	end    map[string]chan error                                      // ends a subscription
}

func newCounting() *counting {
	return &counting{
		opened: map[string]int{}, closed: map[string]int{}, groups: map[string]int{}, reads: map[string]int{},
		subs: map[string]func(int, point.Sample){}, end: map[string]chan error{},
		answer: func(_ string, _ point.Tag, n int) point.Sample { return point.Sample{Value: point.IntValue(int64(n))} },
	}
}

func (c *counting) Check(d protocols.Device) error {
	if d.Settings["broken"] != nil {
		return errors.New("broken: not allowed")
	}
	return nil
}

func (c *counting) Open(d protocols.Device) (protocols.Session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d.Settings["refuse"] != nil {
		return nil, errors.New("refused")
	}
	c.opened[d.Name]++
	s := &countingSession{c: c, device: d.Name}
	if d.Settings["subscriber"] != nil {
		return &subscribingSession{s}, nil
	}
	return s, nil
}

func (c *counting) Close() error { return nil }

func (c *counting) count(m map[string]int, key string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return m[key]
}

type countingSession struct {
	c      *counting
	device string
}

func (s *countingSession) Group(tags []point.Tag) (protocols.Group, error) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.groups[s.device]++
	for _, t := range tags {
		if t.Address == "nowhere" {
			return nil, errors.New("no such place")
		}
	}
	return &countingGroup{s, tags}, nil
}

func (s *countingSession) Close() error {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.c.closed[s.device]++
	return nil
}

type countingGroup struct {
	s    *countingSession
	tags []point.Tag
}

func (g *countingGroup) Read(ctx context.Context, out []point.Sample) {
	c := g.s.c
	if c.before != nil {
		c.before(ctx, g.s.device, g.tags)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, t := range g.tags {
		key := g.s.device + "/" + t.Name
		c.reads[key]++
		if s := c.answer(g.s.device, t, c.reads[key]); s.Detail != "unanswered" {
			out[i] = s
		}
	}
}

type subscribingSession struct{ *countingSession }

func (s *subscribingSession) Subscribe(ctx context.Context, _ []point.Tag, sink func(int, point.Sample)) error {
	end := make(chan error)
	s.c.mu.Lock()
	s.c.subs[s.device], s.c.end[s.device] = sink, end
	s.c.mu.Unlock()
	defer func() {
		s.c.mu.Lock()
		delete(s.c.subs, s.device)
		s.c.mu.Unlock()
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-end:
		return err
	}
}

// sink keeps batches. fail and gate change what it does.
type sink struct {
	mu      sync.Mutex
	batches []point.Batch
	fail    error
	gate    chan struct{} // when not nil, one receive for each batch
	calls   int
}

func (s *sink) Publish(ctx context.Context, b *point.Batch) error {
	s.mu.Lock()
	s.calls++
	gate, fail := s.gate, s.fail
	s.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if fail != nil {
		return fail
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := *b
	kept.Readings = append([]point.Reading(nil), b.Readings...)
	s.batches = append(s.batches, kept)
	return nil
}

func (s *sink) all() []point.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]point.Batch(nil), s.batches...)
}

// readings returns "value quality" of each published reading of a tag.
func (s *sink) readings(device, tag string) []string {
	var out []string
	for _, b := range s.all() {
		for _, r := range b.Readings {
			if b.Device == device && r.Tag == tag {
				out = append(out, fmt.Sprintf("%s %s", r.Value, r.Quality))
			}
		}
	}
	return out
}

// rig is a running poller under a fake clock.
type rig struct {
	t     *testing.T
	clk   *clocktest.Fake
	field *counting
	sink  *sink
	p     *Poller
	log   *syncBuffer
	stop  context.CancelFunc
	done  chan error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) lines(containing string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for line := range strings.Lines(s.b.String()) {
		if strings.Contains(line, containing) {
			n++
		}
	}
	return n
}

func newRig(t *testing.T, o Options) *rig {
	r := &rig{t: t, clk: clocktest.New(time.Time{}), field: newCounting(), sink: &sink{}, log: &syncBuffer{}}
	o.Clock, o.Boot, o.Log = r.clk, 77, slog.New(slog.NewTextHandler(r.log, nil))
	r.p = New(map[string]protocols.Adapter{"fake": r.field}, r.sink, o)
	return r
}

func (r *rig) apply(devices ...Device) Changes {
	r.t.Helper()
	c, err := r.p.Apply(devices)
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

func (r *rig) run() {
	ctx, cancel := context.WithCancel(context.Background())
	r.stop, r.done = cancel, make(chan error, 1)
	go func() { r.done <- r.p.Run(ctx) }()
	r.t.Cleanup(r.end)
}

func (r *rig) end() {
	if r.stop == nil {
		return
	}
	r.stop()
	r.stop = nil
	select {
	case err := <-r.done:
		if err != nil {
			r.t.Errorf("Run: %v", err)
		}
	case <-time.After(30 * time.Second):
		r.t.Error("Run does not return")
	}
}

// step lets d pass, one timer at a time; timers is how many run when all is idle.
func (r *rig) step(d time.Duration, timers int) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for end := r.clk.Elapsed() + d; ; {
		if err := r.clk.WaitArmed(ctx, timers); err != nil {
			r.t.Fatalf("only %d of %d timers are armed", r.clk.Armed(), timers)
		}
		left := end - r.clk.Elapsed()
		next, _ := r.clk.Next()
		if next > left {
			r.clk.Advance(left)
			return
		}
		r.clk.Advance(next)
	}
}

// settle waits until everything offered has been sent.
func (r *rig) settle() {
	r.t.Helper()
	eventually(r.t, "the outbox is empty", func() bool {
		for _, s := range r.p.Status() {
			if s.Queued > 0 {
				return false
			}
		}
		return true
	})
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func tags(names ...string) []point.Tag {
	var out []point.Tag
	for _, name := range names {
		n, class, _ := strings.Cut(name, "@")
		out = append(out, point.Tag{Name: n, Class: class, Address: n})
	}
	return out
}

func dev(name string, names ...string) Device {
	return Device{
		Name: name, Protocol: "fake", Class: "fast", Tags: tags(names...),
		Classes: map[string]Class{"fast": {Period: 100 * time.Millisecond}, "slow": {Period: time.Second}},
	}
}
