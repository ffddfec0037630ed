package gpiochip

import (
	"context"
	"encoding/binary"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"

	"holdfast/drivers/gpio"
)

const patience = 20 * time.Second

// board is a kernel with two chips. The descriptor of a line is the reading end
// of a pipe, into which the test writes events as the kernel has them.
type board struct {
	list     []chip
	refuse   error // of request
	requests []uapi.LineRequest
	chipOf   []string
	pipe     *os.File // the writing end of the last request

	mu    sync.Mutex
	level gpio.Level
	err   error         // of values and set
	hang  chan struct{} // values and set wait for it
}

func newBoard() *board {
	return &board{list: []chip{
		{name: "gpiochip0", lines: []lineInfo{{}, {name: "DOOR"}, {name: "TWICE"}, {name: "BUSY", consumer: "rain-gauge"}}},
		{name: "gpiochip1", lines: []lineInfo{{name: "TWICE"}, {name: "RAIN"}}},
	}}
}

func (b *board) chips() ([]chip, error) { return b.list, nil }

func (b *board) request(chip string, r *uapi.LineRequest) (*os.File, error) {
	if b.refuse != nil {
		return nil, b.refuse
	}
	reader, writer, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	b.requests, b.chipOf, b.pipe = append(b.requests, *r), append(b.chipOf, chip), writer
	return reader, nil
}

func (b *board) access() error {
	b.mu.Lock()
	hang, err := b.hang, b.err
	b.mu.Unlock()
	if hang != nil {
		<-hang
	}
	return err
}

func (b *board) values(*os.File) (gpio.Level, error) {
	err := b.access()
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.level, err
}

func (b *board) set(_ *os.File, l gpio.Level) error {
	err := b.access()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.level = l
	return err
}

// send writes events as struct gpio_v2_line_event.
func (b *board) send(t *testing.T, events ...[3]uint64) {
	t.Helper()
	var raw []byte
	for _, e := range events {
		one := make([]byte, eventSize)
		binary.NativeEndian.PutUint64(one, e[0])
		binary.NativeEndian.PutUint32(one[8:], uint32(e[1]))
		binary.NativeEndian.PutUint32(one[16:], uint32(e[2])) // seqno
		binary.NativeEndian.PutUint32(one[20:], uint32(e[2])) // line_seqno
		raw = append(raw, one...)
	}
	if _, err := b.pipe.Write(raw); err != nil {
		t.Fatal(err)
	}
}

// host returns the GPIO of the board, an hour after it was switched on.
func (b *board) host(o Options) *Host {
	h := New(o)
	h.kernel = b
	h.uptime = func() (time.Duration, error) { return time.Hour, nil }
	h.now = func() time.Time { return time.Unix(1_000_000, 0) }
	return h
}

func (b *board) edges(t *testing.T, c gpio.EdgeConfig) gpio.EdgeInput {
	t.Helper()
	e, err := b.host(Options{}).Edges(t.Context(), "DOOR", c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close(); b.pipe.Close() })
	return e
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

const rising, falling = uint64(uapi.LineEventRisingEdge), uint64(uapi.LineEventFallingEdge)

