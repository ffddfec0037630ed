package payload

import (
	"bytes"
	"encoding/hex"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/protocols/point"
)

var update = flag.Bool("update", false, "write the golden files")

// lookup is what is configured in these tests.
func lookup(device, tag string) Tag {
	switch {
	case device != "press7":
		return Tag{}
	case tag == "temp":
		return Tag{Unit: "Cel", Class: "fast", Path: "acme/site1/press/heater"}
	case tag == "speed":
		return Tag{Unit: "m/s", Path: "acme/site1/press"}
	}
	return Tag{Path: "acme/site1/press"}
}

// all adds the fields that are left out by default.
var all = map[string]string{"gateway": "gateway", "path": "path", "class": "class"}

// variants are the ways of writing for which there are golden files.
var variants = []struct {
	name string
	o    Options
}{
	{"batch.json", Options{}},
	{"batch-all.json", Options{Fields: all}},
	{"reading.json", Options{PerReading: true}},
	{"reading-all.json", Options{PerReading: true, Fields: all}},
	{"reading-short.json", Options{PerReading: true, Times: Millis, Qualities: Codes,
		Fields: map[string]string{"value": "v", "quality": "q", "time": "ts", "seq": "", "boot": "", "device": "", "tag": "", "clock": "", "dropped": ""}}},
	{"batch-rfc3339.json", Options{Times: RFC3339}},
	{"batch-s.json", Options{Times: Seconds}},
	{"batch.cbor", Options{Form: CBOR}},
	{"batch-all.cbor", Options{Form: CBOR, Fields: all}},
	{"reading.cbor", Options{Form: CBOR, PerReading: true}},
	{"reading-rfc3339.cbor", Options{Form: CBOR, PerReading: true, Times: RFC3339, Qualities: Codes}},
	{"batch-s.cbor", Options{Form: CBOR, Times: Seconds}},
	{"batch.pb", Options{Form: Protobuf}},
	{"reading.pb", Options{Form: Protobuf, PerReading: true}},
}

// messages writes everything that a batch makes.
func messages(t testing.TB, o Options, data []byte) [][]byte {
	t.Helper()
	o.Gateway, o.Lookup = "line-7", lookup
	e, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	n, ok := e.Open(data, time.Time{})
	if !ok {
		t.Fatalf("%s is no batch", data)
	}
	var out [][]byte
	for i := range n {
		out = append(out, e.Append(nil, i))
	}
	return out
}

func inputs(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("testdata/in/*.json")
	if err != nil || len(names) < 3 {
		t.Fatal(names, err)
	}
	in := map[string][]byte{}
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		in[strings.TrimSuffix(filepath.Base(name), ".json")] = data
	}
	return in
}

// TestGolden writes each batch in each way: a line for each message, in
// hexadecimal unless it is JSON.
func TestGolden(t *testing.T) {
	for name, data := range inputs(t) {
		for _, v := range variants {
			var got bytes.Buffer
			for _, m := range messages(t, v.o, data) {
				if v.o.Form != JSON {
					m = []byte(hex.EncodeToString(m))
				}
				got.Write(append(m, '\n'))
			}
			file := filepath.Join("testdata/golden", name+"."+v.name)
			if *update {
				if err := os.WriteFile(file, got.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), want) {
				t.Errorf("%s: got\n%swant\n%s", file, got.Bytes(), want)
			}
		}
	}
}

// checkRoundTrip writes a batch in a way with the usual names, decodes the
// messages and compares.
func checkRoundTrip(t *testing.T, o Options, data []byte) {
	t.Helper()
	var want point.Batch
	if err := point.DecodeBatch(data, &want); err != nil {
		t.Fatal(err)
	}
	msgs := messages(t, o, data)
	if len(msgs) == 0 { // readings in messages of their own, and there are none
		return
	}
	got, err := rebuild(o.Form, msgs)
	if err != nil {
		t.Fatalf("%+v of %s: %v", o, data, err)
	}
	got.Time = want.Time
	a, b := point.AppendBatch(nil, &got.Batch), point.AppendBatch(nil, &want)
	if !bytes.Equal(a, b) {
		t.Fatalf("%+v gives\n%s\nwant\n%s", o, a, b)
	}
	for i, r := range want.Readings {
		known := lookup(want.Device, r.Tag)
		if o.Form != Protobuf && o.Fields == nil {
			known.Class, known.Path = "", ""
		}
		if o.Form != Protobuf && !o.PerReading {
			known.Path = ""
		}
		if got.tags[i] != known {
			t.Fatalf("%+v: tag %q comes with %+v, want %+v", o, r.Tag, got.tags[i], known)
		}
	}
	if full := o.Form == Protobuf || o.Fields != nil; full && got.gateway != "line-7" {
		t.Fatalf("gateway %q", got.gateway)
	}
}

