package clock

import (
	"sync"
	"syscall"
	"time"
)

// The limits of step detection. A disciplined clock is slewed by at most 500
// parts per million (adjtimex(2), the kernel's limit for a frequency
// correction); twice that, plus a fixed margin, is no longer slewing.
const (
	stepMargin  = 250 * time.Millisecond
	stepSlewPPM = 1000
	stepShown   = time.Minute
)

// Bits and states of struct timex, from linux/timex.h.
const (
	staUnsync = 0x0040
	timeError = 5
)

// Real is the machine's clock. Its methods may be called from many goroutines.
type Real struct {
	start time.Time
	steps stepDetector
}

// NewReal returns the machine's clock; Elapsed counts from now.
func NewReal() *Real {
	now := time.Now()
	r := &Real{start: now}
	r.steps.observe(now.UnixNano(), 0)
	return r
}

// Now implements [Clock].
func (r *Real) Now() time.Time { return time.Now().Round(0) }

// Elapsed implements [Clock]. It is CLOCK_MONOTONIC, which stands still while
// the machine is suspended.
func (r *Real) Elapsed() time.Duration { return time.Since(r.start) }

// NewTimer implements [Clock].
func (r *Real) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

// Quality implements [Clock]. It asks the kernel each time, so call it per
// batch rather than per value. A step is noticed between two calls.
func (r *Real) Quality() Quality {
	now := time.Now()
	if r.steps.observe(now.UnixNano(), now.Sub(r.start)) {
		return Stepped
	}
	var tx syscall.Timex
	state, err := syscall.Adjtimex(&tx)
	if err != nil || state == timeError || tx.Status&staUnsync != 0 {
		return Unsynced
	}
	return Synced
}

// stepDetector compares wall time with elapsed time.
type stepDetector struct {
	mu      sync.Mutex
	seen    bool
	wall    int64         // nanoseconds, at the last observation
	elapsed time.Duration // at the last observation
	stepped bool
	at      time.Duration // elapsed time of the last step
}

// observe takes one pair of readings and reports whether a step was seen within
// the last minute.
func (d *stepDetector) observe(wall int64, elapsed time.Duration) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen {
		passed := elapsed - d.elapsed
		off := time.Duration(wall-d.wall) - passed
		if off.Abs() > stepMargin+passed/1_000_000*stepSlewPPM {
			d.stepped, d.at = true, elapsed
		}
	}
	d.seen, d.wall, d.elapsed = true, wall, elapsed
	d.stepped = d.stepped && elapsed-d.at < stepShown
	return d.stepped
}

// realTimer relies on Go 1.23 timers: after Stop or Reset no stale tick is left
// in the channel.
type realTimer struct{ t *time.Timer }

func (t realTimer) C() <-chan time.Time   { return t.t.C }
func (t realTimer) Stop() bool            { return t.t.Stop() }
func (t realTimer) Reset(d time.Duration) { t.t.Reset(d) }
