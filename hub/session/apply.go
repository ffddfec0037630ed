package session

import (
	"slices"
	"strconv"
	"time"
	"unsafe"

	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

// applyControl takes a control record in. The session's state is nothing but
// the sum of these calls, live as well as when the hub opens; records about a
// session that is not there any more mean nothing. h.mu is held.
func (h *Hub) applyControl(c *control, off journal.Offset) {
	s := h.byNumber[c.number]
	if c.kind == kindOpened {
		h.applyOpened(c, off)
		return
	}
	if s == nil {
		return
	}
	switch c.kind {
	case kindEnded:
		h.forget(s)
	case kindDetached:
		s.expiry, s.detachedAt = c.expiry, c.at
	case kindSubscribed:
		h.subscribe(s, c, off)
	case kindUnsubscribed:
		h.unsubscribe(s, string(c.filter))
	case kindReleased:
		delete(s.received, c.packet)
	case kindReceived:
		s.received[c.packet] = off
	case kindOutbound:
		s.applyOutbound(c)
	case kindWill:
		s.will = newWill(c)
	case kindWillCleared:
		s.will = nil
	case kindPosition:
		if d := s.feedNumbered(c.group); d != nil && h.replaying {
			d.saved = max(d.saved, off)
		}
	case kindRetainedSent:
		if sub := s.subs[string(c.filter)]; sub != nil && h.replaying {
			sub.owed = false
		}
	}
}

func (h *Hub) applyOpened(c *control, off journal.Offset) {
	s := h.byNumber[c.number]
	if s == nil {
		s = h.newSession(c.number, string(c.client), string(c.owner))
		h.byKey[s.key] = s
	}
	if s.opened == 0 {
		s.opened = off
	}
	s.durable.Store(true)
	s.feed.mu.Lock()
	s.feed.durable = true
	s.feed.mu.Unlock()
	s.expiry, s.detachedAt = c.expiry, 0
	h.byOwner[s.owner] = s
	h.nextNumber = max(h.nextNumber, c.number+1)
}

// newSession makes a session that is in byNumber but not yet in byKey.
func (h *Hub) newSession(number uint64, client, owner string) *session {
	s := &session{
		hub: h, number: number, client: client, owner: owner, ownerName: []byte(owner), key: sessionKey(client, owner),
		subs: map[string]*subscription{}, received: map[uint16]journal.Offset{}, outbound: map[uint16]outbound{},
	}
	s.feed = feed{hub: h, session: s, owner: owner}
	h.byNumber[number] = s
	return s
}

// sessionKey is what a session is found by. A client identifier belongs to the
// principal that used it: nobody takes over another's session.
func sessionKey(client, owner string) string { return owner + "\x00" + client }

// forget removes a session that has ended. h.mu is held.
func (h *Hub) forget(s *session) {
	for filter := range s.subs {
		h.unsubscribe(s, filter)
	}
	delete(h.byNumber, s.number)
	if h.byKey[s.key] == s {
		delete(h.byKey, s.key)
	}
	if h.byOwner[s.owner] == s {
		delete(h.byOwner, s.owner)
	}
	s.feed.close()
}

// close gives up what the feed holds in the journal.
func (d *feed) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.online, d.closed = false, true
	d.pending = queue{}
	d.window = nil
	if d.cursor != nil {
		d.cursor.Delete()
		d.cursor = nil
	}
}

// subscribe adds or replaces a subscription. h.mu is held.
func (h *Hub) subscribe(s *session, c *control, off journal.Offset) {
	sub := &subscription{
		feed: &s.feed, filter: c.sub.Filter, qos: c.sub.QoS, noLocal: c.sub.NoLocal, asIs: c.sub.RetainAsPublished,
		retain: c.sub.RetainHandling, id: c.sub.ID, since: off,
	}
	_, topic, isShared := shared(sub.filter)
	sub.topic = topic
	old := s.subs[sub.filter]
	if isShared {
		h.join(s, sub, old, c.group, off)
	} else {
		if old != nil {
			sub.since = old.since // replacing must not lose messages (MQTT 5, 3.8.4)
			h.tree.remove(old)
		}
		h.tree.add(sub)
		s.feed.setFilter(old, sub)
	}
	if old != nil {
		s.forgetRetained(old)
	}
	s.subs[sub.filter] = sub
	if !isShared && (sub.retain == 0 || sub.retain == 1 && old == nil) {
		sub.owed = true
		if !h.replaying {
			s.queueRetained(sub)
			s.note()
		}
	}
}

// setFilter replaces a filter of the feed; either may be nil.
func (d *feed) setFilter(old, sub *subscription) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if old != nil {
		d.filters = without(d.filters, old)
	}
	if sub != nil {
		d.filters = append(d.filters, sub)
	}
	clear(d.cache)
}

