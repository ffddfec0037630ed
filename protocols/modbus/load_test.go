package modbus

import (
	"fmt"
	"math"
	"testing"
	"time"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols/point"
)

// lineTags are scattered over two tables so that several requests of different
// length are needed.
func lineTags() []point.Tag {
	var tags []point.Tag
	for i := range 60 {
		tags = append(tags, tag(fmt.Sprintf("h%d", i), fmt.Sprintf("holding:%d", i), ""))
	}
	for i := range 10 {
		tags = append(tags, tag(fmt.Sprintf("far%d", i), fmt.Sprintf("holding:%d", 300+20*i), "float32"))
	}
	for i := range 33 {
		tags = append(tags, tag(fmt.Sprintf("c%d", i), fmt.Sprintf("coil:%d", i), ""))
	}
	return tags
}

// TestPredictionOnLine holds the prediction for a serial line against the time
// that reading from the paced line takes. A loaded machine only makes reading
// slower, so the best of several rounds counts.
func TestPredictionOnLine(t *testing.T) {
	for _, c := range []struct {
		baud   int
		answer time.Duration
		set    map[string]any
	}{
		{9600, 5 * time.Millisecond, nil},
		{19200, 20 * time.Millisecond, map[string]any{"max_registers": int64(16)}},
		{38400, 10 * time.Millisecond, map[string]any{"max_gap": int64(0), "request_pause": "15ms"}},
	} {
		t.Run(fmt.Sprint(c.baud), func(t *testing.T) {
			t.Parallel()
			p := sim.New(1)
			p.Add(1, ramp(600))
			set := map[string]any{"transport": "rtu", "baud": int64(c.baud),
				"port": serveLine(t, p, sim.Line{Baud: c.baud, Turnaround: c.answer})}
			for k, v := range c.set {
				set[k] = v
			}
			tags := lineTags()
			links, err := PredictLoad([]LoadGroup{{Device: "m", Class: "normal", Period: time.Second, Settings: set, Tags: tags}},
				LoadOptions{Answer: c.answer})
			if err != nil {
				t.Fatal(err)
			}
			load := links[0].Groups[0]
			s := open(t, newAdapter(t), set, tags...)
			g, err := s.Group(tags)
			if err != nil {
				t.Fatal(err)
			}
			again(g, len(tags), 20*time.Second) // opens the line
			before := p.Requests(1)
			best := time.Duration(math.MaxInt64)
			rounds := 0
			for close := false; rounds < 3 || !close && rounds < 12; rounds++ {
				start := time.Now()
				for i, s := range again(g, len(tags), 20*time.Second) {
					if s.Quality != point.Good {
						t.Fatalf("%s: %s", tags[i].Name, s.Detail)
					}
				}
				best = min(best, time.Since(start))
				close = math.Abs(float64(best)/float64(load.Time)-1) <= 0.15
			}
			if got := (p.Requests(1) - before) / rounds; got != load.Requests {
				t.Errorf("%d requests were predicted, the field device has seen %d", load.Requests, got)
			}
			if off := float64(best)/float64(load.Time) - 1; math.Abs(off) > 0.15 {
				t.Errorf("predicted %v, measured %v: %+.0f %%", load.Time, best, 100*off)
			} else {
				t.Logf("%d baud: predicted %v, measured %v: %+.1f %%", c.baud, load.Time, best, 100*off)
			}
		})
	}
}

