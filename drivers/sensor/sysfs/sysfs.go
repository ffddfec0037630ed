// Package sysfs reads sensors that have a kernel driver: those of the hardware
// monitoring subsystem (hwmon) and of the industrial I/O subsystem (iio).
//
// What the files mean is the kernel's interface: Documentation/hwmon/
// sysfs-interface.rst and Documentation/ABI/testing/sysfs-bus-iio. Values come in
// the units of this project: Cel, V, A, W, J, Pa, %, and so on.
//
// Some drivers do not keep to the interface: many kernels show the pressure of a
// BME680 in hPa and its humidity in %. The scale of the tag corrects such.
package sysfs

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/internal/sysfile"
)

// A Subsystem is the part of the kernel that has the driver.
type Subsystem string

// The subsystems.
const (
	HWMon Subsystem = "hwmon"
	IIO   Subsystem = "iio"
)

// Options say which device is meant.
type Options struct {
	Subsystem Subsystem

	// Device is what the kernel calls the chip, the content of its file name
	// ("cpu_thermal", "bme280"), or the directory if there are several of a kind
	// ("hwmon1", "iio:device0"), whose numbers may change from one start to the
	// next. Empty means the only device there is.
	Device string

	// Timeout limits one Sense. 0 means 2 s.
	Timeout time.Duration
}

// ParseOptions reads the options "device" and "timeout" from text.
func ParseOptions(from Subsystem, text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{Subsystem: from, Device: s.Text("device"), Timeout: s.Duration("timeout", 2*time.Second)}
	err := s.Err()
	if strings.Contains(o.Device, "/") {
		err = errors.Join(err, fmt.Errorf("option \"device\": %q: want a name such as bme280 or %s", o.Device, from.dir("0")))
	}
	return o, err
}

// dirs returns the directory of the subsystem's devices in /sys.
func (s Subsystem) dirs() string {
	if s == IIO {
		return "bus/iio/devices"
	}
	return "class/hwmon"
}

// dir returns the name of a device's directory.
func (s Subsystem) dir(number string) string {
	if s == IIO {
		return "iio:device" + number
	}
	return "hwmon" + number
}

// Dev is one device. It satisfies [sensor.Sensor].
type Dev struct {
	files    *sysfile.Dir
	opts     Options
	path     string
	name     string
	channels []sensor.Channel
	sources  []source

	mu     sync.Mutex
	closed bool
}

// A source is the files of one channel; offset, scale and fault are "" if there
// is none.
type source struct {
	value, offset, scale, fault string
	factor                      float64 // from the kernel's unit to ours
}

// Open finds a device in root, which is /sys, and what it measures.
func Open(ctx context.Context, root fs.FS, o Options) (*Dev, error) {
	if o.Timeout <= 0 {
		o.Timeout = 2 * time.Second
	}
	d := &Dev{files: sysfile.New(root), opts: o, name: o.Device}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if err := d.find(ctx); err != nil {
		return nil, d.wrap(err)
	}
	if err := d.discover(ctx); err != nil {
		return nil, d.wrap(err)
	}
	return d, nil
}

// Channels satisfies [sensor.Sensor]: what the kernel shows of the device, by the
// kernel's names with hyphens: temp1, in0, fan2; temp, voltage0-voltage1, accel-x.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the device in messages.
func (d *Dev) String() string {
	if d.path == "" {
		return strings.TrimSpace(string(d.opts.Subsystem) + " " + d.name)
	}
	return fmt.Sprintf("%s %s (%s)", d.opts.Subsystem, d.name, d.path)
}

func (d *Dev) wrap(err error) error { return fmt.Errorf("%s: %w", d, err) }

