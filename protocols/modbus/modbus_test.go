package modbus

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hil/plant"
	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// long reports whether the acceptance runs were asked for.
func long() bool { return os.Getenv("HOLDFAST_LONG") == "1" }

// newAdapter returns an adapter on the machine's clock that is closed with the test.
func newAdapter(t testing.TB) protocols.Adapter {
	t.Helper()
	a := New(protocols.Env{Clock: clock.NewReal(), Log: slog.New(slog.DiscardHandler)}, Options{})
	t.Cleanup(func() { a.Close() })
	return a
}

// serveTCP serves a plant until the test ends and returns its address.
func serveTCP(t testing.TB, p *sim.Plant) string {
	t.Helper()
	return listen(t, p.ServeTCP)
}

func listen(t testing.TB, serve func(context.Context, net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error { return serve(ctx, ln) })
	return ln.Addr().String()
}

// background runs f until the test ends.
func background(t testing.TB, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// serveLine serves a plant on a pseudo terminal and returns the client's path.
func serveLine(t testing.TB, p *sim.Plant, line sim.Line) string {
	t.Helper()
	pty, err := plant.OpenPty()
	if err != nil {
		t.Fatal(err)
	}
	background(t, func(ctx context.Context) error {
		defer pty.Close()
		return p.ServeLine(ctx, pty.Line, line)
	})
	return pty.Path
}

// open checks a device and makes a session that is closed with the test.
func open(t testing.TB, a protocols.Adapter, set map[string]any, tags ...point.Tag) *session {
	t.Helper()
	d := protocols.Device{Name: "dut", Protocol: "modbus", Settings: set, Tags: tags}
	if err := a.Check(d); err != nil {
		t.Fatal(err)
	}
	s, err := a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*session)
}

func tag(name, address, typ string) point.Tag {
	return point.Tag{Name: name, Address: address, Type: typ, Access: point.ReadWrite}
}

// registers returns n tags of one holding register each.
func registers(from, n int) []point.Tag {
	tags := make([]point.Tag, n)
	for i := range tags {
		at := strconv.Itoa(from + i)
		tags[i] = tag("r"+at, "holding:"+at, "")
	}
	return tags
}

// read reads a group once with a generous deadline.
func read(t testing.TB, s *session, tags []point.Tag) []point.Sample {
	t.Helper()
	g, err := s.Group(tags)
	if err != nil {
		t.Fatal(err)
	}
	return again(g, len(tags), 20*time.Second)
}

func again(g protocols.Group, n int, timeout time.Duration) []point.Sample {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	out := make([]point.Sample, n)
	for i := range out { // every entry must be overwritten
		out[i] = point.Sample{Quality: point.BadInternalError, Detail: "not filled"}
	}
	g.Read(ctx, out)
	return out
}

// write writes one value and returns its outcome.
func write(t testing.TB, s *session, tag point.Tag, v point.Value) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return s.Write(ctx, []protocols.Write{{Tag: tag, Value: v}})[0]
}

// ramp returns a device whose holding and input registers hold their own number.
func ramp(size int) *sim.Device {
	d := sim.NewDevice(size)
	for i := range size {
		d.Set(sim.Holding, i, uint16(i))
		d.Set(sim.Input, i, uint16(i))
		d.Set(sim.Coil, i, uint16(i%3&1))
		d.Set(sim.Discrete, i, uint16(i%5&1))
	}
	return d
}

func itoa(n int) string { return strconv.Itoa(n) }

func containsText(s, part string) bool { return strings.Contains(s, part) }
