package modbus

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

func contains(err error, text string) bool { return strings.Contains(err.Error(), text) }

func TestCheckNamesEveryMistake(t *testing.T) {
	rw := func(address, typ string, params ...string) point.Tag {
		tg := tag("level", address, typ)
		if len(params) > 0 {
			tg.Params = point.Params{params[0]: params[1]}
		}
		return tg
	}
	serial := map[string]any{"transport": "rtu", "port": "/dev/ttyS0"}
	tests := []struct {
		name string
		set  map[string]any
		tags []point.Tag
		want []string // "" at the front means accepted
	}{
		{"empty", nil, nil, []string{`key "address": is missing`}},
		{"least", map[string]any{"address": "plc"}, nil, nil},
		{"ipv6", map[string]any{"address": "[fe80::1]:1502"}, nil, nil},
		{"bad port", map[string]any{"address": "plc:http"}, nil, []string{`key "address"`, "host:port"}},
		{"slip", map[string]any{"address": "plc", "tiemout": "1s"}, nil, []string{`unknown key "tiemout"; did you mean "timeout"?`}},
		{"two mistakes", map[string]any{"address": "plc", "unit": int64(300), "timeout": int64(5)}, nil,
			[]string{`key "unit": 300 is not in 0 to 255`, `key "timeout": 5 is not a duration with a unit`}},
		{"transport", map[string]any{"transport": "rtu-over-tpc", "address": "x"}, nil, []string{`did you mean "rtu-over-tcp"?`}},
		{"serial", serial, nil, nil},
		{"serial with address", withSettings(serial, "address", "plc"), nil, []string{`key "address"`}},
		{"tcp with baud", map[string]any{"address": "plc", "baud": int64(9600)}, nil, []string{`key "baud"`}},
		{"pipelined line", withSettings(serial, "pipeline", int64(4)), nil, []string{`key "pipeline"`, "no transaction id"}},
		{"worst answer", map[string]any{"address": "plc", "worst_answer": "10ms"}, nil, []string{`key "worst_answer"`}},
		{"unit of a line", withSettings(serial, "unit", int64(248)), nil, []string{`key "unit"`}},
		{"order", map[string]any{"address": "plc", "order": "ABDC"}, nil, []string{`order "ABDC"`, "did you mean"}},
		{"tag address", map[string]any{"address": "plc"}, []point.Tag{rw("hodling:1", "")}, []string{`tag "level"`, `did you mean "holding"?`}},
		{"tag type", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "flaot32")}, []string{`did you mean "float32"?`}},
		{"tag key", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "", "oder", "AB")}, []string{`unknown key "oder"; did you mean "order"?`}},
		{"string order", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "string(4)", "order", "CDAB")}, []string{"AB or BA"}},
		{"string length", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "string(251)")}, []string{"1 to 250"}},
		{"string without", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "string")}, []string{"needs a length"}},
		{"bit as number", map[string]any{"address": "plc"}, []point.Tag{rw("coil:1", "int16")}, []string{"is a bit"}},
		{"register as bool", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "bool")}, []string{"name the bit"}},
		{"over the end", map[string]any{"address": "plc"}, []point.Tag{rw("holding:65533", "float64")}, []string{"beyond 65535"}},
		{"at the end", map[string]any{"address": "plc"}, []point.Tag{rw("holding:65532", "float64")}, nil},
		{"write an input", map[string]any{"address": "plc"}, []point.Tag{rw("input:1", "")}, []string{"cannot be written"}},
		{"wider than a block", map[string]any{"address": "plc", "max_registers": int64(2)}, []point.Tag{rw("holding:1", "int64")}, []string{"max_registers"}},
		{"longer than a write", map[string]any{"address": "plc"}, []point.Tag{rw("holding:1", "string(250)")}, []string{"written at once"}},
		{"read a broadcast", withSettings(serial, "unit", int64(0)), []point.Tag{rw("holding:1", "")}, []string{"broadcast"}},
	}
	a := newAdapter(t)
	for _, tt := range tests {
		err := a.Check(protocols.Device{Name: "plc", Settings: tt.set, Tags: tt.tags})
		if len(tt.want) == 0 {
			if err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
			continue
		}
		for _, w := range tt.want {
			if err == nil || !contains(err, w) {
				t.Errorf("%s: %v\nwant it to contain %q", tt.name, err, w)
			}
		}
	}
}

// TestDocumentNamesEverySetting holds the package comment against the code.
func TestDocumentNamesEverySetting(t *testing.T) {
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range transportNames {
		r := reader{m: map[string]any{"transport": name}, known: map[string]bool{}}
		s := &settings{transport: transport(r.choice("transport", transportNames))}
		s.readTarget(&r)
		s.readDevice(&r)
		s.readLink(&r)
		for key := range r.known {
			if !regexp.MustCompile(`(?m)^//\t([a-z0-9_]+ )*` + key + ` `).Match(doc) {
				t.Errorf("%s is not in the package comment", key)
			}
		}
	}
}

func TestDistance(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "abc", 0}, {"abc", "acb", 1}, {"abc", "ab", 1}, {"abc", "xabc", 1}, {"abc", "xyz", 3}, {"tiemout", "timeout", 1}} {
		if got := distance(tt.a, tt.b); got != tt.want {
			t.Errorf("%q to %q: %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
	if got := didYouMean("zzzzz", []string{"timeout"}); got != "" {
		t.Errorf("far off: %q", got)
	}
}