// find looks for the device by its directory or its name.
func (d *Dev) find(ctx context.Context) error {
	dirs, err := d.files.List(ctx, d.opts.Subsystem.dirs())
	if err != nil {
		return err
	}
	var there, found []string
	for _, dir := range dirs {
		number, ok := strings.CutPrefix(dir, d.opts.Subsystem.dir(""))
		if _, err := strconv.ParseUint(number, 10, 16); !ok || err != nil {
			continue // an iio trigger, for one
		}
		name, err := d.files.Read(ctx, d.opts.Subsystem.dirs()+"/"+dir+"/name")
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		there = append(there, fmt.Sprintf("%s (%s)", dir, name))
		if d.opts.Device == "" || d.opts.Device == dir || d.opts.Device == name {
			found = append(found, dir)
			d.path, d.name = d.opts.Subsystem.dirs()+"/"+dir, name
		}
	}
	switch {
	case len(found) == 0:
		d.name = d.opts.Device
		return fmt.Errorf("%w: there are %q", fs.ErrNotExist, there)
	case len(found) > 1:
		d.path, d.name = "", d.opts.Device
		return fmt.Errorf("several devices, name one of %q", there)
	}
	return nil
}

// discover finds the channels among the device's files.
func (d *Dev) discover(ctx context.Context) error {
	names, err := d.files.List(ctx, d.path)
	if err != nil {
		return err
	}
	have := func(name string) bool {
		_, ok := slices.BinarySearch(names, name)
		return ok
	}
	for _, name := range names {
		c, s, ok := hwmonChannel(name, have)
		if d.opts.Subsystem == IIO {
			c, s, ok = iioChannel(name, have)
		}
		if ok {
			d.channels, d.sources = append(d.channels, c), append(d.sources, s)
		}
	}
	if len(d.channels) == 0 {
		return fmt.Errorf("%w: it measures nothing that is known", sensor.ErrIdentity)
	}
	return nil
}

// Sense satisfies [sensor.Sensor]. Channels fail each for itself.
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return sensor.Failed(len(d.channels), d.wrap(sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.opts.Timeout)
	defer cancel()
	// Directories are numbered anew when drivers come and go.
	name, err := d.files.Read(ctx, d.path+"/name")
	if err == nil && name != d.name {
		err = fmt.Errorf("%w: it is called %.40q now", sensor.ErrIdentity, name)
	}
	if err != nil {
		return sensor.Failed(len(d.channels), d.wrap(err))
	}
	vs := make([]sensor.Value, len(d.channels))
	for i, c := range d.channels {
		v, err := d.read(ctx, &d.sources[i])
		if err == nil {
			vs[i] = c.Check(v)
			err = vs[i].Err
		}
		if err != nil {
			vs[i].Err = d.wrap(fmt.Errorf("%s: %w", c.Name, err))
		}
		if ctx.Err() != nil { // the others would only say the same
			copy(vs[i:], sensor.Failed(len(vs)-i, vs[i].Err))
			break
		}
	}
	return vs
}

// read reads one channel: (value + offset) * scale, as iio says; hwmon has neither.
// They are read each time, because another program may set a chip's range.
func (d *Dev) read(ctx context.Context, s *source) (float64, error) {
	if s.fault != "" {
		fault, err := d.number(ctx, s.fault)
		if err != nil {
			return 0, err
		}
		if fault != 0 {
			return 0, fmt.Errorf("%w: %s is %g", sensor.ErrFault, s.fault, fault)
		}
	}
	v, err := d.number(ctx, s.value)
	if err != nil {
		return 0, err
	}
	if s.offset != "" {
		offset, err := d.number(ctx, s.offset)
		if err != nil {
			return 0, err
		}
		v += offset
	}
	if s.scale != "" {
		scale, err := d.number(ctx, s.scale)
		if err != nil {
			return 0, err
		}
		v *= scale
	}
	return v * s.factor, nil
}

func (d *Dev) number(ctx context.Context, name string) (float64, error) {
	text, err := d.files.Read(ctx, d.path+"/"+name)
	if err != nil {
		return 0, err
	}
	return parseNumber(name, text)
}

// parseNumber reads a decimal number as the kernel writes it.
func parseNumber(name, text string) (float64, error) {
	v, err := strconv.ParseFloat(text, 64)
	if err != nil || math.IsInf(v, 0) || math.IsNaN(v) || strings.ContainsAny(text, "xXpP_") {
		return 0, fmt.Errorf("%w: %s is %.40q", sensor.ErrImplausible, name, text)
	}
	return v, nil
}

// Close satisfies [sensor.Sensor]. The chip is the kernel's.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
