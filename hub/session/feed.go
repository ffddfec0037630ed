package session

import (
	"encoding/binary"
	"slices"
	"sync"

	"holdfast/hub/journal"
)

// A feed is a position in the journal with filters and a window: what one
// session, or one group that shares a subscription, has still to get.
//
// It is in one of two modes. While it follows, the committer offers it every
// message that it wants, and it keeps a bounded list of pointers into the ring.
// When it is behind, it has no list: next is where it goes on reading the
// journal. An offline feed follows without a list until a message comes that it
// wants; then it is behind. It follows again when it has read everything.
type feed struct {
	hub     *Hub
	session *session // whose feed it is; nil for a group's
	group   *group
	owner   string // name of the client, for "no local"

	// reading is held by the one who fetches, also while it reads the journal;
	// mu is not, because the committer must not wait for a file.
	reading sync.Mutex

	mu      sync.Mutex
	online  bool // there is somebody to send to
	closed  bool
	durable bool
	filters []*subscription
	cache   map[string]*match // by topic, for reading the journal; at most maxCached
	behind  bool
	next    journal.Offset // nothing before it is wanted from the journal
	missed  journal.Offset // newest one wanted while behind
	wanted  bool           // while behind and offline: the record at next is wanted
	reader  *journal.Reader
	pending queue
	window  []slot // sent and not confirmed, and confirmed after such; ascending
	orphans int    // of a group: at least so many wait for a new holder
	failed  bool   // the journal could not be read

	cursor     *journal.Cursor
	saved      journal.Offset
	savedBytes uint64
	moved      bool // something was confirmed since the cursor was saved

	delivered, lost, expired, dropped uint64
}

// A slot is one delivery that is to be confirmed.
type slot struct {
	offset  journal.Offset
	qos     byte
	settled bool
	to      *session // of a group: who has it; nil = who asks next
}

// An item is a message that waits for a session that keeps up.
type item struct {
	job    *job
	seq    uint64
	offset journal.Offset // 0: not stored
	match  *match
	body   []byte // valid while the job is pinned
}

// offer is called by the committer for a message that the feed wants at qos. It
// reports whether the feed kept the item.
func (d *feed) offer(f *fanout, it item, body []byte, qos byte) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	stored := it.offset != 0
	switch {
	case stored && it.offset < d.next:
		return false // it was read from the journal already
	case !stored && (d.behind || !d.online || it.job == nil || d.pending.len() >= d.hub.o.MaxPending):
		if d.online {
			d.drop(1)
		}
		return false
	case !d.online && qos == 0:
		return false
	case d.behind:
		d.missed = it.offset
		return false
	case !d.online || it.job == nil || d.pending.len() >= d.hub.o.MaxPending:
		d.fallBehind(it.offset)
		d.missed = it.offset
		d.note()
		return false
	}
	it.body = body
	d.pending.push(it)
	d.note()
	return true
}

// note has the feed's sessions woken after the group.
func (d *feed) note() {
	if d.session != nil {
		d.session.note()
		return
	}
	for _, m := range d.group.members {
		m.feed.session.note()
	}
}

// fallBehind forgets the list and goes on at the first message in it that is
// stored, or at one.
func (d *feed) fallBehind(one journal.Offset) {
	d.next = one
	for {
		it, ok := d.pending.pop()
		if !ok {
			break
		}
		if it.offset == 0 {
			d.drop(1)
			continue
		}
		d.next = min(d.next, it.offset)
		d.missed = max(d.missed, it.offset)
	}
	d.pending = queue{}
	d.behind, d.wanted = true, true
	if !d.durable {
		d.pinJournal()
	}
	d.hub.stats.fellBehind.Add(1)
}

// pinJournal keeps the journal from forgetting what a feed without a durable
// cursor has still to read.
func (d *feed) pinJournal() {
	if d.cursor == nil {
		c, err := d.hub.j.Cursor(d.name())
		if err != nil {
			d.hub.log.Error("no cursor", "session", d.name(), "error", err)
			return
		}
		d.cursor = c
	}
	d.save(d.low())
}

