package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
)

// crashCuts is how many power cuts the sweep makes; HOLDFAST_CRASH_CUTS scales
// it.
func crashCuts(t *testing.T) int {
	s := os.Getenv("HOLDFAST_CRASH_CUTS")
	if s == "" {
		return 2000
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatalf("HOLDFAST_CRASH_CUTS=%q: %v", s, err)
	}
	return n
}

// TestCrashSweep cuts the power before every call that changes the disk, of
// random workloads, and holds what is found afterwards against what was
// confirmed before.
func TestCrashSweep(t *testing.T) {
	t.Parallel()
	sweep(t, crashCuts(t), 1, nil)
}

// TestCrashSweepWithFaults is the same on a disk that errs now and then, or is
// full.
func TestCrashSweepWithFaults(t *testing.T) {
	t.Parallel()
	sweep(t, crashCuts(t)/2, 1_000_000, func(m *model) {
		switch m.rng.IntN(8) {
		case 0:
			m.disk.Fail(disktest.OpSync, 1+m.rng.IntN(3), 1, syscall.EIO)
		case 1:
			m.disk.Fail(disktest.OpWrite, 1+m.rng.IntN(3), 1, syscall.EIO)
		case 2:
			m.disk.Fail(disktest.OpAny, 1+m.rng.IntN(8), 1+m.rng.IntN(3), syscall.EIO)
		case 3:
			m.disk.SetCapacity(m.disk.Used() + int64(m.rng.IntN(2*minSegmentBytes)))
		case 4, 5:
			m.disk.SetCapacity(0)
			m.disk.Heal()
		}
	})
}

func sweep(t *testing.T, cuts int, firstSeed uint64, fault func(*model)) {
	start := time.Now()
	done, seed := 0, firstSeed
	for ; done < cuts && !t.Failed(); seed++ {
		m := newModel(t, seed)
		m.fault = fault
		m.cuts = &done
		m.run(120)
	}
	t.Logf("%d cuts in %d workloads, %v", done, seed-firstSeed, time.Since(start).Round(time.Millisecond))
}

// A model drives a journal and remembers what it promised.
type model struct {
	t     *testing.T
	seed  uint64
	rng   *rand.Rand
	disk  *disktest.FS
	clock *clocktest.Fake
	o     Options
	j     *Journal
	fault func(*model)
	cuts  *int

	ids     uint64
	classes map[uint64]uint8 // of every body ever submitted
	sizes   map[uint64]int
	acked   map[Offset]uint64
	lastAck Offset
	low     Offset // highest position that all cursors had passed at some time
	cursors map[string]*cursorModel
	epoch   uint64
	damaged []string
}

// A cursorModel is every value a cursor was given, and the first one that a
// restart may still find.
type cursorModel struct {
	values  []savedCursor // state nil and low 0: deleted
	durable int
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{
		t: t, seed: seed, rng: rand.New(rand.NewPCG(seed, 7)), disk: disktest.New(), clock: clocktest.New(time.Time{}),
		classes: map[uint64]uint8{}, sizes: map[uint64]int{}, acked: map[Offset]uint64{}, cursors: map[string]*cursorModel{},
	}
	m.o = Options{SegmentBytes: minSegmentBytes, Clock: m.clock, TailBytes: 1, GroupBytes: 1 << (9 + m.rng.IntN(6)), Fill: Fill(m.rng.IntN(3))}
	if m.rng.IntN(2) == 0 {
		m.o.MaxBytes = int64(4+m.rng.IntN(3)) * minSegmentBytes
	}
	if m.rng.IntN(3) == 0 {
		m.o.KeepConsumed = minSegmentBytes
	}
	m.o.OnCondition = func(c Condition) {
		if c.Trouble == DamageFound {
			m.damaged = append(m.damaged, c.Reason)
		}
	}
	return m
}

func (m *model) fatalf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("seed %d, cut %d: %s", m.seed, *m.cuts, fmt.Sprintf(format, args...))
}

func (m *model) run(steps int) {
	m.open()
	m.disk.EachChange(func(clone func(uint64) *disktest.FS) {
		if m.j.unrecorded {
			return // space was freed on a full disk that errs too: see drop
		}
		*m.cuts++
		m.noteCursors()
		m.check(clone(m.rng.Uint64()))
	})
	for range steps {
		m.act()
		if m.t.Failed() {
			return
		}
	}
	m.disk.EachChange(nil)
	m.j.Close()
}

