// Package i2cdev is the I2C bus of Linux: /dev/i2c-N through the I2C_RDWR ioctl.
//
// It adds what the kernel interface leaves to its user:
//
//   - The number of messages that I2C_RDWR says it transferred is compared with
//     the number asked for. Some adapters (virtio-i2c is one) report a chip that
//     does not acknowledge only there, with no error: who looks only at the error
//     takes the bytes that were in the buffer before for a measurement.
//   - Every transaction has a deadline of ours beside the adapter's own. One that
//     hangs is left behind, holds one goroutine, and makes all others fail at once
//     until it returns.
package i2cdev

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

	"golang.org/x/sys/unix"

	"holdfast/drivers/i2c"
	"holdfast/drivers/internal/lane"
)

// Options tune a bus. The zero value works.
type Options struct {
	// Timeout limits one transaction. 0 means 1 s, the kernel's own default. The
	// adapter gets the same limit, rounded up to 10 ms, so that it gives up
	// first if it can. It applies to the adapter, and so to its other users.
	Timeout time.Duration

	// Retries is how often the kernel repeats a transaction that lost
	// arbitration. It also applies to the adapter.
	Retries int
}

// Bus is an open adapter. It satisfies [i2c.BusCloser].
type Bus struct {
	path    string
	timeout time.Duration
	adapter adapter
	lane    lane.Lane
}

// Open opens an adapter by its path (/dev/i2c-1), its number ("1") or its name
// as the kernel has it ("i2c-1"). ctx bounds the opening.
func Open(ctx context.Context, name string, o Options) (*Bus, error) {
	path, err := devicePath(name)
	if err != nil {
		return nil, err
	}
	a, err := openDevice(path)
	if err != nil {
		return nil, fmt.Errorf("open i2c bus %q: %w", path, openHint(path, err))
	}
	b, err := newBus(ctx, path, a, o)
	if err != nil {
		return nil, fmt.Errorf("open i2c bus %q: %w", path, err)
	}
	return b, nil
}

// devicePath returns the path of the adapter that a user named.
func devicePath(name string) (string, error) {
	n := strings.TrimPrefix(strings.TrimPrefix(name, "/dev/"), "i2c-")
	if _, err := strconv.ParseUint(n, 10, 20); err == nil {
		return "/dev/i2c-" + n, nil
	}
	if filepath.IsAbs(name) { // a udev link
		return name, nil
	}
	return "", fmt.Errorf("i2c bus %q: want /dev/i2c-N, i2c-N or N", name)
}

// openHint adds what a person can do about an error of opening.
func openHint(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		there, _ := filepath.Glob("/dev/i2c-*")
		if len(there) == 0 {
			return fmt.Errorf("%w: this machine has no i2c adapters; enable I2C in the firmware or device tree and load i2c-dev", err)
		}
		slices.Sort(there)
		return fmt.Errorf("%w: there are %s", err, strings.Join(there, ", "))
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: add the user to the group that owns %s (often i2c)", err, path)
	}
	return err
}

func newBus(ctx context.Context, path string, a adapter, o Options) (*Bus, error) {
	if o.Timeout < 0 || o.Retries < 0 {
		a.close()
		return nil, errors.New("timeout and retries must not be negative")
	}
	if o.Timeout == 0 {
		o.Timeout = time.Second
	}
	b := &Bus{path: path, timeout: o.Timeout, adapter: a}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	if _, err := b.lane.Do(ctx, func() error { return configure(a, o) }); err != nil {
		a.close()
		return nil, err
	}
	return b, nil
}

