package forward

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/internal/backoff"
	"holdfast/hub/journal"
)

// A Forwarder serves one endpoint. Run does the work in one goroutine; Stats
// and Link may be called at any time.
type Forwarder struct {
	endpoint string
	up       hub.Upstream
	log      Log
	cursor   Cursor
	o        Options
	wake     chan struct{}

	inbox inbox // what other goroutines report; its lock is never held for long

	mu    sync.Mutex // held by Run except while it waits
	lanes []*lane
	epoch uint64
	now   time.Duration // Elapsed at the start of this turn
	wall  int64         // unix microseconds at the start of this turn
	more  bool          // this turn left something undone

	flights []*flight
	free    []*flight
	bytes   int

	link          hub.Link
	state         LinkState
	dialing       bool
	dialDue       time.Duration
	pause         backoff.Backoff
	stopping      bool
	proven        bool // this link has confirmed something
	progress      time.Duration
	advanced      uint64 // what the link's Advanced said last
	lastConfirmed int64
	sendFailed    error

	moved     bool // a position changed since the last save
	unsaved   int  // what is over since the last durable save
	saving    int  // of unsaved, what the save under way covers; -1 when none is
	saved     time.Duration
	saveDue   time.Duration // not before, after a failure
	readDue   time.Duration // likewise
	stats     Stats
	trouble   map[Trouble]time.Duration // raised, and when last
	goroutine sync.WaitGroup
}

// inbox is what other goroutines report to Run.
type inbox struct {
	sync.Mutex
	settled []settlement
	linked  *linked
	ended   hub.Link
	flushed *flushed
}

type linked struct {
	link hub.Link
	err  error
}

type flushed struct{ err error }

// New returns a forwarder from the log to the upstream for the given endpoint,
// whose name is also that of its cursor. Nothing happens before Run.
func New(endpoint string, log Log, up hub.Upstream, o Options) (*Forwarder, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("forwarder %q: %w", endpoint, err)
	}
	f := &Forwarder{
		endpoint: endpoint, up: up, log: log, o: o,
		wake: make(chan struct{}, 1), trouble: map[Trouble]time.Duration{},
		state: LinkState{Phase: Connecting, Since: o.Clock.Now()}, saving: -1,
	}
	f.pause = f.newPause()
	return f, nil
}

func (f *Forwarder) newPause() backoff.Backoff {
	return backoff.Backoff{Min: f.o.MinPause, Max: f.o.MaxPause, Rand: f.o.Rand}
}

func (f *Forwarder) wakeUp() {
	select {
	case f.wake <- struct{}{}:
	default: // Run has been woken already and looks at everything
	}
}

// Run forwards until ctx ends. Then it waits for what is in flight and saves
// the position, each for DrainTimeout at most, and returns nil, or an error when
// the position could not be saved; what was confirmed since is sent again then.
// It may be called once.
func (f *Forwarder) Run(ctx context.Context) error {
	if err := f.load(); err != nil {
		return fmt.Errorf("forwarder %q: %w", f.endpoint, err)
	}
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	f.goroutine.Go(func() { f.follow(work) })
	defer func() {
		cancel()
		f.goroutine.Wait()
		if l := f.inbox.linked; l != nil && l.link != nil {
			l.link.Close() // it came too late
		}
	}()

	timer := f.o.Clock.NewTimer(0)
	defer timer.Stop()
	for ctx.Err() == nil {
		f.mu.Lock()
		f.turn(work, true)
		more, next := f.more, f.nextDue()-f.now
		f.mu.Unlock()
		if more {
			continue
		}
		timer.Reset(max(next, time.Millisecond))
		select {
		case <-f.wake:
		case <-timer.C():
		case <-ctx.Done():
		}
	}
	return f.finish(work, timer)
}

// follow wakes Run for each commit of the journal.
func (f *Forwarder) follow(ctx context.Context) {
	for ctx.Err() == nil {
		at := f.log.Committed()
		f.wakeUp()
		if f.log.Wait(ctx, at) != nil && clock.Sleep(ctx, f.o.Clock, time.Second) != nil {
			return
		}
	}
}

