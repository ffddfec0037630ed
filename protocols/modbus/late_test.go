package modbus

import (
	"sync"
	"testing"
	"time"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// TestLateAnswersAreNeverTakenForOthers reads single registers, all answers
// being of the same length, from units whose every third answer comes after the
// time-out. Every register holds its own number, so a stale answer is seen. The
// reads are shared out to lines that work side by side, to save time.
func TestLateAnswersAreNeverTakenForOthers(t *testing.T) {
	reads := 1000
	if long() {
		reads = 10000
	}
	const lines = 4
	var all sync.WaitGroup // all at once, which Parallel would not do on a small machine
	for i := range lines {
		all.Go(func() { t.Run(itoa(i), func(t *testing.T) { lateAnswers(t, reads/lines) }) })
	}
	all.Wait()
}

func lateAnswers(t *testing.T, reads int) {
	p := sim.New(2)
	p.Add(1, ramp(1000))
	path := serveLine(t, p, sim.Line{Baud: 115200, Bits: 10})
	s := open(t, newAdapter(t), map[string]any{
		"transport": "rtu", "port": path, "baud": int64(115200), "parity": "none", "stop_bits": int64(1),
		"timeout": "8ms", "worst_answer": "10s", // an answer that was late is over as soon as it is there
		"demote_after": int64(100), // a loaded machine may be late twice in a row, and 16 ms are not dead
	})
	const n = 100
	var groups [n]protocols.Group
	for i := range groups {
		var err error
		if groups[i], err = s.Group([]point.Tag{tag("r", "holding:"+itoa(7*i+3), "")}); err != nil {
			t.Fatal(err)
		}
	}
	p.Inject(sim.Fault{Kind: sim.Late, Every: 3, Delay: 10 * time.Millisecond})
	bad, wrong, stuck := 0, 0, 0
	wasLate := false
	for i := range reads {
		k := (i * 37) % n
		before := p.Faults()
		smp := again(groups[k], 1, 20*time.Second)[0]
		isLate := p.Faults() > before
		switch {
		case smp.Quality != point.Good:
			bad++
			if wasLate && !isLate {
				stuck++
			}
		case smp.Value.Int() != int64(7*k+3):
			wrong++
		}
		wasLate = isLate
	}
	late := p.Faults()
	t.Logf("%d reads, %d answered late, %d bad, %d wrong, %d bad right after a late one", reads, late, bad, wrong, stuck)
	if wrong != 0 {
		t.Errorf("%d wrong values", wrong)
	}
	// On a busy machine the reader may be so late itself that a late answer is
	// there in time.
	if late < reads/4 || bad < late*9/10 {
		t.Errorf("%d late answers, %d bad reads of %d: the fault did not act as meant", late, bad, reads)
	}
	// A machine under load makes some prompt answers late as well; a line out of
	// step fails nearly all.
	if stuck > late/4 {
		t.Errorf("%d reads right after a late answer were bad: the line was not in step by the next request", stuck)
	}
}

// TestEveryKindOfDamage lets answers be damaged in every way, at random, and
// demands that no damage is taken for a value and that the line recovers.
func TestEveryKindOfDamage(t *testing.T) {
	t.Parallel()
	kinds := map[string]sim.Fault{
		"silence": {Kind: sim.Silence}, "lost": {Kind: sim.Deaf}, "short": {Kind: sim.Short, N: 2},
		"shorter": {Kind: sim.Short, N: 6}, "crc": {Kind: sim.BadCRC}, "unit": {Kind: sim.WrongUnit},
		"function": {Kind: sim.WrongFunction}, "count": {Kind: sim.WrongCount}, "transaction": {Kind: sim.WrongTransaction},
		"twice": {Kind: sim.Twice}, "noise": {Kind: sim.Noise, N: 3}, "late": {Kind: sim.Late, Delay: 25 * time.Millisecond},
		"busy": {Kind: sim.Exception, Code: 6}, "fin": {Kind: sim.Close}, "rst": {Kind: sim.Reset},
	}
	for name, fault := range kinds {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := sim.New(3)
			p.Add(1, ramp(1000))
			overEach(t, p, func(t *testing.T, set map[string]any) {
				if set["transport"] == "rtu" && (fault.Kind == sim.Close || fault.Kind == sim.Reset) {
					t.Skip("a line has no connection")
				}
				if set["transport"] == nil && fault.Kind == sim.BadCRC {
					t.Skip("frames on TCP have no CRC")
				}
				s := open(t, newAdapter(t), withSettings(set, "timeout", "15ms", "worst_answer", "100ms",
					"busy_retries", int64(0), "demote_after", int64(100), "reconnect_min", "1ms", "reconnect_max", "1ms"))
				g, err := s.Group(registers(10, 2))
				if err != nil {
					t.Fatal(err)
				}
				h, err := s.Group(registers(500, 2))
				if err != nil {
					t.Fatal(err)
				}
				fault.Every = 4
				defer p.Inject(fault)()
				good := 0
				for i := range 8 {
					from, now := 10, g
					if i%2 == 1 {
						from, now = 500, h
					}
					for k, smp := range again(now, 2, 20*time.Second) {
						if smp.Quality == point.Good {
							good++
							if smp.Value.Int() != int64(from+k) {
								t.Fatalf("read %d: register %d is %v", i, from+k, smp.Value)
							}
						} else if !smp.Quality.Bad() || smp.Detail == "" {
							t.Fatalf("read %d: quality %v without a reason", i, smp.Quality)
						}
					}
				}
				if good < 8 { // of 16; a quarter is damaged
					t.Errorf("%d good samples of 16", good)
				}
			})
		})
	}
}

