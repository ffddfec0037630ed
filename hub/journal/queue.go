package journal

import "sync"

// queue is the bounded hand-over from submitters to the committer.
type queue struct {
	mu     sync.Mutex
	list   []*Batch
	spare  []*Batch // the list before last, for reuse
	bytes  int      // taken by Submit and not yet settled
	max    int      // overflow rule: refuse with ErrFull
	hurry  int      // bytes at which lingering ends
	closed bool

	ready  chan struct{} // room for one: something is queued
	urgent chan struct{} // room for one: do not linger
}

func (q *queue) put(b *Batch) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return ErrClosed
	}
	if q.bytes > 0 && q.bytes+b.size > q.max {
		return ErrFull
	}
	q.bytes += b.size
	q.list = append(q.list, b)
	if len(q.list) == 1 {
		poke(q.ready)
	}
	if q.bytes >= q.hurry {
		poke(q.urgent)
	}
	return nil
}

// take empties the queue. The result is valid until the take after next.
func (q *queue) take() []*Batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	list := q.list
	clear(q.spare[:cap(q.spare)])
	q.list, q.spare = q.spare[:0], list
	return list
}

// done says that batches of so many bytes are settled.
func (q *queue) done(bytes int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.bytes -= bytes
}

func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
}

// poke sends a signal unless one is waiting already.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// A wake-up for any number of waiters.
type signal struct {
	mu sync.Mutex
	c  chan struct{}
}

// next returns a channel that the next notify closes.
func (s *signal) next() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c == nil {
		s.c = make(chan struct{})
	}
	return s.c
}

func (s *signal) notify() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.c != nil {
		close(s.c)
		s.c = nil
	}
}
