package all

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
	"holdfast/drivers/spi/spitest"
)

// bench is a machine with one chip of each kind.
type bench struct {
	i2c    *i2ctest.Bus
	spi    *spitest.MAX31865
	closed int // SPI connections
	files  fstest.MapFS
}

func newBench() *bench {
	m := spitest.NewMAX31865(430)
	m.Set(110)
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text + "\n")} }
	return &bench{i2c: i2ctest.NewBus("i2c-test"), spi: m, files: fstest.MapFS{
		"28-000004a1c1e6/w1_slave":                  file("79 01 4b 46 7f ff 07 10 0a : crc=0a YES"),
		"class/hwmon/hwmon0/name":                   file("cpu_thermal"),
		"class/hwmon/hwmon0/temp1_input":            file("48000"),
		"bus/iio/devices/iio:device0/name":          file("bme280"),
		"bus/iio/devices/iio:device0/in_temp_input": file("21000"),
	}}
}

func (b *bench) bus(on sensor.Kind) sensor.Bus {
	switch on {
	case sensor.I2C:
		return sensor.Bus{I2C: b.i2c}
	case sensor.SPI:
		return sensor.Bus{SPI: func(_ context.Context, c spi.Config) (spi.ConnCloser, error) {
			if c.Mode != 1 {
				return nil, errors.New("not the chip's mode")
			}
			return &conn{Conn: spitest.Func("spi-test", b.spi.Transfer), b: b}, nil
		}}
	case sensor.OneWire:
		return sensor.Bus{OneWire: b.files}
	}
	return sensor.Bus{Sysfs: b.files}
}

type conn struct {
	spi.Conn
	b *bench
}

func (c *conn) Close() error {
	c.b.closed++
	return nil
}

// Every line of the table opens its chip, on I2C at its first address, and only
// there.
func TestOpen(t *testing.T) {
	models := map[string]func() i2ctest.Chip{
		"ads1115":  func() i2ctest.Chip { return i2ctest.NewADS1115() },
		"bme280":   func() i2ctest.Chip { return i2ctest.NewBME280(i2ctest.TypicalBME280()) },
		"bmp280":   func() i2ctest.Chip { return i2ctest.NewBMP280(i2ctest.TypicalBME280()) },
		"ina226":   func() i2ctest.Chip { return i2ctest.NewINA226() },
		"lm75":     func() i2ctest.Chip { return i2ctest.NewLM75() },
		"lm75b":    func() i2ctest.Chip { return i2ctest.NewLM75B() },
		"mcp23017": func() i2ctest.Chip { return i2ctest.NewMCP23017() },
		"mcp9808":  func() i2ctest.Chip { return i2ctest.NewMCP9808() },
		"sht4x":    func() i2ctest.Chip { return i2ctest.NewSHT4x() },
		"tmp102":   func() i2ctest.Chip { return i2ctest.NewTMP102() },
	}
	if !slices.IsSorted(Names()) {
		t.Errorf("names are not sorted: %v", Names())
	}
	for _, c := range chips() {
		b := newBench()
		options := map[string]string{"timeout": "30s"}
		switch model := models[c.name]; {
		case model != nil:
			b.i2c.Put(c.addresses[0], model())
		case c.kind == sensor.I2C:
			t.Errorf("%s: no model to test it on", c.name)
			continue
		case c.kind == sensor.SPI:
			options["reference"] = "430"
		}
		s, err := Open(t.Context(), c.name, b.bus(c.kind), 0, options)
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
		if err := s.Close(); err != nil || c.kind == sensor.SPI && b.closed != 1 {
			t.Errorf("%s: closed again: %v, connections closed %d times", c.name, err, b.closed)
		}
		if c.kind != sensor.I2C {
			continue
		}
		if s, err := Open(t.Context(), c.name, b.bus(c.kind), c.addresses[1], nil); s != nil || !errors.Is(err, i2c.ErrNACK) {
			t.Errorf("%s at an empty address: %v, %v; want nil, ErrNACK", c.name, s, err)
		}
	}
}

// A connection to a chip that is not there is closed again.
func TestOpenFails(t *testing.T) {
	b := newBench()
	absent := sensor.Bus{SPI: func(context.Context, spi.Config) (spi.ConnCloser, error) {
		return &conn{Conn: spitest.Func("spi-test", func(w, r []byte) error { return nil }), b: b}, nil
	}}
	s, err := Open(t.Context(), "max31865", absent, 0, map[string]string{"reference": "430"})
	if s != nil || !errors.Is(err, sensor.ErrImplausible) || b.closed != 1 {
		t.Errorf("%v, %v; %d connections closed", s, err, b.closed)
	}
	b.files = fstest.MapFS{}
	for _, name := range []string{"ds18b20", "hwmon", "iio"} {
		kind := sensor.Sysfs
		if name == "ds18b20" {
			kind = sensor.OneWire
		}
		if s, err := Open(t.Context(), name, b.bus(kind), 0, nil); s != nil || !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v, %v; want nil, ErrNotExist", name, s, err)
		}
	}
}

func TestOutputs(t *testing.T) {
	got, err := Check("mcp23017", sensor.I2C, 0, map[string]string{"outputs": "a0,b7"})
	if err != nil || !slices.Equal(got, []string{"a0", "b7"}) {
		t.Errorf("%q, %v", got, err)
	}
	if got, err := Check("bme280", sensor.I2C, 0, nil); err != nil || got != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name    string
		on      sensor.Kind
		addr    uint16
		options map[string]string
		want    string // part of the error; none if empty
	}{
		{"bme280", sensor.I2C, 0, nil, ""},
		{"bme280", sensor.I2C, 0x77, map[string]string{"pressure": "16"}, ""},
		{"tmp102", sensor.I2C, 0x48, nil, ""},
		{"bme28", sensor.I2C, 0, nil, `sensor chip "bme28": unknown, did you mean "bme280"?`},
		{"BME280", sensor.I2C, 0, nil, `did you mean "bme280"?`},
		{"thermocouple", sensor.I2C, 0, nil, `there are ads1115, bme280,`},
		{"bme280", sensor.I2C, 0x48, nil, `sensor chip "bme280": address 0x48: want one of 0x76, 0x77`},
		{"mcp9808", sensor.I2C, 0, map[string]string{"timeot": "1s"}, `sensor chip "mcp9808": option "timeot": unknown, did you mean "timeout"?`},
		{"max31865", sensor.SPI, 0, map[string]string{"reference": "430"}, ""},
		{"max31865", sensor.SPI, 0, nil, `option "reference": missing`},
		{"max31865", sensor.I2C, 0, nil, `sensor chip "max31865": is on a bus of kind spi, not "i2c"`},
		{"ds18b20", sensor.OneWire, 0, nil, ""},
		{"ds18b20", sensor.OneWire, 0x28, nil, `address 0x28: a chip on w1 has none`},
		{"hwmon", sensor.Sysfs, 0, map[string]string{"device": "cpu_thermal"}, ""},
		{"iio", sensor.OneWire, 0, nil, `is on a bus of kind sysfs, not "w1"`},
		{"bme280", sensor.I2C, 0, map[string]string{"pressure": "3"}, `option "pressure": "3": want one of 1 2 4 8 16`},
	}
	for _, tt := range tests {
		_, err := Check(tt.name, tt.on, tt.addr, tt.options)
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("Check(%q, 0x%02x, %v) = %v, want %q", tt.name, tt.addr, tt.options, err, tt.want)
		}
	}
}
