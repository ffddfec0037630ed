package clock

import (
	"context"
	"testing"
	"time"
)

func TestStepDetector(t *testing.T) {
	const year = 365 * 24 * time.Hour
	type reading struct {
		elapsed time.Duration
		wallOff time.Duration // wall minus elapsed
		want    bool
	}
	for _, c := range []struct {
		name     string
		readings []reading
	}{
		{"steady", []reading{{0, 0, false}, {time.Second, 0, false}, {time.Hour, 0, false}}},
		{"slewed at the kernel's limit", []reading{{0, 0, false}, {time.Hour, 1800 * time.Millisecond, false}}},
		{"year forward", []reading{{0, 0, false}, {time.Second, year, true}, {30 * time.Second, year, true}, {62 * time.Second, year, false}}},
		{"year back", []reading{{0, 0, false}, {time.Second, -year, true}}},
		{"second back at once", []reading{{0, 0, false}, {time.Millisecond, -time.Second, true}}},
		{"two steps", []reading{{0, 0, false}, {time.Second, year, true}, {50 * time.Second, 0, true}, {100 * time.Second, 0, true}, {111 * time.Second, 0, false}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var d stepDetector
			for i, r := range c.readings {
				if got := d.observe(int64(r.elapsed+r.wallOff), r.elapsed); got != r.want {
					t.Errorf("reading %d at %v: stepped = %v, want %v", i, r.elapsed, got, r.want)
				}
			}
		})
	}
}

func TestReal(t *testing.T) {
	c := NewReal()
	if d := time.Since(c.Now()).Abs(); d > 10*time.Second {
		t.Errorf("Now is %v off", d)
	}
	if now := c.Now(); now != now.Round(0) { // == sees the monotonic reading
		t.Errorf("Now carries a monotonic reading: %s", now)
	}
	before := c.Elapsed()
	if err := Sleep(t.Context(), c, 10*time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if d := c.Elapsed() - before; d < 10*time.Millisecond {
		t.Errorf("slept %v, want at least 10ms", d)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Sleep(ctx, c, time.Hour); err != context.Canceled {
		t.Errorf("Sleep with a dead context: %v", err)
	}
	if q := c.Quality(); q != Synced && q != Unsynced {
		t.Errorf("Quality = %v on a clock that nobody stepped", q)
	}
	tm := c.NewTimer(0)
	<-tm.C()
	tm.Reset(time.Hour)
	if !tm.Stop() || tm.Stop() {
		t.Error("Stop must report true once for a running timer")
	}
}
