package point

import (
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var seed = flag.Uint64("seed", 0, "seed of the random series, 0 for a new one")

func random(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	return rand.New(rand.NewPCG(s, 0x5D7))
}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// series draws a signal of some shape: noise, steps, ramps, sines, holds.
func series(rng *rand.Rand, n int) (values []float64, at []time.Duration) {
	var now time.Duration
	v, slope := 100*rng.Float64(), 0.0
	shape := rng.IntN(5)
	for i := range n {
		if rng.IntN(30) == 0 {
			shape, slope = rng.IntN(5), rng.NormFloat64()
		}
		dt := time.Duration(1+rng.IntN(3000)) * time.Millisecond
		now += dt
		switch shape {
		case 0:
			v += rng.NormFloat64()
		case 1:
			v += slope*dt.Seconds() + 0.01*rng.NormFloat64()
		case 2:
			v = 50 + 20*math.Sin(float64(i)/9)
		case 3:
			if rng.IntN(10) == 0 {
				v = 100 * rng.Float64()
			}
		}
		values, at = append(values, v), append(at, now)
	}
	return values, at
}

func reading(v Value, at time.Duration) Reading {
	return Reading{Tag: "t", Value: v, Receive: epoch.Add(at)}
}

func swingTag(deviation float64) *Tag {
	return &Tag{Name: "t", Reduce: Reduction{Swing: deviation, Heartbeat: time.Hour * 1e5}}
}

// reference is the swinging door by its definition, without rays: a line from the
// last published point may end at a point if it passes all those between at no more than
// the deviation; the last such point is published when the next cannot be one.
func reference(values []float64, at []time.Duration, deviation float64) (published []int) {
	published = []int{0}
	pivot, held := 0, 0
	for k := 1; k < len(values); k++ {
		ok := true
		for i := pivot + 1; i < k; i++ {
			part := float64(at[i]-at[pivot]) / float64(at[k]-at[pivot])
			ok = ok && math.Abs(values[pivot]+(values[k]-values[pivot])*part-values[i]) <= deviation
		}
		if !ok {
			published = append(published, held)
			pivot = held
		}
		held = k
	}
	if held != pivot {
		published = append(published, held)
	}
	return published
}

func TestSwingingDoorIsItsDefinition(t *testing.T) {
	rng := random(t)
	for range 200 {
		deviation := math.Exp(3 * rng.NormFloat64())
		values, at := series(rng, 300)
		r := NewReducer(swingTag(deviation), 0)
		var out []Reading
		for i, v := range values {
			out = r.Next(out, reading(FloatValue(v), at[i]), at[i], 0)
		}
		out = r.Flush(out)
		var want []Reading
		for _, i := range reference(values, at, deviation) {
			want = append(want, reading(FloatValue(values[i]), at[i]))
		}
		if !reflect.DeepEqual(out, want) {
			t.Fatalf("deviation %g: %d published, the definition says %d", deviation, len(out), len(want))
		}
	}
}

// interpolate returns the value at a time of the line through published readings.
func interpolate(t *testing.T, published []Reading, at time.Time) float64 {
	t.Helper()
	for i := 1; i < len(published); i++ {
		a, b := published[i-1], published[i]
		if at.Before(a.Receive) || at.After(b.Receive) {
			continue
		}
		va, _ := a.Value.Float()
		vb, _ := b.Value.Float()
		return va + (vb-va)*float64(at.Sub(a.Receive))/float64(b.Receive.Sub(a.Receive))
	}
	t.Fatalf("%v is outside of what is published", at)
	return 0
}

// TestSwingingDoorKeepsItsPromise: the line through what is published is nowhere
// further than the deviation from what was measured, whatever the heartbeat, and
// nothing is published that was not measured, late or out of order.
func TestSwingingDoorKeepsItsPromise(t *testing.T) {
	rng := random(t)
	for round := range 200 {
		deviation := math.Exp(2 * rng.NormFloat64())
		heartbeat := time.Duration(5+rng.IntN(600)) * time.Second
		values, at := series(rng, 400)
		tag := swingTag(deviation)
		tag.Reduce.Heartbeat = heartbeat
		whole := round%3 == 0
		r := NewReducer(tag, time.Second)
		var out, all []Reading
		for i, v := range values {
			value := FloatValue(v)
			if whole {
				value = IntValue(int64(v))
			}
			rd := reading(value, at[i])
			all = append(all, rd)
			before := len(out)
			out = r.Next(out, rd, at[i], 3*time.Second)
			if len(out)-before > 2 {
				t.Fatalf("%d readings at once", len(out)-before)
			}
			if last := out[len(out)-1].Receive; rd.Receive.Sub(last) > heartbeat {
				t.Fatalf("nothing known of the last %s, heartbeat %s", rd.Receive.Sub(last), heartbeat)
			}
		}
		out = r.Flush(out)
		k := 0
		for i, rd := range all {
			if k < len(out) && reflect.DeepEqual(out[k], rd) {
				k++
				continue
			}
			v, _ := rd.Value.Float()
			if off := math.Abs(interpolate(t, out, rd.Receive) - v); off > deviation*(1+1e-9) {
				t.Fatalf("reading %d is off by %g, deviation %g", i, off, deviation)
			}
		}
		if k != len(out) {
			t.Fatalf("%d of %d published readings are among those taken, in order", k, len(out))
		}
	}
}

// TestSwingingDoorOnALine: what a line stands for is not published.
func TestSwingingDoorOnALine(t *testing.T) {
	r := NewReducer(swingTag(0.1), 0)
	var out []Reading
	for i := range 10_000 {
		at := time.Duration(i) * time.Second
		out = r.Next(out, reading(FloatValue(3*at.Seconds()+0.04*math.Sin(float64(i))), at), at, time.Second)
	}
	if out = r.Flush(out); len(out) > 100 {
		t.Errorf("%d readings of 10,000 on a line", len(out))
	}
}

// step is one reading in a script: the time in seconds, the value, its quality.
type step struct {
	at    float64
	value Value
	q     Quality
}

func f(v float64) Value { return FloatValue(v) }

func TestReducerScripts(t *testing.T) {
	text := StringValue
	for _, tt := range []struct {
		name  string
		tag   Tag
		class time.Duration // heartbeat
		steps []step
		want  string // time:value of what is published, | where a step publishes nothing
	}{
		{"nothing configured", Tag{}, 0, []step{{0, f(1), 0}, {1, f(1), 0}}, "0:1.0 1:1.0"},
		{"skip first", Tag{Reduce: Reduction{SkipFirst: true}, Dead: Deadband{Kind: OnChange}}, 0,
			[]step{{0, f(1), 0}, {1, f(1), 0}, {2, f(2), 0}, {3, f(2), 0}}, "| | 2:2.0 |"},
		{"a bad first one is not skipped", Tag{Reduce: Reduction{SkipFirst: true}}, 0,
			[]step{{0, Value{}, BadTimeout}, {1, f(1), 0}}, "0:null 1:1.0"},
		{"skipped against a dead-band", Tag{Reduce: Reduction{SkipFirst: true}, Dead: Deadband{Kind: Absolute, Value: 1}}, 0,
			[]step{{0, f(5), 0}, {1, f(6), 0}, {2, f(6.5), 0}}, "| | 2:6.5"},
		{"heartbeat of the tag", Tag{Dead: Deadband{Kind: OnChange}, Reduce: Reduction{Heartbeat: 3 * time.Second}}, time.Hour,
			[]step{{0, f(1), 0}, {1, f(1), 0}, {2, f(1), 0}, {3, f(1), 0}, {4, f(1), 0}, {5, f(1), 0}, {6, f(1), 0}},
			"0:1.0 | | 3:1.0 | | 6:1.0"},
		{"heartbeat of the class", Tag{Dead: Deadband{Kind: OnChange}, Reduce: Reduction{MinInterval: 1}}, 2 * time.Second,
			[]step{{0, f(1), 0}, {1, f(1), 0}, {2, f(1), 0}}, "0:1.0 | 2:1.0"},
		{"heartbeat after a skipped one", Tag{Dead: Deadband{Kind: OnChange}, Reduce: Reduction{SkipFirst: true, Heartbeat: 2 * time.Second}}, 0,
			[]step{{0, f(1), 0}, {1, f(1), 0}, {2, f(1), 0}}, "| | 2:1.0"},
		{"least interval", Tag{Reduce: Reduction{MinInterval: 2 * time.Second}}, 0,
			[]step{{0, f(1), 0}, {1, f(2), 0}, {2, f(3), 0}, {3, f(4), 0}, {4, f(5), 0}}, "0:1.0 | 2:3.0 | 4:5.0"},
		{"quality passes the least interval", Tag{Reduce: Reduction{MinInterval: time.Hour}}, 0,
			[]step{{0, f(1), 0}, {1, f(1), BadTimeout}, {2, f(1), BadTimeout}, {3, f(1), Uncertain}, {4, f(1), 0}},
			"0:1.0 1:1.0 | 3:1.0 4:1.0"},
		{"least interval and dead-band", Tag{Dead: Deadband{Kind: Absolute, Value: 1}, Reduce: Reduction{MinInterval: 2 * time.Second}}, 0,
			[]step{{0, f(1), 0}, {1, f(9), 0}, {2, f(1.5), 0}, {3, f(9), 0}}, "0:1.0 | | 3:9.0"},
		{"door", *swingTag(0.5), 0,
			[]step{{0, f(0), 0}, {1, f(1), 0}, {2, f(2), 0}, {3, f(3), 0}, {4, f(0), 0}, {5, f(-3), 0}}, "0:0.0 | | | 3:3.0 |"},
		{"door and quality", *swingTag(0.5), 0,
			[]step{{0, f(0), 0}, {1, f(1), 0}, {2, f(2), BadTimeout}, {3, f(7), BadTimeout}, {4, f(8), 0}, {5, f(8), 0}},
			"0:0.0 | 1:1.0,2:2.0 | 4:8.0 |"},
		{"door and text", *swingTag(0.5), 0,
			[]step{{0, text("a"), 0}, {1, text("a"), 0}, {2, f(1), 0}, {3, f(1), 0}, {4, text("b"), 0}, {5, BoolValue(true), 0}, {6, BoolValue(true), 0}},
			"0:a | 2:1.0 | 3:1.0,4:b 5:true |"},
		{"door and what is no number", *swingTag(0.5), 0,
			[]step{{0, f(1), 0}, {1, f(math.NaN()), 0}, {2, f(math.NaN()), 0}, {3, f(math.Inf(1)), 0}, {4, f(1), 0}},
			`0:1.0 1:{"float":"NaN"} | 3:{"float":"Infinity"} 4:1.0`},
		{"door and a vast step", *swingTag(0.5), 0,
			[]step{{0, f(-1e308), 0}, {1, f(1e308), 0}, {2, f(-1e308), 0}, {3, f(0), 0}, {4, f(0), 0}},
			"0:-1e+308 | 1:1e+308 2:-1e+308 3:0.0"},
		{"door and time going back", *swingTag(0.5), 0,
			[]step{{10, f(1), 0}, {11, f(1), 0}, {9, f(1), 0}, {10, f(1), 0}, {11, f(1), 0}}, "10:1.0 | 11:1.0,9:1.0 | |"},
		{"door and time standing", *swingTag(0.5), 0,
			[]step{{1, f(1), 0}, {1, f(1), 0}, {1, f(2), 0}, {2, f(2), 0}, {2, f(2), 0}, {2, f(3), 0}}, "1:1.0 | 1:2.0 | | 2:2.0,2:3.0"},
		{"door and least interval", Tag{Reduce: Reduction{Swing: 0.5, MinInterval: 2 * time.Second}}, 0,
			[]step{{0, f(0), 0}, {1, f(9), 0}, {2, f(2), 0}, {3, f(3), 0}, {4, f(9), 0}}, "0:0.0 | | | 3:3.0"},
		{"door without a heartbeat", Tag{Reduce: Reduction{Swing: 0.5}}, 0,
			[]step{{0, f(0), 0}, {30, f(0), 0}, {59, f(0), 0}, {60, f(0), 0}}, "0:0.0 | | 60:0.0"},
		{"percent of the span", Tag{Scale: Scale{Kind: Linear, RawHigh: 1, EngLow: 50, EngHigh: -150}, Reduce: Reduction{Swing: 1, SwingPercent: true}}, 0,
			[]step{{0, f(0), 0}, {1, f(1.9), 0}, {2, f(0), 0}, {3, f(4.1), 0}, {4, f(0), 0}}, "0:0.0 | | 2:0.0 3:4.1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := (&Tag{Name: "t", Scale: tt.tag.Scale, Dead: tt.tag.Dead, Reduce: tt.tag.Reduce}).Check(); err != nil {
				t.Fatal(err)
			}
			r := NewReducer(&tt.tag, tt.class)
			var got []string
			for _, s := range tt.steps {
				at := time.Duration(s.at * float64(time.Second))
				rd := reading(s.value, at)
				rd.Quality = s.q
				var told []string
				for _, p := range r.Next(nil, rd, at, time.Second) {
					told = append(told, fmt.Sprintf("%g:%s", p.Receive.Sub(epoch).Seconds(), p.Value))
				}
				if len(told) == 0 {
					told = []string{"|"}
				}
				got = append(got, strings.Join(told, ","))
			}
			if text := strings.Join(got, " "); text != tt.want {
				t.Errorf("published\n%s, want\n%s", text, tt.want)
			}
		})
	}
}

