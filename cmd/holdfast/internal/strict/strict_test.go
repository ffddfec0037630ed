package strict

import (
	"errors"
	"strings"
	"testing"
	"time"
)

type sample struct {
	Name   string   `toml:"name"`
	Wait   Duration `toml:"wait"`
	Budget Size     `toml:"budget"`
	Count  uint8    `toml:"count"`
	Deep   struct {
		Ratio float64 `toml:"ratio"`
		On    bool    `toml:"on"`
	} `toml:"deep"`
	Items []struct {
		Name  string         `toml:"name"`
		Words []string       `toml:"words"`
		Rest  map[string]any `toml:",rest"`
	} `toml:"item"`
	Spans map[string]Duration `toml:"spans"`
	Limit *float64            `toml:"limit"`
}

func TestDecode(t *testing.T) {
	d, err := Parse("f.toml", []byte(`
name = "a"
wait = "1h30m"
budget = "64MiB"
count = 7
limit = 3
deep = { ratio = 0.5, on = true }
[spans]
fast = "250ms"
week = "7d"
[[item]]
name = "one"
words = ["x", "y"]
other = 5
[[item]]
name = "two"
`))
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	d.Decode(&s)
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	if s.Name != "a" || s.Wait.Std() != 90*time.Minute || s.Budget != 64<<20 || s.Count != 7 || s.Limit == nil || *s.Limit != 3 ||
		!s.Deep.On || s.Deep.Ratio != 0.5 || s.Spans["fast"].Std() != 250*time.Millisecond || s.Spans["week"].Std() != 168*time.Hour {
		t.Errorf("decoded %+v", s)
	}
	if len(s.Items) != 2 || s.Items[0].Rest["other"] != int64(5) || len(s.Items[0].Words) != 2 || s.Items[1].Rest != nil {
		t.Errorf("items %+v", s.Items)
	}
}

func TestEveryMistakeIsTold(t *testing.T) {
	d, err := Parse("f.toml", []byte(`nmae = "a"
wait = 5
budget = "64 bananas"
count = 256

[deep]
ratio = "x"
on = "yes"
something_else = 1
[[item]]
name = 3
[[item]]
words = ["a",
  5]
[spans]
fast = "soon"
slow = "-5s"
`))
	if err != nil {
		t.Fatal(err)
	}
	var s sample
	d.Decode(&s)
	got := strings.Split(d.Err().Error(), "\n")
	want := []string{
		`f.toml:1: nmae: unknown key; did you mean "name"?`,
		`f.toml:2: wait: 5 is not a duration`,
		`f.toml:3: budget: "64 bananas" is not a size`,
		`f.toml:4: count: 256 is not a whole number from 0 to 255`,
		`f.toml:7: deep.ratio: "x" is not a number`,
		`f.toml:8: deep.on: "yes" is not true or false`,
		`f.toml:9: deep.something_else: unknown key`,
		`f.toml:11: item[0].name: 3 is not text in quotes`,
		`f.toml:14: item[1].words[1]: 5 is not text in quotes`,
		`f.toml:16: spans.fast: "soon" is not a duration`,
		`f.toml:17: spans.slow: "-5s" is negative`,
	}
	for i := range max(len(got), len(want)) {
		g, w := "", ""
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if g != w {
			t.Errorf("mistake %d:\n got %s\nwant %s", i, g, w)
		}
	}
	var ms Mistakes
	if !errors.As(d.Err(), &ms) || ms[1].Hint == "" || ms[6].Hint != "known here: on, ratio" {
		t.Errorf("hints: %+v", ms)
	}
}

func TestSyntax(t *testing.T) {
	for _, test := range []struct {
		text string
		line int
	}{
		{"a = 1\nb = \n", 2},
		{"a = 1\na = 2\n", 2},
		{"[x]\n\n[x]\n", 3},
	} {
		_, err := Parse("f.toml", []byte(test.text))
		var ms Mistakes
		if !errors.As(err, &ms) || len(ms) != 1 || ms[0].Line != test.line {
			t.Errorf("%q: %+v, want line %d", test.text, err, test.line)
		}
	}
}

func TestNearest(t *testing.T) {
	known := []string{"listener", "budget", "age", "segment", "client_ca"}
	for word, want := range map[string]string{
		"listner": "listener", "lsitener": "listener", "Budget": "budget", "client-ca": "client_ca",
		"aeg": "age", "foo": "", "x": "", "segmentation": "",
	} {
		if got := Nearest(word, known); got != want {
			t.Errorf("Nearest(%q) = %q, want %q", word, got, want)
		}
	}
}

func TestUnitsRoundTrip(t *testing.T) {
	for _, text := range []string{"250ms", "10s", "1h30m", "7d", "2h", "0s"} {
		var d Duration
		if err := d.DecodeTOML(text); err != nil || d.String() != text {
			t.Errorf("%s: %v %v", text, d, err)
		}
	}
	for _, text := range []string{"64MiB", "512KiB", "100B", "1GiB", "0B"} {
		var s Size
		if err := s.DecodeTOML(text); err != nil || s.String() != text {
			t.Errorf("%s: %v %v", text, s, err)
		}
	}
	for _, text := range []string{"", "5", "-5B", "NaNB", "1e30TiB", "MiB"} {
		var s Size
		if err := s.DecodeTOML(text); err == nil {
			t.Errorf("size %q taken as %d", text, s)
		}
	}
}

// FuzzParse: whatever the bytes, Parse and Decode return, and every line that a
// mistake names exists.
func FuzzParse(f *testing.F) {
	f.Add([]byte("a = 1\n[[item]]\nname = 3\nx.\"y z\" = {a = [1, {b = 2}]}\n"))
	f.Add([]byte("[deep]\nratio = 5\n[deep.x]\n[[deep.y.z]]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, err := Parse("f", data)
		if err == nil {
			var s sample
			d.Decode(&s)
			err = d.Err()
		}
		var ms Mistakes
		if errors.As(err, &ms) {
			for _, m := range ms {
				if m.Line > 1+strings.Count(string(data), "\n") {
					t.Errorf("%q: line %d", data, m.Line)
				}
			}
		}
	})
}
