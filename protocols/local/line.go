package local

import (
	"context"
	"errors"
	"sync"

	"holdfast/drivers/clock"
	"holdfast/drivers/gpio"
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

// read returns the level.
func (p pin) read(ctx context.Context) (gpio.Level, error) {
	switch {
	case p.input != nil:
		return p.input.Read(ctx)
	case p.edges != nil:
		return p.edges.Read(ctx)
	}
	return p.output.Read(ctx)
}

// A line is a GPIO line as configured. Several tags may use it.
type line struct {
	clock clock.Clock
	pin   *lazy[pin]

	mu      sync.Mutex
	conf    lineConf
	opening uint64 // number of the opening that last is of
	base    uint64 // edges counted before it
	last    uint64 // and since, at the last read

	metering sync.Mutex // may be held until a read's deadline, mu may not
	meter    meter
}

func newLine(a *Adapter, c lineConf) *line {
	l := &line{conf: c, clock: a.env.Clock}
	l.pin = newLazy(a.env.Clock, func(ctx context.Context) (p pin, err error) {
		c := l.configured()
		switch {
		case c.output:
			p.output, err = a.o.Lines.Output(ctx, c.line, c.out)
		case c.edges != 0:
			queue := 1
			if c.stamps {
				queue = edgeQueue
			}
			p.edges, err = a.o.Lines.Edges(ctx, c.line, gpio.EdgeConfig{InputConfig: c.input, Edges: c.edges, Queue: queue})
		default:
			p.input, err = a.o.Lines.Input(ctx, c.line, c.input)
		}
		return p, err
	}, pin.close)
	return l
}

func (l *line) configured() lineConf {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conf
}

// extend makes the line serve what c asks for besides, and reports whether that
// goes without another configuration of it.
func (l *line) extend(c lineConf) bool {
	l.mu.Lock()
	more, err := l.conf.merge(c)
	same := more == l.conf
	if err == nil {
		l.conf = more
	}
	l.mu.Unlock()
	if err == nil && !same {
		l.pin.renew()
	}
	return err == nil
}

func (l *line) end() { l.pin.end() }

// read implements source.
func (l *line) read(ctx context.Context, entries []entry) []point.Sample {
	out := make([]point.Sample, len(entries))
	p, n, err := l.pin.get(ctx)
	for i, e := range entries {
		var v point.Value
		why := err
		if why == nil {
			v, why = l.value(ctx, p, n, e)
		}
		if why != nil {
			out[i] = failure(why)
			l.failed(n, why)
			continue
		}
		out[i] = point.Sample{Value: v}
	}
	return out
}

// value reads what one tag wants of the open line.
func (l *line) value(ctx context.Context, p pin, n uint64, e entry) (point.Value, error) {
	switch {
	case e.use == level:
		high, err := p.read(ctx)
		if e.typ == "int" && high {
			return point.IntValue(1), err
		} else if e.typ == "int" {
			return point.IntValue(0), err
		}
		return point.BoolValue(bool(high)), err
	case p.edges == nil: // opened before edges were asked for; it is being opened anew
		return point.Value{}, errNoEdges
	case e.use == count:
		return l.count(p.edges, n)
	}
	c := l.configured()
	l.metering.Lock()
	defer l.metering.Unlock()
	f, err := l.meter.read(ctx, p.edges, n, l.clock.Elapsed(), c.window, c.idle)
	return point.FloatValue(f), err
}

func (l *line) count(e gpio.EdgeInput, n uint64) (point.Value, error) {
	c, err := e.Counts()
	if err != nil {
		return point.Value{}, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if n > l.opening {
		l.base, l.last, l.opening = l.base+l.last, 0, n
	}
	if n == l.opening {
		l.last = max(l.last, c.Total()) // two groups may read at once, in either order
	}
	return point.UintValue(l.base + l.last), nil
}

// failed closes a line that only opening anew can help.
func (l *line) failed(n uint64, err error) {
	if errors.Is(err, gpio.ErrGone) || errors.Is(err, gpio.ErrClosed) {
		l.pin.drop(n, err)
	}
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