// TestSourceTimesAreTheAxis: where the field device says when, lines are drawn
// over its times, not over those of arrival.
func TestSourceTimesAreTheAxis(t *testing.T) {
	r := NewReducer(swingTag(0.01), 0)
	var out []Reading
	for i := range 10 {
		rd := reading(FloatValue(float64(i)), time.Duration(i*i)*time.Second)
		rd.Source = epoch.Add(time.Duration(i) * time.Minute)
		out = r.Next(out, rd, time.Duration(i*i)*time.Second, 0)
	}
	if out = r.Flush(out); len(out) != 2 {
		t.Errorf("%d readings of a straight line", len(out))
	}
}

func TestReductionCheck(t *testing.T) {
	linear := Scale{Kind: Linear, RawHigh: 1, EngHigh: 1}
	for _, tt := range []struct {
		tag  Tag
		want string
	}{
		{Tag{Reduce: Reduction{Swing: 1, MinInterval: 1, Heartbeat: 2}}, ""},
		{Tag{Reduce: Reduction{Swing: 1, SwingPercent: true}, Scale: linear}, ""},
		{Tag{Reduce: Reduction{Swing: 1, SwingPercent: true}}, "needs a linear scale"},
		{Tag{Reduce: Reduction{SwingPercent: true}}, "percent of what"},
		{Tag{Reduce: Reduction{Swing: -1}}, "above 0"},
		{Tag{Reduce: Reduction{Swing: math.NaN()}}, "above 0"},
		{Tag{Reduce: Reduction{Swing: math.Inf(1)}}, "above 0"},
		{Tag{Reduce: Reduction{Swing: 1}, Dead: Deadband{Kind: OnChange}}, "not both"},
		{Tag{Reduce: Reduction{Swing: 1, SkipFirst: true}}, "skip the first"},
		{Tag{Reduce: Reduction{MinInterval: -1}}, "negative"},
		{Tag{Reduce: Reduction{Heartbeat: -1}}, "negative"},
		{Tag{Reduce: Reduction{MinInterval: 2, Heartbeat: 1}}, "above the heartbeat"},
		{Tag{Dead: Deadband{Kind: EveryReading}}, ""},
	} {
		tt.tag.Name = "t"
		err := tt.tag.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.tag.Reduce, err, tt.want)
		}
	}
}

