package sparkplug_test

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"time"

	"holdfast/hub/upstream/sparkplug/payload"
)

const peers = "testdata/host"

// needPeers skips a test when the peers are missing, and fails it when
// HOLDFAST_REQUIRE_PEERS says that they must be there.
func needPeers(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath("node")
	if err == nil {
		_, err = os.Stat(filepath.Join(peers, "node_modules", "sparkplug-payload"))
	}
	if err == nil {
		if _, err = exec.LookPath("mosquitto"); err != nil {
			_, err = os.Stat("/usr/sbin/mosquitto")
		}
	}
	switch {
	case err == nil:
	case os.Getenv("HOLDFAST_REQUIRE_PEERS") != "":
		t.Fatalf("peers are missing: %v", err)
	default:
		t.Skipf("peers are missing: %v", err)
	}
}

// A process is a program of the peers, which prints lines.
type process struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.WriteCloser
	done chan struct{}

	mu    sync.Mutex
	lines []json.RawMessage
}

// spawn starts a program that ends with the test.
func spawn(t *testing.T, name string, args ...string) *process {
	t.Helper()
	return start(t, exec.Command(name, args...))
}

func start(t *testing.T, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{t: t, cmd: cmd, done: make(chan struct{})}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.done)
		s := bufio.NewScanner(out)
		s.Buffer(nil, 16<<20)
		for s.Scan() {
			p.mu.Lock()
			p.lines = append(p.lines, append([]byte(nil), s.Bytes()...))
			p.mu.Unlock()
		}
		_ = p.cmd.Wait() // killed, as a rule
	}()
	t.Cleanup(p.kill)
	return p
}

// kill is kill -9.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// from returns the lines from the nth on.
func (p *process) from(n int) []json.RawMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lines[min(n, len(p.lines)):]
}

