package tagfile

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/pelletier/go-toml/v2"

	"holdfast/protocols/point"
)

func f(v float64) *float64 { return &v }

// example is what both example texts say.
var example = []point.Tag{
	{
		Name: "temp", Address: "40001", Type: "int16", Class: "fast", Unit: "Cel", Comment: `oven; zone "3", left`,
		Scale:  point.Scale{Kind: point.Factor, Factor: 0.1, Offset: -40},
		Dead:   point.Deadband{Kind: point.Absolute, Value: 0.5},
		Params: point.Params{"order": "CDAB", "unit_id": "7"},
	},
	{
		Name: "level", Address: "30010", Access: point.ReadWrite,
		Scale: point.Scale{Kind: point.Linear, RawHigh: 27648, EngHigh: 10, Clamp: true},
		Dead:  point.Deadband{Kind: point.Percent, Value: 2}, Stale: 90 * time.Second, Min: f(0), Max: f(9.5),
	},
	{Name: "lamp", Address: "00017", Access: point.WriteOnly, Dead: point.Deadband{Kind: point.OnChange}},
}

const exampleTOML = `# a comment
[[tag]]
name = "temp"
address = 40001
type = "int16"
class = "fast"
unit = "Cel"
comment = 'oven; zone "3", left'
factor = 0.1
offset = -40
deadband = 0.5
params = { order = "CDAB", unit_id = 7 }

[[tag]]
name = "level"
address = "30010"
access = "rw"
raw_low = 0
raw_high = 27_648
eng_low = 0.0
eng_high = 10
clamp = true
deadband = "2%"
stale = "1m30s"
min = 0
max = 9.5

[[tag]]
name = "lamp"
address = "00017"
access = "w"
deadband = "change"
`

const exampleCSV = "\xef\xbb\xbfName;Address;type;class;access;unit;comment;factor;offset;raw_low;raw_high;eng_low;eng_high;clamp;deadband;stale;min;max;params.order;params.unit_id;\r\n" +
	"temp;40001;int16;fast;;Cel;\"oven; zone \"\"3\"\", left\";0.1;-40;;;;;;0.5;;;;CDAB;7\r\n" +
	"# a comment; with a separator\r\n" +
	";;;;;;;;;;;;;;;;;;;\r\n" +
	"level;30010;;;rw;;;;;0;27648;0;10;TRUE;2%;90s;0;9.5;;\r\n" +
	"lamp;00017;;;w;;;;;;;;;;change\r\n"

func same(t *testing.T, got, want []point.Tag) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d tags, want %d", len(got), len(want))
	}
	for i := range want {
		if !got[i].Equal(&want[i]) {
			t.Errorf("tag %d:\n%+v, want\n%+v", i, got[i], want[i])
		}
	}
}

func TestExamples(t *testing.T) {
	for name, data := range map[string]string{"a.toml": exampleTOML, "b.CSV": exampleCSV} {
		got, err := Decode([]byte(data), name)
		if err != nil {
			t.Fatal(err)
		}
		same(t, got, example)
	}
}

func TestWrittenForm(t *testing.T) {
	csv, err := Encode(example, "x.csv")
	if err != nil {
		t.Fatal(err)
	}
	want := `name,address,type,class,access,unit,comment,factor,offset,raw_low,raw_high,eng_low,eng_high,clamp,deadband,stale,min,max,params.order,params.unit_id
temp,40001,int16,fast,,Cel,"oven; zone ""3"", left",0.1,-40,,,,,,0.5,,,,CDAB,7
level,30010,,,rw,,,,,0,27648,0,10,true,2.0%,1m30s,0,9.5,,
lamp,00017,,,w,,,,,,,,,,change,,,,,
`
	if string(csv) != want {
		t.Errorf("got\n%s\nwant\n%s", csv, want)
	}
	doc, err := Encode(example[:1], "x.toml")
	if err != nil {
		t.Fatal(err)
	}
	want = `[[tag]]
name = "temp"
address = "40001"
type = "int16"
class = "fast"
unit = "Cel"
comment = "oven; zone \"3\", left"
factor = 0.1
offset = -40.0
deadband = 0.5
params.order = "CDAB"
params.unit_id = "7"
`
	if string(doc) != want {
		t.Errorf("got\n%s\nwant\n%s", doc, want)
	}
}