func TestWildcard(t *testing.T) {
	for _, tt := range []struct {
		pattern, name string
		want          bool
	}{
		{"", "", true}, {"", "a", false}, {"*", "", true}, {"*", "abc", true}, {"a*", "abc", true}, {"*c", "abc", true},
		{"a*c", "ac", true}, {"a*c", "abcb", false}, {"*b*", "abc", true}, {"?", "é", true}, {"??", "é", false},
		{"a?c", "abc", true}, {"a?c", "ac", false}, {"temp*", "Temp1", false}, {"a*b*c", "axbxxbxc", true},
		{"**", "x", true}, {"*a*a*a*a*b", strings.Repeat("a", 200), false}, {"[a]", "a", false}, {"[a]", "[a]", true},
	} {
		if got := wildcard(tt.pattern, tt.name); got != tt.want {
			t.Errorf("wildcard(%q, %.20q) = %v", tt.pattern, tt.name, got)
		}
	}
}

func FuzzWildcard(f *testing.F) {
	f.Add("press*/temp*", "press7/temp")
	f.Add("a?c", "abc")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return // names are checked; two halves of a character would join
		}
		if !strings.ContainsAny(pattern, "*?") && wildcard(pattern, name) != (string([]rune(pattern)) == string([]rune(name))) {
			t.Errorf("without wildcards %q and %q", pattern, name)
		}
		if !wildcard(pattern+"*", pattern+name) || !wildcard("*"+pattern, name+pattern) {
			t.Errorf("a star at the end of %q does not stand for %q", pattern, name)
		}
	})
}

