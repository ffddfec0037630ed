package sparkplug

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"holdfast/hub"
	"holdfast/hub/upstream/sparkplug/payload"
)

// A node is what the edge node knows about itself and its devices. It outlives
// connections: a birth tells the values that were sent last, and aliases stay.
// It belongs to one link at a time.
type node struct {
	self    *device // metrics of the node itself
	devices map[string]*device
	order   []*device // in order of appearance, which is the order of births
	aliases uint64    // given so far; also the number of metrics, which is bounded
	bound   int       // of aliases
}

// A device is a field device, or the node itself when its name is "".
type device struct {
	name       string
	configured bool
	metrics    map[string]*metric
	order      []*metric
	heard      time.Duration // Elapsed when a record of it last came
	born       bool          // in this session, and not dead since
	dead       bool          // a death was sent and nothing has come since that is worth a birth
	behind     bool          // one of its metrics is

	known, bad, lost int // metrics with a value, those of them that are bad, those of these that say that the device is lost
}

// A metric is one tag.
type metric struct {
	name       string
	alias      uint64
	datatype   payload.Datatype // Unknown until a value tells it; such a metric is born as Double
	unit       string
	configured bool
	readOnly   bool

	has    bool // a value has come
	value  payload.Value
	stamp  int64 // milliseconds since 1970
	status uint32
	detail string

	told      int64 // stamp of the latest value that was sent as a current one
	behind    bool  // value was sent as a historical one only
	qualified bool  // the last message about it had a quality that was not good
}

func newNode(bound int) *node {
	return &node{self: newDevice(""), devices: map[string]*device{}, bound: bound}
}

func newDevice(name string) *device {
	return &device{name: name, metrics: map[string]*metric{}}
}

// device returns the device of that name, which may be new.
func (n *node) device(name string) (*device, error) {
	if name == "" {
		return n.self, nil
	}
	if d := n.devices[name]; d != nil {
		return d, nil
	}
	if err := CheckID(name); err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	d := newDevice(strings.Clone(name))
	n.devices[d.name] = d
	n.order = append(n.order, d)
	return d, nil
}

// metric returns the metric of that name, which may be new.
func (n *node) metric(d *device, name string) (*metric, error) {
	if m := d.metrics[name]; m != nil {
		return m, nil
	}
	if err := checkMetric(name, d == n.self); err != nil {
		return nil, err
	}
	if n.aliases >= uint64(n.bound) {
		return nil, fmt.Errorf("there are %d metrics already", n.bound)
	}
	n.aliases++
	m := &metric{name: strings.Clone(name), alias: n.aliases}
	d.metrics[m.name] = m
	d.order = append(d.order, m)
	return m, nil
}

// configure takes what the configuration says: it adds what is new, and takes
// away what was configured and is no more.
func (n *node) configure(list []Device) error {
	for _, d := range n.devices {
		d.configured = false
		for _, m := range d.metrics {
			m.readOnly = false
		}
	}
	listed := map[*metric]bool{}
	for _, c := range list {
		d, err := n.device(c.Name)
		if err != nil {
			return err
		}
		d.configured = true
		for i := range c.Tags {
			t := &c.Tags[i]
			m, err := n.metric(d, t.Name)
			if err != nil {
				return fmt.Errorf("device %q: %w", c.Name, err)
			}
			if t.Datatype.Scalar() && !m.configured {
				m.datatype = agreed(t.Datatype).Join(m.value)
			}
			m.unit, m.readOnly, m.configured = t.Unit, !t.Writable, true
			listed[m] = true
		}
	}
	for _, d := range n.devices {
		d.order = slices.DeleteFunc(d.order, func(m *metric) bool {
			if !m.configured || listed[m] {
				return false
			}
			d.forget(m)
			return true
		})
	}
	n.order = slices.DeleteFunc(n.order, func(d *device) bool {
		if d.configured || len(d.order) > 0 {
			return false
		}
		delete(n.devices, d.name)
		return true
	})
	return nil
}

// agreed returns the datatype that is told for a configured one. For UInt32 the
// specification has int_value and Eclipse Tahu's implementations long_value, and
// some read only their own; everybody reads UInt64.
func agreed(d payload.Datatype) payload.Datatype {
	if d == payload.UInt32 {
		return payload.UInt64
	}
	return d
}

// forget takes a metric's part out of the device's counts.
func (d *device) forget(m *metric) {
	d.count(m, -1)
	delete(d.metrics, m.name)
}

func (d *device) count(m *metric, by int) {
	if !m.has {
		return
	}
	d.known += by
	if quality(m.status) == qualityBad {
		d.bad += by
		if lost(m.status) {
			d.lost += by
		}
	}
}

// set makes a reading the metric's value.
func (d *device) set(m *metric, r *Reading, stamp int64) {
	d.count(m, -1)
	m.has, m.value, m.stamp, m.status, m.detail = true, r.Value, stamp, r.Quality, r.Detail
	d.count(m, 1)
}

// gone reports whether the device is out of reach: everything known of it is
// bad, and something of it for want of communication.
func (d *device) gone() bool { return d.name != "" && d.lost > 0 && d.bad == d.known }

// check reports why b cannot be sent, before anything has changed.
func (n *node) check(b *Batch) error {
	d := n.self
	if b.Device != "" {
		if err := CheckID(b.Device); err != nil {
			return fmt.Errorf("device: %w", err)
		}
		d = n.devices[b.Device]
	}
	fresh := 0
	for i := range b.Readings {
		if d != nil && d.metrics[b.Readings[i].Tag] != nil {
			continue
		}
		if err := checkMetric(b.Readings[i].Tag, b.Device == ""); err != nil {
			return fmt.Errorf("device %q: %w", b.Device, err)
		}
		fresh++
	}
	if n.aliases+uint64(fresh) > uint64(n.bound) {
		return fmt.Errorf("device %q: %d new metrics, and of %d there may be %d", b.Device, fresh, n.aliases, n.bound)
	}
	return nil
}

// learn makes sure that all readings of b have metrics that can hold them, and
// reports whether a birth has to tell the host of a change.
func (n *node) learn(d *device, b *Batch) (changed bool, err error) {
	for i := range b.Readings {
		r := &b.Readings[i]
		before := len(d.order)
		m, err := n.metric(d, r.Tag)
		if err != nil {
			return false, err
		}
		t := m.datatype.Join(r.Value)
		if len(d.order) != before || t != m.datatype && t != m.shown() {
			changed = true
		}
		m.datatype = t
	}
	return changed, nil
}

// shown returns the datatype in births.
func (m *metric) shown() payload.Datatype {
	if m.datatype == payload.Unknown {
		return payload.Double // most values of the field are numbers, and this one has none yet
	}
	return m.datatype
}

// stampOf returns a reading's time in milliseconds since 1970.
func stampOf(r *Reading, rec *hub.Record) int64 {
	if r.Time.IsZero() {
		return rec.Received / 1000
	}
	return r.Time.UnixMilli()
}
