package opcua

import (
	"context"
	"strings"
	"testing"
	"time"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// readAll reads tags until all have an answer of the server.
func readAll(t *testing.T, s *session, tags ...point.Tag) []point.Sample {
	t.Helper()
	g, err := s.Group(tags)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]point.Sample, len(tags))
	eventually(t, "an answer", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		g.Read(ctx, out)
		for _, s := range out {
			if s.Quality == point.BadNoCommunication || s.Quality == point.BadTimeout {
				return false
			}
		}
		return true
	})
	return out
}

// TestAcceptanceTypes: every built-in type, arrays, a matrix, a structure.
func TestAcceptanceTypes(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	s := openSession(t, newAdapter(t), settingsFor(p.addr()))
	element := node("Int16s")
	element.Params = point.Params{"index": "2"}
	part := node("Int16s")
	part.Params = point.Params{"index": "1:2"}
	for _, tc := range []struct {
		tag     point.Tag
		want    point.Value
		quality point.Quality
	}{
		{node("Boolean"), point.BoolValue(true), point.Good},
		{node("SByte"), point.IntValue(-5), point.Good},
		{node("Byte"), point.IntValue(200), point.Good},
		{node("Int16"), point.IntValue(-1234), point.Good},
		{node("UInt16"), point.IntValue(54321), point.Good},
		{node("Int32"), point.IntValue(-123456789), point.Good},
		{node("UInt32"), point.IntValue(4000000000), point.Good},
		{node("Int64"), point.IntValue(-2), point.Good},
		{node("UInt64"), point.UintValue(1<<63 + 1), point.Good},
		{node("Float"), point.Float32Value(1.25), point.Good},
		{node("Double"), point.FloatValue(0.1), point.Good},
		{node("String"), point.StringValue("grüß dich"), point.Good},
		{node("DateTime"), point.StringValue("2024-05-31T12:00:00.25Z"), point.Good},
		{node("Guid"), point.StringValue("72962b91-fa75-4ae6-8d28-b404dc7daf63"), point.Good},
		{node("ByteString"), point.BytesValue([]byte{0, 1, 254, 255}), point.Good},
		{node("LocalizedText"), point.StringValue("valve"), point.Good},
		{node("Doubles"), point.StringValue("[1,2.5,-3]"), point.Good},
		{node("Int16s"), point.StringValue("[1,2,3,4]"), point.Good},
		{element, point.IntValue(3), point.Good},
		{part, point.StringValue("[2,3]"), point.Good},
		{node("Strings"), point.StringValue(`["a","b\"c"]`), point.Good},
		{node("Matrix"), point.StringValue("[[1,2,3],[4,5,6]]"), point.Good},
		{node("Pump"), point.StringValue(`{"Speed":12.5,"Name":"P1","Samples":[3,-4],"Position":{"X":1,"Y":-2}}`), point.Good},
		{node("Points"), point.StringValue(`[{"X":1,"Y":2},{"X":3,"Y":4}]`), point.Good},
		{node("Recipe"), point.StringValue(`{"Step":3,"Hot":true}`), point.Good},
		{node("Broken"), point.Value{}, point.BadSensorFailure},
		{node("Missing"), point.Value{}, point.BadNodeIdUnknown},
		{node("Big"), point.Value{}, point.BadEncodingLimitsExceeded},
		{point.Tag{Name: "n", Address: "nsu=urn:nobody;s=x"}, point.Value{}, point.BadNodeIdUnknown},
		{point.Tag{Name: "p", Address: "nsu=urn:holdfast:test;path=Plant/Int16"}, point.IntValue(-1234), point.Good},
		{point.Tag{Name: "p", Address: "nsu=urn:holdfast:test;path=/0:Objects/Plant/Int16"}, point.IntValue(-1234), point.Good},
		{point.Tag{Name: "p", Address: "nsu=urn:holdfast:test;path=Plant/Nothing"}, point.Value{}, point.BadNodeIdUnknown},
	} {
		got := readAll(t, s, tc.tag)[0]
		if tc.tag.Address == "nsu=urn:holdfast:test;path=Plant/Nothing" && got.Quality.Bad() {
			continue // BadNoMatch
		}
		if !got.Value.Equal(tc.want) || got.Quality != tc.quality {
			t.Errorf("%s is %s %s %s (%s), want %s %s", tc.tag.Address, got.Value.Kind(), got.Value, got.Quality, got.Detail, tc.want, tc.quality)
		}
		if got.Quality.Bad() != (got.Detail != "") {
			t.Errorf("%s: %s with detail %q", tc.tag.Address, got.Quality, got.Detail)
		}
	}
}

