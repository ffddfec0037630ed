package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
)

// A Journal is an open log. Its methods may be called from many goroutines.
type Journal struct {
	fs    disk.FS
	o     Options
	clock clock.Clock
	log   *slog.Logger
	lock  io.Closer

	queue      queue
	tail       tail
	cursors    cursors
	conditions conditions
	wake       signal
	counters   counters

	// Written by the committer, read by everybody.
	epoch     atomic.Uint64
	committed atomic.Uint64
	view      atomic.Pointer[[]*segment] // immutable list, oldest first
	running   atomic.Bool

	// lost is written by the committer under lostMu and read by readers under
	// it; the committer itself reads without.
	lostMu sync.Mutex
	lost   lostRanges

	// The rest belongs to the committer.
	active     *segment // appended to; nil until the next roll when there is none
	lastID     uint64
	spares     []spare
	pending    []*Batch // taken from the queue
	unrecorded bool     // something is in lost that is not yet durable
	frames     []frame  // for reuse
	zeroes     []byte
	dirtyEnd   bool          // the end of the active segment has no witness
	trouble    error         // appends are refused because of it
	retryAt    time.Duration // elapsed
	keepDue    bool
	keepAt     time.Duration // elapsed
	jobs       chan *job     // to the keeper, while Run runs
	results    chan *job     // room for one
	job        *job          // under way
}

// Open opens or creates the journal in the root of fs and keeps other
// processes out of it if fs is a [disk.Locker]. It repairs what it finds: a torn
// end is cut, damage is quarantined and told through OnCondition. It returns an
// error only when the directory itself cannot be used, or Options are out of
// range. Nothing is committed until Run. The caller closes fs, after Close.
func Open(fs disk.FS, o Options) (*Journal, error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	j := &Journal{fs: fs, o: o, clock: o.Clock, log: o.Log, results: make(chan *job, 1), keepDue: true}
	j.zeroes = make([]byte, 64<<10)
	j.conditions = conditions{tell: o.OnCondition, log: o.Log}
	j.tail.max = o.TailBytes
	j.queue = queue{max: o.QueueBytes, hurry: min(o.GroupBytes, o.QueueBytes/2), ready: make(chan struct{}, 1), urgent: make(chan struct{}, 1)}
	j.cursors = cursors{all: map[string]*Cursor{}, max: o.SegmentBytes / 8, delay: o.CursorDelay, now: o.Clock.Elapsed}
	j.cursors.poke = func(urgent bool) {
		poke(j.queue.ready)
		if urgent {
			poke(j.queue.urgent)
		}
	}
	j.view.Store(new([]*segment))
	if l, ok := fs.(disk.Locker); ok {
		lock, err := l.Lock(lockName)
		if err != nil {
			return nil, fmt.Errorf("open journal: %w", err)
		}
		j.lock = lock
	}
	if err := j.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open journal: %w", err), j.closeFiles())
	}
	return j, nil
}

// complete fills in the defaults and checks ranges.
func (o *Options) complete() error {
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	setDefault(&o.SegmentBytes, 64<<20)
	setDefault(&o.GroupBytes, int(min(4<<20, o.SegmentBytes/4)))
	setDefault(&o.QueueBytes, 16<<20)
	setDefault(&o.TailBytes, 4<<20)
	setDefault(&o.CursorDelay, time.Second)
	switch {
	case o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes || o.SegmentBytes%pageSize != 0:
		return fmt.Errorf("segment size %d: %w", o.SegmentBytes, ErrInvalid)
	case o.GroupBytes < 1 || int64(o.GroupBytes) > o.SegmentBytes/4:
		return fmt.Errorf("group size %d: %w", o.GroupBytes, ErrInvalid)
	case o.MaxBytes != 0 && o.MaxBytes < 4*o.SegmentBytes:
		return fmt.Errorf("budget of %d bytes is less than four segments: %w", o.MaxBytes, ErrInvalid)
	case o.Linger < 0 || o.MaxAge < 0 || o.KeepConsumed < 0 || o.QueueBytes < 0 || o.TailBytes < 0 || o.CursorDelay < 0:
		return fmt.Errorf("negative option: %w", ErrInvalid)
	}
	return nil
}

func setDefault[T int | int64 | time.Duration](p *T, v T) {
	if *p == 0 {
		*p = v
	}
}

// Close releases the files. Run must have returned, or never been called; in
// the latter case what was submitted gets its Done with ErrClosed.
func (j *Journal) Close() error {
	j.queue.close()
	j.settle(append(j.pending, j.queue.take()...), ErrClosed)
	j.pending = nil
	return j.closeFiles()
}

func (j *Journal) closeFiles() error {
	var errs []error
	for _, s := range j.segments() {
		s.retire().Close() // all that counts was synced
	}
	j.view.Store(new([]*segment))
	for _, s := range j.spares {
		s.file.Close()
	}
	j.spares = nil
	if j.lock != nil {
		errs = append(errs, j.lock.Close())
		j.lock = nil
	}
	return errors.Join(errs...)
}