func TestApplyRules(t *testing.T) {
	change, half := Deadband{Kind: OnChange}, Deadband{Kind: Absolute, Value: 0.5}
	rules := []ReduceRule{
		{Match: "*/*", Dead: change, Reduce: Reduction{Heartbeat: time.Minute}},
		{Match: "press*/temp*", Dead: half},
		{Match: "press1/temp_hot", Reduce: Reduction{Swing: 2, MinInterval: time.Second}},
		{Match: "mill?/*", Reduce: Reduction{SkipFirst: true}},
		{Match: "press1/nothing", Dead: half},
	}
	for i := range rules {
		if err := rules[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	own := Tag{Name: "temp_own", Dead: Deadband{Kind: Absolute, Value: 9}, Reduce: Reduction{Heartbeat: time.Hour}}
	every := Tag{Name: "temp_every", Dead: Deadband{Kind: EveryReading}}
	door := Tag{Name: "temp_door", Reduce: Reduction{Swing: 7}}
	in := []Tag{{Name: "speed"}, {Name: "temp"}, {Name: "temp_hot"}, own, every, door}
	out, matched := ApplyRules(rules, "press1", in)
	minute := Reduction{Heartbeat: time.Minute}
	for i, want := range []Tag{
		{Name: "speed", Dead: change, Reduce: minute},
		{Name: "temp", Dead: half, Reduce: minute},
		{Name: "temp_hot", Reduce: Reduction{Swing: 2, MinInterval: time.Second, Heartbeat: time.Minute}},
		own,
		{Name: "temp_every", Dead: Deadband{Kind: EveryReading}, Reduce: minute},
		{Name: "temp_door", Reduce: Reduction{Swing: 7, Heartbeat: time.Minute}},
	} {
		if !out[i].Equal(&want) {
			t.Errorf("%+v\nwant\n%+v", out[i], want)
		}
	}
	if !reflect.DeepEqual(matched, []int{6, 5, 1, 0, 0}) {
		t.Errorf("matched %v", matched)
	}
	if in[0].Dead.Kind != NoDeadband {
		t.Error("the tags given have been changed")
	}
	if out, _ := ApplyRules(rules[4:], "press1", in); &out[0] != &in[0] {
		t.Error("copied without a need")
	}
	if out, _ := ApplyRules(rules, "mill7", in[:1]); !out[0].Reduce.SkipFirst {
		t.Errorf("%+v", out)
	}
	if out, matched := ApplyRules(rules, "x", nil); len(out) != 0 || len(matched) != 5 {
		t.Errorf("no tags: %v %v", out, matched)
	}
}

func TestRuleCheck(t *testing.T) {
	for match, want := range map[string]string{
		"a": "want device/tag", "/a": "want device/tag", "a/": "want device/tag", "a/b/c": "want device/tag", "": "want device/tag",
	} {
		r := ReduceRule{Match: match, Dead: Deadband{Kind: OnChange}}
		if err := r.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", match, err)
		}
	}
	for _, tt := range []struct {
		rule ReduceRule
		want string
	}{
		{ReduceRule{}, "changes nothing"},
		{ReduceRule{Dead: Deadband{Kind: Percent, Value: 2}}, ""},
		{ReduceRule{Reduce: Reduction{Swing: 1, SwingPercent: true}}, ""},
		{ReduceRule{Reduce: Reduction{Heartbeat: -1}}, "negative"},
		{ReduceRule{Dead: Deadband{Kind: Absolute}}, "above 0"},
	} {
		tt.rule.Match = "a/*"
		err := tt.rule.Check()
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%+v: %v, want %q", tt.rule, err, tt.want)
		}
	}
}
