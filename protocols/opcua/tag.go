package opcua

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// kind is what a tag is a window on.
type kind uint8

const (
	aValue  kind = iota // a Value attribute
	aMethod             // a method: writing calls it
	events              // the events of a notifier
	alarms              // the conditions of a notifier
)

// A spec is a tag, as checked.
type spec struct {
	tag      point.Tag
	addr     address
	kind     kind
	builtin  uint8         // type to write; 0 = what the server says
	index    string        // NumericRange of an array, "" = all of it
	sampling time.Duration // -1 = as fast as the subscription publishes
	queue    int           // 0 = what the setting buffer gives
	trigger  ua.DataChangeTrigger
	percent  float64 // dead-band in percent of EURange; 0 = none
	object   *address
	event    *address // type of the events; nil = any
	severity int
	fields   [][]wire.Name // further fields of events, as browse paths
}

// The names of a tag's own keys.
var valueKeys = []string{"index", "sampling", "queue", "trigger", "deadband_percent"}
var methodKeys = []string{"object"}
var eventKeys = []string{"event_type", "min_severity", "fields", "queue"}

var triggerNames = []string{"value", "timestamp", "status"}
var triggers = []ua.DataChangeTrigger{
	ua.DataChangeTriggerStatusValue, ua.DataChangeTriggerStatusValueTimestamp, ua.DataChangeTriggerStatus,
}

// typeNames are the types a tag may have besides the built-in ones.
var kindNames = map[string]kind{"method": aMethod, "events": events, "alarms": alarms}

// writable are the built-in types that can be given as a tag's type.
func typeList() []string {
	var out []string
	for t := uint8(wire.Boolean); t <= wire.LocalizedText; t++ {
		if t != wire.ExpandedNodeID {
			out = append(out, wire.TypeName(t))
		}
	}
	return append(out, "method", "events", "alarms")
}

// parseTag checks address, type and params of a tag.
func parseTag(t *point.Tag) (*spec, error) {
	s := &spec{tag: *t, sampling: -1, trigger: triggers[0]}
	var errs []error
	add := func(err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("tag %q: %w", t.Name, err))
		}
	}
	var err error
	s.addr, err = parseAddress(t.Address)
	add(err)
	add(s.readType(t.Type))
	p := &params{m: t.Params}
	switch s.kind {
	case aValue:
		s.readValue(p)
	case aMethod:
		s.object = p.address("object")
	default:
		s.readEvents(p)
	}
	switch {
	case s.kind == aMethod && !t.Access.Writable():
		add(errors.New(`a method is called by writing it: access must be "w" or "rw"`))
	case s.kind == events && t.Access.Writable():
		add(errors.New("events cannot be written"))
	}
	p.unknown(s.kind)
	for _, err := range p.errs {
		add(err)
	}
	return s, errors.Join(errs...)
}

func (s *spec) readType(name string) error {
	if name == "" {
		return nil
	}
	if k, ok := kindNames[name]; ok {
		s.kind = k
		return nil
	}
	for _, known := range typeList() {
		if t, ok := wire.TypeOf(known); ok && strings.EqualFold(known, name) {
			s.builtin = t
			return nil
		}
	}
	return fmt.Errorf("type %q is not known%s", name, didYouMean(name, typeList()))
}

func (s *spec) readValue(p *params) {
	s.index = p.text("index")
	if s.index != "" && !numericRange(s.index) {
		p.fail("index", `%q is not an index such as "3", "0:4" or "1,2"`, s.index)
	}
	s.sampling = p.duration("sampling", -1)
	s.queue = p.integer("queue", 0, 1, 1_000_000)
	s.percent = p.float("deadband_percent", 0, 100)
	s.trigger = triggers[p.choice("trigger", triggerNames)]
	if s.percent > 0 && s.tag.Dead.Kind != point.NoDeadband {
		p.fail("deadband_percent", "the tag has a dead-band already")
	}
}

func (s *spec) readEvents(p *params) {
	s.event = p.address("event_type")
	s.severity = p.integer("min_severity", 0, 0, 1000)
	s.queue = p.integer("queue", 0, 1, 1_000_000)
	list := p.text("fields")
	if list == "" {
		return
	}
	for _, f := range strings.Split(list, ",") {
		steps, err := parsePath(strings.TrimSpace(f), true, "", 0)
		if err != nil {
			p.fail("fields", "%q: %w", f, err)
			continue
		}
		var names []wire.Name
		for _, st := range steps {
			names = append(names, wire.Name{NS: st.ns, Name: st.name})
		}
		s.fields = append(s.fields, names)
	}
	if len(s.fields) > 64 {
		p.fail("fields", "%d are more than 64", len(s.fields))
	}
}

// numericRange reports whether s is a NumericRange (OPC 10000-4, 7.27).
func numericRange(s string) bool {
	for _, dim := range strings.Split(s, ",") {
		low, high, isRange := strings.Cut(dim, ":")
		a, err := strconv.ParseUint(low, 10, 31)
		if err != nil {
			return false
		}
		if isRange {
			b, err := strconv.ParseUint(high, 10, 31)
			if err != nil || b <= a {
				return false
			}
		}
	}
	return true
}

// oneElement reports whether a NumericRange names a single element.
func oneElement(s string) bool { return s != "" && !strings.Contains(s, ":") }

// params takes typed values out of a tag's keys and gathers mistakes.
type params struct {
	m    point.Params
	errs []error
}

func (p *params) fail(key, format string, args ...any) {
	p.errs = append(p.errs, fmt.Errorf("key %q: "+format, append([]any{key}, args...)...))
}

func (p *params) text(key string) string { return p.m[key] }

func (p *params) duration(key string, def time.Duration) time.Duration {
	v, ok := p.m[key]
	if !ok {
		return def
	}
	d, err := time.ParseDuration(v)
	if err != nil || d < 0 || d > 24*time.Hour {
		p.fail(key, "%q is not a duration with a unit, such as \"500ms\"", v)
		return def
	}
	return d
}

func (p *params) integer(key string, def, low, high int) int {
	v, ok := p.m[key]
	if !ok {
		return def
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < low || n > high {
		p.fail(key, "%q is not a whole number in %d to %d", v, low, high)
		return def
	}
	return n
}

func (p *params) float(key string, low, high float64) float64 {
	v, ok := p.m[key]
	if !ok {
		return 0
	}
	f, err := strconv.ParseFloat(v, 64)
	if err != nil || math.IsNaN(f) || f < low || f > high {
		p.fail(key, "%q is not a number in %g to %g", v, low, high)
		return 0
	}
	return f
}

func (p *params) choice(key string, names []string) int {
	v, ok := p.m[key]
	if !ok {
		return 0
	}
	i := slices.Index(names, v)
	if i < 0 {
		p.fail(key, "%q is none of %q%s", v, names, didYouMean(v, names))
		return 0
	}
	return i
}

func (p *params) address(key string) *address {
	v, ok := p.m[key]
	if !ok {
		return nil
	}
	a, err := parseAddress(v)
	if err != nil {
		p.fail(key, "%w", err)
		return nil
	}
	return &a
}

// unknown reports keys that tags of this kind do not have.
func (p *params) unknown(k kind) {
	known := [][]string{valueKeys, methodKeys, eventKeys, eventKeys}[k]
	for _, key := range sortedKeys(p.m) {
		if !slices.Contains(known, key) {
			p.errs = append(p.errs, fmt.Errorf("unknown key %q%s", key, didYouMean(key, known)))
		}
	}
}

func sortedKeys(m point.Params) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
