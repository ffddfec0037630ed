package session

import (
	"context"
	"fmt"

	"holdfast/hub/broker"
)

// Subscribe implements [broker.Session].
func (s *session) Subscribe(ctx context.Context, subs []broker.Subscription) ([]byte, error) {
	codes := make([]byte, len(subs))
	var records []control
	h := s.hub
	h.mu.Lock()
	fresh := map[string]bool{}
	for i := range subs {
		b := &subs[i]
		codes[i] = s.permit(b, fresh)
		if codes[i] >= 0x80 {
			continue
		}
		records = append(records, control{
			kind: kindSubscribed, number: s.number, sub: *b, filter: []byte(b.Filter), group: h.groupNumber(b.Filter),
		})
	}
	h.mu.Unlock()
	if err := s.change(ctx, records); err != nil {
		return nil, fmt.Errorf("subscribe: %w", err)
	}
	return codes, nil
}

// permit returns the reason code for a subscription: the QoS granted, or why
// not. fresh are those of the same request that the session does not have yet.
// The engine has asked the principal. h.mu is held.
func (s *session) permit(b *broker.Subscription, fresh map[string]bool) byte {
	name, topic, isShared := shared(b.Filter)
	if isShared && (name == "" || topic == "") {
		return broker.TopicFilterInvalid
	}
	if s.subs[b.Filter] == nil && !fresh[b.Filter] {
		if len(s.subs)+len(fresh) >= s.hub.o.MaxSubscriptions || isShared && s.hub.nextGroup > maxGroup {
			return broker.QuotaExceeded
		}
		fresh[b.Filter] = true
	}
	return b.QoS
}

// groupNumber reserves the number of a shared subscription's group, so that it
// is the same after a restart. h.mu is held.
func (h *Hub) groupNumber(filter string) uint64 {
	if _, _, isShared := shared(filter); !isShared {
		return 0
	}
	if g := h.groups[filter]; g != nil {
		return g.number
	}
	h.nextGroup++
	return h.nextGroup - 1
}

// Unsubscribe implements [broker.Session].
func (s *session) Unsubscribe(ctx context.Context, filters []string) ([]byte, error) {
	codes := make([]byte, len(filters))
	var records []control
	s.hub.mu.Lock()
	for i, f := range filters {
		if s.subs[f] == nil {
			codes[i] = broker.NoSubscriptionExisted
			continue
		}
		records = append(records, control{kind: kindUnsubscribed, number: s.number, filter: []byte(f)})
	}
	s.hub.mu.Unlock()
	if err := s.change(ctx, records); err != nil {
		return nil, fmt.Errorf("unsubscribe: %w", err)
	}
	return codes, nil
}

// change makes records about the session durable, when the session is, and
// applies them.
func (s *session) change(ctx context.Context, records []control) error {
	h := s.hub
	if len(records) == 0 {
		return nil
	}
	if s.durable.Load() {
		return h.commit(ctx, s, records...)
	}
	h.mu.Lock()
	for i := range records {
		h.applyControl(&records[i], 0)
	}
	h.mu.Unlock()
	s.wake()
	return nil
}
