package max31865

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
	"holdfast/drivers/spi"
	"holdfast/drivers/spi/spitest"
)

func TestConformance(t *testing.T) {
	for name, o := range map[string]Options{
		"pt100": {}, "pt1000": {Element: 1000, Reference: 4300, Wires: 3, Mains: 60},
	} {
		t.Run(name, func(t *testing.T) {
			element, reference := 100.0, 400.0
			if o.Element != 0 {
				element, reference = o.Element, o.Reference
			}
			sensortest.RunSPI(t, sensortest.SPIChip{
				Open: func(ctx context.Context, conn spi.Conn, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
					o := o
					o.Timeout, o.Clock = timeout, c
					d, err := Open(ctx, conn, o)
					if err != nil {
						return nil, err
					}
					return d, nil
				},
				New: func() sensortest.SPIModel {
					m := spitest.NewMAX31865(reference)
					m.Set(element * 0.6026) // -100 Cel in the table of IEC 60751: 60.26 Ohm
					return m
				},
				Want:      []float64{-100, element * 0.6026},
				Tolerance: []float64{0.05, reference / 32768},
				Beyond:    func(m sensortest.SPIModel) { m.(*spitest.MAX31865).Set(element * 3.95) },
			})
		})
	}
}

// Table 9 of the data sheet: temperature, resistance as in IEC 60751, and the code
// of a Pt100 with a reference of 400 Ohm.
func table9() [][3]float64 {
	return [][3]float64{
		{-200, 18.52, 1517}, {-175, 29.22, 2394}, {-150, 39.72, 3254}, {-125, 50.06, 4101}, {-100, 60.26, 4936}, {-75, 70.33, 5762},
		{-50, 80.31, 6579}, {-40, 84.27, 6903}, {-30, 88.22, 7227}, {-20, 92.16, 7550}, {-10, 96.09, 7871}, {0, 100.00, 8192},
		{10, 103.90, 8512}, {20, 107.79, 8830}, {30, 111.67, 9148}, {40, 115.54, 9465}, {50, 119.40, 9781}, {60, 123.24, 10096},
		{70, 127.08, 10410}, {80, 130.90, 10723}, {90, 134.71, 11035}, {100, 138.51, 11346}, {110, 142.29, 11657}, {120, 146.07, 11966},
		{130, 149.83, 12274}, {140, 153.58, 12582}, {150, 157.33, 12888}, {160, 161.05, 13194}, {170, 164.77, 13498}, {180, 168.48, 13802},
		{190, 172.17, 14104}, {200, 175.86, 14406}, {225, 185.01, 15156}, {250, 194.10, 15901},
	}
}

