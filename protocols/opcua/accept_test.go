package opcua

import (
	"fmt"
	"testing"
	"time"

	"holdfast/hil/fault"
	"holdfast/protocols/point"
)

// counting is a tag whose values count up one at a time, so that a value that is
// missing shows. Sampling 0 makes the server report every change.
func counting(name string) point.Tag {
	t := node(name)
	t.Params = point.Params{"sampling": "0s", "queue": "1000"}
	return t
}

// steady checks that the server's values from the first to the last are all
// there, once and in order, and returns how many there are. Samples that are not
// the server's word are passed over.
func steady(t *testing.T, got []received) (values int, lost int) {
	t.Helper()
	last := -1.0
	for _, g := range got {
		if !g.Quality.Good() {
			continue
		}
		v, ok := g.Value.Float()
		switch {
		case !ok:
			t.Errorf("a Good sample without a number: %+v", g.Sample)
		case last < 0 || v == last+1:
		case v == last: // the last value, taken back from uncertain
			continue
		case v < last:
			t.Errorf("%g comes after %g", v, last)
		default:
			lost += int(v - last - 1)
		}
		last = v
		values++
	}
	return values, lost
}

// never checks that between two moments no sample was Good.
func neverGood(t *testing.T, got []received, from, to time.Time) {
	t.Helper()
	for _, g := range got {
		if g.at.After(from) && g.at.Before(to) && g.Quality.Good() {
			t.Errorf("Good %s after the silence began", g.at.Sub(from).Round(time.Millisecond))
		}
	}
}

// firstAfter returns how long after a moment the first new value of the server came.
func firstAfter(got []received, at time.Time) (time.Duration, bool) {
	for _, g := range got {
		if g.at.After(at) && g.Quality.Good() {
			return g.at.Sub(at), true
		}
	}
	return 0, false
}

// TestAcceptanceRecovery: nothing is lost over a broken link while the server's
// queue suffices, work goes on soon after the link is whole again, and tags are
// not Good while nothing is heard.
func TestAcceptanceRecovery(t *testing.T) {
	p := sharedPeer(t)
	for _, tc := range []struct {
		name  string
		quiet time.Duration // how long nothing can come
		fail  func(l *fault.Link)
		heal  func(l *fault.Link)
	}{
		{"cut", 0, func(l *fault.Link) { l.Cut() }, func(*fault.Link) {}},
		{"reset", 0, func(l *fault.Link) { l.Reset() }, func(*fault.Link) {}},
		{"outage of 5s", 5 * time.Second, func(l *fault.Link) { l.Set(fault.Refuse); l.Reset() }, func(l *fault.Link) { l.Set(fault.Pass) }},
		{"half-open for 8s", 8 * time.Second, func(l *fault.Link) { l.Set(fault.HalfOpen) }, func(l *fault.Link) { l.Set(fault.Pass) }},
		{"black hole for 8s", 8 * time.Second, func(l *fault.Link) { l.Set(fault.BlackHole) }, func(l *fault.Link) { l.Set(fault.Pass) }},
		{"stall for 8s", 8 * time.Second, func(l *fault.Link) { l.Set(fault.Stall) }, func(l *fault.Link) { l.Set(fault.Pass) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			l := p.link(t)
			s := openSession(t, newAdapter(t), settingsFor(l.Addr(), "publishing_interval", "100ms", "keep_alive", "1s"))
			r, stop := subscribe(t, s, counting("Tick0"), node("String"))
			eventually(t, "values", func() bool { return len(r.of(0)) > 10 && len(r.of(1)) > 0 })
			failed := time.Now()
			tc.fail(l)
			time.Sleep(tc.quiet)
			healed := time.Now()
			tc.heal(l)
			eventually(t, "new values", func() bool { _, ok := firstAfter(r.of(0), healed); return ok })
			before := len(r.of(0))
			eventually(t, "more values", func() bool { return len(r.of(0)) > before+15 })
			stop()
			took, _ := firstAfter(r.of(0), healed)
			values, lost := steady(t, r.of(0))
			t.Logf("%d values, %d lost, back %s after the link", values, lost, took.Round(time.Millisecond))
			if lost > 0 {
				t.Errorf("%d values are lost", lost)
			}
			if took > 2*time.Second {
				t.Errorf("back %s after the link was whole", took)
			}
			if tc.quiet > 0 {
				// The watchdog waits one and a half keep-alives.
				neverGood(t, r.of(0), failed.Add(300*time.Millisecond), healed)
				quietly(t, r.of(0), failed, healed)
				quietly(t, r.of(1), failed, healed)
			}
			if last := r.of(1)[len(r.of(1))-1]; last.Quality != point.Good {
				t.Errorf("a tag that stands still is %s in the end: %s", last.Quality, last.Detail)
			}
		})
	}
}

