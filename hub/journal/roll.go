package journal

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"holdfast/drivers/disk"
)

const (
	tmpSuffix = ".tmp"
	maxSpares = 2 // files kept for reuse
)

// A spare is a segment file whose records are all gone and whose extents are
// worth keeping: writing into it again touches no file system metadata.
type spare struct {
	name string
	file disk.File
	size int64
}

func spareName(id uint64) string { return fmt.Sprintf("%016x%s", id, spareSuffix) }

func random64() uint64 {
	var b [8]byte
	rand.Read(b[:]) // never fails
	return binary.LittleEndian.Uint64(b[:])
}

// roll begins a new segment and seals the one before. The order is what Open
// relies on: the new file is complete and durable before it gets its name, its
// name is durable before the old one is sealed. So a sealed segment always has
// a successor, and one that has none has lost it.
func (j *Journal) roll() error {
	if err := j.makeRoom(j.o.SegmentBytes); err != nil && !errors.Is(err, errLater) {
		return err
	}
	old := j.active
	s, err := j.newSegment()
	if disk.IsFull(err) && j.reclaim(0, true) > 0 { // KeepConsumed yields to a full disk
		s, err = j.newSegment()
	}
	if err != nil {
		return fmt.Errorf("begin segment: %w", err)
	}
	j.active, j.unrecorded = s, false // the snapshot has all that is lost
	j.addSegment(s)
	if old != nil && !old.bad {
		if err := j.sealSegment(old); err != nil {
			// Not sealed means scanned at the next Open, nothing worse.
			j.log.Warn("segment not sealed", "segment", old.name, "err", err)
		}
	}
	j.keepDue = true
	if err := j.makeRoom(0); err != nil { // what could not be recorded before
		j.log.Warn("budget exceeded", "err", err)
	}
	return nil
}

// newSegment makes the file of a segment that begins after the last committed
// record: header and a snapshot of the state, synced, then named.
func (j *Journal) newSegment() (*segment, error) {
	j.lastID++
	head := segHeader{
		id: j.lastID, epoch: j.epoch.Load(), salt: random64(),
		base: j.Committed() + 1, created: j.clock.Now().UnixMicro(), size: j.o.SegmentBytes,
	}
	file, from, filled, err := j.blank(head)
	if err != nil {
		return nil, err
	}
	s := &segment{segHeader: head, name: segName(head.id), size: head.size, file: file}
	s.filled = dataPos
	if filled {
		s.filled = head.size
	}
	buf := make([]byte, dataPos, dataPos+pageSize)
	head.append(buf[:0])
	w := frameWriter{buf: buf[dataPos:], salt: head.salt, pos: dataPos, durable: dataPos}
	j.snapshot(&w, head.base)
	buf = append(buf, w.buf...)
	end := int64(len(buf))
	buf = append(buf, make([]byte, alignUp(end, pageSize)-end)...)
	s.end.Store(end)
	s.nextOf.Store(uint64(head.base))
	if _, err = file.WriteAt(buf, 0); err == nil {
		err = j.sync(file)
	}
	if err == nil {
		// From here on the file may turn up after a crash as the last segment,
		// and then what it says about the end of the one before is believed. So
		// that one takes nothing more, even if this fails.
		j.active = nil
		if err = j.fs.Rename(from, s.name); err == nil {
			from, err = s.name, j.fs.SyncDir(".")
		}
	}
	if err != nil {
		file.Close()
		return nil, errors.Join(fmt.Errorf("make segment %q: %w", s.name, err), j.remove(from))
	}
	return s, nil
}

// blank returns a file for a new segment: a spare one, or a new one with its
// space reserved.
func (j *Journal) blank(head segHeader) (f disk.File, name string, filled bool, err error) {
	for len(j.spares) > 0 {
		sp := j.spares[len(j.spares)-1]
		j.spares = j.spares[:len(j.spares)-1]
		if sp.size == head.size {
			return sp.file, sp.name, true, nil
		}
		sp.file.Close()
		if err := j.remove(sp.name); err != nil {
			return nil, "", false, err
		}
	}
	name = segName(head.id) + tmpSuffix
	if f, err = j.fs.Create(name); err != nil {
		return nil, "", false, fmt.Errorf("make segment: %w", err)
	}
	if err = f.Allocate(head.size); err != nil {
		f.Close()
		return nil, "", false, errors.Join(fmt.Errorf("reserve segment: %w", err), j.remove(name))
	}
	return f, name, false, nil
}

// remove deletes a file; one that is not there is fine.
func (j *Journal) remove(name string) error {
	if err := j.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// snapshot writes all state there is.
func (j *Journal) snapshot(w *frameWriter, next Offset) {
	w.state(next, flagReset, func(b []byte) []byte { return b })
	for _, g := range j.lost {
		w.state(next, 0, func(b []byte) []byte { return appendLost(b, g) })
	}
	j.cursors.eachDurable(func(name string, c savedCursor) {
		w.state(next, 0, func(b []byte) []byte { return appendCursor(b, name, c.low, c.state) })
	})
	w.cur.flags |= flagWhole
	w.close()
}

// sealSegment writes and syncs the seal of a segment that will not grow.
func (j *Journal) sealSegment(s *segment) error {
	if err := writeSeal(s); err != nil {
		return err
	}
	if err := j.sync(s.file); err != nil {
		return err
	}
	s.markSealed()
	return nil
}

// writeSeal writes index and seal, unsynced.
func writeSeal(s *segment) error {
	s.seal.after, s.seal.stop = s.next(), s.end.Load()
	s.indexPos = max(s.seal.stop, s.past)
	var index []indexEntry
	if p := s.index.Load(); p != nil {
		index = *p
	}
	w := frameWriter{salt: s.salt, pos: s.indexPos, durable: s.seal.stop}
	w.begin(frameIndex, 0, s.seal.after, 0)
	w.buf = appendIndex(w.buf, index)
	w.close()
	if _, err := s.file.WriteAt(w.buf, s.indexPos); err != nil {
		return err
	}
	_, err := s.file.WriteAt(s.seal.append(nil, s.salt), sealPos)
	return err
}

// segments returns the current list, oldest first. It must not be changed.
func (j *Journal) segments() []*segment { return *j.view.Load() }

// addSegment publishes a list with one more.
func (j *Journal) addSegment(s *segment) {
	list := append(slices.Clone(j.segments()), s)
	j.view.Store(&list)
}

// replaceSegment publishes a list without old, or with another in its place.
func (j *Journal) replaceSegment(old, by *segment) {
	list := slices.Clone(j.segments())
	i := slices.Index(list, old)
	if by == nil {
		list = slices.Delete(list, i, i+1)
	} else {
		list[i] = by
	}
	j.view.Store(&list)
}

// footprint returns the bytes of all files that count against the budget.
func (j *Journal) footprint() (n int64) {
	for _, s := range j.segments() {
		n += s.size
	}
	for _, s := range j.spares {
		n += s.size
	}
	return n
}
