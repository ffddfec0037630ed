package broker

import "syscall"

// round is the writer's working memory.
type round struct {
	deliveries []Delivery
	ids        []uint16 // packet identifiers of deliveries, 0 = not to be sent or QoS 0
	sizes      []int    // remaining lengths of deliveries, 0 = not to be sent
	resend     []uint16
	settled    []uint64
	changes    []FlightChange
	out        *buffer
	fetch      int // how many deliveries may be fetched
	sent       [3]uint64
}

// kick sees to it that what is due is written. The caller holds mu.
func (c *conn) kick() {
	if !c.writing && c.due() {
		c.writing = true
		go c.write(nil, 0)
	}
}

// claim makes the reader the writer if there is none, so that what a batch
// brings about is written by one write at its end.
func (c *conn) claim() {
	c.mu.Lock()
	if !c.writing {
		c.writing, c.mine = true, true
	}
	c.mu.Unlock()
}

// yield ends a claim: the reader writes what has gathered, or sees to it.
func (c *conn) yield() {
	if c.mine {
		c.mine = false
		c.writeInline()
		return
	}
	c.mu.Lock()
	c.kick()
	c.mu.Unlock()
}

// due reports whether there is work for a writer. The caller holds mu.
func (c *conn) due() bool {
	if c.out != nil || len(c.settled) > 0 || len(c.changes) > 0 {
		return true
	}
	return c.mayDeliver() && (c.heldReady || c.held == nil && c.window() > 0 && (c.wake || len(c.resend) > 0))
}

func (c *conn) mayDeliver() bool { return c.attached && !c.closing }

// window is how many deliveries may be begun.
func (c *conn) window() int { return min(c.quota, c.flight.free(), fetchCount) }

// gather moves what is due to r. It returns false, and ends the writer's role,
// when nothing is.
func (c *conn) gather(r *round) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.due() {
		c.writing = false
		if c.closing {
			c.interrupt()
			c.changed.Broadcast()
		}
		return false
	}
	r.out, c.out = c.out, nil
	r.settled, c.settled = c.settled, nil
	r.changes, c.changes = c.changes, nil
	if len(r.changes) > 0 {
		c.noteBegins()
	}
	r.fetch, r.resend = 0, r.resend[:0]
	if !c.mayDeliver() {
		return true
	}
	if c.heldReady {
		r.out = c.joined(r.out, c.held)
		c.held, c.heldReady = nil, false
	}
	if c.held != nil {
		return true
	}
	switch n := c.window(); {
	case n == 0:
	case len(c.resend) > 0:
		n = min(n, len(c.resend))
		r.resend = append(r.resend, c.resend[:n]...)
		if c.resend = c.resend[n:]; len(c.resend) == 0 {
			c.resend = nil
		}
	case c.wake:
		c.wake = false
		r.fetch = n
	}
	c.changed.Broadcast() // out is empty: the reader may go on
	return true
}

// joined returns the content of both buffers in one.
func (c *conn) joined(a, b *buffer) *buffer {
	if a == nil {
		return b
	}
	a = c.s.buffers.reserve(a, len(b.b))
	a.b = append(a.b, b.b...)
	c.s.buffers.release(b)
	return a
}

// write is the writer as a goroutine of its own. It first sends what is left of
// rest, from the given offset.
func (c *conn) write(rest *buffer, from int) {
	if rest != nil {
		c.send(rest, from)
	}
	r := c.s.round()
	for c.gather(r) {
		c.turn(r)
		if r.out != nil {
			c.send(r.out, 0)
			r.out = nil
		}
	}
	c.s.rounds.Put(r)
}

// writeInline is the writer on the reader's goroutine. It never waits for the
// client: what the socket does not take at once goes to a goroutine, as does a
// stream of deliveries that does not end.
func (c *conn) writeInline() {
	if c.sock == nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.writing = false
		if c.kick(); !c.writing && c.closing {
			c.changed.Broadcast()
		}
		return
	}
	r := c.s.round()
	defer c.s.rounds.Put(r)
	for n := 0; n < inlineRounds; n++ {
		if !c.gather(r) {
			return
		}
		c.turn(r)
		if r.out == nil {
			continue
		}
		out := r.out
		r.out = nil
		sent, err := c.trySend(out.b)
		if err == nil && sent < len(out.b) {
			go c.write(out, sent)
			return
		}
		c.sent(out, err)
	}
	go c.write(nil, 0)
}

