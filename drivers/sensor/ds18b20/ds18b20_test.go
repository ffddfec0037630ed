package ds18b20

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/sensortest"
)

// slave is the file of a scratchpad, as the kernel writes it.
func slave(pad ...byte) string {
	verdict := "NO"
	if checksum(pad[:8]) == pad[8] {
		verdict = "YES"
	}
	code := int(int16(uint16(pad[0]) | uint16(pad[1])<<8))
	return fmt.Sprintf("% x : crc=%02x %s\n% x t=%d\n", pad, pad[8], verdict, pad, code*1000/16)
}

func tree(id, text string) fstest.MapFS {
	return fstest.MapFS{id + "/w1_slave": {Data: []byte(text)}, id + "/name": {Data: []byte(id + "\n")}, "w1_bus_master1/name": {Data: []byte("x")}}
}

const powerOnText = "50 05 4b 46 7f ff 0c 10 1c : crc=1c YES\n50 05 4b 46 7f ff 0c 10 1c t=85000\n"

func TestConformance(t *testing.T) {
	const id = "28-000004a1c1e6"
	sensortest.RunFiles(t, sensortest.FileChip{
		Open: func(ctx context.Context, root fs.FS, timeout time.Duration, _ clock.Clock) (sensor.Sensor, error) {
			d, err := Open(ctx, root, Options{Timeout: timeout})
			if err != nil {
				return nil, err
			}
			return d, nil
		},
		New: func() fstest.MapFS {
			return tree(id, "79 01 4b 46 7f ff 07 10 0a : crc=0a YES\n79 01 4b 46 7f ff 07 10 0a t=23562\n")
		},
		Want:      []float64{23.5625},
		Tolerance: []float64{0},
		Beyond: func() fstest.MapFS {
			return tree(id, slave(0x00, 0x08, 0x4B, 0x46, 0x7F, 0xFF, 0x10, 0x10, checksum([]byte{0x00, 0x08, 0x4B, 0x46, 0x7F, 0xFF, 0x10, 0x10})))
		},
		AfterPower: func() fstest.MapFS { return tree(id, powerOnText) },
	})
}

// First lines that others read from their thermometers and published, with the
// kernel's t= beside them: Raspberry Pi logs and test data of programs on GitHub,
// chips of Maxim's and copies. The one of 30 Cel is the scratchpad with which
// periph.io's driver is tested (periph.io/x/devices/v3 v3.7.4, ds18b20_test.go,
// TestSense), ten bits.
func TestRecordings(t *testing.T) {
	for line, want := range map[string]float64{
		"2b 01 55 05 7f a5 81 66 cf : crc=cf YES": 18.6875,
		"6c 01 4b 46 7f ff 04 10 5d : crc=5d YES": 22.75,
		"4e 01 4b 46 7f ff 0c 10 05 : crc=05 YES": 20.875,
		"73 01 4b 46 7f ff 0d 10 41 : crc=41 YES": 23.1875,
		"67 01 4b 46 7f ff 09 10 3b : crc=3b YES": 22.4375,
		"96 01 4b 46 7f ff 0c 10 a0 : crc=a0 YES": 25.375,
		"79 01 4b 46 7f ff 07 10 0a : crc=0a YES": 23.5625,
		"e0 01 00 00 3f ff 10 10 3f : crc=3f YES": 30,
		"73 01 4b 46 7f ff 0c 10 85 : crc=85 YES": 23.1875, // an Arduino's, printed as 23.19
	} {
		if got, err := parse(line + "\n"); err != nil || got != want {
			t.Errorf("%s = %g, %v; want %g", line, got, err, want)
		}
	}
}

// Table 1 of the data sheet, and the registers of fewer bits, whose undefined bits
// are set here.
func TestDataSheetTable(t *testing.T) {
	for _, tt := range []struct {
		code   uint16
		config byte
		want   float64
	}{
		{0x07D0, 0x7F, 125}, {0x0191, 0x7F, 25.0625}, {0x00A2, 0x7F, 10.125}, {0x0008, 0x7F, 0.5}, {0, 0x7F, 0},
		{0xFFF8, 0x7F, -0.5}, {0xFF5E, 0x7F, -10.125}, {0xFE6F, 0x7F, -25.0625}, {0xFC90, 0x7F, -55},
		{0x0191 | 1, 0x5F, 25}, {0x0190 | 3, 0x3F, 25}, {0x0190 | 7, 0x1F, 25}, {0xFFF8 | 7, 0x1F, -0.5},
	} {
		pad := []byte{byte(tt.code), byte(tt.code >> 8), 0x4B, 0x46, tt.config, 0xFF, 0x0C, 0x10}
		if got, err := parse(slave(append(pad, checksum(pad))...)); err != nil || got != tt.want {
			t.Errorf("0x%04x, config 0x%02x = %g, %v; want %g", tt.code, tt.config, got, err, tt.want)
		}
	}
}

