package poll

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

func TestScheduleDoesNotDrift(t *testing.T) {
	r := newRig(t, Options{})
	r.apply(dev("a", "x", "y", "z@slow"))
	r.run()
	r.clk.Jump(-365 * 24 * time.Hour) // the wall does not matter
	r.step(10*time.Second, 3)
	if got := r.field.count(r.field.reads, "a/x"); got < 100 || got > 101 {
		t.Errorf("x was read %d times in 100 periods", got)
	}
	if got := r.field.count(r.field.reads, "a/z"); got < 10 || got > 11 {
		t.Errorf("z was read %d times in 10 periods", got)
	}
	if got := r.field.count(r.field.groups, "a"); got != 2 {
		t.Errorf("%d groups for 2 classes", got)
	}
	r.settle()
	for i, b := range r.sink.all() {
		if b.Sequence != uint64(i+1) || b.Boot != 77 || b.Dropped != 0 || b.Clock != clock.Synced {
			t.Fatalf("batch %d: %+v", i, b)
		}
	}
}

func TestGrid(t *testing.T) {
	const ms = time.Millisecond
	g := newGrid(1000*ms, 100*ms, 0.5)
	if g.first() != 1050*ms {
		t.Errorf("first at %s", g.first())
	}
	for _, c := range []struct {
		served, now, due time.Duration
		skipped          uint64
	}{
		{1050, 1051, 1150, 0},
		{1050, 1149, 1150, 0},
		{1050, 1150, 1250, 1},
		{1050, 1399, 1450, 3},
		{1150, 1151, 1250, 0},
	} {
		due, skipped := g.after(c.served*ms, c.now*ms)
		if due != c.due*ms || skipped != c.skipped {
			t.Errorf("after %d at %d: %s, %d skipped; want %d, %d", c.served, c.now, due, skipped, c.due, c.skipped)
		}
	}
	long := newGrid(0, time.Hour, 0.5)
	if long.first() > 100*ms {
		t.Errorf("a long period is first read after %s", long.first())
	}
	if due, skipped := long.after(long.first(), long.first()+ms); due != 30*time.Minute || skipped != 0 {
		t.Errorf("then at %s, %d skipped", due, skipped)
	}
	day := newGrid(0, 24*time.Hour, 0.999)
	if day.first() < 0 || day.first() > 100*ms {
		t.Errorf("a day's first at %s", day.first())
	}
}

func TestPhasesAreSpread(t *testing.T) {
	for _, n := range []int{2, 10, 100, 1000} {
		var at []float64
		for i := range n {
			at = append(at, phaseOf(i))
		}
		slices.Sort(at)
		widest := at[0] + 1 - at[n-1]
		for i := 1; i < n; i++ {
			widest = max(widest, at[i]-at[i-1])
		}
		if widest*float64(n) > 3 {
			t.Errorf("%d lanes leave a hole of %.1f shares", n, widest*float64(n))
		}
	}
}

// TestOverrunSkips: a read that takes 3.5 periods costs three times, which are
// counted and not made up for, and is logged once.
func TestOverrunSkips(t *testing.T) {
	r := newRig(t, Options{})
	slow := true
	var reads []time.Duration
	r.field.before = func(context.Context, string, []point.Tag) {
		reads = append(reads, r.clk.Elapsed())
		if slow {
			r.clk.Advance(350 * time.Millisecond)
		}
	}
	r.apply(dev("a", "x"))
	r.run()
	r.step(4*time.Second, 2)
	slow = false
	r.step(4*time.Second, 2)
	for i := 1; i < len(reads); i++ {
		if gap := reads[i] - reads[i-1]; gap%(100*time.Millisecond) != 0 {
			t.Fatalf("read %d came %s after the one before, off the grid", i, gap)
		}
	}
	s := r.p.Status()[0].Classes[0]
	if s.Skipped < 30 || s.Skipped > 33 || s.Overrun {
		t.Errorf("skipped %d, overrun %v", s.Skipped, s.Overrun)
	}
	if a, b := r.log.lines("cannot keep"), r.log.lines("period again"); a != 1 || b != 1 {
		t.Errorf("logged %d times, and %d times that it is over", a, b)
	}
}

