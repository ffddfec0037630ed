package poll

import (
	"context"
	"sort"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// A Table holds the current value of every tag. Updating it costs a store per
// tag, whether somebody looks or not: those who look ask for what changed since
// they looked last.
type Table struct {
	clock   clock.Clock
	version atomic.Uint64 // counts updates; drawn while the device's mu is held
	layout  atomic.Uint64 // counts changes of the set of tags

	mu      sync.RWMutex
	devices []*deviceTable // sorted by name; replaced, never changed
}

func newTable(c clock.Clock) *Table { return &Table{clock: c} }

// An Entry is the current state of one tag.
type Entry struct {
	Device    string
	Tag       string
	Class     string // scan class
	Unit      string
	Comment   string
	Access    point.Access
	Value     point.Value
	Quality   point.Quality // BadWaitingForInitialData before the first read; BadNotReadable for what is only written
	Detail    string
	Source    time.Time // zero if the protocol has none
	Receive   time.Time // of the last sample, published or not; zero before the first
	Changed   time.Time // receive time of the last change of value or quality
	Samples   uint64    // taken
	Bad       uint64    // of them with a Bad quality
	Published uint64    // readings given to the outbox
}

// A Cursor says what an observer of a Table has seen. The zero value has seen
// nothing.
type Cursor struct{ version, layout uint64 }

// Since calls yield with each entry that changed after c, by device in
// alphabetical order and in the order of the configuration within, until yield
// returns false. It returns the cursor for the next call, and whether the set of tags
// is another one than at c; then all entries are told, and what is not told is gone.
func (t *Table) Since(c Cursor, yield func(*Entry) bool) (next Cursor, fresh bool) {
	next = Cursor{version: t.version.Load(), layout: t.layout.Load()}
	fresh = next.layout != c.layout
	if !fresh && next.version == c.version {
		return next, false
	}
	var entries []Entry
	for _, d := range t.list() {
		entries = d.changed(entries[:0], c.version, fresh)
		for i := range entries {
			if !yield(&entries[i]) {
				return c, fresh
			}
		}
	}
	return next, fresh
}

func (t *Table) list() []*deviceTable {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return t.devices
}

// Snapshot returns all entries.
func (t *Table) Snapshot() []Entry {
	var out []Entry
	t.Since(Cursor{}, func(e *Entry) bool {
		out = append(out, *e)
		return true
	})
	return out
}

// Watch calls f with what changed, all entries first, at most once in every
// interval and only when something did, until ctx ends or f returns an error,
// which it returns. fresh says that entries of earlier calls that are not among these
// are gone. f must not keep the slice.
func (t *Table) Watch(ctx context.Context, interval time.Duration, f func(changed []Entry, fresh bool) error) error {
	var c Cursor
	var entries []Entry
	for {
		next := Cursor{version: t.version.Load(), layout: t.layout.Load()}
		fresh := next.layout != c.layout
		if fresh || next.version != c.version {
			for _, d := range t.list() {
				entries = d.changed(entries, c.version, fresh)
			}
		}
		if len(entries) > 0 || fresh {
			if err := f(entries, fresh); err != nil {
				return err
			}
		}
		c, entries = next, entries[:0]
		if err := clock.Sleep(ctx, t.clock, interval); err != nil {
			return err
		}
	}
}

// add puts a device's table in.
func (t *Table) add(d *deviceTable) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i := sort.Search(len(t.devices), func(i int) bool { return t.devices[i].name >= d.name })
	devices := make([]*deviceTable, 0, len(t.devices)+1)
	devices = append(append(append(devices, t.devices[:i]...), d), t.devices[i:]...)
	t.devices = devices
	t.layout.Add(1)
}

// remove takes a device's table out.
func (t *Table) remove(d *deviceTable) {
	t.mu.Lock()
	defer t.mu.Unlock()
	devices := make([]*deviceTable, 0, len(t.devices))
	for _, other := range t.devices {
		if other != d {
			devices = append(devices, other)
		}
	}
	t.devices = devices
	t.layout.Add(1)
}

// A deviceTable is the state of the tags of one device.
type deviceTable struct {
	name  string
	table *Table

	mu     sync.Mutex
	tags   []*tagState // in the order of the configuration
	byName map[string]*tagState
	nextID uint32

	readings, bad, published, held uint64
}

// A tagState is what is known of one tag. Guarded by deviceTable.mu.
//
// With hundreds of thousands of them, what costs is the memory that each sample
// touches, so what is rarely used is behind a pointer.
type tagState struct {
	tag     *point.Tag // never changed, only replaced
	class   string
	name    string
	id      uint32        // for merging in the outbox; never used again within the device
	removed bool          // no longer configured; a read under way may still bring a sample
	scaler  *point.Scaler // nil = none
	filter  point.Filter
	reduce  *point.Reducer // in place of filter; nil = none
	stale   time.Duration  // 0 = never
	beat    time.Duration  // heartbeat of the class

	value    point.Value
	lastGood point.Value // the last value that was not Bad; Null before the first
	quality  point.Quality
	detail   string
	source   time.Time
	receive  time.Time
	changed  time.Time
	version  uint64

	readAt      time.Duration // elapsed time of the last sample
	publishedAt time.Duration // elapsed time of the last reading given to the outbox

	samples, bad, published uint64
}

// configure makes st follow the tag as configured now. Values and the memory of
// dead-band and reduction stay when the scale does. heartbeat is the class's.
func (st *tagState) configure(t *point.Tag, class string, stale, heartbeat time.Duration) {
	if !st.publishesAs(t, heartbeat) {
		st.scaler = nil
		if !t.Scale.Identity() {
			s := t.Scale.Compile()
			st.scaler = &s
		}
		st.filter, st.reduce = point.NewFilter(t.Dead, t.Scale), nil
		if t.Reduce != (point.Reduction{}) {
			st.reduce = point.NewReducer(t, heartbeat)
		}
	}
	st.tag, st.name, st.class, st.stale, st.beat = t, t.Name, class, stale, heartbeat
}

