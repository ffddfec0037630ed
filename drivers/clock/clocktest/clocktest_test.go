package clocktest

import (
	"context"
	"testing"
	"time"

	"holdfast/drivers/clock"
)

var _ clock.Clock = (*Fake)(nil)

func TestAdvanceFiresInOrder(t *testing.T) {
	f := New(time.Time{})
	late, early, same := f.NewTimer(3*time.Second), f.NewTimer(time.Second), f.NewTimer(time.Second)
	if d, ok := f.Next(); !ok || d != time.Second {
		t.Fatalf("Next = %v, %v", d, ok)
	}
	f.Advance(2 * time.Second)
	for _, tm := range []clock.Timer{early, same} {
		select {
		case at := <-tm.C():
			if want := Epoch.Add(time.Second); !at.Equal(want) {
				t.Errorf("tick says %v, want %v", at, want)
			}
		default:
			t.Error("a timer that is due did not fire")
		}
	}
	select {
	case <-late.C():
		t.Error("a timer fired early")
	default:
	}
	if f.Armed() != 1 || f.Elapsed() != 2*time.Second {
		t.Errorf("armed %d, elapsed %v", f.Armed(), f.Elapsed())
	}
}

func TestStopAndReset(t *testing.T) {
	f := New(time.Time{})
	tm := f.NewTimer(time.Second)
	if !tm.Stop() || tm.Stop() {
		t.Error("Stop must report true once")
	}
	f.Advance(time.Minute)
	if len(tm.C()) != 0 {
		t.Error("a stopped timer fired")
	}
	tm.Reset(time.Second)
	f.Advance(time.Second)
	tm.Reset(time.Second) // the tick was not taken: Reset must empty the channel
	if len(tm.C()) != 0 {
		t.Error("Reset left a stale tick")
	}
	if tm.Reset(0); len(tm.C()) != 1 {
		t.Error("a timer of no duration must fire at once")
	}
}

func TestJumpMovesOnlyTheWall(t *testing.T) {
	f := New(time.Time{})
	tm := f.NewTimer(time.Hour)
	f.Jump(365 * 24 * time.Hour)
	f.SetQuality(clock.Stepped)
	if len(tm.C()) != 0 || f.Elapsed() != 0 {
		t.Error("a jump of the wall moved elapsed time")
	}
	if got, want := f.Now(), Epoch.AddDate(1, 0, 0); !got.Equal(want) {
		t.Errorf("Now = %v, want %v", got, want)
	}
	if f.Quality() != clock.Stepped {
		t.Errorf("Quality = %v", f.Quality())
	}
}

func TestWaitArmed(t *testing.T) {
	f := New(time.Time{})
	done := make(chan error, 1)
	go func() { done <- clock.Sleep(t.Context(), f, time.Minute) }()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := f.WaitArmed(ctx, 1); err != nil {
		t.Fatal(err)
	}
	f.Advance(time.Minute)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := f.WaitArmed(short, 1); err != context.DeadlineExceeded {
		t.Errorf("WaitArmed with nothing armed: %v", err)
	}
}
