// Package payload writes readings in the forms that programs elsewhere take:
// JSON, CBOR (RFC 8949) and protobuf, a whole batch in one message or each
// reading in its own. FORMAT.md describes them, readings.proto is the schema of
// the third.
//
// It is pure: bytes in the batch encoding of package point go in, bytes come
// out. No goroutines, no I/O, no clock.
package payload

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"holdfast/protocols/point"
)

// Form is how readings are written.
type Form uint8

// The forms.
const (
	JSON Form = iota
	CBOR
	Protobuf
)

// Times is how times are written in JSON and CBOR.
type Times uint8

// The ways of writing times.
const (
	Micros  Times = iota // "us": whole microseconds since 1970-01-01 UTC
	Millis               // "ms": whole milliseconds, rounded down
	Seconds              // "s": seconds with a fraction
	RFC3339              // "rfc3339": text such as 2025-10-09T08:53:20.123456Z
)

// Qualities is how qualities are written in JSON and CBOR.
type Qualities uint8

// The ways of writing qualities.
const (
	Names Qualities = iota // "name": OPC UA's name, such as BadTimeout
	Codes                  // "code": OPC UA's number, such as 2148139008
)

// Options say what an [Encoder] writes.
type Options struct {
	Form       Form
	PerReading bool   // each reading is a message of its own
	Gateway    string // name of this gateway

	// For JSON and CBOR. Fields gives fields (see [FieldNames]) other keys; "" leaves
	// a field out. Those of them that are left out by default are written when
	// they stand here.
	Times     Times
	Qualities Qualities
	Fields    map[string]string

	// Lookup returns what is configured about a tag; tag "" is the field device
	// itself. nil: nothing is known. What it returned is remembered.
	Lookup func(device, tag string) Tag
}

// A Tag is what is configured about a tag and is not in a reading.
type Tag struct {
	Unit  string // engineering unit as a UCUM code, "" = none
	Class string // scan class
	Path  string // where it stands in the plant: levels with "/" between them
}

// field is an index of fieldNames.
type field uint8

const (
	fGateway field = iota
	fPath
	fDevice
	fSeq
	fBoot
	fClock
	fDropped
	fTag
	fValue
	fUnit
	fClass
	fQuality
	fDetail
	fTime
	fSource
	fReadings
	fieldCount
)

// fieldNames are the fields in the order in which they are written; what FORMAT.md
// says about each holds.
var fieldNames = [fieldCount]string{
	"gateway", "path", "device", "seq", "boot", "clock", "dropped",
	"tag", "value", "unit", "class", "quality", "detail", "time", "source", "readings",
}

// FieldNames returns the names of all fields.
func FieldNames() []string { return slices.Clone(fieldNames[:]) }

// ParseForm reads json, cbor or protobuf.
func ParseForm(s string) (Form, error) { return parse[Form]("form", s, "json", "cbor", "protobuf") }

// ParseTimes reads us, ms, s or rfc3339.
func ParseTimes(s string) (Times, error) { return parse[Times]("times", s, "us", "ms", "s", "rfc3339") }

// ParseQualities reads name or code.
func ParseQualities(s string) (Qualities, error) {
	return parse[Qualities]("qualities", s, "name", "code")
}

func parse[T ~uint8](what, s string, names ...string) (T, error) {
	if i := slices.Index(names, s); i >= 0 {
		return T(i), nil
	}
	return 0, fmt.Errorf("unknown %s %q: want %s", what, s, strings.Join(names, ", "))
}

// maxLooked bounds what is remembered of Lookup. Overflow rule: all of it is
// forgotten and asked for again.
const maxLooked = 65536

// An Encoder writes the readings of one batch after the other. It is for one
// goroutine at a time.
type Encoder struct {
	o      Options
	keys   [fieldCount]string // "" = left out
	jsons  [fieldCount]string // the key as it stands in JSON, with its colon
	looked map[tagKey]Tag

	batch point.Batch
	part  []byte // buffer of one reading (protobuf)
}

type tagKey struct{ device, tag string }

