package wire

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// ErrTooLong says that a value's text is longer than the limit.
var ErrTooLong = errors.New("the value is too long")

// A Printer turns values into JSON text:
//
//	numbers and booleans   as they are; NaN and the infinities as texts
//	DateTime               RFC 3339 with fractions, null when there is none
//	ByteString             base64
//	Guid, NodeId           their texts, such as "ns=2;s=Tag"
//	QualifiedName          "2:Name"
//	LocalizedText          its text
//	StatusCode             its name, such as "BadTimeout"
//	DataValue              {"value":...,"status":...,"source":...}
//	arrays and matrices    arrays, nested by their dimensions
//	structures             what Struct makes of them, else {"type":...,"body":base64}
type Printer struct {
	// Limit bounds the text, in bytes; 0 = 1 MiB.
	Limit int
	// Struct appends the JSON of a structure and reports whether it knows its
	// type. nil knows none.
	Struct func(p *Printer, dst []byte, e Ext) ([]byte, bool, error)

	depth int
}

// Append appends the JSON text of a value.
func (p *Printer) Append(dst []byte, v *Variant) ([]byte, error) {
	if v.Err != nil {
		return dst, v.Err
	}
	switch {
	case v.IsNull():
		return append(dst, "null"...), nil
	case !v.Array && v.Raw == nil:
		return p.number(dst, v.Type, v.Num), nil
	case !v.Array:
		return p.Element(dst, v.Reader(), v.Type)
	}
	dims := v.Dims
	if dims == nil {
		dims = []uint32{uint32(v.Len)}
	}
	return p.matrix(dst, v.Reader(), v.Type, dims)
}

func (p *Printer) limit() int {
	if p.Limit > 0 {
		return p.Limit
	}
	return 1 << 20
}

// Grown reports text that has become too long.
func (p *Printer) Grown(dst []byte) error {
	if len(dst) > p.limit() {
		return fmt.Errorf("%w: more than %d bytes of text", ErrTooLong, p.limit())
	}
	return nil
}

// Nest bounds nesting; each call that returns nil needs an Unnest.
func (p *Printer) Nest() error {
	if p.depth >= maxDepth {
		return fmt.Errorf("nested deeper than %d", maxDepth)
	}
	p.depth++
	return nil
}

// Unnest undoes a Nest.
func (p *Printer) Unnest() { p.depth-- }

