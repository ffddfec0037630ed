package local

import (
	"context"
	"errors"
	"time"

	"holdfast/drivers/clock"
)

// lazy is something that is opened on first use, and again, with a growing
// pause, after opening failed or it was dropped. One caller at a time opens it; the
// others wait no longer than their context.
type lazy[T any] struct {
	clock clock.Clock
	open  func(ctx context.Context) (T, error)
	close func(T)

	gate   chan struct{} // holds one token while the fields below are in use
	opened bool
	shut   bool
	value  T
	count  uint64 // times opened
	err    error  // why opening failed last
	retry  time.Duration
	pause  time.Duration
}

// The pause between two attempts to open grows from least to most.
const (
	leastPause = 100 * time.Millisecond
	mostPause  = 10 * time.Second
)

var errClosed = errors.New("session closed")

func newLazy[T any](c clock.Clock, open func(context.Context) (T, error), shut func(T)) *lazy[T] {
	return &lazy[T]{clock: c, open: open, close: shut, gate: make(chan struct{}, 1)}
}

// get returns the value, opening it if it is time to, and a number to drop it by.
// Between attempts it fails at once with the reason of the last one.
func (l *lazy[T]) get(ctx context.Context) (v T, count uint64, err error) {
	select {
	case l.gate <- struct{}{}:
		defer func() { <-l.gate }()
	case <-ctx.Done():
		return v, 0, ctx.Err()
	}
	switch {
	case l.shut:
		return v, 0, errClosed
	case l.opened:
		return l.value, l.count, nil
	case l.err != nil && l.clock.Elapsed() < l.retry:
		return v, 0, l.err
	case ctx.Err() != nil:
		return v, 0, ctx.Err()
	}
	v, err = l.open(ctx)
	if err != nil {
		if ctx.Err() == nil { // else it was the caller's time that ended
			l.fail(err)
		}
		return v, 0, err
	}
	l.opened, l.value, l.err, l.pause = true, v, nil, 0
	l.count++
	return v, l.count, nil
}

// renew closes the value, so that the next get opens it anew, without a pause.
func (l *lazy[T]) renew() {
	l.gate <- struct{}{}
	defer func() { <-l.gate }()
	if l.opened {
		l.opened = false
		l.close(l.value)
	}
	l.err, l.pause = nil, 0
}

func (l *lazy[T]) fail(err error) {
	l.pause = min(max(2*l.pause, leastPause), mostPause)
	l.err, l.retry = err, l.clock.Elapsed()+l.pause
}

// drop closes the value that get returned with that number, so that the next get
// opens it anew. Someone else may have done so already.
func (l *lazy[T]) drop(count uint64, why error) {
	l.gate <- struct{}{}
	defer func() { <-l.gate }()
	if !l.opened || l.count != count {
		return
	}
	l.opened = false
	l.close(l.value)
	l.fail(why)
}

// end closes the value for good.
func (l *lazy[T]) end() {
	l.gate <- struct{}{}
	defer func() { <-l.gate }()
	l.shut = true
	if l.opened {
		l.opened = false
		l.close(l.value)
	}
}
