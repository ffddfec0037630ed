// Package gpiochip is the GPIO of Linux: lines of /dev/gpiochipN through version
// 2 of the kernel's interface (Linux 5.10 and later).
//
// It uses the kernel definitions of go-gpiocdev and not its line objects, whose
// goroutine spins for ever when a chip is removed (its watcher ignores read
// errors, v0.9.1). Here edges are read from the line's descriptor when someone
// asks: until then they wait in the kernel, which numbers them, so that counts
// stay exact without anything running.
package gpiochip

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"

	"holdfast/drivers/clock"
	"holdfast/drivers/gpio"
	"holdfast/drivers/internal/lane"
)

// Options tune a host. The zero value works.
type Options struct {
	// Clock gives the wall time of events; nil is the machine's own.
	Clock clock.Clock
	// Consumer is the name under which lines are taken, as other programs see it
	// (gpioinfo), at most 31 bytes. Empty means "holdfast".
	Consumer string
	// Timeout limits one access to a line. 0 means 1 s.
	Timeout time.Duration
}

// Host is the GPIO of this machine. It satisfies [gpio.Lines].
type Host struct {
	opts   Options
	kernel kernel
	now    func() time.Time
	// uptime is the clock of the kernel's stamps.
	uptime func() (time.Duration, error)
}

// New returns the GPIO of this machine. It touches nothing.
func New(o Options) *Host {
	if o.Consumer == "" {
		o.Consumer = "holdfast"
	}
	if o.Timeout <= 0 {
		o.Timeout = time.Second
	}
	h := &Host{opts: o, kernel: device{}, now: time.Now, uptime: monotonic}
	if o.Clock != nil {
		h.now = o.Clock.Now
	}
	return h
}

// monotonic reads CLOCK_MONOTONIC, on which the kernel stamps edges.
func monotonic() (time.Duration, error) {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano()), err
}

// Input satisfies [gpio.Lines].
func (h *Host) Input(ctx context.Context, line string, c gpio.InputConfig) (gpio.Input, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("gpio line %q: %w", line, err)
	}
	l, err := h.open(ctx, line, inputConfig(c), 0)
	if err != nil {
		return nil, err // not l, which would be an interface that is not nil
	}
	return l, nil
}

// Edges satisfies [gpio.Lines].
func (h *Host) Edges(ctx context.Context, line string, c gpio.EdgeConfig) (gpio.EdgeInput, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("gpio line %q: %w", line, err)
	}
	c = c.WithDefaults()
	kc := inputConfig(c.InputConfig)
	if c.Edges&gpio.Rising != 0 {
		kc.Flags |= uapi.LineFlagV2EdgeRising
	}
	if c.Edges&gpio.Falling != 0 {
		kc.Flags |= uapi.LineFlagV2EdgeFalling
	}
	l, err := h.open(ctx, line, kc, uint32(c.Queue))
	if err != nil {
		return nil, err
	}
	return newEdges(l, c, h.now, h.uptime), nil
}

// Output satisfies [gpio.Lines].
func (h *Host) Output(ctx context.Context, line string, c gpio.OutputConfig) (gpio.Output, error) {
	if err := c.Check(); err != nil {
		return nil, fmt.Errorf("gpio line %q: %w", line, err)
	}
	l, err := h.open(ctx, line, outputConfig(c), 0)
	if err != nil {
		return nil, err
	}
	return l, nil
}

func biasFlag(b gpio.Bias) uapi.LineFlagV2 {
	switch b {
	case gpio.BiasOff:
		return uapi.LineFlagV2BiasDisabled
	case gpio.BiasPullUp:
		return uapi.LineFlagV2BiasPullUp
	case gpio.BiasPullDown:
		return uapi.LineFlagV2BiasPullDown
	}
	return 0
}

func inputConfig(c gpio.InputConfig) uapi.LineConfig {
	kc := uapi.LineConfig{Flags: uapi.LineFlagV2Input | biasFlag(c.Bias)}
	if c.ActiveLow {
		kc.Flags |= uapi.LineFlagV2ActiveLow
	}
	if c.Debounce > 0 {
		// The kernel counts in microseconds; less than one would be none.
		d := max(c.Debounce, time.Microsecond)
		kc.AddAttribute(uapi.LineConfigAttribute{Attr: uapi.DebouncePeriod(d).Encode(), Mask: 1})
	}
	return kc
}

func outputConfig(c gpio.OutputConfig) uapi.LineConfig {
	kc := uapi.LineConfig{Flags: uapi.LineFlagV2Output | biasFlag(c.Bias)}
	if c.ActiveLow {
		kc.Flags |= uapi.LineFlagV2ActiveLow
	}
	switch c.Drive {
	case gpio.OpenDrain:
		kc.Flags |= uapi.LineFlagV2OpenDrain
	case gpio.OpenSource:
		kc.Flags |= uapi.LineFlagV2OpenSource
	}
	var values uapi.LineBitmap
	if c.Initial {
		values = 1
	}
	var attr uapi.LineAttribute
	attr.Encode64(uapi.LineAttributeIDOutputValues, uint64(values))
	kc.AddAttribute(uapi.LineConfigAttribute{Attr: attr, Mask: 1})
	return kc
}