// turn does one round's work up to the write.
func (c *conn) turn(r *round) {
	if len(r.settled) > 0 {
		c.session.Settle(r.settled)
		c.s.settled.put(r.settled)
	}
	if len(r.changes) > 0 {
		changes := r.changes
		c.session.Note(changes, func(err error) { c.noted(changes, err) })
	}
	r.settled, r.changes = nil, nil
	switch {
	case len(r.resend) > 0:
		c.sendAgain(r)
	case r.fetch > 0:
		c.deliver(r)
	}
}

// deliver fetches deliveries and encodes them behind r.out.
func (c *conn) deliver(r *round) {
	clear(r.deliveries)
	r.deliveries = c.session.Fetch(r.deliveries[:0], r.fetch, fetchBytes)
	if len(r.deliveries) == 0 {
		c.mu.Lock()
		c.slow = false // it has caught up
		c.mu.Unlock()
		return
	}
	total, second := c.number(r)
	if total == 0 {
		return
	}
	to := &r.out
	var held *buffer
	if second {
		to = &held
	}
	if *to == nil {
		*to = c.s.buffers.empty(total)
	} else {
		*to = c.s.buffers.reserve(*to, total)
	}
	b := (*to).b
	var changes []FlightChange
	for i := range r.deliveries {
		d := &r.deliveries[i]
		if r.sizes[i] == 0 {
			continue
		}
		b = appendPublish(b, c.version, d, r.ids[i], false, r.sizes[i])
		r.sent[d.Message.QoS]++
		if d.Message.QoS == 2 {
			changes = append(changes, FlightChange{Entry: FlightEntry{PacketID: r.ids[i], ID: d.ID}})
		}
	}
	(*to).b = b
	c.countSent(r)
	if second {
		c.hold(held, changes)
	}
}

// number gives the deliveries their packet identifiers and drops what the client
// does not get. It returns the room that the rest needs, and whether any is of
// QoS 2.
func (c *conn) number(r *round) (total int, second bool) {
	r.ids, r.sizes = r.ids[:0], r.sizes[:0]
	c.mu.Lock()
	defer c.mu.Unlock()
	c.wake = true // there may be more; the next Fetch tells
	for i := range r.deliveries {
		d := &r.deliveries[i]
		size := publishSize(c.version, d)
		id := uint16(0)
		switch {
		case d.Message.QoS == 0 && c.slow:
			c.s.counters.DroppedSlow.Add(1)
			size = 0
		case c.maxPacket > 0 && 1+varintSize(size)+size > c.maxPacket: // [MQTT-3.1.2-24] [MQTT-3.1.2-25]
			c.s.counters.DroppedTooBig.Add(1)
			if d.Message.QoS > 0 {
				c.settle(d.ID)
			}
			size = 0
		case d.Message.QoS > 0:
			id = c.flight.add(d.ID, d.Message.QoS)
			c.quota--
			second = second || d.Message.QoS == 2
		}
		r.ids, r.sizes = append(r.ids, id), append(r.sizes, size)
		if size > 0 {
			total += size + 5
		}
	}
	return total, second
}

// sendAgain encodes what was in flight when the connection began, in the order
// of first sending (MQTT 5, 4.4).
func (c *conn) sendAgain(r *round) {
	if r.out == nil {
		r.out = c.s.buffers.empty(bufferSizes[0])
	}
	for _, id := range r.resend {
		c.mu.Lock()
		e, ok := c.flight.out[id]
		c.mu.Unlock()
		if !ok {
			continue // settled meanwhile
		}
		if e.released {
			r.out = c.s.buffers.reserve(r.out, 5)
			r.out.b = appendAck(r.out.b, c.version, typePubrel, id, Success)
			continue
		}
		d, ok := c.session.Recall(e.id)
		size := 0
		if ok {
			d.Message.QoS = e.qos
			size = publishSize(c.version, &d)
		}
		if !ok || c.maxPacket > 0 && 1+varintSize(size)+size > c.maxPacket {
			c.dropAgain(id, e, ok)
			continue
		}
		if !c.useWindow(id) {
			continue // settled meanwhile
		}
		r.out = c.s.buffers.reserve(r.out, size+5)
		r.out.b = appendPublish(r.out.b, c.version, &d, id, true, size)
		r.sent[e.qos]++
	}
	c.countSent(r)
}

// useWindow counts a delivery that is sent again, if it is still in flight.
func (c *conn) useWindow(id uint16) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.flight.out[id]
	if ok {
		e.counted = true
		c.flight.out[id] = e
		c.quota--
	}
	return ok
}

