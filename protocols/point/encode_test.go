package point

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock"
)

var update = flag.Bool("update", false, "write the golden files anew")

var t0 = time.UnixMicro(1_760_000_000_123_456).UTC()

// vectors are the golden batches: testdata/<name>.json holds the bytes, and
// testdata/<name>.txt what they mean, field by field, for readers in other
// languages.
var vectors = map[string]Batch{
	"minimal": {Device: "press7", Time: t0},
	"typical": {
		Device: "press7", Sequence: 42, Boot: 0x9f3c00aa12345678, Time: t0,
		Readings: []Reading{
			{Tag: "temp", Value: FloatValue(21.5), Receive: t0},
			{Tag: "count", Value: IntValue(1234567), Receive: t0},
			{Tag: "running", Value: BoolValue(true), Receive: t0},
			{Tag: "x", Quality: BadNoCommunication, Detail: "dial tcp 10.0.0.7:502: no route to host", Receive: t0},
		},
	},
	"times": {
		Device: "press7", Sequence: 43, Boot: 1, Time: t0, Clock: clock.Unsynced, Dropped: 17,
		Readings: []Reading{
			{Tag: "own time", Value: IntValue(1), Receive: t0.Add(-time.Second)},
			{Tag: "source", Value: IntValue(2), Source: t0.Add(-1500 * time.Microsecond), Receive: t0},
			{Tag: "before 1970", Value: IntValue(3), Source: time.UnixMicro(-1).UTC(), Receive: t0},
		},
	},
	"values": {
		Device: "kinds", Sequence: math.MaxUint64, Boot: math.MaxUint64, Time: t0, Clock: clock.Stepped,
		Readings: []Reading{
			{Tag: "null", Receive: t0},
			{Tag: "false", Value: BoolValue(false), Receive: t0},
			{Tag: "int min", Value: IntValue(math.MinInt64), Receive: t0},
			{Tag: "int max", Value: IntValue(math.MaxInt64), Receive: t0},
			{Tag: "uint max", Value: UintValue(math.MaxUint64), Receive: t0},
			{Tag: "float whole", Value: FloatValue(1), Receive: t0},
			{Tag: "float zero", Value: FloatValue(0), Receive: t0},
			{Tag: "float minus zero", Value: FloatValue(math.Copysign(0, -1)), Receive: t0},
			{Tag: "float tenth", Value: FloatValue(0.1), Receive: t0},
			{Tag: "float sum", Value: FloatValue(0.1 + float64(len("xx"))/10), Receive: t0},
			{Tag: "float big", Value: FloatValue(1e21), Receive: t0},
			{Tag: "float max", Value: FloatValue(math.MaxFloat64), Receive: t0},
			{Tag: "float least", Value: FloatValue(math.SmallestNonzeroFloat64), Receive: t0},
			{Tag: "nan", Value: FloatValue(math.NaN()), Receive: t0},
			{Tag: "inf", Value: FloatValue(math.Inf(1)), Receive: t0},
			{Tag: "minus inf", Value: FloatValue(math.Inf(-1)), Receive: t0},
			{Tag: "text", Value: StringValue("a \"quoted\" \\ line\n\x01 ümlaut 日本 🏭"), Receive: t0},
			{Tag: "empty text", Value: StringValue(""), Receive: t0},
			{Tag: "bytes", Value: BytesValue([]byte{0, 1, 254, 255}), Receive: t0},
			{Tag: "empty bytes", Value: BytesValue([]byte{}), Receive: t0},
		},
	},
	"qualities": {
		Device: "q", Sequence: 1, Time: t0,
		Readings: []Reading{
			{Tag: "clamped", Value: FloatValue(100), Quality: GoodClamped, Receive: t0},
			{Tag: "old", Value: FloatValue(99.25), Quality: UncertainLastUsableValue, Receive: t0},
			{Tag: "low word", Quality: 0x80310480, Receive: t0},
			{Tag: "unknown", Quality: 0x80FE0000, Detail: "code of a newer server", Receive: t0},
		},
	},
}

