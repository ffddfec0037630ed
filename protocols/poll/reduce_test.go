package poll

import (
	"context"
	"math"
	"slices"
	"testing"
	"time"

	"holdfast/protocols/point"
)

// accounts checks that every reading of a device was published or held back.
func (r *rig) accounts() {
	r.t.Helper()
	for _, s := range r.p.Status() {
		if s.Readings != s.Published+s.Held {
			r.t.Errorf("%s: %d readings, %d published, %d held back", s.Name, s.Readings, s.Published, s.Held)
		}
	}
}

// TestSwingingDoor: the published readings carry their own times, the line
// through them is within the deviation of every reading, and the end hands out
// what was held.
func TestSwingingDoor(t *testing.T) {
	r := newRig(t, Options{})
	signal := func(n int) float64 { return 20 * math.Sin(float64(n)/20) }
	r.field.answer = func(_ string, _ point.Tag, n int) point.Sample {
		return point.Sample{Value: point.FloatValue(signal(n))}
	}
	d := dev("a", "x", "raw")
	d.Tags[0].Reduce = point.Reduction{Swing: 0.5, Heartbeat: 5 * time.Second}
	r.apply(d)
	r.run()
	r.step(20*time.Second, 2)
	r.end()
	r.accounts()
	type at struct {
		t time.Time
		v float64
	}
	got := map[string][]at{}
	for _, b := range r.sink.all() {
		for _, rd := range b.Readings {
			v, _ := rd.Value.Float()
			got[rd.Tag] = append(got[rd.Tag], at{rd.Receive, v})
		}
	}
	line, raw := got["x"], got["raw"]
	if len(raw) < 190 || len(line) > len(raw)/3 || len(line) < 5 {
		t.Fatalf("%d readings, %d published", len(raw), len(line))
	}
	if line[0] != raw[0] || line[len(line)-1] != raw[len(raw)-1] {
		t.Errorf("the line goes from %v to %v, the readings from %v to %v", line[0], line[len(line)-1], raw[0], raw[len(raw)-1])
	}
	for _, p := range raw {
		i, _ := slices.BinarySearchFunc(line, p.t, func(a at, t time.Time) int { return a.t.Compare(t) })
		b := line[i]
		if b.t.Equal(p.t) {
			if b.v != p.v {
				t.Errorf("at %v %g was published, %g read", p.t, b.v, p.v)
			}
			continue
		}
		a := line[i-1]
		if v := a.v + (b.v-a.v)*float64(p.t.Sub(a.t))/float64(b.t.Sub(a.t)); math.Abs(v-p.v) > 0.5+1e-9 {
			t.Errorf("at %v the line says %g, %g was read", p.t, v, p.v)
		}
	}
}

// TestReductionsOfATag: a heartbeat of the tag's own, the least interval, the
// first reading kept back.
func TestReductionsOfATag(t *testing.T) {
	r := newRig(t, Options{})
	r.field.answer = func(_ string, tag point.Tag, n int) point.Sample {
		if tag.Name == "every" {
			return point.Sample{Value: point.IntValue(int64(n))}
		}
		return point.Sample{Value: point.IntValue(7)}
	}
	d := dev("a", "beat", "class", "every", "skip")
	d.Classes["fast"] = Class{Period: 100 * time.Millisecond, Heartbeat: 5 * time.Second}
	for i := range d.Tags {
		d.Tags[i].Dead.Kind = point.OnChange
	}
	d.Tags[0].Reduce.Heartbeat = time.Second
	d.Tags[2].Reduce.MinInterval = 2 * time.Second
	d.Tags[3].Reduce = point.Reduction{SkipFirst: true, Heartbeat: time.Hour}
	r.apply(d)
	r.run()
	r.step(10050*time.Millisecond, 2)
	r.settle()
	for tag, want := range map[string]int{"beat": 11, "class": 3, "every": 6, "skip": 0} {
		if got := len(r.sink.readings("a", tag)); got != want {
			t.Errorf("%s was published %d times, want %d", tag, got, want)
		}
	}
	r.accounts()
}

