// Package lane runs calls that may hang, one at a time, without letting a hung
// one take its caller along.
//
// A kernel call on a bus cannot be cancelled: an adapter whose clock line is
// held low by a chip may never return from its ioctl. A [Lane] runs each call
// on a goroutine of its own and lets the caller leave when its context ends.
// The call left behind keeps the lane until it returns; meanwhile everybody
// else is turned away at once. So a hung bus costs one goroutine and one file
// descriptor, however often it is tried.
package lane

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Errors of a lane.
var (
	// ErrStuck is returned at once while a call whose caller has left is still
	// running.
	ErrStuck = errors.New("an earlier call has not come back")
	// ErrClosed is returned by calls on a closed lane.
	ErrClosed = errors.New("closed")
)

// A Lane admits one call at a time. The zero value is ready. A Lane must not be
// copied.
//
// There is no queue: callers that find the lane taken wait on their own
// goroutines, in no particular order, until their contexts end.
type Lane struct {
	mu     sync.Mutex
	calls  uint64    // calls admitted so far; the last one may be running
	busy   bool      // the last admitted call is running
	stuck  time.Time // when the caller of the running call left; zero if it is waiting
	closed bool
	change chan struct{} // closed and forgotten on each change of the fields above
}

// Do waits for the lane, runs f on a new goroutine and returns its error. When
// ctx ends first, Do returns the context's error wrapped, and the lane is stuck
// until f returns. f must not touch memory of the caller after that: it works
// on its own buffers, and the caller looks at them only when Do returned f's
// result.
//
// done reports whether f has run to its end, so that a caller can tell an error
// of f from a refusal.
func (l *Lane) Do(ctx context.Context, f func() error) (done bool, err error) {
	call, err := l.enter(ctx)
	if err != nil {
		return false, err
	}
	result := make(chan error, 1) // room for the result nobody may come for
	go func() {
		err := f()
		l.leave()
		result <- err
	}()
	select {
	case err := <-result:
		return true, err
	case <-ctx.Done():
	}
	select {
	case err := <-result: // both were ready: prefer the result
		return true, err
	default:
	}
	l.abandon(call)
	return false, fmt.Errorf("no answer: %w", context.Cause(ctx))
}

// Close refuses further calls and waits for the running one until ctx ends. It
// returns an error that wraps ErrStuck when that call is still running then.
func (l *Lane) Close(ctx context.Context) error {
	for {
		l.mu.Lock()
		l.closed = true
		l.announce()
		busy, change := l.busy, l.wait()
		l.mu.Unlock()
		if !busy {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return fmt.Errorf("close: %w", ErrStuck)
		}
	}
}

// enter waits for the lane and returns the number of the admitted call.
func (l *Lane) enter(ctx context.Context) (uint64, error) {
	for {
		if ctx.Err() != nil {
			return 0, fmt.Errorf("not begun: %w", context.Cause(ctx))
		}
		l.mu.Lock()
		switch {
		case l.closed:
			l.mu.Unlock()
			return 0, ErrClosed
		case !l.busy:
			l.busy = true
			l.calls++
			call := l.calls
			l.mu.Unlock()
			return call, nil
		case !l.stuck.IsZero():
			since := time.Since(l.stuck)
			l.mu.Unlock()
			return 0, fmt.Errorf("%w for %v", ErrStuck, since.Round(time.Millisecond))
		}
		change := l.wait()
		l.mu.Unlock()
		select {
		case <-change:
		case <-ctx.Done():
		}
	}
}

func (l *Lane) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.busy, l.stuck = false, time.Time{}
	l.announce()
}

// abandon marks the lane stuck, unless the call ended in the meantime.
func (l *Lane) abandon(call uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy && l.calls == call {
		l.stuck = time.Now()
		l.announce()
	}
}

// wait returns a channel that is closed on the next change. l.mu is held.
func (l *Lane) wait() <-chan struct{} {
	if l.change == nil {
		l.change = make(chan struct{})
	}
	return l.change
}

// announce wakes everybody who waits. l.mu is held.
func (l *Lane) announce() {
	if l.change != nil {
		close(l.change)
		l.change = nil
	}
}
