// Package spidev is the SPI of Linux: /dev/spidevB.C, through periph.io's host
// drivers, with a deadline of ours around every transfer. A transfer that hangs
// is left behind, holds one goroutine, and makes all others fail at once until it
// returns.
package spidev

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"periph.io/x/conn/v3/physic"
	pspi "periph.io/x/conn/v3/spi"
	"periph.io/x/host/v3/sysfs"

	"holdfast/drivers/internal/lane"
	"holdfast/drivers/spi"
)

// Options tune a connection. The zero value works.
type Options struct {
	// Timeout limits one transfer. 0 means 1 s, or four times what the bits take
	// if that is more.
	Timeout time.Duration
}

// Conn is an open device. It satisfies [spi.ConnCloser].
type Conn struct {
	path    string
	config  spi.Config
	timeout time.Duration
	largest int
	port    pspi.PortCloser
	conn    pspi.Conn
	lane    lane.Lane
}

// defaultLargest is spidev's limit of one transfer unless its module was loaded
// with another (drivers/spi/spidev.c, bufsiz).
const defaultLargest = 4096

// Open opens a device by its path (/dev/spidev0.1) or its numbers of bus and chip
// select ("0.1"). ctx bounds the opening.
func Open(ctx context.Context, name string, c spi.Config, o Options) (*Conn, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("spi device %q: %w", name, err)
	}
	bus, chip, err := parse(name)
	if err != nil {
		return nil, err
	}
	path := fmt.Sprintf("/dev/spidev%d.%d", bus, chip)
	if err := present(path); err != nil {
		return nil, fmt.Errorf("open spi device %q: %w", path, err)
	}
	port, err := sysfs.NewSPI(bus, chip)
	if err != nil {
		return nil, fmt.Errorf("open spi device %q: %w", path, err)
	}
	d, err := newConn(ctx, path, port, c.WithDefaults(), o)
	if err != nil {
		return nil, fmt.Errorf("open spi device %q: %w", path, err)
	}
	d.largest = largest("/sys/module/spidev/parameters/bufsiz")
	return d, nil
}

// parse reads the name of a device.
func parse(name string) (bus, chip int, err error) {
	b, c, ok := strings.Cut(strings.TrimPrefix(strings.TrimPrefix(name, "/dev/"), "spidev"), ".")
	n, err1 := strconv.ParseUint(b, 10, 16)
	m, err2 := strconv.ParseUint(c, 10, 8)
	if !ok || err1 != nil || err2 != nil {
		return 0, 0, fmt.Errorf("spi device %q: want /dev/spidevB.C or B.C", name)
	}
	return int(n), int(m), nil
}

// present reports what keeps the device from being opened, since periph.io turns
// the reason into text.
func present(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	switch {
	case err == nil:
		return f.Close()
	case errors.Is(err, fs.ErrNotExist):
		there, _ := filepath.Glob("/dev/spidev*")
		if len(there) == 0 {
			return fmt.Errorf("%w: this machine has no spi devices; enable SPI in the firmware or device tree", err)
		}
		slices.Sort(there)
		return fmt.Errorf("%w: there are %s", err, strings.Join(there, ", "))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: add the user to the group that owns the device (often spi)", err)
	}
	return err
}

// largest reads spidev's limit of one transfer.
func largest(path string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		return defaultLargest
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || n <= 0 {
		return defaultLargest
	}
	return n
}

func newConn(ctx context.Context, path string, port pspi.PortCloser, c spi.Config, o Options) (*Conn, error) {
	if o.Timeout < 0 {
		port.Close()
		return nil, errors.New("timeout must not be negative")
	}
	d := &Conn{path: path, config: c, timeout: o.Timeout, largest: defaultLargest, port: port}
	ctx, cancel := context.WithTimeout(ctx, max(o.Timeout, time.Second))
	defer cancel()
	if _, err := d.lane.Do(ctx, func() (err error) {
		d.conn, err = port.Connect(physic.Frequency(c.Hertz)*physic.Hertz, mode(c), c.Bits)
		return err
	}); err != nil {
		port.Close()
		return nil, refusal(err)
	}
	return d, nil
}

func mode(c spi.Config) pspi.Mode {
	m := pspi.Mode(c.Mode)
	if c.LSBFirst {
		m |= pspi.LSBFirst
	}
	if c.HalfDuplex {
		m |= pspi.HalfDuplex
	}
	if c.NoSelect {
		m |= pspi.NoCS
	}
	return m
}

// String returns the path of the device.
func (d *Conn) String() string { return d.path }

// limit returns the longest time for n bytes.
func (d *Conn) limit(n int) time.Duration {
	if d.timeout > 0 {
		return d.timeout
	}
	bits := time.Duration(n) * 8
	return max(time.Second, 4*bits*time.Second/time.Duration(d.config.Hertz))
}

// Tx satisfies [spi.Conn].
func (d *Conn) Tx(ctx context.Context, w, r []byte) error {
	if err := spi.CheckTx(d.config, d.largest, w, r); err != nil {
		return fmt.Errorf("spi %s: %w", d.path, err)
	}
	ctx, cancel := context.WithTimeout(ctx, d.limit(len(w)+len(r)))
	defer cancel()
	// Buffers of its own, because the kernel may write to them after the caller
	// has left.
	out, in := slices.Clone(w), make([]byte, len(r))
	done, err := d.lane.Do(ctx, func() error { return d.conn.Tx(out, in) })
	if err == nil {
		copy(r, in)
		return nil
	}
	if !done {
		err = refusal(err)
	}
	return fmt.Errorf("spi %s: %w", d.path, err)
}

// refusal translates an error of the lane: the transfer did not run to its end.
func refusal(err error) error {
	switch {
	case errors.Is(err, lane.ErrStuck):
		return fmt.Errorf("%w: %w", spi.ErrStuck, err)
	case errors.Is(err, lane.ErrClosed):
		return spi.ErrClosed
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", spi.ErrTimeout, err)
	}
	return err
}

// Close closes the device. It waits for a running transfer, a second or the limit
// of one if that is more. If the transfer hangs the device stays open and Close
// returns an error that wraps spi.ErrStuck; calling it again later closes the
// device if the transfer has returned.
func (d *Conn) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), max(d.timeout, time.Second))
	defer cancel()
	if err := d.lane.Close(ctx); err != nil {
		return fmt.Errorf("close spi device %q: %w", d.path, refusal(err))
	}
	if err := d.port.Close(); err != nil {
		return fmt.Errorf("close spi device %q: %w", d.path, err)
	}
	return nil
}

var _ spi.ConnCloser = (*Conn)(nil)
