package journal

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
)

const (
	retryAfter = time.Second // between attempts on a medium that failed or is full
	keepAfter  = time.Second // between looks at what can be reclaimed

	smallGroup = 64 << 10  // only smaller groups gain from space that was filled
	fillAhead  = 256 << 10 // how far
)

// Run is the committer. It returns nil when ctx ends, after a last commit of
// what was queued; every accepted batch has then had its Done. It must be
// called at most once.
func (j *Journal) Run(ctx context.Context) error {
	if !j.running.CompareAndSwap(false, true) {
		return fmt.Errorf("journal is already running: %w", ErrInvalid)
	}
	jobs := make(chan *job)
	keeper := make(chan struct{})
	j.jobs = jobs
	go func() {
		defer close(keeper)
		for jb := range jobs {
			jb.run(j)
			j.results <- jb // has room: one job at a time
		}
	}()
	timer := j.clock.NewTimer(keepAfter)
	defer timer.Stop()
	for ctx.Err() == nil {
		j.wait(ctx, timer)
		j.step(false)
	}
	j.queue.close()
	j.step(true)
	close(jobs)
	<-keeper
	j.jobs = nil
	select {
	case res := <-j.results:
		j.finishLogged(res)
	default:
	}
	return nil
}

// wait sleeps until there is something to commit, and then lingers.
func (j *Journal) wait(ctx context.Context, timer clock.Timer) {
	if len(j.pending) > 0 {
		return
	}
	timer.Reset(j.untilDue())
	select {
	case <-j.queue.ready:
	case <-j.queue.urgent:
		return
	case <-timer.C():
		return
	case res := <-j.results:
		j.finishLogged(res)
		return
	case <-ctx.Done():
		return
	}
	if j.o.Linger <= 0 {
		return
	}
	timer.Reset(j.o.Linger)
	select {
	case <-timer.C():
	case <-j.queue.urgent: // a full group, or somebody waits in Flush
	case <-ctx.Done():
	}
}

// untilDue returns how long the committer may sleep when nothing is submitted.
func (j *Journal) untilDue() time.Duration {
	due := 10 * keepAfter
	if d, dirty := j.cursors.dueIn(j.clock.Elapsed()); dirty {
		due = max(d, 0)
	}
	if j.trouble != nil || j.keepDue {
		due = min(due, retryAfter)
	}
	return due
}

// step commits everything that is queued now, in as many groups as it takes,
// then looks after the space. last is the step before the journal closes.
func (j *Journal) step(last bool) {
	j.retry()
	j.pending = append(j.pending, j.queue.take()...) // once: what comes meanwhile lingers in its turn
	for len(j.pending) > 0 {
		n := j.fit(j.pending)
		group := j.pending[:n]
		j.settle(group, j.commit(group, false))
		j.pending = slices.Delete(j.pending, 0, n)
	}
	if d, dirty := j.cursors.dueIn(j.clock.Elapsed()); dirty && (last || d <= 0) || last && j.dirtyEnd {
		// An error is kept in trouble and the cursors stay dirty.
		_ = j.commit(nil, last)
	}
	j.keep()
}

// retry looks whether a medium that failed or was full works again.
func (j *Journal) retry() {
	if j.trouble == nil || j.clock.Elapsed() < j.retryAt {
		return
	}
	if err := j.rollChecked(); err != nil {
		j.failed(err)
		return
	}
	j.recovered()
}

// fit returns how many of the batches make one group.
func (j *Journal) fit(batches []*Batch) int {
	size := 0
	for i, b := range batches {
		if size += b.size; i > 0 && size > j.o.GroupBytes {
			return i
		}
	}
	return len(batches)
}

// settle tells the submitters.
func (j *Journal) settle(group []*Batch, err error) {
	freed := 0
	for _, b := range group {
		freed += b.size
		if err != nil {
			b.First = 0
		}
		if b.Done != nil {
			b.Done(b.First, err)
		}
	}
	if len(group) == 1 {
		// Somebody waits for this one answer alone: let it leave before the
		// group is handed out.
		runtime.Gosched()
	}
	if err == nil && len(group) > 0 && j.o.OnCommit != nil {
		j.o.OnCommit(group)
	}
	j.queue.done(freed)
}

// commit writes a group and whatever state is due, syncs, and publishes. When
// it returns an error nothing was confirmed and the segment it was written to,
// if any, will not be written to again.
func (j *Journal) commit(group []*Batch, last bool) error {
	g := j.gather(group)
	g.witness = last
	if !g.witness && g.volatileOnly() {
		j.publish(g, nil) // nothing for the medium: no sync to wait for
		return nil
	}
	if err := j.room(g); err != nil {
		j.abandon(g, err)
		return err
	}
	err := j.write(g)
	if err != nil {
		j.active.bad = true // what it holds behind the durable end is unknown
		j.active = nil
		err = fmt.Errorf("%w: %w", ErrFailed, err)
		j.abandon(g, err)
		return err
	}
	j.publish(g, j.active)
	return nil
}

// abandon gives up a group that could not be written.
func (j *Journal) abandon(g *group, err error) {
	j.cursors.restore(g.cursors)
	j.tail.give(g.chunk)
	j.failed(err)
}