// dropAgain ends a delivery that cannot be sent again.
func (c *conn) dropAgain(id uint16, e flying, tooBig bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.flight.out, id)
	if tooBig {
		c.s.counters.DroppedTooBig.Add(1)
		c.settle(e.id)
	} else {
		c.s.counters.DroppedExpired.Add(1)
	}
	if e.qos == 2 {
		c.changes = append(c.changes, FlightChange{Entry: FlightEntry{PacketID: id, ID: e.id}, Settled: true})
	}
}

func (c *conn) countSent(r *round) {
	for qos, n := range r.sent {
		if n > 0 {
			c.s.counters.MessagesOut[qos].Add(n)
		}
	}
	r.sent = [3]uint64{}
}

// hold keeps encoded deliveries back until their QoS 2 ones are noted. Nothing
// is fetched meanwhile, so that the order stays.
func (c *conn) hold(b *buffer, changes []FlightChange) {
	c.mu.Lock()
	c.held, c.heldReady = b, false
	c.noteBegins()
	c.mu.Unlock()
	c.session.Note(changes, func(err error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.noteEnds(err)
		if !c.gone && err == nil {
			c.heldReady = true
			c.kick()
		}
	})
}

// noted goes on with the client's PUBRECs when they are durable.
func (c *conn) noted(changes []FlightChange, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.noteEnds(err)
	if c.gone || err != nil {
		return
	}
	for _, ch := range changes {
		id := ch.Entry.PacketID
		if e, ok := c.flight.out[id]; ok && e.id == ch.Entry.ID && ch.Entry.Released && !ch.Settled {
			e.released = true
			c.flight.out[id] = e
			if !c.closing {
				c.reserveOut(5)
				c.out.b = appendAck(c.out.b, c.version, typePubrel, id, Success)
			}
		}
	}
	c.kick()
}

// noteBegins and noteEnds keep account of calls of Note. The caller holds mu.
func (c *conn) noteBegins() {
	if c.notes++; c.notes == 1 {
		c.noteSince.Store(c.s.now.Load())
	}
}

func (c *conn) noteEnds(err error) {
	since := int64(0)
	if c.notes--; c.notes > 0 {
		since = c.s.now.Load()
	}
	c.noteSince.Store(since)
	c.changed.Broadcast()
	if err != nil && !c.closing {
		c.log().Error("a delivery could not be noted", "err", err)
		c.shutLocked(ending{code: ServerUnavailable, tell: true, Detachment: Detachment{Reason: "a delivery could not be noted"}})
	}
}

// settle remembers a delivery that is over. The caller holds mu.
func (c *conn) settle(id uint64) {
	if c.settled == nil {
		c.settled = c.s.settled.get()
	}
	c.settled = append(c.settled, id)
}

// reserveOut makes room for n bytes of answers. The caller holds mu.
func (c *conn) reserveOut(n int) {
	if c.out == nil {
		if n > 0 {
			c.out = c.s.buffers.empty(n)
		}
		return
	}
	c.out = c.s.buffers.reserve(c.out, n)
}

// answerRare queues an answer that is not an acknowledgement.
func (c *conn) answerRare(p []byte) {
	if c.maxPacket > 0 && len(p) > c.maxPacket {
		c.fail(&fault{PacketTooLarge, "the answer is larger than the client takes"})
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.reserveOut(len(p))
	c.out.b = append(c.out.b, p...)
	c.kick()
}

// trySend writes what the socket takes at once.
func (c *conn) trySend(p []byte) (n int, err error) {
	werr := c.sock.Write(func(fd uintptr) bool {
		for {
			n, err = syscall.Write(int(fd), p)
			if err != syscall.EINTR {
				break
			}
		}
		return true
	})
	if err == syscall.EAGAIN {
		n, err = 0, nil
	}
	if werr != nil {
		err = werr
	}
	return max(n, 0), err
}

// send writes b from the given offset, and waits for the client if it must. The
// sweep bounds the wait.
func (c *conn) send(b *buffer, from int) {
	var err error
	for p := b.b[from:]; len(p) > 0 && err == nil; {
		n := min(len(p), writeChunk)
		began := c.s.now.Load()
		c.writeSince.Store(began)
		_, err = c.nc.Write(p[:n])
		c.writeSince.Store(0)
		p = p[n:]
		if c.s.now.Load()-began > int64(c.s.o.SlowAfter) {
			c.mu.Lock()
			c.slow = true
			c.mu.Unlock()
		}
	}
	c.sent(b, err)
}

// sent takes a buffer back that was written.
func (c *conn) sent(b *buffer, err error) {
	c.s.counters.BytesOut.Add(uint64(len(b.b)))
	c.s.buffers.release(b)
	if err != nil {
		c.shut(ending{Detachment: Detachment{Reason: "writing to the client: " + err.Error()}})
		c.raw.Close()
	}
}
