package payload

import (
	"errors"
	"fmt"
	"math"
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
)

// errText is about names and keys; the specification wants UTF-8 (6.4.6).
var errText = errors.New("text is not UTF-8")

// Decode sets p to the message in data, whose memory values keep. What p held is
// gone. Unknown fields are passed over, as protocol buffers are meant to be read.
func Decode(data []byte, p *Payload) error {
	*p = Payload{Metrics: p.Metrics[:0]}
	err := fields(data, func(num protowire.Number, f field) (err error) {
		switch num {
		case payloadTimestamp:
			p.HasTimestamp = true
			p.Timestamp, err = f.varint()
		case payloadSeq:
			p.HasSeq = true
			p.Seq, err = f.varint()
		case payloadUUID:
			p.UUID, err = f.text()
		case payloadBody:
			p.Body, err = f.bytes()
		case payloadMetrics:
			if len(p.Metrics) == MaxMetrics {
				return fmt.Errorf("more than %d metrics", MaxMetrics)
			}
			var b []byte
			if b, err = f.bytes(); err == nil {
				var m Metric
				if m, err = decodeMetric(b); err != nil {
					return fmt.Errorf("metric %d: %w", len(p.Metrics)+1, err)
				}
				p.Metrics = append(p.Metrics, m)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("sparkplug payload: %w", err)
	}
	return nil
}

func decodeMetric(data []byte) (m Metric, err error) {
	err = fields(data, func(num protowire.Number, f field) (err error) {
		switch num {
		case metricName:
			m.Name, err = f.text()
		case metricAlias:
			m.HasAlias = true
			m.Alias, err = f.varint()
		case metricTimestamp:
			m.HasTimestamp = true
			m.Timestamp, err = f.varint()
		case metricDatatype:
			m.Datatype, err = f.datatype()
		case metricHistorical:
			m.Historical, err = f.bool()
		case metricTransient:
			m.Transient, err = f.bool()
		case metricNull:
			m.Null, err = f.bool()
		case metricProperties:
			var b []byte
			if b, err = f.bytes(); err == nil {
				m.Properties, err = decodeProperties(b)
			}
		default:
			if num >= metricUnion && num < metricUnion+10 {
				m.Scalar, err = f.scalar(num-metricUnion, BytesField)
			}
		}
		return err
	})
	return m, err
}

func decodeProperties(data []byte) (list []Property, err error) {
	keys, values := []string{}, []Property{}
	err = fields(data, func(num protowire.Number, f field) (err error) {
		switch {
		case num == setKeys && len(keys) < MaxProperties:
			var key string
			key, err = f.text()
			keys = append(keys, key)
		case num == setValues && len(values) < MaxProperties:
			var b []byte
			if b, err = f.bytes(); err == nil {
				var v Property
				v, err = decodeProperty(b)
				values = append(values, v)
			}
		case num == setKeys || num == setValues:
			return fmt.Errorf("more than %d properties", MaxProperties)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("properties: %w", err)
	}
	if len(keys) != len(values) { // tck-id-payloads-propertyset-keys-array-size
		return nil, fmt.Errorf("properties: %d keys and %d values", len(keys), len(values))
	}
	for i := range values {
		values[i].Key = keys[i]
	}
	return values, nil
}

func decodeProperty(data []byte) (p Property, err error) {
	err = fields(data, func(num protowire.Number, f field) (err error) {
		switch {
		case num == propertyType:
			p.Datatype, err = f.datatype()
		case num == propertyNull:
			p.Null, err = f.bool()
		case num >= propertyUnion && num < propertyUnion+9:
			p.Scalar, err = f.scalar(num-propertyUnion, StringField)
		}
		return err
	})
	return p, err
}

// A field is one field's value, still encoded.
type field struct {
	kind protowire.Type
	b    []byte
}

// fields calls f for each field of a message.
func fields(data []byte, f func(protowire.Number, field) error) error {
	for len(data) > 0 {
		num, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return protowire.ParseError(n)
		}
		data = data[n:]
		if n = protowire.ConsumeFieldValue(num, kind, data); n < 0 {
			return protowire.ParseError(n)
		}
		if err := f(num, field{kind, data[:n:n]}); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

var errWire = errors.New("field is of another wire type")

func (f field) varint() (uint64, error) {
	if f.kind != protowire.VarintType {
		return 0, errWire
	}
	v, _ := protowire.ConsumeVarint(f.b)
	return v, nil
}

func (f field) bool() (bool, error) {
	v, err := f.varint()
	return v != 0, err
}

// datatype refuses numbers beyond 32 bits, and takes those that it does not
// know: they matter only when the value is looked at.
func (f field) datatype() (Datatype, error) {
	v, err := f.varint()
	if err == nil && v > math.MaxUint32 {
		err = fmt.Errorf("datatype %d is beyond 32 bits", v)
	}
	return Datatype(v), err
}

func (f field) bytes() ([]byte, error) {
	if f.kind != protowire.BytesType {
		return nil, errWire
	}
	b, _ := protowire.ConsumeBytes(f.b)
	return b, nil
}

func (f field) text() (string, error) {
	b, err := f.bytes()
	if err == nil && !utf8.Valid(b) {
		err = errText
	}
	return string(b), err
}

// scalar reads the member of a value union that stands at place index; last is
// the last member of the union that is a scalar.
func (f field) scalar(index protowire.Number, last Field) (s Scalar, err error) {
	s.Field = IntField + Field(index)
	if s.Field > last {
		return Scalar{Field: OtherField}, nil
	}
	switch s.Field {
	case IntField:
		s.Bits, err = f.varint()
		s.Bits = uint64(uint32(s.Bits)) // a negative number may come as ten bytes
	case LongField:
		s.Bits, err = f.varint()
	case BoolField:
		var b bool
		if b, err = f.bool(); b {
			s.Bits = 1
		}
	case FloatField:
		if f.kind != protowire.Fixed32Type {
			return s, errWire
		}
		v, _ := protowire.ConsumeFixed32(f.b)
		s.Bits = uint64(v)
	case DoubleField:
		if f.kind != protowire.Fixed64Type {
			return s, errWire
		}
		s.Bits, _ = protowire.ConsumeFixed64(f.b)
	case StringField, BytesField:
		s.Raw, err = f.bytes()
	}
	return s, err
}
