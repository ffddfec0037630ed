package journal

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"holdfast/drivers/disk"
)

const (
	lockName      = "lock"
	quarantineDir = "quarantine"
	maxQuarantine = 4 // files kept for a look; overflow rule: the oldest goes
	spareSuffix   = ".spare"
	salvageSuffix = ".salvage"
)

// recovery is what Open finds out.
type recovery struct {
	j       *Journal
	list    []*segment
	state   state
	next    Offset  // after the last record known
	damage  bool    // confirmed records are gone: a new epoch begins
	lastOK  bool    // the last segment can be appended to
	torn    []int64 // of the last segment: positions of frames to wipe
	durable int64   // of the last segment: the newest witness's word
	bad     map[*segment]bool
	aside   []uint64 // ids of files that were quarantined unread
}

// recover reads the directory and repairs it.
func (j *Journal) recover() error {
	r := recovery{j: j, bad: map[*segment]bool{}}
	// What a process before this one renamed may be seen and yet not be
	// durable. Nothing is removed because of a name that a crash can take back.
	if err := j.fs.SyncDir("."); err != nil {
		return err
	}
	names, err := r.tidy()
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := r.open(name); err != nil {
			return err
		}
	}
	slices.SortFunc(r.list, func(a, b *segment) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	if err := r.scan(); err != nil {
		return err
	}
	if err := r.dropLeftovers(); err != nil {
		return err
	}
	r.findHoles()
	return r.settle()
}

// tidy removes what a crash left half made and returns the names of segments.
func (r *recovery) tidy() ([]string, error) {
	j := r.j
	all, err := j.fs.List(".")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range all {
		switch id, suffix, ok := parseName(name); {
		case strings.HasSuffix(name, tmpSuffix):
			if err := j.remove(name); err != nil {
				return nil, err
			}
		case !ok:
			if name != lockName && name != quarantineDir {
				j.log.Warn("unknown file left alone", "file", name)
			}
		case suffix == salvageSuffix:
			// Complete and durable before the damaged file moved away.
			if slices.Contains(all, segName(id)) {
				if err := j.remove(name); err != nil {
					return nil, err
				}
				continue
			}
			if err := j.fs.Rename(name, segName(id)); err != nil {
				return nil, err
			}
			if err := j.fs.SyncDir("."); err != nil {
				return nil, err
			}
			r.damage = true // the run that salvaged it may not have told
			names = append(names, segName(id))
		case suffix == spareSuffix:
			if err := r.openSpare(name); err != nil {
				return nil, err
			}
			j.lastID = max(j.lastID, id)
		default:
			j.lastID = max(j.lastID, id)
			names = append(names, name)
		}
	}
	return names, nil
}

// parseName takes the name of a segment, spare or salvaged file apart.
func parseName(name string) (id uint64, suffix string, ok bool) {
	suffix = path.Ext(name)
	switch suffix {
	case segSuffix, spareSuffix, salvageSuffix:
	default:
		return 0, "", false
	}
	stem := strings.TrimSuffix(name, suffix)
	id, err := strconv.ParseUint(stem, 16, 64)
	return id, suffix, err == nil && len(stem) == 16
}

func (r *recovery) openSpare(name string) error {
	j := r.j
	f, err := j.fs.Open(name)
	if err != nil {
		return err
	}
	size, err := f.Size()
	if err == nil && size == j.o.SegmentBytes && len(j.spares) < maxSpares {
		j.spares = append(j.spares, spare{name, f, size})
		return nil
	}
	f.Close()
	return j.remove(name)
}

// open reads header and seal of one segment file. What cannot be a segment is
// quarantined.
func (r *recovery) open(name string) error {
	f, err := r.j.fs.Open(name)
	if err != nil {
		return err
	}
	s, err := readSegment(f, name)
	if errors.Is(err, errInvalid) {
		f.Close()
		id, _, _ := parseName(name)
		r.damage, r.aside = true, append(r.aside, id)
		r.j.damage(name, "its header")
		return r.quarantine(name)
	}
	if err != nil {
		f.Close()
		return fmt.Errorf("open segment %q: %w", name, err)
	}
	r.list = append(r.list, s)
	return nil
}

