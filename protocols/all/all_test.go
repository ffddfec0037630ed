package all

import (
	"slices"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/poll"
)

func TestTable(t *testing.T) {
	adapters := New(protocols.Env{Clock: clocktest.New(time.Time{})}, Host{})
	if len(adapters) != len(Names()) || !slices.Contains(Names(), "modbus") {
		t.Errorf("%d adapters, names %q", len(adapters), Names())
	}
	for _, name := range Names() {
		a := adapters[name]
		if a == nil {
			t.Fatalf("%s: no adapter", name)
		}
		// Every adapter refuses a key that it does not know, and says which.
		err := a.Check(protocols.Device{Name: "d", Protocol: name, Settings: map[string]any{"no_such_key": int64(1)}})
		if err == nil {
			t.Errorf("%s: accepts an unknown key", name)
		}
		if err := a.Close(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCheckWithoutHardware: what the machine does not have is told when the
// configuration is checked.
func TestCheckWithoutHardware(t *testing.T) {
	clk := clocktest.New(time.Time{})
	p := poll.New(New(protocols.Env{Clock: clk}, Host{}), nil, poll.Options{Clock: clk})
	classes := map[string]poll.Class{"c": {Period: time.Second}}
	bad := poll.Device{Name: "b", Protocol: "local", Class: "c", Classes: classes, Tags: []point.Tag{{Name: "x", Address: "gpio:DOOR"}}}
	if err := p.Check([]poll.Device{bad}); err == nil {
		t.Error("accepted a line where there are none")
	}
	good := poll.Device{Name: "s", Protocol: "sim", Class: "c", Classes: classes, Tags: []point.Tag{{Name: "x", Address: "sine"}}}
	if err := p.Check([]poll.Device{good}); err != nil {
		t.Error(err)
	}
}
