package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
	"holdfast/protocols/point"
)

var errNoChannel = errors.New("no such channel")

// A probe is a sensor as configured.
type probe struct {
	conf   sensorConf
	sensor *lazy[sensor.Sensor]
}

func newProbe(a *Adapter, c sensorConf) *probe {
	p := &probe{conf: c}
	p.sensor = newLazy(a.env.Clock, func(ctx context.Context) (sensor.Sensor, error) {
		switch c.kind {
		case sensor.SPI:
			return a.o.OpenSensor(ctx, c.chip, sensor.Bus{SPI: func(ctx context.Context, settings spi.Config) (spi.ConnCloser, error) {
				return a.o.OpenSPI(ctx, c.bus, settings)
			}}, 0, c.options)
		case sensor.OneWire:
			return a.o.OpenSensor(ctx, c.chip, sensor.Bus{OneWire: a.o.Files(c.bus)}, 0, c.options)
		case sensor.Sysfs:
			return a.o.OpenSensor(ctx, c.chip, sensor.Bus{Sysfs: a.o.Files(c.bus)}, 0, c.options)
		}
		shared := a.bus(c.bus)
		bus, n, err := shared.get(ctx)
		if err != nil {
			return nil, fmt.Errorf("bus %q: %w", c.bus, err)
		}
		s, err := a.o.OpenSensor(ctx, c.chip, sensor.Bus{I2C: bus}, c.address, c.options)
		if err != nil {
			dropBus(shared, n, err)
			return nil, err
		}
		return &bound{Sensor: s, bus: shared, n: n}, nil
	}, func(s sensor.Sensor) { _ = s.Close() })
	return p
}

// bound is a sensor that knows which opening of its bus it uses.
type bound struct {
	sensor.Sensor
	bus *lazy[i2c.BusCloser]
	n   uint64
}

// dropBus closes a bus that only opening anew can help. It reports whether err
// was of that kind.
func dropBus(bus *lazy[i2c.BusCloser], n uint64, err error) bool {
	if !errors.Is(err, i2c.ErrGone) && !errors.Is(err, i2c.ErrClosed) {
		return false
	}
	bus.drop(n, err)
	return true
}

func (p *probe) end() { p.sensor.end() }

// read implements source: one measurement for all channels.
func (p *probe) read(ctx context.Context, entries []entry) []point.Sample {
	out := make([]point.Sample, len(entries))
	s, n, err := p.sensor.get(ctx)
	if err != nil {
		for i := range out {
			out[i] = failure(err)
		}
		return out
	}
	values := s.Sense(ctx)
	channels := s.Channels()
	for k, e := range entries {
		i := slices.IndexFunc(channels, func(c sensor.Channel) bool { return c.Name == e.channel })
		switch {
		case i < 0:
			var names []string
			for _, c := range channels {
				names = append(names, c.Name)
			}
			out[k] = failure(fmt.Errorf("%w %q: a %s has %q", errNoChannel, e.channel, p.conf.chip, names))
		case i >= len(values):
			out[k] = failure(fmt.Errorf("channel %q: %w", e.channel, sensor.ErrNotReady))
		case values[i].Err != nil:
			out[k] = failure(values[i].Err)
		default:
			out[k] = point.Sample{Value: valueOf(values[i].Value, channels[i].Digital, e.typ)}
		}
	}
	p.failed(s, n, sensor.FirstError(values))
	return out
}

// valueOf gives a channel's value the type that a tag wants.
func valueOf(v float64, digital bool, typ string) point.Value {
	switch {
	case typ == "bool" || typ == "" && digital:
		return point.BoolValue(v != 0)
	case typ == "int":
		return point.IntValue(int64(math.Round(v)))
	}
	return point.FloatValue(v)
}

// failed closes a sensor that only opening anew can help, with its bus if that
// is what has gone.
func (p *probe) failed(s sensor.Sensor, n uint64, err error) {
	if err == nil {
		return
	}
	gone := errors.Is(err, sensor.ErrClosed)
	if b, ok := s.(*bound); ok {
		gone = dropBus(b.bus, b.n, err) || gone
	}
	switch p.conf.kind {
	case sensor.SPI:
		gone = gone || errors.Is(err, spi.ErrClosed)
	case sensor.OneWire, sensor.Sysfs: // plugged in again it may have another name
		gone = gone || errors.Is(err, fs.ErrNotExist)
	}
	if gone {
		p.sensor.drop(n, err)
	}
}

// set drives an output of a chip. sent says whether the value may have reached
// the pin in spite of the error.
func (p *probe) set(ctx context.Context, channel string, v float64) (sent bool, err error) {
	s, n, err := p.sensor.get(ctx)
	if err != nil {
		return false, err
	}
	inner := s
	if b, ok := s.(*bound); ok {
		inner = b.Sensor
	}
	setter, ok := inner.(sensor.Setter)
	if !ok {
		return false, fmt.Errorf("%q: %w: a %s has no outputs", channel, sensor.ErrRefused, p.conf.chip)
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err = setter.Set(ctx, channel, v); err != nil {
		p.failed(s, n, err)
		return !errors.Is(err, sensor.ErrRefused) && !errors.Is(err, sensor.ErrClosed), err
	}
	return false, nil
}
