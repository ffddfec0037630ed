package journal

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
)

// keep looks after the space: it reclaims what every cursor has passed, drops
// what is too old, and starts thinning out early enough that a roll rarely has
// to wait for it. It does something at most once a second.
func (j *Journal) keep() {
	select {
	case res := <-j.results:
		j.finishLogged(res)
	default:
	}
	now := j.clock.Elapsed()
	if !j.keepDue || now < j.keepAt {
		return
	}
	j.keepDue, j.keepAt = j.o.MaxAge > 0, now+keepAfter
	if low, any := j.cursors.lowest(); any {
		j.setLost(j.lost.forget(low))
	}
	j.reclaim(j.o.KeepConsumed, false)
	j.dropAged()
	if j.o.MaxBytes == 0 {
		return
	}
	held := j.footprint()
	for _, s := range j.spares {
		held -= s.size
	}
	if held+2*j.o.SegmentBytes <= j.o.MaxBytes {
		j.conditions.set(OverBudget, false, "")
		return
	}
	if v := j.victim(); v.seg != nil && !v.whole && j.jobs != nil && j.job == nil {
		j.job = &job{seg: v.seg, drop: ClassSet(v.class), reason: Budget, name: rewriteName(v.seg)}
		j.jobs <- j.job // the keeper is idle: it takes it at once
	}
}

// finished returns the segments that no longer grow, oldest first. The last one
// is never among them, even when it failed: it holds the cursors.
func (j *Journal) finished() []*segment {
	list := j.segments()
	return list[:max(0, len(list)-1)]
}

// reclaim drops consumed segments until at most keep bytes of them, rounded up
// to a segment, are left. It returns how many it dropped. force is drop's.
func (j *Journal) reclaim(keep int64, force bool) (n int) {
	low, any := j.cursors.lowest()
	if !any {
		return 0
	}
	var consumed []*segment
	var bytes int64
	for _, s := range j.finished() {
		if s.next()-1 > low {
			break
		}
		consumed = append(consumed, s)
		bytes += s.size
	}
	for _, s := range consumed {
		if bytes -= s.size; bytes < keep {
			break
		}
		err := j.drop(s, Consumed, force)
		if errors.Is(err, errLater) {
			break
		}
		if err != nil {
			j.log.Warn("segment not reclaimed", "segment", s.name, "err", err)
			break
		}
		n++
	}
	return n
}

// dropAged drops the oldest segments whose newest record is older than MaxAge.
// A clock that is not synced may be years ahead, so then nothing is too old.
func (j *Journal) dropAged() {
	if j.o.MaxAge <= 0 || j.clock.Quality() != clock.Synced {
		return
	}
	limit := j.clock.Now().Add(-j.o.MaxAge).UnixMicro()
	for _, s := range j.finished() {
		if s.records() > 0 && s.lastTime >= limit {
			return
		}
		err := j.drop(s, Aged, false)
		if errors.Is(err, errLater) {
			return
		}
		if err != nil {
			j.log.Warn("aged segment not dropped", "segment", s.name, "err", err)
			return
		}
	}
}

// A victim is what goes first when the budget is short.
type victim struct {
	seg   *segment
	class uint8
	whole bool // nothing else is in the segment
}

// victim picks what to drop: what is consumed, else the least important class
// that any finished segment holds, there the oldest segment.
func (j *Journal) victim() victim {
	list := j.finished()
	if len(list) == 0 {
		return victim{}
	}
	if low, any := j.cursors.lowest(); any && list[0].next()-1 <= low || list[0].records() == 0 {
		return victim{seg: list[0], whole: true}
	}
	for c := MaxClass; c >= 0; c-- {
		for _, s := range list {
			if s.count[c] > 0 {
				return victim{s, uint8(c), s.classes() == ClassSet(uint8(c))}
			}
		}
	}
	return victim{seg: list[0], whole: true}
}

// errLater says that a drop cannot be recorded now, but after the next roll.
var errLater = errors.New("no segment takes the record of the drop")

// makeRoom drops until the budget has room for that many more bytes.
func (j *Journal) makeRoom(need int64) error {
	for j.o.MaxBytes > 0 && j.footprint()+need > j.o.MaxBytes {
		if need > 0 && slices.ContainsFunc(j.spares, func(s spare) bool { return s.size == need }) {
			need = 0
			continue
		}
		if j.job != nil {
			if err := j.finish(<-j.results); err != nil {
				return err
			}
			continue
		}
		v := j.victim()
		if v.seg == nil {
			return fmt.Errorf("%w: the budget of %d bytes holds no second segment", ErrNoSpace, j.o.MaxBytes)
		}
		if v.whole {
			if err := j.dropVictim(v); err != nil {
				return err
			}
			continue
		}
		j.job = &job{seg: v.seg, drop: ClassSet(v.class), reason: Budget, name: rewriteName(v.seg)}
		j.job.run(j)
		if err := j.finish(j.job); err != nil {
			return err
		}
	}
	return nil
}

func (j *Journal) dropVictim(v victim) error {
	reason := Budget
	if low, any := j.cursors.lowest(); any && v.seg.next()-1 <= low {
		reason = Consumed
	}
	if err := j.drop(v.seg, reason, false); err != nil {
		return err
	}
	if reason == Budget && v.seg.records() > 0 {
		j.overBudget(v.class)
	}
	return nil
}