func describe(b *Batch) string {
	var s strings.Builder
	fmt.Fprintf(&s, "device=%s seq=%d boot=%d time=%d clock=%s dropped=%d\n",
		b.Device, b.Sequence, b.Boot, b.Time.UnixMicro(), b.Clock, b.Dropped)
	for _, r := range b.Readings {
		source := "none"
		if !r.Source.IsZero() {
			source = fmt.Sprint(r.Source.UnixMicro())
		}
		fmt.Fprintf(&s, "tag=%q kind=%s value=%s quality=%08X source=%s time=%d detail=%q\n",
			r.Tag, r.Value.Kind(), r.Value, uint32(r.Quality), source, r.Receive.UnixMicro(), r.Detail)
	}
	return s.String()
}

func TestGoldenVectors(t *testing.T) {
	for name, b := range vectors {
		t.Run(name, func(t *testing.T) {
			got := AppendBatch(nil, &b)
			if !json.Valid(got) {
				t.Fatalf("not JSON: %s", got)
			}
			var back Batch
			if err := DecodeBatch(got, &back); err != nil {
				t.Fatal(err)
			}
			if !sameBatch(&back, &b) {
				t.Errorf("came back as\n%s\nwant\n%s", describe(&back), describe(&b))
			}
			golden(t, name+".json", append(got, '\n'))
			golden(t, name+".txt", []byte(describe(&back)))
		})
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != string(want) {
		t.Errorf("%s is\n%s\nwant\n%s", name, got, want)
	}
}

func sameBatch(a, b *Batch) bool {
	if a.Device != b.Device || a.Sequence != b.Sequence || a.Boot != b.Boot || !a.Time.Equal(b.Time) ||
		a.Clock != b.Clock || a.Dropped != b.Dropped || len(a.Readings) != len(b.Readings) {
		return false
	}
	for i := range a.Readings {
		x, y := a.Readings[i], b.Readings[i]
		if x.Tag != y.Tag || !x.Value.Equal(y.Value) || x.Quality != y.Quality ||
			!x.Source.Equal(y.Source) || !x.Receive.Equal(y.Receive) || x.Detail != y.Detail {
			return false
		}
	}
	return true
}

// randomBatch draws a batch of any shape that the encoding carries whole.
func randomBatch(rng *rand.Rand) Batch {
	text := func(n int) string {
		runes := []rune("aZ0 \"\\\n\t\x00\x1f/é日🏭\u2028<&")
		out := make([]rune, rng.IntN(n))
		for i := range out {
			out[i] = runes[rng.IntN(len(runes))]
		}
		return string(out)
	}
	when := func() time.Time { return time.UnixMicro(minMicros + rng.Int64N(maxMicros-minMicros)).UTC() }
	b := Batch{
		Device: text(10), Sequence: rng.Uint64(), Boot: rng.Uint64(), Time: when(),
		Clock: clock.Quality(rng.IntN(3)), Dropped: uint64(rng.IntN(3)), Readings: []Reading{},
	}
	for range rng.IntN(20) {
		r := Reading{Tag: text(12), Receive: b.Time}
		switch rng.IntN(8) {
		case 0:
			r.Value = BoolValue(rng.IntN(2) == 0)
		case 1:
			r.Value = IntValue(int64(rng.Uint64()) >> rng.IntN(64))
		case 2:
			r.Value = UintValue(rng.Uint64())
		case 3, 4:
			f := math.Float64frombits(rng.Uint64())
			if f != f {
				f = math.NaN()
			}
			r.Value = FloatValue(f)
		case 5:
			r.Value = FloatValue(float64(rng.IntN(2e9)-1e9) / math.Pow10(rng.IntN(8)))
		case 6:
			r.Value = StringValue(text(30))
		case 7:
			raw := make([]byte, rng.IntN(20))
			for i := range raw {
				raw[i] = byte(rng.Uint32())
			}
			r.Value = BytesValue(raw)
		}
		if rng.IntN(3) == 0 {
			r.Quality = Quality(rng.Uint32())
			r.Detail = text(20)
		}
		if rng.IntN(3) == 0 {
			r.Receive = when()
		}
		if rng.IntN(3) == 0 {
			r.Source = when()
		}
		b.Readings = append(b.Readings, r)
	}
	return b
}

func TestRandomBatchesComeBack(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	var back Batch
	for i := range 20_000 {
		b := randomBatch(rng)
		data := AppendBatch(nil, &b)
		if err := DecodeBatch(data, &back); err != nil {
			t.Fatalf("batch %d: %v\n%s", i, err, data)
		}
		if !sameBatch(&b, &back) {
			t.Fatalf("batch %d came back as\n%s\nwant\n%s", i, describe(&back), describe(&b))
		}
	}
}

// TestEncodingIsJSON compares the hand-written encoder with encoding/json as a
// reader that knows nothing of it.
func TestEncodingIsJSON(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 7))
	for range 2000 {
		b := randomBatch(rng)
		var doc struct {
			Device   string
			Seq      uint64
			Readings []struct {
				Tag    string
				Value  any
				Detail string
			}
		}
		if err := json.Unmarshal(AppendBatch(nil, &b), &doc); err != nil {
			t.Fatal(err)
		}
		if doc.Device != b.Device || doc.Seq != b.Sequence || len(doc.Readings) != len(b.Readings) {
			t.Fatalf("encoding/json reads %+v", doc)
		}
		for i, r := range b.Readings {
			got := doc.Readings[i]
			if got.Tag != r.Tag || got.Detail != r.Detail {
				t.Fatalf("reading %d: %+v, want %+v", i, got, r)
			}
			if f, ok := r.Value.Float(); ok && r.Value.Kind() != Bool && f == f && !math.IsInf(f, 0) && got.Value != f {
				t.Fatalf("reading %d: %v, want %v", i, got.Value, f)
			}
			if r.Value.Kind() == String && got.Value != r.Value.Text() {
				t.Fatalf("reading %d: %q, want %q", i, got.Value, r.Value.Text())
			}
		}
	}
}