func TestReadingsAreStampedScaledAndHeldBack(t *testing.T) {
	r := newRig(t, Options{})
	r.clk.SetQuality(clock.Unsynced)
	d := dev("a", "scaled", "band", "clamped", "text", "silent", "hidden")
	d.Tags[0].Scale = point.Scale{Kind: point.Factor, Factor: 0.1}
	d.Tags[1].Dead = point.Deadband{Kind: point.Absolute, Value: 2}
	d.Tags[2].Scale = point.Scale{Kind: point.Linear, RawHigh: 2, EngHigh: 100, Clamp: true}
	d.Tags[3].Scale = point.Scale{Kind: point.Factor, Factor: 2}
	d.Tags[5].Access = point.WriteOnly
	source := clocktest.Epoch.Add(-time.Minute)
	r.field.answer = func(_ string, tag point.Tag, n int) point.Sample {
		switch tag.Name {
		case "text":
			return point.Sample{Value: point.StringValue("x"), Source: source}
		case "silent":
			return point.Sample{Detail: "unanswered"}
		}
		return point.Sample{Value: point.IntValue(int64(n))}
	}
	r.apply(d)
	r.run()
	r.step(550*time.Millisecond, 2)
	r.settle()
	for tag, want := range map[string][]string{
		"scaled":  {"0.1 Good", "0.2 Good", "0.3 Good", "0.4 Good", "0.5 Good", "0.6 Good"},
		"band":    {"1 Good", "4 Good"},
		"clamped": {"50.0 Good", "100.0 Good", "100.0 GoodClamped"},
		"text":    {"null BadTypeMismatch"},
		"silent":  {"null BadNoData"},
		"hidden":  nil,
	} {
		got := r.sink.readings("a", tag)
		if len(got) > len(want) && tag != "band" {
			got = got[:len(want)]
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", tag, got, want)
		}
	}
	b := r.sink.all()[0]
	if b.Clock != clock.Unsynced || !b.Time.Equal(clocktest.Epoch.Add(b.Time.Sub(clocktest.Epoch))) {
		t.Errorf("batch stamped %s %s", b.Time, b.Clock)
	}
	for _, reading := range b.Readings {
		if !reading.Receive.Equal(b.Time) {
			t.Errorf("%s received %s, batch %s", reading.Tag, reading.Receive, b.Time)
		}
		if reading.Tag == "text" && !reading.Source.Equal(source) {
			t.Errorf("source time %s", reading.Source)
		}
	}
	s := r.p.Status()[0]
	if s.Readings != 30 || s.Bad != 12 || s.Held != 4 || s.Published != 26 {
		t.Errorf("status %+v", s)
	}
}

func TestHeartbeat(t *testing.T) {
	r := newRig(t, Options{})
	d := dev("a", "still")
	d.Tags[0].Dead.Kind = point.OnChange
	d.Classes["fast"] = Class{Period: 100 * time.Millisecond, Heartbeat: time.Second}
	r.field.answer = func(string, point.Tag, int) point.Sample { return point.Sample{Value: point.BoolValue(true)} }
	r.apply(d)
	r.run()
	r.step(5*time.Second-time.Millisecond, 2)
	r.settle()
	if got := len(r.sink.readings("a", "still")); got != 5 {
		t.Errorf("published %d times in 5 heartbeats", got)
	}
}