func (j *Journal) overBudget(class uint8) {
	j.conditions.set(OverBudget, true, fmt.Sprintf("records of class %d are dropped to stay within %d bytes", class, j.o.MaxBytes))
}

// drop forgets a whole segment. The range is durably recorded as lost before
// the file goes, so that after a crash nobody takes a dropped segment for one
// that the disk has eaten. If it cannot be recorded now the error is errLater;
// with force the file goes all the same, and a crash before the next roll would
// report the records as missing.
func (j *Journal) drop(s *segment, reason Reason, force bool) error {
	if s.next() > s.base {
		gap := Gap{From: s.base, To: s.next() - 1, Reason: reason, Classes: s.classes() | s.gapClasses}
		err := j.recordLost(gap)
		if err != nil && !(force && errors.Is(err, errLater)) {
			return fmt.Errorf("drop segment %q: %w", s.name, err)
		}
		if err != nil {
			j.unrecorded = true
		}
		j.setLost(j.lost.add(gap))
	}
	j.replaceSegment(s, nil)
	file := s.retire()
	return j.discard(s.name, s.id, s.size, file, !s.bad)
}

// recordLost makes a lost range durable in the active segment.
func (j *Journal) recordLost(gap Gap) error {
	a := j.active
	if a == nil {
		return errLater
	}
	g := j.gather(nil)
	g.lost = []Gap{gap}
	if a.end.Load()+g.bound > a.size-j.sealRoom(a.size) {
		j.cursors.restore(g.cursors)
		j.tail.give(g.chunk)
		return errLater
	}
	if err := j.write(g); err != nil {
		a.bad, j.active = true, nil
		err = fmt.Errorf("%w: %w", ErrFailed, err)
		j.abandon(g, err)
		return err
	}
	j.publish(g, a)
	return nil
}

// discard removes a segment's file or keeps it for reuse.
func (j *Journal) discard(name string, id uint64, size int64, file disk.File, reuse bool) error {
	if !reuse || size != j.o.SegmentBytes || len(j.spares) >= maxSpares {
		file.Close()
		if err := j.remove(name); err != nil {
			return err
		}
		return j.fs.SyncDir(".")
	}
	if err := j.fs.Rename(name, spareName(id)); err != nil {
		file.Close()
		return err
	}
	if err := j.fs.SyncDir("."); err != nil {
		file.Close() // the old name may come back: the next Open cleans up
		return err
	}
	j.spares = append(j.spares, spare{spareName(id), file, size})
	return nil
}

// A job rewrites a segment without some of its records. It runs beside the
// committer and touches only what no longer changes.
type job struct {
	seg    *segment
	drop   Classes // 0: none, only damage is left out
	reason Reason
	name   string // of the new file until finish renames it

	out     *segment
	damaged uint64 // records that could not be copied
	err     error
	took    time.Duration
}

func rewriteName(s *segment) string { return fmt.Sprintf("%016x.rewrite%s", s.id, tmpSuffix) }

func (jb *job) run(j *Journal) {
	start := j.clock.Elapsed()
	jb.out, jb.damaged, jb.err = rewrite(j.fs, jb.seg, jb.drop, jb.reason, jb.name)
	jb.took = j.clock.Elapsed() - start
}

// finishLogged is finish where nothing waits for the space.
func (j *Journal) finishLogged(jb *job) {
	if err := j.finish(jb); err != nil {
		j.keepAt = j.clock.Elapsed() + 10*keepAfter // the next roll tries again anyway
		j.log.Warn("segment not thinned out", "err", err)
	}
}

// finish puts the rewritten segment in the place of the old one.
func (j *Journal) finish(jb *job) error {
	j.job, j.keepDue = nil, true
	err := jb.err
	if err == nil && !slices.Contains(j.segments(), jb.seg) { // reclaimed meanwhile
		jb.out.file.Close()
		return j.remove(jb.name)
	}
	if err == nil {
		if err = j.fs.Rename(jb.name, jb.seg.name); err != nil {
			jb.out.file.Close()
		}
	}
	if err != nil {
		if rerr := j.remove(jb.name); rerr != nil {
			j.log.Warn("file not removed", "file", jb.name, "err", rerr)
		}
		return fmt.Errorf("rewrite segment %q: %w", jb.seg.name, err)
	}
	// Should this sync fail, a crash may bring the old file back. It holds the
	// same records and more.
	if err := j.fs.SyncDir("."); err != nil {
		j.log.Warn("directory not synced", "err", err)
	}
	jb.out.name = jb.seg.name
	j.replaceSegment(jb.seg, jb.out)
	jb.seg.retire().Close()
	if jb.damaged > 0 {
		j.damage(jb.seg.name, fmt.Sprintf("%d records", jb.damaged))
	}
	for c := range uint8(MaxClass + 1) {
		if jb.reason == Budget && jb.drop != 0 && jb.drop.Has(c) {
			j.overBudget(c)
		}
	}
	j.counters.rewritten.Add(uint64(jb.out.size))
	j.log.Debug("segment thinned out", "segment", jb.seg.name, "from", jb.seg.size, "to", jb.out.size, "took", jb.took)
	return nil
}
