package payload

import (
	"errors"
	"math"
	"reflect"
	"testing"
)

func TestScalarRoundTrip(t *testing.T) {
	for _, c := range []struct {
		d    Datatype
		v    Value
		want Scalar
	}{
		{Int8, IntValue(-23), Scalar{Field: IntField, Bits: 0xffffffe9}},
		{Int16, IntValue(math.MinInt16), Scalar{Field: IntField, Bits: 0xffff8000}},
		{Int32, IntValue(math.MinInt32), Scalar{Field: IntField, Bits: 0x80000000}},
		{Int64, IntValue(-1), Scalar{Field: LongField, Bits: math.MaxUint64}},
		{UInt8, IntValue(255), Scalar{Field: IntField, Bits: 255}},
		{UInt16, IntValue(65535), Scalar{Field: IntField, Bits: 65535}},
		{UInt32, IntValue(math.MaxUint32), Scalar{Field: IntField, Bits: math.MaxUint32}},
		{UInt64, UintValue(math.MaxUint64), Scalar{Field: LongField, Bits: math.MaxUint64}},
		{DateTime, IntValue(1486144502122), Scalar{Field: LongField, Bits: 1486144502122}},
		{Float, FloatValue(1.5), Scalar{Field: FloatField, Bits: 0x3fc00000}},
		{Double, DoubleValue(-2), Scalar{Field: DoubleField, Bits: 0xc000000000000000}},
		{Boolean, BoolValue(true), Scalar{Field: BoolField, Bits: 1}},
		{String, StringValue("°C"), Scalar{Field: StringField, Raw: []byte("°C")}},
		{Bytes, BytesValue([]byte{0, 255}), Scalar{Field: BytesField, Raw: []byte{0, 255}}},
		{Double, Value{}, Scalar{}},
	} {
		s, err := Encode(c.d, c.v)
		if err != nil || !reflect.DeepEqual(s, c.want) {
			t.Errorf("%v as %d: %+v, %v, want %+v", c.v, c.d, s, err, c.want)
		}
		if back, err := s.Decode(c.d); err != nil || !back.Equal(c.v) {
			t.Errorf("%v as %d came back as %v, %v", c.v, c.d, back, err)
		}
	}
}

func TestMisfits(t *testing.T) {
	for _, c := range []struct {
		d Datatype
		v Value
	}{
		{Int8, IntValue(128)}, {Int8, IntValue(-129)}, {UInt8, IntValue(-1)}, {UInt16, IntValue(65536)},
		{UInt32, IntValue(1 << 32)}, {Int64, UintValue(1 << 63)}, {UInt64, IntValue(-1)}, {DateTime, IntValue(-1)},
		{Int32, DoubleValue(1)}, {Boolean, IntValue(1)}, {Double, StringValue("1")}, {String, BytesValue([]byte("x"))},
		{DataSet, IntValue(1)}, {Unknown, IntValue(1)},
	} {
		if s, err := Encode(c.d, c.v); !errors.Is(err, ErrType) {
			t.Errorf("%v as %d: %+v, %v", c.v, c.d, s, err)
		}
	}
}

// TestForeignIntegers has what other implementations write.
func TestForeignIntegers(t *testing.T) {
	for _, c := range []struct {
		d    Datatype
		s    Scalar
		want Value
		bad  bool
	}{
		{d: Int8, s: Scalar{Field: IntField, Bits: 0xe9}, want: IntValue(-23)},
		{d: Int16, s: Scalar{Field: IntField, Bits: 0x8ad0}, want: IntValue(-30000)},
		{d: UInt32, s: Scalar{Field: LongField, Bits: 1 << 31}, want: IntValue(1 << 31)},
		{d: Int32, s: Scalar{Field: LongField, Bits: 1<<64 - 5}, want: IntValue(-5)},
		{d: Int64, s: Scalar{Field: IntField, Bits: 7}, want: IntValue(7)},
		{d: Double, s: Scalar{Field: IntField, Bits: 0xffffffff}, want: DoubleValue(-1)},
		{d: Double, s: Scalar{Field: FloatField, Bits: 0x3fc00000}, want: FloatValue(1.5)},
		{d: UInt8, s: Scalar{Field: IntField, Bits: 256}, bad: true},
		{d: Int8, s: Scalar{Field: IntField, Bits: 256}, bad: true},
		{d: Int16, s: Scalar{Field: LongField, Bits: 1 << 20}, bad: true},
		{d: Boolean, s: Scalar{Field: IntField, Bits: 1}, bad: true},
		{d: String, s: Scalar{Field: StringField, Raw: []byte{0xff}}, bad: true},
		{d: Template, s: Scalar{Field: OtherField}, bad: true},
	} {
		v, err := c.s.Decode(c.d)
		if c.bad != (err != nil) || !v.Equal(c.want) {
			t.Errorf("%+v as %d: %v, %v, want %v", c.s, c.d, v, err, c.want)
		}
	}
}

