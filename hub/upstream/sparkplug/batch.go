package sparkplug

import (
	"time"

	"holdfast/hub"
	"holdfast/hub/upstream/sparkplug/payload"
)

// A Batch is readings that were taken together.
type Batch struct {
	Device   string // the field device; "" is the edge node itself
	Readings []Reading
}

// A Reading is one value of one tag.
type Reading struct {
	Tag     string
	Value   payload.Value
	Quality uint32    // an OPC UA status code
	Detail  string    // why the quality is not good, for people
	Time    time.Time // when the value was captured; zero means the time of the record
}

// A Decoder makes a batch of a stored record. It sets b, whose Readings it may
// use again; texts and bytes that it puts there must not change later. An error
// means that the record is none that Sparkplug can carry, now or ever.
type Decoder func(r *hub.Record, b *Batch) error

// A Device is a field device as it is configured.
type Device struct {
	Name string
	Tags []Tag
}

// A Tag is one value of a device as it is configured.
type Tag struct {
	Name     string
	Datatype payload.Datatype // Unknown: taken from the first value
	Unit     string           // engineering unit, "" is none
	Writable bool
}

// A Command is one value that a host wants to have written.
type Command struct {
	ID      string // the same when the same message comes twice
	Device  string
	Tag     string
	Value   payload.Value
	Issued  time.Time // by the host's clock
	Expires time.Time // by the host's clock: not to be carried out from then on
}
