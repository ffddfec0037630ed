package plant

import (
	"math"
	"testing"
	"time"
)

func TestProcessSettles(t *testing.T) {
	p := NewProcess(1)
	p.Advance(2 * time.Hour)
	s, set := p.Read()
	if math.Abs(s.Speed-set.Speed) > 1 {
		t.Errorf("speed %.1f, set to %.1f", s.Speed, set.Speed)
	}
	if math.Abs(s.Inflow-s.Outflow) > 0.5 {
		t.Errorf("after two hours %.2f L/min come in and %.2f go out", s.Inflow, s.Outflow)
	}
	if s.Level < 0.5 || s.Level > 1.9 || s.LowLevel || s.HighLevel {
		t.Errorf("level %.2f m, low %v, high %v at the operating point", s.Level, s.LowLevel, s.HighLevel)
	}
	if s.Temperature < 12 || s.Temperature > 60 {
		t.Errorf("temperature %.1f", s.Temperature)
	}
}

func TestProcessObeys(t *testing.T) {
	p := NewProcess(2)
	p.Set(func(s *Setpoints) { s.Valve, s.Speed = 0, 99999 })
	p.Advance(30 * time.Minute)
	s, set := p.Read()
	if set.Speed != MaxSpeed {
		t.Errorf("speed set point %.0f is beyond the range", set.Speed)
	}
	if s.Level != TankHeight || !s.HighLevel {
		t.Errorf("a closed outlet fills the tank: level %.2f, switch %v", s.Level, s.HighLevel)
	}
	p.Set(func(s *Setpoints) { s.Valve, s.Run = 100, false })
	p.Advance(2 * time.Hour)
	if s, _ = p.Read(); s.Level > 0.05 || !s.LowLevel || s.Speed > 1 {
		t.Errorf("an open outlet empties it: level %.2f, switch %v, speed %.1f", s.Level, s.LowLevel, s.Speed)
	}
}

func TestProcessIsRepeatable(t *testing.T) {
	a, b := NewProcess(3), NewProcess(3)
	a.Advance(10 * time.Second)
	for range 1000 {
		b.Advance(10 * time.Millisecond)
	}
	sa, _ := a.Read()
	sb, _ := b.Read()
	if sa != sb {
		t.Errorf("one step of ten seconds and a thousand small ones differ:\n%+v\n%+v", sa, sb)
	}
}
