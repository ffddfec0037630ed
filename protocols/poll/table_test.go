package poll

import (
	"context"
	"errors"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols/point"
)

func TestTableTellsChanges(t *testing.T) {
	r := newRig(t, Options{})
	r.apply(dev("b", "x", "y@slow"), dev("a", "w"))
	table := r.p.Table()
	all := table.Snapshot()
	if len(all) != 3 || all[0].Device != "a" || all[1].Tag != "x" || all[2].Tag != "y" || all[2].Class != "slow" {
		t.Fatalf("%+v", all)
	}
	for _, e := range all {
		if e.Quality != point.BadWaitingForInitialData || e.Samples != 0 || !e.Receive.IsZero() {
			t.Errorf("before the first read: %+v", e)
		}
	}
	c, fresh := table.Since(Cursor{}, func(*Entry) bool { return true })
	if !fresh {
		t.Error("the first look is not fresh")
	}
	r.run()
	r.step(time.Second, 4)
	r.step(50*time.Millisecond, 4)
	seen := map[string]Entry{}
	c, fresh = table.Since(c, func(e *Entry) bool { seen[e.Device+"/"+e.Tag] = *e; return true })
	if fresh || len(seen) != 3 || seen["b/x"].Samples < 10 || seen["b/x"].Published != seen["b/x"].Samples {
		t.Errorf("fresh %v, %+v", fresh, seen)
	}
	if e := seen["b/x"]; e.Receive.Before(clocktest.Epoch.Add(900*time.Millisecond)) || !e.Changed.Equal(e.Receive) {
		t.Errorf("times %+v", e)
	}
	n := 0
	r.step(100*time.Millisecond, 4)
	c, _ = table.Since(c, func(e *Entry) bool { n++; return true })
	if n != 2 {
		t.Errorf("%d entries changed within one fast period", n)
	}
	if _, fresh = table.Since(c, func(*Entry) bool { t.Error("told again"); return true }); fresh {
		t.Error("fresh without a change")
	}
	r.apply(dev("a", "w"))
	n = 0
	_, fresh = table.Since(c, func(*Entry) bool { n++; return true })
	if !fresh || n != 1 {
		t.Errorf("after a removal: fresh %v, %d entries", fresh, n)
	}
	n = 0
	table.Since(Cursor{}, func(*Entry) bool { n++; return false })
	if n != 1 {
		t.Errorf("yield was called %d times after it said stop", n)
	}
}

func TestWatch(t *testing.T) {
	r := newRig(t, Options{})
	r.apply(dev("a", "w"))
	r.run()
	stop := errors.New("enough")
	rounds, samples := 0, uint64(0)
	done := make(chan error, 1)
	go func() {
		done <- r.p.Table().Watch(context.Background(), 300*time.Millisecond, func(changed []Entry, fresh bool) error {
			if fresh != (rounds == 0) {
				t.Errorf("round %d: fresh %v", rounds, fresh)
			}
			rounds++
			samples = changed[0].Samples
			if rounds == 4 {
				return stop
			}
			return nil
		})
	}()
	eventually(t, "four rounds", func() bool {
		r.clk.Advance(10 * time.Millisecond)
		select {
		case err := <-done:
			return errors.Is(err, stop)
		default:
			return false
		}
	})
	if samples < 5 {
		t.Errorf("%d samples in 3 intervals of 3 periods", samples)
	}
}
