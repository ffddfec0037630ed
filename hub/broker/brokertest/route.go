package brokertest

import (
	"bytes"
	"context"
	"strings"

	"holdfast/hub/broker"
)

// route stores retained messages and queues the items for all who subscribed.
func (m *Memory) route(from string, items []broker.Item) {
	size := 0
	for i := range items {
		msg := &items[i].Message
		size += len(msg.Topic) + len(msg.Payload) + len(msg.Props)
	}
	arena := make([]byte, 0, size)
	keep := func(b []byte) []byte {
		n := len(arena)
		arena = append(arena, b...)
		return arena[n:len(arena):len(arena)]
	}
	woken := make(map[*session]broker.Outlet)
	m.mu.Lock()
	for i := range items {
		it := &items[i]
		if it.Kind != broker.ItemPublish || it.Code >= 0x80 {
			continue
		}
		msg := message{Message: it.Message, from: from}
		msg.Topic, msg.Payload, msg.Props = keep(msg.Topic), keep(msg.Payload), keep(msg.Props)
		it.Code = m.deliver(&msg, woken)
	}
	m.mu.Unlock()
	for _, out := range woken {
		if out != nil {
			out.Wake()
		}
	}
}

// deliver queues one message. The caller holds m.mu.
func (m *Memory) deliver(msg *message, woken map[*session]broker.Outlet) byte {
	topic := string(msg.Topic)
	if msg.Retain {
		if len(msg.Payload) == 0 {
			delete(m.retained, topic)
		} else {
			kept := *msg
			kept.Topic, kept.Payload, kept.Props = bytes.Clone(msg.Topic), bytes.Clone(msg.Payload), bytes.Clone(msg.Props)
			m.retained[topic] = kept
		}
	}
	var shared map[string][]*session
	for _, s := range m.subscribed {
		matched, ok := s.offer(msg, topic)
		if !ok {
			return broker.QuotaExceeded
		}
		for _, filter := range matched {
			if shared == nil {
				shared = make(map[string][]*session)
			}
			shared[filter] = append(shared[filter], s)
		}
		woken[s] = s.outlet()
	}
	for filter, members := range shared {
		s := members[m.shares[filter]%len(members)]
		m.shares[filter]++
		s.mu.Lock()
		s.enqueue(msg, s.subs[filter], false)
		s.mu.Unlock()
	}
	return broker.Success
}

func (s *session) outlet() broker.Outlet {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out
}

// offer queues a message that one of the session's filters matches, once, with
// the highest QoS of them. Shared ones that match it returns. ok is false when
// the queue is full.
func (s *session) offer(msg *message, topic string) (shared []string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var best broker.Subscription
	var ids []uint32
	found := false
	for filter, sub := range s.subs {
		inner, isShared := unshare(filter)
		if !match(inner, topic) {
			continue
		}
		if isShared {
			shared = append(shared, filter)
			continue
		}
		if sub.NoLocal && msg.from == s.client {
			continue
		}
		if sub.ID != 0 {
			ids = append(ids, sub.ID)
		}
		if !found || sub.QoS > best.QoS {
			best.QoS = sub.QoS
		}
		best.RetainAsPublished = best.RetainAsPublished || sub.RetainAsPublished
		found = true
	}
	if !found {
		return shared, true
	}
	limit := s.m.Limit
	if limit == 0 {
		limit = 1_000_000
	}
	if len(s.queue)-s.head >= limit {
		return nil, false
	}
	s.enqueue(msg, best, best.RetainAsPublished && msg.Retain)
	s.queue[len(s.queue)-1].subIDs = ids
	return shared, true
}

// enqueue appends one delivery. The caller holds s.mu.
func (s *session) enqueue(msg *message, sub broker.Subscription, retain bool) {
	s.next++
	d := delivery{id: s.next, m: *msg, qos: min(msg.QoS, sub.QoS), retain: retain}
	if sub.ID != 0 {
		d.subIDs = []uint32{sub.ID}
	}
	s.queue = append(s.queue, d)
}

func unshare(filter string) (inner string, shared bool) {
	rest, ok := strings.CutPrefix(filter, "$share/")
	if !ok {
		return filter, false
	}
	_, inner, _ = strings.Cut(rest, "/")
	return inner, true
}

// Subscribe implements [broker.Session].
func (s *session) Subscribe(_ context.Context, subs []broker.Subscription) ([]byte, error) {
	codes := make([]byte, len(subs))
	s.m.mu.Lock()
	s.mu.Lock()
	if s.subs == nil {
		s.subs = make(map[string]broker.Subscription)
	}
	s.m.subscribed[s.client] = s
	for i, sub := range subs {
		codes[i] = sub.QoS
		_, known := s.subs[sub.Filter]
		s.subs[sub.Filter] = sub
		if _, shared := unshare(sub.Filter); shared || sub.RetainHandling == 2 || sub.RetainHandling == 1 && known {
			continue
		}
		for topic, msg := range s.m.retained {
			if match(sub.Filter, topic) {
				s.enqueue(&msg, sub, true)
			}
		}
	}
	out := s.out
	s.mu.Unlock()
	s.m.mu.Unlock()
	out.Wake()
	return codes, nil
}

// Unsubscribe implements [broker.Session].
func (s *session) Unsubscribe(_ context.Context, filters []string) ([]byte, error) {
	codes := make([]byte, len(filters))
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, f := range filters {
		if _, ok := s.subs[f]; !ok {
			codes[i] = broker.NoSubscriptionExisted
		}
		delete(s.subs, f)
	}
	return codes, nil
}