// TestHeldIsHandedOutOnReconfiguration: a line that is not continued ends where
// it was read last.
func TestHeldIsHandedOutOnReconfiguration(t *testing.T) {
	for name, change := range map[string]func(*Device){
		"other reduction": func(d *Device) { d.Tags[0].Reduce.Swing = 9 },
		"tag removed":     func(d *Device) { d.Tags = d.Tags[1:] },
		"other address":   func(d *Device) { d.Tags[0].Address = "elsewhere" },
		"device removed":  func(d *Device) { d.Name = "b" },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{})
			d := dev("a", "x", "y")
			d.Tags[0].Reduce = point.Reduction{Swing: 0.1, Heartbeat: time.Hour} // the value counts up: a line
			r.apply(d)
			r.run()
			r.step(1050*time.Millisecond, 2)
			r.settle()
			before, last := r.sink.readings("a", "x"), r.sink.readings("a", "y")
			if len(before) != 1 {
				t.Fatalf("published %q", before)
			}
			d.Tags = slices.Clone(d.Tags)
			change(&d)
			r.apply(d)
			eventually(t, "the held reading is published", func() bool { return len(r.sink.readings("a", "x")) >= 2 })
			if got := r.sink.readings("a", "x")[1]; got != last[len(last)-1] {
				t.Errorf("published %s, the last read was %s", got, last[len(last)-1])
			}
			r.accounts()
		})
	}
	// What does not touch the tag does not end its line.
	r := newRig(t, Options{})
	d := dev("a", "x", "y")
	d.Tags[0].Reduce = point.Reduction{Swing: 0.1, Heartbeat: time.Hour}
	r.apply(d)
	r.run()
	r.step(1050*time.Millisecond, 2)
	d.Tags = slices.Clone(d.Tags)
	d.Tags[1].Comment = "other"
	r.apply(d)
	r.step(time.Second, 2)
	r.settle()
	if got := r.sink.readings("a", "x"); len(got) != 1 {
		t.Errorf("published %q", got)
	}
}

// TestSubscribedHeartbeat: a device that says nothing is not silent to those who
// listen to us, and the line of a door is drawn to the heartbeat.
func TestSubscribedHeartbeat(t *testing.T) {
	r := newRig(t, Options{})
	d := dev("a", "x", "quiet")
	d.Subscribe, d.Settings = true, map[string]any{"subscriber": true}
	d.Tags[0].Reduce = point.Reduction{Swing: 1, Heartbeat: 2 * time.Second}
	d.Tags[1].Dead.Kind = point.OnChange
	r.apply(d)
	r.run()
	var push func(int, point.Sample)
	eventually(t, "there is a subscription", func() bool {
		r.field.mu.Lock()
		defer r.field.mu.Unlock()
		push = r.field.subs["a"]
		return push != nil
	})
	for i, v := range []float64{1, 2, 3} {
		push(0, point.Sample{Value: point.FloatValue(v)})
		eventually(t, "the sample is taken", func() bool {
			r.clk.Advance(10 * time.Millisecond)
			return r.p.Status()[0].Readings == uint64(i+1)
		})
	}
	push(1, point.Sample{Value: point.FloatValue(5)})
	eventually(t, "heartbeats are given", func() bool {
		r.clk.Advance(50 * time.Millisecond)
		return len(r.sink.readings("a", "x")) >= 5
	})
	got := r.sink.readings("a", "x")
	if want := []string{"1.0 Good", "3.0 Good", "3.0 Good", "3.0 Good", "3.0 Good"}; !slices.Equal(got[:5], want) {
		t.Errorf("published %q, want %q first", got, want)
	}
	if got := r.sink.readings("a", "quiet"); len(got) != 1 {
		t.Errorf("a tag without a heartbeat was published %d times", len(got))
	}
}

// TestReducersAllocateLittle: a steady line costs no memory.
func TestReducersAllocateLittle(t *testing.T) {
	r := newRig(t, Options{})
	d := dev("a", "x")
	d.Tags[0].Reduce = point.Reduction{Swing: 1, Heartbeat: time.Hour}
	r.apply(d)
	l := r.p.devices["a"].lanes["fast"]
	l.ctx = context.Background()
	l.plan.group = &steadyGroup{}
	l.read(l.plan)
	n := testing.AllocsPerRun(100, func() {
		r.clk.Advance(100 * time.Millisecond)
		l.read(l.plan)
	})
	if n > 8 {
		t.Errorf("%g allocations for a read that publishes nothing", n)
	}
}