func roundTrips() (list []Options) {
	for _, form := range []Form{JSON, CBOR, Protobuf} {
		for _, per := range []bool{false, true} {
			list = append(list, Options{Form: form, PerReading: per})
			if form != Protobuf {
				list = append(list, Options{Form: form, PerReading: per, Fields: all})
			}
		}
	}
	return list
}

func TestRoundTrip(t *testing.T) {
	for _, data := range inputs(t) {
		for _, o := range roundTrips() {
			checkRoundTrip(t, o, data)
		}
	}
}

// FuzzForms writes whatever is a batch in every form and decodes it again.
func FuzzForms(f *testing.F) {
	for _, data := range inputs(f) {
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		var b point.Batch
		if _, ok := e.Open(data, time.Time{}); ok != (point.DecodeBatch(data, &b) == nil) {
			t.Fatalf("Open says %v", ok)
		} else if !ok {
			return
		}
		for _, o := range roundTrips() {
			checkRoundTrip(t, o, data)
		}
	})
}

// TestSingle covers the value that JSON does not bring in.
func TestSingle(t *testing.T) {
	for _, f := range []float32{0, 0.1, -1e-45, math.MaxFloat32, float32(math.NaN())} {
		b := point.Batch{Device: "d", Readings: []point.Reading{{Tag: "t", Value: point.Float32Value(f)}}}
		for _, form := range []Form{CBOR, Protobuf} {
			e, err := New(Options{Form: form})
			if err != nil {
				t.Fatal(err)
			}
			e.batch = b
			got, err := rebuild(form, [][]byte{e.Append(nil, 0)})
			if err != nil || !got.Readings[0].Value.Equal(point.Float32Value(f)) {
				t.Errorf("form %d: %v became %v, %v", form, f, got, err)
			}
		}
	}
}

