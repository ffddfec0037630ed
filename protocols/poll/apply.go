package poll

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// Changes says what Apply did, for the log and for people. Names are sorted.
type Changes struct {
	Added     []string // devices
	Removed   []string // devices
	Restarted []string // devices whose session was made anew, because their settings changed
	Changed   []string // "device/class" whose tags or times changed; session and other classes went on
}

// Empty reports whether nothing changed.
func (c *Changes) Empty() bool {
	return len(c.Added)+len(c.Removed)+len(c.Restarted)+len(c.Changed) == 0
}

// Check reports every mistake in a set of devices, joined, without any I/O.
func (p *Poller) Check(devices []Device) error {
	var errs []error
	seen := map[string]bool{}
	for i := range devices {
		d := &devices[i]
		if seen[d.Name] {
			errs = append(errs, fmt.Errorf("device %q is there twice", d.Name))
		}
		seen[d.Name] = true
		errs = append(errs, d.Check())
		adapter := p.adapters[d.Protocol]
		if adapter == nil {
			known := slices.Sorted(maps.Keys(p.adapters))
			errs = append(errs, fmt.Errorf("device %q: unknown protocol %q: there are %q", d.Name, d.Protocol, known))
			continue
		}
		if err := adapter.Check(d.Field()); err != nil {
			errs = append(errs, fmt.Errorf("device %q: %w", d.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Apply makes devices the ones that are polled, before or while Run runs. All of
// them are checked first; a mistake changes nothing. What did not change is
// not touched: a device keeps its session unless its protocol, settings or way
// of reading changed, and a scan class of it goes on without missing a time unless its
// own tags or times changed, and then goes on with the new ones at its next time.
// It waits for reads of what is removed to end.
func (p *Poller) Apply(devices []Device) (Changes, error) {
	p.applying.Lock()
	defer p.applying.Unlock()
	if p.ended {
		return Changes{}, errors.New("the poller has ended")
	}
	if err := p.Check(devices); err != nil {
		return Changes{}, err
	}
	var changes Changes
	var errs []error
	wanted := make(map[string]bool, len(devices))
	for i := range devices {
		wanted[devices[i].Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(p.devices)) {
		if !wanted[name] {
			p.remove(name)
			changes.Removed = append(changes.Removed, name)
		}
	}
	for i := range devices {
		errs = append(errs, p.applyOne(&devices[i], &changes))
	}
	for _, list := range [][]string{changes.Added, changes.Restarted, changes.Changed} {
		slices.Sort(list)
	}
	return changes, errors.Join(errs...)
}

func (p *Poller) applyOne(given *Device, changes *Changes) error {
	cfg := given.clone()
	p.mu.Lock()
	old := p.devices[cfg.Name]
	p.mu.Unlock()
	if old != nil && old.session != nil && sameLink(&old.cfg, &cfg) {
		changed, err := old.change(cfg)
		changes.Changed = append(changes.Changed, changed...)
		return err
	}
	if old != nil {
		p.remove(cfg.Name)
		changes.Restarted = append(changes.Restarted, cfg.Name)
	} else {
		changes.Added = append(changes.Added, cfg.Name)
	}
	return p.add(cfg)
}

// clone copies what the caller may go on to change.
func (d Device) clone() Device {
	d.Settings, d.Classes, d.Tags = maps.Clone(d.Settings), maps.Clone(d.Classes), slices.Clone(d.Tags)
	return d
}

// sameLink reports whether b can go on with the session of a.
func sameLink(a, b *Device) bool {
	return a.Protocol == b.Protocol && a.Subscribe == b.Subscribe && reflect.DeepEqual(a.Settings, b.Settings)
}

func (p *Poller) remove(name string) {
	p.mu.Lock()
	d := p.devices[name]
	delete(p.devices, name)
	p.mu.Unlock()
	p.table.remove(d.table)
	d.close()
}

// add opens a device and starts it if Run runs.
func (p *Poller) add(cfg Device) error {
	log := p.o.Log.With("device", cfg.Name)
	session, err := p.adapters[cfg.Protocol].Open(cfg.Field())
	if err != nil {
		err = fmt.Errorf("open device %q: %w", cfg.Name, err)
		session = nil
	}
	d := &device{
		p: p, name: cfg.Name, protocol: cfg.Protocol, session: session, log: log, lanes: map[string]*lane{},
		cfg:   Device{Name: cfg.Name, Protocol: cfg.Protocol},
		table: &deviceTable{name: cfg.Name, table: p.table, byName: map[string]*tagState{}},
	}
	p.mu.Lock()
	d.queue = p.queues[cfg.Name]
	if d.queue == nil {
		d.queue = &queue{device: cfg.Name}
		p.queues[cfg.Name] = d.queue
	}
	p.devices[cfg.Name] = d
	p.mu.Unlock()
	p.table.add(d.table)
	if _, changeErr := d.change(cfg); err == nil {
		err = changeErr
	}
	return err
}

// change takes over a configuration whose link is the one it has. It returns
// the classes that changed, as device/class.
func (d *device) change(cfg Device) (changed []string, err error) {
	old := d.cfg
	was, now := byClass(&old), byClass(&cfg)
	d.retag(&cfg)
	d.cfg = cfg
	d.keepLast.Store(cfg.KeepLast)
	var errs []error
	for _, class := range slices.Sorted(maps.Keys(was)) {
		if len(now[class]) == 0 {
			changed = append(changed, cfg.Name+"/"+class)
			d.drop(class)
		}
	}
	for _, class := range slices.Sorted(maps.Keys(now)) {
		if old.Classes[class] == cfg.Classes[class] && sameTags(was[class], now[class]) && d.lane(class) != nil {
			continue
		}
		changed = append(changed, cfg.Name+"/"+class)
		errs = append(errs, d.replan(class, now[class]))
	}
	return changed, errors.Join(errs...)
}

// byClass sorts the readable tags into their scan classes.
func byClass(cfg *Device) map[string][]point.Tag {
	m := map[string][]point.Tag{}
	for i := range cfg.Tags {
		if t := &cfg.Tags[i]; t.Access.Readable() {
			m[cfg.classOf(t)] = append(m[cfg.classOf(t)], *t)
		}
	}
	return m
}

func sameTags(a, b []point.Tag) bool {
	return slices.EqualFunc(a, b, func(x, y point.Tag) bool { return x.Equal(&y) })
}

// retag brings the table of the device in line with its tags. States of tags
// that stay are kept.
func (d *device) retag(cfg *Device) {
	elapsed := d.p.o.Clock.Elapsed()
	out, ids := d.retable(cfg, elapsed)
	d.offer(out, ids)
}

// offer gives readings to the outbox.
func (d *device) offer(out []point.Reading, ids []uint32) {
	now := d.p.o.Clock.Now().UTC().Truncate(time.Microsecond)
	d.p.outbox.offer(d.queue, now, d.p.o.Clock.Quality(), out, ids)
}

// retable does the work of retag and returns the readings that were held for a
// line which nothing continues now.
func (d *device) retable(cfg *Device, elapsed time.Duration) (out []point.Reading, ids []uint32) {
	t := d.table
	t.mu.Lock()
	defer t.mu.Unlock()
	same := len(t.tags) == len(cfg.Tags)
	tags := make([]*tagState, len(cfg.Tags))
	byName := make(map[string]*tagState, len(cfg.Tags))
	for i := range cfg.Tags {
		tag := &cfg.Tags[i]
		st := t.byName[tag.Name]
		if st == nil || st.tag.Address != tag.Address || st.tag.Type != tag.Type {
			st = &tagState{quality: point.BadWaitingForInitialData}
			if !tag.Access.Readable() {
				st.quality = point.BadNotReadable
			}
		}
		stale := tag.Stale
		if stale == 0 && !cfg.Subscribe {
			stale = 3 * cfg.Classes[cfg.classOf(tag)].Period
		}
		same = same && st.id != 0 && st.tag.Equal(tag) && t.tags[i] == st
		heartbeat := cfg.Classes[cfg.classOf(tag)].Heartbeat
		if !st.publishesAs(tag, heartbeat) {
			out, ids = t.flushTag(st, out, ids, elapsed)
		}
		st.configure(tag, cfg.classOf(tag), stale, heartbeat)
		if st.id == 0 {
			t.nextID++
			st.id = t.nextID
		}
		tags[i], byName[tag.Name] = st, st
	}
	for _, st := range t.tags {
		if st.removed = byName[st.tag.Name] != st; st.removed {
			out, ids = t.flushTag(st, out, ids, elapsed)
		}
	}
	t.published += uint64(len(out))
	t.tags, t.byName = tags, byName
	if !same {
		t.table.layout.Add(1)
	}
	return out, ids
}

func (d *device) lane(class string) *lane {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.lanes[class]
}

// drop stops the lane of a class and waits for it.
func (d *device) drop(class string) {
	d.mu.Lock()
	l := d.lanes[class]
	delete(d.lanes, class)
	d.mu.Unlock()
	if l != nil {
		l.cancel()
		l.wait()
	}
}

// replan gives the lane of a class its tags, making the lane if there is none.
func (d *device) replan(class string, tags []point.Tag) error {
	plan, err := d.plan(class, tags)
	if err != nil {
		d.refuse(class, tags, err)
		return err
	}
	if l := d.lane(class); l != nil {
		l.replace(plan)
		return nil
	}
	d.p.mu.Lock()
	defer d.p.mu.Unlock()
	n := d.p.spread[plan.class.Period]
	d.p.spread[plan.class.Period]++
	l := &lane{
		dev: d, name: class, log: d.log.With("class", class), phase: phaseOf(n),
		redone: make(chan struct{}, 1), plan: plan,
		stat: ClassStatus{
			Name: class, Period: plan.class.Period, Tags: len(tags), Subscribed: plan.subscriber != nil,
		},
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lanes[class] = l
	l.start()
	return nil
}

// plan makes what a lane needs to read tags.
func (d *device) plan(class string, tags []point.Tag) (*plan, error) {
	if d.session == nil {
		return nil, fmt.Errorf("device %q is not open", d.cfg.Name)
	}
	pl := &plan{class: d.cfg.Classes[class], tags: tags, samples: make([]point.Sample, len(tags))}
	if s, ok := d.session.(protocols.Subscriber); ok && d.cfg.Subscribe {
		pl.subscriber = s
	} else {
		g, err := d.session.Group(tags)
		if err != nil {
			return nil, fmt.Errorf("device %q, class %q: %w", d.cfg.Name, class, err)
		}
		pl.group = g
	}
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	for i := range tags {
		st := d.table.byName[tags[i].Name]
		pl.states = append(pl.states, st)
		if st.stale > 0 && (pl.stalest == 0 || st.stale < pl.stalest) {
			pl.stalest = st.stale
		}
		pl.beats = pl.beats || st.heartbeat() > 0
	}
	return pl, nil
}

// refuse marks tags that cannot be read because of what an adapter refused
// after having accepted it in Check.
func (d *device) refuse(class string, tags []point.Tag, err error) {
	d.drop(class)
	now := d.p.o.Clock.Now().UTC().Truncate(time.Microsecond)
	in := intake{
		samples: make([]point.Sample, len(tags)), now: now, elapsed: d.p.o.Clock.Elapsed(),
	}
	d.table.mu.Lock()
	for i := range tags {
		in.states = append(in.states, d.table.byName[tags[i].Name])
		in.samples[i] = point.Sample{Quality: point.BadConfigurationError, Detail: err.Error()}
	}
	d.table.mu.Unlock()
	out, ids, _, _ := d.table.take(in)
	d.offer(out, ids)
}