// burst is how many records one turn sends at most before it looks at what has
// been settled; scanBudget is how many it looks at.
const (
	burst      = 256
	scanBudget = 4096
)

// turn does everything that can be done now. The caller holds mu.
func (f *Forwarder) turn(ctx context.Context, sending bool) {
	f.now, f.wall = f.o.Clock.Elapsed(), f.o.Clock.Now().UnixMicro()
	f.more = false
	f.collect(ctx)
	f.checkLink(ctx, sending)
	if sending {
		f.fill()
	}
	f.save(ctx, false)
	f.calm()
}

// collect takes what other goroutines reported.
func (f *Forwarder) collect(ctx context.Context) {
	f.inbox.Lock()
	in := inbox{settled: f.inbox.settled, linked: f.inbox.linked, ended: f.inbox.ended, flushed: f.inbox.flushed}
	f.inbox.settled, f.inbox.linked, f.inbox.ended, f.inbox.flushed = nil, nil, nil, nil
	f.inbox.Unlock()
	if in.linked != nil {
		f.linked(ctx, in.linked)
	}
	f.settleAll(in.settled)
	if in.ended != nil && in.ended == f.link {
		f.linkLost(in.ended.Err())
	}
	if in.flushed != nil {
		f.flushedState(in.flushed.err)
	}
}

// fill sends while there is room and something to send.
func (f *Forwarder) fill() {
	if f.now < f.readDue {
		return
	}
	budget := scanBudget
	if f.link == nil {
		for _, l := range f.lanes {
			l.main.peek(&budget) // drops what expired; tells how old the queue is
		}
		return
	}
	for range burst {
		s := f.pick(&budget)
		if s == nil {
			return
		}
		if !f.roomFor(len(s.head.body)) {
			return
		}
		if !f.send(s) {
			f.linkLost(f.sendFailed)
			return
		}
	}
	f.more = true
}

func (f *Forwarder) pick(budget *int) *source {
	for _, l := range f.lanes {
		if s := l.pick(f.now, budget); s != nil {
			return s
		}
	}
	return nil
}

// nextDue returns when Run has to do something even if nothing is reported.
func (f *Forwarder) nextDue() time.Duration {
	next := f.now + time.Minute
	if f.link == nil && !f.dialing {
		next = min(next, max(f.dialDue, f.now))
	}
	if len(f.flights) > 0 {
		next = min(next, f.progress+f.o.Bound)
	}
	if f.saving < 0 && f.moved {
		next = min(next, max(f.saved+f.o.SaveEvery, f.saveDue))
	}
	if f.readDue > f.now {
		next = min(next, f.readDue)
	}
	for _, at := range f.trouble {
		if at > 0 {
			next = min(next, at+eventHold)
		}
	}
	for _, l := range f.lanes {
		next = l.nextDue(next)
	}
	return next
}

// load finds the position where the last run left off.
func (f *Forwarder) load() error {
	c, err := f.log.Cursor(f.endpoint)
	if err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cursor, f.epoch = c, f.log.Epoch()
	start := f.log.First()
	var old []laneState
	if c.Saved() {
		epoch, lanes, err := parseState(c.State())
		switch {
		case err != nil:
			// The position without its exceptions is still good: it is the lowest.
			f.o.Log.Warn("position without its state", "endpoint", f.endpoint, "reason", err)
			start = max(start, c.Offset()+1)
		case epoch != f.epoch:
			// The numbers mean other records now. Sending all that is there again
			// is safe; skipping would not be.
			f.o.Log.Warn("journal has another epoch, sending from its start", "endpoint", f.endpoint)
		default:
			old = lanes
		}
	}
	start = min(start, f.log.Committed()+1)
	for _, mask := range laneMasks(f.o.Priorities) {
		f.lanes = append(f.lanes, newLane(f, merged(mask, old, start)))
	}
	f.moved = true // the first save pins the journal
	f.saved = f.o.Clock.Elapsed() - f.o.SaveEvery
	return nil
}

