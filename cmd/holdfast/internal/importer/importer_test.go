package importer

import (
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols"
	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

var update = flag.Bool("update", false, "rewrite what the tests compare with")

// knownProtocols checks Modbus as the program does, and takes any OPC UA device.
func knownProtocols(name string) config.DeviceCheck {
	switch name {
	case "modbus":
		return modbus.New(protocols.Env{}, modbus.Options{}).Check
	case "opcua":
		return func(protocols.Device) error { return nil }
	}
	return nil
}

func load(files map[string]string, path string) (*config.Config, error) {
	return config.Load(path, readFrom(files), config.Kinds{Protocol: knownProtocols, Protocols: []string{"modbus", "opcua"}})
}

func readFrom(files map[string]string) config.Files {
	return func(name string) ([]byte, error) {
		if text, ok := files[name]; ok {
			return []byte(text), nil
		}
		return nil, fs.ErrNotExist
	}
}

// into plans a result into files, checks that they are a correct configuration,
// and returns them.
func into(t testing.TB, r *Result, path string, files map[string]string, replace bool) map[string]string {
	t.Helper()
	plan, err := r.Plan(path, replace, readFrom(files))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for name, text := range files {
		out[name] = text
	}
	for _, f := range plan {
		out[f.Path] = string(f.New)
	}
	if _, err := load(out, path); err != nil {
		t.Fatalf("the result is no correct configuration: %v\n%s", err, out[path])
	}
	return out
}

func inputs(t testing.TB, names ...string) []Input {
	t.Helper()
	var in []Input
	for _, name := range names {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		in = append(in, Input{name, data})
	}
	return in
}

// samples are files in the formats of others, written for these tests.
var samples = []struct {
	kind   string
	files  []string
	set    map[string]any
	golden string
}{
	{"telegraf", []string{"telegraf.conf"}, nil, "telegraf"},
	{"edgex", []string{"edgex-profile.yml", "edgex-devices.yml"}, nil, "edgex"},
	{"edgex", []string{"edgex-profile.yml"}, map[string]any{"address": "10.0.0.9"}, "edgex-profile"},
	{"opc-publisher", []string{"published_nodes.json"}, nil, "opc-publisher"},
	{"kepware", []string{"press.csv"}, map[string]any{"address": "10.0.0.7"}, "kepware"},
	{"neuron", []string{"neuron.csv"}, map[string]any{"address": "10.0.0.8"}, "neuron"},
}

func readSample(t testing.TB, i int) *Result {
	t.Helper()
	s := samples[i]
	r, err := Read(s.kind, inputs(t, s.files...), Options{Settings: s.set})
	if err != nil {
		t.Fatal(err)
	}
	r.Check(s.files[0], knownProtocols)
	return r
}

// TestSamples compares what becomes of each sample, files and notes.
func TestSamples(t *testing.T) {
	for i, s := range samples {
		t.Run(s.golden, func(t *testing.T) {
			r := readSample(t, i)
			files := into(t, r, "config.toml", nil, false)
			var b strings.Builder
			names := []string{}
			for name := range files {
				names = append(names, name)
			}
			slices.Sort(names)
			for _, name := range names {
				fmt.Fprintf(&b, "-- %s --\n%s", name, files[name])
			}
			b.WriteString("-- notes --\n")
			for _, n := range r.Notes {
				fmt.Fprintf(&b, "%s: %s\n", n.Level, n)
			}
			golden := filepath.Join("testdata", s.golden+".golden")
			if *update {
				if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if b.String() != string(want) {
				t.Errorf("it is not what %s says; got\n%s", golden, b.String())
			}
		})
	}
}

// TestRoundTrip imports each sample, exports it, and imports what was exported:
// all files are the same again.
func TestRoundTrip(t *testing.T) {
	for i, s := range samples {
		t.Run(s.golden, func(t *testing.T) { roundTrip(t, readSample(t, i)) })
	}
}

func roundTrip(t *testing.T, r *Result) {
	t.Helper()
	first := into(t, r, "config.toml", nil, false)
	c, err := load(first, "config.toml")
	if err != nil {
		t.Fatal(err)
	}
	exported, err := FromConfig(c).Export()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Read("holdfast", []Input{{"export.toml", exported}}, Options{Load: func(in Input) (*config.Config, error) {
		return load(map[string]string{in.Name: string(in.Data)}, in.Name)
	}})
	if err != nil {
		t.Fatalf("%v\n%s", err, exported)
	}
	if len(again.Notes) > 0 {
		t.Errorf("notes on our own export: %v", again.Notes)
	}
	second := into(t, again, "config.toml", nil, false)
	if !reflect.DeepEqual(first, second) {
		for name := range first {
			if first[name] != second[name] {
				t.Errorf("%s is different:\n%s", name, (&File{Path: name, Old: []byte(first[name]), New: []byte(second[name])}).Diff())
			}
		}
		t.Errorf("%d and %d files", len(first), len(second))
	}
	// Once more into what is there changes nothing.
	third := into(t, again, "config.toml", second, false)
	if !reflect.DeepEqual(second, third) {
		t.Error("importing again changes files")
	}
}

// TestRandomRoundTrip does the same with made-up devices that use everything a
// tag can have.
func TestRandomRoundTrip(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	for range 60 {
		roundTrip(t, randomResult(rng))
		if t.Failed() {
			return
		}
	}
}

func randomResult(rng *rand.Rand) *Result {
	r := &Result{Classes: map[string]config.Class{}}
	classes := 1 + rng.IntN(3)
	for i := range classes {
		name := fmt.Sprintf("c%d", i)
		r.Classes[name] = config.Class{Period: strict.Duration((1 + rng.IntN(5000)) * int(time.Millisecond)), Timeout: strict.Duration(rng.IntN(2) * int(time.Second)),
			Heartbeat: strict.Duration(rng.IntN(3) * int(time.Minute))}
	}
	class := func() string {
		if rng.IntN(2) == 0 {
			return ""
		}
		return fmt.Sprintf("c%d", rng.IntN(classes))
	}
	for i := range 1 + rng.IntN(4) {
		d := Device{Name: fmt.Sprintf("d%d", i), Protocol: "opcua", Class: class(), KeepLast: rng.IntN(2) == 0, Subscribe: rng.IntN(2) == 0,
			Settings: map[string]any{"endpoint": `opc.tcp://h/"x"\y` + "\t", "number": int64(rng.Int()), "part": rng.NormFloat64(),
				"flag": rng.IntN(2) == 0, "list": []any{"a", int64(1)}, "deep": map[string]any{"a b": map[string]any{"c": true}}}}
		if rng.IntN(4) == 0 {
			d.Product, d.Protocol = "eastron-sdm630", "modbus"
			d.Settings = map[string]any{"address": "h"}
			d.Tables = []map[string]any{{"name": "power", "class": "normal", "params": map[string]any{"order": "ABCD"}}}
			r.Classes["normal"] = config.Default().Field.Classes["normal"]
			r.Devices = append(r.Devices, d)
			continue
		}
		for k := range 1 + rng.IntN(20) {
			d.Tags = append(d.Tags, randomTag(rng, fmt.Sprintf("t%d", k), class()))
		}
		r.Devices = append(r.Devices, d)
	}
	used := map[string]bool{}
	for _, d := range r.Devices {
		used[d.Class] = true
		for _, t := range d.Tags {
			used[t.Class] = true
		}
		if len(d.Tables) > 0 {
			used["normal"] = true
		}
	}
	for name := range r.Classes {
		if !used[name] {
			delete(r.Classes, name) // only what is used is exported
		}
	}
	return r
}

func randomTag(rng *rand.Rand, name, class string) point.Tag {
	odd := []string{"", "plain", `quo"te`, "semi;colon, comma", "ünï", " #"}
	t := point.Tag{Name: name, Address: "s=" + odd[1+rng.IntN(4)], Type: odd[rng.IntN(2)], Class: class, Access: point.Access(rng.IntN(3)),
		Unit: odd[rng.IntN(3)], Comment: odd[rng.IntN(len(odd))]}
	switch rng.IntN(3) {
	case 0:
		t.Scale = point.Scale{Kind: point.Factor, Factor: 1 + rng.Float64(), Offset: float64(rng.IntN(3))}
	case 1:
		t.Scale = point.Scale{Kind: point.Linear, RawHigh: 100, EngLow: -rng.Float64(), EngHigh: 1, Clamp: rng.IntN(2) == 0}
	}
	switch rng.IntN(4) {
	case 0:
		t.Dead = point.Deadband{Kind: point.OnChange}
	case 1:
		t.Dead = point.Deadband{Kind: point.Absolute, Value: 0.1 + rng.Float64()}
	}
	t.Reduce.Heartbeat = time.Duration(rng.IntN(3)) * time.Minute
	t.Reduce.SkipFirst = rng.IntN(2) == 0
	t.Stale = time.Duration(rng.IntN(3)) * time.Second
	if rng.IntN(2) == 0 {
		low, high := rng.Float64(), 2+rng.Float64()
		t.Min, t.Max = &low, &high
	}
	if rng.IntN(2) == 0 {
		t.Params = point.Params{"queue": "10", "index": odd[2]}
	}
	return t
}

// TestIntoExisting edits a configuration that a person has written: comments and
// everything else stay.
func TestIntoExisting(t *testing.T) {
	old := `# ours
name = "line-7"

[field.classes]
# how often
fast = "50ms"
"1s" = "2s"

# the first one
[[field.device]]
name = "press"
protocol = "modbus"
address = "10.0.0.1"
[[field.device.tag]]
name = "own"
address = "40001"

# the last one
[[field.device]]
name = "other"
protocol = "modbus"
address = "10.0.0.2" # stays

[[field.device.tag]]
name = "a"
address = "40001"
`
	files := map[string]string{"c/config.toml": old}
	r := readSample(t, 4) // kepware: device press, classes 100ms, 1s, 10s
	if _, err := r.Plan("c/config.toml", false, readFrom(files)); err == nil || !strings.Contains(err.Error(), `has field device "press" already`) {
		t.Fatalf("a device was replaced: %v", err)
	}
	edited := map[string]string{"c/tags/press.csv": "name,address\na,40001\n"}
	if _, err := r.Plan("c/config.toml", false, readFrom(edited)); err == nil || !strings.Contains(err.Error(), "tags/press.csv has") {
		t.Fatalf("a tag table was replaced: %v", err)
	}
	got := into(t, r, "c/config.toml", files, true)
	text := got["c/config.toml"]
	for _, want := range []string{
		"# ours\nname = \"line-7\"\n", "# how often\nfast = \"50ms\"\n\"1s\" = \"2s\"\n", "1s-2 = \"1s\"\n",
		"# the first one\n[[field.device]]\nname = \"press\"\nprotocol = \"modbus\"\naddress = \"10.0.0.7\"\n",
		"tags = \"tags/press.csv\"\n\n# the last one\n[[field.device]]\nname = \"other\"", "address = \"10.0.0.2\" # stays\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in\n%s", want, text)
		}
	}
	if strings.Contains(text, "10.0.0.1") || strings.Contains(text, `name = "own"`) {
		t.Errorf("the device of before is there still:\n%s", text)
	}
	if table := got["c/tags/press.csv"]; !strings.Contains(table, "Press.Level,input:9,uint16,1s-2,") {
		t.Errorf("the class was not renamed:\n%s", table)
	}
	if again := into(t, r, "c/config.toml", got, false); !reflect.DeepEqual(got, again) {
		t.Errorf("the second time something changes:\n%s", (&File{Old: []byte(text), New: []byte(again["c/config.toml"])}).Diff())
	}
}

