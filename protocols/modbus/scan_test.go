package modbus

import (
	"context"
	"log/slog"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock"
	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
)

func newScanner(t *testing.T, settings map[string]any, so ScanOptions) *Scanner {
	t.Helper()
	s, err := NewScanner(protocols.Env{Clock: clock.NewReal(), Log: slog.New(slog.DiscardHandler)}, Options{}, settings, so)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// TestScanUnits looks for units where a gateway speaks for those that are not
// there, where nobody does, and on a line.
func TestScanUnits(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(10))
	p.Add(3, ramp(10)).Deny(sim.Holding, 0, 10)
	p.Add(17, ramp(10)).DenyFunction(3)
	silent := sim.New(1)
	for u := byte(1); u < 20; u++ {
		silent.Add(u, ramp(10))
	}
	silent.Inject(sim.Fault{Kind: sim.Silence, Units: []byte{2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 19}})
	for _, c := range []struct {
		name     string
		settings map[string]any
	}{
		{"gateway", map[string]any{"address": serveTCP(t, p)}},
		{"silence", map[string]any{"address": serveTCP(t, silent)}},
		{"line", map[string]any{"transport": "rtu", "port": serveLine(t, p, sim.Line{}), "baud": int64(115200)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newScanner(t, c.settings, ScanOptions{Timeout: 150 * time.Millisecond})
			var units []byte
			for u := byte(1); u < 20; u++ {
				units = append(units, u)
			}
			var got []byte
			asked := 0
			err := s.Units(within(t), units, func(byte) { asked++ }, func(f FoundUnit) {
				got = append(got, f.Unit)
				if f.Unit == 1 && f.Answer != "holding:0 = 0" {
					t.Errorf("unit 1: %s", f.Answer)
				}
				if c.name != "silence" && f.Unit == 17 && f.Answer != "exception 1 (illegal function)" {
					t.Errorf("unit 17: %s", f.Answer)
				}
			})
			if err != nil || asked != len(units) || !slices.Equal(got, []byte{1, 3, 17}) {
				t.Errorf("found %v after %d, %v", got, asked, err)
			}
		})
	}
}

// TestScanWithoutPeer tells that nobody is there at all, and ends when asked to.
func TestScanWithoutPeer(t *testing.T) {
	s := newScanner(t, map[string]any{"address": "127.0.0.1:1"}, ScanOptions{})
	err := s.Units(within(t), []byte{1, 2}, func(byte) {}, func(FoundUnit) {})
	if err == nil || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody there: %v", err)
	}
	p := sim.New(1)
	p.Add(1, ramp(10))
	p.Inject(sim.Fault{Kind: sim.Silence})
	s = newScanner(t, map[string]any{"address": serveTCP(t, p)}, ScanOptions{Timeout: 10 * time.Second})
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Units(ctx, []byte{1, 2}, func(byte) {}, func(FoundUnit) {}); err == nil {
		t.Error("a scan that was ended has no error")
	}
	if _, err := NewScanner(protocols.Env{Clock: clock.NewReal()}, Options{}, map[string]any{"adress": "h"}, ScanOptions{}); err == nil {
		t.Error("settings were not checked")
	}
}

// TestScanRegisters finds exactly what exists, with the fewest requests that
// halving needs.
func TestScanRegisters(t *testing.T) {
	p := sim.New(1)
	d := p.Add(1, ramp(300))
	d.Deny(sim.Holding, 10, 20)
	d.Deny(sim.Holding, 31, 32)
	d.Deny(sim.Holding, 100, 300)
	s := newScanner(t, map[string]any{"address": serveTCP(t, p)}, ScanOptions{})
	last := 0
	items, err := s.Registers(within(t), 1, Holding, 5, 200, func(next int) { last = next })
	if err != nil || items.Reason != "" || last != 200 {
		t.Fatal(err, items.Reason, last)
	}
	for i, there := range items.There {
		at := items.From + i
		want := !(at >= 10 && at < 20) && at != 31 && at < 100
		if there != want || there && int(items.Words[i]) != at {
			t.Errorf("holding:%d is there: %v, %d", at, there, items.Words[i])
		}
	}
	if n := p.Requests(1); n != items.Asked || n > 2*(200-5)+4 {
		t.Errorf("%d requests, %d seen", items.Asked, n)
	}
	coils, err := s.Registers(within(t), 1, Coil, 0, 300, nil)
	if err != nil || coils.Words[1] != 1 || coils.Words[2] != 0 || coils.Words[4] != 1 || coils.Asked != 1 {
		t.Errorf("coils: %v %+v", err, coils)
	}
}

