package payload

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/exec"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/protocols/point"
)

// peer runs the decoders of npm over messages and returns what it says about
// each. They are installed with npm ci in testdata/npm; without them the test is
// skipped, unless HOLDFAST_REQUIRE_PEERS=1 says that they must be there.
func peer(t *testing.T, messages [][]byte, args ...string) (out []any) {
	t.Helper()
	node, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat("testdata/npm/node_modules/protobufjs")
	}
	if err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_PEERS") == "1" {
			t.Fatalf("%v, and HOLDFAST_REQUIRE_PEERS=1", err)
		}
		t.Skip(err)
	}
	var in strings.Builder
	for _, m := range messages {
		fmt.Fprintln(&in, hex.EncodeToString(m))
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, append([]string{"testdata/npm/decode.js"}, args...)...)
	cmd.Stdin = strings.NewReader(in.String())
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	said, err := cmd.Output()
	if err != nil {
		t.Fatalf("decode.js: %v\n%s", err, stderr.Bytes())
	}
	for line := range strings.Lines(string(said)) {
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Fatal(err)
		}
		out = append(out, v)
	}
	return out
}

// canonical says what decode.js says about a decoded item.
func canonical(item any) any {
	switch v := item.(type) {
	case nil:
		return "null"
	case bool:
		return fmt.Sprintf("bool:%v", v)
	case uint64:
		return fmt.Sprintf("int:%d", v)
	case int64:
		if v > 1<<53-1 || v < -(1<<53-1) { // Number.MAX_SAFE_INTEGER
			return fmt.Sprintf("int:%d", v)
		}
		return canonical(float64(v))
	case float64:
		if v != v {
			return "number:NaN"
		}
		return fmt.Sprintf("number:%016x", math.Float64bits(v))
	case string:
		return "text:" + v
	case []byte:
		return "bytes:" + hex.EncodeToString(v)
	case tagged:
		return fmt.Sprintf("tag%d:%s", v.tag, canonical(v.item))
	case []any:
		list := []any{}
		for _, item := range v {
			list = append(list, canonical(item))
		}
		return list
	case []pair:
		object := map[string]any{}
		for _, p := range v {
			object[p.key] = canonical(p.value)
		}
		return object
	}
	panic(fmt.Sprintf("%T", item))
}

func TestPeerDecodesCBOR(t *testing.T) {
	for name, data := range inputs(t) {
		for _, v := range variants {
			if v.o.Form != CBOR {
				continue
			}
			msgs := messages(t, v.o, data)
			got := peer(t, msgs, "cbor")
			if len(got) != len(msgs) {
				t.Fatalf("%s.%s: %d of %d decoded", name, v.name, len(got), len(msgs))
			}
			for i, m := range msgs {
				item, rest, err := readCBOR(m, 5)
				if err != nil || len(rest) > 0 {
					t.Fatal(err, rest)
				}
				if want := canonical(item); !reflect.DeepEqual(got[i], want) {
					t.Errorf("%s.%s: the peer reads\n%v\nwe\n%v", name, v.name, got[i], want)
				}
			}
		}
	}
}

// protoValues are the members of the oneof, by kind.
var protoValues = map[point.Kind]string{
	point.Bool: "boolValue", point.Int: "intValue", point.Uint: "uintValue", point.Float: "doubleValue",
	point.String: "stringValue", point.Bytes: "bytesValue",
}

// protoObject is what protobufjs makes of a batch: fields by their names in
// camel case, integers of 64 bits as text.
func protoObject(b *rebuilt) any {
	var list []any
	for i, r := range b.Readings {
		o := []pair{{"tag", r.Tag}}
		if name, ok := protoValues[r.Value.Kind()]; ok {
			var v any
			switch r.Value.Kind() {
			case point.Bool:
				v = r.Value.Bool()
			case point.Int, point.Uint:
				v = r.Value.String()
			case point.Float:
				v, _ = r.Value.Float()
			case point.String:
				v = r.Value.Text()
			case point.Bytes:
				v = r.Value.Raw()
			}
			o = append(o, pair{name, v}, pair{"value", name})
		}
		if r.Quality != point.Good {
			o = append(o, pair{"quality", int64(r.Quality)})
		}
		if !r.Receive.IsZero() {
			o = append(o, pair{"time", fmt.Sprint(r.Receive.UnixMicro())})
		}
		if !r.Source.IsZero() {
			o = append(o, pair{"source", fmt.Sprint(r.Source.UnixMicro())})
		}
		t := b.tags[i]
		if t.Path == b.path {
			t.Path = ""
		}
		for _, p := range []pair{{"detail", r.Detail}, {"unit", t.Unit}, {"class", t.Class}, {"path", t.Path}} {
			if p.value != "" {
				o = append(o, p)
			}
		}
		list = append(list, o)
	}
	o := []pair{{"readings", list}, {"gateway", b.gateway}, {"device", b.Device}}
	if b.path != "" {
		o = append(o, pair{"path", b.path})
	}
	if b.Sequence != 0 {
		o = append(o, pair{"seq", fmt.Sprint(b.Sequence)})
	}
	if b.Boot != 0 {
		o = append(o, pair{"boot", fmt.Sprint(b.Boot)})
	}
	if b.Clock != 0 {
		o = append(o, pair{"clock", "CLOCK_" + strings.ToUpper(b.Clock.String())})
	}
	if b.Dropped != 0 {
		o = append(o, pair{"dropped", fmt.Sprint(b.Dropped)})
	}
	return canonical(o)
}

func TestPeerDecodesProtobuf(t *testing.T) {
	for name, data := range inputs(t) {
		for _, per := range []bool{false, true} {
			msgs := messages(t, Options{Form: Protobuf, PerReading: per}, data)
			got := peer(t, msgs, "protobuf", "readings.proto")
			if len(got) != len(msgs) {
				t.Fatalf("%s: %d of %d decoded", name, len(got), len(msgs))
			}
			for i, m := range msgs {
				b, err := rebuild(Protobuf, [][]byte{m})
				if err != nil {
					t.Fatal(err)
				}
				if want := protoObject(b); !reflect.DeepEqual(got[i], want) {
					t.Errorf("%s: the peer reads\n%v\nwe\n%v", name, got[i], want)
				}
			}
		}
	}
}