func TestReceived(t *testing.T) {
	e, err := New(Options{PerReading: true, Times: RFC3339})
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n, ok := e.Open([]byte(`{"device":"d","readings":[{"tag":"a","value":1},{"tag":"b","value":1,"time":1}]}`), at)
	if n != 2 || !ok {
		t.Fatal(n, ok)
	}
	for i, want := range []string{`"time":"2026-01-02T03:04:05.000000Z"`, `"time":"1970-01-01T00:00:00.000001Z"`} {
		if got := e.Append(nil, i); !bytes.Contains(got, []byte(want)) {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

// TestTimes checks the ways of writing a time around 1970.
func TestTimes(t *testing.T) {
	for _, c := range []struct {
		us   int64
		want [4]string
	}{
		{1760000000123456, [4]string{"1760000000123456", "1760000000123", "1760000000.123456", `"2025-10-09T08:53:20.123456Z"`}},
		{0, [4]string{"0", "0", "0.000000", `"1970-01-01T00:00:00.000000Z"`}},
		{-1, [4]string{"-1", "-1", "-0.000001", `"1969-12-31T23:59:59.999999Z"`}},
		{-1000, [4]string{"-1000", "-1", "-0.001000", `"1969-12-31T23:59:59.999000Z"`}},
		{-1500001, [4]string{"-1500001", "-1501", "-1.500001", `"1969-12-31T23:59:58.499999Z"`}},
	} {
		for i, want := range c.want {
			w := writer{e: &Encoder{o: Options{Times: Times(i)}}}
			if w.time(time.UnixMicro(c.us)); string(w.b) != want {
				t.Errorf("%d µs in way %d is %s, want %s", c.us, i, w.b, want)
			}
		}
	}
}

func TestAbout(t *testing.T) {
	data := inputs(t)["press7"]
	e, err := New(Options{PerReading: true, Lookup: lookup})
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := e.Open(data, time.Time{}); n != 3 || !ok {
		t.Fatal(n, ok)
	}
	if got, want := e.About(1), (About{Device: "press7", Tag: "speed", Unit: "m/s", Path: "acme/site1/press", Quality: "BadNoCommunication"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if e, err = New(Options{Lookup: lookup}); err != nil {
		t.Fatal(err)
	}
	if n, ok := e.Open(data, time.Time{}); n != 1 || !ok {
		t.Fatal(n, ok)
	}
	if got, want := e.About(0), (About{Device: "press7", Path: "acme/site1/press"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if _, ok := e.Open([]byte(`{"device":"press7"}`), time.Time{}); ok {
		t.Error("took what is no batch")
	}
}

// TestLookupIsBounded names more tags than are remembered.
func TestLookupIsBounded(t *testing.T) {
	asked := 0
	e, err := New(Options{Lookup: func(string, string) Tag { asked++; return Tag{} }})
	if err != nil {
		t.Fatal(err)
	}
	for round := range 2 {
		for i := range 10 {
			e.lookup(fmt.Sprint(i))
		}
		if asked != 10 {
			t.Errorf("round %d: asked %d times", round, asked)
		}
	}
	e.Forget()
	if e.lookup("1"); asked != 11 {
		t.Errorf("asked %d times after Forget", asked)
	}
	for i := range maxLooked + 10 {
		if e.lookup(fmt.Sprint(i)); len(e.looked) > maxLooked {
			t.Fatalf("%d remembered", len(e.looked))
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]Options{
		`unknown field "valeu"`:                       {Fields: map[string]string{"valeu": "v"}},
		`field "value" cannot be left out`:            {Fields: map[string]string{"value": ""}},
		`field "readings" cannot be left out`:         {Fields: map[string]string{"readings": ""}},
		`"tag" and "value" have the same key "tag"`:   {Fields: map[string]string{"value": "tag"}},
		`"time" and "source" have the same key "t"`:   {Fields: map[string]string{"time": "t", "source": "t"}},
		`key "\xff" of field "unit" is not UTF-8`:     {Fields: map[string]string{"unit": "\xff"}},
		`protobuf has fields, times and qualities of`: {Form: Protobuf, Times: Millis},
	} {
		if _, err := New(o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v gives %v, want %s", o, err, want)
		}
	}
	if f, err := ParseForm("cbor"); f != CBOR || err != nil {
		t.Error(f, err)
	}
	if w, err := ParseTimes("rfc3339"); w != RFC3339 || err != nil {
		t.Error(w, err)
	}
	if q, err := ParseQualities("code"); q != Codes || err != nil {
		t.Error(q, err)
	}
	if _, err := ParseForm("xml"); err == nil || !strings.Contains(err.Error(), "json, cbor, protobuf") {
		t.Error(err)
	}
	if names := FieldNames(); len(names) != int(fieldCount) || slices.Contains(names, "") {
		t.Error(names)
	}
}

// BenchmarkReading writes the readings of a batch of a hundred, one message
// each; decoding the batch is part of it.
func BenchmarkReading(b *testing.B) { benchmark(b, true) }

// BenchmarkBatch writes them in one message.
func BenchmarkBatch(b *testing.B) { benchmark(b, false) }

func benchmark(b *testing.B, per bool) {
	batch := point.Batch{Device: "press7", Sequence: 1, Boot: 2, Time: time.UnixMicro(1760000000123456)}
	for i := range 100 {
		batch.Readings = append(batch.Readings, point.Reading{Tag: fmt.Sprintf("zone%d/temperature", i), Value: point.FloatValue(20 + float64(i)/10)})
	}
	data := point.AppendBatch(nil, &batch)
	for form, name := range []string{"json", "cbor", "protobuf"} {
		b.Run(name, func(b *testing.B) {
			e, err := New(Options{Form: Form(form), PerReading: per, Gateway: "line-7", Lookup: func(string, string) Tag { return Tag{Unit: "Cel", Path: "a/b"} }})
			if err != nil {
				b.Fatal(err)
			}
			var buf []byte
			size := 0
			b.ReportAllocs()
			for b.Loop() {
				n, ok := e.Open(data, time.Time{})
				if !ok {
					b.Fatal("not a batch")
				}
				size = 0
				for i := range n {
					buf = e.Append(buf[:0], i)
					size += len(buf)
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/100, "ns/reading")
			b.ReportMetric(float64(size)/100, "bytes/reading")
		})
	}
}
