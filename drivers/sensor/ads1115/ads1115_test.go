package ads1115

import (
	"context"
	"flag"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"periph.io/x/conn/v3/physic"
	"periph.io/x/devices/v3/ads1x15"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2cperiph"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

var seed = flag.Uint64("seed", 0, "seed of the random voltages, 0 for a new one")

func TestConformance(t *testing.T) {
	sensortest.Run(t, sensortest.Chip{
		Open: func(ctx context.Context, bus i2c.Bus, addr uint16, timeout time.Duration, c clock.Clock) (sensor.Sensor, error) {
			d, err := Open(ctx, bus, addr, Options{Inputs: []string{"a0", "a3", "a0-a1"}, Timeout: timeout, Clock: c})
			if err != nil {
				return nil, err
			}
			return d, nil
		},
		Addr: 0x48,
		New: func() sensortest.Model {
			m := i2ctest.NewADS1115()
			m.Set(0, 1.25)
			m.Set(1, 2.5)
			m.Set(3, 0)
			return m
		},
		Want:      []float64{1.25, 0, -1.25},
		Tolerance: []float64{1e-4, 1e-4, 1e-4},
		Foreign:   func(m sensortest.Model) { m.Write([]byte{regHigh, 0x12, 0x34}) },
		Beyond: func(m sensortest.Model) {
			m.(*i2ctest.ADS1115).Set(0, 4.2)
			m.(*i2ctest.ADS1115).Set(1, -0.1)
			m.(*i2ctest.ADS1115).Set(3, -0.3)
		},
	})
}

func opened(t *testing.T, chip i2ctest.Chip, o Options) *Dev {
	t.Helper()
	bus := i2ctest.NewBus("i2c-test")
	bus.Put(0x48, chip)
	d, err := Open(t.Context(), bus, 0x48, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// Table 5: what the output codes mean. At both ends the output clips.
func TestDataSheetCodes(t *testing.T) {
	d := &Dev{volt: 4.096}
	c := d.channel("a0-a1", false)
	tests := []struct {
		code int16
		want float64
		good bool
	}{
		{0x7FFF, 4.096 * 32767 / 32768, false},
		{0x7FFE, 4.096 * 32766 / 32768, true},
		{0x0001, 4.096 / 32768, true},
		{0x0000, 0, true},
		{-1, -4.096 / 32768, true}, // FFFFh
		{-32767, -4.096 * 32767 / 32768, true},
		{-32768, -4.096, false}, // 8000h
	}
	for _, tt := range tests {
		v := d.value(c, tt.code)
		if v.Value != tt.want || (v.Err == nil) != tt.good {
			t.Errorf("code %d = %g, %v; want %g, good %v", tt.code, v.Value, v.Err, tt.want, tt.good)
		}
	}
	// Table 3: the size of one code.
	for mv, uv := range map[int]float64{6144: 187.5, 4096: 125, 2048: 62.5, 1024: 31.25, 512: 15.625, 256: 7.8125} {
		d := &Dev{opts: Options{FullScale: mv}}
		if err := d.plan(); err != nil {
			t.Fatal(err)
		}
		if got := d.channels[0].Resolution * 1e6; math.Abs(got-uv) > 1e-9 {
			t.Errorf("full scale %d mV: one code is %g uV, want %g", mv, got, uv)
		}
	}
}

// The conversion codes and voltages that periph.io's driver is tested with
// (periph.io/x/devices/v3 v3.7.4, ads1x15/ads1x15_test.go): a0-a3 at 6.144 V.
func TestRecordedConversions(t *testing.T) {
	for code, want := range map[uint16]float64{0xFF50: -0.033, 0x52D0: 3.975, 0x52C0: 3.972} {
		config := []byte{0x11, 0x83} // a0-a3, 6.144 V, single, 128 per second
		started := []byte{regConfig, config[0] | 0x80, config[1]}
		bus := i2ctest.NewPlayback([]i2ctest.Op{
			{Addr: 0x48, W: []byte{regLow}, R: []byte{0x80, 0x00}},
			{Addr: 0x48, W: []byte{regHigh}, R: []byte{0x7F, 0xFF}},
			{Addr: 0x48, W: []byte{regConfig, config[0], config[1]}},
			{Addr: 0x48, W: []byte{regConfig}, R: []byte{config[0] | 0x80, config[1]}},
			{Addr: 0x48, W: started},
			{Addr: 0x48, W: []byte{regConfig}, R: config},
			{Addr: 0x48, W: []byte{regConfig}, R: []byte{config[0] | 0x80, config[1]}},
			{Addr: 0x48, W: []byte{regConversion}, R: []byte{byte(code >> 8), byte(code)}},
		})
		d, err := Open(t.Context(), bus, 0x48, Options{Inputs: []string{"a0-a3"}, FullScale: 6144, Clock: &sensortest.Clock{}})
		if err != nil {
			t.Fatal(err)
		}
		if v := d.Sense(t.Context())[0]; v.Err != nil || math.Abs(v.Value-want) > 1e-9 {
			t.Errorf("code 0x%04x = %g, %v; want %g", code, v.Value, v.Err, want)
		}
		if err := bus.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Random voltages at every input and gain, read by periph.io's driver and by
// ours, on the same emulated chip.
func TestAgainstPeriph(t *testing.T) {
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	t.Logf("-seed=%d", s)
	r := rand.New(rand.NewPCG(s, 1115))
	inputs := map[string]ads1x15.Channel{
		"a0": ads1x15.Channel0, "a1": ads1x15.Channel1, "a2": ads1x15.Channel2, "a3": ads1x15.Channel3,
		"a0-a1": ads1x15.Channel0Minus1, "a0-a3": ads1x15.Channel0Minus3, "a1-a3": ads1x15.Channel1Minus3, "a2-a3": ads1x15.Channel2Minus3,
	}
	compared := 0
	for _, scale := range []int{6144, 4096, 2048, 1024, 512, 256} {
		for name, channel := range inputs {
			m := i2ctest.NewADS1115()
			bus := i2ctest.NewBus("i2c-test")
			bus.Put(0x48, m)
			adc, err := ads1x15.NewADS1115(i2cperiph.ToPeriph(t.Context(), bus, 0), &ads1x15.DefaultOpts)
			if err != nil {
				t.Fatal(err)
			}
			pin, err := adc.PinForChannel(channel, physic.ElectricPotential(scale)*physic.MilliVolt, 860*physic.Hertz, ads1x15.SaveEnergy)
			if err != nil {
				t.Fatal(err)
			}
			clk := &sensortest.Clock{}
			ours := opened(t, m, Options{Inputs: []string{name}, FullScale: scale, Rate: 860, Clock: clk})
			for range 10 {
				for i := range 4 {
					m.Set(i, r.Float64()*float64(scale)/1000)
				}
				// periph.io waits in real time, our driver on its own clock.
				began := time.Now()
				m.SetTime(func() time.Duration { return time.Since(began) + time.Hour })
				theirs, err := pin.Read()
				if err != nil {
					t.Fatal(err)
				}
				m.SetTime(clk.Elapsed)
				v := ours.Sense(t.Context())[0]
				if v.Err != nil {
					continue // beyond the scale: periph.io does not say so
				}
				compared++
				if want := float64(theirs.V) / float64(physic.Volt); theirs.Raw == 0 || math.Abs(v.Value-want) > 1e-8 {
					t.Errorf("%s at %d mV: ours %.9g, periph.io %.9g (code %d)", name, scale, v.Value, want, theirs.Raw)
				}
			}
		}
	}
	t.Logf("%d conversions agree", compared)
	if compared < 300 {
		t.Errorf("only %d conversions were in range", compared)
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"inputs": "a3, a0-a1", "full-scale": "2048", "rate": "8"})
	if err != nil || strings.Join(o.Inputs, " ") != "a3 a0-a1" || o.FullScale != 2048 || o.Rate != 8 {
		t.Errorf("ParseOptions = %+v, %v", o, err)
	}
	for _, bad := range []map[string]string{
		{"inputs": "a4"}, {"inputs": "a0,a0"}, {"inputs": ""}, {"full-scale": "4.096"}, {"rate": "100"}, {"gain": "1"},
	} {
		if _, err := ParseOptions(bad); err == nil {
			t.Errorf("ParseOptions(%v) was accepted", bad)
		}
	}
	bus := i2ctest.NewBus("x")
	for _, bad := range []Options{{Inputs: []string{"b0"}}, {Inputs: []string{"a0", "a0"}}, {FullScale: 5000}, {Rate: 1}} {
		if _, err := Open(t.Context(), bus, 0x48, bad); err == nil || bus.Transactions() > 0 {
			t.Errorf("Open(%+v) = %v", bad, err)
		}
	}
	// The default limit must leave room for slow conversions.
	d := &Dev{opts: Options{Rate: 8, Inputs: inputNames()}}
	if err := d.plan(); err != nil || d.opts.Timeout < 8*d.wait {
		t.Errorf("limit %v for 8 conversions of %v, %v", d.opts.Timeout, d.wait, err)
	}
}