// TestAcceptanceWrite writes what each type takes and reads it back.
func TestAcceptanceWrite(t *testing.T) {
	p := startPeer(t, nil)
	s := openSession(t, newAdapter(t), settingsFor(p.addr()))
	element := node("Int16s")
	element.Params = point.Params{"index": "2"}
	for _, tc := range []struct {
		tag  point.Tag
		v    point.Value
		want point.Value
		bad  point.Quality
	}{
		{node("Boolean"), point.BoolValue(false), point.BoolValue(false), 0},
		{node("SByte"), point.IntValue(-128), point.IntValue(-128), 0},
		{node("Byte"), point.IntValue(256), point.Value{}, point.BadOutOfRange},
		{node("Int16"), point.FloatValue(7.6), point.IntValue(8), 0},
		{node("UInt16"), point.IntValue(-1), point.Value{}, point.BadOutOfRange},
		{node("UInt32"), point.IntValue(1 << 31), point.IntValue(1 << 31), 0},
		{node("Int64"), point.IntValue(-1 << 40), point.IntValue(-1 << 40), 0},
		{node("UInt64"), point.UintValue(1<<64 - 1), point.UintValue(1<<64 - 1), 0},
		{node("Float"), point.IntValue(3), point.Float32Value(3), 0},
		{node("Double"), point.StringValue("x"), point.Value{}, point.BadTypeMismatch},
		{node("Double"), point.FloatValue(-1e300), point.FloatValue(-1e300), 0},
		{node("String"), point.StringValue("[ok]"), point.StringValue("[ok]"), 0},
		{node("DateTime"), point.StringValue("1999-12-31T23:59:59.5Z"), point.StringValue("1999-12-31T23:59:59.5Z"), 0},
		{node("Guid"), point.StringValue("01020304-0506-0708-090a-0b0c0d0e0f10"), point.StringValue("01020304-0506-0708-090a-0b0c0d0e0f10"), 0},
		{node("ByteString"), point.BytesValue([]byte{9}), point.BytesValue([]byte{9}), 0},
		{node("LocalizedText"), point.StringValue("pump"), point.StringValue("pump"), 0},
		{node("Doubles"), point.StringValue("[4,5.5,6]"), point.StringValue("[4,5.5,6]"), 0},
		{node("Doubles"), point.FloatValue(1), point.Value{}, point.BadTypeMismatch},
		{element, point.IntValue(77), point.IntValue(77), 0},
		{node("Strings"), point.StringValue(`["x","y"]`), point.StringValue(`["x","y"]`), 0},
		{node("ReadOnly"), point.IntValue(1), point.Value{}, point.BadNotWritable},
		{node("Missing"), point.IntValue(1), point.Value{}, point.BadNodeIdUnknown},
	} {
		readAll(t, s, node("Boolean")) // connected
		err := s.Write(context.Background(), []protocols.Write{{Tag: tc.tag, Value: tc.v}})[0]
		if tc.bad != 0 {
			we, ok := err.(*protocols.WriteError)
			if !ok || we.Quality != tc.bad && !(tc.bad == point.BadNotWritable && we.Quality == point.BadUserAccessDenied) || we.Maybe {
				t.Errorf("%s = %s: %v (%+v), want %s", tc.tag.Name, tc.v, err, we, tc.bad)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s = %s: %v", tc.tag.Name, tc.v, err)
			continue
		}
		if got := readAll(t, s, tc.tag)[0]; !got.Value.Equal(tc.want) {
			t.Errorf("%s reads %s %s after %s was written", tc.tag.Name, got.Value, got.Detail, tc.v)
		}
	}
}

// TestAcceptanceMethod calls a method, rightly and wrongly.
func TestAcceptanceMethod(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	s := openSession(t, newAdapter(t), settingsFor(p.addr()))
	method := node("Multiply")
	method.Type, method.Access = "method", point.ReadWrite
	call := func(v point.Value) error {
		return s.Write(context.Background(), []protocols.Write{{Tag: method, Value: v}})[0]
	}
	if got := readAll(t, s, method)[0]; got.Quality != point.BadWaitingForInitialData {
		t.Errorf("before the first call: %+v", got)
	}
	if err := call(point.StringValue("[6, 1.5]")); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, s, method)[0]; got.Value.Text() != "[9]" || got.Quality != point.Good {
		t.Errorf("the result is %+v", got)
	}
	for arg, word := range map[string]string{"[1]": "(a Int32, b Double)", `["x",1]`: `argument "a"`, "[1": "JSON"} {
		if err := call(point.StringValue(arg)); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", arg, err)
		}
	}
}

