package local

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2ctest"
	sensors "holdfast/drivers/sensor/all"
	"holdfast/drivers/spi"
	"holdfast/drivers/spi/spitest"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// machine is one with a chip on each kind of bus.
type machine struct {
	bus      *i2ctest.Faulty
	expander *i2ctest.MCP23017
	furnace  *spitest.MAX31865
	files    fstest.MapFS
	a        *Adapter

	mu    sync.Mutex
	asked []string // names of buses that were opened
}

func (m *machine) ask(what string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.asked = append(m.asked, what)
}

type noClose struct{ i2c.Bus }

func (noClose) Close() error { return nil }

type spiConn struct{ spi.Conn }

func (spiConn) Close() error { return nil }

func newMachine(t *testing.T) *machine {
	bus := i2ctest.NewBus("i2c-test")
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	m := &machine{
		bus: i2ctest.NewFaulty(bus, 1), expander: i2ctest.NewMCP23017(), furnace: spitest.NewMAX31865(430),
		files: fstest.MapFS{
			"28-000004a1c1e6/w1_slave":        file("79 01 4b 46 7f ff 07 10 0a : crc=0a YES\n"),
			"class/hwmon/hwmon0/name":         file("cpu_thermal\n"),
			"class/hwmon/hwmon0/temp1_input":  file("48312\n"),
			"class/hwmon/hwmon0/temp1_enable": file("1\n"),
		},
	}
	bus.Put(0x20, m.expander)
	m.furnace.Set(138.51)
	m.a = New(protocols.Env{Clock: clock.NewReal()}, Options{
		OpenI2C: func(_ context.Context, name string) (i2c.BusCloser, error) {
			m.ask("i2c " + name)
			return noClose{m.bus}, nil
		},
		OpenSPI: func(_ context.Context, name string, c spi.Config) (spi.ConnCloser, error) {
			m.ask(fmt.Sprintf("spi %s mode %d", name, c.Mode))
			return spiConn{spitest.Func(name, m.furnace.Transfer)}, nil
		},
		Files: func(dir string) fs.FS {
			m.ask("files " + dir)
			return m.files
		},
		CheckSensor: sensors.Check, OpenSensor: sensors.Open,
	})
	t.Cleanup(func() { _ = m.a.Close() })
	return m
}

func chips(tags ...point.Tag) protocols.Device {
	return protocols.Device{Name: "cabinet", Tags: tags, Settings: map[string]any{"sensor": map[string]any{
		"io":      map[string]any{"chip": "mcp23017", "bus": "i2c:1", "outputs": "a0,b7", "high": "b7", "timeout": "30s"},
		"furnace": map[string]any{"chip": "max31865", "bus": "spi:0.0", "reference": "430", "timeout": "30s"},
		"tank":    map[string]any{"chip": "ds18b20", "bus": "w1", "id": "28-000004a1c1e6", "timeout": "30s"},
		"cpu":     map[string]any{"chip": "hwmon", "bus": "sysfs", "device": "cpu_thermal", "timeout": "30s"},
	}}}
}

// TestEveryKindOfBus reads a chip on each, and writes outputs of one.
func TestEveryKindOfBus(t *testing.T) {
	m := newMachine(t)
	whole := tag("whole", "cpu/temp1", point.ReadOnly)
	whole.Type = "int"
	analog := tag("analog", "io/a4", point.ReadOnly)
	analog.Type = "float"
	d := chips(
		tag("valve", "io/a0", point.ReadWrite), tag("lamp", "io/b7", point.ReadWrite), tag("limit", "io/a3", point.ReadOnly), analog,
		tag("furnace", "furnace/temperature", point.ReadOnly), tag("tank", "tank/temperature", point.ReadOnly),
		tag("cpu", "cpu/temp1", point.ReadOnly), whole,
	)
	m.expander.Drive(3, true)
	m.expander.Drive(4, true)
	s, err := m.a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Group(d.Tags)
	if err != nil {
		t.Fatal(err)
	}
	read := func() string {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		out := make([]point.Sample, len(d.Tags))
		g.Read(ctx, out)
		var texts []string
		for i, s := range out {
			if f, ok := s.Value.Float(); ok && s.Value.Kind() == point.Float {
				texts = append(texts, fmt.Sprintf("%s %.2f", d.Tags[i].Name, f))
			} else {
				texts = append(texts, d.Tags[i].Name+" "+s.Value.String())
			}
			if s.Quality != point.Good {
				t.Errorf("%s: %s %s", d.Tags[i].Name, s.Quality, s.Detail)
			}
		}
		return strings.Join(texts, ", ")
	}
	want := "valve false, lamp true, limit true, analog 1.00, furnace 100.01, tank 23.56, cpu 48.31, whole 48"
	if got := read(); got != want {
		t.Errorf("%s, want\n%s", got, want)
	}
	for i, err := range s.(protocols.Writer).Write(t.Context(), []protocols.Write{
		{Tag: d.Tags[0], Value: point.BoolValue(true)}, {Tag: d.Tags[1], Value: point.IntValue(0)},
	}) {
		if err != nil {
			t.Errorf("write %d: %v", i, err)
		}
	}
	if !m.expander.At(0) || m.expander.At(15) {
		t.Error("the pins were not driven")
	}
	if got := read(); !strings.HasPrefix(got, "valve true, lamp false") {
		t.Error(got)
	}
	m.mu.Lock()
	asked := strings.Join(m.asked, "; ")
	m.mu.Unlock()
	for _, want := range []string{"i2c 1", "spi 0.0 mode 1", "files /sys/bus/w1/devices", "files /sys"} {
		if !strings.Contains(asked+"; ", want+"; ") {
			t.Errorf("opened %s, want %s among them", asked, want)
		}
	}
}

