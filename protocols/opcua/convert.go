package opcua

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// wrong is the error of a value that does not fit.
func wrong(q point.Quality, format string, args ...any) error {
	return &badNode{q, fmt.Sprintf(format, args...)}
}

// toVariant turns a value into a variant of exactly a built-in type: servers
// refuse any other. A rank of 1 takes a JSON array as text.
func toVariant(v point.Value, builtin uint8, rank int32) (*ua.Variant, error) {
	array := rank >= 1 || rank == 0 || rank == -2 || rank == -3
	if array && v.Kind() == point.String && strings.HasPrefix(strings.TrimSpace(v.Text()), "[") && (rank >= 0 || builtin != wire.String) {
		if rank > 1 {
			return nil, wrong(point.BadNotSupported, "matrices cannot be written")
		}
		return arrayVariant(v.Text(), builtin)
	}
	if rank >= 1 {
		return nil, wrong(point.BadTypeMismatch, "an array is written as a JSON array, such as \"[1,2,3]\"")
	}
	x, err := toBuiltin(v, builtin)
	if err != nil {
		return nil, err
	}
	return ua.NewVariant(x)
}

// toBuiltin converts a value to the Go type by which gopcua encodes a built-in
// type.
func toBuiltin(v point.Value, t uint8) (any, error) {
	switch t {
	case wire.Boolean:
		return toBool(v)
	case wire.SByte:
		return integer[int8](v, math.MinInt8, math.MaxInt8)
	case wire.Byte:
		return integer[uint8](v, 0, math.MaxUint8)
	case wire.Int16:
		return integer[int16](v, math.MinInt16, math.MaxInt16)
	case wire.UInt16:
		return integer[uint16](v, 0, math.MaxUint16)
	case wire.Int32:
		return integer[int32](v, math.MinInt32, math.MaxInt32)
	case wire.UInt32:
		return integer[uint32](v, 0, math.MaxUint32)
	case wire.Int64:
		return integer[int64](v, math.MinInt64, math.MaxInt64)
	case wire.UInt64:
		return unsigned(v)
	case wire.StatusCode:
		n, err := integer[uint32](v, 0, math.MaxUint32)
		return ua.StatusCode(n), err
	case wire.Float:
		f, err := toFloat(v)
		if err == nil && !math.IsInf(f, 0) && math.Abs(f) > math.MaxFloat32 {
			return nil, wrong(point.BadOutOfRange, "%s is beyond a Float", v)
		}
		return float32(f), err
	case wire.Double:
		return toFloat(v)
	case wire.ByteString:
		switch v.Kind() {
		case point.Bytes:
			return append([]byte{}, v.Raw()...), nil
		case point.String:
			return append([]byte{}, v.Raw()...), nil
		}
		return nil, wrong(point.BadTypeMismatch, "a ByteString is written as bytes or text, not %s", v.Kind())
	}
	return toText(v, t)
}

// toText converts to the types that are written as text.
func toText(v point.Value, t uint8) (any, error) {
	if v.Kind() != point.String {
		return nil, wrong(point.BadTypeMismatch, "a %s is written as text, not %s", wire.TypeName(t), v.Kind())
	}
	text := v.Text()
	switch t {
	case wire.String:
		return text, nil
	case wire.LocalizedText:
		return ua.NewLocalizedText(text), nil
	case wire.XMLElement:
		return ua.XMLElement(text), nil
	case wire.DateTime:
		at, err := time.Parse(time.RFC3339Nano, text)
		if err != nil || wire.Ticks(at) <= 0 {
			return nil, wrong(point.BadTypeMismatch, "%q is not a time such as 2024-05-31T12:00:00Z", text)
		}
		return at, nil
	case wire.Guid:
		id, err := wire.ParseIdentifier("g=" + text)
		if err != nil {
			return nil, wrong(point.BadTypeMismatch, "%q is not a GUID", text)
		}
		return ua.NewGUID(id.Identifier()[2:]), nil
	case wire.NodeIDType:
		a, err := parseAddress(text)
		if err != nil || a.uri != "" || a.path != nil {
			return nil, wrong(point.BadTypeMismatch, "%q is not a node id such as ns=2;s=Tag", text)
		}
		return a.id.UA(), nil
	case wire.QualifiedName:
		name := wire.Name{Name: text}
		if index, rest, ok := strings.Cut(text, ":"); ok {
			if n, err := strconv.ParseUint(index, 10, 16); err == nil {
				name = wire.Name{NS: uint16(n), Name: rest}
			}
		}
		return &ua.QualifiedName{NamespaceIndex: name.NS, Name: name.Name}, nil
	}
	return nil, wrong(point.BadNotSupported, "a %s cannot be written", wire.TypeName(t))
}

func toBool(v point.Value) (bool, error) {
	switch {
	case v.Kind() == point.Bool:
		return v.Bool(), nil
	case v.Kind() == point.Int && (v.Int() == 0 || v.Int() == 1):
		return v.Int() == 1, nil
	}
	return false, wrong(point.BadTypeMismatch, "a Boolean is written as true or false, not %s", v.Kind())
}