func TestFind(t *testing.T) {
	tests := []struct {
		name, chip string
		offset     uint32
		want       string // part of the error
	}{
		{"DOOR", "gpiochip0", 1, ""},
		{"RAIN", "gpiochip1", 1, ""},
		{"gpiochip0:2", "gpiochip0", 2, ""},
		{"/dev/gpiochip1:0", "gpiochip1", 0, ""},
		{"TWICE", "", 0, "name one of gpiochip0:2, gpiochip1:0"},
		{"WINDOW", "", 0, "no such line: there are DOOR, TWICE, BUSY, RAIN"},
		{"gpiochip0:4", "", 0, "gpiochip0 has lines 0 to 3"},
		{"gpiochip7:0", "", 0, "chips are gpiochip0, gpiochip1"},
		{"gpiochip0", "", 0, "offset missing"},
	}
	for _, tt := range tests {
		b := newBoard()
		in, err := b.host(Options{}).Input(t.Context(), tt.name, gpio.InputConfig{})
		if tt.want != "" {
			if in != nil || err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), tt.name) {
				t.Errorf("%s: %v, %v; want %q", tt.name, in, err, tt.want)
			}
			continue
		}
		if err != nil || b.chipOf[0] != tt.chip || b.requests[0].Offsets[0] != tt.offset {
			t.Errorf("%s: %v, opened %v %v", tt.name, err, b.chipOf, b.requests)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	open := func(b *board, line string) error {
		_, err := b.host(Options{}).Input(t.Context(), line, gpio.InputConfig{})
		return err
	}
	if err := open(&board{}, "DOOR"); !errors.Is(err, gpio.ErrNoLine) || !strings.Contains(err.Error(), "no gpio chips") {
		t.Errorf("no chips: %v", err)
	}
	b := newBoard()
	b.refuse = unix.EBUSY
	if err := open(b, "BUSY"); !errors.Is(err, gpio.ErrBusy) || !strings.Contains(err.Error(), `by "rain-gauge"`) {
		t.Errorf("busy: %v", err)
	}
	b = &board{list: []chip{{name: "gpiochip0", err: fs.ErrPermission}}}
	for _, line := range []string{"DOOR", "gpiochip0:1"} {
		if err := open(b, line); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "add the user to the group") {
			t.Errorf("%s without permission: %v", line, err)
		}
	}
	b = newBoard()
	b.refuse = unix.ENXIO
	if _, err := b.host(Options{}).Edges(t.Context(), "DOOR", gpio.EdgeConfig{}); err == nil || !strings.Contains(err.Error(), "no interrupt for edges") {
		t.Errorf("no interrupt: %v", err)
	}
	// The real kernel of this machine, whether it has chips or not.
	if _, err := New(Options{}).Input(t.Context(), "gpiochip999:0", gpio.InputConfig{}); err == nil || !strings.Contains(err.Error(), "gpiochip999:0") {
		t.Errorf("the real thing: %v", err)
	}
}

func TestRequests(t *testing.T) {
	b := newBoard()
	h := b.host(Options{Consumer: strings.Repeat("x", 50)})
	h.Input(t.Context(), "DOOR", gpio.InputConfig{ActiveLow: true, Bias: gpio.BiasPullUp, Debounce: 1500 * time.Microsecond})
	h.Edges(t.Context(), "DOOR", gpio.EdgeConfig{Edges: gpio.Falling, Queue: 100})
	h.Edges(t.Context(), "DOOR", gpio.EdgeConfig{InputConfig: gpio.InputConfig{Debounce: 1}})
	h.Output(t.Context(), "DOOR", gpio.OutputConfig{Drive: gpio.OpenDrain, Initial: gpio.High})
	h.Output(t.Context(), "DOOR", gpio.OutputConfig{})
	if len(b.requests) != 5 {
		t.Fatalf("%d requests", len(b.requests))
	}
	want := []struct {
		flags uapi.LineFlagV2
		attr  uapi.LineAttributeID
		value uint64
		queue uint32
	}{
		{uapi.LineFlagV2Input | uapi.LineFlagV2ActiveLow | uapi.LineFlagV2BiasPullUp, uapi.LineAttributeIDDebounce, 1500, 0},
		{uapi.LineFlagV2Input | uapi.LineFlagV2EdgeFalling, 0, 0, 100},
		{uapi.LineFlagV2Input | uapi.LineFlagV2EdgeRising | uapi.LineFlagV2EdgeFalling, uapi.LineAttributeIDDebounce, 1, 256},
		{uapi.LineFlagV2Output | uapi.LineFlagV2OpenDrain, uapi.LineAttributeIDOutputValues, 1, 0},
		{uapi.LineFlagV2Output, uapi.LineAttributeIDOutputValues, 0, 0},
	}
	for i, r := range b.requests {
		w := want[i]
		got := r.Config.Attrs[0]
		if r.Config.Flags != w.flags || got.Attr.ID != w.attr || got.Attr.Value64() != w.value || r.EventBufferSize != w.queue || r.Lines != 1 {
			t.Errorf("request %d: flags 0x%x, attribute %+v, queue %d; want %+v", i, r.Config.Flags, got, r.EventBufferSize, w)
		}
		if w.attr != 0 && got.Mask != 1 {
			t.Errorf("request %d: attribute is for lines 0x%x", i, got.Mask)
		}
		if r.Consumer[31] != 0 {
			t.Error("the consumer's name is not terminated")
		}
	}
	for name, err := range map[string]error{
		"debounce": func() error {
			_, err := h.Input(t.Context(), "DOOR", gpio.InputConfig{Debounce: -1})
			return err
		}(),
		"queue": func() error { _, err := h.Edges(t.Context(), "DOOR", gpio.EdgeConfig{Queue: 1025}); return err }(),
		"drive": func() error { _, err := h.Output(t.Context(), "DOOR", gpio.OutputConfig{Drive: 9}); return err }(),
	} {
		if err == nil || len(b.requests) != 5 {
			t.Errorf("a bad %s was accepted", name)
		}
	}
}

