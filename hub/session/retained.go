package session

import (
	"slices"
	"sync"

	"holdfast/hub"
	"holdfast/hub/broker"
)

// retained is the last retained message of a topic. It is immutable; it is kept
// here and in the snapshot because it outlives its journal entry.
type retained struct {
	body    []byte // an encoded message record
	expires int64  // unix microseconds, 0 = never
}

// retainedFull reports whether there is no room for a new retained message. A
// topic that has one keeps its place.
func (h *Hub) retainedFull(m *broker.Message) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.retainedSz+int64(len(m.Topic)+len(m.Payload)+len(m.Props)) > h.o.MaxRetainedBytes {
		return true
	}
	return len(h.retained) >= h.o.MaxRetained && h.retained[string(m.Topic)] == nil
}

// retain keeps the message for its topic, or forgets the topic's when the
// payload is empty (MQTT 5, 3.3.1.3).
func (h *Hub) retain(body []byte, r *hub.Record) {
	h.changed = true
	topic := string(r.Topic)
	if old := h.retained[topic]; old != nil {
		h.retainedSz -= int64(len(old.body))
		delete(h.retained, topic)
	}
	if len(r.Payload) == 0 {
		return
	}
	h.retained[topic] = &retained{body: slices.Clone(body), expires: r.Expires}
	h.retainedSz += int64(len(body))
}

// retainedFor returns the retained messages that a filter matches, by topic.
func (h *Hub) retainedFor(filter string) []*retained {
	now := h.now()
	var topics []string
	for topic, m := range h.retained {
		if (m.expires == 0 || m.expires > now) && matches(filter, bytesOf(topic)) {
			topics = append(topics, topic)
		}
	}
	slices.Sort(topics)
	list := make([]*retained, len(topics))
	for i, t := range topics {
		list[i] = h.retained[t]
	}
	return list
}

// retainedQueue holds the retained messages that a session has still to get
// because it subscribed. Its length is bounded by Options.MaxRetained for each
// subscription; an entry is a pointer.
type retainedQueue struct {
	rmu      sync.Mutex
	queued   []retainedItem
	inFlight map[uint64]retainedItem
	nextID   uint64
}

type retainedItem struct {
	m   *retained
	sub *subscription
}

// queueRetained queues what a new subscription is owed. h.mu is held.
func (s *session) queueRetained(sub *subscription) {
	list := s.hub.retainedFor(sub.topic)
	s.rmu.Lock()
	defer s.rmu.Unlock()
	sub.waiting += len(list)
	for _, m := range list {
		s.queued = append(s.queued, retainedItem{m, sub})
	}
	if len(list) == 0 {
		sub.owed = false
	}
}

func (s *session) fetchRetained(r *room) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	for r.left() && len(s.queued) > 0 && len(s.inFlight) < s.hub.o.MaxWindow {
		it := s.queued[0]
		s.queued[0] = retainedItem{}
		if s.queued = s.queued[1:]; len(s.queued) == 0 {
			s.queued = nil
		}
		dl, ok := it.delivery(r.now)
		if !ok {
			s.arrived(it)
			continue
		}
		s.nextID++
		dl.ID = idRetained | s.nextID
		r.add(dl)
		s.hub.stats.delivered.Add(1)
		if dl.Message.QoS == 0 {
			s.arrived(it)
			continue
		}
		if s.inFlight == nil {
			s.inFlight = make(map[uint64]retainedItem)
		}
		s.inFlight[dl.ID] = it
	}
}

func (it *retainedItem) delivery(now int64) (broker.Delivery, bool) {
	var rec hub.Record
	if rec.Parse(it.m.body) != nil {
		return broker.Delivery{}, false
	}
	dl, ok := delivery(&rec, now)
	if !ok {
		return dl, false
	}
	dl.Message.QoS = min(rec.QoS, it.sub.qos)
	dl.Message.Retain = true
	if it.sub.id != 0 {
		dl.SubIDs = []uint32{it.sub.id}
	}
	return dl, true
}

// arrived counts down what a subscription is owed, and makes it durable when it
// is nothing any more. s.rmu is held.
func (s *session) arrived(it retainedItem) {
	if it.sub.waiting--; it.sub.waiting > 0 || !it.sub.owed {
		return
	}
	it.sub.owed = false
	if !s.durable.Load() {
		return
	}
	j := s.hub.newJob(nil, nil)
	j.control(&control{kind: kindRetainedSent, number: s.number, filter: bytesOf(it.sub.filter)}, s.hub.now())
	s.hub.submit(j)
}

func (s *session) settleRetained(id uint64) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	if it, ok := s.inFlight[id]; ok {
		delete(s.inFlight, id)
		s.arrived(it)
	}
}

func (s *session) recallRetained(id uint64) (broker.Delivery, bool) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	it, ok := s.inFlight[id]
	if !ok {
		return broker.Delivery{}, false
	}
	dl, ok := it.delivery(s.hub.now())
	if !ok {
		delete(s.inFlight, id)
		s.arrived(it)
		return dl, false
	}
	dl.ID = id
	return dl, true
}

// forgetRetained drops what is queued for a subscription that is gone.
func (s *session) forgetRetained(sub *subscription) {
	s.rmu.Lock()
	defer s.rmu.Unlock()
	s.queued = slices.DeleteFunc(s.queued, func(it retainedItem) bool { return it.sub == sub })
	sub.owed = false
}

// expireRetained forgets retained messages whose time is over. h.mu is held.
func (h *Hub) expireRetained() {
	now := h.now()
	for topic, m := range h.retained {
		if m.expires != 0 && m.expires <= now {
			h.retainedSz -= int64(len(m.body))
			delete(h.retained, topic)
			h.changed = true
		}
	}
}

// Names of cursors in the journal.
const (
	stateCursor   = "sessions"
	sessionCursor = "session/"
	groupCursor   = "share/"
)
