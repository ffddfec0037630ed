package spi

import "testing"

func TestConfig(t *testing.T) {
	if err := (Config{}).Check(); err != nil {
		t.Error(err)
	}
	if c := (Config{}).WithDefaults(); c.Hertz != 1_000_000 || c.Bits != 8 {
		t.Errorf("defaults %+v", c)
	}
	for name, c := range map[string]Config{"clock": {Hertz: -1}, "mode": {Mode: 4}, "bits": {Bits: 33}} {
		if c.Check() == nil {
			t.Errorf("a bad %s was accepted", name)
		}
	}
}

func TestCheckTx(t *testing.T) {
	b := make([]byte, 10)
	tests := []struct {
		half    bool
		largest int
		w, r    int
		good    bool
	}{
		{false, 0, 0, 0, false},
		{false, 0, 3, 3, true},
		{false, 0, 3, 0, true},
		{false, 0, 0, 3, true},
		{false, 0, 3, 2, false},
		{false, 4, 4, 4, true},
		{false, 4, 5, 5, false},
		{true, 0, 3, 2, true},
		{true, 4, 3, 2, false},
	}
	for _, tt := range tests {
		if err := CheckTx(Config{HalfDuplex: tt.half}, tt.largest, b[:tt.w], b[:tt.r]); (err == nil) != tt.good {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}
