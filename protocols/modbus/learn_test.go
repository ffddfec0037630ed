package modbus

import (
	"testing"
	"time"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// TestHolesAreLearnedOnce reads tags with gaps, some of which the device does
// not have.
func TestHolesAreLearnedOnce(t *testing.T) {
	p := sim.New(1)
	dev := p.Add(1, ramp(1000))
	dev.Deny(sim.Holding, 12, 15)
	s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p)})
	tags := append(registers(10, 2), registers(15, 3)...)
	tags = append(tags, registers(25, 1)...)
	g, err := s.Group(tags)
	if err != nil {
		t.Fatal(err)
	}
	good := func(g protocols.Group, n int) {
		t.Helper()
		for i, smp := range again(g, n, 20*time.Second) {
			if smp.Quality != point.Good {
				t.Errorf("tag %d: %v %s", i, smp.Quality, smp.Detail)
			}
		}
	}
	good(g, len(tags))
	if n := p.Requests(1); n != 4 { // the whole, then three parts
		t.Errorf("%d requests to learn, want 4", n)
	}
	good(g, len(tags))
	if n := p.Requests(1); n != 7 {
		t.Errorf("%d requests after the second read, want 7: the hole was not remembered", n)
	}
	// Another group of the same device knows it too.
	other, err := s.Group(append(registers(11, 1), registers(15, 1)...))
	if err != nil {
		t.Fatal(err)
	}
	good(other, 2)
	if n := p.Requests(1); n != 9 {
		t.Errorf("%d requests after the other group, want 9", n)
	}
}

// TestOneBadTagDoesNotSpoilItsBlock has one tag of a hundred that the device
// refuses: the others must be read, and it must not be asked every cycle.
func TestOneBadTagDoesNotSpoilItsBlock(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(1000)).Deny(sim.Holding, 57, 58)
	s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p)})
	g, err := s.Group(registers(0, 100))
	if err != nil {
		t.Fatal(err)
	}
	again(g, 100, 20*time.Second)
	before := p.Requests(1)
	for i, smp := range again(g, 100, 20*time.Second) {
		if i == 57 {
			if smp.Quality != point.BadConfigurationError || smp.Detail != "unit 1, holding:57: exception 2 (illegal data address)" {
				t.Errorf("%v %s", smp.Quality, smp.Detail)
			}
		} else if smp.Value.Int() != int64(i) || smp.Quality != point.Good {
			t.Errorf("tag %d: %v %s", i, smp.Value, smp.Detail)
		}
	}
	asked := p.Requests(1) - before
	for _, b := range g.(*group).blocks {
		if now := s.link.clk.Elapsed(); b.retryAt > now {
			asked++ // the refused one is not asked
		}
	}
	if want := len(g.(*group).blocks); asked != want || want > 9 {
		t.Errorf("%d blocks, %d asked or held back", want, asked)
	}
}

// TestDeviceWithShortBlocks has a device that takes 16 registers at most and
// says so with exception 3.
func TestDeviceWithShortBlocks(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(1000)).LimitRead(16)
	s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p)})
	g, err := s.Group(registers(0, 100))
	if err != nil {
		t.Fatal(err)
	}
	again(g, 100, 20*time.Second)
	for i, smp := range again(g, 100, 20*time.Second) {
		if smp.Value.Int() != int64(i) || smp.Quality != point.Good {
			t.Errorf("tag %d: %v %s", i, smp.Value, smp.Detail)
		}
	}
}

func TestExceptions(t *testing.T) {
	tests := []struct {
		code        byte
		read, write point.Quality
		maybe       bool
		text        string
	}{
		{1, point.BadNotSupported, point.BadNotSupported, false, "exception 1 (illegal function)"},
		{2, point.BadConfigurationError, point.BadConfigurationError, false, "exception 2 (illegal data address)"},
		{3, point.BadConfigurationError, point.BadOutOfRange, false, "exception 3 (illegal data value)"},
		{4, point.BadDeviceFailure, point.BadDeviceFailure, false, "exception 4 (server device failure)"},
		{5, point.BadResourceUnavailable, point.BadResourceUnavailable, true, "exception 5 (acknowledge)"},
		{6, point.BadResourceUnavailable, point.BadResourceUnavailable, false, "exception 6 (server device busy)"},
		{8, point.BadDeviceFailure, point.BadDeviceFailure, false, "exception 8 (memory parity error)"},
		{10, point.BadNoCommunication, point.BadNoCommunication, false, "exception 10 (gateway path unavailable)"},
		{11, point.BadNoCommunication, point.BadNoCommunication, true, "exception 11 (gateway target device failed to respond)"},
		{99, point.BadUnexpectedError, point.BadUnexpectedError, false, "exception 99 (not in the specification)"},
	}
	p := sim.New(1)
	p.Add(1, ramp(100))
	overEach(t, p, func(t *testing.T, set map[string]any) {
		s := open(t, newAdapter(t), withSettings(set, "timeout", "10s", "busy_pause", "1ms"))
		for _, tt := range tests {
			remove := p.Inject(sim.Fault{Kind: sim.Exception, Code: tt.code})
			smp := read(t, s, registers(5, 1))[0]
			if smp.Quality != tt.read || !containsText(smp.Detail, tt.text) {
				t.Errorf("read: %v %q, want %v %q", smp.Quality, smp.Detail, tt.read, tt.text)
			}
			we, ok := write(t, s, tag("a", "holding:5", ""), point.IntValue(1)).(*protocols.WriteError)
			if !ok || we.Quality != tt.write || we.Maybe != tt.maybe || !containsText(we.Error(), tt.text) {
				t.Errorf("write: %+v, want %v, maybe %v, %q", we, tt.write, tt.maybe, tt.text)
			}
			remove()
		}
		if got := read(t, s, registers(5, 1))[0]; got.Quality != point.Good {
			t.Errorf("afterwards: %s", got.Detail)
		}
	})
	if p.Connections() != 2 {
		t.Errorf("%d connections: an exception is an answer, not a reason to connect anew", p.Connections())
	}
}

func TestBusyIsAskedAgain(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p), "busy_pause": "1ms"})
	p.Inject(sim.Fault{Kind: sim.Exception, Code: 6, Times: 2})
	if got := read(t, s, registers(5, 1))[0]; got.Value.Int() != 5 {
		t.Errorf("%v %s", got.Value, got.Detail)
	}
	p.Inject(sim.Fault{Kind: sim.Exception, Code: 6, Times: 2})
	if err := write(t, s, tag("a", "holding:5", ""), point.IntValue(1)); err != nil {
		t.Error(err)
	}
}
