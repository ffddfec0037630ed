package importer

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"holdfast/cmd/holdfast/internal/config"
)

// fuzzKind reads arbitrary bytes as a format. Whatever comes of them that passes
// the adapters' checks can be written, is a correct configuration, and comes back
// from its export.
func fuzzKind(f *testing.F, kind string, files ...string) {
	for _, name := range files {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Read(kind, []Input{{"in." + kind, data}}, Options{Settings: map[string]any{}})
		if err != nil {
			return
		}
		for i := range r.Devices {
			if d := &r.Devices[i]; d.Protocol == "modbus" && d.Settings["transport"] != "rtu" && d.Settings["address"] == nil {
				d.Settings["address"] = "h:502"
			}
		}
		r.Check("in", knownProtocols)
		for _, n := range r.Notes {
			if n.Line < 0 || strings.Contains(n.String(), "\n") || n.Why == "" {
				t.Fatalf("note %q", n)
			}
		}
		plan, err := r.Plan("c.toml", false, readFrom(nil))
		if err != nil {
			t.Fatalf("plan: %v", err)
		}
		out := map[string]string{}
		for _, p := range plan {
			out[p.Path] = string(p.New)
		}
		c, err := load(out, "c.toml")
		if err != nil {
			// Settings that the file gives may be no good to the adapter: that is told
			// when the configuration is checked. The text itself must be sound.
			if strings.Contains(err.Error(), "toml") && !strings.Contains(err.Error(), "field.") {
				t.Fatalf("%v\n%s", err, out["c.toml"])
			}
			return
		}
		exported, err := FromConfig(c).Export()
		if err != nil {
			t.Fatal(err)
		}
		back, err := load(map[string]string{"e.toml": string(exported)}, "e.toml")
		if err != nil {
			t.Fatalf("export: %v\n%s", err, exported)
		}
		for i := range c.Field.Devices {
			if !reflect.DeepEqual(c.Field.Devices[i].Tags, back.Field.Devices[i].Tags) {
				t.Fatalf("tags of device %d differ after an export", i)
			}
		}
	})
}

func FuzzTelegraf(f *testing.F)  { fuzzKind(f, "telegraf", "telegraf.conf") }
func FuzzEdgeX(f *testing.F)     { fuzzKind(f, "edgex", "edgex-profile.yml", "edgex-devices.yml") }
func FuzzPublisher(f *testing.F) { fuzzKind(f, "opc-publisher", "published_nodes.json") }
func FuzzKepware(f *testing.F)   { fuzzKind(f, "kepware", "press.csv") }
func FuzzNeuron(f *testing.F)    { fuzzKind(f, "neuron", "neuron.csv") }

// FuzzHoldfast reads arbitrary configurations of ours.
func FuzzHoldfast(f *testing.F) {
	f.Add([]byte("[[field.device]]\nname = \"a\"\nprotocol = \"modbus\"\naddress = \"h\"\n[[field.device.tag]]\nname = \"x\"\naddress = \"40001\"\n"))
	f.Add([]byte("[field.classes]\n\"a b\" = \"1s\"\n[[field.device]]\nname = \"a\"\nproduct = \"abb-b23\"\naddress = \"h\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := Options{Load: func(in Input) (*config.Config, error) {
			return load(map[string]string{in.Name: string(in.Data)}, in.Name)
		}}
		r, err := Read("holdfast", []Input{{"c.toml", data}}, o)
		if err != nil {
			return
		}
		exported, err := r.Export()
		if err != nil {
			t.Fatal(err)
		}
		again, err := Read("holdfast", []Input{{"e.toml", exported}}, o)
		if err != nil {
			t.Fatalf("%v\n%s", err, exported)
		}
		once, err := again.Export()
		if err != nil || string(once) != string(exported) {
			t.Fatalf("%v\n%s", err, (&File{Path: "export", Old: exported, New: once}).Diff())
		}
	})
}

// FuzzDiff applies what a diff says to the old file and gets the new one.
func FuzzDiff(f *testing.F) {
	f.Add("a\nb\nc\nd\ne\nf\ng\nh\ni\nj\nk\n", "a\nb\nX\nd\ne\nf\ng\nh\ni\nj\nY\nk\n")
	f.Add("", "a\n")
	f.Add("a\n1\n2\n3\n4\n5\n6\n7\nb\n", "1\n2\n3\n4\n5\n6\n7\n")
	f.Fuzz(func(t *testing.T, old, fresh string) {
		if strings.Count(old, "\n") > 100 || strings.Count(fresh, "\n") > 100 {
			return
		}
		before, after := split([]byte(old)), split([]byte(fresh))
		var got []string
		at := 0
		for _, h := range hunks(edits(before, after)) {
			from := h.old - 1
			if from < at {
				t.Fatalf("hunks overlap: line %d after %d", from, at)
			}
			got = append(got, before[at:from]...)
			at = from
			if len(got) != h.new-1 {
				t.Fatalf("a hunk begins at new line %d, not %d", len(got)+1, h.new)
			}
			changed := false
			for _, e := range h.edits {
				changed = changed || e.kind != ' '
				if e.kind != '+' {
					if before[at] != e.text {
						t.Fatalf("line %d is not %q", at+1, e.text)
					}
					at++
				}
				if e.kind != '-' {
					got = append(got, e.text)
				}
			}
			if !changed {
				t.Fatal("a hunk without a change")
			}
		}
		got = append(got, before[at:]...)
		if strings.Join(got, "\n") != strings.Join(after, "\n") || len(got) != len(after) {
			t.Fatalf("got %q, want %q", got, after)
		}
	})
}
