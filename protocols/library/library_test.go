package library

import (
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/protocols"
	"holdfast/protocols/modbus"
	"holdfast/protocols/tagfile"
)

// settingsFor completes a product's settings with where a device would be.
func settingsFor(p *Product, transport string) map[string]any {
	own := map[string]any{"transport": transport, "address": "10.0.0.7"}
	if transport == "rtu" {
		own = map[string]any{"transport": "rtu", "port": "/dev/ttyS0"}
	}
	return p.DeviceSettings(own)
}

// TestProducts reads every file of the library and has the adapter check it on
// every transport.
func TestProducts(t *testing.T) {
	names := Names()
	if len(names) < 5 {
		t.Fatalf("only %d products", len(names))
	}
	for _, name := range names {
		t.Run(name, func(t *testing.T) {
			p, err := Find(name)
			if err != nil {
				t.Fatal(err)
			}
			if p.Protocol != "modbus" {
				t.Fatalf("no check for protocol %q here", p.Protocol)
			}
			a := modbus.New(protocols.Env{}, modbus.Options{})
			for _, transport := range []string{"tcp", "rtu", "rtu-over-tcp"} {
				d := protocols.Device{Name: name, Protocol: p.Protocol, Settings: settingsFor(p, transport), Tags: p.Tags}
				if err := a.Check(d); err != nil {
					t.Errorf("%s: %v", transport, err)
				}
			}
			seen := map[string]string{}
			for _, tag := range p.Tags {
				if other, twice := seen[tag.Address]; twice {
					t.Errorf("%s and %s are at the same place", other, tag.Name)
				}
				seen[tag.Address] = tag.Name
				if tag.Access.Writable() && (tag.Min == nil || tag.Max == nil) {
					t.Errorf("tag %q can be written without limits", tag.Name)
				}
				if tag.Name != strings.ToLower(tag.Name) {
					t.Errorf("tag %q is not in lower case", tag.Name)
				}
			}
		})
	}
}

// TestDocumentedExample keeps FORMAT.md true.
func TestDocumentedExample(t *testing.T) {
	doc, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(doc), "```toml\n")
	text, _, ok := strings.Cut(rest, "```")
	p, err := Parse([]byte(text), "FORMAT.md")
	if !ok || err != nil || p.Name != "acme-pump3" || p.Settings["max_registers"] != int64(32) || p.Serial["baud"] != int64(9600) || p.Tags[0].Name != "speed" {
		t.Errorf("%+v, %v", p, err)
	}
}

func TestFindUnknown(t *testing.T) {
	if _, err := Find("eastron-sdm63"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
	if _, err := Find("../library_test"); !errors.Is(err, ErrUnknown) {
		t.Error(err)
	}
}

func TestMistakes(t *testing.T) {
	good := "product = \"a\"\nmaker = \"A\"\nmodel = \"1\"\nprotocol = \"modbus\"\n[[source]]\ntitle = \"t\"\nurl = \"https://x\"\n[[tag]]\nname = \"x\"\naddress = \"40001\"\n"
	if _, err := Parse([]byte(good), "a.toml"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ old, new, want string }{
		{"maker = \"A\"\n", "", "a.toml: maker: want a text"},
		{"maker", "colour = 5\nmaker", `unknown key "colour"`},
		{"url = \"https://x\"", "", "source 1: want a title and the url"},
		{"[[source]]\ntitle = \"t\"\nurl = \"https://x\"\n", "", "there is no [[source]]"},
		{"address = \"40001\"", "adress = \"40001\"", `did you mean "address"`},
		{"[[tag]]\nname = \"x\"\naddress = \"40001\"\n", "", "there are no tags"},
		{"[[tag]]", "[[tag]]\nname = \"x\"\naddress = \"1\"\n[[tag]]", `tag "x" is there twice`},
		{"[[source]]", "settings = 5\n[[source]]", "settings: want a table"},
		{"[[source]]", "notes = [5]\n[[source]]", "notes: want texts"},
		{"[[tag]]", "[settings]\nbaud = 1\n[serial]\nbaud = 2\n[[tag]]", `"baud" is in settings too`},
		{"product", "product = ", "a.toml: "},
	} {
		_, err := Parse([]byte(strings.Replace(good, c.old, c.new, 1)), "a.toml")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.want, err)
		}
	}
}

// TestDevice puts a device's own settings and tags over a product's.
func TestDevice(t *testing.T) {
	p, err := Find("carlo-gavazzi-em24")
	if err != nil {
		t.Fatal(err)
	}
	s := p.DeviceSettings(map[string]any{"order": "ABCD", "address": "h"})
	if !maps.Equal(s, map[string]any{"order": "ABCD", "address": "h"}) {
		t.Errorf("settings: %v", s)
	}
	e, err := Find("epever-tracer-b")
	if err != nil {
		t.Fatal(err)
	}
	s = e.DeviceSettings(map[string]any{"transport": "rtu", "baud": int64(9600)})
	if s["baud"] != int64(9600) || s["parity"] != "none" || s["order"] != "CDAB" {
		t.Errorf("line: %v", s)
	}
	own := []map[string]any{
		{"name": "power", "class": "fast", "eng_low": 0.0, "eng_high": 10.0, "raw_low": int64(0), "raw_high": int64(100)},
		{"name": "extra", "address": "input:900"},
	}
	tables, err := p.DeviceTags(own, []string{"voltage_l?"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, table := range tables {
		tag, err := tagfile.FromTable(table.Keys)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, tag.Name)
		if tag.Name == "power" && (tag.Class != "fast" || tag.Scale.EngHigh != 10 || tag.Unit != "W" || table.Own != 0) {
			t.Errorf("power: %+v", tag)
		}
	}
	want := []string{"voltage_l1", "voltage_l2", "voltage_l3", "voltage_ll", "power", "extra"}
	slices.Sort(names)
	slices.Sort(want)
	if !slices.Equal(names, want) {
		t.Errorf("tags %v, want %v", names, want)
	}
	if all, err := p.DeviceTags(nil, nil); err != nil || len(all) != len(p.Tags) || all[0].Own != -1 {
		t.Errorf("all: %d, %v", len(all), err)
	}
	if _, err := p.DeviceTags(nil, []string{"nothing*"}); err == nil || !strings.Contains(err.Error(), "nothing*") {
		t.Errorf("pattern without a match: %v", err)
	}
	if _, err := p.DeviceTags(nil, []string{"[["}); err == nil {
		t.Error("malformed pattern")
	}
	if tag := p.Tables[0]; tag["class"] != nil {
		t.Error("the library was changed")
	}
}

// TestParamsMerge keeps the product's parameters that the device does not give.
func TestParamsMerge(t *testing.T) {
	got := over(map[string]any{"params": map[string]any{"order": "CDAB", "a": "1"}}, map[string]any{"params": map[string]any{"a": "2"}})
	if p := got["params"].(map[string]any); p["order"] != "CDAB" || p["a"] != "2" {
		t.Errorf("%v", got)
	}
}

// FuzzParse reads arbitrary files.
func FuzzParse(f *testing.F) {
	paths, err := filepath.Glob("products/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range paths {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data[:min(len(data), 2000)])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data, "x.toml")
		if err == nil && (len(p.Tags) == 0 || len(p.Sources) == 0) {
			t.Fatal("a product without tags or sources")
		}
	})
}
