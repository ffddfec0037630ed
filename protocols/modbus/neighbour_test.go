package modbus

import (
	"context"
	"sync"
	"testing"
	"time"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// poller reads a group at a period, as package poll does: a time that has passed
// is skipped. It counts good reads and keeps the first bad sample.
type poller struct {
	good, bad int
	first     point.Sample  // the first bad one
	after     time.Duration // from the start to it
}

func (p *poller) run(ctx context.Context, g protocols.Group, period, timeout time.Duration) {
	out := make([]point.Sample, 1)
	start := time.Now()
	for due := start; ; {
		wait := time.NewTimer(time.Until(due))
		select {
		case <-ctx.Done():
			wait.Stop()
			return
		case <-wait.C:
		}
		rctx, cancel := context.WithTimeout(ctx, timeout)
		g.Read(rctx, out)
		cancel()
		if ctx.Err() != nil {
			return
		}
		if out[0].Quality == point.Good {
			p.good++
		} else {
			if p.bad == 0 {
				p.first, p.after = out[0], time.Since(start)
			}
			p.bad++
		}
		for due = due.Add(period); time.Until(due) < 0; {
			due = due.Add(period)
		}
	}
}

// TestNeighboursKeepTheirRate lets one of four units on a link fail in every
// way. The others are compared with a link on which nothing fails, in the same
// run.
func TestNeighboursKeepTheirRate(t *testing.T) {
	t.Parallel() // the link to compare with runs at the same time
	const timeout, period = 60 * time.Millisecond, 20 * time.Millisecond
	// The first two time-outs, before the unit is held back, weigh more in a short
	// run, and so does what else the machine does.
	span, least := 3*time.Second, 0.8
	if long() {
		span, least = 12*time.Second, 0.9
	}
	cases := []struct {
		name   string
		fault  *sim.Fault
		reason point.Quality
		detail string
	}{
		{"none", nil, point.Good, ""},
		{"late", &sim.Fault{Kind: sim.Late, Delay: 2 * timeout}, point.BadTimeout, "no answer within 60ms"},
		{"silent", &sim.Fault{Kind: sim.Silence}, point.BadTimeout, "no answer within 60ms"},
		{"black hole", &sim.Fault{Kind: sim.BlackHole}, point.BadTimeout, "no answer within 60ms"},
		{"rst", &sim.Fault{Kind: sim.Reset}, point.BadConnectionClosed, "reset"},
		{"fin", &sim.Fault{Kind: sim.Close}, point.BadConnectionClosed, "closed by the field device"},
		{"exception 2", &sim.Fault{Kind: sim.Exception, Code: 2}, point.BadConfigurationError, "exception 2 (illegal data address)"},
		{"exception 6", &sim.Fault{Kind: sim.Exception, Code: 6}, point.BadResourceUnavailable, "exception 6 (server device busy)"},
		{"exception 11", &sim.Fault{Kind: sim.Exception, Code: 11}, point.BadNoCommunication, "exception 11 (gateway target"},
		{"slow exception 11", &sim.Fault{Kind: sim.Exception, Code: 11, Delay: timeout / 3}, point.BadNoCommunication, "exception 11 (gateway target"},
		{"every other late", &sim.Fault{Kind: sim.Late, Delay: 2 * timeout, Every: 2}, point.BadTimeout, "no answer within"},
	}
	type outcome struct {
		neighbours [3]poller
		faulty     poller
	}
	outcomes := make([]outcome, len(cases))
	var wg sync.WaitGroup
	for i, tt := range cases {
		p := sim.New(uint64(i))
		a := newAdapter(t)
		set := map[string]any{"address": serveTCP(t, p), "timeout": timeout, "busy_retries": int64(2), "busy_pause": "10ms"}
		ctx, cancel := context.WithTimeout(context.Background(), span)
		t.Cleanup(cancel)
		if tt.fault != nil {
			f := *tt.fault
			f.Units = []byte{9}
			p.Inject(f)
		}
		for k, unit := range []int64{1, 2, 3, 9} {
			p.Add(byte(unit), ramp(100))
			s := open(t, a, withSettings(set, "unit", unit))
			g, err := s.Group(registers(10, 1))
			if err != nil {
				t.Fatal(err)
			}
			who := &outcomes[i].faulty
			if k < 3 {
				who = &outcomes[i].neighbours[k]
			}
			wg.Go(func() { who.run(ctx, g, period, 10*time.Second) })
		}
	}
	wg.Wait()
	sum := func(o *outcome) (good, bad int) {
		for _, n := range o.neighbours {
			good += n.good
			bad += n.bad
		}
		return good, bad
	}
	free, _ := sum(&outcomes[0])
	for i, tt := range cases {
		o := &outcomes[i]
		good, bad := sum(o)
		kept := float64(good) / float64(free)
		t.Logf("%-18s neighbours %4d good %d bad (%.1f %%), unit %d good %d bad, first after %v: %s",
			tt.name, good, bad, 100*kept, o.faulty.good, o.faulty.bad, o.faulty.after.Round(time.Millisecond), o.faulty.first.Detail)
		if kept < least {
			t.Errorf("%s: the neighbours keep %.1f %% of their rate, want %.0f", tt.name, 100*kept, 100*least)
		}
		if bad > good/20 || long() && bad > 0 { // a machine under load is late by itself
			t.Errorf("%s: %d reads of neighbours were bad", tt.name, bad)
		}
		if tt.fault == nil {
			continue
		}
		if o.faulty.first.Quality != tt.reason || !containsText(o.faulty.first.Detail, tt.detail) {
			t.Errorf("%s: marked %v %q, want %v %q", tt.name, o.faulty.first.Quality, o.faulty.first.Detail, tt.reason, tt.detail)
		}
		if tt.fault.Every == 0 && o.faulty.good > 0 {
			t.Errorf("%s: %d good reads of the faulty unit", tt.name, o.faulty.good)
		}
		if long() && o.faulty.after > 2*timeout {
			t.Errorf("%s: marked after %v, want at most two time-outs", tt.name, o.faulty.after)
		}
	}
}

// TestDeadUnitComesBack checks the breaker's other half.
func TestDeadUnitComesBack(t *testing.T) {
	t.Parallel()
	p := sim.New(1)
	p.Add(1, ramp(100))
	p.Add(9, ramp(100))
	a := newAdapter(t)
	set := map[string]any{"address": serveTCP(t, p), "timeout": "20ms", "probe_max": "200ms"}
	open(t, a, set) // the neighbour
	s := open(t, a, withSettings(set, "unit", int64(9)))
	g, err := s.Group(registers(0, 100))
	if err != nil {
		t.Fatal(err)
	}
	heal := p.Inject(sim.Fault{Kind: sim.Silence, Units: []byte{9}})
	eventually(t, func() bool { return containsText(again(g, 100, time.Second)[0].Detail, "held back, next try in") })
	if st := s.Status(); st.Connected || !containsText(st.Reason, "no answer") {
		t.Errorf("status %+v", st)
	}
	before := p.Requests(9)
	for range 1000 {
		again(g, 100, time.Second)
	}
	if asked := p.Requests(9) - before; asked > 20 {
		t.Errorf("a dead unit was asked %d times in 1000 reads", asked)
	}
	heal()
	eventually(t, func() bool { time.Sleep(time.Millisecond); return again(g, 100, time.Second)[99].Quality == point.Good })
	if st := s.Status(); !st.Connected || st.Reason != "" {
		t.Errorf("status %+v", st)
	}
}
