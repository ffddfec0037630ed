// Package point is the vocabulary of field data: a tag and how it is
// configured, a value, its quality, a reading with its times, and the form in
// which readings travel.
//
// It is pure: no I/O, no goroutines, no clock of its own. Protocol adapters
// produce [Sample] values, package poll stamps them into [Reading] values, and
// the fleet server decodes the same bytes with the same code.
package point

import (
	"time"

	"holdfast/drivers/clock"
)

// A Tag is one named value of a field device, as configured.
type Tag struct {
	Name    string        // unique in its device; no '/', '+', '#', no control characters
	Address string        // where it lives, in the protocol's own notation
	Type    string        // how it is encoded there, in the protocol's own notation; "" = the protocol's default
	Class   string        // scan class that reads it; "" = the device's default class
	Access  Access        // what may be done with it; the zero value is read only
	Unit    string        // engineering unit as a UCUM code, "" = none
	Comment string        // free text for people
	Scale   Scale         // raw to engineering value; the zero value changes nothing
	Dead    Deadband      // changes to hold back; the zero value holds nothing back
	Reduce  Reduction     // what else to hold back; the zero value nothing
	Stale   time.Duration // age at which a Good value that was not read again becomes Uncertain; 0 = three scan periods
	Min     *float64      // lowest engineering value that may be written, nil = no limit
	Max     *float64      // highest engineering value that may be written, nil = no limit
	Params  Params        // further keys that only this protocol knows, such as byte order
}

// Params are a tag's protocol-specific settings, key to text.
type Params map[string]string

// Access says what may be done with a tag.
type Access uint8

// The ways of access.
const (
	ReadOnly  Access = iota // "r"
	ReadWrite               // "rw"
	WriteOnly               // "w"
)

// Readable reports whether the tag may be polled.
func (a Access) Readable() bool { return a != WriteOnly }

// Writable reports whether the tag may be commanded.
func (a Access) Writable() bool { return a != ReadOnly }

// Scale maps a raw value to an engineering value. The zero value is the
// identity. Kind Factor computes raw*Factor+Offset; kind Linear maps the raw
// range onto the engineering range by a straight line.
type Scale struct {
	Kind            ScaleKind
	Factor, Offset  float64 // Factor kind
	RawLow, RawHigh float64 // Linear kind; RawLow != RawHigh
	EngLow, EngHigh float64 // Linear kind
	Clamp           bool    // Linear kind: hold the result inside EngLow..EngHigh and mark it GoodClamped
}

// ScaleKind selects the formula of a [Scale].
type ScaleKind uint8

// The kinds of scaling.
const (
	Unscaled ScaleKind = iota
	Factor
	Linear
)

// Deadband holds back changes that are too small to matter. Quality changes
// always pass.
type Deadband struct {
	Kind  DeadbandKind
	Value float64 // engineering units (Absolute), or percent of the scale's engineering span (Percent); > 0
}

// DeadbandKind selects the measure of a [Deadband].
type DeadbandKind uint8

// The kinds of dead-band.
const (
	NoDeadband   DeadbandKind = iota // every reading is published, unless a [ReduceRule] says otherwise
	OnChange                         // a reading is published when value or quality differs from the last one published
	Absolute                         // when the value moved by more than Value since the last one published
	Percent                          // when it moved by more than Value percent of EngHigh-EngLow
	EveryReading                     // every reading is published, whatever a [ReduceRule] says
)

// A Sample is what an adapter got for one tag: raw, unscaled.
type Sample struct {
	Value   Value
	Quality Quality
	Source  time.Time // the field device's own time of the value; zero if the protocol has none
	Detail  string    // for people: why the quality is not Good, such as "exception 2 (illegal data address)"; "" when Good
}

// A Reading is one sample of one tag, scaled and stamped.
type Reading struct {
	Tag     string
	Value   Value // engineering value; the last good one, or Null, when Bad
	Quality Quality
	Source  time.Time // zero if the protocol has none
	Receive time.Time // when the gateway had it; to the microsecond
	Detail  string    // as in Sample
}

// A Batch is what travels: readings of one device that were taken together.
type Batch struct {
	Device   string
	Sequence uint64        // counts batches of this device since Boot; a hole means that batches were merged or dropped
	Boot     uint64        // random, drawn when the field daemon starts
	Time     time.Time     // receive time of readings that carry none of their own; to the microsecond
	Clock    clock.Quality // how far Time can be believed
	Dropped  uint64        // readings dropped for want of room since the batch before this one
	Readings []Reading
}
