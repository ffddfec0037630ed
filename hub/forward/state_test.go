package forward

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/hub"
	"holdfast/hub/journal"
)

func sampleState() []laneState {
	return []laneState{
		{mask: 1, main: position{next: 5}},
		{
			mask: 0x3fe, main: position{next: 1000, holes: []hole{{off: 1}, {off: 7}, {off: 999, gap: true}}},
			detours: []detourState{
				{"line 1", position{next: 90, holes: []hole{{off: 3}}}},
				{gapSender, position{next: 900}},
			},
		},
	}
}

func TestStateThereAndBack(t *testing.T) {
	b := appendState(nil, 77, sampleState())
	epoch, lanes, err := parseState(b)
	if err != nil || epoch != 77 || !reflect.DeepEqual(lanes, sampleState()) {
		t.Errorf("epoch %d, %+v, %v", epoch, lanes, err)
	}
	for n := range b {
		if _, _, err := parseState(b[:n]); err == nil {
			t.Errorf("the first %d of %d bytes are a state", n, len(b))
		}
	}
	if _, _, err := parseState(append(b, 0)); err == nil {
		t.Error("a byte too many is a state")
	}
	// The bytes outlive the program.
	want := "\x01\x4d\x02" + "\x01\x05\x00\x00" + "\xfe\x07\xe8\x07\x03\x02\x0c\xc1\x0f\x02" + "\x06line 1\x5a\x01\x06" + "\x04\x00gap\x84\x07\x00"
	if string(b) != want {
		t.Errorf("got  % x\nwant % x", b, want)
	}
}

func FuzzParseState(f *testing.F) {
	f.Add(appendState(nil, 77, sampleState()))
	f.Add([]byte("\x01\x00\x01\x01\x05\x02\x02\x02\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		epoch, lanes, err := parseState(b)
		if err != nil {
			return
		}
		for i := range lanes {
			if lanes[i].low() > lanes[i].main.next {
				t.Errorf("low %d is above next %d", lanes[i].low(), lanes[i].main.next)
			}
		}
		epoch2, again, err := parseState(appendState(nil, epoch, lanes))
		if err != nil || epoch2 != epoch || !reflect.DeepEqual(again, lanes) {
			t.Errorf("%+v becomes %+v, %v", lanes, again, err)
		}
	})
}

func FuzzParseDeadLetter(f *testing.F) {
	f.Add(sampleLetter().Append(nil))
	f.Add([]byte{deadLetterKind})
	f.Fuzz(func(t *testing.T, b []byte) {
		var d, again DeadLetter
		if d.Parse(b) != nil {
			return
		}
		if err := again.Parse(d.Append(nil)); err != nil || !reflect.DeepEqual(d, again) {
			t.Errorf("%+v becomes %+v, %v", d, again, err)
		}
	})
}

func sampleLetter() *DeadLetter {
	return &DeadLetter{
		Endpoint: "$upstream", Time: time.UnixMicro(1_700_000_000_000_001).UTC(), Reason: "payload format invalid",
		Epoch: 3, Offset: 4, Attempt: 5,
		Record: hub.Record{QoS: 1, Sender: []byte("s"), Topic: []byte("t"), Props: []byte{}, Payload: []byte("p"), Targets: hub.Targets(nil).Append("$upstream", 1, 0)},
	}
}

func TestDeadLetterThereAndBack(t *testing.T) {
	d := sampleLetter()
	b := d.Append(nil)
	var got DeadLetter
	if err := got.Parse(b); err != nil || !reflect.DeepEqual(&got, d) {
		t.Errorf("%+v, %v", got, err)
	}
	for n := range b {
		if got.Parse(b[:n]) == nil {
			t.Errorf("the first %d of %d bytes are a dead letter", n, len(b))
		}
	}
	if got.Parse(d.Record.Append(nil)) == nil {
		t.Error("a message is a dead letter")
	}
	d.Endpoint, d.Reason = strings.Repeat("e", 300), strings.Repeat("r", 70_000)
	if err := got.Parse(d.Append(nil)); err != nil || len(got.Endpoint) != 255 || len(got.Reason) != 65535 {
		t.Errorf("%d, %d, %v", len(got.Endpoint), len(got.Reason), err)
	}
}

func TestLaneMasks(t *testing.T) {
	for _, c := range []struct {
		in      []uint8
		masks   []uint16
		classes []journal.Classes
	}{
		{nil, []uint16{0x3ff}, []journal.Classes{0x3ff}},
		{[]uint8{5}, []uint16{0x3ff}, []journal.Classes{0x3ff}},
		{[]uint8{5, 0, 5}, []uint16{0x001, 0x3fe}, []journal.Classes{0x001, 0x3ff}},
		{[]uint8{2, 9}, []uint16{0x007, 0x3f8}, []journal.Classes{0x007, 0x3ff}},
	} {
		masks := laneMasks(c.in)
		var classes []journal.Classes
		for _, m := range masks {
			classes = append(classes, classesFor(m))
		}
		if !reflect.DeepEqual(masks, c.masks) || !reflect.DeepEqual(classes, c.classes) {
			t.Errorf("priorities %v: masks %x, classes %x", c.in, masks, classes)
		}
	}
}

func TestMerged(t *testing.T) {
	old := sampleState()
	for _, c := range []struct {
		name string
		mask uint16
		want laneState
	}{
		{"the same lane", 0x3fe, old[1]},
		{"part of a lane", 0x00e, laneState{mask: 0x00e, main: old[1].main, detours: old[1].detours}},
		{"two lanes in one", 0x3ff, laneState{mask: 0x3ff, main: position{next: 1}}},
	} {
		if got := merged(c.mask, old, 4242); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
	if got := merged(0x001, nil, 4242); got.main.next != 4242 {
		t.Errorf("nothing saved: %+v", got)
	}
}
