// Package brokertest has a backend for tests of the MQTT engine and of MQTT
// clients: it keeps everything in memory, acknowledges at once, and can be made
// to lie.
package brokertest

import (
	"context"
	"errors"
	"strings"
	"sync"

	"holdfast/hub/broker"
)

// Memory is a [broker.Backend] that keeps sessions, queues and retained messages
// in memory. Sessions do not expire by time: one with an expiry stays until the
// client starts clean. Set its fields before it is used.
type Memory struct {
	// Auth decides who may connect; nil lets everybody in.
	Auth func(*broker.Connect) error
	// MayPublish and MaySubscribe decide about topics; nil allows all.
	MayPublish   func(client, topic string) bool
	MaySubscribe func(client, filter string) bool
	// Limit is how many messages one session may queue; a publication that would
	// exceed it is refused with QuotaExceeded. Default 1,000,000.
	Limit int
	// Publish, if set, stands in for taking a batch: it may call take, which
	// stores and routes the items, and answer them when and as it likes.
	Publish func(client string, in *broker.Inbound, take func())
	// Note, if set, stands in for noting changes; keep records them.
	Note func(client string, changes []broker.FlightChange, keep func(), done func(error))
	// Recall, if set, decides whether a delivery in flight is still there.
	Recall func(client string, id uint64) bool
	// BeforeAttach, if set, is called at the beginning of Attach.
	BeforeAttach func(ctx context.Context, c *broker.Connect) error
	// OnDetach, if set, is called with the end of each attachment.
	OnDetach func(client string, d broker.Detachment)

	mu         sync.RWMutex
	sessions   map[string]*session
	subscribed map[string]*session // those of sessions that ever subscribed
	retained   map[string]message
	shares     map[string]int // turns of shared subscriptions
}

// message is a stored publication.
type message struct {
	broker.Message
	from string
}

// delivery is a message on its way to one client.
type delivery struct {
	id     uint64
	m      message
	qos    byte
	retain bool
	subIDs []uint32
}

// session implements broker.Session.
type session struct {
	m       *Memory
	client  string
	flight  *broker.Flight
	present bool
	noted   []broker.FlightEntry

	mu       sync.Mutex
	subs     map[string]broker.Subscription
	queue    []delivery
	head     int
	inflight map[uint64]delivery
	received map[uint16]bool
	next     uint64
	out      broker.Outlet
	will     *broker.Will
	detached chan struct{} // closed while nothing is attached
}

type principal struct {
	m    *Memory
	name string
}

func (p *principal) Name() string { return p.name }

func (p *principal) MayPublish(topic []byte) bool {
	return p.m.MayPublish == nil || p.m.MayPublish(p.name, string(topic))
}

func (p *principal) MaySubscribe(filter string) bool {
	return p.m.MaySubscribe == nil || p.m.MaySubscribe(p.name, filter)
}

// Authenticate implements [broker.Backend].
func (m *Memory) Authenticate(_ context.Context, c *broker.Connect) (broker.Principal, error) {
	if m.Auth != nil {
		if err := m.Auth(c); err != nil {
			return nil, err
		}
	}
	return &principal{m, c.ClientID}, nil
}

// Attach implements [broker.Backend].
func (m *Memory) Attach(ctx context.Context, p broker.Principal, c *broker.Connect, out broker.Outlet) (broker.Session, error) {
	if m.BeforeAttach != nil {
		if err := m.BeforeAttach(ctx, c); err != nil {
			return nil, err
		}
	}
	for {
		m.mu.Lock()
		s := m.sessions[p.Name()]
		if s == nil || s.isDetached() {
			s = m.attach(s, p.Name(), c, out)
			m.mu.Unlock()
			return s, nil
		}
		s.mu.Lock()
		old, wait := s.out, s.detached
		s.mu.Unlock()
		m.mu.Unlock()
		old.Close(broker.TakenOver, "another connection of the same client")
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, errors.New("the older connection does not end")
		}
	}
}

// attach makes or resumes a session. The caller holds m.mu.
func (m *Memory) attach(s *session, client string, c *broker.Connect, out broker.Outlet) *session {
	if m.sessions == nil {
		m.sessions = make(map[string]*session)
		m.subscribed = make(map[string]*session)
		m.retained = make(map[string]message)
		m.shares = make(map[string]int)
	}
	present := s != nil && !c.CleanStart
	if !present {
		s = &session{m: m, client: client, flight: broker.NewFlight(broker.FlightState{})}
		m.sessions[client] = s
		delete(m.subscribed, client)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.present, s.out, s.will, s.detached = present, out, c.Will, make(chan struct{})
	return s
}

// Restart forgets what a restart of the program would: every flight is made anew
// from what was noted, and QoS 1 deliveries in flight are queued again. Nothing
// may be attached.
func (m *Memory) Restart() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, s := range m.sessions {
		s.restart()
	}
}

func (s *session) restart() {
	s.mu.Lock()
	defer s.mu.Unlock()
	state := broker.FlightState{Sent: s.noted}
	kept := make(map[uint64]delivery)
	for _, e := range s.noted {
		kept[e.ID] = s.inflight[e.ID]
	}
	var again []delivery
	for id := uint64(0); id <= s.next; id++ {
		if d, ok := s.inflight[id]; ok && d.qos > 0 {
			if _, noted := kept[id]; !noted {
				again = append(again, d)
			}
		}
	}
	s.queue, s.head = append(again, s.queue[s.head:]...), 0
	s.inflight = kept
	for id := range s.received {
		state.Received = append(state.Received, id)
	}
	s.flight = broker.NewFlight(state)
}

