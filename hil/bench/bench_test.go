package bench

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSeries(t *testing.T) {
	for _, k := range []struct {
		in   series
		want float64
	}{
		{nil, 0},
		{series{3}, 3},
		{series{9, 1, 5}, 5},
		{series{4, 1, 3, 2}, 2.5},
	} {
		if got := k.in.median(); got != k.want {
			t.Errorf("median of %v is %v, want %v", k.in, got, k.want)
		}
	}
	if got := (series{10, 30}).over(series{5, 10}).show("%.1f"); got != "2.5 [2.0..3.0]" {
		t.Errorf("ratios print as %q", got)
	}
	if got := (series{1}).over(series{0}); len(got) != 0 {
		t.Errorf("a ratio to zero gave %v", got)
	}
}

func TestWriteTable(t *testing.T) {
	path := filepath.Join(t.TempDir(), "B.md")
	if err := os.WriteFile(path, []byte("# head\n"+tableBegin+"\nstale row\n"+tableEnd+"\ntail\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	rows := []Row{{Name: "a", Holdfast: "1", Target: "2", Met: Missed, Note: "x|y"}}
	if err := WriteTable(path, rows, "made today", true); err != nil {
		t.Fatal(err)
	}
	out, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"# head\n", "made today", "| a | 1 |", "**missed**", "x/y", "\ntail\n"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the file lacks %q:\n%s", want, out)
		}
	}
	if strings.Contains(string(out), "stale row") {
		t.Error("the old table is still there")
	}
	if err := WriteTable(path, []Row{{Name: "b", Holdfast: "7"}, {Name: "b", Holdfast: "8"}}, "first", false); err != nil {
		t.Fatal(err)
	}
	if err := WriteTable(path, []Row{{Name: "b", Holdfast: "9"}, {Name: "a", Holdfast: "3"}}, "again", false); err != nil {
		t.Fatal(err)
	}
	out, err = os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	a, b, c := strings.Index(string(out), "| a | 3 |"), strings.Index(string(out), "| b | 9 |"), strings.Index(string(out), "| b | 8 |")
	if a < 0 || b < a || c < b || strings.Contains(string(out), "| 7 |") || strings.Count(string(out), "| what |") != 1 {
		t.Errorf("rows did not take the places of their like:\n%s", out)
	}
	if err := os.WriteFile(path, []byte("# no place\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := WriteTable(path, rows, "", true); err == nil {
		t.Error("a file without a place for the table was accepted")
	}
}

// TestPlant asks the plant as a client would and checks what it says.
func TestPlant(t *testing.T) {
	p, err := startPlant(2)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	c, err := net.Dial("tcp", p.addrs[1])
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r := bufio.NewReader(c)
	ask := func(pdu ...byte) []byte {
		t.Helper()
		req := append([]byte{0, 7, 0, 0, 0, byte(len(pdu) + 1), 1}, pdu...)
		if _, err := c.Write(req); err != nil {
			t.Fatal(err)
		}
		head := make([]byte, 7)
		if _, err := io.ReadFull(r, head); err != nil {
			t.Fatal(err)
		}
		if head[1] != 7 {
			t.Fatalf("transaction is %d", head[1])
		}
		body := make([]byte, binary.BigEndian.Uint16(head[4:])-1)
		if _, err := io.ReadFull(r, body); err != nil {
			t.Fatal(err)
		}
		return body
	}
	before := time.Now().UnixMicro()
	body := ask(3, 0, 0, 0, 6)
	if len(body) != 14 || body[1] != 12 {
		t.Fatalf("answer is % x", body)
	}
	if at := int64(binary.BigEndian.Uint64(body[2:])); at < before || at > time.Now().UnixMicro() {
		t.Errorf("the clock registers say %d, not about %d", at, before)
	}
	again := ask(3, 0, 4, 0, 1)
	if again[2] == body[10] && again[3] == body[11] {
		t.Error("a register did not change between two reads")
	}
	ask(6, 0x07, 0xd0, 0, 42)
	if got := ask(3, 0x07, 0xd0, 0, 1); got[3] != 42 {
		t.Errorf("the written register reads % x", got)
	}
	if got := ask(0x2b, 0, 0, 0, 0); got[0] != 0xab {
		t.Errorf("an unknown function is answered % x", got)
	}
}

// TestProcessor burns processor time in this process and expects to see it.
func TestProcessor(t *testing.T) {
	a, err := processor(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	x := 0
	for time.Since(start) < 50*time.Millisecond {
		x++
	}
	b, err := processor(os.Getpid())
	if err != nil || b <= a || x == 0 {
		t.Errorf("from %v to %v after 50 ms of work: %v", a, b, err)
	}
	if _, err := processor(1 << 30); err == nil {
		t.Error("a process that does not exist has a processor time")
	}
}

func TestAges(t *testing.T) {
	now := time.UnixMicro(1_760_000_000_000_000)
	for _, k := range []struct {
		g       *gateway
		payload string
		want    []time.Duration
		tags    int
	}{
		{&modbusGateways[0], `{"readings":[{"tag":"clock","value":1759999999999000},{"tag":"a","value":1}]}`, []time.Duration{time.Millisecond}, 2},
		{&modbusGateways[1], "m,name=d0 clock=1759999999998000u,r0004=5i 1760000000000000000\n", []time.Duration{2 * time.Millisecond}, 2},
		{&opcuaGateways[0], `{"readings":[{"tag":"a","value":1.5,"source":1759999999990000}]}`, []time.Duration{10 * time.Millisecond}, 1},
		{&opcuaGateways[1], "d0,id=x Quality=\"OK (0x0)\",t0=1.5 1759999999997000000\nd0,id=y Quality=\"OK (0x0)\",t1=1.5 1759999999996000000\n",
			[]time.Duration{3 * time.Millisecond, 4 * time.Millisecond}, 2},
	} {
		var got []time.Duration
		k.g.ages([]byte(k.payload), now, func(d time.Duration) { got = append(got, d) })
		if !slices.Equal(got, k.want) || k.g.tags([]byte(k.payload)) != k.tags {
			t.Errorf("%s: ages %v, %d tags; want %v, %d", k.payload, got, k.g.tags([]byte(k.payload)), k.want, k.tags)
		}
	}
}
