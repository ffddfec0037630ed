package session

import (
	"sync"
	"sync/atomic"
)

// ring keeps the newest committed jobs, up to a number of bytes, for the
// sessions that keep up. The committer puts them in; sessions pin the ones that
// they read from.
type ring struct {
	jobs  []*job // oldest first
	bytes int
	seq   uint64 // of the newest
	spent []*job // not wanted by anybody; free when the journal has let go of them

	base atomic.Uint64 // sequence number of the oldest one kept

	mu        sync.Mutex
	free      []*job // for reuse
	freeBytes int
}

// Bounds of the list of free jobs. Overflow rule: they are left to the garbage
// collector.
const (
	maxFree      = 256
	maxFreeBytes = 8 << 20
)

// keep puts j at the end and lets the oldest go.
func (r *ring) keep(j *job, limit int) {
	r.seq++
	j.refs.Store(1)
	j.seq.Store(r.seq)
	r.jobs = append(r.jobs, j)
	r.bytes += cap(j.buf)
	drop := 0
	for r.bytes > limit && drop < len(r.jobs)-1 {
		r.bytes -= cap(r.jobs[drop].buf)
		drop++
	}
	if drop == 0 {
		return
	}
	r.base.Store(r.seq - uint64(len(r.jobs)-drop) + 1)
	for _, old := range r.jobs[:drop] {
		r.unpin(old)
	}
	n := copy(r.jobs, r.jobs[drop:])
	clear(r.jobs[n:])
	r.jobs = r.jobs[:n]
}

// pin takes hold of the job that had the sequence number; false when it has
// left the ring.
func (j *job) pin(seq uint64) bool {
	for {
		n := j.refs.Load()
		if n <= 0 {
			return false
		}
		if j.refs.CompareAndSwap(n, n+1) {
			break
		}
	}
	if j.seq.Load() == seq {
		return true
	}
	j.hub.ring.unpin(j) // it is in use for another commit already
	return false
}

func (r *ring) unpin(j *job) {
	if j.refs.Add(-1) == 0 {
		r.put(j)
	}
}

// put makes a job ready for reuse.
func (r *ring) put(j *job) {
	j.seq.Store(0)
	clear(j.batch.Entries)
	j.batch.Entries = j.batch.Entries[:0]
	j.batch.First = 0
	j.from, j.in, j.done, j.note = nil, nil, nil, nil
	if cap(j.buf) > maxKept {
		return
	}
	j.buf = j.buf[:0]
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.free) < maxFree && r.freeBytes+cap(j.buf) <= maxFreeBytes {
		r.free = append(r.free, j)
		r.freeBytes += cap(j.buf)
	}
}

func (r *ring) get() *job {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(r.free)
	if n == 0 {
		return nil
	}
	j := r.free[n-1]
	r.free[n-1] = nil
	r.free = r.free[:n-1]
	r.freeBytes -= cap(j.buf)
	return j
}