func TestNoiseBeforeAnAnswerIsSkipped(t *testing.T) {
	p := sim.New(4)
	p.Add(1, ramp(100))
	s := open(t, newAdapter(t), map[string]any{"transport": "rtu", "port": serveLine(t, p, sim.Line{}), "timeout": "10s"})
	p.Inject(sim.Fault{Kind: sim.Noise, N: 4})
	for i, smp := range read(t, s, registers(5, 3)) {
		if smp.Value.Int() != int64(5+i) {
			t.Errorf("%v %s", smp.Value, smp.Detail)
		}
	}
}

func TestEcho(t *testing.T) {
	p := sim.New(5)
	dev := p.Add(1, ramp(100))
	s := open(t, newAdapter(t), map[string]any{
		"transport": "rtu", "port": serveLine(t, p, sim.Line{Echo: true}), "echo": true, "timeout": "10s",
	})
	// The answer to function 6 is the same as its request: an echo must not count.
	if err := write(t, s, tag("a", "holding:7", ""), point.IntValue(777)); err != nil {
		t.Fatal(err)
	}
	if got := dev.Get(sim.Holding, 7, 1)[0]; got != 777 {
		t.Errorf("register is %d", got)
	}
	if got := read(t, s, registers(7, 1))[0]; got.Value.Int() != 777 {
		t.Errorf("%v %s", got.Value, got.Detail)
	}
	p.Inject(sim.Fault{Kind: sim.Silence})
	s2 := open(t, newAdapter(t), map[string]any{
		"transport": "rtu", "port": serveLine(t, p, sim.Line{Echo: true}), "echo": true, "timeout": "20ms", "worst_answer": "20ms",
	})
	if err := write(t, s2, tag("a", "holding:7", ""), point.IntValue(1)); err == nil {
		t.Error("an echo was taken for the answer")
	}
}

func TestBroadcast(t *testing.T) {
	p := sim.New(6)
	one, two := p.Add(1, ramp(100)), p.Add(2, ramp(100))
	path := serveLine(t, p, sim.Line{})
	a := newAdapter(t)
	all := open(t, a, map[string]any{"transport": "rtu", "port": path, "unit": int64(0), "turnaround": "30ms"})
	tg := tag("a", "holding:7", "")
	tg.Access = point.WriteOnly
	start := time.Now()
	if err := write(t, all, tg, point.IntValue(777)); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took < 30*time.Millisecond {
		t.Errorf("returned after %v: the turnaround delay is 30 ms", took)
	}
	for i, d := range []*sim.Device{one, two} {
		if got := d.Get(sim.Holding, 7, 1)[0]; got != 777 {
			t.Errorf("unit %d has %d", i+1, got)
		}
	}
	s := open(t, a, map[string]any{"transport": "rtu", "port": path, "timeout": "10s"})
	if got := read(t, s, registers(7, 1))[0]; got.Value.Int() != 777 {
		t.Errorf("after the broadcast: %v %s", got.Value, got.Detail)
	}
}

// TestRTUSpeed is how many blocks of 100 registers a line of 115200 baud brings
// when the unit needs 3 ms to start its answer. The line itself allows 43.
func TestRTUSpeed(t *testing.T) { // not parallel: it measures
	p := sim.New(7)
	p.Add(1, ramp(1000))
	path := serveLine(t, p, sim.Line{Baud: 115200, Bits: 10, Turnaround: 3 * time.Millisecond})
	s := open(t, newAdapter(t), map[string]any{
		"transport": "rtu", "port": path, "baud": int64(115200), "parity": "none", "stop_bits": int64(1),
	})
	tags := registers(100, 100)
	g, err := s.Group(tags)
	if err != nil {
		t.Fatal(err)
	}
	rounds, blocks := 1, 20
	if long() {
		rounds, blocks = 6, 50
	}
	rate := 0.0 // of the best round: what else the machine does only takes away
	for range rounds {
		start := time.Now()
		for range blocks {
			if smp := again(g, 100, 20*time.Second)[99]; smp.Value.Int() != 199 {
				t.Fatalf("%v %s", smp.Value, smp.Detail)
			}
		}
		rate = max(rate, float64(blocks)/time.Since(start).Seconds())
	}
	t.Logf("%.1f blocks/s", rate)
	if long() && rate < 35 {
		t.Errorf("%.1f blocks/s, want at least 35", rate)
	}
}
