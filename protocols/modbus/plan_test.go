package modbus

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// scatter makes n items of 1, 2 or 4 registers over width registers.
func scatter(rng *rand.Rand, n, width int) []item {
	items := make([]item, n)
	for i := range items {
		words := []int{1, 1, 2, 4}[rng.IntN(4)]
		from := rng.IntN(width - words + 1)
		items[i] = item{tag: i, from: from, to: from + words}
	}
	return items
}

// checkSpans fails when the plan breaks a rule or leaves an item out. It knows
// the rules from their text, not from the planner.
func checkSpans(t *testing.T, items []item, spans []span, lim limits, c cuts) (read int) {
	t.Helper()
	wanted := map[int]bool{}
	for _, it := range items {
		for at := it.from; at < it.to; at++ {
			wanted[at] = true
		}
	}
	seen := map[int]int{}
	for _, s := range spans {
		read += s.to - s.from
		if s.last-s.first > 1 && s.to-s.from > lim.items {
			t.Fatalf("span %+v is wider than %d", s, lim.items)
		}
		for _, it := range items[s.first:s.last] {
			seen[it.tag]++
			if it.from < s.from || it.to > s.to {
				t.Fatalf("span %+v does not hold %+v", s, it)
			}
		}
		for at, run := s.from, 0; at < s.to; at++ {
			if run++; wanted[at] {
				run = 0
			}
			if run > lim.gap {
				t.Fatalf("span %+v bridges more than %d items at %d", s, lim.gap, at)
			}
		}
		for at := range c {
			if s.from < at && at < s.to && !insideAny(items, at) {
				t.Fatalf("span %+v reaches over the cut at %d", s, at)
			}
		}
	}
	for _, it := range items {
		if seen[it.tag] != 1 {
			t.Fatalf("item %+v is read %d times", it, seen[it.tag])
		}
	}
	return read
}

func insideAny(items []item, at int) bool {
	for _, it := range items {
		if it.from < at && at < it.to {
			return true
		}
	}
	return false
}

// allowed tells by the rules' text whether one request may read a set of items.
func allowed(all, set []item, lim limits, c cuts) (width int, ok bool) {
	from, to := set[0].from, set[0].to
	for _, it := range set {
		from, to = min(from, it.from), max(to, it.to)
	}
	if len(set) > 1 && to-from > lim.items {
		return 0, false
	}
	run := 0
	for at := from; at < to; at++ {
		run++
		for _, it := range all {
			if it.from <= at && at < it.to {
				run = 0
			}
		}
		_, cut := c[at]
		if run > lim.gap || cut && at > from && len(set) > 1 && !insideAny(all, at) {
			return 0, false
		}
	}
	return to - from, true
}

// exhaustive tries every partition of the items into sets and returns the least
// number of requests, and the least number of registers for that.
func exhaustive(items []item, lim limits, c cuts) (spans, read int) {
	spans, read = len(items)+1, 0
	var sets [][]item
	var try func(i int)
	try = func(i int) {
		if len(sets) > spans {
			return
		}
		if i == len(items) {
			total := 0
			for _, s := range sets {
				w, ok := allowed(items, s, lim, c)
				if !ok {
					return
				}
				total += w
			}
			if len(sets) < spans || len(sets) == spans && total < read {
				spans, read = len(sets), total
			}
			return
		}
		for k := range sets {
			sets[k] = append(sets[k], items[i])
			try(i + 1)
			sets[k] = sets[k][:len(sets[k])-1]
		}
		sets = append(sets, []item{items[i]})
		try(i + 1)
		sets = sets[:len(sets)-1]
	}
	try(0)
	return spans, read
}

func TestPlanIsBestOfAllPartitions(t *testing.T) {
	for seed := range uint64(400) {
		rng := rand.New(rand.NewPCG(seed, 1))
		items := scatter(rng, 1+rng.IntN(7), 12+rng.IntN(30))
		lim := limits{items: 4 + rng.IntN(12), gap: rng.IntN(8)}
		c := cuts{}
		for range rng.IntN(3) {
			c[rng.IntN(30)] = struct{}{}
		}
		spans := planSpans(items, lim, c)
		read := checkSpans(t, items, spans, lim, c)
		wantSpans, wantRead := exhaustive(items, lim, c)
		if len(spans) != wantSpans || read != wantRead {
			t.Fatalf("seed %d: %d spans reading %d; best is %d reading %d\nitems %v lim %+v cuts %v",
				seed, len(spans), read, wantSpans, wantRead, items, lim, c)
		}
	}
}

// fewest is the least number of requests for many items, found on the register
// axis: the leftmost item that is still wanted has to be in some request, and
// none does better than the one that starts with it and reaches as far as it
// may.
func fewest(items []item, lim limits, size int) int {
	wanted := make([]bool, size)
	for _, it := range items {
		for at := it.from; at < it.to; at++ {
			wanted[at] = true
		}
	}
	count := 0
	for left := items; len(left) > 0; count++ {
		start := size
		for _, it := range left {
			start = min(start, it.from)
		}
		reach := start
		for at, run := start, 0; at < size && at < start+lim.items; at++ {
			if run++; wanted[at] {
				run, reach = 0, at+1
			}
			if run > lim.gap {
				break
			}
		}
		var rest []item
		for _, it := range left {
			if it.to > reach {
				rest = append(rest, it)
			}
		}
		left = rest
	}
	return count
}

func TestPlanOf1000ScatteredTags(t *testing.T) {
	totalSpans, totalTags := 0, 0
	for seed := range uint64(40) {
		rng := rand.New(rand.NewPCG(seed, 2))
		size := []int{1500, 5000, 20000, 65536}[seed%4]
		items := scatter(rng, 1000, size)
		lim := limits{items: []int{125, 123, 32, 16, 100}[rng.IntN(5)], gap: []int{0, 4, 8, 32, 125}[rng.IntN(5)]}
		spans := planSpans(items, lim, nil)
		checkSpans(t, items, spans, lim, nil)
		if want := fewest(items, lim, size); len(spans) != want {
			t.Fatalf("seed %d: %d spans, best is %d (%+v, %d registers)", seed, len(spans), want, lim, size)
		}
		totalSpans += len(spans)
		totalTags += len(items)
	}
	t.Logf("%d tags in %d requests", totalTags, totalSpans)
}

func TestDivide(t *testing.T) {
	tests := []struct {
		items []item
		want  string
	}{
		{[]item{{0, 0, 1}}, "[]"},
		{[]item{{0, 0, 4}, {1, 2, 3}}, "[]"},                               // overlapping values cannot be parted
		{[]item{{0, 0, 1}, {1, 1, 2}, {2, 2, 3}, {3, 3, 4}}, "[2]"},        // no gap: the middle
		{[]item{{0, 0, 2}, {1, 2, 4}, {2, 4, 5}}, "[2]"},                   // never inside a value
		{[]item{{0, 0, 1}, {1, 1, 2}, {2, 5, 6}, {3, 9, 10}}, "[2 5 6 9]"}, // gaps first, all of them
	}
	for _, tt := range tests {
		s := span{0, len(tt.items), tt.items[0].from, tt.items[len(tt.items)-1].to}
		if got := fmt.Sprint(divide(tt.items, s)); got != tt.want {
			t.Errorf("%v: %s, want %s", tt.items, got, tt.want)
		}
	}
}
