package journal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

// MaxState is the largest state of a cursor in bytes.
const MaxState = 64 << 10

// A Cursor is a durable, named position with a small state beside it. It pins
// the records after it against reclaiming, up to the budget. A cursor that was
// never saved pins nothing. Its methods may be called from many goroutines.
type Cursor struct {
	set  *cursors
	name string

	// Guarded by set.mu.
	now     savedCursor // as last saved
	saved   bool        // has a position; false again after Delete
	version uint64      // counts changes
	dirty   bool        // on set.dirty
	fixed   bool        // durable is a position
	durable savedCursor // as a restart would find it
	synced  uint64      // version of durable

	// Frozen by take for the group being committed; the committer's own.
	taken        savedCursor
	takenSaved   bool
	takenVersion uint64
}

// cursors are all cursors of a journal.
type cursors struct {
	mu     sync.Mutex
	all    map[string]*Cursor
	dirty  []*Cursor     // saved and not yet taken by a commit
	since  time.Duration // when dirty became non-empty
	flush  bool          // somebody waits: do not delay
	size   int64         // bytes of a snapshot of all
	max    int64         // limit of size
	delay  time.Duration
	now    func() time.Duration
	poke   func(urgent bool) // wakes the committer
	synced signal
}

// Cursor returns the cursor of that name, making one that was never saved if
// there is none; it is remembered until Delete. A name has 1 to 255 bytes, else
// ErrInvalid.
func (j *Journal) Cursor(name string) (*Cursor, error) {
	if name == "" || len(name) > maxName {
		return nil, fmt.Errorf("cursor name %q: %w", name, ErrInvalid)
	}
	s := &j.cursors
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.all[name]
	if c == nil {
		c = &Cursor{set: s, name: name}
		s.all[name] = c
	}
	return c, nil
}

