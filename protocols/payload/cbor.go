package payload

import (
	"encoding/binary"
	"math"

	"holdfast/protocols/point"
)

// CBOR's major types in the upper three bits of the first byte (RFC 8949, 3.1),
// and the first bytes of simple values and floats (3.3).
const (
	cborUint  = 0 << 5
	cborInt   = 1 << 5 // -1 - n
	cborBytes = 2 << 5
	cborText  = 3 << 5
	cborArray = 4 << 5
	cborMap   = 5 << 5
	cborTag   = 6 << 5

	cborFalse   = 0xf4
	cborTrue    = 0xf5
	cborNull    = 0xf6
	cborFloat32 = 0xfa
	cborFloat64 = 0xfb
)

// appendHead appends the head of an item in its shortest form (RFC 8949, 3 and
// 4.2.1).
func appendHead(dst []byte, major byte, n uint64) []byte {
	switch {
	case n < 24:
		return append(dst, major|byte(n))
	case n <= math.MaxUint8:
		return append(dst, major|24, byte(n))
	case n <= math.MaxUint16:
		return binary.BigEndian.AppendUint16(append(dst, major|25), uint16(n))
	case n <= math.MaxUint32:
		return binary.BigEndian.AppendUint32(append(dst, major|26), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(dst, major|27), n)
}

func appendCBORInt(dst []byte, n int64) []byte {
	if n < 0 {
		return appendHead(dst, cborInt, uint64(-1-n))
	}
	return appendHead(dst, cborUint, uint64(n))
}

// appendCBORValue appends a value. Floats keep their width: that is how a reader
// tells a single from a double.
func appendCBORValue(dst []byte, v point.Value) []byte {
	switch v.Kind() {
	case point.Bool:
		if v.Bool() {
			return append(dst, cborTrue)
		}
		return append(dst, cborFalse)
	case point.Int:
		return appendCBORInt(dst, v.Int())
	case point.Uint:
		return appendHead(dst, cborUint, v.Uint())
	case point.Float32:
		f, _ := v.Float()
		return binary.BigEndian.AppendUint32(append(dst, cborFloat32), math.Float32bits(float32(f)))
	case point.Float:
		f, _ := v.Float()
		return binary.BigEndian.AppendUint64(append(dst, cborFloat64), math.Float64bits(f))
	case point.String:
		return append(appendHead(dst, cborText, uint64(len(v.Raw()))), v.Raw()...)
	case point.Bytes:
		return append(appendHead(dst, cborBytes, uint64(len(v.Raw()))), v.Raw()...)
	}
	return append(dst, cborNull)
}
