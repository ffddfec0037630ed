package sensor

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"
)

func TestChannelCheck(t *testing.T) {
	c := Channel{Name: "temperature", Unit: "Cel", Min: -40, Max: 85}
	for v, good := range map[float64]bool{-40: true, 0: true, 85: true, -40.001: false, 85.001: false, math.Inf(1): false} {
		got := c.Check(v)
		if got.Value != v || (got.Err == nil) != good || !good && !errors.Is(got.Err, ErrRange) {
			t.Errorf("Check(%g) = %+v, want good %v", v, got, good)
		}
	}
	if v := c.Check(math.NaN()); !errors.Is(v.Err, ErrRange) {
		t.Errorf("Check(NaN) = %+v", v)
	}
	if text := c.Check(99.5).Err.Error(); text != "temperature 99.5 Cel: outside the measuring range -40 to 85" {
		t.Errorf("text %q", text)
	}
}

func TestFailed(t *testing.T) {
	err := errors.New("gone")
	vs := Failed(3, err)
	if len(vs) != 3 || FirstError(vs) != err || FirstError([]Value{{Value: 1}}) != nil {
		t.Errorf("Failed = %+v", vs)
	}
}

func TestSettings(t *testing.T) {
	given := map[string]string{"timeout": " 200ms ", "rate": "8", "kind": "b", "inputs": "x, z", "ohms": " 2.5", "name": "hwmon0 "}
	s := NewSettings(given)
	if d := s.Duration("timeout", 0); d != 200*time.Millisecond {
		t.Errorf("timeout = %v", d)
	}
	if n := s.Int("rate", 1, 8, 16); n != 8 {
		t.Errorf("rate = %d", n)
	}
	if c := s.Choice("kind", "a", "a", "b"); c != "b" {
		t.Errorf("kind = %q", c)
	}
	if l := s.List("inputs", nil, "x", "y", "z"); strings.Join(l, "") != "xz" {
		t.Errorf("inputs = %q", l)
	}
	if f := s.Float("ohms", 1, 0.5, 3); f != 2.5 {
		t.Errorf("ohms = %g", f)
	}
	if f := s.Float("absent", 7, 0, 1); f != 7 {
		t.Errorf("absent = %g", f)
	}
	if text := s.Text("name"); text != "hwmon0" {
		t.Errorf("name = %q", text)
	}
	if n := s.Int("absent", 7, 1); n != 7 {
		t.Errorf("absent = %d", n)
	}
	if err := s.Err(); err != nil {
		t.Errorf("Err = %v", err)
	}
}

func TestSettingsErrors(t *testing.T) {
	s := NewSettings(map[string]string{"timeout": "5", "rate": "9", "kind": "", "inputs": "x,x", "oversampling": "1", "Rate": "8", "ohms": "nan", "shunt": "9"})
	s.Float("ohms", 1, 0, 5)
	s.Float("shunt", 1, 0, 5)
	s.Missing("device", "a name")
	s.Duration("timeout", time.Second)
	s.Int("rate", 1, 8, 16)
	s.Choice("kind", "a", "a", "b")
	s.List("inputs", nil, "x", "y")
	err := s.Err()
	for _, want := range []string{
		`option "timeout": "5": want a duration such as 500ms`,
		`option "rate": "9": want one of 8 16`,
		`option "kind": "": want one of a, b`,
		`option "inputs": "x,x": want some of x, y`,
		`option "oversampling": unknown, there are ohms, shunt, timeout, rate, kind, inputs`,
		`option "ohms": "nan": want a number from 0 to 5`,
		`option "shunt": "9": want a number from 0 to 5`,
		`option "device": missing: want a name`,
		`option "Rate": unknown, did you mean "rate"?`,
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error lacks %q:\n%v", want, err)
		}
	}
	if err := NewSettings(map[string]string{"a": "b"}).Err(); err == nil || !strings.Contains(err.Error(), "there are none") {
		t.Errorf("a driver without options: %v", err)
	}
}

func TestEdits(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"abc", "abc", 0}, {"", "ab", 2}, {"kitten", "sitting", 3}, {"bme28", "bme280", 1}} {
		if got := edits(tt.a, tt.b); got != tt.want {
			t.Errorf("edits(%q, %q) = %d, want %d", tt.a, tt.b, got, tt.want)
		}
	}
}

func TestWaitInRealTime(t *testing.T) {
	if err := Wait(t.Context(), nil, time.Microsecond); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, d := range []time.Duration{0, time.Hour} {
		if err := Wait(ctx, nil, d); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait(%v) = %v, want canceled", d, err)
		}
	}
}
