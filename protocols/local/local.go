// Package local makes the gateway's own hardware look like a field device:
// GPIO lines, edge counters, frequencies and chips as tags.
//
// # Settings
//
// A table for each chip, by a name of one's own. Keys other than these are the
// chip's options:
//
//	[device.sensor.oven]
//	chip = "bme280"        # a name of drivers/sensor/all
//	bus = "i2c:1"
//	address = 0x76         # on I2C; 0 or left out: the chip's first
//
// A bus is one of:
//
//	i2c:1, /dev/i2c-1, unix:/path   an I2C bus
//	spi:0.0, /dev/spidev0.0         SPI, bus and chip select
//	w1, w1:DIR                      the kernel's 1-Wire devices; DIR is /sys/bus/w1/devices unless given
//	sysfs, sysfs:DIR                chips with a kernel driver (hwmon, iio); DIR is /sys unless given
//
// # Tags
//
//	gpio:LINE          the level of a line; type bool (the default) or int. With access rw or w an output,
//	                   which is opened, and driven to its initial level, by the first read or write
//	count:LINE         edges since the start, also over a reopened line; type int
//	freq:LINE          edges per second, from the kernel's time stamps, over the last window; 0 when none has
//	                   come for the time-out; type float
//	SENSOR/CHANNEL     such as oven/temperature or expander/a0; type float, int, or bool, which is the default of
//	                   a channel that is on or off. Access rw or w for a chip's outputs
//
// LINE is a line name or gpiochipN:offset. Several tags may use one input, such as its level and its count,
// if they agree on its params. Params of lines: active_low (false), bias (as-is, off, pull-up, pull-down),
// debounce ("5ms"; inputs), edges (rising, falling, both; count and freq), window ("1s") and timeout ("5s";
// freq), drive (push-pull, open-drain, open-source) and initial (low, high; outputs).
//
// # When something is broken
//
// Each sensor and each line of a group is read on its own. One that did not
// answer in time is not waited for any more: it is asked again beside the following reads, and
// rejoins them when it answers. So it costs the others one late read. What could
// not be opened or has gone is opened again, with a pause that grows to ten
// seconds.
package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"holdfast/drivers/gpio"
	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// Options give the adapter its hardware. What is nil is not there: a tag that
// needs it does not pass Check.
type Options struct {
	Lines gpio.Lines

	// OpenI2C opens an I2C bus by its name. A bus is opened once for all chips on
	// it.
	OpenI2C func(ctx context.Context, name string) (i2c.BusCloser, error)

	// OpenSPI opens the connection to one chip by its name, such as "0.0".
	OpenSPI func(ctx context.Context, name string, c spi.Config) (spi.ConnCloser, error)

	// Files returns what is below a directory of the machine.
	Files func(dir string) fs.FS

	// CheckSensor and OpenSensor are those of drivers/sensor/all.
	CheckSensor func(chip string, on sensor.Kind, address uint16, options map[string]string) (outputs []string, err error)
	OpenSensor  func(ctx context.Context, chip string, on sensor.Bus, address uint16, options map[string]string) (sensor.Sensor, error)
}

// has reports whether there is something to open a bus of that kind with.
func (o *Options) has(kind sensor.Kind) bool {
	if o.CheckSensor == nil || o.OpenSensor == nil {
		return false
	}
	switch kind {
	case sensor.I2C:
		return o.OpenI2C != nil
	case sensor.SPI:
		return o.OpenSPI != nil
	}
	return o.Files != nil
}

// Adapter reads the gateway's own hardware.
type Adapter struct {
	env protocols.Env
	o   Options

	mu    sync.Mutex
	buses map[string]*lazy[i2c.BusCloser]
}

// New returns an adapter. It touches nothing before the first read.
func New(env protocols.Env, o Options) *Adapter {
	return &Adapter{env: env, o: o, buses: map[string]*lazy[i2c.BusCloser]{}}
}

// Check implements [protocols.Adapter].
func (a *Adapter) Check(d protocols.Device) error {
	_, _, err := a.parse(d)
	return err
}

// Open implements [protocols.Adapter].
func (a *Adapter) Open(d protocols.Device) (protocols.Session, error) {
	sensors, planned, err := a.parse(d)
	if err != nil {
		return nil, err
	}
	s := &session{a: a, device: d.Name, probes: map[string]*probe{}, lines: map[string]*line{}, planned: planned}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	for name, conf := range sensors {
		s.probes[name] = newProbe(a, conf)
	}
	return s, nil
}

// Close implements [protocols.Adapter]: it closes the buses.
func (a *Adapter) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, b := range a.buses {
		b.end()
	}
	clear(a.buses)
	return nil
}

// bus returns the bus of that name, to be opened.
func (a *Adapter) bus(name string) *lazy[i2c.BusCloser] {
	a.mu.Lock()
	defer a.mu.Unlock()
	b := a.buses[name]
	if b == nil {
		open := func(ctx context.Context) (i2c.BusCloser, error) { return a.o.OpenI2C(ctx, name) }
		b = newLazy(a.env.Clock, open, func(b i2c.BusCloser) { _ = b.Close() })
		a.buses[name] = b
	}
	return b
}

