package local

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/drivers/gpio"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A sensorConf is one sensor of a device.
type sensorConf struct {
	chip    string
	bus     string
	address uint16
	options map[string]string
}

// lineKind is what a line is used for.
type lineKind uint8

const (
	input lineKind = iota
	counter
	output
)

// A lineConf is everything about a line that needs it to be opened anew when it
// changes.
type lineConf struct {
	line   string
	kind   lineKind
	input  gpio.InputConfig
	edges  gpio.Edge
	output gpio.OutputConfig
}

// An address is what a tag names: a sensor's channel or a line.
type address struct {
	sensor, channel string
	conf            lineConf
}

// parse checks a device and returns its sensors and addresses.
func (a *Adapter) parse(d protocols.Device) (sensors map[string]sensorConf, addresses []address, err error) {
	sensors, err = parseSensors(d.Settings)
	errs := []error{err}
	for _, name := range slices.Sorted(maps.Keys(sensors)) {
		c := sensors[name]
		if a.o.OpenBus == nil || a.o.CheckSensor == nil || a.o.OpenSensor == nil {
			errs = append(errs, fmt.Errorf("sensor %q: there is no I2C here", name))
		} else if err := a.o.CheckSensor(c.chip, c.address, c.options); err != nil {
			errs = append(errs, fmt.Errorf("sensor %q: %w", name, err))
		}
	}
	users := map[string]string{}
	for i := range d.Tags {
		t := &d.Tags[i]
		addr, err := parseAddress(t)
		_, known := sensors[addr.sensor]
		switch {
		case err != nil:
			errs = append(errs, err)
		case addr.sensor != "" && !known:
			errs = append(errs, fmt.Errorf("tag %q: no sensor %q: there are %q", t.Name, addr.sensor, slices.Sorted(maps.Keys(sensors))))
		case addr.sensor == "" && a.o.Lines == nil:
			errs = append(errs, fmt.Errorf("tag %q: there are no lines here", t.Name))
		case addr.sensor == "" && users[addr.conf.line] != "":
			errs = append(errs, fmt.Errorf("tag %q: line %q is used by tag %q", t.Name, addr.conf.line, users[addr.conf.line]))
		case addr.sensor == "":
			users[addr.conf.line] = t.Name
		}
		addresses = append(addresses, addr)
	}
	return sensors, addresses, errors.Join(errs...)
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
			c.bus = text
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
		addr.conf = p.counter(rest)
	default:
		var ok bool
		addr.sensor, addr.channel, ok = strings.Cut(t.Address, "/")
		if !ok || addr.sensor == "" || addr.channel == "" || isLine {
			p.fail("address %q: want gpio:LINE, count:LINE or SENSOR/CHANNEL", t.Address)
			addr.sensor = "?"
		}
		p.typ("float")
		p.readOnly()
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

func (p *tagParser) debounce(c *lineConf) {
	p.asked["debounce"] = true
	if text, ok := p.tag.Params["debounce"]; ok {
		d, err := time.ParseDuration(text)
		if err != nil {
			p.fail("key \"debounce\": %q is not a time with its unit, such as \"5ms\"", text)
		}
		c.input.Debounce = d
	}
	if err := c.input.Check(); err != nil {
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
	c.kind = output
	c.output = gpio.OutputConfig{
		ActiveLow: c.input.ActiveLow, Bias: c.input.Bias,
		Drive:   [...]gpio.Drive{gpio.PushPull, gpio.OpenDrain, gpio.OpenSource}[p.choice("drive", "push-pull", "open-drain", "open-source")],
		Initial: p.choice("initial", "low", "high") == 1,
	}
	return c
}

func (p *tagParser) counter(name string) lineConf {
	c := p.common(name)
	c.kind = counter
	p.typ("int")
	p.readOnly()
	p.debounce(&c)
	c.edges = [...]gpio.Edge{gpio.Rising, gpio.Falling, gpio.Both}[p.choice("edges", "rising", "falling", "both")]
	return c
}
