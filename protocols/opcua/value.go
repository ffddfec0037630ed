package opcua

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// overflow are the info bits that say that the server's queue of a monitored item
// was full before this value: InfoType DataValue and Overflow (OPC 10000-4,
// 7.39.1).
const overflow = 0x0480

// sample turns a value as the server gives it into a sample.
func (c *conn) sample(ctx context.Context, s *spec, d *wire.DataValue) point.Sample {
	out := point.Sample{Quality: point.Quality(d.Status), Source: d.Source}
	if out.Quality.Bad() {
		out.Detail = "the server says " + wire.StatusText(d.Status)
		return out
	}
	v, q, detail := c.value(ctx, s, &d.Value)
	out.Value = v
	switch {
	case !q.Good():
		out.Quality, out.Detail = q, detail
	case !out.Quality.Good():
		out.Detail = "the server says " + wire.StatusText(d.Status)
	}
	return out
}

// value converts a variant. q is Good, or why the value cannot be used as it is.
func (c *conn) value(ctx context.Context, s *spec, v *wire.Variant) (out point.Value, q point.Quality, detail string) {
	switch {
	case v.Err != nil:
		return point.Value{}, point.BadDecodingError, v.Err.Error()
	case v.IsNull():
		return point.Value{}, point.BadNoData, "the server gives no value"
	case v.Array && v.Len == 1 && oneElement(s.index):
		return c.element(ctx, v)
	case v.Array || v.Type >= wire.ExtensionObject:
		return c.jsonText(ctx, v)
	}
	return scalar(v, c.link.s.maxText)
}

// element returns the only element of an array of one.
func (c *conn) element(ctx context.Context, v *wire.Variant) (point.Value, point.Quality, string) {
	if v.Type == wire.VariantType || v.Type >= wire.ExtensionObject {
		return c.jsonText(ctx, v)
	}
	one := wire.NewReader(append([]byte{v.Type}, v.Raw...)).Variant()
	return scalar(&one, c.link.s.maxText)
}

// jsonText returns arrays and structures as JSON. A structure whose definition
// the server does not give is its raw body, of uncertain quality.
func (c *conn) jsonText(ctx context.Context, v *wire.Variant) (point.Value, point.Quality, string) {
	types := c.dictionary()
	if !v.Array && v.Type == wire.ExtensionObject {
		e := v.Reader().Extension()
		if !types.knows(ctx, c, e.Type) {
			if len(e.Body) > c.link.s.maxText {
				return point.Value{}, point.BadEncodingLimitsExceeded, fmt.Sprintf("a structure of %d bytes", len(e.Body))
			}
			return point.BytesValue(bytes.Clone(e.Body)), point.Uncertain,
				fmt.Sprintf("structure of type %s, whose definition the server does not give: raw body", e.Type)
		}
	}
	p := &wire.Printer{Limit: c.link.s.maxText, Struct: types.printer(ctx, c)}
	text, err := p.Append(nil, v)
	switch {
	case errors.Is(err, wire.ErrTooLong):
		return point.Value{}, point.BadEncodingLimitsExceeded, err.Error()
	case err != nil:
		return point.Value{}, point.BadDecodingError, err.Error()
	}
	return point.StringValue(string(text)), point.Good, ""
}

// scalar converts a value of a built-in type that is no structure.
func scalar(v *wire.Variant, most int) (point.Value, point.Quality, string) {
	switch v.Type {
	case wire.Boolean:
		return point.BoolValue(v.Num != 0), point.Good, ""
	case wire.SByte:
		return point.IntValue(int64(int8(v.Num))), point.Good, ""
	case wire.Int16:
		return point.IntValue(int64(int16(v.Num))), point.Good, ""
	case wire.Int32:
		return point.IntValue(int64(int32(v.Num))), point.Good, ""
	case wire.Int64:
		return point.IntValue(int64(v.Num)), point.Good, ""
	case wire.Byte, wire.UInt16, wire.UInt32, wire.UInt64, wire.StatusCode:
		return point.UintValue(v.Num), point.Good, ""
	case wire.Float:
		return point.Float32Value(math.Float32frombits(uint32(v.Num))), point.Good, ""
	case wire.Double:
		return point.FloatValue(math.Float64frombits(v.Num)), point.Good, ""
	case wire.DateTime:
		at := wire.TimeOf(int64(v.Num))
		if at.IsZero() {
			return point.Value{}, point.BadNoData, "the server gives no time"
		}
		return point.StringValue(at.Format(time.RFC3339Nano)), point.Good, ""
	}
	if len(v.Raw) > most {
		return point.Value{}, point.BadEncodingLimitsExceeded, fmt.Sprintf("a %s of %d bytes", wire.TypeName(v.Type), len(v.Raw))
	}
	r := v.Reader()
	var text string
	switch v.Type {
	case wire.ByteString:
		return point.BytesValue(bytes.Clone(r.Bytes())), point.Good, ""
	case wire.String, wire.XMLElement:
		text = r.Text()
	case wire.Guid:
		text = wire.NodeID{Kind: wire.GUID, Data: string(v.Raw)}.Identifier()[2:]
	case wire.NodeIDType:
		text = r.ID().String()
	case wire.ExpandedNodeID:
		text = r.Expanded().String()
	case wire.QualifiedName:
		text = r.Qualified().String()
	case wire.LocalizedText:
		text = r.Localized()
	default:
		return point.Value{}, point.BadNotSupported, "a value of type " + wire.TypeName(v.Type)
	}
	return point.StringValue(text), point.Good, ""
}