// name is that of the feed's cursor.
func (d *feed) name() string {
	if d.group != nil {
		return cursorName(groupCursor, d.group.number)
	}
	return cursorName(sessionCursor, d.session.number)
}

// low returns the newest offset up to which nothing is wanted any more.
func (d *feed) low() journal.Offset {
	first := journal.Offset(d.hub.applied.Load()) + 1
	if d.behind {
		first = d.next
	} else if off := d.pending.firstStored(); off != 0 {
		first = min(first, off)
	}
	if len(d.window) > 0 {
		first = min(first, d.window[0].offset)
	}
	return first - 1
}

// save moves the cursor.
func (d *feed) save(low journal.Offset) {
	if err := d.cursor.Save(low, d.settledState()); err != nil {
		d.hub.log.Error("cursor not saved", "session", d.name(), "error", err)
		return
	}
	d.saved, d.moved = low, false
	d.savedBytes = d.hub.stats.storedBytes.Load()
}

// settledState encodes what was confirmed out of order: the distances of their
// offsets as varints.
func (d *feed) settledState() []byte {
	var b []byte
	last := journal.Offset(0)
	for _, s := range d.window {
		if s.settled {
			b = binary.AppendUvarint(b, uint64(s.offset-last))
			last = s.offset
		}
		if len(b) > journal.MaxState-binary.MaxVarintLen64 {
			break
		}
	}
	return b
}

// restore sets the position of a feed from its cursor when the hub opens, or to
// start when it was never saved.
func (d *feed) restore(start journal.Offset) error {
	c, err := d.hub.j.Cursor(d.name())
	if err != nil {
		return err
	}
	d.cursor = c
	low, end := max(start, d.saved), d.hub.j.Committed()
	if c.Saved() {
		low = max(low, c.Offset())
		at := journal.Offset(0)
		for b := c.State(); len(b) > 0; {
			v, n := binary.Uvarint(b)
			if n <= 0 {
				break
			}
			b = b[n:]
			at += journal.Offset(v)
			d.mark(at, 1, true, nil)
		}
	}
	low = min(low, end) // the journal may have lost its end to damage
	d.window = slices.DeleteFunc(d.window, func(s slot) bool { return s.settled && s.offset <= low || s.offset > end })
	d.saved = low
	d.next = low + 1
	d.behind = low < end
	d.missed = end
	return nil
}

// mark sets the state of a slot, making it if it is not there.
func (d *feed) mark(off journal.Offset, qos byte, settled bool, to *session) {
	i, found := d.find(off)
	if !found {
		d.window = slices.Insert(d.window, i, slot{offset: off, qos: qos, to: to})
	}
	d.window[i].settled = d.window[i].settled || settled
}

func (d *feed) find(off journal.Offset) (int, bool) {
	n := len(d.window)
	if n == 0 || off > d.window[n-1].offset {
		return n, false
	}
	return slices.BinarySearchFunc(d.window, off, func(s slot, off journal.Offset) int {
		switch {
		case s.offset < off:
			return -1
		case s.offset > off:
			return 1
		}
		return 0
	})
}

// settle takes a confirmation. It reports whether the window was full.
func (d *feed) settle(off journal.Offset, by *session) (wasFull bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	i, found := d.find(off)
	if !found || d.window[i].settled || d.group != nil && d.window[i].to != by {
		return false
	}
	wasFull = len(d.window) >= d.hub.o.MaxWindow
	d.window[i].settled = true
	d.moved = true
	d.trim()
	return wasFull
}

// trim takes what is over off the front of the window. What lies ahead of the
// place where the journal is read stays: after a restart it tells that a record
// is not wanted again.
func (d *feed) trim() {
	n := 0
	for n < len(d.window) && d.window[n].settled && !(d.behind && d.window[n].offset >= d.next) {
		n++
	}
	if n == len(d.window) {
		d.window = d.window[:0]
	} else {
		d.window = d.window[n:]
	}
}