// Submit queues a batch without waiting. The order of Submit is the order of
// offsets. Errors: ErrFull, ErrClosed, ErrTooLarge for more than a quarter of
// SegmentBytes, ErrInvalid for a class above MaxClass; then Done is not called.
func (j *Journal) Submit(b *Batch) error {
	b.size = 64
	for i := range b.Entries {
		e := &b.Entries[i]
		if e.Class > MaxClass {
			return fmt.Errorf("class %d: %w", e.Class, ErrInvalid)
		}
		b.size += entryBound(len(e.Body))
	}
	if int64(b.size) > j.o.SegmentBytes/4 {
		return fmt.Errorf("batch of %d bytes: %w", b.size, ErrTooLarge)
	}
	return j.queue.put(b)
}

// Append submits entries and waits until they are durable. It returns the
// offset of the first one. If ctx ends first, they may still become durable.
func (j *Journal) Append(ctx context.Context, entries ...Entry) (Offset, error) {
	type result struct {
		first Offset
		err   error
	}
	done := make(chan result, 1)
	b := &Batch{Entries: entries, Done: func(first Offset, err error) { done <- result{first, err} }}
	if err := j.Submit(b); err != nil {
		return 0, err
	}
	select {
	case r := <-done:
		return r.first, r.err
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// Epoch returns the identity of this numbering of records. It changes only
// while the journal is closed, when Open finds that confirmed records were lost
// to damage; (epoch, offset) never names two records.
func (j *Journal) Epoch() uint64 { return j.epoch.Load() }

// Committed returns the offset of the newest durable record, 0 if there never
// was one.
func (j *Journal) Committed() Offset { return Offset(j.committed.Load()) }

// First returns the offset of the oldest record that may still be there;
// Committed()+1 when none is.
func (j *Journal) First() Offset {
	for _, s := range j.segments() {
		if s.next() > s.base {
			return s.base
		}
	}
	return j.Committed() + 1
}

// Wait returns nil once a record after the given offset is committed, or the
// error of ctx.
func (j *Journal) Wait(ctx context.Context, after Offset) error {
	for {
		more := j.wake.next()
		if j.Committed() > after {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// setLost replaces the list of lost ranges; lists themselves never change.
func (j *Journal) setLost(l lostRanges) {
	j.lostMu.Lock()
	defer j.lostMu.Unlock()
	j.lost = l
}

// hole explains why no segment has the offsets from..to.
func (j *Journal) hole(from, to Offset) Gap {
	j.lostMu.Lock()
	defer j.lostMu.Unlock()
	return j.lost.at(from, to)
}

// Stats are counters since Open.
type Stats struct {
	Groups    uint64 // groups written
	Bytes     uint64 // bytes of groups, frame headers included
	Syncs     uint64 // syncs of files
	Rewritten uint64 // bytes written to thin segments out
	Queued    int    // bytes taken by Submit and not yet confirmed
	Footprint int64  // bytes of all segment files
	Segments  int
}

type counters struct {
	groups, bytes, syncs, rewritten atomic.Uint64
}

// Stats returns the counters.
func (j *Journal) Stats() Stats {
	s := Stats{
		Groups: j.counters.groups.Load(), Bytes: j.counters.bytes.Load(),
		Syncs: j.counters.syncs.Load(), Rewritten: j.counters.rewritten.Load(),
	}
	for _, seg := range j.segments() {
		s.Segments++
		s.Footprint += seg.size
	}
	j.queue.mu.Lock()
	defer j.queue.mu.Unlock()
	s.Queued = j.queue.bytes
	return s
}

// conditions remember which troubles are told.
type conditions struct {
	mu   sync.Mutex
	on   map[Trouble]bool
	seen map[string]bool // damage told already
	tell func(Condition)
	log  *slog.Logger
}

// set tells a change and nothing else.
func (c *conditions) set(t Trouble, on bool, reason string) {
	c.mu.Lock()
	changed := c.on[t] != on
	if c.on == nil {
		c.on = map[Trouble]bool{}
	}
	c.on[t] = on
	c.mu.Unlock()
	if !changed {
		return
	}
	if on {
		c.log.Warn("trouble begins", "condition", string(t), "reason", reason)
	} else {
		c.log.Info("trouble ends", "condition", string(t))
	}
	if c.tell != nil {
		c.tell(Condition{Trouble: t, On: on, Reason: reason})
	}
}

// damage tells each piece of damage once. It stays on until the next Open: a
// medium that has lost something needs a person.
func (j *Journal) damage(name, what string) {
	reason := fmt.Sprintf("segment %q has lost %s", name, what)
	if name == "" {
		reason = fmt.Sprintf("no segment holds %s", what)
	}
	c := &j.conditions
	c.mu.Lock()
	told := c.seen[reason] || len(c.seen) >= 1000
	if c.seen == nil {
		c.seen = map[string]bool{}
	}
	if !told {
		c.seen[reason] = true
	}
	first := !c.on[DamageFound]
	c.mu.Unlock()
	if told {
		return
	}
	if first {
		c.set(DamageFound, true, reason)
		return
	}
	c.log.Warn("more damage", "reason", reason)
}
