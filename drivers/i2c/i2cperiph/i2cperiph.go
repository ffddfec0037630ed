// Package i2cperiph joins our I2C contract and that of periph.io, both ways.
//
// [ToPeriph] lets a chip driver written for periph.io run on a bus of ours, and
// so under its deadlines and checks. [FromPeriph] makes any bus that periph.io
// can open usable for our drivers, and puts a deadline on it.
package i2cperiph

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	pi2c "periph.io/x/conn/v3/i2c"
	"periph.io/x/conn/v3/physic"

	"holdfast/drivers/i2c"
	"holdfast/drivers/internal/lane"
)

// ToPeriph presents b as a bus of periph.io. periph.io has no contexts: each
// transaction runs under ctx, and timeout limits it; 0 means that only the limit
// of b itself applies.
func ToPeriph(ctx context.Context, b i2c.Bus, timeout time.Duration) pi2c.Bus {
	return &toPeriph{ctx, b, timeout}
}

type toPeriph struct {
	ctx     context.Context
	bus     i2c.Bus
	timeout time.Duration
}

func (p *toPeriph) String() string { return p.bus.String() }

func (p *toPeriph) Tx(addr uint16, w, r []byte) error {
	ctx := p.ctx
	if p.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.timeout)
		defer cancel()
	}
	return p.bus.Tx(ctx, addr, w, r)
}

// SetSpeed is refused: on Linux the speed belongs to the device tree, and
// changing it from a chip driver changes it for every chip on the bus.
func (p *toPeriph) SetSpeed(f physic.Frequency) error {
	return fmt.Errorf("i2c %s: set speed %s: not supported, the speed is set by the device tree", p.bus, f)
}

// Options tune [FromPeriph]. The zero value works.
type Options struct {
	Timeout time.Duration // limit of one transaction; 0 means 1 s
}

// FromPeriph presents a bus of periph.io as ours. Closing the result closes bus
// if it has a Close method.
//
// It cannot check more than periph.io lets through: on an adapter that reports a
// missing acknowledgement in the message count only (see package i2cdev), such a
// bus returns stale bytes without an error. Prefer i2cdev for /dev/i2c-N.
func FromPeriph(bus pi2c.Bus, o Options) i2c.BusCloser {
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	return &fromPeriph{bus: bus, timeout: o.Timeout}
}

type fromPeriph struct {
	bus     pi2c.Bus
	timeout time.Duration
	lane    lane.Lane
}

func (p *fromPeriph) String() string { return p.bus.String() }

func (p *fromPeriph) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := i2c.CheckTx(addr, w, r); err != nil {
		return fmt.Errorf("i2c %s: %w", p.bus, err)
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	out, in := slices.Clone(w), make([]byte, len(r))
	done, err := p.lane.Do(ctx, func() error { return p.bus.Tx(addr, out, in) })
	switch {
	case err == nil:
		copy(r, in)
		return nil
	case done: // periph.io flattens the cause to text, so it cannot be told here
	case errors.Is(err, lane.ErrStuck):
		err = fmt.Errorf("%w: %w", i2c.ErrStuck, err)
	case errors.Is(err, lane.ErrClosed):
		err = i2c.ErrClosed
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("%w: %w", i2c.ErrTimeout, err)
	}
	return fmt.Errorf("i2c %s 0x%02x: %w", p.bus, addr, err)
}

func (p *fromPeriph) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), p.timeout)
	defer cancel()
	if err := p.lane.Close(ctx); err != nil {
		return fmt.Errorf("close i2c bus %q: %w: %w", p.bus, i2c.ErrStuck, err)
	}
	if c, ok := p.bus.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
