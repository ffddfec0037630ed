package local

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/gpio"
	"holdfast/drivers/gpio/gpiotest"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	"holdfast/drivers/sensor"
	sensors "holdfast/drivers/sensor/all"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/protocoltest"
)

// plant is a board with two lines out, two in, and a bus with two sensors.
type plant struct {
	board  *gpiotest.Board
	bus    *i2ctest.Faulty
	oven   *i2ctest.MCP9808
	opened atomic.Int32 // times the bus was opened
	closed atomic.Int32
	a      *Adapter
}

type closing struct {
	i2c.Bus
	p *plant
}

func (c closing) Close() error {
	c.p.closed.Add(1)
	return nil
}

func newPlant() *plant {
	p := &plant{board: gpiotest.New(nil), oven: i2ctest.NewMCP9808()}
	bus := i2ctest.NewBus("i2c-7")
	p.oven.Set(21.5)
	bus.Put(0x18, p.oven)
	room := i2ctest.NewMCP9808()
	room.Set(-3.25)
	bus.Put(0x19, room)
	p.bus = i2ctest.NewFaulty(bus, 1)
	p.a = New(protocols.Env{Clock: clock.NewReal()}, Options{
		Lines: p.board,
		OpenI2C: func(_ context.Context, name string) (i2c.BusCloser, error) {
			if name != "i2c-7" {
				return nil, fmt.Errorf("%q: %w", name, i2c.ErrGone)
			}
			p.opened.Add(1)
			return closing{p.bus, p}, nil
		},
		CheckSensor: sensors.Check,
		OpenSensor:  sensors.Open,
	})
	p.board.Drive("DOOR", gpio.High)
	p.board.Drive("gpiochip0:4", gpio.High)
	return p
}

func tag(name, address string, access point.Access, params ...string) point.Tag {
	t := point.Tag{Name: name, Address: address, Access: access}
	for _, kv := range params {
		if t.Params == nil {
			t.Params = point.Params{}
		}
		k, v, _ := strings.Cut(kv, "=")
		t.Params[k] = v
	}
	return t
}

func board(tags ...point.Tag) protocols.Device {
	return protocols.Device{Name: "board", Tags: tags, Settings: map[string]any{"sensor": map[string]any{
		"oven": map[string]any{"chip": "mcp9808", "bus": "i2c-7", "address": int64(0x18), "timeout": "500ms"},
		"room": map[string]any{"chip": "mcp9808", "bus": "i2c-7", "address": "0x19", "timeout": "500ms"},
	}}}
}

func everything() protocols.Device {
	return board(
		tag("door", "gpio:DOOR", point.ReadOnly, "debounce=0s"), tag("lamp", "gpio:LAMP", point.ReadWrite),
		tag("pump", "gpio:/dev/gpiochip0:5", point.ReadWrite, "initial=high", "active_low=true"),
		tag("low", "gpio:gpiochip0:4", point.ReadOnly, "active_low=true", "bias=pull-up"),
		tag("flow", "count:FLOW", point.ReadOnly, "edges=both"),
		tag("oven", "oven/temperature", point.ReadOnly), tag("room", "room/temperature", point.ReadOnly),
	)
}

var allLines = []string{"DOOR", "LAMP", "gpiochip0:5", "gpiochip0:4", "FLOW"}

func (p *plant) fault(k i2ctest.Kind, err error, hang bool) {
	p.bus.Set(i2ctest.Fault{Kind: k})
	for _, l := range allLines {
		p.board.Fail(l, err)
		p.board.Hang(l, hang)
	}
}

