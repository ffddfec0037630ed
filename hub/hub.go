// Package hub is the contract of the on-device hub: the record in which a
// message is stored, the target that a route gave it, and the upstream that
// takes it away.
//
// To the hub a message is a topic, properties and bytes; it never looks inside
// for meaning except where a route asks it to.
package hub

import (
	"context"
	"errors"
	"time"
)

// An Upstream is one far side that takes messages and confirms them. It is made
// from configuration by a folder below hub/upstream and driven by hub/forward.
type Upstream interface {
	// Connect makes a link. It returns not much later than ctx's deadline.
	Connect(ctx context.Context) (Link, error)
}

// A Link is one connection to a far side.
//
// Send is the only way in, so that one place owns windows, order and retries:
// the caller, not the link.
type Link interface {
	// Send hands m over without waiting for the far side. settled is called
	// exactly once, from any goroutine, never from within Send: with nil when
	// the far side has confirmed m; with an error that is ErrRejected when it
	// refused m and would refuse it again; with any other error when m's fate
	// is unknown or the refusal may pass. m is valid until settled is called.
	// Send itself fails, without a call of settled, when the link has ended, or
	// with ErrRejected when it can tell that the far side could never take m.
	Send(m *Outgoing, settled func(error)) error

	// Done is closed when the link has ended; Err then says why, and does so
	// already when the first message is settled because of it. A link ends by
	// itself when the far side has confirmed nothing within its declared bound
	// although something waits for it.
	Done() <-chan struct{}
	Err() error

	// Close ends the link. What is in flight is settled with an error first.
	Close() error
}

// An Advancer is a Link on which one message may take the far side many answers:
// its settlements alone would make it look dead.
type Advancer interface {
	// Advanced returns how many answers have come, those included that settle
	// nothing. It may be called at any time.
	Advanced() uint64
}

// Outgoing is one message on its way to a far side.
type Outgoing struct {
	Record   Record // the stored message; its slices stay valid until it is settled
	Epoch    uint64 // the journal's identity
	Offset   uint64 // the record's number in it; with Epoch the far side can drop duplicates
	Attempt  int    // 1 on the first try
	Priority uint8  // of the route that sent it here
}

// ErrRejected is wrapped by a settlement when the far side has refused a
// message for good; trying again would be refused again.
var ErrRejected = errors.New("rejected by the far side")

// Priorities of routes: 0 is sent first and kept longest. A route without one
// gets DefaultPriority.
const (
	HighestPriority = 0
	LowestPriority  = 9
	DefaultPriority = 5
	Priorities      = 10
)

// A Target is where a route sends a message.
type Target struct {
	Endpoint string        // "$upstream", the name of another upstream, or "module/input"; 1 to 255 bytes
	Priority uint8         // HighestPriority to LowestPriority
	TTL      time.Duration // time to live from receipt; 0 = for ever
}
