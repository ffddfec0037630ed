package session

import (
	"time"

	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

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
	rec, ok := d.advance()
	if rec == nil {
		return ok
	}
	d.take(s, r, rec)
	if len(d.window) > 0 && d.window[0].settled {
		d.trim()
	}
	return true
}

// advance moves one record on in the journal. The record is nil at the end of
// the journal, where the feed begins to follow, and for a gap; ok is false when
// reading must stop. d.reading and d.mu are held; d.mu is not while it reads.
func (d *feed) advance() (rec *journal.Record, ok bool) {
	if d.reader == nil {
		d.setReader(d.hub.j.NewReader(d.next))
	}
	reader := d.reader
	d.mu.Unlock()
	next, err := reader.Next()
	d.mu.Lock()
	if d.closed {
		d.setReader(nil)
		return nil, false
	}
	if err != nil && err != journal.ErrEnd {
		d.failed = true
		d.hub.raise("sessions-read", err.Error())
		return nil, false
	}
	d.wanted = false
	if d.failed {
		d.failed = false
		d.hub.clear("sessions-read")
	}
	switch {
	case err != nil:
		d.next = max(d.next, reader.Offset())
		if d.missed < d.next {
			d.behind = false // from here on the committer offers
			d.setReader(nil)
			d.trim()
		}
		return nil, true
	case next.Gap != nil:
		d.gap(next.Gap)
		d.next = max(d.next, next.Gap.To+1)
		return nil, true
	}
	d.next = next.Offset + 1
	return &next, true
}

// skim lets a feed that is behind and has nobody to send to pass over what it
// does not want, so that the journal need not keep that: after a restart nobody
// knows what lies between the saved position and the end. It stops at the first
// message that is wanted, and returns how many of the steps are left.
func (d *feed) skim(steps int) int {
	d.reading.Lock()
	defer d.reading.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	for ; steps > 0 && d.behind && !d.online && !d.wanted && !d.closed; steps-- {
		rec, ok := d.advance()
		if !ok {
			break
		}
		if rec != nil && d.wants(rec) {
			d.next = rec.Offset
			d.wanted = true
		}
	}
	d.moved = true
	if d.reader != nil {
		d.setReader(nil)
	}
	return steps
}

// wants reports whether a record is for the feed, with QoS 1 or 2.
func (d *feed) wants(rec *journal.Record) bool {
	if _, sent := d.find(rec.Offset); sent || len(rec.Body) == 0 || rec.Body[0] != hub.KindMessage {
		return false
	}
	var m hub.Record
	if m.Parse(rec.Body) != nil {
		return false
	}
	how := d.match(&m, rec.Offset)
	return how != nil && min(how.qos, m.QoS) > 0
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
