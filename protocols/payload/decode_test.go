package payload

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// The decoders below are written from FORMAT.md and the documents that it
// names, not from the encoders.

// A pair is one entry of a CBOR map, in order.
type pair struct {
	key   string
	value any
}

// tagged is a CBOR item with a tag.
type tagged struct {
	tag  uint64
	item any
}

var errCBOR = errors.New("not CBOR as it is written here")

// readCBOR takes one item off b: nil, bool, int64, uint64 (from 2^63), float32,
// float64, string, []byte, []any, []pair or tagged. What is longer than it need
// be, indefinite or nested deeper than depth is an error.
func readCBOR(b []byte, depth int) (item any, rest []byte, err error) {
	if len(b) == 0 || depth == 0 {
		return nil, nil, errCBOR
	}
	switch b[0] {
	case 0xf4, 0xf5:
		return b[0] == 0xf5, b[1:], nil
	case 0xf6:
		return nil, b[1:], nil
	case 0xfa:
		if len(b) < 5 {
			return nil, nil, errCBOR
		}
		return math.Float32frombits(binary.BigEndian.Uint32(b[1:])), b[5:], nil
	case 0xfb:
		if len(b) < 9 {
			return nil, nil, errCBOR
		}
		return math.Float64frombits(binary.BigEndian.Uint64(b[1:])), b[9:], nil
	}
	major, n, b, err := readHead(b)
	if err != nil {
		return nil, nil, err
	}
	switch major {
	case 0:
		if n > math.MaxInt64 {
			return n, b, nil
		}
		return int64(n), b, nil
	case 1:
		if n > math.MaxInt64 {
			return nil, nil, errCBOR
		}
		return -1 - int64(n), b, nil
	case 2, 3:
		if n > uint64(len(b)) {
			return nil, nil, errCBOR
		}
		if major == 3 {
			return string(b[:n]), b[n:], nil
		}
		return b[:n:n], b[n:], nil
	case 6:
		item, b, err = readCBOR(b, depth-1)
		return tagged{n, item}, b, err
	}
	return readItems(b, major, n, depth)
}

// readHead reads the first byte of an item and its number (RFC 8949, 3).
func readHead(b []byte) (major byte, n uint64, rest []byte, err error) {
	major, low := b[0]>>5, b[0]&31
	if b = b[1:]; low < 24 {
		return major, uint64(low), b, nil
	}
	size := 1 << (low - 24)
	if low > 27 || len(b) < size || major == 7 {
		return 0, 0, nil, errCBOR
	}
	for _, c := range b[:size] {
		n = n<<8 | uint64(c)
	}
	if least := []uint64{24, 1 << 8, 1 << 16, 1 << 32}[low-24]; n < least {
		return 0, 0, nil, errCBOR // it has a shorter form
	}
	return major, n, b[size:], nil
}

// readItems reads n items of an array, or pairs of a map.
func readItems(b []byte, major byte, n uint64, depth int) (any, []byte, error) {
	var list []any
	var pairs []pair
	for range n {
		var item any
		var err error
		key := ""
		if major == 5 {
			var k any
			if k, b, err = readCBOR(b, depth-1); err != nil {
				return nil, nil, err
			}
			var ok bool
			if key, ok = k.(string); !ok {
				return nil, nil, errCBOR
			}
		}
		if item, b, err = readCBOR(b, depth-1); err != nil {
			return nil, nil, err
		}
		list, pairs = append(list, item), append(pairs, pair{key, item})
	}
	if major == 5 {
		return pairs, b, nil
	}
	return list, b, nil
}

// A rebuilt batch is what messages say, put together again.
type rebuilt struct {
	point.Batch
	gateway, path string
	tags          []Tag // of the readings
}