// TestScanEndsEarly checks each reason not to ask on.
func TestScanEndsEarly(t *testing.T) {
	for _, c := range []struct {
		name   string
		fault  sim.Fault
		setup  func(d *sim.Device)
		opts   ScanOptions
		reason string
		err    string
	}{
		{name: "no such function", setup: func(d *sim.Device) { d.DenyFunction(3) }, reason: "exception 1"},
		{name: "limit", setup: func(d *sim.Device) { d.Deny(sim.Holding, 0, 1000) }, opts: ScanOptions{Requests: 20}, reason: "20 requests"},
		{name: "silence", fault: sim.Fault{Kind: sim.Silence, From: 100, To: 1000}, opts: ScanOptions{Timeout: 60 * time.Millisecond}, err: "4 requests without an answer"},
		{name: "gateway", fault: sim.Fault{Kind: sim.Exception, Code: 11, From: 100, To: 1000}, err: "exception 11"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := sim.New(1)
			d := p.Add(1, ramp(1000))
			if c.setup != nil {
				c.setup(d)
			} else {
				p.Inject(c.fault)
			}
			s := newScanner(t, map[string]any{"address": serveTCP(t, p)}, c.opts)
			items, err := s.Registers(within(t), 1, Holding, 0, 1000, nil)
			if c.err == "" && (err != nil || !strings.Contains(items.Reason, c.reason)) {
				t.Errorf("%v, %q", err, items.Reason)
			}
			if c.err != "" && (err == nil || !strings.Contains(err.Error(), c.err) || !items.There[0]) {
				t.Errorf("%v, the first register is there: %v", err, items.There[0])
			}
		})
	}
	s := newScanner(t, map[string]any{"address": "127.0.0.1:1"}, ScanOptions{})
	if _, err := s.Registers(within(t), 1, Holding, 5, 5, nil); err == nil {
		t.Error("an empty range was accepted")
	}
}

// TestScanBusy waits for a unit that is busy.
func TestScanBusy(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(10))
	p.Inject(sim.Fault{Kind: sim.Exception, Code: 6, Times: 2})
	s := newScanner(t, map[string]any{"address": serveTCP(t, p)}, ScanOptions{})
	if items, err := s.Registers(within(t), 1, Holding, 0, 10, nil); err != nil || !items.There[9] || items.Asked != 3 {
		t.Errorf("%v %+v", err, items)
	}
}

// words lays values out as a device would.
func words(parts ...any) []uint16 {
	var out []uint16
	for _, p := range parts {
		switch x := p.(type) {
		case uint16:
			out = append(out, x)
		case int:
			out = append(out, uint16(x))
		case []uint16:
			out = append(out, x...)
		case string:
			for len(x)%2 == 1 {
				x += "\x00"
			}
			for i := 0; i < len(x); i += 2 {
				out = append(out, uint16(x[i])<<8|uint16(x[i+1]))
			}
		}
	}
	return out
}

func double(v uint32, order string) []uint16 {
	var b [4]byte
	mustOrder(order).store(b[:], 2, uint64(v))
	return []uint16{uint16(b[0])<<8 | uint16(b[1]), uint16(b[2])<<8 | uint16(b[3])}
}

func single(f float32, order string) []uint16 { return double(math.Float32bits(f), order) }

func allThere(w []uint16) *Items {
	there := make([]bool, len(w))
	for i := range there {
		there[i] = true
	}
	return &Items{Table: Holding, Words: w, There: there}
}