func TestReadAndSet(t *testing.T) {
	b := newBoard()
	out, err := b.host(Options{}).Output(t.Context(), "DOOR", gpio.OutputConfig{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []gpio.Level{gpio.High, gpio.Low} {
		if err := out.Set(t.Context(), want); err != nil {
			t.Fatal(err)
		}
		if got, err := out.Read(t.Context()); got != want || err != nil {
			t.Errorf("Read = %v, %v, want %v", got, err, want)
		}
	}
	b.err = unix.ENODEV
	if _, err := out.Read(t.Context()); !errors.Is(err, gpio.ErrGone) {
		t.Errorf("Read of a removed chip = %v", err)
	}
	if err := out.Set(t.Context(), gpio.High); !errors.Is(err, gpio.ErrGone) || !strings.Contains(err.Error(), "gpio line DOOR: set high") {
		t.Errorf("Set on a removed chip = %v", err)
	}
	if err := out.Close(); err != nil {
		t.Error(err)
	}
	if _, err := out.Read(t.Context()); !errors.Is(err, gpio.ErrClosed) {
		t.Errorf("Read after Close = %v", err)
	}
	if err := out.Close(); !errors.Is(err, gpio.ErrClosed) {
		t.Errorf("second Close = %v", err)
	}
}

// A line behind an expander on a hung bus must not take its reader along.
func TestHungLine(t *testing.T) {
	b := newBoard()
	b.hang = make(chan struct{})
	in, err := b.host(Options{Timeout: 10 * time.Millisecond}).Input(t.Context(), "DOOR", gpio.InputConfig{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Read(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
	if _, err := in.Read(t.Context()); !errors.Is(err, gpio.ErrStuck) {
		t.Errorf("second Read = %v", err)
	}
	close(b.hang)
	for ctx := soon(t); ; {
		if _, err := in.Read(ctx); err == nil {
			break
		} else if !errors.Is(err, gpio.ErrStuck) && !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			t.Fatalf("the line did not recover: %v", err)
		}
	}
}

func TestEvents(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{})
	hour := uint64(time.Hour)
	b.send(t, [3]uint64{hour - 2e9, rising, 1}, [3]uint64{hour - 5e8, falling, 2}, [3]uint64{hour, rising, 6})
	want := []gpio.Event{
		{Edge: gpio.Rising, Stamp: time.Hour - 2*time.Second, Time: time.Unix(999_998, 0)},
		{Edge: gpio.Falling, Stamp: time.Hour - 500*time.Millisecond, Time: time.Unix(999_999, 5e8)},
		{Edge: gpio.Rising, Stamp: time.Hour, Time: time.Unix(1_000_000, 0), Lost: 3},
	}
	for i, w := range want {
		got, err := e.Next(soon(t))
		if err != nil || got.Edge != w.Edge || got.Stamp != w.Stamp || !got.Time.Equal(w.Time) || got.Lost != w.Lost {
			t.Errorf("event %d = %+v, %v; want %+v", i, got, err, w)
		}
	}
	if c, err := e.Counts(); err != nil || c != (gpio.Counts{Rising: 2, Falling: 1, Lost: 3}) || c.Total() != 6 {
		t.Errorf("Counts = %+v, %v", c, err)
	}
}

// On a line that watches one direction, the kernel's numbers make the count exact
// even when most edges were dropped.
func TestCountsAreExact(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{Edges: gpio.Rising})
	b.send(t, [3]uint64{1, rising, 90}, [3]uint64{2, rising, 91}, [3]uint64{3, rising, 100})
	if c, err := e.Counts(); err != nil || c != (gpio.Counts{Rising: 100}) {
		t.Errorf("Counts = %+v, %v; want 100 rising", c, err)
	}
	// The number of the kernel wraps after 2^32 edges.
	e.(*edges).last = 0xFFFFFFFE
	b.send(t, [3]uint64{4, rising, 0xFFFFFFFF}, [3]uint64{5, rising, 1})
	if c, err := e.Counts(); err != nil || c.Rising != 103 {
		t.Errorf("Counts over the wrap = %+v, %v; want 103", c, err)
	}
	for i := range 5 {
		if _, err := e.Next(soon(t)); err != nil {
			t.Errorf("Counts took event %d from Next: %v", i, err)
		}
	}
}

func TestQueueDropsTheOldest(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{Queue: 3})
	for seq := range uint64(10) {
		b.send(t, [3]uint64{seq + 1, rising + seq%2, seq + 1})
	}
	if c, _ := e.Counts(); c != (gpio.Counts{Rising: 5, Falling: 5}) {
		t.Errorf("Counts = %+v", c)
	}
	for i, want := range []gpio.Event{{Stamp: 8, Lost: 7}, {Stamp: 9}, {Stamp: 10}} {
		if got, err := e.Next(soon(t)); err != nil || got.Stamp != want.Stamp || got.Lost != want.Lost {
			t.Errorf("event %d = %+v, %v; want stamp %d, lost %d", i, got, err, want.Stamp, want.Lost)
		}
	}
	b = newBoard()
	e = b.edges(t, gpio.EdgeConfig{Queue: 1})
	b.send(t, [3]uint64{1, rising, 1}, [3]uint64{2, falling, 2}, [3]uint64{3, rising, 5})
	if got, err := e.Next(soon(t)); err != nil || got.Stamp != 3 || got.Lost != 4 {
		t.Errorf("a queue of one: %+v, %v; want the last event, 4 lost", got, err)
	}
}

func TestNextHonoursTheContext(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{})
	for range 200 { // also: an ended wait must not spoil the next one
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Microsecond)
		if _, err := e.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Next = %v", err)
		}
		cancel()
	}
	b.send(t, [3]uint64{7, rising, 1})
	if ev, err := e.Next(soon(t)); err != nil || ev.Stamp != 7 {
		t.Errorf("Next = %+v, %v", ev, err)
	}
}