// TestCheckLeavesOut drops what an adapter refuses and keeps the rest.
func TestCheckLeavesOut(t *testing.T) {
	text := "Tag Name,Address,Data Type\na,40001,Word\nb,465536,Float\n"
	r, err := Read("kepware", []Input{{"x.csv", []byte(text)}}, Options{Settings: map[string]any{"address": "h"}})
	if err != nil {
		t.Fatal(err)
	}
	r.Check("x.csv", knownProtocols)
	if r.Tags() != 1 || !slices.ContainsFunc(r.Notes, func(n Note) bool {
		return n.Line == 3 && n.What == "tag b" && strings.Contains(n.Why, "reach beyond") && n.Level == Lost
	}) {
		t.Errorf("%d tags, %v", r.Tags(), r.Notes)
	}
	r.Check("x.csv", func(string) config.DeviceCheck { return nil })
	if len(r.Devices) != 0 || !strings.Contains(r.Notes[0].Why, `does not speak "modbus"`) {
		t.Errorf("%+v", r)
	}
}

// TestErrors are files of which nothing can be made.
func TestErrors(t *testing.T) {
	for _, c := range []struct{ kind, text, want string }{
		{"telegraf", "[[inputs.cpu]]\n", "there is no [[inputs.modbus]]"},
		{"telegraf", "x = \n", "x:1"},
		{"edgex", "a: [1", "x: "},
		{"edgex", "a: 1", "neither a device profile nor a device list"},
		{"opc-publisher", "[{}]", "there is no entry with an EndpointUrl"},
		{"opc-publisher", "[\n1,\n}", "x:3: "},
		{"opc-publisher", "[] 5", "after the end"},
		{"opc-publisher", strings.Repeat("[", 100), "nested too deeply"},
		{"kepware", "Name,Address\n", `the column "Tag Name" is missing`},
		{"kepware", "", "there is no header row"},
		{"neuron", "name,address\n", `the column "type" is missing`},
		{"neuron", "\xff\xfe", "not UTF-8"},
		{"holdfast", "name = 5\n", "nothing to read configurations with"},
		{"excel", "", "is no known format"},
	} {
		_, err := Read(c.kind, []Input{{"x", []byte(c.text)}}, Options{})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s %q: %v", c.kind, c.text, err)
		}
	}
	if _, err := Read("kepware", make([]Input, 2), Options{}); err == nil {
		t.Error("two files where one is wanted")
	}
}

