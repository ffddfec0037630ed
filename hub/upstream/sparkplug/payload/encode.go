package payload

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of Payload, Metric, PropertySet and PropertyValue
// (specification 3.0.0, 6.3).
const (
	payloadTimestamp = 1
	payloadMetrics   = 2
	payloadSeq       = 3
	payloadUUID      = 4
	payloadBody      = 5

	metricName       = 1
	metricAlias      = 2
	metricTimestamp  = 3
	metricDatatype   = 4
	metricHistorical = 5
	metricTransient  = 6
	metricNull       = 7
	metricProperties = 9
	metricUnion      = 10 // int_value; the other members follow in the order of Field

	setKeys   = 1
	setValues = 2

	propertyType  = 1
	propertyNull  = 2
	propertyUnion = 3 // likewise
)

// Append appends p to dst.
func Append(dst []byte, p *Payload) []byte {
	if p.HasTimestamp {
		dst = AppendTimestamp(dst, p.Timestamp)
	}
	for i := range p.Metrics {
		dst = AppendMetric(dst, &p.Metrics[i])
	}
	if p.HasSeq {
		dst = AppendSeq(dst, p.Seq)
	}
	if p.UUID != "" {
		dst = appendString(dst, payloadUUID, p.UUID)
	}
	if p.Body != nil {
		dst = protowire.AppendTag(dst, payloadBody, protowire.BytesType)
		dst = protowire.AppendBytes(dst, p.Body)
	}
	return dst
}

// AppendTimestamp appends a message's time in milliseconds since 1970. It,
// AppendMetric and AppendSeq make a message part by part, in any order.
func AppendTimestamp(dst []byte, ms uint64) []byte {
	return appendVarint(dst, payloadTimestamp, ms)
}

// AppendSeq appends a message's sequence number.
func AppendSeq(dst []byte, seq uint64) []byte { return appendVarint(dst, payloadSeq, seq) }

// AppendMetric appends a metric to a message.
func AppendMetric(dst []byte, m *Metric) []byte {
	dst = protowire.AppendTag(dst, payloadMetrics, protowire.BytesType)
	start := len(dst)
	if m.Name != "" {
		dst = appendString(dst, metricName, m.Name)
	}
	if m.HasAlias {
		dst = appendVarint(dst, metricAlias, m.Alias)
	}
	if m.HasTimestamp {
		dst = appendVarint(dst, metricTimestamp, m.Timestamp)
	}
	if m.Datatype != Unknown {
		dst = appendVarint(dst, metricDatatype, uint64(m.Datatype))
	}
	dst = appendTrue(dst, metricHistorical, m.Historical)
	dst = appendTrue(dst, metricTransient, m.Transient)
	dst = appendTrue(dst, metricNull, m.Null)
	if len(m.Properties) > 0 {
		dst = appendProperties(dst, m.Properties)
	}
	dst = appendScalar(dst, metricUnion, m.Scalar)
	return prefix(dst, start)
}

func appendProperties(dst []byte, list []Property) []byte {
	dst = protowire.AppendTag(dst, metricProperties, protowire.BytesType)
	start := len(dst)
	for i := range list {
		dst = appendString(dst, setKeys, list[i].Key)
	}
	for i := range list {
		p := &list[i]
		dst = protowire.AppendTag(dst, setValues, protowire.BytesType)
		at := len(dst)
		dst = appendVarint(dst, propertyType, uint64(p.Datatype))
		dst = appendTrue(dst, propertyNull, p.Null)
		dst = appendScalar(dst, propertyUnion, p.Scalar)
		dst = prefix(dst, at)
	}
	return prefix(dst, start)
}

// prefix puts the length of what stands from start on in front of it.
func prefix(dst []byte, start int) []byte {
	size := len(dst) - start
	n := protowire.SizeVarint(uint64(size))
	for range n {
		dst = append(dst, 0)
	}
	copy(dst[start+n:], dst[start:start+size])
	protowire.AppendVarint(dst[:start], uint64(size))
	return dst
}

func appendScalar(dst []byte, union protowire.Number, s Scalar) []byte {
	num := union + protowire.Number(s.Field-IntField)
	switch s.Field {
	case IntField, LongField, BoolField:
		return appendVarint(dst, num, s.Bits)
	case FloatField:
		return protowire.AppendFixed32(protowire.AppendTag(dst, num, protowire.Fixed32Type), uint32(s.Bits))
	case DoubleField:
		return protowire.AppendFixed64(protowire.AppendTag(dst, num, protowire.Fixed64Type), s.Bits)
	case StringField, BytesField:
		return protowire.AppendBytes(protowire.AppendTag(dst, num, protowire.BytesType), s.Raw)
	}
	return dst
}

func appendVarint(dst []byte, num protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(dst, num, protowire.VarintType), v)
}

func appendString(dst []byte, num protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(dst, num, protowire.BytesType), s)
}

func appendTrue(dst []byte, num protowire.Number, b bool) []byte {
	if !b {
		return dst
	}
	return appendVarint(dst, num, 1)
}

// Int32Property returns a property that is a signed 32-bit number.
func Int32Property(key string, v int32) Property {
	return Property{Key: key, Datatype: Int32, Scalar: Scalar{Field: IntField, Bits: uint64(uint32(v))}}
}

// Int64Property returns a property that is a signed 64-bit number.
func Int64Property(key string, v int64) Property {
	return Property{Key: key, Datatype: Int64, Scalar: Scalar{Field: LongField, Bits: uint64(v)}}
}

// BoolProperty returns a property that is a truth value.
func BoolProperty(key string, v bool) Property {
	s := Scalar{Field: BoolField}
	if v {
		s.Bits = 1
	}
	return Property{Key: key, Datatype: Boolean, Scalar: s}
}

// StringProperty returns a property that is a text.
func StringProperty(key, v string) Property {
	return Property{Key: key, Datatype: String, Scalar: Scalar{Field: StringField, Raw: []byte(v)}}
}