func TestBadReadings(t *testing.T) {
	for _, keep := range []bool{false, true} {
		r := newRig(t, Options{})
		d := dev("a", "x")
		d.KeepLast = keep
		r.field.answer = func(_ string, _ point.Tag, n int) point.Sample {
			if n%2 == 0 {
				return point.Sample{Value: point.IntValue(-1), Quality: point.BadTimeout, Detail: "no answer"}
			}
			return point.Sample{Value: point.IntValue(int64(n))}
		}
		r.apply(d)
		r.run()
		r.step(299*time.Millisecond, 2)
		r.settle()
		want := []string{"1 Good", "null BadTimeout", "3 Good"}
		if keep {
			want[1] = "1 BadTimeout"
		}
		if got := r.sink.readings("a", "x"); !slices.Equal(got, want) {
			t.Errorf("keep %v: %q, want %q", keep, got, want)
		}
		r.end()
	}
}

func TestConditionsAreLoggedOnce(t *testing.T) {
	r := newRig(t, Options{})
	var mu sync.Mutex
	down := false
	set := func(v bool) { mu.Lock(); down = v; mu.Unlock() }
	r.field.answer = func(device string, _ point.Tag, n int) point.Sample {
		mu.Lock()
		defer mu.Unlock()
		if down && device == "a" {
			return point.Sample{Quality: point.BadNoCommunication, Detail: "cable cut"}
		}
		return point.Sample{Value: point.IntValue(int64(n))}
	}
	r.apply(dev("a", "x", "y@slow"), dev("b", "x"))
	r.run()
	r.step(2*time.Second, 4)
	set(true)
	r.step(3*time.Second, 4)
	s := r.p.Status()
	if s[0].Connected || s[0].Reason != "cable cut" || !s[0].Known || s[0].Since.Before(clocktest.Epoch.Add(2*time.Second)) {
		t.Errorf("a: %+v", s[0])
	}
	if !s[1].Connected {
		t.Errorf("b: %+v", s[1])
	}
	set(false)
	r.step(2*time.Second, 4)
	if s := r.p.Status()[0]; !s.Connected {
		t.Errorf("a: %+v", s)
	}
	if down, up := r.log.lines("device disconnected"), r.log.lines("device connected"); down != 1 || up != 3 {
		t.Errorf("logged %d times down, %d times up", down, up)
	}
}