// TestNothingIsDropped puts a key that nobody knows at every level of each format:
// each is told, with its line.
func TestNothingIsDropped(t *testing.T) {
	for _, c := range []struct {
		kind, text string
		lines      []int
	}{
		{"telegraf", "top = 1\n[[inputs.modbus]]\ncontroller = \"tcp://h:1\"\nmystery = 1\nconfiguration_type = \"metric\"\n[[inputs.modbus.metric]]\nriddle = 2\n" +
			"fields = [\n{ address = 1, name = \"a\", type = \"INT16\",\n puzzle = 3 },\n]\n", []int{1, 4, 7, 10}},
		{"edgex", "name: p\nmystery: 1\ndeviceResources:\n- name: a\n  riddle: 2\n  attributes: { primaryTable: COILS, startingAddress: 1,\n    puzzle: 3 }\n  properties:\n    valueType: Bool\n    enigma: 4\n", []int{2, 5, 7, 10}},
		{"opc-publisher", "[ { \"EndpointUrl\": \"opc.tcp://h:1\",\n\"Mystery\": { \"a\": 1 },\n\"OpcNodes\": [ { \"Id\": \"i=1\",\n\"Riddle\": 2 } ] } ]", []int{2, 4}},
		{"kepware", "Tag Name,Address,Mystery\na,40001,\nb,40002,x\n", []int{3}},
		{"neuron", "name,address,type,mystery\na,1!400001,INT16,x\n", []int{2}},
	} {
		r, err := Read(c.kind, []Input{{"x", []byte(c.text)}}, Options{})
		if err != nil {
			t.Errorf("%s: %v", c.kind, err)
			continue
		}
		var lines []int
		for _, n := range r.Notes {
			if n.Level == Lost && strings.Contains(n.Why, "no counterpart") {
				lines = append(lines, n.Line)
			}
		}
		if !slices.Equal(lines, c.lines) {
			t.Errorf("%s: told of lines %v, want %v: %v", c.kind, lines, c.lines, r.Notes)
		}
	}
}

