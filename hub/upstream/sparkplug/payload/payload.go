// Package payload is the encoding of Sparkplug B messages: the protocol buffer
// Payload of the Sparkplug specification 3.0.0, clause 6, as far as an edge node
// needs it.
//
// It is written by hand on protowire and follows the specification's field
// numbers. An edge node writes metrics with scalar values, properties and bytes,
// and reads commands of the same kind; that is what is here. Data sets,
// templates, nested property sets, file metadata and extensions are passed over
// when reading: a metric that holds one says so with [OtherField].
//
// Whole numbers of the datatype UInt32 travel as int_value, as clause 6.4.16
// says. Some implementations, among them those of Eclipse Tahu, use long_value;
// both are understood when reading.
package payload

// Limits of what is read. A message beyond them is refused.
const (
	MaxMetrics    = 65536 // in one message
	MaxProperties = 256   // of one metric
)

// A Payload is one message.
type Payload struct {
	Timestamp    uint64 // milliseconds since 1970, UTC
	HasTimestamp bool
	Seq          uint64 // 0 to 255
	HasSeq       bool
	UUID         string
	Body         []byte
	Metrics      []Metric
}

// A Metric is one value with its description.
type Metric struct {
	Name         string // "" is none
	Alias        uint64
	HasAlias     bool
	Timestamp    uint64 // milliseconds since 1970, UTC
	HasTimestamp bool
	Datatype     Datatype // Unknown is none
	Historical   bool
	Transient    bool
	Null         bool
	Properties   []Property
	Scalar       Scalar
}

// A Property is one entry of a metric's property set.
type Property struct {
	Key      string
	Datatype Datatype
	Null     bool
	Scalar   Scalar
}

// Value returns the metric's value as datatype d; the metric's own is used when
// it has one.
func (m *Metric) Value(d Datatype) (Value, error) {
	if m.Datatype != Unknown {
		d = m.Datatype
	}
	if m.Null {
		return Value{}, nil
	}
	return m.Scalar.Decode(d)
}