// TestStale: a read that hangs does not leave its values Good for ever.
func TestStale(t *testing.T) {
	r := newRig(t, Options{})
	hang, entered := make(chan struct{}), make(chan struct{}, 10)
	first := true
	r.field.before = func(ctx context.Context, device string, _ []point.Tag) {
		if device == "a" && !first {
			entered <- struct{}{}
			<-hang // not even its deadline moves it
		}
		if device == "a" {
			first = false
		}
	}
	d := dev("a", "x", "patient")
	d.Tags[1].Stale = time.Hour
	r.apply(d, dev("b", "x"))
	r.run()
	r.step(99*time.Millisecond, 3) // both read once
	eventually(t, "a has a value", func() bool { return r.p.Table().Snapshot()[0].Samples == 1 })
	r.step(2*time.Millisecond, 2)
	<-entered
	r.step(time.Second, 2) // of a, only the second read, which hangs
	r.settle()
	want := []string{"1 Good", "1 UncertainLastUsableValue"}
	if got := r.sink.readings("a", "x"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := r.sink.readings("a", "patient"); len(got) != 1 {
		t.Errorf("patient: %q", got)
	}
	if got := r.field.count(r.field.reads, "b/x"); got < 10 {
		t.Errorf("the neighbour was read %d times only", got)
	}
	close(hang)
	eventually(t, "x is Good again", func() bool {
		got := r.sink.readings("a", "x")
		return len(got) > 2 && got[2] == "2 Good"
	})
}

func TestDeadline(t *testing.T) {
	for _, c := range []struct{ period, timeout, want time.Duration }{
		{time.Minute, 0, time.Minute},
		{time.Minute, time.Second, time.Second},
		{10 * time.Millisecond, time.Hour, time.Hour},
	} {
		r := newRig(t, Options{})
		var left time.Duration
		r.field.before = func(ctx context.Context, _ string, _ []point.Tag) {
			at, _ := ctx.Deadline()
			left = time.Until(at)
		}
		d := dev("a", "x")
		d.Classes["fast"] = Class{Period: c.period, Timeout: c.timeout}
		r.apply(d)
		r.run()
		r.step(9*time.Millisecond, 2)
		if left > c.want || left < c.want-500*time.Millisecond {
			t.Errorf("%+v: %s left", c, left)
		}
		r.end()
	}
}

// TestReconfigure: what is not changed keeps its session and misses no time.
func TestReconfigure(t *testing.T) {
	r := newRig(t, Options{})
	var mu sync.Mutex
	times := map[string][]time.Duration{}
	r.field.before = func(_ context.Context, device string, tags []point.Tag) {
		mu.Lock()
		defer mu.Unlock()
		key := device + "/" + tags[0].Class
		times[key] = append(times[key], r.clk.Elapsed())
	}
	a, b := dev("a", "x", "y", "z@slow"), dev("b", "x")
	r.apply(a, b)
	r.run()
	rng := rand.New(rand.NewPCG(5, 5))
	for i := range 20 {
		r.step(time.Duration(90+rng.IntN(40))*time.Millisecond, 4)
		a = dev("a", "x", fmt.Sprintf("y%d", i), "z@slow") // one tag of one class is another one
		if got := r.apply(a, b); !reflect.DeepEqual(got, Changes{Changed: []string{"a/fast"}}) {
			t.Fatalf("changes %+v", got)
		}
	}
	r.step(time.Second, 4)
	if got := r.apply(a, b); !got.Empty() {
		t.Errorf("the same again changes %+v", got)
	}
	if o, c := r.field.count(r.field.opened, "a"), r.field.count(r.field.closed, "a"); o != 1 || c != 0 {
		t.Errorf("session of a opened %d times, closed %d times", o, c)
	}
	if g := r.field.count(r.field.groups, "b"); g != 1 {
		t.Errorf("b grouped %d times", g)
	}
	for key, period := range map[string]time.Duration{"a/": 100 * time.Millisecond, "a/slow": time.Second, "b/": 100 * time.Millisecond} {
		at := times[key]
		if len(at) < int(r.clk.Elapsed()/period)-1 {
			t.Errorf("%s was read %d times in %s", key, len(at), r.clk.Elapsed())
		}
		for i := 2; i < len(at); i++ {
			if at[i]-at[i-1] != period {
				t.Errorf("%s: read %d came %s after the one before", key, i, at[i]-at[i-1])
			}
		}
	}
	if got := r.field.count(r.field.reads, "a/x"); got < 30 {
		t.Errorf("x, which stayed, was read %d times", got)
	}
	x := r.p.Table().Snapshot()[0]
	if x.Tag != "x" || x.Samples != uint64(r.field.count(r.field.reads, "a/x")) {
		t.Errorf("x has lost its counts: %+v", x)
	}
}

func TestReconfigureDevices(t *testing.T) {
	r := newRig(t, Options{})
	a, b := dev("a", "x"), dev("b", "x", "w@slow")
	r.apply(a, b)
	r.run()
	r.step(time.Second, 4)
	a.Settings = map[string]any{"host": "other"}
	if got := r.apply(a, dev("c", "x")); !reflect.DeepEqual(got, Changes{
		Added: []string{"c"}, Removed: []string{"b"}, Restarted: []string{"a"},
	}) {
		t.Errorf("changes %+v", got)
	}
	if r.field.count(r.field.closed, "a") != 1 || r.field.count(r.field.closed, "b") != 1 || r.field.count(r.field.opened, "a") != 2 {
		t.Errorf("opened %v, closed %v", r.field.opened, r.field.closed)
	}
	before := r.field.count(r.field.reads, "b/x")
	r.step(time.Second, 3)
	if got := r.field.count(r.field.reads, "b/x"); got != before {
		t.Error("a removed device is still read")
	}
	r.settle()
	var last uint64
	for _, batch := range r.sink.all() {
		if batch.Device == "a" {
			if batch.Sequence != last+1 {
				t.Fatalf("sequence %d after %d", batch.Sequence, last)
			}
			last = batch.Sequence
		}
	}
	// A class that is used no more ends; another begins.
	a.Tags = tags("x@slow")
	if got := r.apply(a, dev("c", "x")); !reflect.DeepEqual(got, Changes{Changed: []string{"a/fast", "a/slow"}}) {
		t.Errorf("changes %+v", got)
	}
	if s := r.p.Status()[0]; len(s.Classes) != 1 || s.Classes[0].Name != "slow" {
		t.Errorf("classes %+v", s.Classes)
	}
	// Another period is another grid.
	a.Classes["slow"] = Class{Period: 50 * time.Millisecond}
	r.apply(a, dev("c", "x"))
	n := r.field.count(r.field.reads, "a/x")
	r.step(time.Second, 3)
	if got := r.field.count(r.field.reads, "a/x") - n; got < 19 || got > 21 {
		t.Errorf("read %d times in 20 periods", got)
	}
}

func TestMistakesChangeNothing(t *testing.T) {
	r := newRig(t, Options{})
	r.apply(dev("a", "x"))
	bad := []Device{
		dev("a", "x", "x"), dev("a", "y@never"), dev("", "x"), dev("b", "p/q"),
		{Name: "c", Protocol: "smoke"},
		{Name: "d", Protocol: "fake", Settings: map[string]any{"broken": true}},
		{Name: "e", Protocol: "fake", Classes: map[string]Class{"f": {Period: time.Microsecond}}},
	}
	_, err := r.p.Apply(bad)
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{
		`device "a" is there twice`, `tag "x" is there twice`, `tag "y": no scan class "never"`, "the name is empty",
		`name "p/q" contains '/'`, `unknown protocol "smoke": there are ["fake"]`, "broken: not allowed", "below 1ms",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, err)
		}
	}
	if got := r.p.Table().Snapshot(); len(got) != 1 || r.field.count(r.field.closed, "a") != 0 {
		t.Errorf("something changed: %+v", got)
	}
}