// bigFile is ten thousand tags in a format.
func bigFile(kind string, tags int) []Input {
	var b strings.Builder
	switch kind {
	case "telegraf":
		for d := range 10 {
			fmt.Fprintf(&b, "[[inputs.modbus]]\nname = \"plc%d\"\ncontroller = \"tcp://10.0.0.%d:502\"\nholding_registers = [\n", d, d)
			for i := range tags / 10 {
				fmt.Fprintf(&b, "  { name = \"v%d\", byte_order = \"CDAB\", data_type = \"FLOAT32-IEEE\", scale = 0.1, address = [%d, %d] },\n", i, 2*i, 2*i+1)
			}
			b.WriteString("]\n")
		}
	case "edgex":
		b.WriteString("name: p\ndeviceResources:\n")
		for i := range tags {
			fmt.Fprintf(&b, "- name: r%d\n  attributes: { primaryTable: HOLDING_REGISTERS, startingAddress: %d }\n  properties: { valueType: Int16, readWrite: R, scale: 0.1 }\n", i, i)
		}
	case "opc-publisher":
		b.WriteString("[ { \"EndpointUrl\": \"opc.tcp://h:4840\", // big\n \"OpcNodes\": [\n")
		for i := range tags {
			fmt.Fprintf(&b, "  { \"Id\": \"nsu=http://example.com;s=Tag%d\", \"OpcSamplingInterval\": 100, \"DisplayName\": \"t%d\" },\n", i, i)
		}
		b.WriteString("] } ]\n")
	case "kepware":
		b.WriteString("Tag Name,Address,Data Type,Client Access,Scan Rate,Eng Units,Description\n")
		for i := range tags {
			fmt.Fprintf(&b, "\"g.t%d\",\"4%05d\",\"Word\",\"R/W\",100,\"bar\",\"a tag, with a comma\"\n", i, i+1)
		}
	case "neuron":
		b.WriteString("group,name,address,attribute,type,description,decimal\n")
		for i := range tags {
			fmt.Fprintf(&b, "g,t%d,1!4%05d#BL,Read,FLOAT,x,0.1\n", i, 2*i+1)
		}
	}
	return []Input{{"big", []byte(b.String())}}
}

// BenchmarkImport takes 10,000 tags over, from the file to the files of a
// configuration.
func BenchmarkImport(b *testing.B) {
	for _, kind := range []string{"telegraf", "edgex", "opc-publisher", "kepware", "neuron"} {
		in := bigFile(kind, 10_000)
		b.Run(kind, func(b *testing.B) {
			for b.Loop() {
				r, err := Read(kind, in, Options{Settings: map[string]any{"address": "h"}})
				if err != nil {
					b.Fatal(err)
				}
				r.Check("big", func(name string) config.DeviceCheck { return knownProtocols(name) })
				if r.Tags() != 10_000 {
					b.Fatalf("%d tags: %v", r.Tags(), r.Notes[:min(3, len(r.Notes))])
				}
				if _, err := r.Plan("config.toml", false, readFrom(nil)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