func TestRefused(t *testing.T) {
	real85 := []byte{0x50, 0x05, 0x4B, 0x46, 0x7F, 0xFF, 0x10, 0x10}
	if got, err := parse(slave(append(real85, checksum(real85))...)); err != nil || got != 85 {
		t.Errorf("a conversion to 85 Cel = %g, %v", got, err)
	}
	for text, want := range map[string]error{
		powerOnText: sensor.ErrNotReady,
		"2b 01 55 05 7f a5 81 66 cf : crc=cf NO\n": sensor.ErrImplausible,
		"2b 01 55 05 7f a5 81 66 ce : crc=ce YES":  sensor.ErrImplausible,
		"00 00 00 00 00 00 00 00 00 : crc=00 YES":  sensor.ErrImplausible,
		"ff ff ff ff ff ff ff ff ff : crc=c9 NO":   sensor.ErrImplausible,
		"2b 01 55 05 7f a5 81 66 : crc=cf YES":     sensor.ErrImplausible,
		"YES":                                      sensor.ErrImplausible,
		"":                                         sensor.ErrImplausible,
	} {
		if got, err := parse(text); !errors.Is(err, want) {
			t.Errorf("%q = %g, %v; want %v", text, got, err, want)
		}
	}
}

func TestWhichThermometer(t *testing.T) {
	two := tree("28-000000000001", "x")
	for name, f := range tree("22-000000000002", "x") {
		two[name] = f
	}
	for _, tt := range []struct {
		tree fstest.MapFS
		id   string
		want string // the thermometer, or part of the error
	}{
		{tree("28-000000000001", "x"), "", "ds18b20 28-000000000001"},
		{two, "22-000000000002", "ds18b20 22-000000000002"},
		{two, "", "give the id of one: 22-000000000002, 28-000000000001"},
		{two, "28-000000000009", "there are"},
		{tree("10-000000000001", "x"), "", "no thermometer"}, // a DS18S20 counts otherwise
	} {
		d, err := Open(t.Context(), tt.tree, Options{ID: tt.id})
		got := fmt.Sprint(d)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, tt.want) {
			t.Errorf("id %q: %s, want %s", tt.id, got, tt.want)
		}
	}
}

// A directory of the machine, with the links that sysfs has.
func TestOnDisk(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "devices", "w1_bus_master1", "28-00000a1b2c3d")
	if err := os.MkdirAll(device, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(device, "w1_slave"), []byte("6c 01 4b 46 7f ff 04 10 5d : crc=5d YES\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	bus := filepath.Join(dir, "bus")
	if err := os.Mkdir(bus, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(device, filepath.Join(bus, "28-00000a1b2c3d")); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), os.DirFS(bus), Options{})
	if err != nil {
		t.Fatal(err)
	}
	if v := d.Sense(t.Context())[0]; v.Err != nil || v.Value != 22.75 {
		t.Errorf("%+v", v)
	}
	if err := os.RemoveAll(device); err != nil {
		t.Fatal(err)
	}
	if v := d.Sense(t.Context())[0]; !errors.Is(v.Err, fs.ErrNotExist) {
		t.Errorf("unplugged: %+v", v)
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(map[string]string{"id": "28-00000A1B2C3D", "timeout": "2s"})
	if err != nil || o != (Options{ID: "28-00000a1b2c3d", Timeout: 2 * time.Second}) {
		t.Errorf("%+v, %v", o, err)
	}
	for _, bad := range []string{"10-00000a1b2c3d", "28-1", "28-00000a1b2c3g", "../x"} {
		if _, err := ParseOptions(map[string]string{"id": bad}); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(powerOnText)
	f.Add("79 01 4b 46 7f ff 07 10 0a : crc=0a YES\n79 01 4b 46 7f ff 07 10 0a t=23562\n")
	f.Add("00 : YES")
	f.Fuzz(func(t *testing.T, text string) {
		v, err := parse(text)
		if err == nil && (math.IsNaN(v) || math.Abs(v) > 2048) {
			t.Errorf("%q = %g", text, v)
		}
	})
}
