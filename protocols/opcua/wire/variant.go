package wire

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gopcua/opcua/ua"
)

// The built-in types (OPC 10000-6, 5.1.2).
const (
	Null            = 0
	Boolean         = 1
	SByte           = 2
	Byte            = 3
	Int16           = 4
	UInt16          = 5
	Int32           = 6
	UInt32          = 7
	Int64           = 8
	UInt64          = 9
	Float           = 10
	Double          = 11
	String          = 12
	DateTime        = 13
	Guid            = 14
	ByteString      = 15
	XMLElement      = 16
	NodeIDType      = 17
	ExpandedNodeID  = 18
	StatusCode      = 19
	QualifiedName   = 20
	LocalizedText   = 21
	ExtensionObject = 22
	DataValueType   = 23
	VariantType     = 24
	DiagnosticInfo  = 25
)

// typeNames are the built-in types by number.
var typeNames = [...]string{
	"Null", "Boolean", "SByte", "Byte", "Int16", "UInt16", "Int32", "UInt32", "Int64", "UInt64", "Float", "Double",
	"String", "DateTime", "Guid", "ByteString", "XmlElement", "NodeId", "ExpandedNodeId", "StatusCode",
	"QualifiedName", "LocalizedText", "ExtensionObject", "DataValue", "Variant", "DiagnosticInfo",
}

// TypeName returns OPC UA's name of a built-in type.
func TypeName(t uint8) string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return fmt.Sprintf("type %d", t)
}

// TypeOf returns the built-in type of that name, exactly as OPC UA spells it.
func TypeOf(name string) (uint8, bool) {
	for i, n := range typeNames {
		if n == name {
			return uint8(i), true
		}
	}
	return 0, false
}

// fixed are the sizes of the types that have one, 0 for the others.
var fixed = [26]uint8{1: 1, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 4, 8: 8, 9: 8, 10: 4, 11: 8, 13: 8, 14: 16, 19: 4}

// A Variant is one value of a built-in type, or an array of them. Numbers are
// held in Num; everything else stays encoded in Raw, which points into the
// message, until it is read with [Variant.Reader].
type Variant struct {
	Type  uint8
	Array bool
	Len   int      // elements of an array
	Dims  []uint32 // of a matrix: two or more, their product is Len
	Num   uint64   // a scalar of a fixed size up to 8 bytes
	Raw   []byte   // the encoded scalar or the encoded elements
	Err   error    // why a value that the message holds cannot be used
}

// IsNull reports whether there is no value.
func (v *Variant) IsNull() bool { return v.Type == Null }

// Reader returns a reader of the encoded value or elements.
func (v *Variant) Reader() *Reader { return NewReader(v.Raw) }

// Variant reads a Variant (OPC 10000-6, 5.2.2.16).
func (r *Reader) Variant() (v Variant) {
	mask := r.U8()
	v.Type = mask & 0x3f
	if v.Type > DiagnosticInfo {
		// 26 to 31 are reserved and read as ByteString.
		if v.Type > 31 {
			r.Fail(fmt.Errorf("variant of type %d", v.Type))
			return Variant{}
		}
		v.Type = ByteString
	}
	if v.Type == Null {
		return v
	}
	if mask&0x80 == 0 {
		r.scalar(&v)
		return v
	}
	v.Array = true
	size := int(fixed[v.Type])
	v.Len = r.Count(size)
	start := r.pos
	if size > 0 {
		r.take(v.Len * size)
	} else {
		for range v.Len {
			if r.skip(v.Type); r.err != nil {
				return Variant{}
			}
		}
	}
	v.Raw = r.b[start:r.pos]
	if mask&0x40 != 0 {
		r.dims(&v)
	}
	return v
}

func (r *Reader) scalar(v *Variant) {
	switch fixed[v.Type] {
	case 1:
		v.Num = uint64(r.U8())
	case 2:
		v.Num = uint64(r.U16())
	case 4:
		v.Num = uint64(r.U32())
	case 8:
		v.Num = r.U64()
	default:
		start := r.pos
		r.skip(v.Type)
		if r.err == nil {
			v.Raw = r.b[start:r.pos]
		}
	}
}

var errDims = errors.New("the dimensions of the matrix do not fit its elements")