// New returns an Encoder. The error joins everything that is wrong with the
// options.
func New(o Options) (*Encoder, error) {
	e := &Encoder{o: o, looked: map[tagKey]Tag{}}
	if err := e.name(); err != nil {
		return nil, err
	}
	for f, key := range e.keys {
		e.jsons[f] = string(appendJSONText(nil, key)) + ":"
	}
	return e, nil
}

// name gives the fields their keys.
func (e *Encoder) name() error {
	var errs []error
	if e.o.Form == Protobuf && (len(e.o.Fields) > 0 || e.o.Times != Micros || e.o.Qualities != Names) {
		errs = append(errs, errors.New("protobuf has fields, times and qualities of its own"))
	}
	for f, name := range fieldNames {
		e.keys[f] = name
		if f := field(f); f == fGateway || f == fPath || f == fClass {
			e.keys[f] = ""
		}
		if key, ok := e.o.Fields[name]; ok {
			e.keys[f] = key
		}
	}
	for name := range e.o.Fields {
		if !slices.Contains(fieldNames[:], name) {
			errs = append(errs, fmt.Errorf("unknown field %q: there are %s", name, strings.Join(fieldNames[:], ", ")))
		}
	}
	for _, f := range []field{fValue, fReadings} {
		if e.keys[f] == "" {
			errs = append(errs, fmt.Errorf("field %q cannot be left out", fieldNames[f]))
		}
	}
	for f, key := range e.keys {
		if !utf8.ValidString(key) {
			errs = append(errs, fmt.Errorf("key %q of field %q is not UTF-8", key, fieldNames[f]))
		}
		if g := slices.Index(e.keys[:], key); key != "" && g < f {
			errs = append(errs, fmt.Errorf("fields %q and %q have the same key %q", fieldNames[g], fieldNames[f], key))
		}
	}
	return errors.Join(errs...)
}

// Open takes a batch in the encoding of package point and returns how many
// messages it makes: one, or as many as it has readings. ok is false when data is
// no batch. Readings without a time get received, when the gateway got the batch;
// the zero time is none. Nothing of data is kept.
func (e *Encoder) Open(data []byte, received time.Time) (messages int, ok bool) {
	if err := point.DecodeBatch(data, &e.batch); err != nil {
		return 0, false
	}
	if !received.IsZero() {
		for i := range e.batch.Readings {
			if r := &e.batch.Readings[i]; r.Receive.IsZero() {
				r.Receive = received
			}
		}
	}
	if e.o.PerReading {
		return len(e.batch.Readings), true
	}
	return 1, true
}

// Append appends message i of the open batch to dst.
func (e *Encoder) Append(dst []byte, i int) []byte {
	from, to := 0, len(e.batch.Readings)
	if e.o.PerReading {
		from, to = i, i+1
	}
	switch {
	case e.o.Form == Protobuf:
		return e.appendProtobuf(dst, from, to)
	case e.o.PerReading:
		return e.appendFlat(dst, i)
	}
	return e.appendBatch(dst)
}

// Forget has Lookup asked again about every tag: what is configured has changed.
func (e *Encoder) Forget() { clear(e.looked) }

// About is what message i is about. In a message of a whole batch Tag, Unit,
// Class and Quality are empty and Path is the field device's.
type About struct {
	Device  string
	Tag     string
	Unit    string
	Class   string
	Path    string
	Quality string
}

// About returns what message i of the open batch is about.
func (e *Encoder) About(i int) About {
	a := About{Device: e.batch.Device}
	if e.o.PerReading {
		r := &e.batch.Readings[i]
		a.Tag, a.Quality = r.Tag, r.Quality.String()
	}
	t := e.lookup(a.Tag)
	a.Unit, a.Class, a.Path = t.Unit, t.Class, t.Path
	return a
}

// lookup returns what is configured about a tag of the open batch.
func (e *Encoder) lookup(tag string) Tag {
	if e.o.Lookup == nil {
		return Tag{}
	}
	k := tagKey{e.batch.Device, tag}
	t, ok := e.looked[k]
	if !ok {
		if len(e.looked) >= maxLooked {
			clear(e.looked)
		}
		t = e.o.Lookup(k.device, k.tag)
		e.looked[k] = t
	}
	return t
}
