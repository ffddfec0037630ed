package session

import (
	"context"
	"sync/atomic"
	"time"

	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

// A session is one client's, attached or not. It implements [broker.Session].
type session struct {
	hub       *Hub
	number    uint64
	client    string
	owner     string // name of the principal
	ownerName []byte // the same
	key       string

	// Set by Attach, before the engine has the session.
	version byte
	present bool
	flight  *broker.Flight
	router  router // of the goroutine that publishes

	out      atomic.Pointer[outlet]
	durable  atomic.Bool  // it is in the journal
	retrying atomic.Int32 // jobs that were parked and are submitted again

	// Guarded by Hub.submitting.
	jobs   uint64
	parked []*job

	// Guarded by Hub.mu.
	gone       chan struct{} // closed when the connection is detached; nil when there is none
	unwanted   bool          // another connection waits for the end of this one
	expiry     int64         // microseconds after the end of the connection, or forever
	detachedAt int64         // unix microseconds; 0 while attached
	deadline   time.Duration // on Clock.Elapsed, when the session expires; 0 = never or attached
	will       *will
	subs       map[string]*subscription
	received   map[uint16]journal.Offset // QoS 2 messages not released
	outbound   map[uint16]outbound       // QoS 2 deliveries, by packet identifier
	opened     journal.Offset
	noted      bool // in Hub.wake

	groups atomic.Pointer[[]*group] // it shares; replaced, never changed
	turn   int                      // of groups; the fetching goroutine's

	feed feed

	// Of the fetching goroutine, and valid until its next Fetch.
	pins        []pinned
	pinnedBytes int
	copied      []byte

	retainedQueue
}

type outlet struct{ broker.Outlet }

type outbound struct {
	id       uint64
	released bool
	order    uint64 // as sent
}

// pinned is a job whose memory the last deliveries point to.
type pinned struct {
	job *job
	seq uint64
}

// Present implements [broker.Session].
func (s *session) Present() bool { return s.present }

// Flight implements [broker.Session].
func (s *session) Flight() *broker.Flight { return s.flight }

func (s *session) wake() {
	if o := s.out.Load(); o != nil {
		o.Wake()
	}
}

// note has the session woken when the committer is through with the group.
func (s *session) note() {
	if !s.noted {
		s.noted = true
		s.hub.wake = append(s.hub.wake, s)
	}
}

// pin keeps the memory of a job until the next Fetch; false when it is gone.
func (s *session) pin(j *job, seq uint64) bool {
	if n := len(s.pins); n > 0 && s.pins[n-1] == (pinned{j, seq}) {
		return true
	}
	if !j.pin(seq) {
		return false
	}
	s.pins = append(s.pins, pinned{j, seq})
	s.pinnedBytes += cap(j.buf)
	return true
}

func (s *session) unpin() {
	for _, p := range s.pins {
		s.hub.ring.unpin(p.job)
	}
	s.pins = s.pins[:0]
	s.pinnedBytes = 0
}

// maxPinned bounds the memory that one session keeps from being reused. Overflow
// rule: the Fetch ends, and the next one goes on.
const maxPinned = 1 << 20

// maxCopied is the largest buffer that a session keeps between two Fetches.
const maxCopied = 256 << 10

// Fetch implements [broker.Session]: retained messages first, then the
// session's own messages, then those of the groups that it shares, in turn.
func (s *session) Fetch(dst []broker.Delivery, most, maxBytes int) []broker.Delivery {
	s.unpin()
	if cap(s.copied) > maxCopied {
		s.copied = nil
	}
	s.copied = s.copied[:0]
	r := room{dst: dst, count: most, bytes: maxBytes, steps: maxSteps, now: s.hub.now()}
	s.fetchRetained(&r)
	s.feed.fetch(s, &r)
	if groups := s.groups.Load(); groups != nil {
		s.turn++
		for i := range *groups {
			(*groups)[(s.turn+i)%len(*groups)].fetch(s, &r)
		}
	}
	if r.again || r.bytes <= 0 {
		s.wake()
	}
	return r.dst
}

// Recall implements [broker.Session].
func (s *session) Recall(id uint64) (broker.Delivery, bool) {
	if id&idRetained != 0 {
		return s.recallRetained(id)
	}
	d, off := s.feedOf(id)
	if d == nil {
		return broker.Delivery{}, false
	}
	d.mu.Lock()
	i, found := d.find(off)
	if found {
		found = !d.window[i].settled && (d.group == nil || d.window[i].to == s)
	}
	var qos byte
	if found {
		qos = d.window[i].qos
	}
	d.mu.Unlock()
	if !found {
		return broker.Delivery{}, false
	}
	rec, ok := s.reread(off)
	dl, alive := delivery(&rec, s.hub.now())
	if !ok || !alive {
		d.settle(off, s)
		return broker.Delivery{}, false
	}
	dl.ID, dl.Message.QoS = id, qos
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.group != nil {
		_, ids, asIs := d.group.terms(s)
		dl.SubIDs, dl.Message.Retain = ids, rec.Retain && asIs
	} else if how := d.match(&rec, off); how != nil {
		dl.SubIDs, dl.Message.Retain = how.ids, rec.Retain && how.asIs
	}
	return dl, true
}

// reread reads a message that was read before from the journal.
func (s *session) reread(off journal.Offset) (rec hub.Record, ok bool) {
	got, err := s.hub.j.ReadAt(off)
	if err != nil || got.Gap != nil || rec.Parse(got.Body) != nil {
		s.hub.stats.lost.Add(1)
		s.hub.log.Warn("message in flight is gone", "session", s.client, "offset", off)
		return rec, false
	}
	return rec, true
}

// feedOf returns the feed and the offset that a delivery's identifier means.
func (s *session) feedOf(id uint64) (*feed, journal.Offset) {
	number, off := splitID(id)
	if number == 0 {
		return &s.feed, off
	}
	if groups := s.groups.Load(); groups != nil {
		for _, g := range *groups {
			if g.number == number {
				return &g.feed, off
			}
		}
	}
	return nil, 0
}

// Settle implements [broker.Session].
func (s *session) Settle(ids []uint64) {
	wake := false
	for _, id := range ids {
		if id&idRetained != 0 {
			s.settleRetained(id)
		} else if d, off := s.feedOf(id); d != nil {
			wake = d.settle(off, s) || wake
		}
	}
	if wake {
		s.wake()
	}
}

// Note implements [broker.Session].
func (s *session) Note(changes []broker.FlightChange, done func(error)) {
	if !s.durable.Load() || len(changes) == 0 {
		done(nil)
		return
	}
	j := s.hub.newJob(s, nil)
	j.note = done
	now := s.hub.now()
	for _, c := range changes {
		r := control{kind: kindOutbound, number: s.number, packet: c.Entry.PacketID, id: c.Entry.ID}
		switch {
		case c.Settled:
			r.step = stepSettled
		case c.Entry.Released:
			r.step = stepReleased
		}
		j.control(&r, now)
	}
	s.hub.submit(j)
}

// commit writes control records and returns when they are durable and applied.
func (h *Hub) commit(ctx context.Context, s *session, records ...control) error {
	j := h.newJob(s, nil)
	done := make(chan error, 1)
	j.done = done
	now := h.now()
	for i := range records {
		j.control(&records[i], now)
	}
	h.submit(j)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