func TestConformance(t *testing.T) {
	protocoltest.Run(t, func(t *testing.T) protocoltest.Harness {
		p := newPlant()
		d := everything()
		// The counter cannot be made silent: it asks the kernel for a number that is there.
		d.Tags = append(d.Tags[:4:4], d.Tags[5:]...)
		sensorOf := func(table map[string]any) protocols.Device {
			return protocols.Device{Name: "x", Settings: map[string]any{"sensor": map[string]any{"s": table}}}
		}
		one := func(tg point.Tag) protocols.Device { return board(tg) }
		typed := tag("x", "gpio:X", point.ReadOnly)
		typed.Type = "word"
		return protocoltest.Harness{
			Adapter: p.a, Device: d,
			Refused: map[string]protocols.Device{
				"want gpio:LINE":           one(tag("x", "DOOR", point.ReadOnly)),
				"want gpiochipN":           one(tag("x", "gpio:gpiochip0:", point.ReadOnly)),
				`no sensor "over"`:         one(tag("x", "over/temperature", point.ReadOnly)),
				"is used by tag":           board(tag("x", "gpio:gpiochip0:1", point.ReadWrite), tag("y", "count:/dev/gpiochip0:1", point.ReadOnly)),
				"must be the same":         board(tag("x", "gpio:X", point.ReadOnly, "debounce=5ms"), tag("y", "count:X", point.ReadOnly)),
				"the edges must":           board(tag("x", "count:X", point.ReadOnly, "edges=both"), tag("y", "freq:X", point.ReadOnly)),
				"window and":               board(tag("x", "freq:X", point.ReadOnly, "window=2s"), tag("y", "freq:X", point.ReadOnly)),
				"want 1ms to":              one(tag("x", "freq:X", point.ReadOnly, "window=0s")),
				`no key "window"`:          one(tag("x", "count:X", point.ReadOnly, "window=1s")),
				"no SPI here":              sensorOf(map[string]any{"chip": "mcp9808", "bus": "spi:0.0"}),
				"no w1 here":               sensorOf(map[string]any{"chip": "mcp9808", "bus": "w1"}),
				"cannot be written":        one(tag("x", "oven/temperature", point.ReadWrite)),
				"count:X":                  one(tag("x", "count:X", point.WriteOnly)),
				`no key "debonce"`:         one(tag("x", "gpio:X", point.ReadOnly, "debonce=1s")),
				`no key "initial"`:         one(tag("x", "gpio:X", point.ReadOnly, "initial=high")),
				`"debounce": "5"`:          one(tag("x", "gpio:X", point.ReadOnly, "debounce=5")),
				"want 0s to":               one(tag("x", "gpio:X", point.ReadOnly, "debounce=2m")),
				"pull-sideways":            one(tag("x", "gpio:X", point.ReadOnly, "bias=pull-sideways")),
				`type "word"`:              one(typed),
				`sensor chip "x": unknown`: sensorOf(map[string]any{"chip": "x", "bus": "i2c-7"}),
				`"bus" is missing`:         sensorOf(map[string]any{"chip": "mcp9808"}),
				"resolutoin":               sensorOf(map[string]any{"chip": "mcp9808", "bus": "i2c-7", "resolutoin": "1"}),
				"address":                  sensorOf(map[string]any{"chip": "mcp9808", "bus": "i2c-7", "address": "high"}),
				"want a table":             {Name: "x", Settings: map[string]any{"sensor": map[string]any{"s": 3}}},
				"for each sensor":          {Name: "x", Settings: map[string]any{"sensor": 3}},
				`unknown key "bus"`:        {Name: "x", Settings: map[string]any{"bus": "i2c-7"}},
			},
			Writes: []protocols.Write{
				{Tag: d.Tags[1], Value: point.BoolValue(true)}, {Tag: d.Tags[2], Value: point.IntValue(0)},
				{Tag: d.Tags[1], Value: point.BoolValue(false)}, {Tag: d.Tags[1], Value: point.IntValue(1)},
			},
			BadWrites: []protocols.Write{
				{Tag: d.Tags[0], Value: point.BoolValue(true)}, {Tag: d.Tags[4], Value: point.FloatValue(1)},
				{Tag: d.Tags[1], Value: point.IntValue(2)}, {Tag: d.Tags[1], Value: point.StringValue("on")},
			},
			Gone:   func() { p.fault(i2ctest.Gone, gpio.ErrGone, false) },
			Silent: func() { p.fault(i2ctest.Hang, nil, true) },
			Back:   func() { p.fault(i2ctest.None, nil, false) },
		}
	})
}

