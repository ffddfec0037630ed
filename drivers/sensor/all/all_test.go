package all

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
)

// Every line of the table opens its chip at its first address, and only there.
func TestOpen(t *testing.T) {
	models := map[string]func() i2ctest.Chip{
		"ads1115": func() i2ctest.Chip { return i2ctest.NewADS1115() },
		"bme280":  func() i2ctest.Chip { return i2ctest.NewBME280(i2ctest.TypicalBME280()) },
		"bmp280":  func() i2ctest.Chip { return i2ctest.NewBMP280(i2ctest.TypicalBME280()) },
		"lm75":    func() i2ctest.Chip { return i2ctest.NewLM75() },
		"lm75b":   func() i2ctest.Chip { return i2ctest.NewLM75B() },
		"mcp9808": func() i2ctest.Chip { return i2ctest.NewMCP9808() },
		"tmp102":  func() i2ctest.Chip { return i2ctest.NewTMP102() },
	}
	if !slices.IsSorted(Names()) {
		t.Errorf("names are not sorted: %v", Names())
	}
	for _, c := range chips() {
		model, ok := models[c.name]
		if !ok {
			t.Errorf("%s: no model to test it on", c.name)
			continue
		}
		bus := i2ctest.NewBus("i2c-test")
		bus.Put(c.addresses[0], model())
		s, err := Open(t.Context(), c.name, sensor.Bus{I2C: bus}, 0, map[string]string{"timeout": "30s"})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if vs := s.Sense(t.Context()); len(vs) != len(s.Channels()) || vs[0].Err != nil {
			t.Errorf("%s: %+v", c.name, vs)
		}
		if err := s.Close(); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if s, err := Open(t.Context(), c.name, sensor.Bus{I2C: bus}, c.addresses[1], nil); s != nil || !errors.Is(err, i2c.ErrNACK) {
			t.Errorf("%s at an empty address: %v, %v; want nil, ErrNACK", c.name, s, err)
		}
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name    string
		addr    uint16
		options map[string]string
		want    string // part of the error; none if empty
	}{
		{"bme280", 0, nil, ""},
		{"bme280", 0x77, map[string]string{"pressure": "16"}, ""},
		{"tmp102", 0x48, nil, ""},
		{"bme28", 0, nil, `sensor chip "bme28": unknown, did you mean "bme280"?`},
		{"BME280", 0, nil, `did you mean "bme280"?`},
		{"thermocouple", 0, nil, `there are ads1115, bme280,`},
		{"bme280", 0x48, nil, `sensor chip "bme280": address 0x48: want one of 0x76, 0x77`},
		{"mcp9808", 0, map[string]string{"timeot": "1s"}, `sensor chip "mcp9808": option "timeot": unknown, did you mean "timeout"?`},
		{"bme280", 0, map[string]string{"pressure": "3"}, `option "pressure": "3": want one of 1 2 4 8 16`},
	}
	for _, tt := range tests {
		_, err := Check(tt.name, sensor.I2C, tt.addr, tt.options)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("Check(%q, 0x%02x, %v) = %v, want %q", tt.name, tt.addr, tt.options, err, tt.want)
		}
	}
}