// The table's resistances are rounded to 0.01 Ohm, its codes to 1 (0.012 Ohm).
func TestTable9(t *testing.T) {
	m, clk := spitest.NewMAX31865(400), &sensortest.Clock{}
	m.SetTime(clk.Elapsed)
	d, err := Open(t.Context(), spitest.Func("spi-test", m.Transfer), Options{Timeout: time.Minute, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range table9() {
		if got := 100 * ratio(row[0]); math.Abs(got-row[1]) > 0.0051 {
			t.Errorf("R(%g) = %.4f, want %g", row[0], got, row[1])
		}
		if got := celsius(row[1] / 100); math.Abs(got-row[0]) > 0.014 {
			t.Errorf("%g Ohm = %.4f Cel, want %g", row[1], got, row[0])
		}
		m.SetCode(uint16(row[2]))
		vs := d.Sense(t.Context())
		if vs[0].Err != nil || math.Abs(vs[0].Value-row[0]) > 0.035 || math.Abs(vs[1].Value-row[1]) > 0.0123 {
			t.Errorf("code %g = %+v, want %g Cel, %g Ohm", row[2], vs, row[0], row[1])
		}
	}
}

// Points of the reference table of IEC 60751 above what table 9 has.
func TestIEC60751(t *testing.T) {
	for temperature, ohms := range map[float64]float64{-200: 18.52, 300: 212.05, 400: 247.09, 500: 280.98, 600: 313.71, 700: 345.28, 800: 375.70, 850: 390.48} {
		if got := 100 * ratio(temperature); math.Abs(got-ohms) > 0.0051 {
			t.Errorf("R(%g) = %.4f, want %g", temperature, got, ohms)
		}
	}
	for t100 := leastCelsius * 100; t100 <= mostCelsius*100; t100++ {
		want := float64(t100) / 100
		if got := celsius(ratio(want)); math.Abs(got-want) > 1e-9 {
			t.Fatalf("celsius(ratio(%g)) = %.12f", want, got)
		}
	}
	last := -math.MaxFloat64
	for code := range 32768 { // beyond the range it goes on steadily
		c := celsius(float64(code) * 4.3 / 32768)
		if !(c > last) {
			t.Fatalf("code %d: %g after %g", code, c, last)
		}
		last = c
	}
}

// Codes that somebody read from two chips with a reference of 4 kOhm and Pt1000,
// and the degrees printed beside them without their decimals, computed on an 8-bit
// controller (Arduino forum, thread 187305).
func TestRecording(t *testing.T) {
	for raw, whole := range map[uint16]float64{
		0x45BC: 22, 0x45CA: 23, 0x45CE: 23, 0x45C8: 23, 0x45D2: 23, 0x45DC: 23, 0x45B0: 22, 0x45F0: 23,
	} {
		got := celsius(float64(raw>>1) / 32768 * 4000 / 1000)
		if got < whole-0.02 || got >= whole+1.02 {
			t.Errorf("0x%04X = %.3f Cel, printed as %g", raw, got, whole)
		}
	}
}

// Every fault is told, names its cause, and is over when the cause is.
func TestFaults(t *testing.T) {
	m, clk := spitest.NewMAX31865(400), &sensortest.Clock{}
	m.SetTime(clk.Elapsed)
	m.Set(110)
	d, err := Open(t.Context(), spitest.Func("spi-test", m.Transfer), Options{Timeout: time.Minute, Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		what string
		make func()
		want string
	}{
		{"open", func() { m.Set(1e6) }, "above the threshold"},
		{"short", func() { m.Set(0) }, "below the threshold"},
		{"REFIN- high", func() { m.Break(0x20) }, "REFIN- too high"},
		{"REFIN- low", func() { m.Break(0x10) }, "REFIN- too low"},
		{"RTDIN- low", func() { m.Break(0x08) }, "RTDIN- too low"},
		{"voltage", func() { m.Break(0x04) }, "beyond the supply"},
		{"several", func() { m.Break(0x18); m.Set(1e6) }, "above the threshold: open thermometer or wire; REFIN- too low"},
	} {
		tt.make()
		for range 2 {
			for _, v := range d.Sense(t.Context()) {
				if !errors.Is(v.Err, sensor.ErrFault) || !strings.Contains(v.Err.Error(), tt.want) {
					t.Errorf("%s: %v, want %q", tt.what, v.Err, tt.want)
				}
			}
		}
		m.Set(110)
		m.Break(0)
		if vs := d.Sense(t.Context()); sensor.FirstError(vs) != nil || math.Abs(vs[1].Value-110) > 0.013 {
			t.Errorf("after %s: %+v", tt.what, vs)
		}
	}
}

// The bias is on only while it is needed.
func TestBiasIsOff(t *testing.T) {
	m, clk := spitest.NewMAX31865(400), &sensortest.Clock{}
	m.SetTime(clk.Elapsed)
	m.Set(110)
	conn := spitest.Func("spi-test", m.Transfer)
	d, err := Open(t.Context(), conn, Options{Clock: clk, Mains: 60, Wires: 3})
	if err != nil {
		t.Fatal(err)
	}
	d.Sense(t.Context())
	r := make([]byte, 2)
	if err := conn.Tx(t.Context(), []byte{0, 0}, r); err != nil || r[1] != 0x10 {
		t.Errorf("configuration 0x%02x, %v; want three wires, 60 Hz, and no bias", r[1], err)
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"element": "pt1000", "reference": "4300", "wires": "3", "mains": "60", "settle": "2ms"})
	if err != nil || o.Element != 1000 || o.Reference != 4300 || o.Wires != 3 || o.Mains != 60 || o.Settle != 2*time.Millisecond {
		t.Errorf("%+v, %v", o, err)
	}
	if _, err := ParseOptions(nil); err == nil || !strings.Contains(err.Error(), "reference resistor in Ohm") {
		t.Errorf("no reference: %v", err)
	}
	for key, bad := range map[string]string{"element": "pt500", "reference": "1", "wires": "5", "mains": "55", "refernce": "430"} {
		text := map[string]string{"reference": "430"}
		text[key] = bad
		if _, err := ParseOptions(text); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %s: %v", key, bad, err)
		}
	}
	for _, o := range []Options{{Wires: 5}, {Mains: 55}, {Reference: 1}, {Element: -1}} {
		if _, err := Open(t.Context(), spitest.Func("x", func(w, r []byte) error { return nil }), o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
	if c := SPI(); c.Check() != nil || c.Mode != 1 {
		t.Errorf("%+v", c)
	}
}