// randomTag draws any tag that passes Check.
func randomTag(rng *rand.Rand, i int) point.Tag {
	text := func() string {
		runes := []rune("aZ09 ;,\t\"'\\#=[]{}é日🏭%.-+_$")
		out := make([]rune, rng.IntN(12))
		for i := range out {
			for out[i] = '\t'; out[i] == '\t'; {
				out[i] = runes[rng.IntN(len(runes))]
			}
		}
		return string(out)
	}
	number := func() float64 {
		for {
			v := float64(rng.IntN(2001) - 1000)
			switch rng.IntN(4) {
			case 0:
				v /= 10
			case 1:
				v = math.Float64frombits(rng.Uint64())
			}
			if v != 0 && v == v && !math.IsInf(v, 0) {
				return v
			}
		}
	}
	t := point.Tag{
		Name: fmt.Sprintf("t%d", i), Address: "a" + text(), Type: text(), Class: text(), Access: point.Access(rng.IntN(3)),
		Unit: text(), Comment: text(), Stale: time.Duration(rng.IntN(3)) * time.Duration(rng.Int64N(1e12)),
	}
	switch rng.IntN(3) {
	case 0:
		t.Scale = point.Scale{Kind: point.Factor, Factor: number(), Offset: number() * float64(rng.IntN(2))}
	case 1:
		low, eng := float64(rng.IntN(1000)), float64(rng.IntN(1000))
		t.Scale = point.Scale{
			Kind: point.Linear, RawLow: low, RawHigh: low + 1 + rng.Float64(), EngLow: eng, EngHigh: eng - 1 - rng.Float64(),
			Clamp: rng.IntN(2) == 0,
		}
	}
	switch rng.IntN(4) {
	case 0:
		t.Dead = point.Deadband{Kind: point.OnChange}
	case 1:
		t.Dead = point.Deadband{Kind: point.Absolute, Value: math.Abs(number())}
	case 2:
		if t.Scale.Kind == point.Linear {
			t.Dead = point.Deadband{Kind: point.Percent, Value: math.Abs(number())}
		}
	}
	if t.Dead.Kind == point.NoDeadband {
		switch rng.IntN(4) {
		case 0:
			t.Dead.Kind = point.EveryReading
		case 1:
			t.Reduce.Swing = math.Abs(number())
			t.Reduce.SwingPercent = t.Scale.Kind == point.Linear && rng.IntN(2) == 0
		}
	}
	if rng.IntN(3) == 0 {
		t.Reduce.MinInterval = time.Duration(rng.Int64N(1e12))
		t.Reduce.Heartbeat = t.Reduce.MinInterval + time.Duration(rng.Int64N(1e12))
		t.Reduce.SkipFirst = t.Reduce.Swing == 0 && rng.IntN(2) == 0
	}
	if rng.IntN(2) == 0 {
		t.Min = f(-math.Abs(number()))
	}
	if rng.IntN(2) == 0 {
		t.Max = f(math.Abs(number()))
	}
	for range rng.IntN(3) {
		if t.Params == nil {
			t.Params = point.Params{}
		}
		t.Params[fmt.Sprintf("key_%d", rng.IntN(5))] = "v" + text()
	}
	return t
}

// TestRoundTrip: tags to TOML to tags to CSV to tags loses nothing, and the two
// texts are the same at the second turn.
func TestRoundTrip(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 4))
	for range 300 {
		var tags []point.Tag
		for i := range rng.IntN(20) {
			tags = append(tags, randomTag(rng, i))
		}
		now := tags
		var texts []string
		for _, name := range []string{"a.toml", "a.csv", "a.toml", "a.csv"} {
			data, err := Encode(now, name)
			if err != nil {
				t.Fatal(err)
			}
			if name == "a.toml" {
				if err := toml.Unmarshal(data, new(any)); err != nil {
					t.Fatalf("not TOML: %v\n%s", err, data)
				}
			}
			texts = append(texts, string(data))
			if now, err = Decode(data, name); err != nil {
				t.Fatalf("%v\n%s", err, data)
			}
			same(t, now, tags)
		}
		if texts[0] != texts[2] || texts[1] != texts[3] {
			t.Fatal("the second turn is another text")
		}
	}
}

