package modbus

import (
	"encoding/hex"
	"errors"
	"math"
	"testing"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols/point"
)

func compiled(t *testing.T, address, typ, order string) field {
	t.Helper()
	tg := point.Tag{Name: "t", Address: address, Type: typ, Access: point.ReadWrite}
	if order != "" {
		tg.Params = point.Params{"order": order}
	}
	s, err := parseSettings(map[string]any{"address": "h"})
	if err != nil {
		t.Fatal(err)
	}
	f, err := compile(tg, s)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// The bytes of these rows are written out from the definition of the orders, A
// the most significant byte; pi and e are the textbook encodings of IEEE 754.
func TestNumbersInEveryOrder(t *testing.T) {
	pi32, pi64 := point.Float32Value(math.Pi), point.FloatValue(math.Pi)
	tests := []struct {
		typ, order, wire string
		value            point.Value
	}{
		{"uint16", "", "1234", point.IntValue(0x1234)},
		{"uint16", "BA", "3412", point.IntValue(0x1234)},
		{"uint16", "CDAB", "1234", point.IntValue(0x1234)},
		{"uint16", "DCBA", "3412", point.IntValue(0x1234)},
		{"int16", "", "fffe", point.IntValue(-2)},
		{"int16", "BA", "feff", point.IntValue(-2)},
		{"uint32", "ABCD", "01020304", point.IntValue(0x01020304)},
		{"uint32", "DCBA", "04030201", point.IntValue(0x01020304)},
		{"uint32", "BADC", "02010403", point.IntValue(0x01020304)},
		{"uint32", "CDAB", "03040102", point.IntValue(0x01020304)},
		{"int32", "CDAB", "fffeffff", point.IntValue(-2)},
		{"uint32", "", "ffffffff", point.IntValue(math.MaxUint32)},
		{"float32", "ABCD", "40490fdb", pi32},
		{"float32", "DCBA", "db0f4940", pi32},
		{"float32", "BADC", "4940db0f", pi32},
		{"float32", "CDAB", "0fdb4049", pi32},
		{"uint64", "ABCD", "0102030405060708", point.IntValue(0x0102030405060708)},
		{"uint64", "DCBA", "0807060504030201", point.IntValue(0x0102030405060708)},
		{"uint64", "BADC", "0201040306050807", point.IntValue(0x0102030405060708)},
		{"uint64", "CDAB", "0708050603040102", point.IntValue(0x0102030405060708)},
		{"uint64", "GHEFCDAB", "0708050603040102", point.IntValue(0x0102030405060708)},
		{"uint64", "HGFEDCBA", "0807060504030201", point.IntValue(0x0102030405060708)},
		{"uint64", "BADCFEHG", "0201040306050807", point.IntValue(0x0102030405060708)},
		{"uint64", "", "ffffffffffffffff", point.UintValue(math.MaxUint64)},
		{"int64", "", "ffffffffffffffff", point.IntValue(-1)},
		{"float64", "ABCDEFGH", "400921fb54442d18", pi64},
		{"float64", "GHEFCDAB", "2d185444" + "21fb4009", pi64},
		{"float64", "HGFEDCBA", "182d4454fb210940", pi64},
		{"float64", "BADCFEHG", "0940fb2144541" + "82d", pi64},
		{"float16", "", "3c00", point.Float32Value(1)},
		{"float16", "", "c000", point.Float32Value(-2)},
		{"float16", "", "7bff", point.Float32Value(65504)},
		{"float16", "", "0001", point.Float32Value(1.0 / (1 << 24))},
		{"float16", "", "3555", point.Float32Value(0.333251953125)},
		{"float16", "BA", "007c", point.Float32Value(float32(math.Inf(1)))},
		{"bcd16", "", "1234", point.IntValue(1234)},
		{"bcd32", "", "12345678", point.IntValue(12345678)},
		{"bcd32", "CDAB", "56781234", point.IntValue(12345678)},
	}
	for _, tt := range tests {
		f := compiled(t, "holding:0", tt.typ, tt.order)
		raw, err := hex.DecodeString(tt.wire)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := f.decodeNumber(raw); err != nil || !got.Equal(tt.value) {
			t.Errorf("%s %s: %s decodes to %v, %v, want %v", tt.typ, tt.order, tt.wire, got, err, tt.value)
		}
		back := make([]byte, len(raw))
		if err := f.encode(tt.value, back); err != nil || hex.EncodeToString(back) != tt.wire {
			t.Errorf("%s %s: %v encodes to %x, %v, want %s", tt.typ, tt.order, tt.value, back, err, tt.wire)
		}
	}
}

func TestPartsOfARegister(t *testing.T) {
	tests := []struct {
		address, typ, order, wire string
		value                     point.Value
	}{
		{"holding:0.0", "", "", "0001", point.BoolValue(true)},
		{"holding:0.15", "", "", "8000", point.BoolValue(true)},
		{"holding:0.8", "", "", "feff", point.BoolValue(false)},
		{"holding:0.0", "", "BA", "0100", point.BoolValue(true)},
		{"holding:0", "uint8h", "", "f012", point.IntValue(0xf0)},
		{"holding:0", "uint8l", "", "12f0", point.IntValue(0xf0)},
		{"holding:0", "int8h", "", "f012", point.IntValue(-16)},
		{"holding:0", "int8l", "", "12f0", point.IntValue(-16)},
	}
	for _, tt := range tests {
		f := compiled(t, tt.address, tt.typ, tt.order)
		raw, _ := hex.DecodeString(tt.wire)
		if got, err := f.decodeNumber(raw); err != nil || !got.Equal(tt.value) {
			t.Errorf("%s %s: %s decodes to %v, %v", tt.address, tt.typ, tt.wire, got, err)
		}
	}
}

func TestText(t *testing.T) {
	tests := []struct {
		typ, order, wire string
		value            point.Value
	}{
		{"string(4)", "", "41424344", point.StringValue("ABCD")},
		{"string(4)", "BA", "42414443", point.StringValue("ABCD")},
		{"string(3)", "BA", "42410043", point.StringValue("ABC")},
		{"string(6)", "", "414200000000", point.StringValue("AB")},
		{"bytes(3)", "", "01020300", point.BytesValue([]byte{1, 2, 3})},
		{"bytes(4)", "BA", "02010403", point.BytesValue([]byte{1, 2, 3, 4})},
	}
	for _, tt := range tests {
		f := compiled(t, "holding:0", tt.typ, tt.order)
		raw, _ := hex.DecodeString(tt.wire)
		if got := f.decodeText(raw); !got.Equal(tt.value) {
			t.Errorf("%s %s: %s decodes to %q", tt.typ, tt.order, tt.wire, got.Raw())
		}
		back := make([]byte, len(raw))
		if err := f.encode(tt.value, back); err != nil || hex.EncodeToString(back) != tt.wire {
			t.Errorf("%s %s: encodes to %x, %v, want %s", tt.typ, tt.order, back, err, tt.wire)
		}
	}
	f := compiled(t, "holding:0", "string(4)", "")
	if got := f.decodeText([]byte{'a', 0xff, 'b', 0}); got.Text() != "a\uFFFDb" {
		t.Errorf("not UTF-8: %q", got.Text())
	}
}

func TestValuesThatDoNotFit(t *testing.T) {
	tests := []struct {
		typ   string
		value point.Value
		want  error
	}{
		{"int16", point.IntValue(32768), errRange},
		{"int16", point.IntValue(-32769), errRange},
		{"uint16", point.IntValue(-1), errRange},
		{"uint16", point.FloatValue(1.5), errRange},
		{"uint16", point.FloatValue(math.NaN()), errRange},
		{"uint16", point.FloatValue(3), nil},
		{"uint16", point.StringValue("3"), errType},
		{"int64", point.FloatValue(1e19), errRange},
		{"int64", point.UintValue(1 << 63), errRange},
		{"uint64", point.IntValue(-1), errRange},
		{"uint64", point.FloatValue(1e19), nil},
		{"uint64", point.FloatValue(1e20), errRange},
		{"int8h", point.IntValue(128), errRange},
		{"uint8l", point.IntValue(256), errRange},
		{"bcd16", point.IntValue(10000), errRange},
		{"bcd32", point.IntValue(-1), errRange},
		{"float32", point.FloatValue(1e39), errRange},
		{"float32", point.FloatValue(math.Inf(1)), nil},
		{"float32", point.BoolValue(true), errType},
		{"float16", point.FloatValue(65520), errRange},
		{"float16", point.FloatValue(65519), nil},
		{"string(2)", point.StringValue("abc"), errRange},
		{"string(2)", point.IntValue(1), errType},
	}
	for _, tt := range tests {
		f := compiled(t, "holding:0", tt.typ, "")
		err := f.encode(tt.value, make([]byte, 2*f.typ.words))
		if !errors.Is(err, tt.want) {
			t.Errorf("%s: %v: %v, want %v", tt.typ, tt.value, err, tt.want)
		}
	}
	f := compiled(t, "holding:0", "bcd16", "")
	if _, err := f.decodeNumber([]byte{0x12, 0x3a}); !errors.Is(err, errBCD) {
		t.Errorf("digit ten: %v", err)
	}
}

// TestHalfFloats turns every binary16 into a binary32 and back, and compares the
// rounding of others with the nearest of all halves.
func TestHalfFloats(t *testing.T) {
	for h := range 1 << 16 {
		f := halfToSingle(uint16(h))
		if f != f {
			if back := singleToHalf(f); back&0x7c00 != 0x7c00 || back&0x3ff == 0 {
				t.Fatalf("NaN %#04x becomes %#04x", h, back)
			}
			continue
		}
		if back := singleToHalf(f); back != uint16(h) {
			t.Fatalf("%#04x becomes %g becomes %#04x", h, f, back)
		}
		// The middle between two neighbours goes to the even one.
		if h&0x7fff < 0x7bff {
			next := halfToSingle(uint16(h) + 1)
			even := uint16(h) + uint16(h&1)
			if got := singleToHalf((f + next) / 2); got != even {
				t.Fatalf("middle of %#04x and the next becomes %#04x, want %#04x", h, got, even)
			}
		}
	}
}

func TestParseAddress(t *testing.T) {
	tests := []struct{ text, want string }{
		{"holding:100", "holding:100"}, {"HR:100", "holding:100"}, {"ir:0x1F", "input:31"},
		{"coil:65535", "coil:65535"}, {"di:0", "discrete:0"}, {"holding:7.15", "holding:7.15"},
		{"40001", "holding:0"}, {"400001", "holding:0"}, {"465536", "holding:65535"}, {"49999", "holding:9998"},
		{"30010", "input:9"}, {"000001", "coil:0"}, {"00008", "coil:7"}, {"10001", "discrete:0"},
		{" 40101.3 ", "holding:100.3"},
	}
	for _, tt := range tests {
		a, err := ParseAddress(tt.text)
		if err != nil || a.String() != tt.want {
			t.Errorf("%q: %v, %v, want %s", tt.text, a, err, tt.want)
		}
	}
	bad := []struct{ text, hint string }{
		{"", "empty"}, {"100", "five or six digits"}, {"holdng:1", `did you mean "holding"`}, {"holding:65536", "0 to 65535"},
		{"holding:-1", "0 to 65535"}, {"holding:+1", "0 to 65535"}, {"holding:0x", "0 to 65535"}, {"holding:", "0 to 65535"},
		{"holding:1.16", "0 to 15"}, {"holding:1.", "0 to 15"}, {"holding:1.+1", "0 to 15"}, {"coil:1.3", "has no bit"},
		{"50001", "begins with none"}, {"40000", "1 to 65536"}, {"465537", "1 to 65536"}, {"4000a", "not a number"},
	}
	for _, tt := range bad {
		if a, err := ParseAddress(tt.text); err == nil || !contains(err, tt.hint) {
			t.Errorf("%q: %v, %v, want an error with %q", tt.text, a, err, tt.hint)
		}
	}
	if n := (Address{Holding, 100, 3}).Number(); n != "400101.3" {
		t.Errorf("number: %s", n)
	}
}

// TestScaledValuesAreRounded: an engineering value seldom lies on the grid of an
// integer register. The nearest raw value is written; a value that is given as it is
// to be written still has to be whole.
func TestScaledValuesAreRounded(t *testing.T) {
	scale := point.Scale{Kind: point.Factor, Factor: 0.1}
	tests := []struct {
		typ   string
		scale point.Scale
		eng   float64
		want  point.Value
	}{
		{"int16", scale, 20.04, point.IntValue(200)},
		{"int16", scale, 20.06, point.IntValue(201)},
		{"int16", scale, -20.06, point.IntValue(-201)},
		{"uint16", scale, 0.05, point.IntValue(1)},
		{"uint64", scale, 1e17 + 0.123, point.IntValue(1e18)},
		{"bcd16", scale, 12.34, point.IntValue(123)},
		{"uint8l", point.Scale{Kind: point.Linear, RawHigh: 255, EngHigh: 100}, 50, point.IntValue(128)},
		{"float32", scale, 20.04, point.Float32Value(float32(20.04 / 0.1))},
	}
	for _, tt := range tests {
		f := compiled(t, "holding:0", tt.typ, "")
		raw, err := tt.scale.Invert(point.FloatValue(tt.eng))
		if err != nil {
			t.Fatal(err)
		}
		into := make([]byte, 2*f.typ.words)
		if err := f.encode(f.nearest(raw, tt.scale), into); err != nil {
			t.Errorf("%s: %g: %v", tt.typ, tt.eng, err)
			continue
		}
		if got, err := f.decodeNumber(into); err != nil || !got.Equal(tt.want) {
			t.Errorf("%s: %g is written as %v, %v; want %v", tt.typ, tt.eng, got, err, tt.want)
		}
	}
	f := compiled(t, "holding:0", "int16", "")
	if err := f.encode(f.nearest(point.FloatValue(1.5), point.Scale{}), make([]byte, 2)); !errors.Is(err, errRange) {
		t.Errorf("1.5 without a scale: %v, want errRange", err)
	}
	if err := f.encode(f.nearest(point.FloatValue(32767.5), scale), make([]byte, 2)); !errors.Is(err, errRange) {
		t.Errorf("32767.5 rounds out of the range: %v, want errRange", err)
	}
}

// TestScaledWriteReachesTheDevice sends one.
func TestScaledWriteReachesTheDevice(t *testing.T) {
	p := sim.New(1)
	dev := p.Add(1, ramp(1000))
	overEach(t, p, func(t *testing.T, set map[string]any) {
		tg := tag("a", "holding:20", "int16")
		tg.Scale = point.Scale{Kind: point.Factor, Factor: 0.1}
		s := open(t, newAdapter(t), set)
		if err := write(t, s, tg, point.FloatValue(200.4)); err != nil {
			t.Fatal(err)
		}
		if got := dev.Get(sim.Holding, 20, 1)[0]; got != 200 {
			t.Errorf("the register holds %d, want 200", got)
		}
	})
}