// TestRefusedAfterCheck: an adapter that breaks its promise costs its tags, not
// the rest.
func TestRefusedAfterCheck(t *testing.T) {
	r := newRig(t, Options{})
	d := dev("a", "x", "n@slow")
	d.Tags[1].Address = "nowhere"
	e := dev("e", "x")
	e.Settings = map[string]any{"refuse": 1}
	_, err := r.p.Apply([]Device{d, e})
	if err == nil || !strings.Contains(err.Error(), "no such place") || !strings.Contains(err.Error(), `open device "e": refused`) {
		t.Fatalf("error %v", err)
	}
	r.run()
	r.step(time.Second, 2)
	r.settle()
	if len(r.sink.readings("a", "x")) < 9 {
		t.Error("x is not read")
	}
	for _, device := range []string{"a", "e"} {
		name := map[string]string{"a": "n", "e": "x"}[device]
		if got := r.sink.readings(device, name); !slices.Equal(got, []string{"null BadConfigurationError"}) {
			t.Errorf("%s/%s: %q", device, name, got)
		}
	}
	if _, s, ok := r.p.Lookup("e", "x"); !ok || s != nil {
		t.Error("e has a session")
	}
	if tag, s, ok := r.p.Lookup("a", "x"); !ok || s == nil || tag.Name != "x" {
		t.Error("a has none")
	}
	if _, _, ok := r.p.Lookup("a", "unknown"); ok {
		t.Error("found a tag that is not there")
	}
	r.apply(dev("a", "x", "n@slow"), dev("e", "x")) // repaired
	r.step(time.Second, 4)
	r.settle()
	if got := r.sink.readings("e", "x"); len(got) < 9 {
		t.Errorf("e after repair: %q", got)
	}
}