func TestFloatsAreShortest(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 9))
	for range 200_000 {
		f := float64(rng.Int64N(1<<50)-1<<49) / math.Pow10(rng.IntN(9))
		if rng.IntN(4) == 0 {
			f = math.Float64frombits(rng.Uint64())
		}
		if f != f || math.IsInf(f, 0) {
			continue
		}
		got := string(AppendValue(nil, FloatValue(f)))
		want, _ := json.Marshal(f)
		if trimmed := strings.TrimSuffix(got, ".0"); trimmed != string(want) && !strings.Contains(got, "e") {
			t.Fatalf("%v is %s, want %s", f, got, want)
		}
		if v, err := ParseValue([]byte(got)); err != nil || !v.Equal(FloatValue(f)) {
			t.Fatalf("%s parses as %v, %v", got, v, err)
		}
	}
}

func TestFloat32PrintsAsSingle(t *testing.T) {
	for f, want := range map[float32]string{0.1: "0.1", 21.5: "21.5", 3: "3.0", 16777216: "16777216.0", 1e30: "1e+30"} {
		got := string(AppendValue(nil, Float32Value(f)))
		if got != want {
			t.Errorf("%v is %s, want %s", f, got, want)
		}
		if v, err := ParseValue([]byte(got)); err != nil || v.Kind() != Float {
			t.Errorf("%s parses as %s, %v", got, v.Kind(), err)
		}
	}
}

