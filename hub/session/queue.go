package session

import "holdfast/hub/journal"

// queue is a first-in-first-out list of items in one growing array. The zero
// value is empty. Its bound is Options.MaxPending, at the place that fills it.
type queue struct {
	ring       []item // its length is a power of two
	head, size int
}

func (q *queue) len() int { return q.size }

func (q *queue) push(it item) {
	if q.size == len(q.ring) {
		bigger := make([]item, max(8, 2*len(q.ring)))
		for i := range q.size {
			bigger[i] = q.ring[(q.head+i)&(len(q.ring)-1)]
		}
		q.ring, q.head = bigger, 0
	}
	q.ring[(q.head+q.size)&(len(q.ring)-1)] = it
	q.size++
}

func (q *queue) pop() (item, bool) {
	if q.size == 0 {
		return item{}, false
	}
	it := q.ring[q.head]
	q.ring[q.head] = item{}
	q.head = (q.head + 1) & (len(q.ring) - 1)
	q.size--
	return it, true
}

// firstStored returns the offset of the first item that is in the journal, 0
// when there is none.
func (q *queue) firstStored() journal.Offset {
	for i := range q.size {
		if off := q.ring[(q.head+i)&(len(q.ring)-1)].offset; off != 0 {
			return off
		}
	}
	return 0
}