// readSegment reads header and seal.
func readSegment(f disk.File, name string) (*segment, error) {
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	w := window{r: f, size: size, lenient: true}
	b, err := w.at(0, int(min(size, dataPos)))
	if err != nil && err != io.EOF {
		return nil, err
	}
	head, err := parseHeader(b)
	if err != nil {
		return nil, err
	}
	if name != segName(head.id) {
		return nil, fmt.Errorf("header of segment %016x: %w", head.id, errInvalid)
	}
	s := &segment{segHeader: head, name: name, size: size, file: f}
	if len(b) == dataPos {
		if sl, err := parseSeal(b[sealPos:], head.salt); err == nil && sl.stop <= size && sl.after >= head.base {
			s.seal = sl
			s.end.Store(sl.stop)
			s.nextOf.Store(uint64(sl.after))
			s.markSealed()
		}
	}
	return s, nil
}

// scan reads the segments that have no seal, normally the last one only, and
// the state, which the last one begins with.
func (r *recovery) scan() error {
	for i, s := range r.list {
		last := i == len(r.list)-1
		limit := Offset(0) // the next segment's base is the word on where this one ends
		if !last {
			limit = r.list[i+1].base
		}
		if s.sealed.Load() && !last {
			continue
		}
		if err := r.scanOne(s, limit); err != nil {
			return err
		}
		if last {
			r.lastOK = !s.sealed.Load() && !r.bad[s] && s.size == s.segHeader.size && s.size == r.j.o.SegmentBytes
			if s.sealed.Load() { // sealed only after its successor was named
				r.damage = true
				r.j.damage(s.name, "its successor")
			}
		}
	}
	if n := len(r.list); n > 0 && !r.state.whole {
		r.damage = true
		r.j.damage(r.list[n-1].name, "the cursors")
		return r.olderState()
	}
	return nil
}

// scanOne walks a segment and learns what it holds. State is kept as long as
// the segment is the last.
func (r *recovery) scanOne(s *segment, limit Offset) error {
	sealed := s.sealed.Load()
	next := s.base
	var st stats
	k := walk{w: window{r: s.file}, salt: s.salt, size: s.size}
	if sealed {
		k.size = s.seal.stop
	}
	stop := int64(0) // where the frames of a group that failed begin
	k.onFrame = func(f frame, body []byte) error {
		if limit != 0 && f.first >= limit && stop == 0 {
			stop = f.pos
		}
		if stop != 0 {
			return nil
		}
		switch f.kind {
		case frameState:
			if limit == 0 {
				if err := r.state.apply(f.flags, body); err != nil {
					r.state.whole = false
				}
			}
		case frameData:
			if f.first < next {
				return nil
			}
			next = f.first + Offset(f.count)
			if !sealed {
				s.addIndex(f)
				addStats(&st, f, body)
			}
		}
		return nil
	}
	k.onDamage = func(_, _ int64, after Offset) error {
		if stop == 0 {
			r.bad[s] = true
			next = max(next, after)
		}
		return nil
	}
	if err := k.run(dataPos); err != nil {
		return fmt.Errorf("scan segment %q: %w", s.name, err)
	}
	if sealed {
		r.bad[s] = r.bad[s] || k.end != s.seal.stop
		return nil
	}
	if limit != 0 {
		r.bad[s] = r.bad[s] || next < limit
		next = limit
	}
	if stop != 0 {
		s.past, k.end = k.end, stop
	}
	s.stats = st
	s.end.Store(k.end)
	s.nextOf.Store(uint64(next))
	r.torn, r.durable = k.torn, k.durable
	return nil
}

func addStats(st *stats, f frame, body []byte) {
	for len(body) > 0 {
		it, rest, err := cutItem(body, f.time)
		if err != nil {
			return
		}
		body = rest
		if it.gap > 0 {
			st.gapClasses |= f.classes
		} else {
			st.add(it.class, it.time, len(it.body))
		}
	}
}

