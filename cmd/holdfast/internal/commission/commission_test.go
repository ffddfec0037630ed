package commission

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols"
	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
	"holdfast/protocols/tagfile"
)

func TestTargets(t *testing.T) {
	for _, c := range []struct{ text, want, err string }{
		{text: "tcp://10.0.0.7", want: "map[address:10.0.0.7 transport:tcp]"},
		{text: "tcp://[::1]:1502", want: "map[address:[::1]:1502 transport:tcp]"},
		{text: "rtu-over-tcp://h:4001", want: "map[address:h:4001 transport:rtu-over-tcp]"},
		{text: "/dev/ttyUSB0", want: "map[port:/dev/ttyUSB0 transport:rtu]"},
		{text: "rtu:///dev/ttyS1?line=9600+8N1", want: "map[baud:9600 parity:none port:/dev/ttyS1 stop_bits:1 transport:rtu]"},
		{text: "rtu:///dev/ttyS1?line=9600+7E1", err: "8 data bits"},
		{text: "rtu:///dev/ttyS1?line=fast", err: "serial setting"},
		{text: "rtu:///dev/ttyS1?baud=9600", err: `unknown option "baud"`},
		{text: "rtu://", err: "no serial port"},
		{text: "tcp://", err: "no host"},
		{text: "h:502", err: "is none of"},
		{text: "tcp://a b", err: "is no address"},
	} {
		got, err := ParseTarget(c.text)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.text, err)
			}
			continue
		}
		if err != nil || fmt.Sprint(got) != c.want {
			t.Errorf("%s: %v, %v", c.text, got, err)
		}
	}
}

