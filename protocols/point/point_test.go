package point

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

func TestQualityNames(t *testing.T) {
	for i, e := range qualityNames {
		if i > 0 && e.code <= qualityNames[i-1].code {
			t.Errorf("%s is out of order", e.name)
		}
		if got := e.code.String(); got != e.name {
			t.Errorf("%08X prints as %s, want %s", uint32(e.code), got, e.name)
		}
		level := map[Level]string{LevelGood: "Good", LevelUncertain: "Uncertain", LevelBad: "Bad"}[e.code.Level()]
		if !strings.HasPrefix(e.name, level) {
			t.Errorf("%s has level %s", e.name, level)
		}
	}
	for q, want := range map[Quality]string{
		0x80FE0000: "0x80FE0000", 0x80310001: "0x80310001", BadTimeout: "BadTimeout",
		UncertainNoCommunicationLastUsable: "UncertainNoCommunicationLastUsableValue",
	} {
		if got := q.String(); got != want {
			t.Errorf("%08X prints as %s, want %s", uint32(q), got, want)
		}
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 10_000 {
		q := Quality(rng.Uint32())
		if back, err := ParseQuality(q.String()); err != nil || back != q {
			t.Fatalf("%s parses as %s, %v", q, back, err)
		}
	}
	for _, bad := range []string{"", "0x", "0x1FFFFFFFF", "bad", "0x+1", "12"} {
		if q, err := ParseQuality(bad); err == nil || !q.Bad() {
			t.Errorf("%q parses as %s", bad, q)
		}
	}
}

func TestScale(t *testing.T) {
	linear := Scale{Kind: Linear, RawLow: 0, RawHigh: 27648, EngLow: -50, EngHigh: 150, Clamp: true}
	down := Scale{Kind: Linear, RawLow: 4, RawHigh: 20, EngLow: 100, EngHigh: 0, Clamp: true}
	for _, c := range []struct {
		name  string
		scale Scale
		raw   Value
		want  Value
		q     Quality
	}{
		{"none keeps the kind", Scale{}, IntValue(7), IntValue(7), Good},
		{"none keeps text", Scale{}, StringValue("x"), StringValue("x"), Good},
		{"factor one is the identity", Scale{Kind: Factor, Factor: 1}, IntValue(7), IntValue(7), Good},
		{"decimal factor", Scale{Kind: Factor, Factor: 0.1}, IntValue(3), FloatValue(0.3), Good},
		{"decimal factor and offset", Scale{Kind: Factor, Factor: 0.01, Offset: -273.15}, IntValue(29465), FloatValue(21.5), Good},
		{"whole factor gives a float", Scale{Kind: Factor, Factor: 10}, IntValue(3), FloatValue(30), Good},
		{"odd factor", Scale{Kind: Factor, Factor: math.Pi}, IntValue(2), FloatValue(2 * math.Pi), Good},
		{"whole offset stays exact", Scale{Kind: Factor, Factor: 1, Offset: 1}, IntValue(1<<62 + 1), IntValue(1<<62 + 2), Good},
		{"offset into the unsigned range", Scale{Kind: Factor, Factor: 1, Offset: 1}, IntValue(math.MaxInt64), UintValue(1 << 63), Good},
		{"offset out of the unsigned range", Scale{Kind: Factor, Factor: 1, Offset: -1}, UintValue(1 << 63), IntValue(math.MaxInt64), Good},
		{"offset over the top", Scale{Kind: Factor, Factor: 1, Offset: 1}, UintValue(math.MaxUint64), Value{}, BadOutOfRange},
		{"offset under the floor", Scale{Kind: Factor, Factor: 1, Offset: -1}, IntValue(math.MinInt64), Value{}, BadOutOfRange},
		{"text", Scale{Kind: Factor, Factor: 2}, StringValue("x"), Value{}, BadTypeMismatch},
		{"null", Scale{Kind: Factor, Factor: 2}, Value{}, Value{}, Good},
		{"linear low", linear, IntValue(0), FloatValue(-50), Good},
		{"linear high", linear, IntValue(27648), FloatValue(150), Good},
		{"linear middle", linear, IntValue(13824), FloatValue(50), Good},
		{"linear above", linear, IntValue(30000), FloatValue(150), GoodClamped},
		{"linear below", linear, IntValue(-1), FloatValue(-50), GoodClamped},
		{"falling", down, FloatValue(8), FloatValue(75), Good},
		{"falling, below", down, FloatValue(3), FloatValue(100), GoodClamped},
		{"falling, above", down, FloatValue(21), FloatValue(0), GoodClamped},
	} {
		if err := c.scale.Check(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		got, q := c.scale.Apply(c.raw)
		if !got.Equal(c.want) || q != c.q {
			t.Errorf("%s: %s %s %s, want %s %s %s", c.name, got.Kind(), got, q, c.want.Kind(), c.want, c.q)
		}
		if c.q != Good || c.raw.Kind() == Null {
			continue
		}
		back, err := c.scale.Invert(got)
		if err != nil {
			t.Errorf("%s: invert: %v", c.name, err)
			continue
		}
		a, ok := back.Float()
		b, _ := c.raw.Float()
		if a != b || !ok && !back.Equal(c.raw) {
			t.Errorf("%s: inverts to %s, want %s", c.name, back, c.raw)
		}
	}
}

// TestDecimalScalesInvert: every register of 16 bits comes back from its
// engineering value, as an integer, for the factors that device manuals use.
func TestDecimalScalesInvert(t *testing.T) {
	for _, s := range []Scale{
		{Kind: Factor, Factor: 0.1}, {Kind: Factor, Factor: 0.01}, {Kind: Factor, Factor: 0.001, Offset: -40},
		{Kind: Factor, Factor: 0.0625}, {Kind: Factor, Factor: -0.5, Offset: 3.7}, {Kind: Factor, Factor: 1.0 / 3},
		{Kind: Linear, RawLow: 0, RawHigh: 27648, EngLow: 0, EngHigh: 10},
		{Kind: Linear, RawLow: 5530, RawHigh: 27648, EngLow: -1, EngHigh: 16.7},
	} {
		c := s.Compile()
		for raw := int64(0); raw < 65536; raw++ {
			eng, _ := c.Apply(IntValue(raw))
			if back, err := c.Invert(eng); err != nil || back.Kind() != Int || back.Int() != raw {
				t.Fatalf("%+v: %d is %s and comes back as %s (%s), %v", s, raw, eng, back, back.Kind(), err)
			}
		}
	}
}

func TestInvertRefuses(t *testing.T) {
	clamp := Scale{Kind: Linear, RawHigh: 100, EngHigh: 10, Clamp: true}
	for name, c := range map[string]struct {
		s Scale
		v Value
	}{
		"text":      {Scale{Kind: Factor, Factor: 2}, StringValue("5")},
		"bool":      {Scale{Kind: Factor, Factor: 2}, BoolValue(true)},
		"nan":       {Scale{Kind: Factor, Factor: 2}, FloatValue(math.NaN())},
		"overflow":  {Scale{Kind: Factor, Factor: 1e-300}, FloatValue(1e300)},
		"above":     {clamp, FloatValue(10.5)},
		"below":     {clamp, IntValue(-1)},
		"too small": {Scale{Kind: Factor, Factor: 1, Offset: 5}, IntValue(math.MinInt64)},
	} {
		if v, err := c.s.Invert(c.v); err == nil {
			t.Errorf("%s: gives %s", name, v)
		}
	}
}

func TestDeadband(t *testing.T) {
	percent := Scale{Kind: Linear, RawHigh: 1, EngLow: -100, EngHigh: 100}
	type step struct {
		v    Value
		q    Quality
		pass bool
	}
	f := FloatValue
	for name, c := range map[string]struct {
		d     Deadband
		s     Scale
		steps []step
	}{
		"none": {Deadband{}, Scale{}, []step{{f(1), Good, true}, {f(1), Good, true}}},
		"on change": {Deadband{Kind: OnChange}, Scale{}, []step{
			{f(1), Good, true}, {f(1), Good, false}, {IntValue(1), Good, true}, {f(1), Good, true}, {f(1), GoodClamped, true},
			{Value{}, BadTimeout, true}, {f(5), BadTimeout, false}, {Value{}, BadNoData, true}, {f(1), Good, true},
		}},
		"absolute": {Deadband{Kind: Absolute, Value: 0.5}, Scale{}, []step{
			{f(1), Good, true}, {f(1.5), Good, false}, {f(0.5), Good, false}, {f(1.51), Good, true}, {f(1.02), Good, false},
			{f(1.02), Uncertain, true}, {f(math.NaN()), Uncertain, true}, {f(math.NaN()), Uncertain, false}, {f(math.Inf(1)), Uncertain, true},
			{f(math.Inf(1)), Uncertain, false}, {f(math.Inf(-1)), Uncertain, true},
		}},
		"slow drift is seen": {Deadband{Kind: Absolute, Value: 1}, Scale{}, []step{
			{f(0), Good, true}, {f(0.4), Good, false}, {f(0.8), Good, false}, {f(1.2), Good, true}, {f(1.6), Good, false},
		}},
		"big integers": {Deadband{Kind: Absolute, Value: 1}, Scale{}, []step{
			{IntValue(1<<62 + 1), Good, true}, {IntValue(1<<62 + 2), Good, false}, {IntValue(1<<62 + 3), Good, true},
			{IntValue(math.MinInt64), Good, true}, {IntValue(math.MaxInt64), Good, true},
		}},
		"percent of span": {Deadband{Kind: Percent, Value: 1}, percent, []step{
			{f(0), Good, true}, {f(2), Good, false}, {f(2.1), Good, true},
		}},
		"text": {Deadband{Kind: Absolute, Value: 1}, Scale{}, []step{
			{StringValue("a"), Good, true}, {StringValue("a"), Good, false}, {StringValue("b"), Good, true}, {f(1), Good, true},
		}},
	} {
		if err := c.d.Check(c.s); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		filter := NewFilter(c.d, c.s)
		for i, s := range c.steps {
			if got := filter.Pass(s.v, s.q); got != s.pass {
				t.Errorf("%s, step %d: %s %s passes: %v, want %v", name, i, s.v, s.q, got, s.pass)
			}
		}
	}
}

func TestTagCheck(t *testing.T) {
	low, high, nan := 1.0, 2.0, math.NaN()
	good := Tag{Name: "Zone 3.temp_ä", Min: &low, Max: &high}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for name, tag := range map[string]Tag{
		"empty name": {}, "slash": {Name: "a/b"}, "plus": {Name: "a+"}, "hash": {Name: "#"}, "dollar": {Name: "$x"},
		"newline": {Name: "a\nb"}, "utf-8": {Name: "\xff"}, "space": {Name: " a"}, "long": {Name: strings.Repeat("x", 256)},
		"factor 0": {Name: "a", Scale: Scale{Kind: Factor}}, "raw range": {Name: "a", Scale: Scale{Kind: Linear, EngHigh: 1}},
		"eng range": {Name: "a", Scale: Scale{Kind: Linear, RawHigh: 1}}, "nan": {Name: "a", Scale: Scale{Kind: Factor, Factor: nan}},
		"dead-band": {Name: "a", Dead: Deadband{Kind: Absolute}}, "percent": {Name: "a", Dead: Deadband{Kind: Percent, Value: 1}},
		"limits": {Name: "a", Min: &high, Max: &low}, "limit nan": {Name: "a", Max: &nan}, "stale": {Name: "a", Stale: -1},
		"access": {Name: "a", Access: 9},
	} {
		if err := tag.Check(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	both := Tag{Name: "a/b", Stale: -1, Scale: Scale{Kind: Factor}}
	if err := both.Check(); strings.Count(err.Error(), "\n") != 2 {
		t.Errorf("want three mistakes, got %v", err)
	}
}

func TestTagEqual(t *testing.T) {
	one, uno, two := 1.0, 1.0, 2.0
	base := Tag{Name: "a", Min: &one, Params: Params{"order": "ABCD"}}
	same := Tag{Name: "a", Min: &uno, Params: Params{"order": "ABCD"}}
	if !base.Equal(&same) {
		t.Error("equal tags differ")
	}
	for name, other := range map[string]Tag{
		"min": {Name: "a", Min: &two, Params: base.Params}, "no min": {Name: "a", Params: base.Params},
		"params": {Name: "a", Min: &one, Params: Params{"order": "CDAB"}}, "key": {Name: "a", Min: &one, Params: Params{"ordre": "ABCD"}},
		"class": {Name: "a", Min: &one, Class: "fast", Params: base.Params},
	} {
		if base.Equal(&other) {
			t.Errorf("%s: not seen", name)
		}
	}
}

func TestAccess(t *testing.T) {
	for _, a := range []Access{ReadOnly, ReadWrite, WriteOnly} {
		if back, err := ParseAccess(a.String()); err != nil || back != a {
			t.Errorf("%s parses as %s, %v", a, back, err)
		}
	}
	if _, err := ParseAccess("rx"); err == nil {
		t.Error("accepted rx")
	}
}
