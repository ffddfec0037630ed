package gpio

import (
	"testing"
	"time"
)

func TestParseRef(t *testing.T) {
	for text, want := range map[string]Ref{
		"DOOR":              {Name: "DOOR"},
		"gpiochip0:17":      {Chip: "gpiochip0", Offset: 17},
		"/dev/gpiochip12:0": {Chip: "gpiochip12"},
		"X1:3":              {Name: "X1:3"},
		"gpiochip":          {Name: "gpiochip"},
		"GPIO 4":            {Name: "GPIO 4"},
	} {
		if got, err := ParseRef(text); err != nil || got != want {
			t.Errorf("ParseRef(%q) = %+v, %v; want %+v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", " DOOR", "gpiochip0", "gpiochip0:", "gpiochip0:x", "gpiochip0:-1", "gpiochip0:+1", "gpiochip0:70000", "gpiochipA:1", "/dev/gpiochip0", "/dev/ttyS0"} {
		if got, err := ParseRef(bad); err == nil {
			t.Errorf("ParseRef(%q) = %+v", bad, got)
		}
	}
}

func FuzzParseRef(f *testing.F) {
	f.Add("DOOR")
	f.Add("gpiochip0:17")
	f.Add("/dev/gpiochip0:17")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRef(text)
		if err != nil {
			return
		}
		if again, err := ParseRef(r.String()); err != nil || again != r {
			t.Errorf("%q: %+v, written and read %+v, %v", text, r, again, err)
		}
	})
}

func TestChecks(t *testing.T) {
	for name, err := range map[string]error{
		"input": InputConfig{}.Check(), "edges": EdgeConfig{}.Check(), "output": OutputConfig{}.Check(),
		"long": InputConfig{Debounce: time.Minute}.Check(), "full": EdgeConfig{Queue: 1024}.Check(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"debounce": InputConfig{Debounce: time.Minute + 1}.Check(), "bias": InputConfig{Bias: 9}.Check(),
		"edges": EdgeConfig{Edges: 4}.Check(), "queue": EdgeConfig{Queue: -1}.Check(), "inner": EdgeConfig{InputConfig: InputConfig{Debounce: -1}}.Check(),
		"drive": OutputConfig{Drive: 3}.Check(), "output bias": OutputConfig{Bias: 9}.Check(),
	} {
		if err == nil {
			t.Errorf("a bad %s was accepted", name)
		}
	}
	if c := (EdgeConfig{}).WithDefaults(); c.Edges != Both || c.Queue != 256 {
		t.Errorf("defaults %+v", c)
	}
}
