package modbus

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/serial"
	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// unplugged is a port whose adapter is pulled out while out is set.
type unplugged struct {
	serial.Port
	out *atomic.Bool
}

func (p unplugged) Read(b []byte) (int, error) {
	n, err := p.Port.Read(b)
	if p.out.Load() {
		return 0, fmt.Errorf("serial port: read: %w", serial.ErrGone)
	}
	return n, err
}

// TestSerialAdapterUnplugged pulls a serial adapter out and plugs it in again.
func TestSerialAdapterUnplugged(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	path := serveLine(t, p, sim.Line{})
	var out atomic.Bool
	a := New(protocols.Env{Clock: clock.NewReal(), Log: slog.New(slog.DiscardHandler)}, Options{
		OpenSerial: func(ctx context.Context, path string, c serial.Config) (serial.Port, error) {
			if out.Load() {
				return nil, fmt.Errorf("open %q: no such file", path)
			}
			port, err := openTTY(ctx, path, c)
			return unplugged{port, &out}, err
		},
	})
	t.Cleanup(func() { a.Close() })
	s := open(t, a, map[string]any{
		"transport": "rtu", "port": path, "timeout": "500ms", "worst_answer": "500ms", "reconnect_min": "5ms", "reconnect_max": "5ms",
	})
	g, err := s.Group(registers(5, 1))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		eventually(t, func() bool { return again(g, 1, 30*time.Second)[0].Quality == point.Good })
		if got := again(g, 1, 30*time.Second)[0]; got.Value.Int() != 5 || got.Quality != point.Good {
			t.Fatal(got.Detail)
		}
		out.Store(true)
		if got := again(g, 1, 30*time.Second)[0]; got.Quality != point.BadConnectionClosed || !containsText(got.Detail, "the serial adapter is gone") {
			t.Errorf("%v %s", got.Quality, got.Detail)
		}
		eventually(t, func() bool { return again(g, 1, 30*time.Second)[0].Quality == point.BadNotConnected })
		if st := s.Status(); st.Connected || !containsText(st.Reason, "no such file") {
			t.Errorf("%+v", st)
		}
		out.Store(false)
		// The answer that the pulled adapter has swallowed is still owed: the line
		// waits for it as long as it may come.
		eventually(t, func() bool { return again(g, 1, 30*time.Second)[0].Quality == point.Good })
	}
}