// room makes sure that there is a segment with space for the group. The last
// part of a segment takes cursors only: on a full disk they are what lets space
// become free again.
func (j *Journal) room(g *group) error {
	if a := j.active; a != nil {
		limit := a.size - j.sealRoom(a.size)
		if len(g.batches) > 0 {
			limit -= max(a.size/64, pageSize)
		}
		if a.end.Load()+g.bound <= limit {
			return nil
		}
	}
	if j.trouble != nil && j.clock.Elapsed() < j.retryAt {
		return j.trouble
	}
	if err := j.rollChecked(); err != nil {
		return err
	}
	j.recovered()
	return nil
}

// rollChecked is roll with its errors sorted into the two that callers know.
func (j *Journal) rollChecked() error {
	err := j.roll()
	switch {
	case err == nil:
		return nil
	case disk.IsFull(err):
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	case errors.Is(err, ErrNoSpace):
		return err
	}
	return fmt.Errorf("%w: %w", ErrFailed, err)
}

// sealRoom is what the index of a segment may need at its end.
func (j *Journal) sealRoom(size int64) int64 {
	return alignUp(frameLen+(size/indexEvery+2)*indexLen, pageSize)
}

// write encodes the group at the end of the active segment, writes it with one
// call and syncs once.
func (j *Journal) write(g *group) error {
	a := j.active
	pos := a.end.Load()
	g.encode(j, a, pos)
	n := int64(len(g.chunk.buf))
	end := alignUp(pos+n, pageSize)
	if (end-pos-n)*8 <= n {
		g.pad(a.salt) // little waste: begin the next group on a fresh page
	} else {
		g.end = pos + n
	}
	// The rest of the last page is written as zeroes: the page goes to the
	// medium anyway, and no stale bytes of a recycled file need be read for it.
	end = min(alignUp(g.end, pageSize), a.size)
	buf := g.zeroed(int(end - pos))
	if _, err := a.file.WriteAt(buf, pos); err != nil {
		return fmt.Errorf("write segment %q: %w", a.name, err)
	}
	if err := j.fill(a, end, n); err != nil {
		return err
	}
	if err := j.sync(a.file); err != nil {
		return fmt.Errorf("sync segment %q: %w", a.name, err)
	}
	j.counters.groups.Add(1)
	j.counters.bytes.Add(uint64(n))
	return nil
}

// fill zeroes a stretch ahead of a small group whose end has reached space
// that was only reserved. The sync that follows pays for the extents once, and
// the next groups overwrite.
func (j *Journal) fill(a *segment, end, n int64) error {
	if end <= a.filled {
		return nil
	}
	to := end
	fill := j.o.Fill == FillAlways || j.o.Fill == FillAuto && j.o.Linger == 0
	if fill && n < smallGroup {
		to = min(a.size, end+fillAhead)
		for at := end; at < to; at += int64(len(j.zeroes)) {
			if _, err := a.file.WriteAt(j.zeroes[:min(int64(len(j.zeroes)), to-at)], at); err != nil {
				return fmt.Errorf("fill segment %q: %w", a.name, err)
			}
		}
	}
	a.filled = to
	return nil
}

func (j *Journal) sync(f disk.File) error {
	err := f.Sync()
	j.counters.syncs.Add(1)
	if j.o.SyncDelay > 0 && err == nil {
		err = clock.Sleep(context.Background(), j.clock, j.o.SyncDelay)
	}
	return err
}

// publish makes a durable group visible, in this order: the file's end, the
// tail cache, the committed offset, the waiters.
func (j *Journal) publish(g *group, a *segment) {
	if a != nil {
		for _, f := range g.frames {
			if f.kind == frameData {
				a.addIndex(f)
			}
		}
		for _, b := range g.batches {
			for i := range b.Entries {
				if e := &b.Entries[i]; !e.Volatile {
					a.stats.add(e.Class, e.Time, len(e.Body))
				}
			}
		}
		a.nextOf.Store(uint64(g.next))
		a.end.Store(g.end)
		j.dirtyEnd = !g.witness
		if j.cursors.confirm(g.cursors) {
			j.keepDue = true
		}
	}
	j.tail.add(g.chunk)
	j.committed.Store(uint64(g.next - 1))
	j.wake.notify()
}

// failed notes that nothing can be appended for now.
func (j *Journal) failed(err error) {
	if j.trouble != nil && errors.Is(err, j.trouble) {
		return // a refusal in between; the cause and its time are known
	}
	kind, other := MediumFailed, DiskFull
	if errors.Is(err, ErrNoSpace) {
		kind, other = other, kind
	}
	j.trouble, j.retryAt = err, j.clock.Elapsed()+retryAfter
	j.conditions.set(kind, true, err.Error())
	j.conditions.set(other, false, "")
}

// recovered notes that appends work again.
func (j *Journal) recovered() {
	if j.trouble == nil {
		return
	}
	j.trouble = nil
	j.conditions.set(DiskFull, false, "")
	j.conditions.set(MediumFailed, false, "")
}