func (m *model) open() {
	j, err := Open(m.disk, m.o)
	for range 10 {
		if err == nil {
			break
		}
		m.disk.Heal() // a disk that errs at Open may fail it; not for ever
		j, err = Open(m.disk, m.o)
	}
	if err != nil {
		m.fatalf("open: %v", err)
	}
	m.j = j
	if j.Committed() < m.lastAck {
		m.fatalf("a restart lost confirmed records: %d of %d", j.Committed(), m.lastAck)
	}
	m.lastAck = j.Committed() // what was not confirmed may be there too
	if m.epoch == 0 || len(m.acked) == 0 {
		m.epoch = j.Epoch()
	}
	if j.Epoch() != m.epoch {
		m.fatalf("a restart changed the epoch: %v", m.damaged)
	}
	m.noteCursors()
}

// act does one random thing.
func (m *model) act() {
	if m.fault != nil {
		m.fault(m)
	}
	switch n := m.rng.IntN(100); {
	case n < 55:
		for range 1 + m.rng.IntN(6) {
			m.submit()
		}
		m.step()
	case n < 75:
		m.save()
	case n < 80:
		m.save()
		m.j.cursors.flush = true
		m.step()
	case n < 96:
		m.clock.Advance(time.Duration(m.rng.IntN(3000)) * time.Millisecond)
		m.step()
	default: // the process ends, cleanly or not, and starts again
		if m.j.unrecorded {
			return
		}
		if m.rng.IntN(2) == 0 {
			m.j.step(true)
			m.noteCursors()
		}
		m.j.Close()
		m.open()
	}
}

func (m *model) step() {
	m.j.step(false)
	m.noteCursors()
}

// body is the bytes of a record: its id and a filler that follows from it.
func body(id uint64, size int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, id)
	for len(b) < size {
		b = append(b, byte(id)+byte(len(b)))
	}
	return b
}

func (m *model) submit() {
	b := &Batch{}
	var ids []uint64
	for range 1 + m.rng.IntN(4) {
		m.ids++
		size := 8 + m.rng.IntN(200)
		if m.rng.IntN(6) == 0 {
			size = 8 + m.rng.IntN(3500)
		}
		class := uint8(m.rng.IntN(3) * 4)
		m.classes[m.ids], m.sizes[m.ids] = class, size
		ids = append(ids, m.ids)
		b.Entries = append(b.Entries, Entry{Class: class, Time: m.clock.Now().UnixMicro(), Body: body(m.ids, size)})
	}
	b.Done = func(first Offset, err error) {
		if err != nil {
			if m.fault == nil && !errors.Is(err, ErrNoSpace) {
				m.fatalf("append on a sound disk: %v", err)
			}
			return
		}
		if first != m.lastAck+1 {
			m.fatalf("offset %d after %d", first, m.lastAck)
		}
		for i, id := range ids {
			m.acked[first+Offset(i)] = id
			m.lastAck = first + Offset(i)
		}
	}
	if err := m.j.Submit(b); err != nil && !errors.Is(err, ErrFull) {
		m.fatalf("submit: %v", err)
	}
}

func (m *model) save() {
	name := fmt.Sprintf("cursor %d", m.rng.IntN(3))
	c, err := m.j.Cursor(name)
	if err != nil {
		m.fatalf("%v", err)
	}
	cm := m.cursors[name]
	if cm == nil {
		cm = &cursorModel{values: []savedCursor{{}}}
		m.cursors[name] = cm
	}
	if m.rng.IntN(20) == 0 {
		c.Delete()
		cm.values = append(cm.values, savedCursor{})
		return
	}
	low := c.Offset() + Offset(m.rng.Uint64N(uint64(m.lastAck-min(c.Offset(), m.lastAck)+1)))
	v := savedCursor{low, bytes.Repeat([]byte{byte(m.rng.Uint32())}, 1+m.rng.IntN(60))}
	if err := c.Save(v.low, v.state); err != nil {
		m.fatalf("save: %v", err)
	}
	cm.values = append(cm.values, v)
}

// noteCursors asks the journal which values it says are durable.
func (m *model) noteCursors() {
	set := &m.j.cursors
	low, any := Offset(0), false
	for name, cm := range m.cursors {
		c := set.all[name]
		var d savedCursor
		if c != nil && c.fixed {
			d = c.durable
			if !any || d.low < low {
				low, any = d.low, true
			}
		}
		if c != nil && !c.fixed && c.synced != c.version {
			continue // never confirmed, which is not the same as confirmed to be deleted
		}
		for i := len(cm.values) - 1; i > cm.durable; i-- {
			if sameCursor(cm.values[i], d) {
				cm.durable = i
				break
			}
		}
	}
	m.low = max(m.low, low)
}

func sameCursor(a, b savedCursor) bool { return a.low == b.low && bytes.Equal(a.state, b.state) }

