package session

import (
	"errors"
	"slices"
	"sync/atomic"

	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

// A job is a batch on its way through the journal and, for the sessions that
// keep up, the memory from which they are fed afterwards.
type job struct {
	batch journal.Batch
	hub   *Hub
	from  *session        // who published it; nil for the hub itself
	in    *broker.Inbound // to be answered
	note  func(error)     // to be told
	old   bool            // the client speaks MQTT 3.1.1
	n     uint64          // number among the jobs of its session
	buf   []byte          // the bodies of the entries
	done  chan error      // for one who waits until it is applied; has room for one

	seq  atomic.Uint64 // of the commit; changes when the job is used anew
	refs atomic.Int32  // the ring and the sessions that read it
}

// maxKept is the largest buffer that a job keeps for the next use.
const maxKept = 1 << 20

func (h *Hub) newJob(from *session, in *broker.Inbound) *job {
	j := h.ring.get()
	if j == nil {
		j = &job{hub: h}
		j.batch.Done = j.committed
		j.batch.Tag = j
	}
	j.from, j.in, j.done, j.note = from, in, nil, nil
	j.old = from != nil && from.version < 5
	return j
}

// grow makes room for n more bytes of bodies.
func (j *job) grow(n int) {
	if cap(j.buf)-len(j.buf) < n {
		// What is there already stays where it is: entries point to it.
		j.buf = make([]byte, 0, max(n, 4096))
	}
}

// add makes an entry of what was appended to buf since from.
func (j *job) add(from int, class uint8, time int64, volatile bool) {
	body := j.buf[from:len(j.buf):len(j.buf)]
	j.batch.Entries = append(j.batch.Entries, journal.Entry{Class: class, Volatile: volatile, Time: time, Body: body})
}

func (j *job) control(c *control, now int64) {
	j.grow(controlSize(c))
	from := len(j.buf)
	j.buf = c.append(j.buf)
	j.add(from, 0, now, false)
}

func controlSize(c *control) int {
	return 64 + len(c.client) + len(c.owner) + len(c.filter) + len(c.message)
}

// submit hands a job to the journal. Jobs of one session stay in order.
func (h *Hub) submit(j *job) {
	h.submitting.Lock()
	if s := j.from; s != nil {
		s.jobs++
		j.n = s.jobs
	}
	if j.from != nil && j.from.held() {
		h.park(j)
	} else {
		h.submitLocked(j)
	}
	h.unlockSubmitting()
}

func (h *Hub) submitLocked(j *job) {
	if len(h.waiting) > 0 {
		h.waiting = append(h.waiting, j)
		return
	}
	if err := h.j.Submit(&j.batch); errors.Is(err, journal.ErrFull) {
		h.waiting = append(h.waiting, j)
		h.poke()
	} else if err != nil {
		h.failLocked(j, err)
	}
}

// resubmit tries the jobs again for which the journal's queue had no room. It
// reports whether some are left.
func (h *Hub) resubmit() bool {
	h.submitting.Lock()
	defer h.unlockSubmitting()
	for len(h.waiting) > 0 {
		j := h.waiting[0]
		err := h.j.Submit(&j.batch)
		if errors.Is(err, journal.ErrFull) {
			return true
		}
		h.waiting[0] = nil
		h.waiting = h.waiting[1:]
		if err != nil {
			h.failLocked(j, err)
		}
	}
	h.waiting = nil
	return false
}

// committed is the Done of the journal: the job is durable, or it failed.
func (j *job) committed(_ journal.Offset, err error) {
	if err != nil {
		j.hub.submitting.Lock()
		j.hub.failLocked(j, err)
		j.hub.unlockSubmitting()
		return
	}
	if s := j.from; s != nil && s.retrying.Load() > 0 {
		s.retrying.Add(-1)
	}
	if in := j.in; in != nil {
		j.in = nil
		in.Done(in)
	}
	if note := j.note; note != nil {
		j.note = nil
		note(nil)
	}
}

// refusal is a job that the journal did not take.
type refusal struct {
	j    *job
	code byte
	err  error
}

// unlockSubmitting gives the lock back and answers what was refused under it:
// the engine must be called without a lock.
func (h *Hub) unlockSubmitting() {
	refused := h.refused
	h.refused = nil
	h.submitting.Unlock()
	for _, r := range refused {
		h.refuse(r)
	}
}

// failLocked ends or parks a job that the journal did not take. An MQTT 5
// client is told; to an older one no answer can say it, so it gets none: its
// messages wait here, and it stops being read when too many do.
func (h *Hub) failLocked(j *job, err error) {
	h.stats.failed.Add(1)
	if s := j.from; s != nil {
		if s.retrying.Load() > 0 {
			s.retrying.Add(-1)
		}
		if j.in != nil && j.old && !errors.Is(err, journal.ErrClosed) && !errors.Is(err, journal.ErrTooLarge) {
			h.park(j)
			return
		}
	}
	code := broker.UnspecifiedError
	if errors.Is(err, journal.ErrNoSpace) || errors.Is(err, journal.ErrTooLarge) {
		code = broker.QuotaExceeded
	}
	h.refused = append(h.refused, refusal{j, code, err})
}

// refuse answers every item of a job with a reason code.
func (h *Hub) refuse(r refusal) {
	j := r.j
	if in := j.in; in != nil {
		for i := range in.Items {
			if it := &in.Items[i]; it.Code < 0x80 {
				it.Code = r.code
				if it.Kind == broker.ItemPublish && it.Message.QoS == 0 {
					h.stats.dropped.Add(1)
				}
			}
		}
		j.in = nil
		in.Done(in)
	}
	if note := j.note; note != nil {
		j.note = nil
		note(r.err)
	}
	if j.done != nil {
		j.done <- r.err
		j.done = nil
	}
}

// park keeps a job of a session until the medium is back, in order.
func (h *Hub) park(j *job) {
	s := j.from
	if len(s.parked) == 0 && !slices.Contains(h.parked, s) {
		h.parked = append(h.parked, s)
	}
	at, _ := slices.BinarySearchFunc(s.parked, j, func(a, b *job) int { return int(a.n) - int(b.n) })
	s.parked = slices.Insert(s.parked, at, j)
}

// held reports whether new jobs of the session must wait for parked ones.
func (s *session) held() bool { return len(s.parked) > 0 || s.retrying.Load() > 0 }

// retryParked submits the parked jobs again.
func (h *Hub) retryParked() {
	h.submitting.Lock()
	defer h.unlockSubmitting()
	sessions := h.parked
	h.parked = nil
	for _, s := range sessions {
		if s.retrying.Load() > 0 {
			h.parked = append(h.parked, s)
			continue
		}
		jobs := s.parked
		s.parked = nil
		s.retrying.Store(int32(len(jobs)))
		for _, j := range jobs {
			h.submitLocked(j)
		}
	}
}

// dropParked answers what can no longer be stored because the hub ends.
func (h *Hub) dropParked() {
	h.submitting.Lock()
	defer h.unlockSubmitting()
	end := func(j *job) {
		h.refused = append(h.refused, refusal{j, broker.ServerShuttingDown, journal.ErrClosed})
	}
	for _, s := range h.parked {
		for _, j := range s.parked {
			end(j)
		}
		s.parked = nil
	}
	for _, j := range h.waiting {
		end(j)
	}
	h.parked, h.waiting = nil, nil
}