// TestAcceptanceBrowse lists nodes over continuation points, through a cycle and
// a view.
func TestAcceptanceBrowse(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	s := openSession(t, newAdapter(t), settingsFor(p.addr()))
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	names := func(at string) map[string]protocols.Node {
		t.Helper()
		nodes, err := s.Browse(ctx, at)
		if err != nil {
			t.Fatal(err)
		}
		out := map[string]protocols.Node{}
		for _, n := range nodes {
			out[n.Name] = n
		}
		return out
	}
	if root := names(""); !root["Objects"].Folder || !root["Views"].Folder {
		t.Errorf("the root has %v", root)
	}
	plant := names("nsu=urn:holdfast:test;s=Plant")
	if n := plant["Int16"]; n.Type != "Int16" || n.Access != point.ReadWrite || n.Folder || n.Address != "nsu=urn:holdfast:test;s=Int16" {
		t.Errorf("Int16 is %+v", n)
	}
	if n := plant["Multiply"]; n.Type != "method" || n.Access != point.WriteOnly {
		t.Errorf("Multiply is %+v", n)
	}
	if many := names(plant["Many"].Address); len(many) != 2501 {
		t.Errorf("Many has %d children", len(many))
	}
	if view := names("nsu=urn:holdfast:test;s=TestView"); !view["Plant"].Folder {
		t.Errorf("the view has %v", view)
	}
	seen := map[string]int{}
	err := s.Walk(ctx, "nsu=urn:holdfast:test;s=Plant", 3, 10_000, func(_ int, n protocols.Node) error {
		seen[n.Address]++
		return nil
	})
	if err != nil {
		t.Errorf("Walk: %v", err)
	}
	for at, n := range seen {
		if n > 1 {
			t.Errorf("%s is visited %d times", at, n)
		}
	}
	if len(seen) < 2500 {
		t.Errorf("only %d nodes are visited", len(seen))
	}
	if _, err := s.Browse(ctx, "nsu=urn:holdfast:test;s=Nothing"); err == nil || !strings.Contains(err.Error(), "BadNodeIDUnknown") {
		t.Errorf("a node that is not there: %v", err)
	}
	d, err := s.Describe(ctx, []point.Tag{node("Analog"), node("History"), node("Matrix")})
	if err != nil {
		t.Fatal(err)
	}
	if a := d[0]; a.Range == nil || *a.Range != (Range{-100, 300}) || a.Unit != "°C" || a.Type != "Double" || a.Rank != -1 {
		t.Errorf("Analog is %+v", a)
	}
	if !d[1].Keeps || d[0].Keeps || d[2].Rank != 2 {
		t.Errorf("History is %+v, Matrix %+v", d[1], d[2])
	}
}

// TestAcceptanceDeadband: absolute and percent dead-bands hold back at the server.
func TestAcceptanceDeadband(t *testing.T) {
	p := startPeer(t, nil)
	s := openSession(t, newAdapter(t), settingsFor(p.addr(), "publishing_interval", "50ms"))
	percent, absolute, all := node("Analog"), node("Analog"), node("Analog")
	percent.Params = point.Params{"deadband_percent": "5", "sampling": "0s"} // 20 of 400
	absolute.Params, all.Params = point.Params{"sampling": "0s"}, point.Params{"sampling": "0s"}
	absolute.Scale = point.Scale{Kind: point.Factor, Factor: 10}
	absolute.Dead = point.Deadband{Kind: point.Absolute, Value: 50} // 5 raw
	r, stop := subscribe(t, s, percent, absolute, all)
	eventually(t, "first values", func() bool { return len(r.of(0)) > 0 && len(r.of(1)) > 0 && len(r.of(2)) > 0 })
	for i := 2; i <= 60; i += 2 {
		p.set(t, "Analog", 20+float64(i))
		time.Sleep(120 * time.Millisecond) // this server samples such a node every 50 ms
	}
	eventually(t, "the last value", func() bool {
		got := r.of(2)
		f, _ := got[len(got)-1].Value.Float()
		return f == 80
	})
	stop()
	for tag, want := range []struct{ low, high int }{{2, 5}, {7, 13}, {22, 33}} {
		if n := len(r.of(tag)); n < want.low || n > want.high {
			t.Errorf("tag %d got %d values, want %d to %d", tag, n, want.low, want.high)
		}
	}
}