// quietly checks that a tag was marked in the silence, with a reason.
func quietly(t *testing.T, got []received, from, to time.Time) {
	t.Helper()
	for _, g := range got {
		if g.at.After(from) && g.at.Before(to) && g.Quality == point.UncertainNoCommunicationLastUsable && g.Detail != "" {
			if late := g.at.Sub(from); late > 4*time.Second {
				t.Errorf("marked only after %s", late)
			}
			return
		}
	}
	t.Errorf("the tag was not marked in %s of silence", to.Sub(from))
}

// TestAcceptanceQueueTooShort: when the server's queue cannot hold the outage, the
// hole is closed from its history, or told.
func TestAcceptanceQueueTooShort(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	l := p.link(t)
	s := openSession(t, newAdapter(t), settingsFor(l.Addr(), "publishing_interval", "100ms", "keep_alive", "1s"))
	short, kept := counting("Tick0"), counting("History")
	short.Params["queue"], kept.Params["queue"] = "5", "5"
	r, stop := subscribe(t, s, short, kept)
	eventually(t, "values", func() bool { return len(r.of(0)) > 10 && len(r.of(1)) > 10 })
	l.Set(fault.Refuse)
	l.Reset()
	time.Sleep(4 * time.Second)
	l.Set(fault.Pass)
	healed := time.Now()
	eventually(t, "new values", func() bool { _, ok := firstAfter(r.of(1), healed); return ok })
	before := len(r.of(0))
	eventually(t, "more values", func() bool { return len(r.of(0)) > before+15 })
	stop()
	_, lost := steady(t, r.of(0))
	told := gapsOf(r.of(0))
	t.Logf("without history: %d lost, told: %v", lost, told)
	if lost == 0 || len(told) == 0 {
		t.Errorf("%d values are lost and told by %q", lost, told)
	}
	values, lost := steady(t, r.of(1))
	t.Logf("with history: %d values, %d lost, told: %v", values, lost, gapsOf(r.of(1)))
	if lost > 0 || len(gapsOf(r.of(1))) > 0 {
		t.Errorf("with history %d values are lost, told by %q", lost, gapsOf(r.of(1)))
	}
}

func gapsOf(got []received) (out []string) {
	for _, g := range got {
		if g.Quality == point.BadNoData {
			out = append(out, g.Detail)
		}
	}
	return out
}

// TestAcceptanceRestart: a server that was restarted has neither session nor
// subscription, and its namespaces have other indices. Tags find their nodes, and
// say what is missing.
func TestAcceptanceRestart(t *testing.T) {
	t.Parallel()
	p := startPeer(t, map[string]any{"extra": 0})
	s := openSession(t, newAdapter(t), settingsFor(p.addr(), "publishing_interval", "100ms", "keep_alive", "1s"))
	path := point.Tag{Name: "path", Address: "nsu=urn:holdfast:test;path=Plant/Int16"}
	r, stop := subscribe(t, s, counting("Tick0"), path, node("String"))
	eventually(t, "values", func() bool { return len(r.of(0)) > 10 && len(r.of(1)) > 0 && len(r.of(2)) > 0 })
	p.kill()
	p.args["extra"] = 3
	started := time.Now()
	p.start(t)
	ready := time.Now()
	eventually(t, "values of the new server", func() bool { _, ok := firstAfter(r.of(0), started); return ok })
	took, _ := firstAfter(r.of(0), ready)
	before := len(r.of(0))
	eventually(t, "more values", func() bool { return len(r.of(0)) > before+15 })
	stop()
	t.Logf("back %s after the server was ready", took.Round(time.Millisecond))
	if took > 2*time.Second {
		t.Errorf("back %s after the server was ready", took)
	}
	if told := gapsOf(r.of(0)); len(told) != 1 {
		t.Errorf("the hole is told %d times: %q", len(told), told)
	} else {
		t.Log(told[0])
	}
	for i := 1; i < 3; i++ {
		got := r.of(i)
		if last := got[len(got)-1]; last.Quality != point.Good {
			t.Errorf("tag %d is %s in the end: %s", i, last.Quality, last.Detail)
		}
	}
}

// TestAcceptanceSubscribe: many values come, all of them, in order.
func TestAcceptanceSubscribe(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	s := openSession(t, newAdapter(t), settingsFor(p.addr(), "publishing_interval", "100ms"))
	var tags []point.Tag
	for i := range 20 {
		tags = append(tags, counting(fmt.Sprintf("Tick%d", i)))
	}
	r, stop := subscribe(t, s, tags...)
	eventually(t, "40 values", func() bool { return len(r.of(19)) >= 40 })
	stop()
	for i := range tags {
		if values, lost := steady(t, r.of(i)); lost > 0 || values < 35 {
			t.Errorf("tag %d: %d values, %d lost", i, values, lost)
		}
	}
}