// TestWriteErrors: what was not written says why, and whether it may have been.
func TestWriteErrors(t *testing.T) {
	m := newMachine(t)
	d := chips(tag("valve", "io/a0", point.ReadWrite), tag("limit", "io/a3", point.ReadOnly))
	s, err := m.a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	write := func(w protocols.Write) *protocols.WriteError {
		err := s.(protocols.Writer).Write(t.Context(), []protocols.Write{w})[0]
		we, _ := errors.AsType[*protocols.WriteError](err)
		if we == nil {
			t.Fatalf("%s: %v", w.Tag.Name, err)
		}
		return we
	}
	if e := write(protocols.Write{Tag: d.Tags[1], Value: point.BoolValue(true)}); e.Quality != point.BadNotWritable || e.Maybe {
		t.Errorf("an input: %+v", e)
	}
	if e := write(protocols.Write{Tag: d.Tags[0], Value: point.IntValue(2)}); e.Quality != point.BadOutOfRange || e.Maybe {
		t.Errorf("two: %+v", e)
	}
	if e := write(protocols.Write{Tag: d.Tags[0], Value: point.StringValue("on")}); e.Quality != point.BadTypeMismatch || e.Maybe {
		t.Errorf("text: %+v", e)
	}
	m.bus.Set(i2ctest.Fault{Kind: i2ctest.NACK})
	if e := write(protocols.Write{Tag: d.Tags[0], Value: point.BoolValue(true)}); e.Quality != point.BadNoCommunication || !e.Maybe {
		t.Errorf("no answer: %+v", e)
	}
}

// TestUnplugged: a thermometer that has gone is looked for again, and found under
// the number it has then.
func TestUnplugged(t *testing.T) {
	m := newMachine(t)
	d := chips(tag("cpu", "cpu/temp1", point.ReadOnly))
	s, err := m.a.Open(d)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	g, err := s.Group(d.Tags)
	if err != nil {
		t.Fatal(err)
	}
	read := func() point.Sample {
		out := make([]point.Sample, 1)
		g.Read(t.Context(), out)
		return out[0]
	}
	if s := read(); s.Quality != point.Good {
		t.Fatalf("%+v", s)
	}
	for from, to := range map[string]string{"name": "name", "temp1_input": "temp1_input"} {
		m.files["class/hwmon/hwmon7/"+to] = m.files["class/hwmon/hwmon0/"+from]
		delete(m.files, "class/hwmon/hwmon0/"+from)
	}
	delete(m.files, "class/hwmon/hwmon0/temp1_enable")
	if s := read(); s.Quality != point.BadNoCommunication {
		t.Errorf("gone: %+v", s)
	}
	for end := time.Now().Add(30 * time.Second); read().Quality != point.Good; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%+v", read())
		}
	}
}

func TestParseBus(t *testing.T) {
	for text, want := range map[string]string{
		"i2c:1": "i2c 1", "/dev/i2c-1": "i2c /dev/i2c-1", "i2c-7": "i2c i2c-7", "unix:/run/bus": "i2c unix:/run/bus", "i2c:unix:/run/bus": "i2c unix:/run/bus",
		"spi:0.0": "spi 0.0", "/dev/spidev1.2": "spi /dev/spidev1.2",
		"w1": "w1 /sys/bus/w1/devices", "w1:/elsewhere": "w1 /elsewhere", "sysfs": "sysfs /sys", "sysfs:/elsewhere": "sysfs /elsewhere",
	} {
		kind, name := parseBus(text)
		if got := string(kind) + " " + name; got != want {
			t.Errorf("%s is %s, want %s", text, got, want)
		}
	}
}

func TestCheckChips(t *testing.T) {
	m := newMachine(t)
	for want, d := range map[string]protocols.Device{
		`outputs of the chip are ["a0" "b7"]`: chips(tag("x", "io/a1", point.ReadWrite)),
		`outputs of the chip are []`:          chips(tag("x", "tank/temperature", point.ReadWrite)),
		"is on a bus of kind spi": {Name: "x", Settings: map[string]any{"sensor": map[string]any{
			"s": map[string]any{"chip": "max31865", "bus": "i2c:1", "reference": "430"},
		}}},
	} {
		if err := m.a.Check(d); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if err := m.a.Check(chips(tag("x", "io/a0", point.WriteOnly))); err != nil {
		t.Error(err)
	}
}