// publishesAs reports whether what is published of st does not change with a
// configuration.
func (st *tagState) publishesAs(t *point.Tag, heartbeat time.Duration) bool {
	return st.tag != nil && st.tag.Scale == t.Scale && st.tag.Dead == t.Dead && st.tag.Reduce == t.Reduce &&
		(st.reduce == nil || st.beat == heartbeat)
}

// heartbeat returns the most time between two readings, 0 if there is no bound.
func (st *tagState) heartbeat() time.Duration {
	if st.reduce != nil {
		return st.reduce.Heartbeat()
	}
	return st.beat
}

// changed appends the entries that changed after a version, or all.
func (d *deviceTable) changed(out []Entry, after uint64, all bool) []Entry {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, st := range d.tags {
		if all || st.version > after {
			out = append(out, Entry{
				Device: d.name, Tag: st.tag.Name, Class: st.class, Unit: st.tag.Unit, Comment: st.tag.Comment,
				Access: st.tag.Access, Value: st.value, Quality: st.quality, Detail: st.detail, Source: st.source,
				Receive: st.receive, Changed: st.changed, Samples: st.samples, Bad: st.bad, Published: st.published,
			})
		}
	}
	return out
}

// intake is one read's samples on their way to becoming readings.
type intake struct {
	states    []*tagState
	samples   []point.Sample
	now       time.Time
	elapsed   time.Duration
	heartbeat time.Duration
	period    time.Duration
	keepLast  bool
	out       []point.Reading // appended to
	ids       []uint32        // of the tags in out
}

// take scales and stamps samples, stores them as the current values, and returns
// those that the dead-bands let pass. heard is false if every sample says that
// the device cannot be reached, and reason is why.
func (d *deviceTable) take(in intake) (out []point.Reading, ids []uint32, heard bool, reason string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	version := d.table.version.Add(1)
	before, gone := len(in.out), 0
	for i, st := range in.states {
		if st.removed {
			gone++
			continue
		}
		s := &in.samples[i]
		q := st.store(s, &in, version)
		if q.Bad() {
			d.bad++
			if linkQuality(q) && reason == "" {
				if reason = s.Detail; reason == "" {
					reason = q.String()
				}
			}
		}
		heard = heard || !linkQuality(q)
		d.readings++
		if st.reduce != nil {
			d.held++ // until told
			in.out, in.ids = d.told(st, st.reduce.Next(in.out, st.reading(), in.elapsed, in.period), in.ids, in.elapsed)
			continue
		}
		switch {
		case st.filter.Pass(st.value, q):
		case in.heartbeat > 0 && in.elapsed-st.publishedAt+in.period > in.heartbeat: // the next read would be too late
			st.filter.Force(st.value, q)
		default:
			d.held++
			continue
		}
		in.out = append(in.out, st.reading())
		in.ids = append(in.ids, st.id)
		st.published++
		st.publishedAt = in.elapsed
	}
	d.published += uint64(len(in.out) - before)
	return in.out, in.ids, heard || gone == len(in.states), reason
}

// store makes a sample the tag's current value and returns its final quality.
func (st *tagState) store(s *point.Sample, in *intake, version uint64) point.Quality {
	v, q, detail := s.Value, s.Quality, s.Detail
	if !q.Bad() && st.scaler != nil {
		scaled, sq := st.scaler.Apply(v)
		switch {
		case sq == point.Good:
		case sq.Bad():
			q, detail = sq, "the raw value "+v.String()+" cannot be scaled"
		case q == point.Good:
			q = sq // GoodClamped; a worse quality of the device's own stays
		}
		v = scaled
	}
	st.samples++
	if q.Bad() {
		st.bad++
		v = point.Value{}
		if in.keepLast {
			v = st.lastGood
		}
	} else {
		st.lastGood = v
	}
	if q != st.quality || !v.Equal(st.value) {
		st.changed = in.now
	}
	st.value, st.quality, st.detail = v, q, detail
	st.source, st.receive, st.readAt = s.Source, in.now, in.elapsed
	st.version = version
	return q
}

func (st *tagState) reading() point.Reading {
	return point.Reading{
		Tag: st.name, Value: st.value, Quality: st.quality,
		Source: st.source, Receive: st.receive, Detail: st.detail,
	}
}

// age turns Good values that were not read again in time into Uncertain ones
// and returns them as readings; with beat also those subscribed ones whose
// heartbeat is due.
func (d *deviceTable) age(p *plan, elapsed time.Duration, now time.Time, beat bool) (out []point.Reading, ids []uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	version := d.table.version.Add(1)
	for _, st := range p.states {
		if st.removed || st.samples == 0 {
			continue
		}
		old := st.stale > 0 && elapsed-st.readAt >= st.stale && st.quality.Level() == point.LevelGood
		if old {
			st.quality = point.UncertainLastUsableValue
			st.detail = "not read again for " + (elapsed - st.readAt).Round(time.Millisecond).String()
			st.changed, st.receive, st.version = now, now, version
		} else if due := st.heartbeat(); !beat || due == 0 || elapsed-st.publishedAt < due {
			continue
		}
		out, ids = d.flushTag(st, out, ids, elapsed)
		r := st.reading()
		r.Receive = now
		if st.reduce != nil {
			st.reduce.Force(r, elapsed)
		} else {
			st.filter.Force(st.value, st.quality)
		}
		st.published++
		st.publishedAt = elapsed
		out = append(out, r)
		ids = append(ids, st.id)
	}
	d.published += uint64(len(out))
	return out, ids
}
