package modbus

import (
	"context"
	"sync"
)

// priority orders those who wait for a link.
type priority uint8

const (
	forWrite priority = iota
	forRead
)

// maxStreak is how many writes in a row may overtake a waiting read, so that a
// flood of commands does not blind the gateway.
const maxStreak = 8

// A turnstile lets one caller at a time use a link. Writes go before reads;
// among equals it is first come, first served, and since a session asks for one
// request at a time, sessions take turns. The queues need no bound of their own:
// a caller waits in at most one, and callers are the groups and writes under way.
type turnstile struct {
	mu     sync.Mutex
	busy   bool
	waits  [2]queue
	streak int // writes let in since a read was, while reads waited
}

// A ticket is a caller's place. It can be used again after release.
type ticket struct {
	let  chan struct{} // has room for one
	next *ticket
	in   bool
}

func newTicket() *ticket { return &ticket{let: make(chan struct{}, 1)} }

type queue struct{ head, tail *ticket }

func (q *queue) push(t *ticket) {
	t.next = nil
	if q.head == nil {
		q.head, q.tail = t, t
		return
	}
	q.tail.next = t
	q.tail = t
}

func (q *queue) pop() *ticket {
	t := q.head
	if q.head = t.next; q.head == nil {
		q.tail = nil
	}
	return t
}

func (q *queue) remove(t *ticket) {
	var prev *ticket
	for at := q.head; at != nil; prev, at = at, at.next {
		if at != t {
			continue
		}
		if prev == nil {
			q.head = at.next
		} else {
			prev.next = at.next
		}
		if q.tail == at {
			q.tail = prev
		}
		return
	}
}

// acquire waits for the link or for ctx to end, whose error it then returns.
func (s *turnstile) acquire(ctx context.Context, t *ticket, p priority) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if !s.busy {
		s.busy = true
		s.mu.Unlock()
		return nil
	}
	t.in = false
	s.waits[p].push(t)
	s.mu.Unlock()
	select {
	case <-t.let:
		return nil
	case <-ctx.Done():
	}
	s.mu.Lock()
	if t.in { // let in meanwhile: pass the link on
		<-t.let
		s.pass()
	} else {
		s.waits[p].remove(t)
	}
	s.mu.Unlock()
	return ctx.Err()
}

// release gives the link to the next one.
func (s *turnstile) release() {
	s.mu.Lock()
	s.pass()
	s.mu.Unlock()
}

// waiting reports whether anybody waits.
func (s *turnstile) waiting() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.waits[forWrite].head != nil || s.waits[forRead].head != nil
}

func (s *turnstile) pass() {
	write, read := s.waits[forWrite].head != nil, s.waits[forRead].head != nil
	var t *ticket
	switch {
	case write && (!read || s.streak < maxStreak):
		t = s.waits[forWrite].pop()
		if read {
			s.streak++
		}
	case read:
		t = s.waits[forRead].pop()
		s.streak = 0
	default:
		s.busy = false
		return
	}
	t.in = true
	t.let <- struct{}{}
}