func configure(a adapter, o Options) error {
	mask, err := a.functions()
	if errors.Is(err, unix.ENOTTY) || errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("not an i2c adapter: %w", err)
	} else if err != nil {
		return fmt.Errorf("ask for functions: %w", err)
	}
	if mask&funcI2C == 0 {
		return errors.New("adapter can do SMBus only, plain I2C transactions are needed")
	}
	ticks := int((o.Timeout + 10*time.Millisecond - 1) / (10 * time.Millisecond))
	if err := a.set(ioctlTimeout, ticks); err != nil {
		return fmt.Errorf("set timeout: %w", err)
	}
	if err := a.set(ioctlRetries, o.Retries); err != nil {
		return fmt.Errorf("set retries: %w", err)
	}
	return nil
}

// String returns the path of the device.
func (b *Bus) String() string { return b.path }

// Tx satisfies [i2c.Bus].
func (b *Bus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := i2c.CheckTx(addr, w, r); err != nil {
		return fmt.Errorf("i2c %s: %w", b.path, err)
	}
	// The transaction gets buffers of its own, because the kernel may write to
	// them after the caller has left.
	var msgs []message
	if len(w) > 0 {
		msgs = append(msgs, message{addr: addr, buf: slices.Clone(w)})
	}
	var in []byte
	if len(r) > 0 {
		in = make([]byte, len(r))
		msgs = append(msgs, message{addr: addr, read: true, buf: in})
	}
	if err := b.transfer(ctx, msgs); err != nil {
		return fmt.Errorf("i2c %s 0x%02x: %w", b.path, addr, err)
	}
	copy(r, in)
	return nil
}

func (b *Bus) transfer(ctx context.Context, msgs []message) error {
	// Ours is the longer one, so that an adapter that can give up does so
	// itself and stays usable.
	ctx, cancel := context.WithTimeout(ctx, b.timeout+b.timeout/4+20*time.Millisecond)
	defer cancel()
	done, err := b.lane.Do(ctx, func() error {
		n, err := b.adapter.transfer(msgs)
		if err == nil && n != len(msgs) {
			return fmt.Errorf("%w: adapter transferred %d of %d messages", i2c.ErrNACK, n, len(msgs))
		}
		return err
	})
	if err == nil {
		return nil
	}
	if !done {
		return refusal(err)
	}
	return kernelError(err)
}

// refusal translates an error of the lane: the transaction did not run to its
// end.
func refusal(err error) error {
	switch {
	case errors.Is(err, lane.ErrStuck):
		return fmt.Errorf("%w: %w", i2c.ErrStuck, err)
	case errors.Is(err, lane.ErrClosed):
		return i2c.ErrClosed
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", i2c.ErrTimeout, err)
	}
	return err
}

// kernelError translates an error of the ioctl. The kernel's fault codes are
// described in Documentation/i2c/fault-codes.rst.
func kernelError(err error) error {
	var errno unix.Errno
	if !errors.As(err, &errno) {
		if errors.Is(err, os.ErrClosed) {
			return i2c.ErrClosed
		}
		return err
	}
	switch errno {
	case unix.ENXIO, unix.EREMOTEIO:
		return fmt.Errorf("%w: %w", i2c.ErrNACK, err)
	case unix.ETIMEDOUT:
		return fmt.Errorf("%w: %w", i2c.ErrTimeout, err)
	case unix.EAGAIN:
		return fmt.Errorf("%w: %w", i2c.ErrArbitration, err)
	case unix.ENODEV, unix.ESHUTDOWN:
		return fmt.Errorf("%w: %w", i2c.ErrGone, err)
	}
	return err
}

// Close closes the adapter. It waits for a running transaction for as long as
// one may last. If that one hangs, Close returns an error that wraps
// i2c.ErrStuck, and the descriptor is given back when the kernel lets go.
func (b *Bus) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), b.timeout)
	defer cancel()
	stuck := b.lane.Close(ctx)
	if err := b.adapter.close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close i2c bus %q: %w", b.path, err)
	}
	if stuck != nil {
		return fmt.Errorf("close i2c bus %q: %w", b.path, refusal(stuck))
	}
	return nil
}

var _ i2c.BusCloser = (*Bus)(nil)