// open finds a line and requests it.
func (h *Host) open(ctx context.Context, name string, kc uapi.LineConfig, queue uint32) (*line, error) {
	ref, err := gpio.ParseRef(name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, h.opts.Timeout)
	defer cancel()
	l := &line{name: name, timeout: h.opts.Timeout, kernel: h.kernel}
	if _, err := l.lane.Do(ctx, func() error {
		f, err := h.request(ref, kc, queue)
		if err != nil {
			return err
		}
		if ctx.Err() != nil { // nobody waits for it any more
			f.Close()
			return ctx.Err()
		}
		l.f = f
		return nil
	}); err != nil {
		return nil, fmt.Errorf("open gpio line %q: %w", name, accessError(err))
	}
	return l, nil
}

func (h *Host) request(ref gpio.Ref, kc uapi.LineConfig, queue uint32) (*os.File, error) {
	found, err := h.find(ref)
	if err != nil {
		return nil, err
	}
	r := &uapi.LineRequest{Lines: 1, Config: kc, EventBufferSize: queue}
	r.Offsets[0] = uint32(found.Offset)
	copy(r.Consumer[:len(r.Consumer)-1], h.opts.Consumer)
	f, err := h.kernel.request(found.Chip, r)
	switch {
	case errors.Is(err, unix.EBUSY):
		return nil, fmt.Errorf("%w%s: %w", gpio.ErrBusy, h.usedBy(found), err)
	case errors.Is(err, unix.ENOTTY), errors.Is(err, unix.EOPNOTSUPP):
		return nil, fmt.Errorf("%s cannot do this, or the kernel is older than 5.10: %w", found, err)
	case errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%s has no interrupt for edges: %w", found, err)
	}
	return f, err
}

// find turns a line name into chip and offset. A name that two lines have is an
// error: which of them is meant depends on the order in which drivers came up.
func (h *Host) find(ref gpio.Ref) (gpio.Ref, error) {
	chips, err := h.kernel.chips()
	if err != nil {
		return gpio.Ref{}, err
	}
	if len(chips) == 0 {
		return gpio.Ref{}, fmt.Errorf("%w: this machine has no gpio chips (/dev/gpiochip*)", gpio.ErrNoLine)
	}
	var matches, chipNames []string
	var found gpio.Ref
	var unreadable error
	for _, c := range chips {
		chipNames = append(chipNames, c.name)
		if c.err != nil {
			unreadable = errors.Join(unreadable, fmt.Errorf("%s: %w", c.name, c.err))
		}
		if ref.Name == "" && c.name == ref.Chip {
			return ref, c.check(ref)
		}
		for offset, l := range c.lines {
			if ref.Name != "" && l.name == ref.Name {
				found = gpio.Ref{Chip: c.name, Offset: offset}
				matches = append(matches, found.String())
			}
		}
	}
	switch {
	case len(matches) == 1:
		return found, nil
	case len(matches) > 1:
		return gpio.Ref{}, fmt.Errorf("more than one line has this name: name one of %s", strings.Join(matches, ", "))
	case unreadable != nil:
		return gpio.Ref{}, fmt.Errorf("%w among those that can be read: %w", gpio.ErrNoLine, permissionHint(unreadable))
	case ref.Name == "":
		return gpio.Ref{}, fmt.Errorf("%w: chips are %s", gpio.ErrNoLine, strings.Join(chipNames, ", "))
	}
	return gpio.Ref{}, fmt.Errorf("%w%s", gpio.ErrNoLine, namesHint(chips))
}

// namesHint lists the lines that have names.
func namesHint(chips []chip) string {
	var names []string
	for _, c := range chips {
		for _, l := range c.lines {
			if l.name != "" && !slices.Contains(names, l.name) {
				names = append(names, l.name)
			}
		}
	}
	const most = 40
	switch {
	case len(names) == 0:
		return ": no line of this machine has a name, use gpiochipN:offset"
	case len(names) > most:
		return fmt.Sprintf(": there are %s and %d more", strings.Join(names[:most], ", "), len(names)-most)
	}
	return ": there are " + strings.Join(names, ", ")
}

// usedBy names who has a line.
func (h *Host) usedBy(ref gpio.Ref) string {
	chips, _ := h.kernel.chips()
	for _, c := range chips {
		if c.name == ref.Chip && ref.Offset < len(c.lines) && c.lines[ref.Offset].consumer != "" {
			return fmt.Sprintf(" by %q", c.lines[ref.Offset].consumer)
		}
	}
	return ""
}

func permissionHint(err error) error {
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: add the user to the group that owns /dev/gpiochip* (often gpio)", err)
	}
	return err
}

// accessError translates errors of the lane and of the kernel.
func accessError(err error) error {
	switch {
	case errors.Is(err, lane.ErrStuck):
		return fmt.Errorf("%w: %w", gpio.ErrStuck, err)
	case errors.Is(err, lane.ErrClosed), errors.Is(err, os.ErrClosed):
		return gpio.ErrClosed
	case errors.Is(err, unix.ENODEV):
		return fmt.Errorf("%w: %w", gpio.ErrGone, err)
	}
	return permissionHint(err)
}

var _ gpio.Lines = (*Host)(nil)
