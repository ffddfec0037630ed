package forward

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/hub"
)

var sweeps = flag.Int("sweeps", 3, "random workloads of TestSweep")

// TestSweep runs random workloads: several senders and priorities, a far side
// that confirms, refuses, fails and falls silent, links that are cut, and power
// that is. At the end every record must be confirmed or a dead letter, duplicates
// must stay within the windows, and order must hold for each sender and lane.
func TestSweep(t *testing.T) {
	for i := range *sweeps {
		seed := uint64(i)
		t.Run(fmt.Sprint("seed=", seed), func(t *testing.T) { sweep(t, seed) })
	}
}

func sweep(t *testing.T, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := newBench(t)
	store := &deadStore{}
	o := Options{
		Window: 1 + rng.IntN(40), MaxParked: 1 + rng.IntN(4), DeadLetters: store, SaveEvery: time.Duration(1+rng.IntN(3)) * time.Second,
		MaxPause: 4 * time.Second, Bound: 10 * time.Second, Rand: rand.New(rand.NewPCG(seed, 9)).Float64,
	}
	o.DuplicateWindow = 2*o.Window + rng.IntN(200)
	if rng.IntN(2) == 0 {
		o.Priorities = []uint8{0, 5}
	}
	// What the far side does is drawn from a source of its own, under its lock.
	judge := rand.New(rand.NewPCG(seed, 8))
	bad := func(off uint64) bool { return off%97 == 13 }
	rough := func(m *hub.Outgoing) verdict {
		switch n := judge.IntN(100); {
		case bad(m.Offset):
			return reject
		case n < 8 || string(m.Record.Sender) == "s1" && n < 60:
			return later
		case n < 10:
			return hold
		}
		return confirm
	}
	b.far.judge = rough
	b.start(o)
	total, crashes, cuts := 0, 0, 0
	for range 12 {
		n := rng.IntN(120)
		for range n {
			total++
			b.log.add(b.clk, entry{sender: fmt.Sprint("s", rng.IntN(5)), prio: []uint8{0, 5, 7}[rng.IntN(3)]})
		}
		until := b.far.count() + rng.IntN(150)
		b.pass(200*time.Millisecond, "some went out", func() bool { return b.far.count() >= until || b.empty() || rng.IntN(200) == 0 })
		switch rng.IntN(4) {
		case 0:
			b.far.cut()
			cuts++
		case 1:
			crashed := b.log.crash()
			b.stop() // what it still does to the old log is lost
			b.log = crashed
			crashes++
			if rng.IntN(3) == 0 { // the routes have changed meanwhile
				o.Priorities = [][]uint8{nil, {0, 5}, {5}, {0, 5, 7}}[rng.IntN(4)]
			}
			b.start(o)
		}
	}
	b.far.set(func(m *hub.Outgoing) verdict {
		if bad(m.Offset) {
			return reject
		}
		return confirm
	})
	b.far.cut()
	b.pass(200*time.Millisecond, "drained", b.empty)
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	confirmed := map[uint64]int{}
	checkFirstTries(t, b.far.arrivals())
	for _, a := range b.far.arrivals() {
		if a.sender == "wrong payload" {
			t.Fatalf("wrong payload: %+v", a)
		}
		if a.verdict == confirm {
			confirmed[a.off]++
		}
	}
	dead := map[uint64]bool{}
	for _, d := range store.kept {
		dead[d.Offset] = true
	}
	again := 0
	for off := uint64(1); off <= uint64(total); off++ {
		if bad(off) != dead[off] || bad(off) == (confirmed[off] > 0) {
			t.Errorf("record %d: confirmed %d times, dead letter %v", off, confirmed[off], dead[off])
		}
		again += max(0, confirmed[off]-1)
	}
	t.Logf("%d records, %d arrivals, %d crashes, %d cuts, %d confirmed again", total, b.far.count(), crashes, cuts, again)
	if most := crashes*o.DuplicateWindow + (cuts+crashes+20)*o.Window; o.Priorities == nil && again > most {
		t.Errorf("%d records were confirmed again, want at most %d", again, most)
	}
}
