package forward

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/journal"
)

// fakeLog is a journal in memory whose cursor forgets what was not flushed.
type fakeLog struct {
	mu      sync.Mutex
	epoch   uint64
	records []journal.Record // offset i+1; a gap where Gap is set
	grown   chan struct{}

	saved, durable *fakePosition
	flushErr       error
	holdFlush      bool
}

type fakePosition struct {
	low   journal.Offset
	state []byte
}

func newFakeLog() *fakeLog { return &fakeLog{epoch: 7, grown: make(chan struct{})} }

// entry describes a record of a test.
type entry struct {
	sender   string
	prio     uint8
	ttl      time.Duration
	endpoint string // "" = the one under test
	size     int
}

const endpoint = "$upstream"

func (l *fakeLog) add(clk *clocktest.Fake, entries ...entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, e := range entries {
		off := journal.Offset(len(l.records) + 1)
		now := clk.Now().UnixMicro()
		expires := int64(0)
		if e.ttl > 0 {
			expires = now + e.ttl.Microseconds()
		}
		if e.endpoint == "" {
			e.endpoint = endpoint
		}
		r := hub.Record{
			QoS: 1, Received: now, Sender: []byte(e.sender), Topic: []byte("t/" + e.sender),
			Payload: append(fmt.Appendf(nil, "%d", off), make([]byte, e.size)...),
			Targets: hub.Targets(nil).Append("other", 9, 0).Append(e.endpoint, e.prio, expires),
		}
		l.records = append(l.records, journal.Record{Offset: off, Class: e.prio, Time: now, Body: r.Append(nil)})
	}
	close(l.grown)
	l.grown = make(chan struct{})
}

// dropRange replaces records by a gap.
func (l *fakeLog) dropRange(from, to journal.Offset, why journal.Reason) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g := &journal.Gap{From: from, To: to, Reason: why}
	for off := from; off <= to; off++ {
		l.records[off-1] = journal.Record{Offset: from, Gap: g}
	}
}

// crash returns the log as it is found after a power cut.
func (l *fakeLog) crash() *fakeLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := newFakeLog()
	n.records = append(n.records, l.records...)
	n.saved, n.durable = l.durable, l.durable
	return n
}

func (l *fakeLog) Epoch() uint64 { return l.epoch }

func (l *fakeLog) First() journal.Offset { return 1 }

func (l *fakeLog) Committed() journal.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	return journal.Offset(len(l.records))
}

func (l *fakeLog) Wait(ctx context.Context, after journal.Offset) error {
	for {
		l.mu.Lock()
		n, grown := journal.Offset(len(l.records)), l.grown
		l.mu.Unlock()
		if n > after {
			return nil
		}
		select {
		case <-grown:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *fakeLog) NewReader(from journal.Offset, classes journal.Classes) Reader {
	return &fakeReader{l: l, at: from, classes: classes}
}

func (l *fakeLog) Cursor(string) (Cursor, error) { return fakeCursor{l}, nil }

type fakeReader struct {
	l       *fakeLog
	at      journal.Offset
	classes journal.Classes
	last    []byte
}

func (r *fakeReader) Next() (journal.Record, error) {
	r.l.mu.Lock()
	defer r.l.mu.Unlock()
	for i := range r.last { // memory of the record before is not valid any more
		r.last[i] = 0xdd
	}
	r.last = nil
	for int(r.at) <= len(r.l.records) {
		rec := r.l.records[r.at-1]
		if rec.Gap != nil {
			g := *rec.Gap
			rec.Gap = &g
			r.at = g.To + 1
			return rec, nil
		}
		r.at++
		if r.classes.Has(rec.Class) {
			r.last = append([]byte(nil), rec.Body...)
			rec.Body = r.last
			return rec, nil
		}
	}
	return journal.Record{}, journal.ErrEnd
}

func (r *fakeReader) Offset() journal.Offset { return r.at }
func (r *fakeReader) Seek(to journal.Offset) { r.at = to }
func (r *fakeReader) Release()               {}

type fakeCursor struct{ l *fakeLog }

func (c fakeCursor) get() *fakePosition {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	return c.l.saved
}

func (c fakeCursor) Saved() bool            { return c.get() != nil }
func (c fakeCursor) Offset() journal.Offset { return c.get().low }
func (c fakeCursor) State() []byte          { return c.get().state }

func (c fakeCursor) Save(low journal.Offset, state []byte) error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.saved = &fakePosition{low, append([]byte(nil), state...)}
	return nil
}

func (c fakeCursor) Flush(ctx context.Context) error {
	for {
		c.l.mu.Lock()
		hold, err := c.l.holdFlush, c.l.flushErr
		if !hold {
			if err == nil {
				c.l.durable = c.l.saved
			}
			c.l.mu.Unlock()
			return err
		}
		c.l.mu.Unlock()
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (l *fakeLog) setFlush(hold bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.holdFlush, l.flushErr = hold, err
}

// errLater is a refusal that may pass.
var errLater = errors.New("come again later")

// verdict is what the far side does with a message.
type verdict int

const (
	confirm verdict = iota
	reject
	later
	hold // until release
)

// arrival is one message at the far side.
type arrival struct {
	off     uint64
	sender  string
	prio    uint8
	attempt int
	gap     string // payload of a gap message
	verdict verdict
}

// far is an upstream whose far side does what the test says.
type far struct {
	mu       sync.Mutex
	judge    func(m *hub.Outgoing) verdict // nil confirms
	refuse   error                         // of Connect
	got      []arrival
	link     *fakeLink
	connects int
	advanced atomic.Uint64 // answers that settle nothing
}

// held is a message that waits for release; i is its place in far.got.
type held struct {
	i       int
	settled func(error)
}

type fakeLink struct {
	far   *far
	mu    sync.Mutex
	queue []func() // settlements, called in order by one goroutine
	held  []held
	wake  chan struct{}
	done  chan struct{}
	err   error
}

// Advanced implements hub.Advancer.
func (l *fakeLink) Advanced() uint64 { return l.far.advanced.Load() }

func (f *far) Connect(context.Context) (hub.Link, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.connects++
	if f.refuse != nil {
		return nil, f.refuse
	}
	f.link = &fakeLink{far: f, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go f.link.run()
	return f.link, nil
}

func (l *fakeLink) run() {
	defer close(l.done)
	for {
		l.mu.Lock()
		queue, err := l.queue, l.err
		l.queue = nil
		if err != nil {
			for _, h := range l.held {
				queue = append(queue, func() { h.settled(err) })
			}
			l.held = nil
		}
		l.mu.Unlock()
		for _, q := range queue {
			q()
		}
		if err != nil && len(queue) == 0 {
			return
		}
		if err == nil {
			<-l.wake
		}
	}
}

func (l *fakeLink) kick() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *fakeLink) Send(m *hub.Outgoing, settled func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return l.err
	}
	l.far.mu.Lock()
	v := confirm
	if l.far.judge != nil {
		v = l.far.judge(m)
	}
	a := arrival{off: m.Offset, sender: string(m.Record.Sender), prio: m.Priority, attempt: m.Attempt, verdict: v}
	if string(m.Record.Topic) == "gap" {
		a.gap = string(m.Record.Payload)
	} else if want := fmt.Sprint(m.Offset); string(m.Record.Payload[:len(want)]) != want {
		a.sender = "wrong payload"
	}
	n := len(l.far.got)
	l.far.got = append(l.far.got, a)
	l.far.mu.Unlock()
	var err error
	switch v {
	case hold:
		l.held = append(l.held, held{n, settled})
		return nil
	case reject:
		err = fmt.Errorf("payload format: %w", hub.ErrRejected)
	case later:
		err = errLater
	}
	l.queue = append(l.queue, func() { settled(err) })
	l.kick()
	return nil
}

func (l *fakeLink) end(err error) {
	l.mu.Lock()
	if l.err == nil {
		l.err = err
	}
	l.mu.Unlock()
	l.kick()
}

func (l *fakeLink) Done() <-chan struct{} { return l.done }

func (l *fakeLink) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *fakeLink) Close() error {
	l.end(errors.New("closed"))
	<-l.done
	return nil
}

func (f *far) arrivals() []arrival {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]arrival(nil), f.got...)
}