// olderState goes back for cursors when the last segment has lost them.
func (r *recovery) olderState() error {
	partial := r.state
	for i := len(r.list) - 2; i >= 0; i-- {
		r.state = state{}
		s := r.list[i]
		k := walk{w: window{r: s.file}, salt: s.salt, size: s.end.Load(), onDamage: func(_, _ int64, _ Offset) error { return nil }}
		k.onFrame = func(f frame, body []byte) error {
			if f.kind == frameState {
				return r.state.apply(f.flags, body)
			}
			return nil
		}
		if err := k.run(dataPos); err != nil && !errors.Is(err, errInvalid) {
			return err
		}
		if r.state.whole {
			break
		}
	}
	if !r.state.whole {
		r.state = partial
	}
	if r.state.cursors == nil {
		r.state.cursors = map[string]savedCursor{}
	}
	for name, c := range partial.cursors { // newer than any older snapshot
		r.state.cursors[name] = c
	}
	for _, g := range partial.lost {
		r.state.lost = r.state.lost.add(g)
	}
	return nil
}

// dropLeftovers removes segments that were dropped before the crash, and empty
// ones that never got a record.
func (r *recovery) dropLeftovers() error {
	keep := r.list[:0:0]
	for i, s := range r.list {
		last := i == len(r.list)-1
		g := r.state.lost.at(s.base, max(s.base, s.next()-1))
		dropped := g.Reason != Missing && s.next() > s.base && g.From == s.base && covers(r.state.lost, s.base, s.next()-1)
		if last || !dropped && s.next() > s.base {
			keep = append(keep, s)
			continue
		}
		s.file.Close()
		if err := r.j.remove(s.name); err != nil {
			return err
		}
	}
	r.list = keep
	return nil
}

// covers reports whether every offset of from..to is explained.
func covers(l lostRanges, from, to Offset) bool {
	for from <= to {
		g := l.at(from, to)
		if g.Reason == Missing && !slices.ContainsFunc(l, func(k Gap) bool { return k.From <= from && from <= k.To }) {
			return false
		}
		from = g.To + 1
	}
	return true
}

// findHoles compares the segments with the list of lost ranges. A hole that the
// list does not explain is a file that could not be read or that somebody took.
func (r *recovery) findHoles() {
	at, id := Offset(1), uint64(0)
	for _, s := range r.list {
		if to := s.base - 1; at <= to && !covers(r.state.lost, at, to) {
			reason := Missing
			if slices.ContainsFunc(r.aside, func(q uint64) bool { return id < q && q < s.id }) {
				reason = Damaged
			}
			r.damage = true
			r.state.lost = r.state.lost.add(Gap{From: at, To: to, Reason: reason})
			r.j.damage("", fmt.Sprintf("records %d to %d", at, to))
		}
		at, id = s.next(), s.id
	}
	r.next = at
}

// settle decides where the journal goes on.
func (r *recovery) settle() error {
	j := r.j
	for i, s := range r.list {
		if !r.bad[s] {
			continue
		}
		r.damage = true
		j.damage(s.name, "some of its records")
		if fixed, err := r.salvage(s); err != nil {
			j.log.Warn("damaged segment stays where it is", "segment", s.name, "err", err)
			s.bad = true
		} else {
			r.list[i] = fixed
		}
	}
	n := len(r.list)
	if n > 0 {
		j.lastID = max(j.lastID, r.list[n-1].id)
		j.epoch.Store(r.list[n-1].epoch)
	}
	for _, c := range r.state.cursors {
		if c.low >= r.next { // its records were confirmed, so they are lost
			r.damage = true
		}
	}
	if r.damage && (n > 0 || len(r.state.lost) > 0) || n == 0 {
		r.newEpoch()
	} else if r.lastOK {
		if err := r.resume(r.list[n-1]); err != nil {
			return err
		}
	}
	j.committed.Store(uint64(r.next - 1))
	j.setLost(r.state.lost)
	j.cursors.load(r.state.cursors)
	list := slices.Clone(r.list)
	j.view.Store(&list)
	for _, s := range list[:max(0, n-1)] { // those a crash left without a seal
		if !s.bad && !s.sealed.Load() {
			if err := j.sealSegment(s); err != nil {
				j.log.Warn("segment not sealed", "segment", s.name, "err", err)
			}
		}
	}
	if r.damage && n > 0 { // the new epoch and the lost ranges want to be remembered
		if err := j.rollChecked(); err != nil {
			j.failed(err)
		}
	}
	return nil
}

