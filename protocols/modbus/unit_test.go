package modbus

import (
	"log/slog"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols/point"
)

// breaker is a link without a wire, on a clock that the test moves.
func breaker(units int) (*link, *clocktest.Fake) {
	clk := clocktest.New(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	l := &link{name: "test", clk: clk, log: slog.New(slog.DiscardHandler), units: map[byte]*unit{}}
	for id := range units {
		l.units[byte(id+1)] = &unit{id: byte(id + 1), sessions: 1}
	}
	return l, clk
}

var second = patience{timeout: time.Second, worst: 2 * time.Second, demoteAfter: 2, probeMax: 30 * time.Second}

// ask spends the unit's budget in vain if it may be asked, and reports whether.
func ask(l *link, clk *clocktest.Fake, u *unit, answers bool) bool {
	if l.refuse(u, &second) != nil {
		return false
	}
	if answers {
		l.heard(u, time.Millisecond)
		return true
	}
	wait := u.budget(&second)
	clk.Advance(wait)
	l.missed(u, &second, point.BadTimeout, "no answer", wait, wait)
	return true
}

func TestBreakerOpensAfterTheTimeouts(t *testing.T) {
	l, clk := breaker(1)
	u := l.units[1]
	for i := range 2 {
		if u.held || !ask(l, clk, u, false) {
			t.Fatalf("held back after %d time-outs", i)
		}
	}
	f := l.refuse(u, &second)
	if f == nil || f.quality != point.BadTimeout || !containsText(f.Error(), "no answer; held back, next try in") {
		t.Fatalf("%v", f)
	}
	clk.Advance(5 * time.Second)
	if !ask(l, clk, u, true) || u.held || u.dead {
		t.Error("not asked again after its pause, or still held back after an answer")
	}
}

// TestCutWaitsCount has requests that end long before the time-out, because the
// scan class is short.
func TestCutWaitsCount(t *testing.T) {
	l, _ := breaker(1)
	u := l.units[1]
	for i := range 18 {
		if u.held {
			t.Fatalf("held back after %d waits of 100 ms", i)
		}
		l.missed(u, &second, point.BadTimeout, "cut", 100*time.Millisecond, 100*time.Millisecond)
	}
	if !u.dead {
		t.Error("a unit that has kept the link waiting for two time-outs is not held back")
	}
}

// TestWasteIsBounded lets units of a shared link be asked as often as the breaker
// allows for an hour, with other uses of the link in between.
func TestWasteIsBounded(t *testing.T) {
	tests := []struct {
		name    string
		bad     int
		answers func(n int) bool
	}{
		{"dead", 1, func(int) bool { return false }},
		{"three dead", 3, func(int) bool { return false }},
		{"every other", 1, func(n int) bool { return n%2 == 0 }},
		{"one in ten missing", 1, func(n int) bool { return n%10 != 0 }},
	}
	for _, tt := range tests {
		l, clk := breaker(5)
		var wasted time.Duration
		asked := 0
		for clk.Elapsed() < time.Hour {
			for id := range tt.bad {
				before := clk.Elapsed()
				if ask(l, clk, l.units[byte(id+1)], tt.answers(asked)) {
					asked++
				}
				wasted += clk.Elapsed() - before
			}
			clk.Advance(100 * time.Millisecond)
		}
		part := float64(wasted) / float64(clk.Elapsed())
		t.Logf("%s: asked %d times, %.1f %% of the time wasted", tt.name, asked, 100*part)
		if part > share*1.2 {
			t.Errorf("%s: %.1f %% of the link's time is wasted, the share is %.0f", tt.name, 100*part, 100*share)
		}
		if asked < 40 {
			t.Errorf("%s: asked %d times in an hour: never found again", tt.name, asked)
		}
	}
}

// TestAloneNobodyIsSpared: without neighbours only the pause bounds the probes.
func TestAloneNobodyIsSpared(t *testing.T) {
	l, clk := breaker(1)
	u := l.units[1]
	last, longest := clk.Elapsed(), time.Duration(0)
	for clk.Elapsed() < 10*time.Minute {
		if ask(l, clk, u, false) {
			longest = max(longest, clk.Elapsed()-last)
			last = clk.Elapsed()
		}
		clk.Advance(50 * time.Millisecond)
	}
	if most := second.probeMax*6/5 + 2*time.Second; longest > most || longest < second.probeMax/2 {
		t.Errorf("longest pause between probes is %v, want about %v", longest, second.probeMax)
	}
}

// TestShortProbes checks the budget of probes: short for a unit that was quick,
// with the whole time-out every fourth time.
func TestShortProbes(t *testing.T) {
	for _, tt := range []struct {
		slowest time.Duration
		want    [8]time.Duration
	}{
		{10 * time.Millisecond, [8]time.Duration{250e6, 250e6, 250e6, 1e9, 250e6, 250e6, 250e6, 1e9}},
		{100 * time.Millisecond, [8]time.Duration{400e6, 400e6, 400e6, 1e9, 400e6, 400e6, 400e6, 1e9}},
		{900 * time.Millisecond, [8]time.Duration{1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9, 1e9}},
	} {
		u := &unit{held: true, slowest: tt.slowest}
		for i, want := range tt.want {
			u.probes = i
			if got := u.budget(&second); got != want {
				t.Errorf("slowest %v, probe %d: %v, want %v", tt.slowest, i, got, want)
			}
		}
		if u.held = false; u.budget(&second) != time.Second {
			t.Error("a unit that is not held back gets less than the time-out")
		}
	}
}
