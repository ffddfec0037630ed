package lane

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

func TestDoReturnsTheCallsError(t *testing.T) {
	var l Lane
	want := errors.New("no such chip")
	done, err := l.Do(t.Context(), func() error { return want })
	if !done || err != want {
		t.Errorf("Do = %v, %v, want true, %v", done, err, want)
	}
}

func TestOneAtATime(t *testing.T) {
	var l Lane
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			for range 20 {
				done, err := l.Do(t.Context(), func() error {
					if n := inside.Add(1); n > most.Load() {
						most.Store(n)
					}
					inside.Add(-1)
					return nil
				})
				if !done || err != nil {
					t.Errorf("Do = %v, %v", done, err)
				}
			}
		})
	}
	wg.Wait()
	if most.Load() != 1 {
		t.Errorf("%d calls ran at once, want 1", most.Load())
	}
}

// hang occupies the lane with a call that returns when release is called, and
// returns when its caller has left.
func hang(t *testing.T, l *Lane) (release func()) {
	t.Helper()
	gate := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	left := make(chan struct{})
	go func() {
		defer close(left)
		done, err := l.Do(ctx, func() error { close(entered); <-gate; return nil })
		if done || !errors.Is(err, context.Canceled) {
			t.Errorf("Do of a hung call = %v, %v, want false, canceled", done, err)
		}
	}()
	<-entered
	cancel()
	select {
	case <-left:
	case <-time.After(patience):
		t.Fatal("a hung call took its caller along")
	}
	return sync.OnceFunc(func() { close(gate) })
}

func TestStuckLaneRefusesAtOnceAndRecovers(t *testing.T) {
	var l Lane
	release := hang(t, &l)
	for range 1000 {
		if done, err := l.Do(t.Context(), func() error { return nil }); done || !errors.Is(err, ErrStuck) {
			t.Fatalf("Do on a stuck lane = %v, %v, want ErrStuck", done, err)
		}
	}
	release()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		done, err := l.Do(ctx, func() error { return nil })
		if done && err == nil {
			return
		}
		if !errors.Is(err, ErrStuck) {
			t.Fatalf("Do after the hung call returned: %v", err)
		}
	}
}

// Callers that already wait for the lane when the call in it is given up must
// be turned away too, not wait for their own deadline.
func TestWaitersAreTurnedAwayWhenTheLaneSticks(t *testing.T) {
	var l Lane
	gate := make(chan struct{})
	defer close(gate)
	ctx, cancel := context.WithCancel(t.Context())
	entered := make(chan struct{})
	go l.Do(ctx, func() error { close(entered); <-gate; return nil })
	<-entered
	const waiters = 10
	errs := make(chan error, waiters)
	for range waiters {
		go func() {
			_, err := l.Do(t.Context(), func() error { return nil })
			errs <- err
		}()
	}
	for waiting := false; !waiting; { // the first of them, at least
		l.mu.Lock()
		waiting = l.change != nil
		l.mu.Unlock()
	}
	cancel()
	for range waiters {
		select {
		case err := <-errs:
			if !errors.Is(err, ErrStuck) {
				t.Errorf("waiter got %v, want ErrStuck", err)
			}
		case <-time.After(patience):
			t.Fatal("a waiter was not turned away")
		}
	}
}

// A caller that leaves just as its call ends must not declare the next call
// stuck.
func TestAbandonOfAnEndedCall(t *testing.T) {
	var l Lane
	first, err := l.enter(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.leave()
	if _, err := l.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	l.abandon(first)
	if !l.stuck.IsZero() {
		t.Error("the second call was declared stuck")
	}
}

func TestWaitingHonoursTheContext(t *testing.T) {
	var l Lane
	gate := make(chan struct{})
	entered := make(chan struct{})
	first := make(chan struct{})
	go func() {
		defer close(first)
		l.Do(t.Context(), func() error { close(entered); <-gate; return nil })
	}()
	<-entered
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	ran := false
	done, err := l.Do(ctx, func() error { ran = true; return nil })
	if done || ran || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Do = %v, %v, ran %v; want a deadline error and nothing run", done, err, ran)
	}
	close(gate)
	<-first
}

func TestClose(t *testing.T) {
	var l Lane
	release := hang(t, &l)
	defer release()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := l.Close(ctx); !errors.Is(err, ErrStuck) {
		t.Errorf("Close of a stuck lane = %v, want ErrStuck", err)
	}
	release()
	ctx, cancel = context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.Close(ctx); err != nil {
		t.Errorf("Close = %v", err)
	}
	if _, err := l.Do(t.Context(), func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close = %v, want ErrClosed", err)
	}
}