// Cursors returns the names of all saved cursors, sorted.
func (j *Journal) Cursors() []string {
	s := &j.cursors
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for name, c := range s.all {
		if c.saved {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// Name returns the cursor's name.
func (c *Cursor) Name() string { return c.name }

// Saved reports whether the cursor has a position.
func (c *Cursor) Saved() bool {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	return c.saved
}

// Offset returns the last saved position: this record and all before it are
// done with. It is 0 for a cursor that is not saved.
func (c *Cursor) Offset() Offset {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	return c.now.low
}

// State returns the state saved with the position. It must not be changed.
func (c *Cursor) State() []byte {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	return c.now.state
}

// Save moves the cursor, forward or back, and replaces its state by a copy of
// the given one, at most MaxState bytes. It does not wait. The position is
// durable with the next commit, or after CursorDelay without one. After a crash
// before that, the cursor is where it durably was: records come again, none are
// lost. The error is ErrTooLarge for this state, or for all cursors together
// beyond an eighth of a segment, and ErrClosed for a cursor that was deleted
// and replaced by another of its name; then nothing has changed.
func (c *Cursor) Save(low Offset, state []byte) error {
	s := c.set
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.all[c.name]; other == nil {
		s.all[c.name] = c // was deleted
	} else if other != c {
		return fmt.Errorf("cursor %q was deleted: %w", c.name, ErrClosed)
	}
	was := int64(0)
	if c.saved {
		was = c.now.bytes(c.name)
	}
	next := savedCursor{low, state}
	size := s.size - was + next.bytes(c.name)
	if len(state) > MaxState || size > s.max && size > s.size {
		return fmt.Errorf("cursor %q with %d bytes of state: %w", c.name, len(state), ErrTooLarge)
	}
	next.state = slices.Clone(state) // State hands it out, so it is never reused
	s.size = size
	c.now, c.saved = next, true
	c.touch()
	return nil
}

// Delete forgets the cursor, durably with the next commit. Until then it still
// pins its records.
func (c *Cursor) Delete() {
	c.set.mu.Lock()
	defer c.set.mu.Unlock()
	if !c.saved {
		if !c.fixed && !c.dirty && c.set.all[c.name] == c {
			delete(c.set.all, c.name)
		}
		return
	}
	c.set.size -= c.now.bytes(c.name)
	c.now, c.saved = savedCursor{}, false
	c.touch()
}

// touch queues the cursor for the next commit. The caller holds set.mu.
func (c *Cursor) touch() {
	s := c.set
	c.version++
	if c.dirty {
		return
	}
	c.dirty = true
	if len(s.dirty) == 0 {
		s.since = s.now()
		s.poke(false)
	}
	s.dirty = append(s.dirty, c)
}

// Flush waits until the last Save or Delete is durable, or ctx ends.
func (c *Cursor) Flush(ctx context.Context) error {
	s := c.set
	s.mu.Lock()
	want := c.version
	s.flush = s.flush || c.synced < want
	s.mu.Unlock()
	for {
		done := s.synced.next()
		s.mu.Lock()
		ok := c.synced >= want
		s.mu.Unlock()
		if ok {
			return nil
		}
		s.poke(true)
		select {
		case <-done:
		case <-ctx.Done():
			return fmt.Errorf("flush cursor %q: %w", c.name, ctx.Err())
		}
	}
}

// bytes is what the cursor takes in a snapshot, at most.
func (c savedCursor) bytes(name string) int64 { return int64(len(name) + len(c.state) + 16) }

// append encodes what was taken.
func (c *Cursor) append(b []byte) []byte {
	if !c.takenSaved {
		return appendDelete(b, c.name)
	}
	return appendCursor(b, c.name, c.taken.low, c.taken.state)
}

// dueIn returns how long the dirty cursors may still wait.
func (s *cursors) dueIn(now time.Duration) (d time.Duration, dirty bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.dirty) == 0 {
		return 0, false
	}
	if s.flush {
		return 0, true
	}
	return s.since + s.delay - now, true
}

// take freezes dirty cursors for a commit, at least one if there is any, about
// limit bytes of them.
func (s *cursors) take(limit int) (taken []*Cursor, size int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for ; n < len(s.dirty) && (n == 0 || size < limit); n++ {
		c := s.dirty[n]
		c.taken, c.takenSaved, c.takenVersion, c.dirty = c.now, c.saved, c.version, false
		size += int(c.now.bytes(c.name))
	}
	taken = slices.Clone(s.dirty[:n])
	s.dirty = slices.Delete(s.dirty, 0, n)
	s.flush = s.flush && len(s.dirty) > 0
	return taken, size
}

// restore makes cursors dirty again after a commit that failed.
func (s *cursors) restore(taken []*Cursor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range taken {
		if !c.dirty {
			c.dirty = true
			s.dirty = append(s.dirty, c)
		}
	}
	s.since = s.now()
}

// confirm notes that a commit made them durable, and reports whether there
// were any.
func (s *cursors) confirm(taken []*Cursor) bool {
	if len(taken) == 0 {
		return false
	}
	s.mu.Lock()
	for _, c := range taken {
		c.durable, c.fixed, c.synced = c.taken, c.takenSaved, c.takenVersion
		if !c.fixed && !c.saved && !c.dirty {
			delete(s.all, c.name)
		}
	}
	s.mu.Unlock()
	s.synced.notify()
	return true
}

// eachDurable visits what a restart would find, in the order of names.
func (s *cursors) eachDurable(visit func(name string, c savedCursor)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := make([]string, 0, len(s.all))
	for name, c := range s.all {
		if c.fixed {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	for _, name := range names {
		visit(name, s.all[name].durable)
	}
}

// lowest returns the least durable position, and false without cursors.
func (s *cursors) lowest() (low Offset, any bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.all {
		if c.fixed && (!any || c.durable.low < low) {
			low, any = c.durable.low, true
		}
	}
	return low, any
}

// load takes over what Open found.
func (s *cursors) load(found map[string]savedCursor) {
	for name, f := range found {
		s.all[name] = &Cursor{set: s, name: name, now: f, saved: true, durable: f, fixed: true}
		s.size += f.bytes(name)
	}
}