// TestGuesses lays out what real devices have in their registers and compares
// the likely readings.
func TestGuesses(t *testing.T) {
	meter := func(order string) []uint16 {
		return words(single(230.41873, order), single(229.9, order), single(231.07, order), single(0, order), single(49.98, order), single(1523.5, order), single(-0.97, order))
	}
	for _, c := range []struct {
		name  string
		words []uint16
		want  string // item:type/order, those that matter
	}{
		{"meter ABCD", meter("ABCD"), "0:float32/ABCD 2:float32/ABCD 4:float32/ABCD 6:float32/ABCD 8:float32/ABCD 10:float32/ABCD 12:float32/ABCD"},
		{"meter CDAB", meter("CDAB"), "0:float32/CDAB 2:float32/CDAB 4:float32/CDAB 6:float32/CDAB 8:float32/CDAB 10:float32/CDAB 12:float32/CDAB"},
		{"meter BADC", meter("BADC"), "0:float32/BADC 2:float32/BADC 4:float32/BADC 6:float32/BADC 8:float32/BADC 10:float32/BADC 12:float32/BADC"},
		{"meter DCBA", meter("DCBA"), "0:float32/DCBA 2:float32/DCBA 4:float32/DCBA 6:float32/DCBA 8:float32/DCBA 10:float32/DCBA 12:float32/DCBA"},
		{"small words", words(12, 345, 7, 9999, 1), "0:uint16/ABCD 1:uint16/ABCD 2:uint16/ABCD 3:uint16/ABCD 4:uint16/ABCD"},
		{"below zero", words(0xffec, 215), "0:int16/ABCD 1:uint16/ABCD"},
		{"counter", words(3, double(1234567, "ABCD")), "0:uint16/ABCD 1:uint32/ABCD"},
		{"counter, registers swapped", words(double(1234567, "CDAB")), "0:uint32/CDAB"},
		{"text", words(1, "HOLDFAST GATE 17", 0, 0, 500), "0:uint16/ABCD 1:string(20)/ 11:uint16/ABCD"},
		{"meter and words", words(meter("ABCD"), 345, 0xffec), "0:float32/ABCD 2:float32/ABCD 4:float32/ABCD 6:float32/ABCD 8:float32/ABCD 10:float32/ABCD 12:float32/ABCD 14:uint16/ABCD 15:int16/ABCD"},
		{"odd start", words(5, single(230.5, "ABCD"), single(231.5, "ABCD")), "0:uint16/ABCD 1:float32/ABCD 3:float32/ABCD"},
	} {
		guesses := Interpret(allThere(c.words))
		if len(guesses) != len(c.words) {
			t.Fatalf("%s: %d guesses for %d registers", c.name, len(guesses), len(c.words))
		}
		var got []string
		for _, g := range guesses {
			if g.Likely != nil {
				got = append(got, strings.Join([]string{itoa(g.Item), ":", g.Likely.Type, "/", g.Likely.Order}, ""))
			}
		}
		if text := strings.Join(got, " "); text != c.want {
			t.Errorf("%s:\ngot  %s\nwant %s", c.name, text, c.want)
		}
	}
}

// TestGuessesAgreeWithCodec reads what Interpret shows back through the codec of
// the adapter.
func TestGuessesAgreeWithCodec(t *testing.T) {
	w := words(single(230.5, "CDAB"), 0xfff0, 7)
	g := Interpret(allThere(w))
	if len(g[0].Double) != 12 || len(g[3].Double) != 0 {
		t.Fatalf("%d and %d readings of two registers", len(g[0].Double), len(g[3].Double))
	}
	values := map[string]string{}
	for _, r := range g[0].Double {
		values[r.Type+" "+r.Order] = r.Value
	}
	for key, want := range map[string]string{"float32 CDAB": "230.5", "int32 CDAB": "1130790912", "uint32 ABCD": "2147500902"} {
		if values[key] != want {
			t.Errorf("%s is %s, want %s", key, values[key], want)
		}
	}
	if r := g[2].Single[0]; r.Type != "int16" || r.Value != "-16" {
		t.Errorf("single: %+v", r)
	}
	// What is not there divides: no value reaches over it.
	items := allThere(w)
	items.There[1] = false
	if g := Interpret(items); len(g) != 3 || g[0].Item != 0 || g[1].Item != 2 || g[0].Double != nil {
		t.Errorf("over a hole: %+v", g)
	}
}

// FuzzInterpret checks that readings cover every register once whatever stands in
// them.
func FuzzInterpret(f *testing.F) {
	f.Add([]byte("HOLDFAST GATEWAY"), uint16(3))
	f.Add([]byte{0x43, 0x66, 0, 0, 0xff, 0xff, 0, 1}, uint16(0))
	f.Fuzz(func(t *testing.T, data []byte, holes uint16) {
		items := &Items{Table: Holding}
		for i := 0; i+1 < len(data) && i < 800; i += 2 {
			items.Words = append(items.Words, uint16(data[i])<<8|uint16(data[i+1]))
			items.There = append(items.There, holes == 0 || i%int(holes) != 0)
		}
		next := 0
		for _, g := range Interpret(items) {
			if !items.There[g.Item] {
				t.Fatalf("item %d is not there", g.Item)
			}
			if g.Likely == nil {
				if g.Item >= next {
					t.Fatalf("item %d belongs to nothing", g.Item)
				}
				continue
			}
			if g.Item < next {
				t.Fatalf("item %d belongs to two", g.Item)
			}
			typ, err := lookupType(g.Likely.Type)
			if err != nil {
				t.Fatal(err)
			}
			for k := range typ.words {
				if !items.There[g.Item+k] {
					t.Fatalf("%s at %d reaches over a hole", g.Likely.Type, g.Item)
				}
			}
			next = g.Item + typ.words
			for _, r := range slices.Concat(g.Single, g.Double) {
				if r.Score < 0 || r.Score > 100 {
					t.Fatalf("score %d", r.Score)
				}
			}
		}
	})
}
