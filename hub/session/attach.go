package session

import (
	"context"
	"fmt"
	"time"

	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

// Attach implements [broker.Backend].
func (h *Hub) Attach(ctx context.Context, p broker.Principal, c *broker.Connect, out broker.Outlet) (broker.Session, error) {
	if w := c.Will; w != nil && w.Message.Retain && len(w.Message.Payload) > 0 && h.retainedFull(&w.Message) {
		return nil, &broker.Refusal{Code: broker.QuotaExceeded, Reason: "no room for the retained message of the will"}
	}
	old, err := h.takeOver(ctx, sessionKey(c.ClientID, p.Name()))
	if err != nil {
		return nil, err
	}
	// h.mu is held: nobody else attaches this client now.
	resume := old != nil && !c.CleanStart
	if old == nil && len(h.byKey) >= h.o.MaxSessions {
		h.mu.Unlock()
		return nil, &broker.Refusal{Code: broker.QuotaExceeded, Reason: "too many sessions"}
	}
	s := old
	var records []control
	if !resume {
		if old != nil {
			records = h.end(old, records)
		}
		s = h.newSession(h.nextNumber, c.ClientID, p.Name())
		h.nextNumber++
		h.byKey[s.key] = s
	}
	s.gone, s.unwanted = make(chan struct{}), false
	s.present, s.version = resume, c.Version
	s.deadline = 0
	records = h.opening(s, c, records)
	h.mu.Unlock()
	if len(records) > 0 {
		if err := h.commit(ctx, nil, records...); err != nil {
			h.abandon(s, c, resume)
			return nil, fmt.Errorf("open session of %q: %w", c.ClientID, err)
		}
	}
	h.attached(s, out)
	return s, nil
}

// takeOver waits until nobody is attached to the session of that key, and
// returns it, or nil, with h.mu held.
func (h *Hub) takeOver(ctx context.Context, key string) (*session, error) {
	for {
		h.mu.Lock()
		s := h.byKey[key]
		if s == nil || s.gone == nil {
			return s, nil
		}
		gone := s.gone
		s.unwanted = true // for one that is not attached yet
		h.mu.Unlock()
		if o := s.out.Load(); o != nil {
			o.Close(broker.TakenOver, "another connection of the same client")
		}
		select {
		case <-gone:
		case <-ctx.Done():
			return nil, fmt.Errorf("take over session: %w", ctx.Err())
		}
	}
}

// opening returns the records that CONNACK depends on: none for a session that
// ends with its connection and leaves no will. h.mu is held.
func (h *Hub) opening(s *session, c *broker.Connect, records []control) []control {
	expiry := micros(c.SessionExpiry)
	s.expiry = expiry
	if expiry == 0 && c.Will == nil && !s.durable.Load() {
		s.will = nil
		return records
	}
	records = append(records, control{kind: kindOpened, number: s.number, expiry: expiry, client: []byte(s.client), owner: s.ownerName})
	if c.Will != nil {
		records = append(records, control{kind: kindWill, number: s.number, delay: micros(c.Will.Delay), message: h.willRecord(s, c.Will)})
	} else if s.will != nil {
		// The client is back before its will was due (MQTT 5, 3.1.3.2.2).
		records = append(records, control{kind: kindWillCleared, number: s.number})
	}
	if s.will != nil {
		s.will.armed = false
	}
	return records
}

func (h *Hub) willRecord(s *session, w *broker.Will) []byte {
	m := &w.Message
	r := hub.Record{QoS: m.QoS, Retain: m.Retain, Sender: s.ownerName, Topic: m.Topic, Props: m.Props, Payload: m.Payload}
	if m.Expiry > 0 {
		r.Expires = m.Expiry.Microseconds() // from the time it is published
	}
	return r.Append(nil)
}

// abandon undoes an Attach whose records were not confirmed. They may be
// applied all the same; then the session is there, and nobody is attached.
func (h *Hub) abandon(s *session, c *broker.Connect, resume bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	close(s.gone)
	s.gone = nil
	s.detachedAt = h.now()
	h.setDeadline(s)
	if !resume && !s.durable.Load() {
		h.forget(s)
	}
}

// attached hands the session to its connection.
func (h *Hub) attached(s *session, out broker.Outlet) {
	s.out.Store(&outlet{out})
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.flight == nil {
		s.flight = broker.NewFlight(s.flightState())
	}
	s.feed.mu.Lock()
	if s.durable.Load() {
		s.feed.startCursor(s.opened)
	}
	s.feed.online = true
	s.feed.mu.Unlock()
	for _, g := range s.groupList() {
		g.feed.mu.Lock()
		g.setOnline()
		g.feed.mu.Unlock()
	}
	for _, sub := range s.subs {
		if sub.owed && sub.waiting == 0 && s.present {
			s.queueRetained(sub) // a restart came between
		}
	}
	h.stats.connects.Add(1)
	if s.unwanted {
		out.Close(broker.TakenOver, "another connection of the same client")
	}
}

// startCursor makes the position of a durable feed durable, that began at an
// offset. d.mu is held.
func (d *feed) startCursor(began journal.Offset) {
	if d.cursor == nil {
		c, err := d.hub.j.Cursor(d.name())
		if err != nil {
			d.hub.log.Error("no cursor", "session", d.name(), "error", err)
			return
		}
		d.cursor = c
		d.next = max(d.next, began+1)
	}
	if !d.cursor.Saved() {
		d.save(max(began, d.low()))
	}
}

// Detach implements [broker.Session].
func (s *session) Detach(dt broker.Detachment) {
	h := s.hub
	s.unpin()
	s.copied = nil
	s.out.Store(nil)
	h.mu.Lock()
	defer h.mu.Unlock()
	expiry := micros(dt.SessionExpiry)
	s.expiry, s.detachedAt = expiry, h.now()
	s.feed.mu.Lock()
	s.feed.goOffline()
	s.feed.mu.Unlock()
	var records []control
	if dt.Clean && !dt.WithWill && s.will != nil {
		s.will = nil
		records = append(records, control{kind: kindWillCleared, number: s.number})
	}
	if expiry == 0 {
		records = h.end(s, records)
	} else {
		for _, g := range s.groupList() {
			g.leave(s, false)
		}
		s.makeDurable(&records)
		records = append(records, control{kind: kindDetached, number: s.number, expiry: expiry, at: s.detachedAt})
		h.setDeadline(s)
		records = h.armWill(s, records)
	}
	h.write(records)
	close(s.gone)
	s.gone = nil
	h.poke()
}

// makeDurable writes down a session that becomes one that outlives its
// connection only now, when MQTT 5 DISCONNECT asks for it.
func (s *session) makeDurable(records *[]control) {
	if s.durable.Load() {
		return
	}
	// Without a session expiry in CONNECT this is a protocol error that the
	// engine has refused (3.14.2.2.2), so there is nothing to carry over.
	*records = append(*records, control{kind: kindOpened, number: s.number, expiry: s.expiry, client: []byte(s.client), owner: s.ownerName})
}

// end removes a session now and returns records with those that make it
// durable; its will, if it has one, is published. h.mu is held.
func (h *Hub) end(s *session, records []control) []control {
	if w := s.will; w != nil {
		h.publishWill(s, w)
		s.will = nil
	}
	if s.durable.Load() {
		records = append(records, control{kind: kindEnded, number: s.number})
	}
	h.forget(s)
	return records
}

// write submits control records without waiting for them. The lock h.mu is
// held, so that they come in the order of what they say.
func (h *Hub) write(records []control) {
	if len(records) == 0 {
		return
	}
	j := h.newJob(nil, nil)
	now := h.now()
	for i := range records {
		j.control(&records[i], now)
	}
	h.submit(j)
}

// setDeadline notes when a detached session expires.
func (h *Hub) setDeadline(s *session) {
	s.deadline = 0
	if s.expiry >= 0 {
		s.deadline = max(1, h.clock.Elapsed()+time.Duration(s.expiry)*time.Microsecond)
	}
}

// armWill has the will published when its delay is over, or now.
func (h *Hub) armWill(s *session, records []control) []control {
	w := s.will
	if w == nil {
		return records
	}
	if w.delay == 0 {
		h.publishWill(s, w)
		s.will = nil
		return append(records, control{kind: kindWillCleared, number: s.number})
	}
	w.armed = true
	w.due = max(1, h.clock.Elapsed()+fromMicros(w.delay))
	return records
}

// publishWill sends the will as its client would have.
func (h *Hub) publishWill(s *session, w *will) {
	var r hub.Record
	if err := r.Parse(w.message); err != nil {
		return
	}
	now := h.now()
	r.Received = now
	if r.Expires > 0 {
		r.Expires += now
	}
	j := h.newJob(nil, nil)
	h.put(j, &r, &router{})
	h.submit(j)
	h.stats.wills.Add(1)
}

// timed does what is due by the clock and returns when to look again, 0 when
// nothing is coming.
func (h *Hub) timed() (next time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := h.clock.Elapsed()
	soonest := func(at time.Duration) {
		if next == 0 || at < next {
			next = at
		}
	}
	for _, s := range h.byNumber {
		if s.gone != nil {
			continue
		}
		if s.deadline != 0 && s.deadline <= now {
			h.write(h.end(s, nil))
			h.stats.expiredSessions.Add(1)
			continue
		}
		if s.deadline != 0 {
			soonest(s.deadline)
		}
		if w := s.will; w != nil && w.armed {
			if w.due <= now {
				h.publishWill(s, w)
				s.will = nil
				h.write([]control{{kind: kindWillCleared, number: s.number}})
				continue
			}
			soonest(w.due)
		}
	}
	return next
}
