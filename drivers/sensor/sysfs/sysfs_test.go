package sysfs

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

// tree makes files of lines "path content".
func tree(lines string) fstest.MapFS {
	m := fstest.MapFS{}
	for line := range strings.Lines(lines) {
		if name, content, ok := strings.Cut(strings.TrimSpace(line), " "); ok {
			m[name] = &fstest.MapFile{Data: []byte(content + "\n")}
		}
	}
	return m
}

const board = `
class/hwmon/hwmon0/name cpu_thermal
class/hwmon/hwmon0/temp1_input 48312
class/hwmon/hwmon0/temp1_crit 110000
class/hwmon/hwmon0/uevent x
class/hwmon/hwmon1/name ina2xx
class/hwmon/hwmon1/curr1_input -1250
class/hwmon/hwmon1/in0_input 12
class/hwmon/hwmon1/in1_input 11980
class/hwmon/hwmon1/in1_label VBUS
class/hwmon/hwmon1/power1_average 119820000
class/hwmon/hwmon1/shunt_resistor 2000
class/hwmon/hwmon2/name nct6775
class/hwmon/hwmon2/energy1_input 2500000
class/hwmon/hwmon2/fan2_input 1180
class/hwmon/hwmon2/humidity1_input 45300
class/hwmon/hwmon2/power1_average 5000000
class/hwmon/hwmon2/power1_input 7000000
class/hwmon/hwmon2/temp3_fault 0
class/hwmon/hwmon2/temp3_input -4500
bus/iio/devices/trigger0/name sysfstrig0
bus/iio/devices/iio:device0/name si7020
bus/iio/devices/iio:device0/in_humidityrelative_offset -786
bus/iio/devices/iio:device0/in_humidityrelative_raw 6000
bus/iio/devices/iio:device0/in_humidityrelative_scale 7.629394531
bus/iio/devices/iio:device0/in_temp_offset -4368
bus/iio/devices/iio:device0/in_temp_raw 6052
bus/iio/devices/iio:device0/in_temp_scale 10.725097656
bus/iio/devices/iio:device1/name bmp280
bus/iio/devices/iio:device1/in_pressure_input 99.534601562
bus/iio/devices/iio:device1/in_pressure_raw 415148
bus/iio/devices/iio:device1/in_pressure_oversampling_ratio 16
bus/iio/devices/iio:device1/in_temp_input 23490
bus/iio/devices/iio:device2/name ads1015
bus/iio/devices/iio:device2/in_voltage0_raw 1000
bus/iio/devices/iio:device2/in_voltage0_scale 3
bus/iio/devices/iio:device2/in_voltage0-voltage1_raw -200
bus/iio/devices/iio:device2/in_voltage0-voltage1_scale 2
bus/iio/devices/iio:device2/in_voltage2_raw 500
bus/iio/devices/iio:device2/in_voltage_scale 1
bus/iio/devices/iio:device2/in_voltage_scale_available 3 2 1
bus/iio/devices/iio:device3/name mpu6050
bus/iio/devices/iio:device3/in_accel_x_raw 16384
bus/iio/devices/iio:device3/in_accel_x_calibbias 3
bus/iio/devices/iio:device3/in_accel_scale 0.000598
bus/iio/devices/iio:device3/in_anglvel_x_raw 12
bus/iio/devices/iio:device3/in_temp_object_input 36600
bus/iio/devices/iio:device3/in_count0_raw 7
`