func (h *Hub) unsubscribe(s *session, filter string) {
	sub := s.subs[filter]
	if sub == nil {
		return
	}
	delete(s.subs, filter)
	s.forgetRetained(sub)
	if sub.group != nil {
		h.part(s, sub)
		return
	}
	h.tree.remove(sub)
	s.feed.setFilter(sub, nil)
}

// join makes the session a member of the group of a shared subscription.
func (h *Hub) join(s *session, sub, old *subscription, number uint64, off journal.Offset) {
	g := h.groups[sub.filter]
	if g == nil {
		if number == 0 {
			number = h.nextGroup
		}
		h.nextGroup = max(h.nextGroup, number+1)
		g = &group{number: number, filter: sub.filter}
		g.feed = feed{hub: h, group: g}
		g.sub = &subscription{feed: &g.feed, filter: sub.filter, topic: sub.topic, qos: 2, asIs: true, since: off}
		g.feed.filters = []*subscription{g.sub}
		h.groups[sub.filter], h.byGroup[number] = g, g
		h.tree.add(g.sub)
	}
	sub.group = g
	g.feed.mu.Lock()
	if old != nil {
		g.members = without(g.members, old)
	}
	g.members = append(slices.Clone(g.members), sub)
	if g.feed.durable = g.feed.durable || s.durable.Load(); g.feed.durable && !h.replaying {
		g.feed.startCursor(off)
	}
	g.setOnline()
	g.feed.mu.Unlock()
	if old == nil {
		s.setGroups(append(slices.Clone(s.groupList()), g))
	}
}

// part takes the session out of a group; the last one to go ends it.
func (h *Hub) part(s *session, sub *subscription) {
	g := sub.group
	g.feed.mu.Lock()
	g.members = without(slices.Clone(g.members), sub)
	g.feed.mu.Unlock()
	s.setGroups(slices.DeleteFunc(slices.Clone(s.groupList()), func(other *group) bool { return other == g }))
	g.leave(s, true)
	if len(g.members) > 0 {
		return
	}
	h.tree.remove(g.sub)
	delete(h.groups, g.filter)
	delete(h.byGroup, g.number)
	g.feed.close()
}

func (s *session) groupList() []*group {
	if l := s.groups.Load(); l != nil {
		return *l
	}
	return nil
}

func (s *session) setGroups(l []*group) { s.groups.Store(&l) }

// feedNumbered returns the session's own feed for 0, or that of a group, or nil.
// h.mu is held.
func (s *session) feedNumbered(group uint64) *feed {
	if group == 0 {
		return &s.feed
	}
	if g := s.hub.byGroup[group]; g != nil {
		return &g.feed
	}
	return nil
}

// applyOutbound follows a QoS 2 delivery, so that it is neither forgotten nor
// sent again as a new one after a restart.
func (s *session) applyOutbound(c *control) {
	retained := c.id&idRetained != 0
	number, off := splitID(c.id)
	d := s.feedNumbered(number)
	if d == nil {
		retained = true // a group that is gone; there is no position to mind
	}
	switch c.step {
	case stepSent, stepReleased:
		o, known := s.outbound[c.packet]
		if !known {
			s.hub.sent++
			o.order = s.hub.sent
		}
		s.outbound[c.packet] = outbound{id: c.id, released: c.step == stepReleased, order: o.order}
		if s.hub.replaying && !retained {
			d.mark(off, 2, false, s)
		}
	case stepSettled:
		delete(s.outbound, c.packet)
		if s.hub.replaying && !retained {
			d.mark(off, 2, true, s)
		}
	}
}

// flightState is what the engine must know of the session after a restart.
func (s *session) flightState() broker.FlightState {
	var f broker.FlightState
	var packets []uint16
	for p := range s.outbound {
		packets = append(packets, p)
	}
	slices.SortFunc(packets, func(a, b uint16) int { return int(s.outbound[a].order) - int(s.outbound[b].order) })
	for _, p := range packets {
		o := s.outbound[p]
		f.Sent = append(f.Sent, broker.FlightEntry{PacketID: p, ID: o.id, Released: o.released})
	}
	for p := range s.received {
		f.Received = append(f.Received, p)
	}
	slices.Sort(f.Received)
	return f
}

// A will is what a client leaves behind.
type will struct {
	message []byte // an encoded message record
	delay   int64  // microseconds after the end of the connection
	due     time.Duration
	armed   bool // due is set: the connection has ended
}

func newWill(c *control) *will {
	return &will{message: slices.Clone(c.message), delay: c.delay}
}

func cursorName(kind string, number uint64) string { return kind + strconv.FormatUint(number, 10) }

// bytesOf returns the bytes of s without copying; nobody writes to them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