func TestUnknownKeysArePassedOver(t *testing.T) {
	data := `{"version":{"a":[1,{"b":null}],"c":"\u00e9"},"device":"d","seq":1,
		"readings":[{"new":[true,false,1e5],"tag":"t","value":5}],"last":-0.5}`
	var b Batch
	if err := DecodeBatch([]byte(data), &b); err != nil {
		t.Fatal(err)
	}
	if b.Device != "d" || len(b.Readings) != 1 || b.Readings[0].Value.Int() != 5 {
		t.Errorf("got %s", describe(&b))
	}
}

func TestDecodeRefuses(t *testing.T) {
	reading := func(s string) string { return `{"device":"d","seq":1,"readings":[{"tag":"t",` + s + `}]}` }
	for name, data := range map[string]string{
		"empty":              ``,
		"not an object":      `[]`,
		"no device":          `{"seq":1,"readings":[]}`,
		"no readings":        `{"device":"d"}`,
		"trailing":           `{"device":"d","readings":[]} x`,
		"trailing nul":       "{\"device\":\"d\",\"readings\":[]}\x00",
		"trailing comma":     `{"device":"d","readings":[],}`,
		"key twice":          `{"device":"d","device":"e","readings":[]}`,
		"tag twice":          reading(`"value":1,"tag":"u"`),
		"no value":           reading(`"quality":"Good"`),
		"big integer":        reading(`"value":18446744073709551616`),
		"small integer":      reading(`"value":-9223372036854775809`),
		"big float":          reading(`"value":1e999`),
		"leading zero":       reading(`"value":01`),
		"bare point":         reading(`"value":1.`),
		"bare minus":         reading(`"value":-`),
		"unknown quality":    reading(`"value":1,"quality":"Excellent"`),
		"unknown special":    reading(`"value":{"complex":"1+i"}`),
		"two specials":       reading(`"value":{"float":"NaN","float":"NaN"}`),
		"bad base64":         reading(`"value":{"base64":"AB"}`),
		"lone surrogate":     reading(`"value":"\ud800"`),
		"low surrogate":      reading(`"value":"\udc00"`),
		"control character":  reading("\"value\":\"a\x01\""),
		"not UTF-8":          reading("\"value\":\"a\xff\""),
		"bad escape":         reading(`"value":"\x41"`),
		"cut string":         reading(`"value":"abc`),
		"time with fraction": reading(`"value":1,"time":1.5`),
		"time out of range":  reading(`"value":1,"time":9223372036854775807`),
		"boot":               `{"device":"d","boot":"xyz","readings":[]}`,
		"clock":              `{"device":"d","clock":"fine","readings":[]}`,
		"negative seq":       `{"device":"d","seq":-1,"readings":[]}`,
		"deep":               `{"x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `,"device":"d","readings":[]}`,
		"long name":          `{"device":"` + strings.Repeat("d", MaxName+1) + `","readings":[]}`,
		"long detail":        reading(`"value":1,"detail":"` + strings.Repeat("d", MaxDetail+1) + `"`),
		"literal":            reading(`"value":nul`),
	} {
		var b Batch
		if err := DecodeBatch([]byte(data), &b); err == nil {
			t.Errorf("%s: accepted %s", name, data)
		}
	}
}

func TestTooManyReadings(t *testing.T) {
	one := `{"tag":"t","value":1},`
	data := `{"device":"d","readings":[` + strings.Repeat(one, MaxReadings) + `{"tag":"t","value":1}]}`
	var b Batch
	if err := DecodeBatch([]byte(data), &b); err == nil {
		t.Error("accepted")
	}
}

func TestEncoderKeepsToLimits(t *testing.T) {
	b := Batch{Device: "d", Time: t0, Readings: []Reading{
		{Tag: "long", Value: StringValue(strings.Repeat("x", MaxValue+1)), Receive: t0},
		{Tag: "bad", Quality: Bad, Detail: strings.Repeat("é", MaxDetail), Receive: t0},
		{Tag: "not text", Value: StringValue("a\xffb"), Receive: t0},
		{Tag: "far", Value: IntValue(1), Source: time.Unix(1<<60, 0), Receive: t0},
	}}
	var back Batch
	if err := DecodeBatch(AppendBatch(nil, &b), &back); err != nil {
		t.Fatal(err)
	}
	r := back.Readings
	if r[0].Quality != BadEncodingLimitsExceeded || r[0].Value.Kind() != Null {
		t.Errorf("long value: %s %s", r[0].Quality, r[0].Value.Kind())
	}
	if want := strings.Repeat("é", MaxDetail/2); r[1].Detail != want {
		t.Errorf("detail of %d bytes, want %d", len(r[1].Detail), len(want))
	}
	if r[2].Value.Text() != "a\uFFFDb" {
		t.Errorf("text %q", r[2].Value.Text())
	}
	if !r[3].Source.IsZero() {
		t.Errorf("source %s", r[3].Source)
	}
}

func TestCodecAllocations(t *testing.T) {
	b := benchBatch(100)
	buf := AppendBatch(nil, &b)
	if n := testing.AllocsPerRun(100, func() { buf = AppendBatch(buf[:0], &b) }); n != 0 {
		t.Errorf("encoding allocates %v times", n)
	}
	var back Batch
	if err := DecodeBatch(buf, &back); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = DecodeBatch(buf, &back) }); n != 0 {
		t.Errorf("decoding again allocates %v times", n)
	}
}

func benchBatch(n int) Batch {
	b := Batch{Device: "press7", Sequence: 42, Boot: 7, Time: t0}
	for i := range n {
		v := FloatValue(float64(i*37%1000) / 10)
		if i%4 == 0 {
			v = IntValue(int64(i * 1001))
		}
		b.Readings = append(b.Readings, Reading{Tag: fmt.Sprintf("register_%04d", i), Value: v, Receive: t0})
	}
	return b
}

func BenchmarkAppendBatch(b *testing.B) {
	batch := benchBatch(1000)
	for i := range batch.Readings {
		batch.Readings[i].Quality = Good
	}
	buf := AppendBatch(nil, &batch)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBatch(buf[:0], &batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
}

func BenchmarkAppendBatchFullDoubles(b *testing.B) {
	batch := benchBatch(1000)
	for i := range batch.Readings {
		batch.Readings[i].Value = FloatValue(math.Sqrt(float64(i) + 0.5))
	}
	buf := AppendBatch(nil, &batch)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendBatch(buf[:0], &batch)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
}

func BenchmarkDecodeBatch(b *testing.B) {
	batch := benchBatch(1000)
	data := AppendBatch(nil, &batch)
	var back Batch
	b.ReportAllocs()
	for b.Loop() {
		if err := DecodeBatch(data, &back); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/reading")
}

// FuzzDecodeBatch: whatever is accepted encodes to something that decodes to the
// same, and encodes to the same bytes again; and it is JSON.
func FuzzDecodeBatch(f *testing.F) {
	for _, b := range vectors {
		f.Add(AppendBatch(nil, &b))
	}
	f.Add([]byte(`{"device":"\u00e9","readings":[{"tag":"\ud83c\udfed","value":-0,"quality":"0x12"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b, back Batch
		if DecodeBatch(data, &b) != nil {
			return
		}
		if !json.Valid(data) {
			t.Fatalf("accepted what is not JSON: %q", data)
		}
		first := AppendBatch(nil, &b)
		if err := DecodeBatch(first, &back); err != nil {
			t.Fatalf("own encoding refused: %v\n%s", err, first)
		}
		if !sameBatch(&b, &back) {
			t.Fatalf("came back as\n%s\nwant\n%s", describe(&back), describe(&b))
		}
		if second := AppendBatch(nil, &back); !reflect.DeepEqual(first, second) {
			t.Fatalf("encodes as\n%s\nthen\n%s", first, second)
		}
	})
}