func (p *process) say(v any) {
	p.t.Helper()
	b, err := json.Marshal(v)
	if err == nil {
		_, err = p.in.Write(append(b, '\n'))
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

func until(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(limit); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

// A codec asks the payload codec of the peer.
type codec struct {
	*process
	asked int
}

func (c *codec) ask(question, answer any) {
	c.t.Helper()
	c.say(question)
	c.asked++
	until(c.t, 30*time.Second, "an answer of the codec", func() bool { return len(c.from(c.asked-1)) > 0 })
	if err := json.Unmarshal(c.from(c.asked - 1)[0], answer); err != nil {
		c.t.Fatal(err)
	}
}

// TestPeerDecodes has sparkplug-payload read what we write.
func TestPeerDecodes(t *testing.T) {
	needPeers(t)
	c := &codec{process: spawn(t, "node", filepath.Join(peers, "codec.js"))}
	type field struct {
		Name, Alias, Timestamp, Type, Value string
		Historical, Transient, Null         bool
		Properties                          map[string]string
	}
	var p payload.Payload
	var want []field
	add := func(typeName string, d payload.Datatype, v payload.Value, text string) {
		s, err := payload.Encode(d, v)
		if err != nil {
			t.Fatal(err)
		}
		n := len(want)
		m := payload.Metric{Name: "folder/" + strconv.Itoa(n), Alias: uint64(n) << 40, HasAlias: true, Timestamp: 1<<53 + uint64(n), HasTimestamp: true,
			Datatype: d, Historical: n%2 == 0, Transient: n%3 == 0, Scalar: s, Null: s.Field == payload.NoField}
		m.Properties = append(m.Properties, payload.Int32Property("Quality", 500), payload.Int64Property("code", -5),
			payload.StringProperty("engUnit", "°C"), payload.BoolProperty("readOnly", true))
		p.Metrics = append(p.Metrics, m)
		want = append(want, field{m.Name, strconv.FormatUint(m.Alias, 10), strconv.FormatUint(m.Timestamp, 10), typeName, text, m.Historical, m.Transient, m.Null,
			map[string]string{"Quality": "Int32:500", "code": "Int64:-5", "engUnit": "String:°C", "readOnly": "Boolean:true"}})
	}
	add("Int8", payload.Int8, payload.IntValue(-23), "-23")
	add("Int16", payload.Int16, payload.IntValue(-30000), "-30000")
	add("Int32", payload.Int32, payload.IntValue(math.MinInt32), "-2147483648")
	add("Int64", payload.Int64, payload.IntValue(math.MinInt64), "-9223372036854775808")
	add("UInt8", payload.UInt8, payload.IntValue(255), "255")
	add("UInt16", payload.UInt16, payload.IntValue(65535), "65535")
	// The peer reads a UInt32 from long_value only; the specification has int_value.
	add("UInt32", payload.UInt32, payload.IntValue(7), "")
	add("UInt64", payload.UInt64, payload.UintValue(math.MaxUint64), "18446744073709551615")
	add("Float", payload.Float, payload.FloatValue(1.5), "1.5")
	add("Double", payload.Double, payload.DoubleValue(-0.1), "-0.1")
	add("Double", payload.Double, payload.DoubleValue(math.Inf(1)), "Infinity")
	add("Boolean", payload.Boolean, payload.BoolValue(true), "true")
	add("String", payload.String, payload.StringValue("Ωμέγα"), "Ωμέγα")
	add("DateTime", payload.DateTime, payload.IntValue(1486144502122), "1486144502122")
	add("Text", payload.Text, payload.StringValue(""), "")
	add("Bytes", payload.Bytes, payload.BytesValue([]byte{0, 0xff}), "00ff")
	add("Double", payload.Double, payload.Value{}, "")
	p.Timestamp, p.HasTimestamp, p.Seq, p.HasSeq, p.UUID = 1486144502122, true, 255, true, "u"

	var got struct {
		Timestamp, Seq, UUID string
		Metrics              []field
	}
	c.ask(map[string]string{"decode": hex.EncodeToString(payload.Append(nil, &p))}, &got)
	if got.Timestamp != "1486144502122" || got.Seq != "255" || got.UUID != "u" || len(got.Metrics) != len(want) {
		t.Fatalf("%+v", got)
	}
	for i, w := range want {
		w.Null = false // the peer does not tell is_null, only that there is no value
		if g := got.Metrics[i]; !reflect.DeepEqual(g, w) {
			t.Errorf("metric %d\ngot  %+v\nwant %+v", i, g, w)
		}
	}
}

// TestPeerEncodes reads what sparkplug-payload writes.
func TestPeerEncodes(t *testing.T) {
	needPeers(t)
	c := &codec{process: spawn(t, "node", filepath.Join(peers, "codec.js"))}
	for _, w := range []struct {
		name  string
		value any
		want  payload.Value
	}{
		{"Int8", -23, payload.IntValue(-23)}, {"Int16", -30000, payload.IntValue(-30000)}, {"Int32", math.MinInt32, payload.IntValue(math.MinInt32)},
		{"Int64", -5, payload.IntValue(-5)}, {"UInt8", 255, payload.IntValue(255)}, {"UInt16", 65535, payload.IntValue(65535)},
		{"UInt32", 4294967295, payload.IntValue(math.MaxUint32)}, {"UInt64", 1 << 53, payload.IntValue(1 << 53)}, {"DateTime", 1486144502122, payload.IntValue(1486144502122)},
		{"Float", 1.5, payload.FloatValue(1.5)}, {"Double", -0.1, payload.DoubleValue(-0.1)}, {"Boolean", true, payload.BoolValue(true)},
		{"String", "Ωμέγα", payload.StringValue("Ωμέγα")}, {"Text", "x", payload.StringValue("x")}, {"UUID", "y", payload.StringValue("y")},
		{"Double", nil, payload.Value{}},
	} {
		var got struct{ Hex string }
		c.ask(map[string]any{"encode": map[string]any{"timestamp": 5, "seq": 3, "metrics": []any{map[string]any{
			"name": "m", "alias": 9, "timestamp": 6, "type": w.name, "value": w.value,
			"properties": map[string]any{"Quality": map[string]any{"type": "Int32", "value": 192}},
		}}}}, &got)
		data, err := hex.DecodeString(got.Hex)
		if err != nil {
			t.Fatal(err)
		}
		var p payload.Payload
		if err := payload.Decode(data, &p); err != nil {
			t.Errorf("%s: %v", w.name, err)
			continue
		}
		if len(p.Metrics) != 1 || p.Timestamp != 5 || p.Seq != 3 {
			t.Errorf("%s: %+v", w.name, p)
			continue
		}
		m := &p.Metrics[0]
		v, err := m.Value(payload.Unknown)
		if err != nil || !v.Equal(w.want) || m.Name != "m" || m.Alias != 9 || m.Timestamp != 6 || m.Null != (w.value == nil) {
			t.Errorf("%s: %v, %v, %+v", w.name, v, err, m)
		}
		if q, err := m.Properties[0].Scalar.Decode(m.Properties[0].Datatype); err != nil || m.Properties[0].Key != "Quality" || q.Int() != 192 {
			t.Errorf("%s: %+v %v", w.name, m.Properties, err)
		}
	}
}
