package importer

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/protocols"
	"holdfast/protocols/library"
	"holdfast/protocols/point"
)

// tagPrefix is how adapters begin what they say about a tag.
var tagPrefix = regexp.MustCompile(`^(?:device "[^"]*": )?tag "((?:[^"\\]|\\.)*)": (?s:(.*))$`)

// Check leaves out what the adapters do not accept, with notes, so that the rest
// passes. protocol returns the check of a protocol, nil when this program does not
// have it.
func (r *Result) Check(file string, protocol func(name string) config.DeviceCheck) {
	r.Devices = slices.DeleteFunc(r.Devices, func(d Device) bool {
		none := d.Product == "" && protocol(d.Protocol) == nil
		if none {
			r.Notes = append(r.Notes, newNote(file, d.line, "device "+d.Name, fmt.Sprintf("this program does not speak %q", d.Protocol), Lost))
		}
		return none
	})
	for i := range r.Devices {
		d := &r.Devices[i]
		d.Tags = slices.DeleteFunc(d.Tags, func(t point.Tag) bool {
			err := t.Check()
			if err != nil {
				r.reject(file, d, t.Name, err)
			}
			return err != nil
		})
		if check := protocol(d.Protocol); check != nil {
			r.checkDevice(file, d, check)
		}
	}
	r.dropEmpty(file)
	r.order()
}

func (r *Result) checkDevice(file string, d *Device, check config.DeviceCheck) {
	settings := d.Settings
	if d.Product != "" {
		p, err := library.Find(d.Product)
		if err != nil {
			return // told when the configuration is checked
		}
		settings = p.DeviceSettings(settings)
	}
	err := check(protocols.Device{Name: d.Name, Protocol: d.Protocol, Settings: settings, Tags: d.Tags})
	bad := map[string]bool{}
	for _, e := range parts(err) {
		if m := tagPrefix.FindStringSubmatch(e.Error()); m != nil && d.lines[m[1]] > 0 && !bad[m[1]] {
			bad[m[1]] = true
			r.reject(file, d, m[1], errors.New(m[2]))
		}
	}
	d.Tags = slices.DeleteFunc(d.Tags, func(t point.Tag) bool { return bad[t.Name] })
}

func (r *Result) reject(file string, d *Device, tag string, err error) {
	text := strings.TrimPrefix(err.Error(), fmt.Sprintf("tag %q: ", tag))
	r.Notes = append(r.Notes, newNote(file, d.lines[tag], "tag "+tag, text, Lost))
}

// parts takes joined errors apart.
func parts(err error) []error {
	if j, ok := err.(interface{ Unwrap() []error }); ok {
		var out []error
		for _, e := range j.Unwrap() {
			out = append(out, parts(e)...)
		}
		return out
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