// TestPredictionByHand checks numbers that were computed on paper.
func TestPredictionByHand(t *testing.T) {
	one := []point.Tag{tag("a", "holding:0", "")}
	two := append([]point.Tag{tag("b", "holding:500", "")}, one...)
	rtu := func(more map[string]any) map[string]any {
		m := map[string]any{"transport": "rtu", "port": "/dev/ttyS0", "baud": int64(9600), "parity": "none", "stop_bits": int64(1)}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	tcp := func(more map[string]any) map[string]any {
		m := map[string]any{"address": "10.0.0.7"}
		for k, v := range more {
			m[k] = v
		}
		return m
	}
	// A character of 10 bits at 9600 baud takes 1.041667 ms. A request to read one
	// register is 8 characters, its answer 7, the silence 3.5.
	character := time.Second * 10 / 9600
	for _, c := range []struct {
		name     string
		set      map[string]any
		tags     []point.Tag
		requests int
		bytes    int
		time     time.Duration
	}{
		{"line", rtu(nil), one, 1, 15, 10*time.Millisecond + character*37/2},
		{"line, two blocks", rtu(nil), two, 2, 30, 20*time.Millisecond + character*37},
		{"line, pause", rtu(map[string]any{"request_pause": "50ms"}), one, 1, 15, 60*time.Millisecond + character*15},
		{"line, rs485", rtu(map[string]any{"rs485": true, "rts_before": "2ms", "rts_after": "3ms"}), one, 1, 15, 15*time.Millisecond + character*37/2},
		{"tcp", tcp(nil), one, 1, 23, 5 * time.Millisecond},
		{"tcp, two blocks", tcp(nil), two, 2, 46, 10 * time.Millisecond},
		{"tcp, pipelined", tcp(map[string]any{"pipeline": int64(2)}), two, 2, 46, 5 * time.Millisecond},
		{"tcp, pause", tcp(map[string]any{"request_pause": "7ms"}), two, 2, 46, 24 * time.Millisecond},
		{"tcp, closed", tcp(map[string]any{"close_after_read": true, "connect_delay": "30ms"}), one, 1, 23, 40 * time.Millisecond},
		{"rtu over tcp", tcp(map[string]any{"transport": "rtu-over-tcp"}), two, 2, 30, 10 * time.Millisecond},
		{"no tags", tcp(nil), nil, 0, 0, 0},
	} {
		links, err := PredictLoad([]LoadGroup{{Device: "d", Class: "c", Period: time.Second, Settings: c.set, Tags: c.tags}}, LoadOptions{})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		g := links[0].Groups[0]
		if g.Requests != c.requests || g.Bytes != c.bytes || (g.Time-c.time).Abs() > 10*time.Microsecond {
			t.Errorf("%s: %d requests, %d bytes, %v; want %d, %d, %v", c.name, g.Requests, g.Bytes, g.Time, c.requests, c.bytes, c.time)
		}
	}
}

// TestPredictionByLink checks that devices on one line are added up, and that
// the settings of a link are those of its first device.
func TestPredictionByLink(t *testing.T) {
	set := func(unit int64, pause string) map[string]any {
		return map[string]any{"transport": "rtu", "port": "/dev/ttyS0", "baud": int64(19200), "unit": unit, "request_pause": pause}
	}
	tags := registers(0, 10)
	links, err := PredictLoad([]LoadGroup{
		{Device: "a", Class: "fast", Period: 100 * time.Millisecond, Settings: set(1, "0s"), Tags: tags},
		{Device: "b", Class: "fast", Period: 100 * time.Millisecond, Settings: set(2, "1s"), Tags: tags},
		{Device: "c", Class: "slow", Period: time.Second, Settings: map[string]any{"address": "h:1"}, Tags: tags},
	}, LoadOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(links) != 2 || len(links[0].Groups) != 2 || links[0].Link != "rtu /dev/ttyS0" || !links[0].Serial || links[1].Serial {
		t.Fatalf("links: %+v", links)
	}
	if a, b := links[0].Groups[0].Time, links[0].Groups[1].Time; a != b {
		t.Errorf("the pause of the second device counts: %v, %v", a, b)
	}
	if got, want := links[0].Share(), 2*links[0].Groups[0].Share(); math.Abs(got-want) > 1e-9 {
		t.Errorf("share %g, want %g", got, want)
	}
	_, err = PredictLoad([]LoadGroup{{Device: "a", Settings: map[string]any{"baud": int64(1)}}, {Device: "b", Settings: map[string]any{"address": "h"},
		Tags: []point.Tag{tag("x", "nowhere:1", "")}}}, LoadOptions{})
	if err == nil || !containsText(err.Error(), `device "a"`) || !containsText(err.Error(), `tag "x"`) {
		t.Errorf("mistakes: %v", err)
	}
}