// rebuild decodes all messages of one batch that was written with default names.
func rebuild(form Form, messages [][]byte) (*rebuilt, error) {
	out := &rebuilt{}
	for _, m := range messages {
		var err error
		switch form {
		case JSON:
			err = out.fromJSON(m)
		case CBOR:
			err = out.fromCBOR(m)
		case Protobuf:
			err = out.fromProtobuf(m)
		}
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// set takes one field of an object; r is the reading that it is about, if any.
func (out *rebuilt) set(r *point.Reading, t *Tag, key string, v any) error {
	text, isText := v.(string)
	whole, isWhole := v.(int64)
	natural, isNatural := v.(uint64)
	if isWhole && whole >= 0 {
		natural, isNatural = uint64(whole), true
	}
	var err error
	ok := isText
	switch key {
	case "gateway":
		out.gateway = text
	case "path":
		t.Path = text
	case "device":
		out.Device = text
	case "boot":
		out.Boot, err = strconv.ParseUint(text, 16, 64)
		ok = len(text) == 16
	case "clock":
		out.Clock = map[string]clock.Quality{"unsynced": clock.Unsynced, "stepped": clock.Stepped}[text]
		ok = out.Clock != clock.Synced
	case "seq":
		out.Sequence, ok = natural, isNatural
	case "dropped":
		out.Dropped, ok = natural, isNatural && natural > 0
	case "tag":
		r.Tag = text
	case "unit":
		t.Unit = text
	case "class":
		t.Class = text
	case "quality":
		r.Quality, err = point.ParseQuality(text)
	case "detail":
		r.Detail = text
	case "time":
		r.Receive, ok = time.UnixMicro(whole).UTC(), isWhole
	case "source":
		r.Source, ok = time.UnixMicro(whole).UTC(), isWhole
	default:
		return fmt.Errorf("unknown key %q", key)
	}
	if !ok {
		return fmt.Errorf("%q is %v", key, v)
	}
	return err
}

func (out *rebuilt) fromJSON(m []byte) error {
	var outer struct{ Readings []json.RawMessage }
	var object map[string]json.RawMessage
	if err := json.Unmarshal(m, &object); err != nil {
		return err
	}
	if _, isBatch := object["readings"]; isBatch {
		if err := json.Unmarshal(m, &outer); err != nil {
			return err
		}
		delete(object, "readings")
	} else {
		outer.Readings = []json.RawMessage{m}
		object = nil
	}
	var t Tag
	if err := out.object(object, nil, &t); err != nil {
		return err
	}
	out.path = t.Path
	for _, raw := range outer.Readings {
		var r point.Reading
		var t Tag
		var object map[string]json.RawMessage
		if err := json.Unmarshal(raw, &object); err != nil {
			return err
		}
		if err := out.object(object, &r, &t); err != nil {
			return err
		}
		out.Readings, out.tags = append(out.Readings, r), append(out.tags, t)
	}
	return nil
}

func (out *rebuilt) object(object map[string]json.RawMessage, r *point.Reading, t *Tag) error {
	for key, raw := range object {
		if key == "value" && r != nil {
			var err error
			if r.Value, err = jsonValue(raw); err != nil {
				return err
			}
			continue
		}
		var v any
		d := json.NewDecoder(bytes.NewReader(raw))
		d.UseNumber()
		if err := d.Decode(&v); err != nil {
			return err
		}
		if n, ok := v.(json.Number); ok {
			v, _ = n.Int64()
			if u, err := strconv.ParseUint(n.String(), 10, 64); err == nil && u > math.MaxInt64 {
				v = u
			}
		}
		if err := out.set(r, t, key, v); err != nil {
			return err
		}
	}
	return nil
}

// jsonValue reads a value as FORMAT.md of package point has it.
func jsonValue(raw []byte) (point.Value, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return point.Value{}, err
	}
	switch v := v.(type) {
	case nil:
		return point.Value{}, nil
	case bool:
		return point.BoolValue(v), nil
	case string:
		return point.StringValue(v), nil
	case json.Number:
		if !bytes.ContainsAny(raw, ".eE") {
			if i, err := strconv.ParseInt(v.String(), 10, 64); err == nil {
				return point.IntValue(i), nil
			}
			u, err := strconv.ParseUint(v.String(), 10, 64)
			return point.UintValue(u), err
		}
		f, err := v.Float64()
		return point.FloatValue(f), err
	case map[string]any:
		if s, ok := v["float"].(string); ok {
			f, err := strconv.ParseFloat(s, 64)
			return point.FloatValue(f), err
		}
		if s, ok := v["base64"].(string); ok {
			b, err := base64.StdEncoding.DecodeString(s)
			return point.BytesValue(b), err
		}
	}
	return point.Value{}, fmt.Errorf("%s is no value", raw)
}

func (out *rebuilt) fromCBOR(m []byte) error {
	item, rest, err := readCBOR(m, 5)
	if err != nil || len(rest) > 0 {
		return errors.Join(errCBOR, err)
	}
	outer, ok := item.([]pair)
	if !ok {
		return errCBOR
	}
	objects := []any{outer}
	if last := outer[len(outer)-1]; last.key == "readings" {
		list, ok := last.value.([]any)
		if !ok {
			return errCBOR
		}
		objects = list
		var t Tag
		for _, p := range outer[:len(outer)-1] {
			if err := out.set(nil, &t, p.key, p.value); err != nil {
				return err
			}
		}
		out.path = t.Path
	}
	for _, o := range objects {
		pairs, ok := o.([]pair)
		if !ok {
			return errCBOR
		}
		var r point.Reading
		var t Tag
		for _, p := range pairs {
			if p.key == "value" {
				r.Value = valueOf(p.value)
			} else if err := out.set(&r, &t, p.key, p.value); err != nil {
				return err
			}
		}
		out.Readings, out.tags = append(out.Readings, r), append(out.tags, t)
	}
	return nil
}

// valueOf makes a value of a decoded item.
func valueOf(item any) point.Value {
	switch v := item.(type) {
	case bool:
		return point.BoolValue(v)
	case int64:
		return point.IntValue(v)
	case uint64:
		return point.UintValue(v)
	case float32:
		return point.Float32Value(v)
	case float64:
		return point.FloatValue(v)
	case string:
		return point.StringValue(v)
	case []byte:
		return point.BytesValue(v)
	}
	return point.Value{}
}

// eachField calls f with each field of a protobuf message: a uint64 for varints
// and fixed sizes, else the bytes.
func eachField(m []byte, f func(n protowire.Number, v uint64, b []byte) error) error {
	for len(m) > 0 {
		n, kind, size := protowire.ConsumeTag(m)
		if size < 0 {
			return protowire.ParseError(size)
		}
		m = m[size:]
		var v uint64
		var b []byte
		switch kind {
		case protowire.VarintType:
			v, size = protowire.ConsumeVarint(m)
		case protowire.Fixed32Type:
			var w uint32
			w, size = protowire.ConsumeFixed32(m)
			v = uint64(w)
		case protowire.Fixed64Type:
			v, size = protowire.ConsumeFixed64(m)
		case protowire.BytesType:
			b, size = protowire.ConsumeBytes(m)
		default:
			return fmt.Errorf("field %d is of kind %d", n, kind)
		}
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(n, v, b); err != nil {
			return err
		}
		m = m[size:]
	}
	return nil
}

func (out *rebuilt) fromProtobuf(m []byte) error {
	path := ""
	return eachField(m, func(n protowire.Number, v uint64, b []byte) error {
		switch n {
		case 1:
			out.gateway = string(b)
		case 2:
			out.Device = string(b)
		case 3:
			path, out.path = string(b), string(b)
		case 4:
			out.Sequence = v
		case 5:
			out.Boot = v
		case 6:
			out.Clock = clock.Quality(v)
		case 7:
			out.Dropped = v
		case 8:
			r, t := point.Reading{}, Tag{Path: path}
			err := eachField(b, func(n protowire.Number, v uint64, b []byte) error { return setProto(&r, &t, n, v, b) })
			out.Readings, out.tags = append(out.Readings, r), append(out.tags, t)
			return err
		default:
			return fmt.Errorf("unknown field %d", n)
		}
		return nil
	})
}

func setProto(r *point.Reading, t *Tag, n protowire.Number, v uint64, b []byte) error {
	switch n {
	case 1:
		r.Tag = string(b)
	case 2:
		r.Value = point.BoolValue(v != 0)
	case 3:
		r.Value = point.IntValue(protowire.DecodeZigZag(v))
	case 4:
		r.Value = point.UintValue(v)
	case 5:
		r.Value = point.Float32Value(math.Float32frombits(uint32(v)))
	case 6:
		r.Value = point.FloatValue(math.Float64frombits(v))
	case 7:
		r.Value = point.StringValue(string(b))
	case 8:
		r.Value = point.BytesValue(b)
	case 9:
		r.Quality = point.Quality(v)
	case 10:
		r.Detail = string(b)
	case 11:
		r.Receive = time.UnixMicro(protowire.DecodeZigZag(v)).UTC()
	case 12:
		r.Source = time.UnixMicro(protowire.DecodeZigZag(v)).UTC()
	case 13:
		t.Unit = string(b)
	case 14:
		t.Class = string(b)
	case 15:
		t.Path = string(b)
	default:
		return fmt.Errorf("unknown field %d of a reading", n)
	}
	return nil
}