func TestSubscription(t *testing.T) {
	r := newRig(t, Options{})
	d := dev("s", "x", "y")
	d.Subscribe, d.Settings = true, map[string]any{"subscriber": 1}
	r.apply(d)
	r.run()
	subscribed := func() (f func(int, point.Sample)) {
		eventually(t, "subscribed", func() bool {
			r.field.mu.Lock()
			defer r.field.mu.Unlock()
			f = r.field.subs["s"]
			return f != nil
		})
		return f
	}
	pass := func(what string, ok func() bool) {
		eventually(t, what, func() bool {
			r.clk.Advance(10 * time.Millisecond)
			return ok()
		})
	}
	push := subscribed()
	for i := range 5 {
		push(0, point.Sample{Value: point.IntValue(int64(i))})
	}
	push(1, point.Sample{Value: point.IntValue(9)})
	push(7, point.Sample{}) // no such tag: ignored
	pass("all arrived", func() bool { return len(r.sink.readings("s", "x")) == 5 && len(r.sink.readings("s", "y")) == 1 })
	for range 100 {
		r.clk.Advance(time.Second)
	}
	if got := r.p.Table().Snapshot()[0].Quality; got != point.Good {
		t.Errorf("a subscribed value without news becomes %s", got)
	}
	r.field.mu.Lock()
	end := r.field.end["s"]
	r.field.mu.Unlock()
	end <- errors.New("session lost")
	pass("marked", func() bool { return slices.Contains(r.sink.readings("s", "y"), "null BadNoCommunication") })
	if s := r.p.Status()[0]; s.Connected || s.Reason != "session lost" {
		t.Errorf("status %+v", s)
	}
	pass("subscribed again", func() bool {
		r.field.mu.Lock()
		defer r.field.mu.Unlock()
		return r.field.subs["s"] != nil
	})
	subscribed()(0, point.Sample{Value: point.IntValue(42)})
	pass("values again", func() bool { return slices.Contains(r.sink.readings("s", "x"), "42 Good") })

	d.Tags = tags("x", "z") // another plan, another subscription, same session
	r.apply(d)
	pass("the new tag arrives", func() bool {
		subscribed()(1, point.Sample{Value: point.IntValue(1)})
		return len(r.sink.readings("s", "z")) > 0
	})
	if got := r.field.count(r.field.opened, "s"); got != 1 {
		t.Errorf("opened %d times", got)
	}
}

func TestEndHandsOutWhatWaits(t *testing.T) {
	r := newRig(t, Options{})
	r.sink.gate = make(chan struct{})
	r.apply(dev("a", "x"))
	r.run()
	r.step(time.Second, 2)
	over := make(chan struct{})
	go func() {
		for {
			select {
			case r.sink.gate <- struct{}{}:
			case <-over:
				return
			}
		}
	}()
	r.end()
	close(over)
	if got := len(r.sink.readings("a", "x")); got != r.field.count(r.field.reads, "a/x") {
		t.Errorf("%d readings of %d", got, r.field.count(r.field.reads, "a/x"))
	}
	if r.field.count(r.field.closed, "a") != 1 {
		t.Error("session not closed")
	}
	if _, err := r.p.Apply(nil); err == nil {
		t.Error("an ended poller takes devices")
	}
}

func TestEndDoesNotWaitForADeadSink(t *testing.T) {
	r := newRig(t, Options{Drain: time.Second})
	r.sink.gate = make(chan struct{})
	r.apply(dev("a", "x"))
	r.run()
	r.step(time.Second, 2)
	r.stop()
	eventually(t, "Run returned", func() bool {
		r.clk.Advance(100 * time.Millisecond)
		select {
		case err := <-r.done:
			r.done <- err
			return true
		default:
			return false
		}
	})
}

var _ protocols.Subscriber = (*subscribingSession)(nil)