// newEpoch makes sure that no offset is ever used for another record. How many
// records are gone with the end of the log nobody knows, so the numbering goes
// on a good way behind everything that was seen.
func (r *recovery) newEpoch() {
	j := r.j
	j.epoch.Store(random64())
	seen := r.next
	for _, c := range r.state.cursors {
		seen = max(seen, c.low+1)
	}
	for _, g := range r.state.lost {
		seen = max(seen, g.To+1)
	}
	if seen > r.next {
		r.state.lost = r.state.lost.add(Gap{From: r.next, To: seen - 1, Reason: Missing})
		r.next = seen
	}
}

// resume goes on at the end of the last segment. Frames that the power cut
// left behind the end were never confirmed; they are wiped, or one day they
// might fit onto what is appended now.
func (r *recovery) resume(s *segment) error {
	for _, pos := range r.torn {
		if _, err := s.file.WriteAt(make([]byte, frameLen), pos); err != nil {
			return fmt.Errorf("wipe torn end of segment %q: %w", s.name, err)
		}
	}
	// The last group has no witness that it was synced. What a process wrote
	// before it died is read back from the page cache, where it may even be
	// marked clean after a sync that failed. Written again, it is dirty, and
	// this sync means something.
	end := s.end.Load()
	w := window{r: s.file, size: end}
	for pos := max(r.durable, dataPos); pos < end; {
		n := min(end-pos, copyBytes)
		b, err := w.at(pos, int(n))
		if err == nil {
			_, err = s.file.WriteAt(b, pos)
		}
		if err != nil {
			return fmt.Errorf("write the end of segment %q again: %w", s.name, err)
		}
		pos += n
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %q: %w", s.name, err)
	}
	s.filled = alignUp(s.end.Load(), pageSize)
	r.j.active = s
	r.j.dirtyEnd = true
	return nil
}

// salvage copies what is sound of a damaged segment and moves the original to
// quarantine. Each step is durable before the next.
func (r *recovery) salvage(s *segment) (*segment, error) {
	j := r.j
	name := fmt.Sprintf("%016x%s", s.id, salvageSuffix)
	out, _, err := rewrite(j.fs, s, 0, Damaged, name+tmpSuffix)
	if err != nil {
		return nil, err
	}
	if err = j.fs.Rename(name+tmpSuffix, name); err == nil {
		err = j.fs.SyncDir(".")
	}
	if err == nil {
		err = r.quarantine(s.name)
	}
	if err == nil {
		if err = j.fs.Rename(name, s.name); err == nil {
			err = j.fs.SyncDir(".")
		}
	}
	if err != nil {
		out.file.Close()
		return nil, err
	}
	s.file.Close()
	out.name = s.name
	return out, nil
}

// quarantine moves a file aside and forgets the oldest ones there.
func (r *recovery) quarantine(name string) error {
	j := r.j
	if err := j.fs.MkdirAll(quarantineDir); err != nil {
		return err
	}
	held, err := j.fs.List(quarantineDir)
	if err != nil {
		return err
	}
	for len(held) >= maxQuarantine {
		if err := j.fs.Remove(path.Join(quarantineDir, held[0])); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		held = held[1:]
	}
	if err := j.fs.Rename(name, path.Join(quarantineDir, name)); err != nil {
		return err
	}
	if err := j.fs.SyncDir(quarantineDir); err != nil {
		return err
	}
	return j.fs.SyncDir(".")
}
