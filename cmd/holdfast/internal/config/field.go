package config

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/hub/upstream/mqtt"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/poll"
	"holdfast/protocols/tagfile"
)

// DeviceCheck is the Check of a protocol's adapter.
type DeviceCheck func(protocols.Device) error

// DecodeTOML takes a period, or a table of period, timeout and heartbeat.
func (c *Class) DecodeTOML(v any) error {
	t, ok := v.(map[string]any)
	if !ok {
		return c.Period.DecodeTOML(v)
	}
	known := []string{"period", "timeout", "heartbeat"}
	for _, key := range sorted(t) {
		var err error
		switch key {
		case "period":
			err = c.Period.DecodeTOML(t[key])
		case "timeout":
			err = c.Timeout.DecodeTOML(t[key])
		case "heartbeat":
			err = c.Heartbeat.DecodeTOML(t[key])
		default:
			err = unknownKey(key, known)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	if c.Period == 0 {
		return errors.New("period is missing")
	}
	return nil
}

func unknownKey(key string, known []string) error {
	if near := strict.Nearest(key, known); near != "" {
		return fmt.Errorf("unknown key; did you mean %q?", near)
	}
	return fmt.Errorf("unknown key\nknown here: %s", strings.Join(known, ", "))
}

func (k *checker) field() {
	f := &k.c.Field
	for _, name := range sorted(f.Classes) {
		path := strict.Join("field.classes", name)
		if err := checkName(name); err != nil {
			k.doc.Add(path, "%v", err)
		}
		if p := f.Classes[name].Period.Std(); p < time.Millisecond && k.doc.Has(path) {
			k.doc.Add(path, "period %s is shorter than 1ms", p)
			k.classless = true
		}
	}
	if !k.class("field.class", f.Class) {
		k.classless = true
	}
	for _, d := range []struct {
		path string
		d    strict.Duration
	}{
		{"field.commands.max_age", f.Commands.MaxAge}, {"field.commands.max_lifetime", f.Commands.MaxLifetime},
		{"field.commands.timeout", f.Commands.Timeout},
	} {
		if d.d.Std() < 10*time.Millisecond || d.d.Std() > time.Hour {
			k.doc.Add(d.path, "%s is not between 10ms and 1h", d.d)
		}
	}
	k.reduce()
	names := map[string]bool{}
	for i := range f.Devices {
		k.device(strict.At("field.device", i), &f.Devices[i], names)
	}
	for i, n := range k.reduced {
		if n == 0 {
			k.doc.Add(strict.At("field.reduce", i)+".match", "%q matches no tag\npatterns are device/tag, with * and ?", f.Rules[i].Match)
		}
	}
}

// reduce reads the rules that reduce the readings of many tags.
func (k *checker) reduce() {
	f := &k.c.Field
	for i, table := range f.Reduce {
		at := strict.At("field.reduce", i)
		rule, err := tagfile.RuleFromTable(table)
		k.tableMistakes(at, err)
		if err == nil {
			if err := rule.Check(); err != nil {
				k.doc.Add(at, "%v", err)
			}
		}
		f.Rules = append(f.Rules, rule)
	}
	k.reduced = make([]int, len(f.Rules))
}

// class reports whether a scan class is known.
func (k *checker) class(path, name string) bool {
	if _, ok := k.c.Field.Classes[name]; ok || name == "" {
		return true
	}
	known := sorted(k.c.Field.Classes)
	if near := strict.Nearest(name, known); near != "" {
		k.doc.Add(path, "no scan class %q; did you mean %q?", name, near)
		return false
	}
	k.doc.Add(path, "no scan class %q\nthere are: %s", name, strings.Join(known, ", "))
	return false
}

func (k *checker) device(path string, d *Device, names map[string]bool) {
	k.unique(path, "field device", d.Name, names)
	known := k.class(path+".class", d.Class)
	if d.Path != "" {
		if err := mqtt.CheckPath(d.Path); err != nil {
			k.doc.Add(path+".path", "%v", err)
		}
	}
	sound := k.tags(path, d)
	var matched []int
	d.Tags, matched = point.ApplyRules(k.c.Field.Rules, d.Name, d.Tags)
	for i, n := range matched {
		k.reduced[i] += n
	}
	check := k.kinds.Protocol(d.Protocol)
	if check == nil {
		k.choice(path+".protocol", d.Protocol, k.kinds.Protocols...)
		return
	}
	pd := k.c.Field.Device(d)
	// What was told already is not told again in other words.
	if sound && known && !k.classless {
		k.deviceMistakes(path, d, pd.Check())
	}
	if !sound {
		pd.Tags = nil
	}
	k.deviceMistakes(path, d, check(pd.Field()))
}

// deviceMistakes records what a protocol or the poller says about a device;
// what begins with a tag that stands in the configuration is put there.
func (k *checker) deviceMistakes(path string, d *Device, err error) {
	for _, e := range flatten(err) {
		at := path
		if d.TagFile != "" {
			at = path + ".tags"
		}
		text := strings.TrimPrefix(e.Error(), fmt.Sprintf("device %q: ", d.Name))
		m := tagPrefix.FindStringSubmatch(text)
		if m == nil {
			k.foreign(path, e)
			continue
		}
		for i, table := range d.TagTables {
			if table["name"] == m[1] {
				at, text = strict.At(path+".tag", i), m[2]
			}
		}
		k.doc.Add(at, "%s", text)
	}
}

var tagPrefix = regexp.MustCompile(`^tag "([^"]+)": (?s:(.*))$`)

// Device returns d as the poller wants it.
func (f *Field) Device(d *Device) poll.Device {
	classes := map[string]poll.Class{}
	for name, c := range f.Classes {
		classes[name] = poll.Class{Period: c.Period.Std(), Timeout: c.Timeout.Std(), Heartbeat: c.Heartbeat.Std()}
	}
	class := d.Class
	if class == "" {
		class = f.Class
	}
	return poll.Device{Name: d.Name, Protocol: d.Protocol, Settings: d.Settings, Tags: d.Tags, Classes: classes, Class: class,
		KeepLast: d.KeepLast, Subscribe: d.Subscribe}
}

// PollDevices returns all devices as the poller wants them.
func (f *Field) PollDevices() []poll.Device {
	out := make([]poll.Device, len(f.Devices))
	for i := range f.Devices {
		out[i] = f.Device(&f.Devices[i])
	}
	return out
}
