package forward

import (
	"fmt"
	"log/slog"
	"slices"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/journal"
)

// Options tune a Forwarder. The zero value works.
type Options struct {
	// Priorities are those that routes to this endpoint use, in any order; each
	// gets a lane. A record of another priority travels in the lane of the next
	// less important one, or in the last lane. Empty means one lane for all. When
	// a priority is removed between two runs, two lanes become one that starts
	// where the slower one was, so some records are sent again.
	Priorities []uint8

	// Window is how many records may be in flight. Default 1024. WindowBytes is
	// how many bytes of them; one record larger than it travels alone. Default
	// 4 MiB. Both also bound the memory. Overflow rule: reading stops.
	Window      int
	WindowBytes int

	// DuplicateWindow is how many confirmed or buried records may be ahead of the
	// durable position, those in flight included: so many may be sent again after
	// a crash. When the position cannot be saved sending stops there. At least
	// 2 x Window; default 8192 or that.
	DuplicateWindow int

	// SaveEvery is the longest time between a confirmation and the saving of the
	// position. Default 5 s: saving costs a flash write when nothing else is written.
	SaveEvery time.Duration

	// Bound is the longest time for which a link may settle nothing (and, if it is
	// a hub.Advancer, get no answer) although something is in flight; then it is closed and counts as down, whatever it
	// says itself. Upstreams have bounds of their own that are usually shorter.
	// Default 30 s.
	Bound time.Duration

	// ConnectTimeout bounds one attempt to connect. Default 30 s.
	ConnectTimeout time.Duration

	// DrainTimeout is how long Run, when told to end, waits for what is in flight,
	// and then again for the saving of the position. Default 5 s.
	DrainTimeout time.Duration

	// MinPause and MaxPause limit the back-off of the link and of each sender.
	// Default 1 s and 60 s. A link's back-off starts again only after a confirmation.
	MinPause, MaxPause time.Duration

	// MaxParked is how many senders may have stepped aside. Default 64, at most
	// 1024. Overflow rule: a failure of one more sender stops its lane for the
	// sender's pause, so that nothing overtakes and nothing is lost.
	MaxParked int

	// DeadLetters keeps what the far side refuses for good. nil means that such
	// records are dropped and counted, with a condition.
	DeadLetters DeadLetterStore

	// GapTopic is the topic on which the far side is told that the journal has
	// dropped records, as JSON: {"epoch","from","to","count","reason"}. Empty
	// means that it is not told.
	GapTopic string

	// OnCondition is told when a trouble begins or ends. It must be quick and
	// must not call the Forwarder.
	OnCondition func(Condition)

	Clock clock.Clock    // nil: the real one
	Log   *slog.Logger   // nil: silent
	Rand  func() float64 // jitter, in [0,1); nil: math/rand
}

// A Trouble names a condition of a forwarder.
type Trouble string

// The troubles that a forwarder can have.
const (
	LinkDown      Trouble = "upstream-down"          // no link that confirms
	SendersParked Trouble = "upstream-sender-parked" // the far side takes some senders' records only later
	Rejecting     Trouble = "upstream-rejecting"     // the far side has refused records for good
	RecordsLost   Trouble = "upstream-gap"           // the journal dropped records before they were sent
	CursorFailed  Trouble = "upstream-cursor"        // the position cannot be saved
	ReadFailed    Trouble = "upstream-read"          // the journal cannot be read
)

// A Condition is a change of state of one trouble.
type Condition struct {
	Endpoint string
	Trouble  Trouble
	On       bool
	Reason   string // for a person
}

// eventHold is how long a trouble that is an event, not a state, stays on
// after the last one.
const eventHold = 10 * time.Minute

func orDefault[T int | time.Duration](v *T, def T) {
	if *v == 0 {
		*v = def
	}
}

func (o Options) withDefaults() (Options, error) {
	orDefault(&o.Window, 1024)
	orDefault(&o.WindowBytes, 4<<20)
	orDefault(&o.DuplicateWindow, max(8192, 2*o.Window))
	orDefault(&o.SaveEvery, 5*time.Second)
	orDefault(&o.Bound, 30*time.Second)
	orDefault(&o.ConnectTimeout, 30*time.Second)
	orDefault(&o.DrainTimeout, 5*time.Second)
	orDefault(&o.MinPause, time.Second)
	orDefault(&o.MaxPause, 60*time.Second)
	orDefault(&o.MaxParked, 64)
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.OnCondition == nil {
		o.OnCondition = func(Condition) {}
	}
	switch {
	case o.Window < 0 || o.WindowBytes < 0:
		return o, fmt.Errorf("window %d, %d bytes: must be positive", o.Window, o.WindowBytes)
	case o.DuplicateWindow < 2*o.Window:
		return o, fmt.Errorf("duplicate window %d is less than twice the window %d", o.DuplicateWindow, o.Window)
	case o.MaxParked < 0 || o.MaxParked > maxDetours:
		return o, fmt.Errorf("parked senders %d: must be 0 to %d", o.MaxParked, maxDetours)
	case min(o.SaveEvery, o.Bound, o.ConnectTimeout, o.DrainTimeout, o.MinPause, o.MaxPause) < 0:
		return o, fmt.Errorf("a time is negative")
	}
	for _, p := range o.Priorities {
		if p > hub.LowestPriority {
			return o, fmt.Errorf("priority %d is outside 0..%d", p, hub.LowestPriority)
		}
	}
	return o, nil
}

// laneMasks returns the priorities of each lane, the most important lane first.
func laneMasks(priorities []uint8) (masks []uint16) {
	ps := slices.Compact(slices.Sorted(slices.Values(priorities)))
	from := 0
	for i, p := range ps {
		to := int(p)
		if i == len(ps)-1 {
			to = hub.LowestPriority
		}
		masks = append(masks, (1<<(to+1)-1)&^(1<<from-1))
		from = to + 1
	}
	if len(masks) == 0 {
		masks = []uint16{1<<hub.Priorities - 1}
	}
	return masks
}

// classesFor returns the journal classes in which a record of the lane may be:
// a record's class is the best priority among its targets.
func classesFor(mask uint16) journal.Classes {
	c := journal.Classes(mask)
	for s := 1; s < hub.Priorities; s++ {
		c |= c >> 1
	}
	return c
}
