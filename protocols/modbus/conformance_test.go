package modbus

import (
	"context"
	"net"
	"testing"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/protocoltest"
)

// TestConformance runs the suite that every adapter passes, over TCP and over a
// serial line.
func TestConformance(t *testing.T) {
	t.Run("tcp", func(t *testing.T) {
		t.Parallel()
		protocoltest.Run(t, func(t *testing.T) protocoltest.Harness {
			p := sim.New(1)
			srv := startServer(t, p)
			h := harness(t, p, map[string]any{"address": srv.addr, "reconnect_max": "250ms"})
			back := h.Back
			h.Gone = srv.stop
			h.Back = func() { back(); srv.start() }
			return h
		})
	})
	t.Run("rtu", func(t *testing.T) {
		t.Parallel()
		protocoltest.Run(t, func(t *testing.T) protocoltest.Harness {
			p := sim.New(1)
			return harness(t, p, map[string]any{"transport": "rtu", "port": serveLine(t, p, sim.Line{})})
		})
	})
}

func harness(t *testing.T, p *sim.Plant, set map[string]any) protocoltest.Harness {
	p.Add(1, ramp(200)).Deny(sim.Holding, 150, 160)
	set = withSettings(set, "timeout", "250ms", "probe_max", "250ms")
	device := func(set map[string]any, tags ...point.Tag) protocols.Device {
		return protocols.Device{Name: "plc", Protocol: "modbus", Settings: set, Tags: tags}
	}
	word, bit, coil := tag("word", "holding:20", "int16"), tag("bit", "holding:21.4", ""), tag("coil", "coil:7", "")
	float, text := tag("float", "holding:30", "float32"), tag("text", "holding:40", "string(8)")
	hole := tag("hole", "holding:155", "")
	hole.Access = point.WriteOnly
	input := point.Tag{Name: "input", Address: "30006"}
	h := protocoltest.Harness{
		Adapter: newAdapter(t),
		Device:  device(set, word, bit, coil, float, text, input, hole),
		Refused: map[string]protocols.Device{
			"timeout": device(withSettings(set, "tiemout", "1s")),
			"holding": device(set, tag("a", "hodling:1", "")),
			"level":   device(set, tag("level", "coil:1", "int16")),
		},
		Writes: []protocols.Write{
			{Tag: word, Value: point.IntValue(-5)}, {Tag: bit, Value: point.BoolValue(true)},
			{Tag: coil, Value: point.BoolValue(true)}, {Tag: float, Value: point.Float32Value(1.25)},
			{Tag: text, Value: point.StringValue("pump")}, {Tag: word, Value: point.IntValue(77)},
		},
		BadWrites: []protocols.Write{
			{Tag: word, Value: point.IntValue(70000)}, {Tag: coil, Value: point.StringValue("on")},
			{Tag: input, Value: point.IntValue(1)}, {Tag: hole, Value: point.IntValue(1)},
		},
	}
	remove := func() {}
	h.Silent = func() { remove = p.Inject(sim.Fault{Kind: sim.Silence}) }
	h.Back = func() { remove() }
	return h
}

// server serves a plant on one address and can be stopped and started.
type server struct {
	t      *testing.T
	p      *sim.Plant
	addr   string
	cancel context.CancelFunc
	done   chan error
}

func startServer(t *testing.T, p *sim.Plant) *server {
	s := &server{t: t, p: p, addr: "127.0.0.1:0"}
	s.start()
	t.Cleanup(s.stop)
	return s
}

func (s *server) start() {
	if s.cancel != nil {
		return
	}
	ln, err := net.Listen("tcp", s.addr)
	if err != nil {
		s.t.Error(err)
		return
	}
	s.addr = ln.Addr().String()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.p.ServeTCP(ctx, ln) }()
	s.cancel, s.done = cancel, done
}

func (s *server) stop() {
	if s.cancel == nil {
		return
	}
	s.cancel()
	if err := <-s.done; err != nil {
		s.t.Error(err)
	}
	s.cancel = nil
}