func (s *session) isDetached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case <-s.detached:
		return true
	default:
		return false
	}
}

// Present implements [broker.Session].
func (s *session) Present() bool { return s.present }

// Flight implements [broker.Session].
func (s *session) Flight() *broker.Flight { return s.flight }

// Publish implements [broker.Session].
func (s *session) Publish(in *broker.Inbound) {
	if s.m.Publish != nil {
		s.m.Publish(s.client, in, func() { s.take(in.Items) })
		return
	}
	s.take(in.Items)
	in.Done(in)
}

func (s *session) take(items []broker.Item) {
	for i := range items {
		it := &items[i]
		s.mu.Lock()
		if it.Kind == broker.ItemRelease {
			delete(s.received, it.PacketID)
		} else if it.Message.QoS == 2 {
			if s.received == nil {
				s.received = make(map[uint16]bool)
			}
			s.received[it.PacketID] = true
		}
		s.mu.Unlock()
	}
	s.m.route(s.client, items)
}

// Fetch implements [broker.Session].
func (s *session) Fetch(dst []broker.Delivery, n, maxBytes int) []broker.Delivery {
	s.mu.Lock()
	defer s.mu.Unlock()
	for ; n > 0 && maxBytes > 0 && s.head < len(s.queue); n-- {
		d := s.queue[s.head]
		s.queue[s.head] = delivery{}
		s.head++
		if d.qos > 0 {
			if s.inflight == nil {
				s.inflight = make(map[uint64]delivery)
			}
			s.inflight[d.id] = d
		}
		maxBytes -= len(d.m.Payload)
		dst = append(dst, d.delivery())
	}
	if s.head == len(s.queue) {
		s.queue, s.head = s.queue[:0], 0
	}
	return dst
}

func (d *delivery) delivery() broker.Delivery {
	m := d.m.Message
	m.QoS, m.Retain = d.qos, d.retain
	return broker.Delivery{ID: d.id, Message: m, SubIDs: d.subIDs}
}

// Recall implements [broker.Session].
func (s *session) Recall(id uint64) (broker.Delivery, bool) {
	if s.m.Recall != nil && !s.m.Recall(s.client, id) {
		return broker.Delivery{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.inflight[id]
	return d.delivery(), ok
}

// Settle implements [broker.Session].
func (s *session) Settle(ids []uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range ids {
		delete(s.inflight, id)
	}
}

// Note implements [broker.Session].
func (s *session) Note(changes []broker.FlightChange, done func(error)) {
	keep := func() { s.keep(changes) }
	if s.m.Note != nil {
		s.m.Note(s.client, changes, keep, done)
		return
	}
	keep()
	done(nil)
}

func (s *session) keep(changes []broker.FlightChange) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range changes {
		at := len(s.noted)
		for i, e := range s.noted {
			if e.PacketID == c.Entry.PacketID {
				at = i
			}
		}
		switch {
		case at == len(s.noted) && !c.Settled:
			s.noted = append(s.noted, c.Entry)
		case at < len(s.noted) && c.Settled:
			s.noted = append(s.noted[:at:at], s.noted[at+1:]...)
		case at < len(s.noted):
			s.noted[at] = c.Entry
		}
	}
}

// Detach implements [broker.Session].
func (s *session) Detach(d broker.Detachment) {
	s.m.mu.Lock()
	if d.SessionExpiry == 0 {
		delete(s.m.sessions, s.client)
		delete(s.m.subscribed, s.client)
	}
	s.m.mu.Unlock()
	s.mu.Lock()
	will := s.will
	s.out, s.will = nil, nil
	s.mu.Unlock()
	if will != nil && (!d.Clean || d.WithWill) {
		s.m.route(s.client, []broker.Item{{Message: will.Message}})
	}
	if s.m.OnDetach != nil {
		s.m.OnDetach(s.client, d)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.detached)
}

// Queued returns how many messages wait for a client or are in flight to it.
func (m *Memory) Queued(client string) int {
	m.mu.RLock()
	s := m.sessions[client]
	m.mu.RUnlock()
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue) - s.head + len(s.inflight)
}

// match reports whether a topic matches a filter (MQTT 5, 4.7).
func match(filter, topic string) bool {
	if strings.HasPrefix(topic, "$") && !strings.HasPrefix(filter, "$") {
		return false // [MQTT-4.7.2-1]
	}
	for {
		f, frest, fmore := strings.Cut(filter, "/")
		t, trest, tmore := strings.Cut(topic, "/")
		switch {
		case f == "#":
			return true
		case f != "+" && f != t:
			return false
		case !fmore && !tmore:
			return true
		case fmore && !tmore:
			return frest == "#" // "a/#" matches "a"
		case !fmore:
			return false
		}
		filter, topic = frest, trest
	}
}

// Forget drops all sessions and retained messages. Nothing may be attached.
func (m *Memory) Forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.sessions)
	clear(m.subscribed)
	clear(m.retained)
}
