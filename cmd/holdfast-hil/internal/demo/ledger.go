package demo

import (
	"slices"
	"sync"
)

// A ledger proves what arrived. It knows two kinds of things that must not get
// lost: numbered messages of a sender that keeps account of what the gateway
// acknowledged, and batches of readings, numbered by the field daemon for each
// device and each start of it.
type ledger struct {
	mu      sync.Mutex
	acked   ranges            // numbers that the gateway has acknowledged
	arrived ranges            // numbers that arrived upstream
	runs    map[run]*runState // batches that arrived upstream
	repeats int               // arrivals of what had arrived before
	total   int               // arrivals
	late    int               // numbers that arrived after a higher one, for the first time
	newest  uint64            // highest number that arrived
}

// run is one start of the field daemon, as one device's batches tell it.
type run struct {
	device string
	boot   uint64
}

type runState struct {
	seen     ranges
	readings int
}

func newLedger() *ledger { return &ledger{runs: map[run]*runState{}} }

// ack notes that the gateway acknowledged a number.
func (l *ledger) ack(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked.add(n)
}

// number notes that a number arrived upstream.
func (l *ledger) number(n uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	switch {
	case !l.arrived.add(n):
		l.repeats++
	case n < l.newest:
		l.late++
	}
	l.newest = max(l.newest, n)
}

// batch notes that a batch of readings arrived upstream.
func (l *ledger) batch(device string, boot, sequence uint64, readings int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	key := run{device, boot}
	r := l.runs[key]
	if r == nil {
		r = &runState{}
		l.runs[key] = r
	}
	if r.seen.add(sequence) {
		r.readings += readings
	} else {
		l.repeats++
	}
}

// verdict is what the ledger says at one moment.
type verdict struct {
	Acked     int `json:"acknowledged"`
	Arrived   int `json:"arrived"`         // of the acknowledged ones
	Lost      int `json:"lost"`            // acknowledged and not arrived
	Extra     int `json:"unacknowledged"`  // arrived though the acknowledgement did not reach the sender
	OutOf     int `json:"out_of_order"`    // first arrivals after a higher number
	Batches   int `json:"batches"`         // of readings that arrived
	Readings  int `json:"readings"`        // in them
	Holes     int `json:"missing_batches"` // numbers missing between batches that arrived
	Repeats   int `json:"duplicates"`
	Total     int `json:"arrivals"`
	FieldRuns int `json:"field_starts"`
}

func (l *ledger) verdict() verdict {
	l.mu.Lock()
	defer l.mu.Unlock()
	v := verdict{Acked: l.acked.count(), Repeats: l.repeats, Total: l.total, OutOf: l.late}
	v.Arrived = l.acked.both(&l.arrived)
	v.Lost = v.Acked - v.Arrived
	v.Extra = l.arrived.count() - v.Arrived
	boots := map[uint64]bool{}
	for key, r := range l.runs {
		v.Batches += r.seen.count()
		v.Readings += r.readings
		v.Holes += r.seen.holes()
		boots[key.boot] = true
	}
	v.FieldRuns = len(boots)
	return v
}

// ranges is a set of numbers that are mostly consecutive.
type ranges struct{ all []span }

// span is the numbers from first to last.
type span struct{ first, last uint64 }

// add puts n in and reports whether it was not there before.
func (r *ranges) add(n uint64) bool {
	// i is the first span that ends at n or later.
	i, _ := slices.BinarySearchFunc(r.all, n, func(s span, n uint64) int {
		if s.last < n {
			return -1
		}
		return 1
	})
	if i < len(r.all) && r.all[i].first <= n {
		return false
	}
	joinsBefore := i > 0 && r.all[i-1].last+1 == n
	joinsAfter := i < len(r.all) && r.all[i].first == n+1
	switch {
	case joinsBefore && joinsAfter:
		r.all[i-1].last = r.all[i].last
		r.all = slices.Delete(r.all, i, i+1)
	case joinsBefore:
		r.all[i-1].last = n
	case joinsAfter:
		r.all[i].first = n
	default:
		r.all = slices.Insert(r.all, i, span{n, n})
	}
	return true
}

func (r *ranges) count() (n int) {
	for _, s := range r.all {
		n += int(s.last - s.first + 1)
	}
	return n
}

// holes returns how many numbers are missing below the highest. Numbers begin
// with 1.
func (r *ranges) holes() int {
	if len(r.all) == 0 {
		return 0
	}
	return int(r.all[len(r.all)-1].last) - r.count()
}

// both returns how many numbers are in both sets.
func (r *ranges) both(o *ranges) (n int) {
	for i, j := 0, 0; i < len(r.all) && j < len(o.all); {
		a, b := r.all[i], o.all[j]
		if first, last := max(a.first, b.first), min(a.last, b.last); first <= last {
			n += int(last - first + 1)
		}
		if a.last < b.last {
			i++
		} else {
			j++
		}
	}
	return n
}
