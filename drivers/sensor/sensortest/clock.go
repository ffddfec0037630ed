package sensortest

import (
	"sync"
	"time"

	"holdfast/drivers/clock"
)

// Clock is a clock on which waiting takes no time: a timer fires at once and
// carries the clock to its moment. Chip drivers and emulated chips share one, so
// that conversions take the time of the data sheet and a test none.
type Clock struct {
	mu      sync.Mutex
	elapsed time.Duration
}

// Now returns a moment of 2026, later by what has been waited.
func (c *Clock) Now() time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(c.Elapsed())
}

// Elapsed returns what has been waited.
func (c *Clock) Elapsed() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.elapsed
}

// Quality returns [clock.Synced].
func (c *Clock) Quality() clock.Quality { return clock.Synced }

// NewTimer returns a timer that has fired.
func (c *Clock) NewTimer(d time.Duration) clock.Timer {
	t := &timer{clock: c, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

type timer struct {
	clock *Clock
	c     chan time.Time
}

func (t *timer) C() <-chan time.Time { return t.c }

func (t *timer) Stop() bool {
	select {
	case <-t.c:
	default:
	}
	return false
}

func (t *timer) Reset(d time.Duration) {
	t.Stop()
	t.clock.mu.Lock()
	t.clock.elapsed += max(d, 0)
	t.clock.mu.Unlock()
	t.c <- t.clock.Now()
}
