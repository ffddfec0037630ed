package gpiochip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"

	"holdfast/drivers/gpio"
	"holdfast/drivers/internal/lane"
)

// line is a requested line. It satisfies gpio.Input and gpio.Output.
type line struct {
	name    string
	timeout time.Duration
	kernel  kernel
	f       *os.File
	// The accesses are on a lane, because a line may be behind a bus that hangs.
	lane lane.Lane
}

func (l *line) String() string { return "gpio line " + l.name }

func (l *line) Read(ctx context.Context) (gpio.Level, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	// Not a variable of the caller's: the access may end after Read has.
	level := make(chan gpio.Level, 1)
	if _, err := l.lane.Do(ctx, func() error {
		v, err := l.kernel.values(l.f)
		level <- v
		return err
	}); err != nil {
		return gpio.Low, l.fault("read", err)
	}
	return <-level, nil
}

func (l *line) Set(ctx context.Context, v gpio.Level) error {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	if _, err := l.lane.Do(ctx, func() error { return l.kernel.set(l.f, v) }); err != nil {
		return l.fault("set "+v.String(), err)
	}
	return nil
}

func (l *line) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	stuck := l.lane.Close(ctx)
	if err := l.f.Close(); err != nil {
		return l.fault("close", err)
	}
	if stuck != nil {
		return l.fault("close", stuck)
	}
	return nil
}

func (l *line) fault(action string, err error) error {
	return fmt.Errorf("%s: %s: %w", l, action, accessError(err))
}

// edges is a requested line with edge detection. It satisfies gpio.EdgeInput.
type edges struct {
	*line
	config gpio.EdgeConfig
	now    func() time.Time
	uptime func() (time.Duration, error)

	reading chan struct{} // held by the one Next that waits for the descriptor

	mu     sync.Mutex
	queue  []gpio.Event // read and not taken, oldest first; full, it drops the oldest
	counts gpio.Counts
	last   uint32 // number of the newest edge read (line_seqno, from 1 on)
}

func newEdges(l *line, c gpio.EdgeConfig, now func() time.Time, uptime func() (time.Duration, error)) *edges {
	return &edges{line: l, config: c, now: now, uptime: uptime, reading: make(chan struct{}, 1)}
}

// eventSize is the size of struct gpio_v2_line_event.
const eventSize = 48

// Next satisfies [gpio.EdgeInput].
func (e *edges) Next(ctx context.Context) (gpio.Event, error) {
	select {
	case e.reading <- struct{}{}:
		defer func() { <-e.reading }()
	case <-ctx.Done():
		return gpio.Event{}, e.fault("wait for edge", ctx.Err())
	}
	for {
		if ev, ok := e.take(); ok {
			return ev, nil
		}
		if err := e.wait(ctx); err != nil {
			return gpio.Event{}, e.fault("wait for edge", err)
		}
	}
}

// take removes the oldest edge from the queue.
func (e *edges) take() (gpio.Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return gpio.Event{}, false
	}
	ev := e.queue[0]
	e.queue = e.queue[1:]
	return ev, true
}

// wait returns when there is an edge in the queue, when ctx has ended, and now and
// then for nothing.
func (e *edges) wait(ctx context.Context) error {
	if err := e.f.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	// A wait cannot be cancelled, but its deadline can be put into the past. When
	// that comes too late it wakes the next wait for nothing, which does no harm.
	defer context.AfterFunc(ctx, func() { e.f.SetReadDeadline(time.Unix(1, 0)) })()
	conn, err := e.f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	// Called now and whenever the kernel has something new, which Counts may have
	// taken first.
	err = conn.Read(func(fd uintptr) (ready bool) {
		e.mu.Lock()
		defer e.mu.Unlock()
		if len(e.queue) == 0 {
			inner = e.drain(int(fd))
		}
		return inner != nil || len(e.queue) > 0
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case inner != nil:
		return inner
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil // a wait before was interrupted late
	case err != nil:
		return os.ErrClosed // the only other reason
	}
	return nil
}

// Counts satisfies [gpio.EdgeInput].
func (e *edges) Counts() (gpio.Counts, error) {
	var c gpio.Counts
	if err := control(e.f, func(fd uintptr) error {
		e.mu.Lock()
		defer e.mu.Unlock()
		err := e.drain(int(fd))
		c = e.counts
		return err
	}); err != nil {
		return gpio.Counts{}, e.fault("count edges", err)
	}
	return c, nil
}

// drain reads what the kernel has, which is no more than it was asked to keep and
// what comes while reading. e.mu is held, so that edges are counted in the order
// in which they were read.
func (e *edges) drain(fd int) error {
	b := make([]byte, 16*eventSize)
	for range e.config.Queue/16 + 2 {
		n, err := unix.Read(fd, b)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		}
		if err := e.accept(b[:n]); err != nil {
			return err
		}
	}
	return nil
}

// accept takes what the kernel has handed over: a whole number of events. e.mu is
// held.
func (e *edges) accept(b []byte) error {
	if len(b) == 0 || len(b)%eventSize != 0 {
		return fmt.Errorf("kernel returned %d bytes, want a multiple of %d", len(b), eventSize)
	}
	uptime, err := e.uptime()
	if err != nil {
		return err
	}
	now := e.now()
	for ; len(b) > 0; b = b[eventSize:] {
		stamp, id, seq := parseEvent(b)
		edge := gpio.Rising
		if id == uint32(uapi.LineEventFallingEdge) {
			edge = gpio.Falling
		}
		e.push(gpio.Event{Edge: edge, Stamp: stamp, Time: now.Add(stamp - uptime)}, seq)
	}
	return nil
}

// parseEvent reads the fields of struct gpio_v2_line_event that one line needs.
func parseEvent(b []byte) (stamp time.Duration, id, seq uint32) {
	return time.Duration(binary.NativeEndian.Uint64(b)), binary.NativeEndian.Uint32(b[8:]), binary.NativeEndian.Uint32(b[20:])
}

// push counts an edge and queues it. Numbers that are missing are edges that the
// kernel dropped because its queue was full. e.mu is held.
func (e *edges) push(ev gpio.Event, seq uint32) {
	missing := uint64(seq - e.last - 1)
	e.last = seq
	switch e.config.Edges {
	case gpio.Rising:
		e.counts.Rising += missing
	case gpio.Falling:
		e.counts.Falling += missing
	default:
		e.counts.Lost += missing
	}
	if ev.Edge == gpio.Rising {
		e.counts.Rising++
	} else {
		e.counts.Falling++
	}
	ev.Lost = missing
	if len(e.queue) >= e.config.Queue {
		dropped := e.queue[0]
		e.queue = e.queue[1:]
		if len(e.queue) > 0 {
			e.queue[0].Lost += dropped.Lost + 1
		} else {
			ev.Lost += dropped.Lost + 1
		}
	}
	e.queue = append(e.queue, ev)
}

var (
	_ gpio.Input     = (*line)(nil)
	_ gpio.Output    = (*line)(nil)
	_ gpio.EdgeInput = (*edges)(nil)
)
