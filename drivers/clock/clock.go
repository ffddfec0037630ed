// Package clock is time as hardware: a thing that can be wrong, stop and jump.
//
// Everything below cmd takes a [Clock] instead of calling the time package, so
// that a test can step it, and so that a gateway whose wall clock jumps a year
// when NTP first answers keeps its timers: durations are measured on the
// monotonic reading and only stamps are taken from the wall.
package clock

import (
	"context"
	"time"
)

// A Clock tells wall time and elapsed time and makes timers. All methods may be
// called from many goroutines.
//
// It has four methods, one more than the house likes, because wall and elapsed
// time are different quantities and mixing them is the bug this seam exists for.
type Clock interface {
	// Now returns the wall time. It may step in either direction between calls;
	// it carries no monotonic reading, so subtracting two results measures the
	// wall, jumps included.
	Now() time.Time

	// Elapsed returns the time since an arbitrary fixed start. It never goes
	// backwards and never jumps.
	Elapsed() time.Duration

	// NewTimer returns a timer that fires once, d of elapsed time from now.
	NewTimer(d time.Duration) Timer

	// Quality tells whether the wall time can be believed.
	Quality() Quality
}

// A Timer delivers one tick on its channel when its time has come.
type Timer interface {
	// C returns the channel on which the tick arrives. It has room for one.
	C() <-chan time.Time
	// Stop prevents the timer from firing and empties its channel. It reports
	// whether it was still running.
	Stop() bool
	// Reset stops the timer and starts it again with duration d.
	Reset(d time.Duration)
}

// Quality says how far the wall time of a stamp can be trusted.
type Quality uint8

// The qualities of a clock. The order is from best to worst.
const (
	Synced   Quality = iota // the kernel says that a time service disciplines the clock
	Unsynced                // nothing disciplines the clock; it may be years off
	Stepped                 // the wall jumped against elapsed time within the last minute
)

// String returns the quality as it stands in messages: synced, unsynced, stepped.
func (q Quality) String() string {
	switch q {
	case Synced:
		return "synced"
	case Unsynced:
		return "unsynced"
	case Stepped:
		return "stepped"
	}
	return "unknown"
}

// Sleep waits for d of elapsed time, or until ctx ends, whose error it returns.
func Sleep(ctx context.Context, c Clock, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := c.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
