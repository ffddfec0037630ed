package payload

import (
	"math"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"holdfast/protocols/point"
)

// Field numbers of readings.proto.
const (
	pbGateway  = 1
	pbDevice   = 2
	pbPath     = 3
	pbSeq      = 4
	pbBoot     = 5
	pbClock    = 6
	pbDropped  = 7
	pbReadings = 8

	pbTag     = 1
	pbBool    = 2
	pbInt     = 3
	pbUint    = 4
	pbFloat   = 5
	pbDouble  = 6
	pbString  = 7
	pbBytes   = 8
	pbQuality = 9
	pbDetail  = 10
	pbTime    = 11
	pbSource  = 12
	pbUnit    = 13
	pbClass   = 14
	pbRPath   = 15
)

// appendProtobuf appends a Batch of the readings from to to-1.
func (e *Encoder) appendProtobuf(dst []byte, from, to int) []byte {
	b := &e.batch
	dst = pbText(dst, pbGateway, e.o.Gateway)
	dst = pbText(dst, pbDevice, b.Device)
	path := ""
	if !e.o.PerReading {
		path = e.lookup("").Path
		dst = pbText(dst, pbPath, path)
	}
	dst = pbVarint(dst, pbSeq, b.Sequence)
	if b.Boot != 0 {
		dst = protowire.AppendTag(dst, pbBoot, protowire.Fixed64Type)
		dst = protowire.AppendFixed64(dst, b.Boot)
	}
	dst = pbVarint(dst, pbClock, uint64(b.Clock))
	if from == 0 {
		dst = pbVarint(dst, pbDropped, b.Dropped)
	}
	for i := from; i < to; i++ {
		r := &b.Readings[i]
		t := e.lookup(r.Tag)
		if t.Path == path {
			t.Path = ""
		}
		e.part = appendReading(e.part[:0], r, t)
		dst = protowire.AppendTag(dst, pbReadings, protowire.BytesType)
		dst = protowire.AppendBytes(dst, e.part)
	}
	return dst
}

func appendReading(dst []byte, r *point.Reading, t Tag) []byte {
	dst = pbText(dst, pbTag, r.Tag)
	dst = pbValue(dst, r.Value)
	dst = pbVarint(dst, pbQuality, uint64(r.Quality))
	dst = pbText(dst, pbDetail, r.Detail)
	dst = pbMicros(dst, pbTime, r.Receive)
	dst = pbMicros(dst, pbSource, r.Source)
	dst = pbText(dst, pbUnit, t.Unit)
	dst = pbText(dst, pbClass, t.Class)
	return pbText(dst, pbRPath, t.Path)
}

// pbValue appends the value's member of the oneof, which is written also when it
// is zero: that it is there is what says which kind it is.
func pbValue(dst []byte, v point.Value) []byte {
	switch v.Kind() {
	case point.Bool:
		dst = protowire.AppendTag(dst, pbBool, protowire.VarintType)
		return protowire.AppendVarint(dst, protowire.EncodeBool(v.Bool()))
	case point.Int:
		dst = protowire.AppendTag(dst, pbInt, protowire.VarintType)
		return protowire.AppendVarint(dst, protowire.EncodeZigZag(v.Int()))
	case point.Uint:
		dst = protowire.AppendTag(dst, pbUint, protowire.VarintType)
		return protowire.AppendVarint(dst, v.Uint())
	case point.Float32:
		f, _ := v.Float()
		dst = protowire.AppendTag(dst, pbFloat, protowire.Fixed32Type)
		return protowire.AppendFixed32(dst, math.Float32bits(float32(f)))
	case point.Float:
		f, _ := v.Float()
		dst = protowire.AppendTag(dst, pbDouble, protowire.Fixed64Type)
		return protowire.AppendFixed64(dst, math.Float64bits(f))
	case point.String:
		dst = protowire.AppendTag(dst, pbString, protowire.BytesType)
		return protowire.AppendBytes(dst, v.Raw())
	case point.Bytes:
		dst = protowire.AppendTag(dst, pbBytes, protowire.BytesType)
		return protowire.AppendBytes(dst, v.Raw())
	}
	return dst
}

// pbText and pbVarint append a field unless it has its default value, which is
// not written in proto3.
func pbText(dst []byte, n protowire.Number, s string) []byte {
	if s == "" {
		return dst
	}
	return protowire.AppendString(protowire.AppendTag(dst, n, protowire.BytesType), s)
}

func pbVarint(dst []byte, n protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, n, protowire.VarintType), v)
}

// pbMicros appends a time that is known.
func pbMicros(dst []byte, n protowire.Number, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	dst = protowire.AppendTag(dst, n, protowire.VarintType)
	return protowire.AppendVarint(dst, protowire.EncodeZigZag(t.UnixMicro()))
}
