package demo

import (
	"math/rand/v2"
	"testing"
)

// TestRanges compares the set with a plain map.
func TestRanges(t *testing.T) {
	const seed = 7
	rnd := rand.New(rand.NewPCG(seed, seed))
	var a, b ranges
	plainA, plainB := map[uint64]bool{}, map[uint64]bool{}
	for range 5000 {
		n := 1 + rnd.Uint64N(300)
		set, plain := &a, plainA
		if rnd.IntN(2) == 0 {
			set, plain = &b, plainB
		}
		if set.add(n) == plain[n] {
			t.Fatalf("seed %d: add(%d) does not know whether it was there", seed, n)
		}
		plain[n] = true
		both, highest := 0, uint64(0)
		for n := range plainA {
			highest = max(highest, n)
			if plainB[n] {
				both++
			}
		}
		if a.count() != len(plainA) || a.both(&b) != both || a.holes() != int(highest)-len(plainA) {
			t.Fatalf("seed %d: count %d, both %d, holes %d; want %d, %d, %d", seed, a.count(), a.both(&b), a.holes(),
				len(plainA), both, int(highest)-len(plainA))
		}
	}
}

func TestVerdict(t *testing.T) {
	l := newLedger()
	for n := range uint64(10) {
		l.ack(n + 1)
	}
	for _, n := range []uint64{1, 2, 3, 3, 5, 4, 6, 7, 8, 10, 11} { // 9 is lost, 11 was not acknowledged
		l.number(n)
	}
	l.batch("plc", 1, 1, 10)
	l.batch("plc", 1, 3, 10) // 2 is missing
	l.batch("plc", 2, 1, 10)
	l.batch("plc", 2, 1, 10) // twice
	want := verdict{Acked: 10, Arrived: 9, Lost: 1, Extra: 1, OutOf: 1, Batches: 3, Readings: 30, Holes: 1, Repeats: 2, Total: 15, FieldRuns: 2}
	if got := l.verdict(); got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}