func opened(t *testing.T, o Options) *Dev {
	t.Helper()
	d, err := Open(t.Context(), tree(board), o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestUnits: the values of each device in our units. Those of si7020 are as one
// was read (GitHub, read-me of a si7020 kernel module: raw 6052, offset -4368,
// scale 10.725097656, about 18.07 Cel), those of bmp280 in the scale of the
// interface, 99534.6 Pa and 23.49 Cel.
func TestUnits(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Subsystem: HWMon, Device: "cpu_thermal"}, "temp1 48.312 Cel"},
		{Options{Subsystem: HWMon, Device: "hwmon1"}, "curr1 -1.25 A, in0 0.012 V, in1 11.98 V, power1 119.82 W"},
		{Options{Subsystem: HWMon, Device: "nct6775"}, "energy1 2.5 J, fan2 1180 /min, humidity1 45.3 %, power1 7 W, temp3 -4.5 Cel"},
		{Options{Subsystem: IIO, Device: "si7020"}, "humidityrelative 39.7797 %, temp 18.0611 Cel"},
		{Options{Subsystem: IIO, Device: "iio:device1"}, "pressure 99534.6 Pa, temp 23.49 Cel"},
		{Options{Subsystem: IIO, Device: "ads1015"}, "voltage0-voltage1 -0.4 V, voltage0 3 V, voltage2 0.5 V"},
		{Options{Subsystem: IIO, Device: "mpu6050"}, "accel-x 9.79763 m/s2, temp-object 36.6 Cel"},
	} {
		d := opened(t, tt.o)
		var got []string
		for i, v := range d.Sense(t.Context()) {
			c := d.Channels()[i]
			got = append(got, fmt.Sprintf("%s %.6g %s", c.Name, v.Value, c.Unit))
			if v.Err != nil {
				t.Errorf("%s: %v", d, v.Err)
			}
		}
		if text := strings.Join(got, ", "); text != tt.want {
			t.Errorf("%s: %s, want %s", d, text, tt.want)
		}
	}
}

// A chip's temperature as another program read it and what its author noted: raw
// 6869, offset -4368, scale 10.725097656 gives 26.82 Cel.
func TestRecording(t *testing.T) {
	m := tree(board)
	m["bus/iio/devices/iio:device0/in_temp_raw"].Data = []byte("6869\n")
	d, err := Open(t.Context(), m, Options{Subsystem: IIO, Device: "si7020"})
	if err != nil {
		t.Fatal(err)
	}
	if v := d.Sense(t.Context())[1]; v.Err != nil || math.Abs(v.Value-26.82) > 0.01 {
		t.Errorf("%+v", v)
	}
}

func TestConformance(t *testing.T) {
	for _, tt := range []struct {
		name            string
		o               Options
		files, beyond   string
		want, tolerance []float64
	}{
		{"hwmon", Options{Subsystem: HWMon, Device: "lm90"},
			"class/hwmon/hwmon3/name lm90\nclass/hwmon/hwmon3/temp1_input 48000\nclass/hwmon/hwmon3/temp2_input -1500\nclass/hwmon/hwmon3/temp2_fault 0",
			"class/hwmon/hwmon3/name lm90\nclass/hwmon/hwmon3/temp1_input 9999999\nclass/hwmon/hwmon3/temp2_input -300000\nclass/hwmon/hwmon3/temp2_fault 0",
			[]float64{48, -1.5}, []float64{1e-9, 1e-9}},
		{"iio", Options{Subsystem: IIO},
			"bus/iio/devices/iio:device0/name adc\nbus/iio/devices/iio:device0/in_voltage3_raw 2000\nbus/iio/devices/iio:device0/in_voltage_scale 0.5\nbus/iio/devices/iio:device0/in_voltage3_offset -100",
			"bus/iio/devices/iio:device0/name adc\nbus/iio/devices/iio:device0/in_voltage3_raw 2000\nbus/iio/devices/iio:device0/in_voltage_scale 1e9\nbus/iio/devices/iio:device0/in_voltage3_offset -100",
			[]float64{0.95}, []float64{1e-9}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			sensortest.RunFiles(t, sensortest.FileChip{
				Open: func(ctx context.Context, root fs.FS, timeout time.Duration, _ clock.Clock) (sensor.Sensor, error) {
					o := tt.o
					o.Timeout = timeout
					d, err := Open(ctx, root, o)
					if err != nil {
						return nil, err
					}
					return d, nil
				},
				New:  func() fstest.MapFS { return tree(tt.files) },
				Want: tt.want, Tolerance: tt.tolerance,
				Beyond: func() fstest.MapFS { return tree(tt.beyond) },
			})
		})
	}
}

