package mqtt

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/hub"
)

// Readings makes messages of records that hold readings of field devices. The
// hub knows nothing of readings: the program hands this in (see [Env]). One is
// used by one link and from one goroutine at a time.
type Readings interface {
	// Open takes a record and returns how many messages it makes, in their order.
	// ok is false when it holds no readings; then it travels as stored. Nothing of
	// the record is kept.
	Open(r *hub.Record) (messages int, ok bool)
	// About tells what message i of the open record is about.
	About(i int) About
	// Append appends the payload of message i of the open record.
	Append(dst []byte, i int) []byte
}

// About is what a message is about, for topics and properties. What is not known
// is empty; so are Tag, Unit, Class and Quality when the message is about several
// readings.
type About struct {
	Device  string // the field device
	Tag     string
	Unit    string // UCUM code
	Class   string // scan class
	Path    string // where it stands in the plant: levels with "/" between them
	Quality string // OPC UA's name of the status code
}

// Stored is the payload form of records that travel as they are.
const Stored = "stored"

// Form is how readings are written.
type Form struct {
	Payload    string            // Stored, "json", "cbor" or "protobuf"; "" means Stored
	PerReading bool              // each reading is a message of its own
	Times      string            // "us", "ms", "s" or "rfc3339"; "" means "us"
	Qualities  string            // "name" or "code"; "" means "name"
	Fields     map[string]string // keys of fields that are not their names; "" leaves a field out
	Paths      []PathRule        // later ones hold
}

// A PathRule gives tags a path.
type PathRule struct {
	// Match is "device/tag", each part a name in which * stands for any
	// characters, also none, and ? for one. For a message about several readings
	// the tag is empty, which * alone matches.
	Match string
	Path  string // levels with "/" between them
}

// PathOf returns the path of a tag; configured is what it has without rules.
func (f *Form) PathOf(device, tag, configured string) string {
	for _, r := range slices.Backward(f.Paths) {
		d, t, _ := strings.Cut(r.Match, "/")
		if wildcard(d, device) && wildcard(t, tag) {
			return r.Path
		}
	}
	return configured
}

// wildcard reports whether a pattern stands for a name.
func wildcard(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	i, k := 0, 0
	star, from := -1, 0 // the last *, and where what it stands for ends so far
	for k < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, from = i, k
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[k]):
			i++
			k++
		case star >= 0:
			from++
			i, k = star+1, from
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}

// Fields returns the names of all fields of a message of readings.
func Fields() []string {
	return []string{
		"gateway", "path", "device", "seq", "boot", "clock", "dropped",
		"tag", "value", "unit", "class", "quality", "detail", "time", "source", "readings",
	}
}

// stored reports whether everything travels as it is.
func (f *Form) stored() bool { return f.Payload == "" || f.Payload == Stored }

// check finds what cannot work. Messages name the key of the settings.
func (f *Form) check() error {
	var errs []error
	none := func(key, why string, set bool) {
		if set {
			errs = append(errs, fmt.Errorf("%q: %s", key, why))
		}
	}
	if f.stored() || f.Payload == "protobuf" {
		why := "protobuf has its own"
		if f.stored() {
			why = `what is sent as stored has none; choose a "payload"`
			none("per_reading", why, f.PerReading)
			none("paths", why, f.Paths != nil)
		}
		none("times", why, f.Times != "" && f.Times != "us")
		none("qualities", why, f.Qualities != "" && f.Qualities != "name")
		none("fields", why, f.Fields != nil)
	}
	for _, name := range []string{"value", "readings"} {
		if key, ok := f.Fields[name]; ok && key == "" {
			errs = append(errs, fmt.Errorf(`"fields": %q cannot be left out`, name))
		}
	}
	taken := map[string]string{}
	for _, name := range Fields() {
		key, ok := f.Fields[name]
		if !ok {
			key = name
		}
		if other, twice := taken[key]; twice && key != "" {
			errs = append(errs, fmt.Errorf(`"fields": %q and %q have the same key %q`, other, name, key))
		}
		taken[key] = name
	}
	for _, r := range f.Paths {
		errs = append(errs, r.check())
	}
	return errors.Join(errs...)
}

func (r PathRule) check() error {
	device, tag, ok := strings.Cut(r.Match, "/")
	if !ok || device == "" || tag == "" || strings.Contains(tag, "/") {
		return fmt.Errorf(`"paths": match %q: want device/tag, such as "press*/temp*"`, r.Match)
	}
	if err := CheckPath(r.Path); err != nil {
		return fmt.Errorf(`"paths": %w`, err)
	}
	return nil
}

// CheckPath returns what is wrong with a path: it is levels of a topic, none of
// them empty, with "/" between them.
func CheckPath(path string) error {
	for _, l := range strings.Split(path, "/") {
		if l == "" || strings.ContainsAny(l, "+#\x00") {
			return fmt.Errorf(`path %q: want levels such as "acme/site1/area2", without wildcards and empty ones`, path)
		}
	}
	return nil
}
