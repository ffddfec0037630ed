package forward

import (
	"time"

	"holdfast/hub"
	"holdfast/hub/journal"
)

// A Phase is what a link is doing.
type Phase uint8

// The phases.
const (
	Down       Phase = iota // there is no link, and the next attempt waits for its time
	Connecting              // an attempt is under way
	Up                      // there is a link, and it confirms
)

// String returns down, connecting or up.
func (p Phase) String() string {
	switch p {
	case Connecting:
		return "connecting"
	case Up:
		return "up"
	}
	return "down"
}

// LinkState is the state of the link to the far side.
type LinkState struct {
	Phase  Phase
	Since  time.Time // wall time since when it is up, or since when it is not
	Reason string    // why it is not up; empty while up and before the first attempt
	// LastConfirmed is the wall time of the last confirmation, zero when there
	// has been none since the start.
	LastConfirmed time.Time
}

// Stats are the figures of a forwarder. Counters start at zero with Run.
type Stats struct {
	Link LinkState

	// Queued estimates, for each priority, how many records wait, those in flight
	// aside: what is known to be missing, and how far the lane of the priority and
	// its detours are behind, in offsets. Records for other endpoints are among
	// those, so it is an upper bound. Only the entry of a lane's most important
	// priority is set.
	Queued [hub.Priorities]uint64
	// Oldest is the age of the oldest record that is in flight or next to be
	// sent, by the wall clock; 0 when the queue is empty.
	Oldest time.Duration

	InFlight      int
	InFlightBytes int
	Parked        int // senders that stepped aside

	Sent         uint64 // handed to the link, repetitions included
	Retried      uint64 // of Sent, those that had been sent before
	Confirmed    uint64
	Failed       uint64 // refused for now on a live link
	Expired      uint64 // left the queue because their time to live was over
	Rejected     uint64 // refused for good
	DeadLettered uint64 // of Rejected, kept as dead letters
	Dropped      uint64 // of Rejected, not kept because there is no store
	Lost         uint64 // dropped by the journal before they were sent: an upper bound
	Connects     uint64
}

// Stats returns the figures of this moment.
func (f *Forwarder) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.stats
	s.Link = f.state
	if f.lastConfirmed != 0 {
		s.Link.LastConfirmed = time.UnixMicro(f.lastConfirmed).UTC()
	}
	s.InFlight, s.InFlightBytes = len(f.flights), f.bytes
	end := f.log.Committed() + 1
	oldest := int64(0)
	see := func(received int64) {
		if oldest == 0 || received < oldest {
			oldest = received
		}
	}
	for _, fl := range f.flights {
		see(fl.out.Record.Received)
	}
	for _, l := range f.lanes {
		top := 0
		for l.mask&(1<<top) == 0 {
			top++
		}
		s.Queued[top] = l.queued(end)
		if h := l.main.head; h != nil && h.gap == nil {
			see(h.rec.Received)
		}
		for _, d := range l.order {
			if d.parked {
				s.Parked++
			}
			if d.head != nil && d.head.gap == nil {
				see(d.head.rec.Received)
			}
		}
	}
	if oldest != 0 {
		s.Oldest = max(0, f.o.Clock.Now().Sub(time.UnixMicro(oldest)))
	}
	return s
}

// queued estimates how many records wait before end, from above: behind the
// slowest detour, or further on than the lane, or known one by one.
func (l *lane) queued(end journal.Offset) uint64 {
	slowest, known := l.main.next, len(l.main.holes)
	for _, d := range l.order {
		slowest = min(slowest, d.next)
		known += len(d.holes)
	}
	return uint64(max(end, slowest)-slowest) + uint64(known)
}