// open opens a device and returns a function that reads it once.
func (p *plant) open(t *testing.T, d protocols.Device) (protocols.Session, func(timeout time.Duration) map[string]string) {
	t.Helper()
	s, err := p.a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(); _ = p.a.Close() })
	g, err := s.Group(d.Tags)
	if err != nil {
		t.Fatal(err)
	}
	return s, func(timeout time.Duration) map[string]string {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		out := make([]point.Sample, len(d.Tags))
		g.Read(ctx, out)
		got := map[string]string{}
		for i, s := range out {
			got[d.Tags[i].Name] = s.Value.String()
			if s.Quality != point.Good {
				got[d.Tags[i].Name] = s.Quality.String()
			}
		}
		return got
	}
}

func TestValues(t *testing.T) {
	p := newPlant()
	d := everything()
	d.Tags[0].Type = "int"
	d.Tags = append(d.Tags, tag("wrong", "oven/humidity", point.ReadOnly))
	s, read := p.open(t, d)
	want := map[string]string{
		"door": "1", "lamp": "false", "pump": "true", "low": "false", "flow": "0", "oven": "21.5", "room": "-3.25",
		"wrong": "BadConfigurationError",
	}
	if got := read(30 * time.Second); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", got, want)
	}
	if p.board.At("gpiochip0:5") != gpio.Low {
		t.Error("an active-low output that is initially high must have a low voltage")
	}
	for i, err := range s.(protocols.Writer).Write(context.Background(), []protocols.Write{
		{Tag: d.Tags[1], Value: point.BoolValue(true)}, {Tag: d.Tags[2], Value: point.BoolValue(false)},
	}) {
		if err != nil {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if p.board.At("LAMP") != gpio.High || p.board.At("gpiochip0:5") != gpio.High {
		t.Error("the outputs were not driven")
	}
	p.board.Pulse("FLOW", 3)
	p.oven.Set(100)
	for end := time.Now().Add(30 * time.Second); ; {
		got := read(30 * time.Second)
		if got["flow"] == "6" && got["oven"] == "100.0" && got["lamp"] == "true" && got["pump"] == "false" {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%v", got)
		}
	}
	if n := p.opened.Load(); n != 1 {
		t.Errorf("the bus was opened %d times for two sensors", n)
	}
}

// TestDeadOnesDoNotSlowTheOthers: one sensor hangs, one line hangs, the rest is
// there in the same read.
func TestDeadOnesDoNotSlowTheOthers(t *testing.T) {
	p := newPlant()
	_, read := p.open(t, everything())
	read(30 * time.Second)
	p.bus.Set(i2ctest.Fault{Kind: i2ctest.Hang, Addr: 0x18})
	p.board.Hang("DOOR", true)
	for i := range 4 {
		started := time.Now()
		got := read(3 * time.Second)
		if took := time.Since(started); i > 0 && took > 2*time.Second {
			t.Errorf("read %d still waits for the dead: %s", i, took)
		}
		if got["room"] != "-3.25" || got["low"] != "false" || got["lamp"] != "false" {
			t.Errorf("the living: %v", got)
		}
		if got["door"] != "BadTimeout" || got["oven"] != "BadTimeout" {
			t.Errorf("the dead: %v", got)
		}
	}
	p.bus.Clear()
	p.board.Hang("DOOR", false)
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if got := read(30 * time.Second); got["oven"] == "21.5" && got["door"] == "true" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("after: %v", got)
		}
	}
}