func (p *Printer) matrix(dst []byte, r *Reader, t uint8, dims []uint32) ([]byte, error) {
	dst = append(dst, '[')
	var err error
	for i := range dims[0] {
		if i > 0 {
			dst = append(dst, ',')
		}
		if len(dims) > 1 {
			dst, err = p.matrix(dst, r, t, dims[1:])
		} else {
			dst, err = p.Element(dst, r, t)
		}
		if err == nil {
			err = p.Grown(dst)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), nil
}

// Element reads one value of a built-in type and appends its JSON.
func (p *Printer) Element(dst []byte, r *Reader, t uint8) ([]byte, error) {
	switch fixed[t] {
	case 1:
		dst = p.number(dst, t, uint64(r.U8()))
	case 2:
		dst = p.number(dst, t, uint64(r.U16()))
	case 4:
		dst = p.number(dst, t, uint64(r.U32()))
	case 8:
		dst = p.number(dst, t, r.U64())
	default:
		var err error
		if dst, err = p.composed(dst, r, t); err != nil {
			return dst, err
		}
	}
	if r.err != nil {
		return dst, r.err
	}
	return dst, p.Grown(dst)
}

func (p *Printer) composed(dst []byte, r *Reader, t uint8) ([]byte, error) {
	if err := p.Nest(); err != nil {
		return dst, err
	}
	defer p.Unnest()
	switch t {
	case String, XMLElement:
		return AppendText(dst, r.Text()), nil
	case ByteString:
		dst = append(dst, '"')
		dst = base64.StdEncoding.AppendEncode(dst, r.Bytes())
		return append(dst, '"'), nil
	case Guid:
		return AppendText(dst, guidText(r.take(16))), nil
	case NodeIDType:
		return AppendText(dst, r.ID().String()), nil
	case ExpandedNodeID:
		return AppendText(dst, r.Expanded().String()), nil
	case QualifiedName:
		return AppendText(dst, r.Qualified().String()), nil
	case LocalizedText:
		return AppendText(dst, r.Localized()), nil
	case VariantType:
		v := r.Variant()
		if r.err != nil {
			return dst, r.err
		}
		return p.Append(dst, &v)
	case DataValueType:
		return p.dataValue(dst, r)
	case ExtensionObject:
		return p.structure(dst, r.Extension())
	}
	return dst, fmt.Errorf("a value of type %s", TypeName(t))
}

func (p *Printer) dataValue(dst []byte, r *Reader) ([]byte, error) {
	d := r.DataValue()
	if r.err != nil {
		return dst, r.err
	}
	dst, err := p.Append(append(dst, `{"value":`...), &d.Value)
	if err != nil {
		return dst, err
	}
	dst = AppendText(append(dst, `,"status":`...), StatusText(d.Status))
	if !d.Source.IsZero() {
		dst = AppendText(append(dst, `,"source":`...), d.Source.Format(time.RFC3339Nano))
	}
	return append(dst, '}'), nil
}

func (p *Printer) structure(dst []byte, e Ext) ([]byte, error) {
	if p.Struct != nil && !e.XML {
		if out, known, err := p.Struct(p, dst, e); known || err != nil {
			return out, err
		}
	}
	if e.Body == nil {
		return append(dst, "null"...), nil
	}
	dst = AppendText(append(dst, `{"type":`...), e.Type.String())
	dst = append(dst, `,"body":"`...)
	dst = base64.StdEncoding.AppendEncode(dst, e.Body)
	return append(dst, `"}`...), nil
}

// number appends the JSON of a value of fixed size.
func (p *Printer) number(dst []byte, t uint8, n uint64) []byte {
	switch t {
	case Boolean:
		return strconv.AppendBool(dst, n != 0)
	case SByte:
		return strconv.AppendInt(dst, int64(int8(n)), 10)
	case Int16:
		return strconv.AppendInt(dst, int64(int16(n)), 10)
	case Int32:
		return strconv.AppendInt(dst, int64(int32(n)), 10)
	case Int64:
		return strconv.AppendInt(dst, int64(n), 10)
	case Float:
		return appendFloat(dst, float64(math.Float32frombits(uint32(n))), 32)
	case Double:
		return appendFloat(dst, math.Float64frombits(n), 64)
	case DateTime:
		at := TimeOf(int64(n))
		if at.IsZero() {
			return append(dst, "null"...)
		}
		return AppendText(dst, at.Format(time.RFC3339Nano))
	case StatusCode:
		return AppendText(dst, StatusText(ua.StatusCode(n)))
	}
	return strconv.AppendUint(dst, n, 10)
}

func appendFloat(dst []byte, f float64, bits int) []byte {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return strconv.AppendQuote(dst, strconv.FormatFloat(f, 'g', -1, bits))
	}
	return strconv.AppendFloat(dst, f, 'g', -1, bits)
}

// AppendText appends a JSON string.
func AppendText(dst []byte, s string) []byte {
	plain := true
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			plain = false
			break
		}
	}
	if plain {
		dst = append(dst, '"')
		dst = append(dst, s...)
		return append(dst, '"')
	}
	var b strings.Builder
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // strings cannot fail
	return append(dst, strings.TrimSuffix(b.String(), "\n")...)
}

// String returns the name as "2:Name", without the index when that is 0.
func (n Name) String() string {
	if n.NS == 0 {
		return n.Name
	}
	return strconv.Itoa(int(n.NS)) + ":" + n.Name
}

// StatusText returns the name of a status code, such as "BadTimeout", or its hex
// digits. Of codes with further bits the name is that of the code proper.
func StatusText(s ua.StatusCode) string {
	if s&0xffff0000 == 0 {
		return "Good"
	}
	if d, ok := ua.StatusCodes[s&0xffff0000]; ok && d.Name != "" {
		return strings.TrimPrefix(d.Name, "Status")
	}
	return fmt.Sprintf("0x%08X", uint32(s))
}