// TestJoin checks that a datatype that was widened holds what made it so, holds
// its earlier values still, and that widening ends.
func TestJoin(t *testing.T) {
	values := []Value{
		BoolValue(true), IntValue(1), IntValue(-1), IntValue(1 << 40), UintValue(math.MaxUint64), FloatValue(1.5),
		DoubleValue(0.1), StringValue("text"), BytesValue([]byte{1}),
	}
	var try func(d Datatype, depth int, held []Value)
	try = func(d Datatype, depth int, held []Value) {
		for _, v := range held {
			if _, err := Encode(d, v); err != nil {
				t.Fatalf("datatype %d, after %v: %v", d, held, err)
			}
		}
		if depth == 0 {
			return
		}
		for _, v := range values {
			next := d.Join(v)
			if back := next.Join(v); back != next {
				t.Fatalf("%v joined with %d is %d and then %d", v, d, next, back)
			}
			try(next, depth-1, append(held[:len(held):len(held)], v))
		}
	}
	try(Unknown, 4, nil)
	for d := Int8; d <= String; d++ {
		try(d, 3, nil)
	}
	if Double.Join(Value{}) != Double || Unknown.Join(Value{}) != Unknown {
		t.Error("null changed a datatype")
	}
}

func example() *Payload {
	return &Payload{
		Timestamp: 1486144502122, HasTimestamp: true, Seq: 255, HasSeq: true, UUID: "u", Body: []byte{1},
		Metrics: []Metric{
			{Name: "a/b", Alias: 0, HasAlias: true, Timestamp: 5, HasTimestamp: true, Datatype: Int8, Scalar: Scalar{Field: IntField, Bits: 0xffffffff}},
			{Alias: 300, HasAlias: true, Historical: true, Transient: true, Null: true},
			{Name: "p", Datatype: String, Scalar: Scalar{Field: StringField, Raw: make([]byte, 300)}, Properties: []Property{
				Int32Property("Quality", 192), Int64Property("l", -1), BoolProperty("b", true),
				StringProperty("engUnit", "bar"), {Key: "n", Datatype: String, Null: true},
			}},
		},
	}
}

func TestPayloadRoundTrip(t *testing.T) {
	want := example()
	var got Payload
	if err := Decode(Append(nil, want), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v\nwant %+v", &got, want)
	}
}

// TestWireBytes holds the bytes that the schema's numbers make.
func TestWireBytes(t *testing.T) {
	m := Metric{Name: "x", Alias: 1, HasAlias: true, Datatype: Boolean, Scalar: Scalar{Field: BoolField, Bits: 1}}
	got := AppendSeq(AppendMetric(AppendTimestamp(nil, 2), &m), 3)
	want := []byte{
		0x08, 2, // timestamp
		0x12, 9, // metric
		0x0a, 1, 'x', 0x10, 1, 0x20, 11, 0x70, 1, // name, alias, datatype, boolean_value
		0x18, 3, // seq
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("% x\n% x", got, want)
	}
}

func TestMalformed(t *testing.T) {
	for name, data := range map[string][]byte{
		"cut tag":               {0x80},
		"cut length":            {0x12, 5, 0},
		"timestamp as bytes":    {0x0a, 1, 1},
		"metric as varint":      {0x10, 1},
		"name not text":         {0x12, 3, 0x0a, 1, 0xff},
		"float of wrong size":   {0x12, 9, 0x61, 1, 2, 3, 4, 5, 6, 7, 8},
		"keys without values":   {0x12, 5, 0x4a, 3, 0x0a, 1, 'k'},
		"datatype of 33 bits":   {0x12, 6, 0x20, 0x80, 0x80, 0x80, 0x80, 0x10},
		"group without its end": {0x13},
	} {
		var p Payload
		if err := Decode(data, &p); err == nil {
			t.Errorf("%s was read as %+v", name, p)
		}
	}
	var many []byte
	for range MaxMetrics + 1 {
		many = append(many, 0x12, 0)
	}
	var p Payload
	if err := Decode(many[2:], &p); err != nil {
		t.Error(err)
	}
	if err := Decode(many, &p); err == nil {
		t.Error("took too many metrics")
	}
}

func TestOthersArePassedOver(t *testing.T) {
	data := []byte{
		0x12, 9, 0x8a, 1, 1, 8, // a metric with a data set
		0xa0, 1, 5, // a field that nobody knows
		0x42, 0, // file metadata
	}
	var p Payload
	if err := Decode(data, &p); err != nil {
		t.Fatal(err)
	}
	if len(p.Metrics) != 1 || p.Metrics[0].Scalar.Field != OtherField {
		t.Errorf("%+v", p)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Append(nil, example()))
	f.Add([]byte{0x12, 5, 0x4a, 3, 0x0a, 1, 'k'})
	f.Fuzz(func(t *testing.T, data []byte) {
		var p, again Payload
		if Decode(data, &p) != nil {
			return
		}
		for i := range p.Metrics {
			m := &p.Metrics[i]
			for d := Unknown; d <= lastArray; d++ {
				v, err := m.Scalar.Decode(d)
				if err != nil || v.Kind() == NullKind || d >= firstArray {
					continue
				}
				if s, err := Encode(d, v); err != nil {
					t.Fatalf("%v was read as datatype %d and cannot be written: %v", v, d, err)
				} else if w, err := s.Decode(d); err != nil || !sameNumber(w, v) {
					t.Fatalf("%v as %d came back as %v, %v", v, d, w, err)
				}
			}
		}
		first := Append(nil, &p)
		if err := Decode(first, &again); err != nil {
			t.Fatalf("what was read cannot be read again: %v", err)
		}
		if second := Append(nil, &again); string(first) != string(second) {
			t.Fatalf("% x\n% x", first, second)
		}
	})
}

// sameNumber compares as numbers what changed between single and double.
func sameNumber(v, w Value) bool {
	a, ok1 := v.Double()
	b, ok2 := w.Double()
	if ok1 && ok2 {
		return a == b || float32(a) == float32(b) || math.IsNaN(a) && math.IsNaN(b)
	}
	return v.Equal(w)
}