// A session is the part of the gateway's hardware that one device names.
type session struct {
	a      *Adapter
	device string
	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	probes map[string]*probe // by sensor name; fixed
	// planned are the lines as all tags of the device together want them when it
	// was opened, so that none need be opened again for the next group.
	planned map[string]lineConf

	mu     sync.Mutex
	closed bool
	lines  map[string]*line // by line
	active sync.WaitGroup   // reads and writes under way
}

// begin notes a read or write under way; done ends it. It reports false after Close.
func (s *session) begin(ctx context.Context) (_ context.Context, done func(), ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, nil, false
	}
	s.active.Add(1)
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.ctx, cancel)
	return ctx, func() {
		stop()
		cancel()
		s.active.Done()
	}, true
}

// Close implements [protocols.Session].
func (s *session) Close() error {
	s.mu.Lock()
	s.closed = true
	lines := s.lines
	s.lines = nil
	s.mu.Unlock()
	s.cancel()
	s.active.Wait()
	var all sync.WaitGroup // at once: a chip that does not answer takes its time
	for _, l := range lines {
		all.Go(l.end)
	}
	for _, p := range s.probes {
		all.Go(p.end)
	}
	all.Wait()
	return nil
}

// line returns the line of an address. One that is configured otherwise now is
// closed, and opened anew on its next use; one that is wanted for more now, such
// as its edges, is the same line.
func (s *session) line(conf lineConf) (*line, error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, errClosed
	}
	old := s.lines[conf.line]
	if old != nil && old.extend(conf) {
		s.mu.Unlock()
		return old, nil
	}
	if more, err := conf.merge(s.planned[conf.line]); err == nil {
		conf = more
	}
	l := newLine(s.a, conf)
	s.lines[conf.line] = l
	s.mu.Unlock()
	if old != nil {
		old.end()
	}
	return l, nil
}

// Group implements [protocols.Session].
func (s *session) Group(tags []point.Tag) (protocols.Group, error) {
	g := &group{s: s}
	of := map[source]*job{}
	join := func(from source, e entry) {
		if of[from] != nil {
			of[from].entries = append(of[from].entries, e)
			return
		}
		of[from] = newJob(from, e)
		g.jobs = append(g.jobs, of[from])
	}
	for i := range tags {
		addr, err := parseAddress(&tags[i])
		if err != nil {
			return nil, err
		}
		if addr.sensor == "" {
			l, err := s.line(addr.conf)
			if err != nil {
				return nil, err
			}
			join(l, entry{index: i, use: addr.use, typ: tags[i].Type})
			continue
		}
		p := s.probes[addr.sensor]
		if p == nil {
			return nil, fmt.Errorf("tag %q: no sensor %q", tags[i].Name, addr.sensor)
		}
		join(p, entry{index: i, channel: addr.channel, typ: tags[i].Type})
	}
	return g, nil
}

// Write implements [protocols.Writer] for outputs, of the machine and of chips.
func (s *session) Write(ctx context.Context, writes []protocols.Write) []error {
	out := make([]error, len(writes))
	ctx, done, ok := s.begin(ctx)
	if !ok {
		for i := range out {
			out[i] = &protocols.WriteError{Quality: point.BadConnectionClosed, Err: errClosed}
		}
		return out
	}
	defer done()
	for i := range writes {
		out[i] = s.write(ctx, &writes[i])
	}
	return out
}

func (s *session) write(ctx context.Context, w *protocols.Write) error {
	fail := func(q point.Quality, maybe bool, err error) error {
		return &protocols.WriteError{Quality: q, Maybe: maybe, Err: fmt.Errorf("tag %q: %w", w.Tag.Name, err)}
	}
	addr, err := parseAddress(&w.Tag)
	switch {
	case err != nil:
		return fail(point.BadConfigurationError, false, err)
	case !w.Tag.Access.Writable() || addr.sensor == "" && !addr.conf.output:
		return fail(point.BadNotWritable, false, errors.New("only outputs can be written"))
	}
	f, numeric := w.Value.Float()
	if !numeric || addr.sensor == "" && f != 0 && f != 1 {
		return fail(point.BadTypeMismatch, false, fmt.Errorf("want true, false, 0 or 1, not %s", w.Value))
	}
	if addr.sensor != "" {
		p := s.probes[addr.sensor]
		if p == nil {
			return fail(point.BadConfigurationError, false, fmt.Errorf("no sensor %q", addr.sensor))
		}
		if sent, err := p.set(ctx, addr.channel, f); err != nil {
			return fail(qualityOf(err), sent, err)
		}
		return nil
	}
	l, err := s.line(addr.conf)
	if err != nil {
		return fail(point.BadConnectionClosed, false, err)
	}
	if sent, err := l.set(ctx, gpio.Level(f == 1)); err != nil {
		return fail(qualityOf(err), sent, err)
	}
	return nil
}

var _ protocols.Writer = (*session)(nil)
