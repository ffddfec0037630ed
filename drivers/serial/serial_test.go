package serial

import (
	"testing"
	"time"
)

func TestTimes(t *testing.T) {
	tests := []struct {
		setting        string
		bits           int
		char, t15, t35 time.Duration
	}{
		// 11 bits a character: 11/9600 s = 1145.83 us, times 1.5 and 3.5.
		{"9600 8E1", 11, 1145834, 1718750, 4010417},
		{"9600 8N2", 11, 1145834, 1718750, 4010417},
		{"9600 8N1", 10, 1041667, 1562500, 3645834},
		{"19200 8E1", 11, 572917, 859375, 2005209},
		{"1200 7E1", 10, 8333334, 12500000, 29166667},
		// Above 19200 the gaps are fixed (2.5.1.1).
		{"38400 8E1", 11, 286459, 750000, 1750000},
		{"115200 8N1", 10, 86806, 750000, 1750000},
	}
	for _, tt := range tests {
		c, err := ParseConfig(tt.setting)
		if err != nil {
			t.Errorf("%s: %v", tt.setting, err)
			continue
		}
		if c.CharBits() != tt.bits || c.CharTime() != tt.char || c.T15() != tt.t15 || c.T35() != tt.t35 {
			t.Errorf("%s: %d bits, character %d, t1.5 %d, t3.5 %d; want %d, %d, %d, %d", tt.setting,
				c.CharBits(), c.CharTime(), c.T15(), c.T35(), tt.bits, tt.char, tt.t15, tt.t35)
		}
	}
	// The longest frame at the lowest speed must not overflow.
	if d := (Config{Baud: 50, DataBits: 8, Parity: ParityNone}).Duration(256); d != 51200*time.Millisecond {
		t.Errorf("256 characters at 50 baud: %v", d)
	}
}

func TestParseConfig(t *testing.T) {
	for text, want := range map[string]string{
		"9600": "9600 8E1", "9600 8n1": "9600 8N1", " 115200  7O2 ": "115200 7O2", "250000 8M1": "250000 8M1",
	} {
		if c, err := ParseConfig(text); err != nil || c.String() != want {
			t.Errorf("ParseConfig(%q) = %v, %v; want %s", text, c, err, want)
		}
	}
	for _, bad := range []string{"", "x", "9600 8E", "9600 8E1 x", "0 8E1", "-9600", "49", "9600 9E1", "9600 4N1", "9600 8X1", "9600 8N3", "9600 \u00808N", "9600 8E0"} {
		if c, err := ParseConfig(bad); err == nil {
			t.Errorf("ParseConfig(%q) = %v", bad, c)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add("19200 8E1")
	f.Add("115200")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseConfig(text)
		if err != nil {
			return
		}
		if again, err := ParseConfig(c.String()); err != nil || again != c {
			t.Errorf("%q: %v, written and read %v, %v", text, c, again, err)
		}
	})
}

func TestCheck(t *testing.T) {
	if err := (Config{}).Check(); err != nil {
		t.Errorf("the zero value: %v", err)
	}
	if s := (Config{}).String(); s != "19200 8E1" {
		t.Errorf("the zero value is %q", s)
	}
	for name, c := range map[string]Config{
		"delay":    {RS485: RS485{DelayAfter: 101 * time.Millisecond}},
		"negative": {RS485: RS485{DelayBefore: -1}},
		"both":     {RTSCTS: true, RS485: RS485{Enabled: true}},
		"parity":   {Parity: 'X'},
	} {
		if c.Check() == nil {
			t.Errorf("%s was accepted", name)
		}
	}
}
