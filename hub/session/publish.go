package session

import (
	"errors"

	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

// Publish implements [broker.Session].
func (s *session) Publish(in *broker.Inbound) {
	h := s.hub
	j := h.newJob(s, in)
	size := 0
	for i := range in.Items {
		m := &in.Items[i].Message
		size += 128 + len(s.owner) + len(m.Topic) + len(m.Props) + len(m.Payload)
	}
	j.grow(size)
	now := h.now()
	for i := range in.Items {
		it := &in.Items[i]
		switch it.Kind {
		case broker.ItemPublish:
			it.Code = s.accept(j, it, now)
		case broker.ItemRelease:
			if s.durable.Load() {
				j.control(&control{kind: kindReleased, number: s.number, packet: it.PacketID}, now)
			}
		}
	}
	h.submit(j)
}

// accept adds a publication to the job, or returns why not. The engine has
// asked the principal whether the client may.
func (s *session) accept(j *job, it *broker.Item, now int64) byte {
	h, m := s.hub, &it.Message
	if m.Retain && len(m.Payload) > 0 && h.retainedFull(m) {
		return broker.QuotaExceeded
	}
	r := hub.Record{
		QoS: m.QoS, Retain: m.Retain, PacketID: it.PacketID, Received: now,
		Sender: s.ownerName, Topic: m.Topic, Props: m.Props, Payload: m.Payload,
	}
	if m.QoS < 2 {
		r.PacketID = 0 // only a repeated QoS 2 message has to be known again
	}
	if m.Expiry > 0 {
		r.Expires = now + m.Expiry.Microseconds()
	}
	code := h.put(j, &r, &s.router)
	if code < 0x80 {
		h.stats.received.Add(1)
		h.stats.receivedBytes.Add(uint64(len(m.Payload)))
	}
	return code
}

// put evaluates the routes and adds the record to the job.
func (h *Hub) put(j *job, r *hub.Record, rt *router) byte {
	if len(r.Topic) > hub.MaxTopic || len(r.Props) > hub.MaxProps || len(r.Payload) > h.maxPayload {
		return broker.PacketTooLarge
	}
	class := rt.targets(h.routes.Load(), r)
	j.grow(r.Size())
	from := len(j.buf)
	j.buf = r.Append(j.buf)
	volatile := r.QoS == 0 && !r.Retain && len(r.Targets) == 0
	j.add(from, class, r.Received, volatile)
	return 0
}

// committed is called by the journal with each group that is durable: it
// applies control records, keeps retained messages, and offers every message to
// the sessions that want it.
func (h *Hub) committed(group []*journal.Batch) {
	for _, j := range h.ring.spent {
		h.ring.put(j)
	}
	h.ring.spent = h.ring.spent[:0]
	h.mu.Lock()
	last := journal.Offset(h.applied.Load())
	for _, b := range group {
		last = max(last, h.commitBatch(b))
	}
	h.applied.Store(uint64(last))
	wake := h.wake
	h.wake = h.woken[:0]
	for _, s := range wake {
		s.noted = false
	}
	h.mu.Unlock()
	for i, s := range wake {
		s.wake()
		wake[i] = nil
	}
	h.woken = wake
}

// commitBatch applies one batch and returns the offset of its last entry.
func (h *Hub) commitBatch(b *journal.Batch) journal.Offset {
	j, _ := b.Tag.(*job)
	f := fanout{h: h, j: j, seq: h.ring.seq + 1}
	next := b.First
	for i := range b.Entries {
		e := &b.Entries[i]
		var off journal.Offset
		if !e.Volatile {
			off = next
			next++
		}
		if !e.Volatile {
			h.sinceSnap += int64(len(e.Body))
			h.stats.storedBytes.Add(uint64(len(e.Body)))
		}
		if err := h.apply(e.Body, off, &f); err != nil {
			h.log.Error("journal entry not understood", "offset", off, "error", err)
		}
	}
	if j == nil {
		return next - min(next, 1)
	}
	if j.done != nil {
		j.done <- nil
		j.done = nil
	}
	if f.used {
		h.ring.keep(j, h.o.RingBytes)
	} else {
		h.ring.spent = append(h.ring.spent, j)
	}
	return next - min(next, 1)
}

// fanout offers the messages of one batch to the sessions.
type fanout struct {
	h    *Hub
	j    *job   // nil when the batch is somebody else's
	seq  uint64 // that the job will have in the ring
	used bool   // some session points into the job
}

func (f *fanout) message(body []byte, off journal.Offset, r *hub.Record) {
	for _, m := range f.h.tree.match(r.Topic) {
		if m.local && string(r.Sender) == m.feed.owner {
			if m = m.own; m == nil {
				continue
			}
		}
		if m.feed.offer(f, item{job: f.j, seq: f.seq, offset: off, match: m}, body, min(m.qos, r.QoS)) {
			f.used = true
		}
	}
}

// apply takes one journal entry in: live from the committer, or when the hub
// opens, with f nil. h.mu is held, or nobody else is there yet.
func (h *Hub) apply(body []byte, off journal.Offset, f *fanout) error {
	if len(body) == 0 {
		return errors.New("entry is empty")
	}
	if body[0] >= kindOpened {
		var c control
		if err := c.parse(body); err != nil {
			return err
		}
		h.changed = true
		h.applyControl(&c, off)
		return nil
	}
	var r hub.Record
	if err := r.Parse(body); err != nil {
		return err
	}
	if r.QoS == 2 && r.PacketID != 0 {
		if s := h.byOwner[string(r.Sender)]; s != nil {
			s.received[r.PacketID] = off
			h.changed = true
		}
	}
	if r.Retain {
		h.retain(body, &r)
	}
	if f != nil {
		f.message(body, off, &r)
	}
	return nil
}
