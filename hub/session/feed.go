package session

import (
	"encoding/binary"
	"slices"
	"sync"
	"time"

	"holdfast/hub"
	"holdfast/hub/broker"
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
	d.behind = true
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

// room is what one Fetch may still bring.
type room struct {
	dst   []broker.Delivery
	count int
	bytes int
	steps int   // records that may be read and not wanted
	now   int64 // unix microseconds
	again bool  // there is more to look at
}

// maxSteps bounds how long one Fetch reads over records that nobody wants.
const maxSteps = 4096

func (r *room) left() bool { return r.count > 0 && r.bytes > 0 }

// fetch adds deliveries for s.
func (d *feed) fetch(s *session, r *room) {
	d.reading.Lock()
	defer d.reading.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.group != nil {
		d.redeliver(s, r)
	}
	for r.left() && len(d.window) < d.hub.o.MaxWindow {
		if s.pinnedBytes > maxPinned {
			r.again = true
			break
		}
		if d.behind {
			if !d.read(s, r) {
				break
			}
			continue
		}
		it, ok := d.pending.pop()
		if !ok {
			break
		}
		if !s.pin(it.job, it.seq) {
			if it.offset == 0 {
				d.drop(1)
			} else {
				d.missed = max(d.missed, it.offset)
				d.fallBehind(it.offset)
			}
			continue
		}
		var rec hub.Record
		if rec.Parse(it.body) == nil {
			d.deliver(s, r, &rec, it.offset, it.match)
		}
	}
	if d.reader != nil && d.hub.readers.Load() > maxReaders {
		d.reader.Release()
	}
}

// maxReaders is how many readers keep their buffers between two Fetches.
const maxReaders = 64

// setReader begins or ends reading the journal. d.reading and d.mu are held.
func (d *feed) setReader(r *journal.Reader) {
	if d.reader != nil {
		d.reader.Release()
		d.hub.readers.Add(-1)
	}
	if d.reader = r; r != nil {
		d.hub.readers.Add(1)
	}
}

func (d *feed) drop(n uint64) {
	d.dropped += n
	d.hub.stats.dropped.Add(n)
}

// read takes the next record of the journal. It returns false when there is
// nothing more to do for now. d.mu is held, but not while it reads.
func (d *feed) read(s *session, r *room) bool {
	if r.steps--; r.steps < 0 {
		r.again = true
		return false
	}
	if d.reader == nil {
		d.setReader(d.hub.j.NewReader(d.next))
	}
	reader := d.reader
	d.mu.Unlock()
	rec, err := reader.Next()
	d.mu.Lock()
	if d.closed {
		d.setReader(nil)
		return false
	}
	switch {
	case err == journal.ErrEnd:
		d.next = max(d.next, reader.Offset())
		if d.missed < d.next {
			d.behind = false // from here on the committer offers
			d.setReader(nil)
			d.trim()
		}
		return true
	case err != nil:
		d.failed = true
		d.hub.raise("sessions-read", err.Error())
		return false
	case rec.Gap != nil:
		d.gap(rec.Gap)
		d.next = max(d.next, rec.Gap.To+1)
		return true
	}
	d.next = rec.Offset + 1
	d.take(s, r, &rec)
	if len(d.window) > 0 && d.window[0].settled {
		d.trim()
	}
	return true
}

// take delivers a record that was read, if it is a message that is wanted.
func (d *feed) take(s *session, r *room, rec *journal.Record) {
	if len(rec.Body) == 0 || rec.Body[0] != hub.KindMessage {
		return
	}
	var m hub.Record
	if m.Parse(rec.Body) != nil {
		return
	}
	how := d.match(&m, rec.Offset)
	if how == nil {
		return
	}
	if _, sent := d.find(rec.Offset); sent {
		return // before a restart
	}
	// The reader's memory is gone with its next step.
	from := len(s.copied)
	s.copied = append(s.copied, rec.Body...)
	if m.Parse(s.copied[from:len(s.copied):len(s.copied)]) == nil {
		d.deliver(s, r, &m, rec.Offset, how)
	}
}

// gap counts what the journal had to drop.
func (d *feed) gap(g *journal.Gap) {
	if g.Reason == journal.Consumed {
		return
	}
	n := uint64(g.To-max(g.From, d.next)) + 1
	d.lost += n
	d.hub.stats.lost.Add(n)
	d.hub.raise("sessions-lost-messages", "the journal dropped messages before a session had read them: "+g.Reason.String())
	d.hub.log.Warn("messages lost", "session", d.name(), "from", g.From, "to", g.To, "reason", g.Reason.String())
}

// match finds how the feed wants a message that it reads from the journal; nil
// when it does not.
func (d *feed) match(m *hub.Record, off journal.Offset) *match {
	how, ok := d.cache[string(m.Topic)]
	if !ok {
		var subs []*subscription
		for _, s := range d.filters {
			if matches(s.topic, m.Topic) {
				subs = append(subs, s)
			}
		}
		if list := grouped(subs); len(list) > 0 {
			how = list[0]
		}
		if d.cache == nil {
			d.cache = make(map[string]*match)
		} else if len(d.cache) >= maxCached {
			clear(d.cache)
		}
		d.cache[string(m.Topic)] = how
	}
	if how != nil && how.since >= off {
		how = d.matchAt(m.Topic, off)
	}
	if how != nil && how.local && string(m.Sender) == d.owner {
		how = how.own
	}
	return how
}

// matchAt is match for a time when not all of today's filters were there.
func (d *feed) matchAt(topic []byte, off journal.Offset) *match {
	var subs []*subscription
	for _, s := range d.filters {
		if off > s.since && matches(s.topic, topic) {
			subs = append(subs, s)
		}
	}
	if list := grouped(subs); len(list) > 0 {
		return list[0]
	}
	return nil
}

// deliver adds one delivery, unless the message has expired.
func (d *feed) deliver(s *session, r *room, rec *hub.Record, off journal.Offset, how *match) {
	qos, ids, asIs := how.qos, how.ids, how.asIs
	if d.group != nil {
		qos, ids, asIs = d.group.terms(s)
	}
	qos = min(qos, rec.QoS)
	if off == 0 {
		qos = 0
	}
	dl, ok := delivery(rec, r.now)
	if !ok {
		d.expired++
		d.hub.stats.expired.Add(1)
		return
	}
	dl.ID = d.id(off)
	dl.SubIDs = ids
	dl.Message.QoS = qos
	dl.Message.Retain = rec.Retain && asIs
	if qos > 0 {
		d.mark(off, qos, false, s)
	}
	r.add(dl)
	d.delivered++
	d.hub.stats.delivered.Add(1)
}

func (r *room) add(dl broker.Delivery) {
	r.dst = append(r.dst, dl)
	r.count--
	r.bytes -= len(dl.Message.Payload) + len(dl.Message.Topic) + len(dl.Message.Props)
}

// delivery makes a delivery of a record; ok is false when it has expired.
func delivery(rec *hub.Record, now int64) (dl broker.Delivery, ok bool) {
	dl.Message = broker.Message{Topic: rec.Topic, Payload: rec.Payload, Props: rec.Props}
	if rec.Expires != 0 {
		if rec.Expires <= now {
			return dl, false
		}
		dl.Message.Expiry = time.Duration(rec.Expires-now) * time.Microsecond
	}
	return dl, true
}

// Identifiers of deliveries. An offset has idOffsetBits; above it stands the
// number of the shared group, 0 for the session's own; the highest bit marks a
// retained message, which has a number of its own instead of an offset.
const (
	idOffsetBits = 44
	idRetained   = 1 << 63
	maxGroup     = 1<<(63-idOffsetBits) - 1
)

func (d *feed) id(off journal.Offset) uint64 {
	if d.group != nil {
		return d.group.number<<idOffsetBits | uint64(off)
	}
	return uint64(off)
}

func splitID(id uint64) (group uint64, off journal.Offset) {
	return id >> idOffsetBits, journal.Offset(id & (1<<idOffsetBits - 1))
}