// merged returns where a lane of the given priorities starts.
func merged(mask uint16, old []laneState, start journal.Offset) laneState {
	s := laneState{mask: mask}
	first := true
	for i := range old {
		switch {
		case old[i].mask == mask:
			return old[i]
		case old[i].mask&mask == 0:
		case old[i].mask&mask == mask: // part of a lane: its exceptions hold here too
			s.main, s.detours = old[i].main.copy(), old[i].detours
			return s
		case first || old[i].low() < s.main.next:
			s.main.next, first = old[i].low(), false
		}
	}
	if first {
		s.main.next = start
	}
	return s
}

// states returns what is to be saved, and the first offset that is not done.
func (f *Forwarder) states() (lanes []laneState, low journal.Offset) {
	low = f.log.Committed() + 1
	for _, l := range f.lanes {
		s := l.state(f.flights)
		low = min(low, s.low())
		lanes = append(lanes, s)
	}
	return lanes, low
}

// save saves the position when it is time, or must be.
func (f *Forwarder) save(ctx context.Context, must bool) {
	early := f.unsaved >= f.o.DuplicateWindow/2
	if f.saving >= 0 || !f.moved || f.now < f.saveDue && !must || !early && !must && f.now < f.saved+f.o.SaveEvery {
		return
	}
	lanes, low := f.states()
	state := appendState(nil, f.epoch, lanes)
	if len(state) > journal.MaxState {
		// Too many exceptions to keep: after a restart each lane starts at its
		// lowest one, and sends more again.
		for i := range lanes {
			lanes[i] = laneState{mask: lanes[i].mask, main: position{next: lanes[i].low()}}
		}
		state = appendState(nil, f.epoch, lanes)
	}
	if err := f.cursor.Save(low-1, state); err != nil {
		f.saveFailed(err)
		return
	}
	f.saving, f.moved, f.saved = f.unsaved, false, f.now
	f.goroutine.Go(func() {
		err := f.cursor.Flush(ctx)
		f.inbox.Lock()
		f.inbox.flushed = &flushed{err}
		f.inbox.Unlock()
		f.wakeUp()
	})
}

func (f *Forwarder) saveFailed(err error) {
	f.saveDue = f.now + f.o.MinPause
	f.moved = true
	f.raise(CursorFailed, err.Error())
}

func (f *Forwarder) flushedState(err error) {
	covered := f.saving
	f.saving = -1
	if err != nil {
		f.saveFailed(err)
		return
	}
	f.unsaved -= covered
	f.clear(CursorFailed)
}

// finish ends Run: drain, close, save.
func (f *Forwarder) finish(ctx context.Context, timer clock.Timer) error {
	f.await(ctx, timer, func() bool { return len(f.flights) == 0 || f.link == nil })
	f.mu.Lock()
	f.stopping = true
	link := f.link
	f.mu.Unlock()
	if link != nil {
		link.Close() // settles what is in flight; the turn below takes it back
	}
	var failed error
	f.await(ctx, timer, func() bool {
		if f.link != nil && f.link.Err() != nil {
			f.linkLost(errors.New("stopped"))
		}
		if f.moved && f.saving < 0 {
			f.saveDue = 0
			f.save(ctx, true)
		}
		failed = nil
		if f.moved || f.saving >= 0 {
			failed = fmt.Errorf("forwarder %q: position is not saved, %d records may be sent again", f.endpoint, f.unsaved)
		}
		return failed == nil
	})
	return failed
}

// await takes turns without sending until done or DrainTimeout.
func (f *Forwarder) await(ctx context.Context, timer clock.Timer, done func() bool) {
	deadline := f.o.Clock.Elapsed() + f.o.DrainTimeout
	for {
		f.mu.Lock()
		f.turn(ctx, false)
		ok, now := done(), f.now
		f.mu.Unlock()
		if ok || now >= deadline {
			return
		}
		timer.Reset(min(deadline-now, max(f.o.MinPause, time.Millisecond)))
		select {
		case <-f.wake:
		case <-timer.C():
		}
	}
}

// sortHoles puts the holes of a source in order after a link was lost.
func sortHoles(p *position) {
	slices.SortFunc(p.holes, func(a, b hole) int { return int(int64(a.off) - int64(b.off)) })
	p.holes = slices.CompactFunc(p.holes, func(a, b hole) bool { return a.off == b.off })
}
