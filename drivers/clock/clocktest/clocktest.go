// Package clocktest has a clock that stands still until the test moves it.
package clocktest

import (
	"context"
	"slices"
	"sync"
	"time"

	"holdfast/drivers/clock"
)

// Epoch is the wall time at which a Fake starts unless told otherwise.
var Epoch = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// A Fake is a [clock.Clock] under the test's control. Its methods may be called
// from many goroutines.
type Fake struct {
	mu      sync.Mutex
	wall    time.Time // wall time at elapsed zero, jumps included
	elapsed time.Duration
	quality clock.Quality
	armed   []*timer // running timers, earliest first, equal ones in the order they were armed
	changed chan struct{}
}

// New returns a synced clock that shows the given wall time, or [Epoch] for the
// zero time.
func New(wall time.Time) *Fake {
	if wall.IsZero() {
		wall = Epoch
	}
	return &Fake{wall: wall.Round(0), changed: make(chan struct{})}
}

// Now implements [clock.Clock].
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wall.Add(f.elapsed)
}

// Elapsed implements [clock.Clock].
func (f *Fake) Elapsed() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.elapsed
}

// Quality implements [clock.Clock].
func (f *Fake) Quality() clock.Quality {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.quality
}

// SetQuality sets what Quality returns.
func (f *Fake) SetQuality(q clock.Quality) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quality = q
}

// Jump steps the wall by d, either way. Elapsed time and timers do not notice.
// The quality is left alone; see SetQuality.
func (f *Fake) Jump(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wall = f.wall.Add(d)
}

// Advance lets d pass. Timers that become due fire in the order of their time,
// each while the clock shows exactly that time; a timer that is armed meanwhile
// and becomes due fires too.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	end := f.elapsed + d
	for len(f.armed) > 0 && f.armed[0].at <= end {
		t := f.armed[0]
		f.armed = f.armed[1:]
		f.elapsed = max(f.elapsed, t.at)
		t.c <- f.wall.Add(f.elapsed) // has room: a running timer's channel is empty
	}
	f.elapsed = end
	f.notify()
}

// Armed returns the number of running timers.
func (f *Fake) Armed() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.armed)
}

// Next returns how long it is until the earliest running timer fires.
func (f *Fake) Next() (d time.Duration, ok bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.armed) == 0 {
		return 0, false
	}
	return f.armed[0].at - f.elapsed, true
}

// WaitArmed waits until at least n timers are running, which is how a test
// knows that the code under test has gone to sleep. It returns ctx's error if
// that does not happen in time.
func (f *Fake) WaitArmed(ctx context.Context, n int) error {
	for {
		f.mu.Lock()
		enough, changed := len(f.armed) >= n, f.changed
		f.mu.Unlock()
		if enough {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// notify wakes WaitArmed. The caller holds mu.
func (f *Fake) notify() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// NewTimer implements [clock.Clock]. A timer with d <= 0 fires at once.
func (f *Fake) NewTimer(d time.Duration) clock.Timer {
	t := &timer{clock: f, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

type timer struct {
	clock *Fake
	c     chan time.Time
	at    time.Duration
}

func (t *timer) C() <-chan time.Time { return t.c }

func (t *timer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	return t.stop()
}

// stop takes the timer off the list and empties its channel. The caller holds
// the clock's mu.
func (t *timer) stop() bool {
	i := slices.Index(t.clock.armed, t)
	if i >= 0 {
		t.clock.armed = slices.Delete(t.clock.armed, i, i+1)
		t.clock.notify()
	}
	select {
	case <-t.c:
	default:
	}
	return i >= 0
}

func (t *timer) Reset(d time.Duration) {
	f := t.clock
	f.mu.Lock()
	defer f.mu.Unlock()
	t.stop()
	t.at = f.elapsed + d
	if d <= 0 {
		t.c <- f.wall.Add(f.elapsed)
		return
	}
	i, _ := slices.BinarySearchFunc(f.armed, t.at, func(a *timer, at time.Duration) int {
		if a.at <= at { // equal ones stay in front: first armed fires first
			return -1
		}
		return 1
	})
	f.armed = slices.Insert(f.armed, i, t)
	f.notify()
}
