package local

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/drivers/gpio"
	"holdfast/drivers/sensor"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A sensorConf is one sensor of a device.
type sensorConf struct {
	chip    string
	kind    sensor.Kind
	bus     string // name of the bus, or directory
	address uint16
	options map[string]string
	outputs []string // channels that can be set
}

// use is what a tag wants of a line.
type use uint8

const (
	level use = iota
	count
	frequency
)

// A lineConf is everything about a line that needs it to be opened anew when it
// changes.
type lineConf struct {
	line   string
	output bool

	input  gpio.InputConfig
	edges  gpio.Edge // 0: nobody wants them
	stamps bool      // somebody wants their times
	window time.Duration
	idle   time.Duration // without an edge, after which the frequency is 0

	out gpio.OutputConfig
}

// merge returns the configuration that serves both. The zero value is served by
// any.
func (c lineConf) merge(o lineConf) (lineConf, error) {
	switch {
	case o == lineConf{} || c == o:
		return c, nil
	case c.output || o.output:
		return c, errors.New("an output has one tag only, or tags that are configured alike")
	case c.input != o.input:
		return c, errors.New("active_low, bias and debounce must be the same")
	case c.edges != 0 && o.edges != 0 && c.edges != o.edges:
		return c, errors.New("the edges must be the same")
	case c.stamps && o.stamps && (c.window != o.window || c.idle != o.idle):
		return c, errors.New("window and timeout must be the same")
	}
	c.edges |= o.edges
	if o.stamps {
		c.stamps, c.window, c.idle = true, o.window, o.idle
	}
	return c, nil
}

// An address is what a tag names: a sensor's channel or a line.
type address struct {
	sensor, channel string
	use             use
	conf            lineConf
}

// parse checks a device and returns its sensors and lines.
func (a *Adapter) parse(d protocols.Device) (sensors map[string]sensorConf, lines map[string]lineConf, err error) {
	sensors, err = parseSensors(d.Settings)
	errs := []error{err}
	for _, name := range slices.Sorted(maps.Keys(sensors)) {
		c := sensors[name]
		if !a.o.has(c.kind) {
			errs = append(errs, fmt.Errorf("sensor %q: there is no %s here", name, kindName(c.kind)))
		} else if c.outputs, err = a.o.CheckSensor(c.chip, c.kind, c.address, c.options); err != nil {
			errs = append(errs, fmt.Errorf("sensor %q: %w", name, err))
		}
		sensors[name] = c
	}
	lines, users := map[string]lineConf{}, map[string]string{}
	for i := range d.Tags {
		t := &d.Tags[i]
		addr, err := parseAddress(t)
		c, known := sensors[addr.sensor]
		switch {
		case err != nil:
			errs = append(errs, err)
		case addr.sensor != "" && !known:
			errs = append(errs, fmt.Errorf("tag %q: no sensor %q: there are %q", t.Name, addr.sensor, slices.Sorted(maps.Keys(sensors))))
		case addr.sensor != "" && t.Access.Writable() && !slices.Contains(c.outputs, addr.channel):
			errs = append(errs, fmt.Errorf("tag %q: %q cannot be written: outputs of the chip are %q", t.Name, t.Address, c.outputs))
		case addr.sensor != "":
		case a.o.Lines == nil:
			errs = append(errs, fmt.Errorf("tag %q: there are no lines here", t.Name))
		default:
			more, err := addr.conf.merge(lines[addr.conf.line])
			if err != nil {
				errs = append(errs, fmt.Errorf("tag %q: line %q is used by tag %q: %w", t.Name, addr.conf.line, users[addr.conf.line], err))
				continue
			}
			lines[addr.conf.line], users[addr.conf.line] = more, t.Name
		}
	}
	return sensors, lines, errors.Join(errs...)
}

func kindName(k sensor.Kind) string {
	switch k {
	case sensor.I2C:
		return "I2C"
	case sensor.SPI:
		return "SPI"
	}
	return string(k)
}

// parseBus reads the name of a bus.
func parseBus(text string) (sensor.Kind, string) {
	scheme, name, named := strings.Cut(text, ":")
	if !named {
		scheme, name = text, ""
	}
	switch {
	case scheme == "i2c" && named:
		return sensor.I2C, name
	case scheme == "spi" && named:
		return sensor.SPI, name
	case strings.HasPrefix(text, "/dev/spidev"):
		return sensor.SPI, text
	case scheme == "w1":
		return sensor.OneWire, cmp.Or(name, "/sys/bus/w1/devices")
	case scheme == "sysfs":
		return sensor.Sysfs, cmp.Or(name, "/sys")
	}
	return sensor.I2C, text
}

func parseSensors(settings map[string]any) (map[string]sensorConf, error) {
	sensors := map[string]sensorConf{}
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		tables, ok := settings[key].(map[string]any)
		switch {
		case key != "sensor":
			errs = append(errs, fmt.Errorf("unknown key %q: there is sensor", key))
			continue
		case !ok:
			errs = append(errs, errors.New("key \"sensor\": want a table for each sensor"))
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(tables)) {
			table, ok := tables[name].(map[string]any)
			if !ok || name == "" || strings.ContainsAny(name, "/:") {
				errs = append(errs, fmt.Errorf("sensor %q: want a table, under a name without '/' and ':'", name))
				continue
			}
			c, err := parseSensor(table)
			if err != nil {
				errs = append(errs, fmt.Errorf("sensor %q: %w", name, err))
			}
			sensors[name] = c
		}
	}
	return sensors, errors.Join(errs...)
}