func TestMistakes(t *testing.T) {
	for _, c := range []struct {
		name, data string
		want       []string
	}{
		{"empty.csv", "", []string{"empty.csv:1: the header row is missing"}},
		{"columns.csv", "name,adress,factr,wobble,name\n", []string{
			`columns.csv:1: adress: unknown key (did you mean "address"?)`,
			`columns.csv:1: factr: unknown key (did you mean "factor"?)`,
			`columns.csv:1: wobble: unknown key (a key of the protocol is written params.wobble)`,
			`columns.csv:1: name: the column is there twice`,
			`columns.csv:1: address: the column is missing`,
		}},
		{"rows.csv", "\n# x\nname,address,factor,raw_low,clamp,deadband,stale,access,params.x,min\n" +
			"a,1,\"0,1\",,,,,,,\n" +
			"b,1,,5,,,,,,\n" +
			"c,1,,,yes,,,,,\n" +
			"d,1,,,,1s,,,,\n" +
			"e,1,,,,-1,,,,\n" +
			"f,1,,,,,10,,,\n" +
			"g,1,,,,,,rx,,\n" +
			"h,1,,,,,,,,nan\n" +
			"i,1,1,2,,,,,,\n" +
			"j,1,,,true,,,,,\n" +
			"k,,,,,,,,,\n" +
			"l/m,1,,,,,,,,\n" +
			"a,2,,,,,,,,\n" +
			"n,1,,,,,,,,,extra\n" +
			"o,1,0,,,,,,,0x10\n", []string{
			`rows.csv:4: factor: "0,1" is not a number: write 0.1`,
			`rows.csv:5: a linear scale needs raw_high, eng_low, eng_high too`,
			`rows.csv:6: clamp: want true or false, not "yes"`,
			`rows.csv:7: deadband: "1s" is not a number`,
			`rows.csv:8: deadband: the dead-band must be above 0`,
			`rows.csv:9: stale: "10" is not a time with its unit, such as "5s"`,
			`rows.csv:10: access: unknown access "rx": want r, rw or w`,
			`rows.csv:11: min: want a finite number`,
			`rows.csv:12: a scale is factor and offset, or raw and eng limits, not both`,
			`rows.csv:13: clamp: only a linear scale can clamp`,
			`rows.csv:14: address: the address is missing`,
			`rows.csv:15: tag "l/m": name "l/m" contains '/'`,
			`rows.csv:16: name: tag "a" is there twice, first in line 4`,
			`rows.csv:17: "extra" is beyond the last column; a text with the separator in it needs quotes`,
			`rows.csv:18: min: "0x10" is not a number`,
		}},
		{"quote.csv", "name,address\na,\"b\nc,d\n", []string{`quote.csv:`}},
		{"utf16.csv", "\xff\xfen\x00", []string{"utf16.csv:1: the file is UTF-16 (save it as CSV UTF-8)"}},
		{"latin.csv", "name,address\nm\xfcll,1\n", []string{"latin.csv:2: the text is not UTF-8 (save it as CSV UTF-8)"}},
		{"other.xlsx", "", []string{"other.xlsx: unknown kind of tag table (name it .toml or .csv)"}},
		{"syntax.toml", "[[tag]]\nname = \n", []string{"syntax.toml:2: "}},
		{"twice.toml", "[[tag]]\nname = \"a\"\nname = \"b\"\n", []string{"twice.toml:3: "}},
		{"keys.toml", "title = 1\n[[tag]]\nname = \"a\"\naddress = 1\nunti = \"x\"\nfactor = \"0.1\"\nparams.Order = 1\n\n" +
			"[[tag]]\nname = 5\naddress = \"x\"\ndeadband = \"0.5\"\nparams = { order = \"\",\n  good = 1 }\n" +
			"[[tag]]\nname = \"a\"\naddress = \"x\"\n  [tag.params]\n  x = \"\"\n[[tag]]\nname=\"z\"\naddress=\"\\u0001\"\nparams = 3\n", []string{
			`keys.toml:1: title: unknown key (a tag table has only [[tag]])`,
			`keys.toml:5: unti: unknown key (did you mean "unit"?)`,
			`keys.toml:6: factor: want a number, not "0.1"`,
			`keys.toml:7: params.Order: a key of the protocol has only lower-case letters, digits and '_'`,
			`keys.toml:10: name: want a text in quotes, not 5`,
			`keys.toml:12: deadband: "0.5" is neither "none" nor "change" nor a percentage such as "2%"; a number has no quotes`,
			`keys.toml:13: params.order: the value is empty; leave the key out`,
			`keys.toml:15: name: tag "a" is there twice, first in line 2`,
			`keys.toml:19: params.x: the value is empty; leave the key out`,
			`keys.toml:22: address: "\x01" has a control character`,
			`keys.toml:23: params: want a table, not 3`,
		}},
		{"notag.toml", "tag = 3\n", []string{`notag.toml:1: tag: want [[tag]], a list of tables`}},
		{"plain.toml", "tag = [1]\n", []string{`plain.toml:1: tag: want a table, not 1`}},
	} {
		tags, err := Decode([]byte(c.data), c.name)
		if err == nil || tags != nil {
			t.Errorf("%s: accepted", c.name)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		slices.Sort(lines)
		want := slices.Clone(c.want)
		slices.Sort(want)
		if len(want) == 1 && strings.HasPrefix(lines[0], want[0]) {
			continue
		}
		if !slices.Equal(lines, want) {
			t.Errorf("%s:\n%s\nwant\n%s", c.name, strings.Join(lines, "\n"), strings.Join(want, "\n"))
		}
		if _, ok := errors.AsType[*Mistake](err); !ok {
			t.Errorf("%s: no Mistake in %T", c.name, err)
		}
	}
}

func TestFromTable(t *testing.T) {
	var doc struct {
		Device []struct {
			Tag []map[string]any
		}
	}
	text := strings.ReplaceAll(exampleTOML, "[[tag]]", "[[device.tag]]")
	if err := toml.Unmarshal([]byte("[[device]]\n"+text), &doc); err != nil {
		t.Fatal(err)
	}
	var got []point.Tag
	for _, table := range doc.Device[0].Tag {
		tag, err := FromTable(table)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, tag)
	}
	same(t, got, example)
	_, err := FromTable(map[string]any{"name": "a", "adress": "b", "factor": "x", "min": int64(2), "max": 1.0})
	want := "adress: unknown key (did you mean \"address\"?)\nfactor: want a number, not \"x\"\naddress: the address is missing"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if _, err = FromTable(map[string]any{"name": "a", "address": "b", "min": int64(2), "max": 1.0}); err == nil ||
		!strings.Contains(err.Error(), "min 2 is above max 1") {
		t.Errorf("got %v", err)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for name, tag := range map[string]point.Tag{
		"no name": {Address: "x"}, "no address": {Name: "a"}, "line break": {Name: "a", Address: "x", Comment: "a\nb"},
		"param key": {Name: "a", Address: "x", Params: point.Params{"Byte order": "x"}},
		"empty":     {Name: "a", Address: "x", Params: point.Params{"order": ""}},
		"scale":     {Name: "a", Address: "x", Scale: point.Scale{Kind: point.Factor}},
	} {
		for _, file := range []string{"a.toml", "a.csv"} {
			if data, err := Encode([]point.Tag{tag}, file); err == nil {
				t.Errorf("%s: written as\n%s", name, data)
			}
		}
	}
	if _, err := Encode(nil, "a.txt"); err == nil {
		t.Error("wrote an unknown form")
	}
}

func TestEmptyTables(t *testing.T) {
	for _, name := range []string{"a.toml", "a.csv"} {
		data, err := Encode(nil, name)
		if err != nil {
			t.Fatal(err)
		}
		if tags, err := Decode(data, name); err != nil || len(tags) != 0 {
			t.Errorf("%s: %v, %v", name, tags, err)
		}
	}
}

func bigTable(b *testing.B, name string) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	var tags []point.Tag
	for i := range 10_000 {
		tags = append(tags, randomTag(rng, i))
	}
	data, err := Encode(tags, name)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func BenchmarkDecode10k(b *testing.B) {
	for _, name := range []string{"a.toml", "a.csv"} {
		b.Run(name, func(b *testing.B) {
			data := bigTable(b, name)
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := Decode(data, name); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func fuzz(f *testing.F, name, other string, seeds ...string) {
	for _, s := range seeds {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		tags, err := Decode(data, name)
		if err != nil {
			if tags != nil || err.Error() == "" {
				t.Fatalf("%v with %v", tags, err)
			}
			return
		}
		for _, form := range []string{name, other} {
			text, err := Encode(tags, form)
			if err != nil {
				t.Fatalf("%s: cannot be written: %v", form, err)
			}
			back, err := Decode(text, form)
			if err != nil {
				t.Fatalf("%s: cannot be read again: %v\n%s", form, err, text)
			}
			if len(back) != len(tags) {
				t.Fatalf("%s: %d tags came back of %d", form, len(back), len(tags))
			}
			for i := range tags {
				if !tags[i].Equal(&back[i]) {
					t.Fatalf("%s:\n%+v came back as\n%+v", form, tags[i], back[i])
				}
			}
		}
	})
}

func FuzzDecodeCSV(f *testing.F) {
	fuzz(f, "a.csv", "a.toml", exampleCSV, "name,address\n\"a\",\"b,\"\"c\"\n", "name\taddress\na\tb\n")
}

func FuzzDecodeTOML(f *testing.F) {
	fuzz(f, "a.toml", "a.csv", exampleTOML, "[[tag]]\nname='a'\naddress='''b'''\n[tag.params]\nx=1.5\n")
}
