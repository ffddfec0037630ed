// Package broker is an MQTT engine: it speaks MQTT 3.1.1 and 5 on any number of
// listeners, and leaves all meaning to a [Backend].
//
// The engine asks its backend four questions: who is this, may they, take this
// and tell me when it is safe, and what is next for this session. It owns the
// codec, connection life, packet identifiers, windows, quality-of-service
// handshakes, keep-alive, limits and socket batching. It stores nothing.
package broker

import (
	"context"
	"crypto/tls"
	"net"
	"time"
)

// A Backend gives the engine's connections their meaning. Its methods are
// called from many goroutines.
type Backend interface {
	// Authenticate answers who the client is. A *Refusal tells the client why
	// not; any other error is told as "server unavailable" and logged. It is
	// not on the hot path and may take until ctx ends.
	Authenticate(ctx context.Context, c *Connect) (Principal, error)

	// Attach opens the client's session or resumes it. If the session is
	// attached already, the backend first calls Outlet.Close of the older
	// connection with TakenOver and waits for its Detach. It returns only when
	// what CONNACK promises is durable.
	Attach(ctx context.Context, p Principal, c *Connect, out Outlet) (Session, error)
}

// A Principal is an authenticated client: it answers what the client may do.
// Both methods are on hot paths and must be quick and safe for concurrent use.
type Principal interface {
	// Name is unique among clients; it is what ownership and order hang on.
	Name() string
	MayPublish(topic []byte) bool
	MaySubscribe(filter string) bool // filter is without the $share/name/ of a shared subscription
}

// Connect is what a client said when it connected; the engine has checked its
// form.
type Connect struct {
	ClientID       string // as sent, or made by the engine when AssignedID
	AssignedID     bool
	Version        byte // 4 is MQTT 3.1.1, 5 is MQTT 5
	CleanStart     bool
	SessionExpiry  time.Duration // how long the session outlives the connection; Forever for 3.1.1 without clean session
	Username       string
	Password       []byte
	HasUsername    bool
	HasPassword    bool
	Will           *Will // nil when there is none
	ReceiveMaximum uint16
	TLS            *tls.ConnectionState // nil on plain connections
	Peer           *PeerCredentials     // nil except on unix sockets
	Remote         net.Addr
	Listener       string // name of the listener it came in by
}

// Forever as a SessionExpiry means that the session never expires by itself.
const Forever = time.Duration(1<<63 - 1)

// PeerCredentials is what the kernel says about the other end of a unix socket.
type PeerCredentials struct {
	PID int
	UID int
	GID int
}

// A Will is the message that a client leaves behind.
type Will struct {
	Message Message
	Delay   time.Duration // MQTT 5 will delay interval
}

// A Refusal is an error with a reason code that the client is told (MQTT 5,
// 2.4; translated for 3.1.1).
type Refusal struct {
	Code   byte
	Reason string // one sentence, told to MQTT 5 clients and logged
}

// Error returns the reason.
func (r *Refusal) Error() string { return r.Reason }

// A Message is one publication. Its slices belong to the engine.
type Message struct {
	Topic   []byte // the full topic: aliases are resolved
	Payload []byte
	Props   []byte        // MQTT 5 properties as hub.Record keeps them
	Expiry  time.Duration // message expiry interval, 0 = none
	QoS     byte
	Retain  bool
}

// ItemKind says what an [Item] asks for.
type ItemKind uint8

// The kinds of item.
const (
	ItemPublish ItemKind = iota // take this message
	ItemRelease                 // QoS 2: the sender has released PacketID; forget that it was received
)

// An Item is one thing that a client sent and that must be safe before it is
// answered.
type Item struct {
	Kind     ItemKind
	Message  Message // ItemPublish
	PacketID uint16  // 0 for QoS 0
	Code     byte    // set by the backend before Done: MQTT 5 reason code of the answer, 0 = success
}

// An Inbound is everything that one read of a socket brought in, in order. The
// items and all memory they point to stay untouched until Done is called.
type Inbound struct {
	Items []Item
	// Done answers all items at once. The backend calls it exactly once, from
	// any goroutine, after all QoS 1 and 2 items that it accepted are durable.
	// It must not hold a lock while calling it. Calls for one session are made in
	// the order in which the batches were handed in.
	Done func(*Inbound)
}

// Delivery is one message for the client.
type Delivery struct {
	ID      uint64   // the backend's name for it, unique in the session while it is in flight
	Message Message  // Message.QoS is already the lower of publication and subscription
	SubIDs  []uint32 // MQTT 5 subscription identifiers
}

// A Subscription is one filter with its options.
type Subscription struct {
	Filter            string // validated; shared ones begin with $share/
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte   // 0, 1 or 2 (MQTT 5, 3.8.3.1)
	ID                uint32 // subscription identifier, 0 = none
}

// A Session is a client's session while it is attached. Publish is called by
// one goroutine, Fetch and Settle by another; the rest by either.
//
// It has more than three methods because it is one conversation: each method
// is one MQTT exchange, and a half of them is no session.
type Session interface {
	// Present reports whether Attach found an existing session.
	Present() bool

	// Flight is the engine's own record of what is in flight. The backend keeps
	// it with the session across connections, and makes it anew with NewFlight
	// for a new session or after a restart (see Note).
	Flight() *Flight

	// Publish takes a batch and returns at once; in.Done answers it. When the
	// backend has no room it answers items with code 0x97 (quota exceeded) or
	// delays Done; the engine stops reading the socket while too much waits.
	Publish(in *Inbound)

	// Subscribe and Unsubscribe return one reason code for each entry when the
	// change is durable. Retained messages are queued as deliveries.
	Subscribe(ctx context.Context, subs []Subscription) ([]byte, error)
	Unsubscribe(ctx context.Context, filters []string) ([]byte, error)

	// Fetch appends up to max deliveries in order, and up to about maxBytes of
	// payload, to dst. Their memory is valid until the next Fetch. QoS 0 ones
	// need no Settle. The engine fetches again until nothing comes; after that it
	// waits for Outlet.Wake.
	Fetch(dst []Delivery, max, maxBytes int) []Delivery

	// Recall returns a delivery that is in flight once more, for sending it again
	// after a reconnection. ok is false when it has expired or was dropped; it
	// counts as settled then.
	Recall(id uint64) (d Delivery, ok bool)

	// Settle tells that the client has the deliveries for good.
	Settle(ids []uint64)

	// Note makes changes of the flight durable before the engine goes on: QoS 2
	// deliveries need it so that a packet identifier keeps its meaning across a
	// restart. done is called when it is durable.
	Note(changes []FlightChange, done func(error))

	// Detach ends the attachment. It is called exactly once, after the last call of
	// every other method has returned and every Inbound and Note has been answered.
	// What is not answered within Options.DrainTimeout is not waited for; a later
	// answer has no effect.
	Detach(d Detachment)
}

// Detachment says how a connection ended.
type Detachment struct {
	Clean         bool          // by DISCONNECT: no will, unless WithWill
	WithWill      bool          // MQTT 5 DISCONNECT with reason 0x04
	SessionExpiry time.Duration // MQTT 5 DISCONNECT may change it; otherwise as in Connect
	TakenOver     bool          // by another connection of the same client
	Reason        string        // for people
}

// An Outlet is the engine's side of an attached session.
type Outlet interface {
	// Wake tells that Fetch has something. It never blocks and may be called at
	// any time, from any goroutine, also after Detach.
	Wake()
	// Close ends the connection with a reason code; it does not wait.
	Close(code byte, reason string)
}