// TestCounterGoesOnOverReopening: a chip that was pulled and plugged again does
// not set the tag back.
func TestCounterGoesOnOverReopening(t *testing.T) {
	p := newPlant()
	_, read := p.open(t, board(tag("flow", "count:FLOW", point.ReadOnly)))
	read(time.Second)
	p.board.Pulse("FLOW", 5)
	if got := read(time.Second); got["flow"] != "5" {
		t.Fatalf("%v", got)
	}
	p.board.Fail("FLOW", gpio.ErrGone)
	for end := time.Now().Add(30 * time.Second); read(time.Second)["flow"] != "BadNoCommunication"; {
		if time.Now().After(end) {
			t.Skip("this board counts on although the chip is gone")
		}
	}
	p.board.Fail("FLOW", nil)
	for end := time.Now().Add(30 * time.Second); read(time.Second)["flow"] != "5"; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%v", read(time.Second))
		}
	}
	p.board.Pulse("FLOW", 2)
	if got := read(time.Second); got["flow"] != "7" {
		t.Errorf("%v", got)
	}
}

// TestBusIsReopened: after an adapter was pulled, bus and sensors are opened anew.
func TestBusIsReopened(t *testing.T) {
	p := newPlant()
	s, read := p.open(t, everything())
	read(30 * time.Second)
	p.bus.Set(i2ctest.Fault{Kind: i2ctest.Gone})
	if got := read(30 * time.Second); got["oven"] != "BadNoCommunication" || got["room"] != "BadNoCommunication" {
		t.Errorf("gone: %v", got)
	}
	p.bus.Clear()
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if got := read(30 * time.Second); got["oven"] == "21.5" && got["room"] == "-3.25" {
			break
		} else if time.Now().After(end) {
			t.Fatalf("back: %v", got)
		}
	}
	if p.opened.Load() < 2 || p.closed.Load() != p.opened.Load()-1 {
		t.Errorf("opened %d times, closed %d times", p.opened.Load(), p.closed.Load())
	}
	_ = s.Close()
	_ = p.a.Close()
	if p.closed.Load() != p.opened.Load() {
		t.Errorf("opened %d times, closed %d times", p.opened.Load(), p.closed.Load())
	}
}

// TestAnotherConfigurationReopensTheLine: bias and the like are given when a line
// is opened, so a change needs that.
func TestAnotherConfigurationReopensTheLine(t *testing.T) {
	p := newPlant()
	before := board(tag("door", "gpio:DOOR", point.ReadOnly))
	s, read := p.open(t, before)
	if got := read(time.Second); got["door"] != "true" {
		t.Fatalf("%v", got)
	}
	after := tag("door", "gpio:DOOR", point.ReadOnly, "active_low=true")
	g, err := s.Group([]point.Tag{after})
	if err != nil {
		t.Fatal(err)
	}
	out := make([]point.Sample, 1)
	g.Read(context.Background(), out)
	if out[0].Quality != point.Good || out[0].Value.Bool() {
		t.Errorf("%+v", out[0])
	}
	if got := read(time.Second); got["door"] != "BadConnectionClosed" {
		t.Errorf("the group of the old configuration: %v", got)
	}
}

func TestNothingHere(t *testing.T) {
	a := New(protocols.Env{Clock: clock.NewReal()}, Options{})
	err := a.Check(everything())
	if err == nil || !strings.Contains(err.Error(), "no lines here") || !strings.Contains(err.Error(), "no I2C here") {
		t.Errorf("%v", err)
	}
}

func TestQualityOf(t *testing.T) {
	for err, want := range map[error]point.Quality{
		fmt.Errorf("x: %w", i2c.ErrNACK):        point.BadNoCommunication,
		fmt.Errorf("x: %w", sensor.ErrIdentity): point.BadConfigurationError,
		fmt.Errorf("x: %w", gpio.ErrBusy):       point.BadResourceUnavailable,
		context.DeadlineExceeded:                point.BadTimeout,
		errors.New("other"):                     point.BadDeviceFailure,
	} {
		if got := qualityOf(err); got != want {
			t.Errorf("%v is %s, want %s", err, got, want)
		}
	}
}
