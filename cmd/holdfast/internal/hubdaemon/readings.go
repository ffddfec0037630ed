package hubdaemon

import (
	"errors"
	"sync/atomic"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/hub"
	"holdfast/hub/upstream/mqtt"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/protocols/payload"
)

// Tags makes messages of readings for upstreams: it knows what the configuration
// says about tags. Set may be called while messages are made.
type Tags struct{ index atomic.Pointer[tagIndex] }

// tagIndex is what one configuration says. The tag "" is the field device.
type tagIndex struct {
	gateway string
	devices map[string]map[string]payload.Tag
	edge    []sparkplug.Device // the same as edge nodes tell it
}

// NewTags returns the tags of a configuration.
func NewTags(c *config.Config) *Tags {
	t := &Tags{}
	t.Set(c)
	return t
}

// Set takes over the field devices of another configuration.
func (t *Tags) Set(c *config.Config) {
	x := &tagIndex{gateway: c.Name, devices: map[string]map[string]payload.Tag{}}
	for i := range c.Field.Devices {
		d := &c.Field.Devices[i]
		tags := map[string]payload.Tag{"": {Path: d.Path}}
		class := d.Class
		if class == "" {
			class = c.Field.Class
		}
		for k := range d.Tags {
			tag := payload.Tag{Unit: d.Tags[k].Unit, Class: d.Tags[k].Class, Path: d.Path}
			if tag.Class == "" {
				tag.Class = class
			}
			tags[d.Tags[k].Name] = tag
		}
		x.devices[d.Name] = tags
		x.edge = append(x.edge, edgeDevice(d))
	}
	t.index.Store(x)
}

// Readings returns what writes readings in a form.
func (t *Tags) Readings(f mqtt.Form) (mqtt.Readings, error) {
	r := &readings{tags: t, form: f, seen: t.index.Load()}
	o := payload.Options{PerReading: f.PerReading, Gateway: r.seen.gateway, Fields: f.Fields, Lookup: r.lookup}
	var errs [3]error
	o.Form, errs[0] = payload.ParseForm(f.Payload)
	if f.Times != "" {
		o.Times, errs[1] = payload.ParseTimes(f.Times)
	}
	if f.Qualities != "" {
		o.Qualities, errs[2] = payload.ParseQualities(f.Qualities)
	}
	if err := errors.Join(errs[:]...); err != nil {
		return nil, err
	}
	var err error
	r.enc, err = payload.New(o)
	return r, err
}

// readings writes the readings of one link.
type readings struct {
	tags *Tags
	form mqtt.Form
	enc  *payload.Encoder
	seen *tagIndex
}

// lookup returns what is configured about a tag; of one that is not, the path is
// its field device's.
func (r *readings) lookup(device, tag string) payload.Tag {
	tags := r.seen.devices[device]
	t, ok := tags[tag]
	if !ok {
		t = tags[""]
	}
	t.Path = r.form.PathOf(device, tag, t.Path)
	return t
}

// Open implements mqtt.Readings.
func (r *readings) Open(rec *hub.Record) (messages int, ok bool) {
	if now := r.tags.index.Load(); now != r.seen {
		r.seen = now
		r.enc.Forget()
	}
	return r.enc.Open(rec.Payload, time.UnixMicro(rec.Received).UTC())
}

// About implements mqtt.Readings.
func (r *readings) About(i int) mqtt.About { return mqtt.About(r.enc.About(i)) }

// Append implements mqtt.Readings.
func (r *readings) Append(dst []byte, i int) []byte { return r.enc.Append(dst, i) }