func TestUnitsAndRanges(t *testing.T) {
	if got, err := ParseUnits("3,1-2, 2-4"); err != nil || !slices.Equal(got, []byte{3, 1, 2, 4}) {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "0-256", "5-1", "a", "1,,2"} {
		if got, err := ParseUnits(bad); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
	if got, err := ParseRange("input:10-19"); err != nil || got != (Range{modbus.Input, 10, 20}) {
		t.Error(got, err)
	}
	if got, err := ParseRange("hr:7"); err != nil || got != (Range{modbus.Holding, 7, 8}) {
		t.Error(got, err)
	}
	for _, bad := range []string{"holding", "holding:", "hodling:0-9", "holding:9-0", "holding:0-65536"} {
		if got, err := ParseRange(bad); err == nil {
			t.Errorf("%q gave %v", bad, got)
		}
	}
}

// space is an address space: node to children.
type space map[string][]protocols.Node

func (s space) Browse(ctx context.Context, at string) ([]protocols.Node, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if at == "bad" {
		return nil, errors.New("access denied")
	}
	return s[at], nil
}

func folder(name string) protocols.Node {
	return protocols.Node{Address: name, Name: name, Folder: true}
}

func value(address, name string) protocols.Node {
	return protocols.Node{Address: address, Name: name, Type: "Double", Access: point.ReadWrite}
}

var plant = space{
	"":        {folder("boiler"), folder("oven"), folder("bad"), {Address: "m", Name: "reset", Type: "method", Access: point.WriteOnly}},
	"boiler":  {value("b.t", "temp"), value("b.p", "pressure/1"), folder("boiler2")},
	"boiler2": {folder("boiler"), value("b2.t", "temp")},
	"oven":    {value("o.t", "temp"), value("o.t2", "temp")},
}

func TestBrowse(t *testing.T) {
	tree, err := Browse(context.Background(), plant, "", Bounds{Depth: 9, Nodes: 100})
	if err != nil {
		t.Fatal(err)
	}
	want := `├─ boiler  boiler
│  ├─ temp  Double rw  b.t
│  ├─ pressure/1  Double rw  b.p
│  └─ boiler2  boiler2
│     ├─ boiler  boiler  … shown above
│     └─ temp  Double rw  b2.t
├─ oven  oven
│  ├─ temp  Double rw  o.t
│  └─ temp  Double rw  o.t2
├─ bad  bad  … access denied
└─ reset  method w  m`
	if got := strings.Join(tree.Lines(), "\n"); got != want {
		t.Errorf("got\n%s", got)
	}
	if nodes, values := tree.Count(); nodes != 11 || values != 5 {
		t.Errorf("%d nodes, %d values", nodes, values)
	}
	var names []string
	tags := tree.Tags()
	for _, tag := range tags {
		names = append(names, tag.Name+"="+tag.Address)
	}
	if got := strings.Join(names, " "); got != "boiler.temp=b.t pressure-1=b.p boiler2.temp=b2.t oven.temp=o.t oven.temp_2=o.t2" {
		t.Errorf("tags %s", got)
	}
	if _, err := tagfile.Encode(tags, "x.csv"); err != nil {
		t.Error(err)
	}
}

func TestBrowseBounds(t *testing.T) {
	tree, err := Browse(context.Background(), plant, "", Bounds{Depth: 1, Nodes: 100})
	if err != nil || tree.Lines()[0] != "├─ boiler  boiler  …" {
		t.Errorf("%v %q", err, tree.Lines())
	}
	// Level by level: the neighbours come before what is below.
	tree, err = Browse(context.Background(), plant, "", Bounds{Depth: 9, Nodes: 5})
	if err != nil || len(tree.Children) != 4 || len(tree.Children[0].Children) != 1 || tree.Children[1].More != "more nodes than asked for" {
		t.Errorf("%v\n%s", err, strings.Join(tree.Lines(), "\n"))
	}
	tree, err = Browse(context.Background(), plant, "", Bounds{Depth: 9, Nodes: 2})
	nodes, _ := tree.Count()
	if err != nil || nodes != 2 || !strings.Contains(strings.Join(tree.Lines(), "\n"), "more nodes than asked for") {
		t.Errorf("%v, %d nodes\n%s", err, nodes, strings.Join(tree.Lines(), "\n"))
	}
	if _, err := Browse(context.Background(), plant, "bad", Bounds{Depth: 1, Nodes: 1}); err == nil {
		t.Error("the start cannot be browsed, without an error")
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Browse(ctx, plant, "", Bounds{Depth: 9, Nodes: 9}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func words(w ...uint16) *modbus.Items {
	there := make([]bool, len(w))
	for i := range there {
		there[i] = true
	}
	return &modbus.Items{Table: modbus.Holding, From: 100, Words: w, There: there}
}

func TestRegisterTables(t *testing.T) {
	items := words(0x4366, 0x8000, 12, 0x4365, 0x8000) // 230.5, 12, 229.5
	guesses := modbus.Interpret(items)
	var b bytes.Buffer
	WriteRegisters(&b, 0, modbus.Holding, guesses)
	want := `ADDRESS      NUMBER  HEX   UINT16   INT16  TEXT  FLOAT32 ABCD  CDAB  BADC  DCBA  LIKELY
holding:100  400101  4366   17254   17254  Cf           230.5     ·     ·     ·  float32 = 230.5 (100)
holding:101  400102  8000   32768  -32768  ..               ·     ·     ·     ·  │
holding:102  400103  000c      12      12  ..               ·   229     ·     ·  uint16 = 12 (40)
holding:103  400104  4365   17253   17253  Ce           229.5     ·     ·     ·  float32 = 229.5 (100)
holding:104  400105  8000   32768  -32768  ..                                    │
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	b.Reset()
	WriteDoubles(&b, 0, modbus.Holding, guesses[:1])
	if n := strings.Count(b.String(), "\n"); n != 4 || !strings.Contains(b.String(), "230.5 (100)") {
		t.Errorf("got\n%s", b.String())
	}
	tags := Tags(modbus.Holding, guesses)
	if len(tags) != 3 || tags[1].Address != "holding:102" || tags[2].Type != "float32" {
		t.Errorf("tags %+v", tags)
	}
	bits := &modbus.Items{Table: modbus.Coil, Words: []uint16{1, 0, 1, 1, 0}, There: []bool{true, true, false, true, true}}
	b.Reset()
	WriteBits(&b, 0, bits)
	if b.String() != "ADDRESS  THIS AND THE NEXT\ncoil:0   10-1 0\n" || len(BitTags(bits)) != 4 {
		t.Errorf("got\n%s", b.String())
	}
	b.Reset()
	WriteUnits(&b, 0, []modbus.FoundUnit{{Unit: 3, Answer: "holding:0 = 1", Took: 12 * time.Millisecond}})
	if b.String() != "UNIT   AFTER  ANSWER\n   3  12.0ms  holding:0 = 1\n" {
		t.Errorf("got\n%s", b.String())
	}
}

func TestLoad(t *testing.T) {
	var tags []point.Tag
	for i := range 40 {
		tags = append(tags, point.Tag{Name: fmt.Sprint(i), Address: fmt.Sprintf("holding:%d", 100*i), Class: map[bool]string{true: "slow"}[i%2 == 0]})
	}
	tags = append(tags, point.Tag{Name: "w", Address: "holding:5000", Access: point.WriteOnly})
	line := map[string]any{"transport": "rtu", "port": "/dev/ttyS0", "baud": int64(9600)}
	f := config.Field{
		Class:   "normal",
		Classes: map[string]config.Class{"normal": {Period: strict.Duration(time.Second)}, "slow": {Period: strict.Duration(10 * time.Second)}},
		Devices: []config.Device{{Name: "a", Protocol: "modbus", Settings: line, Tags: tags}, {Name: "s", Protocol: "sim", Tags: tags},
			{Name: "t", Protocol: "modbus", Settings: map[string]any{"address": "h"}, Class: "slow", Tags: tags}},
	}
	links, err := PredictLoad(&f, modbus.LoadOptions{})
	if err != nil || len(links) != 2 || len(links[0].Groups) != 2 || len(links[1].Groups) != 1 || links[0].Groups[0].Requests != 20 {
		t.Fatalf("%v %+v", err, links)
	}
	var b bytes.Buffer
	WriteLoad(&b, 0, links)
	want := `LINK            DEVICE  CLASS   PERIOD  TAGS  REQUESTS  ITEMS  BYTES     TIME  OF PERIOD
rtu /dev/ttyS0  a       normal      1s    20        20     20    300  624.0ms       62 %
                a       slow       10s    20        20     20    300  624.0ms      6.2 %
                all                                                                 69 %
tcp h:502       t       slow       10s    40        40     40    920  200.0ms      2.0 %
`
	if b.String() != want {
		t.Errorf("got\n%s", b.String())
	}
	if w := Warnings(links, true); len(w) != 0 {
		t.Errorf("warnings %v", w)
	}
	slow, err := PredictLoad(&f, modbus.LoadOptions{Answer: 40 * time.Millisecond, RoundTrip: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if w := Warnings(slow, false); len(w) != 1 || !strings.Contains(w[0], "rtu /dev/ttyS0 is busy 135 % of the time: scan classes will not keep their periods") {
		t.Errorf("warnings %v", w)
	}
	if w := Warnings(slow, true); len(w) != 2 {
		t.Errorf("warnings %v", w)
	}
}