func parseSensor(table map[string]any) (c sensorConf, err error) {
	var errs []error
	for _, key := range slices.Sorted(maps.Keys(table)) {
		v := table[key]
		text, isText := v.(string)
		switch key {
		case "chip":
			c.chip = text
		case "bus":
			c.kind, c.bus = parseBus(text)
		case "address":
			n, isInt := v.(int64)
			if isText {
				n, err = strconv.ParseInt(text, 0, 64)
				isInt = err == nil
			}
			if !isInt || n < 0 || n > math.MaxUint16 {
				errs = append(errs, fmt.Errorf("address %v is not one, such as 0x76", v))
			}
			c.address = uint16(n)
			continue
		default:
			if c.options == nil {
				c.options = map[string]string{}
			}
			c.options[key] = fmt.Sprint(v)
			continue
		}
		if text == "" {
			errs = append(errs, fmt.Errorf("key %q: want a text", key))
		}
	}
	for _, needed := range []string{"chip", "bus"} {
		if table[needed] == nil {
			errs = append(errs, fmt.Errorf("key %q is missing", needed))
		}
	}
	return c, errors.Join(errs...)
}

// parseAddress reads a tag's address, type and params and reports every mistake.
func parseAddress(t *point.Tag) (address, error) {
	p := tagParser{tag: t, asked: map[string]bool{}}
	kind, rest, isLine := strings.Cut(t.Address, ":")
	var addr address
	switch {
	case isLine && kind == "gpio":
		addr.conf = p.line(rest)
	case isLine && kind == "count":
		addr.use, addr.conf = count, p.counter(rest, "int")
	case isLine && kind == "freq":
		addr.use, addr.conf = frequency, p.counter(rest, "float")
		addr.conf.stamps = true
		addr.conf.window = p.duration("window", time.Second, time.Millisecond, time.Hour)
		addr.conf.idle = p.duration("timeout", 5*time.Second, time.Millisecond, time.Hour)
	default:
		var ok bool
		addr.sensor, addr.channel, ok = strings.Cut(t.Address, "/")
		if !ok || addr.sensor == "" || addr.channel == "" || isLine {
			p.fail("address %q: want gpio:LINE, count:LINE, freq:LINE or SENSOR/CHANNEL", t.Address)
			addr.sensor = "?"
		}
		p.typ("float", "int", "bool")
	}
	for _, key := range slices.Sorted(maps.Keys(t.Params)) {
		if !p.asked[key] {
			p.fail("a tag of this kind has no key %q: there are %q", key, slices.Sorted(maps.Keys(p.asked)))
		}
	}
	return addr, errors.Join(p.errs...)
}

type tagParser struct {
	tag   *point.Tag
	asked map[string]bool
	errs  []error
}

func (p *tagParser) fail(format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("tag %q: "+format, append([]any{p.tag.Name}, args...)...))
}

func (p *tagParser) typ(known ...string) {
	if p.tag.Type != "" && !slices.Contains(known, p.tag.Type) {
		p.fail("unknown type %q: there are %q", p.tag.Type, known)
	}
}

func (p *tagParser) readOnly() {
	if p.tag.Access.Writable() {
		p.fail("%q cannot be written", p.tag.Address)
	}
}

// choice returns the number of a param among words; left out it is the first.
func (p *tagParser) choice(key string, words ...string) int {
	p.asked[key] = true
	text, ok := p.tag.Params[key]
	if !ok {
		return 0
	}
	i := slices.Index(words, text)
	if i < 0 {
		p.fail("key %q: %q is none of %q", key, text, words)
	}
	return max(0, i)
}

func (p *tagParser) common(name string) lineConf {
	ref, err := gpio.ParseRef(name)
	if err != nil {
		p.fail("%w", err)
	}
	return lineConf{line: ref.String(), input: gpio.InputConfig{
		ActiveLow: p.choice("active_low", "false", "true") == 1,
		Bias: [...]gpio.Bias{gpio.BiasAsIs, gpio.BiasOff, gpio.BiasPullUp, gpio.BiasPullDown}[p.choice(
			"bias", "as-is", "off", "pull-up", "pull-down")],
	}}
}

// duration reads a time between two bounds.
func (p *tagParser) duration(key string, otherwise, least, most time.Duration) time.Duration {
	p.asked[key] = true
	text, ok := p.tag.Params[key]
	if !ok {
		return otherwise
	}
	d, err := time.ParseDuration(text)
	switch {
	case err != nil:
		p.fail("key %q: %q is not a time with its unit, such as \"5ms\"", key, text)
	case d < least || d > most:
		p.fail("key %q: %s: want %s to %s", key, d, least, most)
	}
	return d
}

func (p *tagParser) debounce(c *lineConf) {
	c.input.Debounce = p.duration("debounce", 0, 0, time.Minute)
	if err := c.input.Check(); err != nil && len(p.errs) == 0 {
		p.fail("%w", err)
	}
}

func (p *tagParser) line(name string) lineConf {
	c := p.common(name)
	p.typ("bool", "int")
	if !p.tag.Access.Writable() {
		p.debounce(&c)
		return c
	}
	c.output = true
	c.out = gpio.OutputConfig{
		ActiveLow: c.input.ActiveLow, Bias: c.input.Bias,
		Drive:   [...]gpio.Drive{gpio.PushPull, gpio.OpenDrain, gpio.OpenSource}[p.choice("drive", "push-pull", "open-drain", "open-source")],
		Initial: p.choice("initial", "low", "high") == 1,
	}
	return c
}

func (p *tagParser) counter(name, typ string) lineConf {
	c := p.common(name)
	p.typ(typ)
	p.readOnly()
	p.debounce(&c)
	c.edges = [...]gpio.Edge{gpio.Rising, gpio.Falling, gpio.Both}[p.choice("edges", "rising", "falling", "both")]
	return c
}