func (f *far) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.got)
}

func (f *far) set(judge func(m *hub.Outgoing) verdict) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.judge = judge
}

// cut ends the link.
func (f *far) cut() {
	f.mu.Lock()
	l := f.link
	f.mu.Unlock()
	if l != nil {
		l.end(errors.New("cut"))
	}
}

// release settles what is held.
func (f *far) release(err error) {
	f.mu.Lock()
	l := f.link
	f.mu.Unlock()
	l.mu.Lock()
	f.mu.Lock()
	for _, h := range l.held {
		l.queue = append(l.queue, func() { h.settled(err) })
		if err == nil {
			f.got[h.i].verdict = confirm
		}
	}
	f.mu.Unlock()
	l.held = nil
	l.mu.Unlock()
	l.kick()
}

// bench is a forwarder between a fake log and a fake far side.
type bench struct {
	t    *testing.T
	clk  *clocktest.Fake
	log  *fakeLog
	far  *far
	f    *Forwarder
	stop func() error
}

func newBench(t *testing.T) *bench {
	return &bench{t: t, clk: clocktest.New(time.Time{}), log: newFakeLog(), far: &far{}}
}

// start runs a forwarder until stop.
func (b *bench) start(o Options) *bench {
	b.t.Helper()
	o.Clock = b.clk
	f, err := New(endpoint, b.log, b.far, o)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- f.Run(ctx) }()
	b.f = f
	var once sync.Once
	b.stop = func() (err error) {
		once.Do(func() {
			cancel()
			done := false
			b.until("the forwarder has stopped", func() bool {
				select {
				case err = <-result:
					done = true
				default:
				}
				return done
			})
		})
		return err
	}
	b.t.Cleanup(func() { b.stop() })
	return b
}

// until lets time pass until the condition holds.
func (b *bench) until(what string, cond func() bool) {
	b.t.Helper()
	b.pass(50*time.Millisecond, what, cond)
}

// still waits for the condition without letting time pass.
func (b *bench) still(what string, cond func() bool) {
	b.t.Helper()
	b.pass(0, what, cond)
}

func (b *bench) pass(step time.Duration, what string, cond func() bool) {
	b.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			b.t.Fatalf("not in time: %s; %+v", what, b.f.Stats())
		}
		time.Sleep(200 * time.Microsecond)
		if step > 0 {
			b.clk.Advance(step)
		}
	}
}

func (b *bench) empty() bool {
	s := b.f.Stats()
	for _, q := range s.Queued {
		if q > 0 {
			return false
		}
	}
	b.f.mu.Lock()
	defer b.f.mu.Unlock()
	return s.InFlight == 0 && len(b.f.lanes) > 0
}

// repeat returns n entries of the senders in turn.
func repeat(n int, prio uint8, senders ...string) (es []entry) {
	for i := range n {
		es = append(es, entry{sender: senders[i%len(senders)], prio: prio})
	}
	return es
}
