// Package protocols is the contract between the gateway and a field protocol:
// what an adapter must do, and what it may do besides.
//
// An adapter lives in a folder of its own below this one and is listed in
// protocols/all. The conformance suite in protocols/protocoltest is run by
// every adapter.
package protocols

import (
	"context"
	"log/slog"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// An Adapter speaks one field protocol. It owns the links (sockets, serial
// lines) that its sessions share. Its methods may be called from many
// goroutines.
type Adapter interface {
	// Check looks at a device's settings and tags without any I/O and returns
	// every mistake it finds, joined, each naming the key or the tag. What
	// passes Check is accepted by Open.
	Check(d Device) error

	// Open makes a session with one device. It does not wait for the device:
	// links are made on first use and made again as needed, with back-off, so
	// a session lives until Close whatever the device does.
	Open(d Device) (Session, error)

	// Close ends what is left and waits for it. All sessions are closed first.
	Close() error
}

// Env is what every adapter is given when it is made.
type Env struct {
	Clock clock.Clock
	Log   *slog.Logger
}

// A Device is one field device as configured.
type Device struct {
	Name     string
	Protocol string         // name in protocols/all
	Settings map[string]any // the device's own keys in config.toml that this protocol defines; TOML types
	Tags     []point.Tag
	Classes  map[string]time.Duration // scan classes that its tags may name: name to period
}

// A Session is a logical connection to one field device. Read of its groups,
// Write and Close may be called concurrently.
type Session interface {
	// Group fixes a set of tags that will be read together, so that the adapter
	// can plan its requests once. Tags were part of a device that passed Check.
	Group(tags []point.Tag) (Group, error)

	// Close releases the session; reads and writes under way return soon.
	Close() error
}

// A Group reads a fixed set of tags.
type Group interface {
	// Read reads all tags of the group and fills out, which has one entry for
	// each tag in the order given to Group. Every entry is filled whatever
	// happens: what could not be read gets a Bad quality with its reason. Read
	// returns not much later than ctx's deadline. It is not called again before
	// it has returned.
	Read(ctx context.Context, out []point.Sample)
}

// A Writer is a Session that can write. Sessions without it refuse commands.
type Writer interface {
	// Write writes raw values, in order, ahead of reads that wait for the same
	// link, and returns one outcome for each: nil when the device has confirmed.
	// An error that is a *WriteError carries the quality to answer with.
	Write(ctx context.Context, w []Write) []error
}

// A Write is one raw value for one tag.
type Write struct {
	Tag   point.Tag
	Value point.Value
}

// A WriteError says why a write was not confirmed.
type WriteError struct {
	Quality point.Quality
	Maybe   bool  // the device may have acted on it all the same: the answer was lost, not the request
	Err     error // never nil
}

// Error returns the text of the cause.
func (e *WriteError) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *WriteError) Unwrap() error { return e.Err }

// A Subscriber is a Session that can be told of changes instead of asking.
type Subscriber interface {
	// Subscribe calls sink with the index of the tag and its samples, in the
	// order of their source times, until ctx ends. sink does not block.
	Subscribe(ctx context.Context, tags []point.Tag, sink func(tag int, s point.Sample)) error
}

// A Browser is a Session that can list what the device offers.
type Browser interface {
	// Browse returns the children of the node at address, "" for the root.
	Browse(ctx context.Context, address string) ([]Node, error)
}

// A Node is one entry that a Browser found.
type Node struct {
	Address string // as a tag's address; for folders what Browse takes
	Name    string
	Type    string // as a tag's type; "" for a folder
	Folder  bool
	Access  point.Access
}

// Status tells about a link that a session uses, for people and conditions.
type Status struct {
	Link      string // such as "tcp 10.0.0.7:502"
	Connected bool
	Since     time.Time // of the present state
	Reason    string    // why not connected; "" when connected
	Requests  uint64    // sent since start
	Errors    uint64    // of them unanswered, late or malformed
}

// A Reporter is a Session that can tell the state of its link.
type Reporter interface {
	Status() Status
}