func toFloat(v point.Value) (float64, error) {
	f, ok := v.Float()
	if !ok || v.Kind() == point.Bool {
		return 0, wrong(point.BadTypeMismatch, "a number is needed, not %s", v.Kind())
	}
	return f, nil
}

// integer converts to an integer type, rounding what is not whole to the nearest.
func integer[T int8 | uint8 | int16 | uint16 | int32 | uint32 | int64](v point.Value, low, high int64) (T, error) {
	var n int64
	switch v.Kind() {
	case point.Int:
		n = v.Int()
	case point.Float, point.Float32:
		f, _ := v.Float()
		f = math.RoundToEven(f)
		if !(f >= -1<<63 && f < 1<<63) {
			return 0, wrong(point.BadOutOfRange, "%s is out of range", v)
		}
		n = int64(f)
	case point.Uint:
		return 0, wrong(point.BadOutOfRange, "%s is out of range", v)
	default:
		return 0, wrong(point.BadTypeMismatch, "a number is needed, not %s", v.Kind())
	}
	if n < low || n > high {
		return 0, wrong(point.BadOutOfRange, "%s is not in %d to %d", v, low, high)
	}
	return T(n), nil
}

func unsigned(v point.Value) (uint64, error) {
	switch {
	case v.Kind() == point.Uint, v.Kind() == point.Int && v.Int() >= 0:
		return v.Uint(), nil
	case v.Kind() == point.Int:
		return 0, wrong(point.BadOutOfRange, "%s is below 0", v)
	}
	f, err := toFloat(v)
	if err != nil {
		return 0, err
	}
	if f = math.RoundToEven(f); !(f >= 0 && f < 1<<64) {
		return 0, wrong(point.BadOutOfRange, "%s is out of range", v)
	}
	return uint64(f), nil
}

// maxElements bounds an array that is written.
const maxElements = 65535

// arrayVariant converts the text of a JSON array.
func arrayVariant(text string, t uint8) (*ua.Variant, error) {
	list, err := jsonArray(text)
	if err != nil {
		return nil, err
	}
	switch t {
	case wire.Boolean:
		return arrayOf[bool](list, t)
	case wire.SByte:
		return arrayOf[int8](list, t)
	case wire.Byte:
		return byteArray(list)
	case wire.Int16:
		return arrayOf[int16](list, t)
	case wire.UInt16:
		return arrayOf[uint16](list, t)
	case wire.Int32:
		return arrayOf[int32](list, t)
	case wire.UInt32:
		return arrayOf[uint32](list, t)
	case wire.Int64:
		return arrayOf[int64](list, t)
	case wire.UInt64:
		return arrayOf[uint64](list, t)
	case wire.Float:
		return arrayOf[float32](list, t)
	case wire.Double:
		return arrayOf[float64](list, t)
	case wire.String:
		return arrayOf[string](list, t)
	case wire.DateTime:
		return arrayOf[time.Time](list, t)
	case wire.LocalizedText:
		return arrayOf[*ua.LocalizedText](list, t)
	}
	return nil, wrong(point.BadNotSupported, "an array of %s cannot be written", wire.TypeName(t))
}

func byteArray(list []point.Value) (*ua.Variant, error) {
	out := make(ua.ByteArray, len(list))
	for i, v := range list {
		n, err := integer[uint8](v, 0, math.MaxUint8)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		out[i] = n
	}
	return ua.NewVariant(out)
}

func arrayOf[T any](list []point.Value, t uint8) (*ua.Variant, error) {
	out := make([]T, len(list))
	for i, v := range list {
		x, err := toBuiltin(v, t)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		out[i] = x.(T)
	}
	return ua.NewVariant(out)
}

// jsonArray reads a JSON array of numbers, texts and booleans. An array in it stays
// text.
func jsonArray(text string) ([]point.Value, error) {
	var raw []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raw); err != nil {
		return nil, wrong(point.BadTypeMismatch, "%.40q is not a JSON array", text)
	}
	if len(raw) > maxElements {
		return nil, wrong(point.BadOutOfRange, "%d elements are more than %d", len(raw), maxElements)
	}
	out := make([]point.Value, len(raw))
	for i, r := range raw {
		v, err := jsonValue(r)
		if err != nil {
			return nil, fmt.Errorf("element %d: %w", i, err)
		}
		out[i] = v
	}
	return out, nil
}

func jsonValue(raw json.RawMessage) (point.Value, error) {
	text := strings.TrimSpace(string(raw))
	switch text[0] {
	case '"':
		var s string
		err := json.Unmarshal(raw, &s)
		return point.StringValue(s), err
	case 't', 'f':
		return point.BoolValue(text == "true"), nil
	case '[', '{':
		return point.StringValue(text), nil
	case 'n':
		return point.Value{}, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return point.IntValue(n), nil
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil {
		return point.UintValue(n), nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return point.Value{}, wrong(point.BadOutOfRange, "%s is beyond a Double", text)
	}
	return point.FloatValue(f), nil
}

// eventID reads the id of an event as it stands in an event's text.
func eventID(text string) ([]byte, error) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(b) == 0 {
		return nil, wrong(point.BadInvalidArgument, "event id %q is not base64", text)
	}
	return b, nil
}