// Counts may take edges off the kernel's hands while Next waits for them.
func TestCountsWakesNext(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{Queue: 1024})
	const edges = 1000 // no more than the queue holds, however slow Next is
	done := make(chan struct{})
	go func() {
		defer close(done)
		for want := range uint64(edges) {
			ev, err := e.Next(soon(t))
			if err != nil || uint64(ev.Stamp) != want+1 {
				t.Errorf("edge %d: %+v, %v", want+1, ev, err)
				return
			}
		}
	}()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if _, err := e.Counts(); err != nil {
						t.Error(err)
						return
					}
				}
			}
		})
	}
	for seq := range uint64(edges) {
		b.send(t, [3]uint64{seq + 1, rising + seq%2, seq + 1})
		if seq%100 == 0 {
			time.Sleep(time.Millisecond) // let Next fall asleep
		}
	}
	select {
	case <-done:
	case <-time.After(patience):
		t.Error("Next slept through an edge")
	}
	close(stop)
	wg.Wait()
	if c, err := e.Counts(); err != nil || c.Total() != edges || c.Lost != 0 {
		t.Errorf("Counts = %+v, %v", c, err)
	}
}

func TestCloseWakesNext(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{})
	got := make(chan error, 1)
	go func() { _, err := e.Next(context.Background()); got <- err }()
	time.Sleep(2 * time.Millisecond) // most likely waiting by now; correct either way
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	select {
	case err := <-got:
		if !errors.Is(err, gpio.ErrClosed) {
			t.Errorf("Next = %v, want ErrClosed", err)
		}
	case <-time.After(patience):
		t.Fatal("Close did not wake Next")
	}
	if _, err := e.Counts(); !errors.Is(err, gpio.ErrClosed) {
		t.Errorf("Counts after Close = %v", err)
	}
}

func TestBrokenEvents(t *testing.T) {
	b := newBoard()
	e := b.edges(t, gpio.EdgeConfig{})
	b.pipe.Write(make([]byte, eventSize-1))
	if _, err := e.Next(soon(t)); err == nil || !strings.Contains(err.Error(), "47 bytes") {
		t.Errorf("Next with half an event = %v", err)
	}
}

// The size and the places of struct gpio_v2_line_event, against go-gpiocdev's
// definition.
func TestEventLayout(t *testing.T) {
	le := uapi.LineEvent{Timestamp: 0x1122334455667788, ID: uapi.LineEventFallingEdge, Offset: 3, Seqno: 4, LineSeqno: 5}
	raw, err := binary.Append(nil, binary.NativeEndian, le)
	if err != nil || len(raw) != eventSize {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	if stamp, id, seq := parseEvent(raw); stamp != 0x1122334455667788 || id != uint32(uapi.LineEventFallingEdge) || seq != 5 {
		t.Errorf("parsed %x, %d, %d", stamp, id, seq)
	}
}