func TestWhichDevice(t *testing.T) {
	for _, tt := range []struct {
		o    Options
		want string
	}{
		{Options{Subsystem: HWMon, Device: "nosuch"}, `there are ["hwmon0 (cpu_thermal)" "hwmon1 (ina2xx)" "hwmon2 (nct6775)"]`},
		{Options{Subsystem: HWMon}, "several devices, name one of"},
		{Options{Subsystem: IIO, Device: "trigger0"}, "there are"},
	} {
		if _, err := Open(t.Context(), tree(board), tt.o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.o, err, tt.want)
		}
	}
	_, err := Open(t.Context(), tree("class/hwmon/hwmon0/name x\nclass/hwmon/hwmon0/pwm1 1\n"), Options{Subsystem: HWMon})
	if !errors.Is(err, sensor.ErrIdentity) {
		t.Errorf("a device without channels: %v", err)
	}
}

// TestFaultsAndChanges: a broken sensor fails alone; another device under the same
// number is not taken for the first.
func TestFaultsAndChanges(t *testing.T) {
	m := tree(board)
	d, err := Open(t.Context(), m, Options{Subsystem: HWMon, Device: "nct6775"})
	if err != nil {
		t.Fatal(err)
	}
	m["class/hwmon/hwmon2/temp3_fault"].Data = []byte("1\n")
	m["class/hwmon/hwmon2/fan2_input"].Data = []byte("N/A\n")
	vs := d.Sense(t.Context())
	if !errors.Is(vs[4].Err, sensor.ErrFault) || !errors.Is(vs[1].Err, sensor.ErrImplausible) || vs[0].Err != nil || vs[2].Err != nil {
		t.Errorf("%+v", vs)
	}
	m["class/hwmon/hwmon2/name"].Data = []byte("other\n")
	if err := sensor.FirstError(d.Sense(t.Context())); !errors.Is(err, sensor.ErrIdentity) {
		t.Errorf("another device: %v", err)
	}
	delete(m, "class/hwmon/hwmon2/name")
	if err := sensor.FirstError(d.Sense(t.Context())); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("gone: %v", err)
	}
}

// On a real file system, with the links that sysfs has.
func TestOnDisk(t *testing.T) {
	dir := t.TempDir()
	device := filepath.Join(dir, "devices", "platform", "thermal", "hwmon", "hwmon0")
	if err := errors.Join(os.MkdirAll(device, 0o755), os.MkdirAll(filepath.Join(dir, "class", "hwmon"), 0o755),
		os.Symlink("../../devices/platform/thermal/hwmon/hwmon0", filepath.Join(dir, "class", "hwmon", "hwmon0")),
		os.WriteFile(filepath.Join(device, "name"), []byte("cpu_thermal\n"), 0o644),
		os.WriteFile(filepath.Join(device, "temp1_input"), []byte("51000\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), os.DirFS(dir), Options{Subsystem: HWMon})
	if err != nil {
		t.Fatal(err)
	}
	if v := d.Sense(t.Context())[0]; v.Err != nil || v.Value != 51 {
		t.Errorf("%+v", v)
	}
}

func TestOptions(t *testing.T) {
	o, err := ParseOptions(IIO, map[string]string{"device": "bme280", "timeout": "1s"})
	if err != nil || o != (Options{Subsystem: IIO, Device: "bme280", Timeout: time.Second}) {
		t.Errorf("%+v, %v", o, err)
	}
	for key, bad := range map[string]string{"device": "../x", "devcie": "x"} {
		if _, err := ParseOptions(HWMon, map[string]string{key: bad}); err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("%s = %s: %v", key, bad, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for line := range strings.Lines(board) {
		name, content, _ := strings.Cut(line, " ")
		f.Add(filepath.Base(name), strings.TrimSpace(content))
	}
	f.Fuzz(func(t *testing.T, file, content string) {
		for _, channel := range []func(string, func(string) bool) (sensor.Channel, source, bool){hwmonChannel, iioChannel} {
			c, s, ok := channel(file, func(string) bool { return len(content)%2 == 0 })
			if ok && (c.Name == "" || strings.Trim(c.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || s.value != file || s.factor == 0) {
				t.Errorf("%q: %+v, %+v", file, c, s)
			}
		}
		if v, err := parseNumber(file, content); err == nil && (math.IsNaN(v) || math.IsInf(v, 0)) {
			t.Errorf("%q = %g", content, v)
		}
	})
}