// check opens what a power cut left and compares.
func (m *model) check(d *disktest.FS) {
	o := m.o
	o.OnCondition = func(c Condition) {
		if c.Trouble == DamageFound {
			m.fatalf("a power cut was taken for damage: %s", c.Reason)
		}
	}
	j, err := Open(d, o)
	if err != nil {
		m.fatalf("open after the cut: %v", err)
	}
	defer func() { j.Close() }()
	if len(m.acked) > 0 && j.Epoch() != m.epoch {
		m.fatalf("the cut changed the epoch")
	}
	m.checkRecords(j, m.acked)
	m.checkCursors(j)
	if m.rng.IntN(3) > 0 {
		return
	}
	// Go on from there, and cut again.
	acked := map[Offset]uint64{}
	for off, id := range m.acked {
		acked[off] = id
	}
	ids := m.ids
	for range 1 + m.rng.IntN(3) {
		ids++
		id := ids
		m.classes[id], m.sizes[id] = 0, 8+m.rng.IntN(600)
		b := &Batch{Entries: []Entry{{Body: body(id, m.sizes[id])}}, Done: func(first Offset, err error) {
			if err != nil {
				m.fatalf("append after the cut: %v", err)
			}
			acked[first] = id
		}}
		if err := j.Submit(b); err != nil {
			m.fatalf("submit after the cut: %v", err)
		}
		j.step(false)
	}
	m.checkRecords(j, acked)
	d = d.CrashClone(m.rng.Uint64())
	j.Close()
	if j, err = Open(d, o); err != nil {
		m.fatalf("open after the second cut: %v", err)
	}
	m.checkRecords(j, acked)
}

// checkRecords reads everything: what is there was submitted, unchanged and in
// order; what was confirmed is there, or a gap that the options allow.
func (m *model) checkRecords(j *Journal, acked map[Offset]uint64) {
	r := j.NewReader(0)
	defer r.Release()
	next, lastID := Offset(1), uint64(0)
	// A save that was not confirmed may have survived and be acted upon.
	low, _ := j.cursors.lowest()
	low = max(low, m.low)
	for {
		rec, err := r.Next()
		if errors.Is(err, ErrEnd) {
			break
		}
		if err != nil {
			m.fatalf("read: %v", err)
		}
		if rec.Offset != next {
			m.fatalf("offset %d where %d was expected", rec.Offset, next)
		}
		if g := rec.Gap; g != nil {
			m.checkGap(*g, low)
			next = g.To + 1
			continue
		}
		next++
		if len(rec.Body) < 8 {
			m.fatalf("offset %d: invented %x", rec.Offset, rec.Body)
		}
		id := binary.LittleEndian.Uint64(rec.Body)
		if size, known := m.sizes[id]; !known || !bytes.Equal(rec.Body, body(id, size)) || rec.Class != m.classes[id] {
			m.fatalf("offset %d: invented or changed: class %d, %x", rec.Offset, rec.Class, rec.Body)
		}
		if id <= lastID {
			m.fatalf("offset %d: record %d after %d", rec.Offset, id, lastID)
		}
		lastID = id
		if want, ok := acked[rec.Offset]; ok && want != id {
			m.fatalf("offset %d: record %d, but %d was confirmed there", rec.Offset, id, want)
		}
	}
	if last := j.Committed(); next != last+1 {
		m.fatalf("reading ended before offset %d, committed is %d", next, last)
	}
	for off := range acked {
		if off >= next {
			m.fatalf("confirmed offset %d is lost: the journal ends at %d", off, next-1)
		}
	}
}

func (m *model) checkGap(g Gap, low Offset) {
	if g.Reason == Consumed && g.To <= low || g.Reason == Budget && m.o.MaxBytes > 0 {
		return
	}
	m.fatalf("gap %d-%d, reason %v, cursors had passed %d", g.From, g.To, g.Reason, low)
}

// checkCursors holds each cursor against the values it was given since it was
// last known to be durable.
func (m *model) checkCursors(j *Journal) {
	for name, cm := range m.cursors {
		var got savedCursor
		if c := j.cursors.all[name]; c != nil {
			got = c.durable
		}
		if !slices.ContainsFunc(cm.values[cm.durable:], func(v savedCursor) bool { return sameCursor(v, got) }) {
			m.fatalf("%s is at %d, state %x; since the last durable save it was given %v", name, got.low, got.state, cm.values[cm.durable:])
		}
	}
	for name := range j.cursors.all {
		if m.cursors[name] == nil {
			m.fatalf("%s was invented", name)
		}
	}
}
