package local

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"holdfast/drivers/gpio"
	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/protocols/point"
)

// pin is an open line. One of the three is not nil.
type pin struct {
	input  gpio.Input
	edges  gpio.EdgeInput
	output gpio.Output
}

func (p pin) close() {
	switch {
	case p.input != nil:
		_ = p.input.Close()
	case p.edges != nil:
		_ = p.edges.Close()
	default:
		_ = p.output.Close()
	}
}

// A line is a GPIO line as configured.
type line struct {
	conf lineConf
	pin  *lazy[pin]

	mu   sync.Mutex
	base uint64 // edges counted before the line was opened last
	last uint64 // and since, at the last read
}

func newLine(a *Adapter, c lineConf) *line {
	l := &line{conf: c}
	l.pin = newLazy(a.env.Clock, func(ctx context.Context) (p pin, err error) {
		switch c.kind {
		case counter:
			p.edges, err = a.o.Lines.Edges(ctx, c.line, gpio.EdgeConfig{InputConfig: c.input, Edges: c.edges, Queue: 1})
		case output:
			p.output, err = a.o.Lines.Output(ctx, c.line, c.output)
		default:
			p.input, err = a.o.Lines.Input(ctx, c.line, c.input)
		}
		return p, err
	}, pin.close)
	return l
}

func (l *line) end() { l.pin.end() }

// read implements source.
func (l *line) read(ctx context.Context, entries []entry) []point.Sample {
	out := make([]point.Sample, len(entries))
	v, err := l.value(ctx)
	for i, e := range entries {
		switch {
		case err != nil:
			out[i] = failure(err)
		case e.typ == "int" && v.Kind() == point.Bool:
			f, _ := v.Float()
			out[i] = point.Sample{Value: point.IntValue(int64(f))}
		default:
			out[i] = point.Sample{Value: v}
		}
	}
	return out
}

func (l *line) value(ctx context.Context) (v point.Value, err error) {
	p, n, err := l.pin.get(ctx)
	if err != nil {
		return v, err
	}
	var level gpio.Level
	switch {
	case p.edges != nil:
		v, err = l.count(p.edges)
	case p.input != nil:
		level, err = p.input.Read(ctx)
		v = point.BoolValue(bool(level))
	default:
		level, err = p.output.Read(ctx)
		v = point.BoolValue(bool(level))
	}
	if err != nil {
		l.failed(n, err)
	}
	return v, err
}

func (l *line) count(e gpio.EdgeInput) (point.Value, error) {
	c, err := e.Counts()
	if err != nil {
		return point.Value{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.last = max(l.last, c.Total()) // two groups may read at once, in either order
	return point.UintValue(l.base + l.last), nil
}

// failed closes a line that only opening anew can help.
func (l *line) failed(n uint64, err error) {
	if !errors.Is(err, gpio.ErrGone) && !errors.Is(err, gpio.ErrClosed) {
		return
	}
	l.mu.Lock()
	l.base, l.last = l.base+l.last, 0
	l.mu.Unlock()
	l.pin.drop(n, err)
}

// set drives an output. sent says whether the level may have reached the pin in
// spite of the error.
func (l *line) set(ctx context.Context, level gpio.Level) (sent bool, err error) {
	p, n, err := l.pin.get(ctx)
	if err != nil {
		return false, err
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if err = p.output.Set(ctx, level); err != nil {
		l.failed(n, err)
		return ctx.Err() != nil, err
	}
	return false, nil
}

var errNoChannel = errors.New("no such channel")

// A probe is a sensor as configured.
type probe struct {
	conf   sensorConf
	sensor *lazy[sensor.Sensor]
}

func newProbe(a *Adapter, c sensorConf) *probe {
	p := &probe{conf: c}
	p.sensor = newLazy(a.env.Clock, func(ctx context.Context) (sensor.Sensor, error) {
		shared := a.bus(c.bus)
		bus, n, err := shared.get(ctx)
		if err != nil {
			return nil, fmt.Errorf("bus %q: %w", c.bus, err)
		}
		s, err := a.o.OpenSensor(ctx, c.chip, bus, c.address, c.options)
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
			out[k] = point.Sample{Value: point.FloatValue(values[i].Value)}
		}
	}
	if b, ok := s.(*bound); ok {
		if err := sensor.FirstError(values); err != nil && (dropBus(b.bus, b.n, err) || errors.Is(err, sensor.ErrClosed)) {
			p.sensor.drop(n, err)
		}
	}
	return out
}