func (r *Reader) dims(v *Variant) {
	n := r.Count(4)
	if n > 16 {
		v.Err = errDims
		r.take(4 * n)
		return
	}
	dims := make([]uint32, n)
	product := uint64(1)
	for i := range dims {
		d := r.I32()
		if d < 0 {
			v.Err, d = errDims, 0
		}
		dims[i] = uint32(d)
		if product > math.MaxInt32 {
			v.Err = errDims // it stays too large, and does not overflow
			continue
		}
		product *= uint64(d)
	}
	if n > 0 && product != uint64(v.Len) {
		v.Err = errDims
	}
	if n > 1 && v.Err == nil {
		v.Dims = dims
	}
}

// skip passes over one value of a built-in type.
func (r *Reader) skip(t uint8) {
	if n := fixed[t]; n > 0 {
		r.take(int(n))
		return
	}
	if !r.enter() {
		return
	}
	defer r.leave()
	switch t {
	case String, ByteString, XMLElement:
		r.Bytes()
	case NodeIDType:
		r.ID()
	case ExpandedNodeID:
		r.Expanded()
	case QualifiedName:
		r.U16()
		r.Bytes()
	case LocalizedText:
		r.localized()
	case ExtensionObject:
		r.Extension()
	case DataValueType:
		r.DataValue()
	case VariantType:
		r.Variant()
	case DiagnosticInfo:
		r.diagnostic()
	default:
		r.Fail(fmt.Errorf("value of type %d", t))
	}
}

func (r *Reader) localized() (locale, text []byte) {
	mask := r.U8()
	if mask&1 != 0 {
		locale = r.Bytes()
	}
	if mask&2 != 0 {
		text = r.Bytes()
	}
	return locale, text
}

// Localized reads a LocalizedText and returns its text.
func (r *Reader) Localized() string {
	_, text := r.localized()
	return string([]rune(string(text)))
}

// A Name is a QualifiedName.
type Name struct {
	NS   uint16
	Name string
}

// Qualified reads a QualifiedName.
func (r *Reader) Qualified() Name { return Name{r.U16(), r.Text()} }

// An Ext is an ExtensionObject: a structure, still encoded.
type Ext struct {
	Type NodeID // of its encoding, not of its data type
	Body []byte // nil when there is none
	XML  bool
}

// Extension reads an ExtensionObject (OPC 10000-6, 5.2.2.15).
func (r *Reader) Extension() (e Ext) {
	e.Type = r.ID()
	switch mask := r.U8(); mask {
	case 0:
	case 1, 2:
		e.Body, e.XML = r.Bytes(), mask == 2
	default:
		r.Fail(fmt.Errorf("extension object of encoding %d", mask))
	}
	return e
}

// diagnostic passes over a DiagnosticInfo (OPC 10000-6, 5.2.2.12). We never ask
// for them.
func (r *Reader) diagnostic() {
	mask := r.U8()
	for bit := byte(1); bit <= 8; bit <<= 1 {
		if mask&bit != 0 {
			r.U32()
		}
	}
	if mask&0x10 != 0 {
		r.Bytes()
	}
	if mask&0x20 != 0 {
		r.U32()
	}
	if mask&0x40 != 0 && r.enter() {
		r.diagnostic()
		r.leave()
	}
}

// diagnostics passes over an array of them.
func (r *Reader) diagnostics() {
	for range r.Count(1) {
		if r.err != nil {
			return
		}
		r.diagnostic()
	}
}

// A DataValue is a value with its status and times.
type DataValue struct {
	Value  Variant
	Status ua.StatusCode
	Source time.Time // zero if the server gave none
	Server time.Time
}

// DataValue reads a DataValue (OPC 10000-6, 5.2.2.17). Picoseconds are passed over.
func (r *Reader) DataValue() (d DataValue) {
	if !r.enter() {
		return d
	}
	defer r.leave()
	mask := r.U8()
	if mask&0x01 != 0 {
		d.Value = r.Variant()
	}
	if mask&0x02 != 0 {
		d.Status = ua.StatusCode(r.U32())
	}
	if mask&0x04 != 0 {
		d.Source = r.Time()
	}
	if mask&0x10 != 0 {
		r.U16()
	}
	if mask&0x08 != 0 {
		d.Server = r.Time()
	}
	if mask&0x20 != 0 {
		r.U16()
	}
	return d
}
