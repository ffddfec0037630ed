package client

import (
	"errors"
	"fmt"
	"io"
	"runtime"
	"time"
)

const (
	readBuffer = 32 << 10
	keepBuffer = 64 << 10 // larger buffers are given back when the connection is quiet
)

// write is the writer: it takes everything that is queued and writes it at once.
func (c *Conn) write() {
	for {
		c.mu.Lock()
		for len(c.out) == 0 && c.err == nil {
			c.work.Wait()
		}
		c.mu.Unlock()
		// Whoever woke us is usually about to queue more: one turn of the
		// scheduler gathers it into this write.
		runtime.Gosched()
		c.mu.Lock()
		if c.err != nil {
			c.mu.Unlock()
			return
		}
		buf, dones, last := c.out, c.outDone, c.closing
		c.out, c.spare, c.outDone = c.spare[:0], nil, nil
		c.giveRoom()
		c.mu.Unlock()

		_, err := c.sock.Write(buf)
		c.wrote.Store(int64(c.o.Clock.Elapsed()))
		if err != nil {
			c.end(fmt.Errorf("write: %w", err))
			err = c.Err()
		}
		for _, done := range dones {
			done(0, err)
		}
		if err != nil {
			return
		}
		if last {
			close(c.flushed)
			return
		}
		c.mu.Lock()
		c.spare = buf
		c.mu.Unlock()
	}
}

// An answer is one PUBACK.
type answer struct {
	id    uint16
	code  byte
	words string
	done  func(byte, error)
}

// A reader holds what one pass over the input gathers.
type reader struct {
	c       *Conn
	answers []answer
	acks    []byte // acknowledgements to be sent
	msg     Message
}

// read is the reader; it returns why it ended.
func (c *Conn) read(rest []byte) error {
	r := &reader{c: c}
	buf := make([]byte, max(readBuffer, len(rest)))
	end := copy(buf, rest)
	for {
		used, need, err := r.consume(buf[:end])
		if err != nil {
			return err
		}
		end = copy(buf, buf[used:end])
		switch {
		case need > len(buf):
			buf = append(make([]byte, 0, need), buf[:end]...)[:need]
		case end == 0 && len(buf) > 4*keepBuffer: // a rare large message came through
			buf = make([]byte, readBuffer)
		}
		n, err := c.sock.Read(buf[end:])
		if n > 0 {
			c.heard.Store(int64(c.o.Clock.Elapsed()))
			end += n
			continue // an error comes again with the next read
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("far side hung up")
			}
			return fmt.Errorf("read: %w", err)
		}
	}
}

// consume handles all whole packets in buf.
func (r *reader) consume(buf []byte) (used, need int, err error) {
	for {
		f, n, more, err := nextFrame(buf[used:], r.c.o.MaxPacket)
		if err == nil && n > 0 {
			used += n
			if f.head == typePuback {
				err = r.puback(f)
			} else {
				r.settle() // keeps the order between answers and messages
				err = r.handle(f)
			}
			if err == nil {
				continue
			}
		}
		r.settle()
		r.flush()
		return used, more, err
	}
}

func (r *reader) puback(f frame) error {
	id, code, words, err := parseAck(f, r.c.o.Version)
	if err != nil {
		return err
	}
	r.answers = append(r.answers, answer{id: id, code: code, words: words})
	return nil
}

// settle gives the gathered answers to their publishes.
func (r *reader) settle() {
	if len(r.answers) == 0 {
		return
	}
	c := r.c
	now := c.o.Clock.Elapsed()
	c.mu.Lock()
	passed := c.early
	for i := range r.answers {
		a := &r.answers[i]
		if a.id == 0 || int(a.id) > len(c.flights) || !c.flights[a.id-1].waiting {
			continue // nothing of ours waits for it
		}
		a.done = c.flights[a.id-1].done
		c.flights[a.id-1] = flight{}
		c.early++
		c.confirmed(now)
	}
	size := uint64(len(c.flights))
	moved := false
	for c.head < c.tail && !c.flights[c.head%size].waiting {
		c.head++
		c.early--
		moved = true
	}
	if c.early > 0 && (moved || passed == 0) {
		c.passed = now // another one is the oldest, and was passed over
	}
	if moved {
		c.giveRoom()
	}
	c.mu.Unlock()
	for i, a := range r.answers {
		switch {
		case a.done == nil:
		case a.code >= 0x80:
			a.done(a.code, reasonError("publish", c.o.Version, a.code, a.words))
		default:
			a.done(a.code, nil)
		}
		r.answers[i] = answer{}
	}
	r.answers = r.answers[:0]
}

// handle takes every packet but PUBACK.
func (r *reader) handle(f frame) error {
	switch f.head & 0xf0 {
	case typePublish:
		return r.publish(f)
	case typePubrel:
		id, _, _, err := parseAck(f, r.c.o.Version)
		if err != nil {
			return err
		}
		delete(r.c.o.Inbox.ids, id)
		r.ack(typePubcomp, id)
		return nil
	case typeSuback, typeUnsuback:
		return r.c.subscribed(f)
	case typePingresp:
		return nil // it has been heard, which is all it says
	case typeDisconnect:
		pk := f.packet(r.c.o.Version)
		if err := pk.DisconnectDecode(f.body); err != nil {
			return fmt.Errorf("%w: disconnect: %w", ErrMalformed, err)
		}
		return reasonError("connection", r.c.o.Version, pk.ReasonCode, pk.Properties.ReasonString)
	}
	return fmt.Errorf("%w: packet 0x%02x from a server", ErrMalformed, f.head)
}

func (r *reader) publish(f frame) error {
	c, m := r.c, &r.msg
	if err := parsePublish(f, c.o.Version, m); err != nil {
		return err
	}
	if m.QoS == 2 {
		if _, again := c.o.Inbox.ids[m.PacketID]; again {
			r.ack(typePubrec, m.PacketID)
			return nil
		}
		if c.o.Inbox.ids == nil {
			c.o.Inbox.ids = map[uint16]struct{}{}
		}
	}
	if c.o.OnMessage != nil {
		r.flush()
		c.busy.Store(true)
		c.o.OnMessage(c, m)
		c.heard.Store(int64(c.o.Clock.Elapsed()))
		c.busy.Store(false)
	}
	if m.QoS == 2 {
		c.o.Inbox.ids[m.PacketID] = struct{}{}
	}
	if !c.o.ManualAck {
		r.ackMessage(m.QoS, m.PacketID)
	}
	return nil
}

func (r *reader) ackMessage(qos byte, id uint16) {
	switch qos {
	case 1:
		r.ack(typePuback, id)
	case 2:
		r.ack(typePubrec, id)
	}
}

func (r *reader) ack(head byte, id uint16) {
	if r.acks = appendAck(r.acks, head, id); len(r.acks) >= 4096 {
		r.flush()
	}
}

// flush hands the gathered acknowledgements to the writer. While the output is
// twice over its limit it waits, and so stops reading: a server that sends and
// does not read cannot make it grow.
func (r *reader) flush() {
	if len(r.acks) == 0 {
		return
	}
	c := r.c
	for {
		c.mu.Lock()
		if c.usable() != nil || len(c.out) <= 2*c.o.Buffer {
			c.append(r.acks)
			c.mu.Unlock()
			r.acks = r.acks[:0]
			return
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		<-room // also given when the connection ends
	}
}

// append queues bytes unless nothing can be sent any more. The caller holds mu.
func (c *Conn) append(b []byte) {
	if c.usable() == nil {
		c.out = append(c.out, b...)
		c.work.Signal()
	}
}

// Ack acknowledges a received QoS 1 or 2 message when ManualAck is set. Calls
// must be made in the order in which the messages came (MQTT 5, 4.6). It
// returns why the connection has ended, when it has.
func (c *Conn) Ack(qos byte, packetID uint16) error {
	var b [4]byte
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	switch qos {
	case 1:
		c.append(appendAck(b[:0], typePuback, packetID))
	case 2:
		c.append(appendAck(b[:0], typePubrec, packetID))
	}
	return nil
}

// watch keeps the connection alive and ends it when it is not.
func (c *Conn) watch() {
	timer := c.o.Clock.NewTimer(0)
	defer timer.Stop()
	var pinged time.Duration = -1
	for {
		select {
		case <-timer.C():
		case <-c.ended:
			return
		}
		now := c.o.Clock.Elapsed()
		next, ping, err := c.look(now, pinged)
		if err != nil {
			c.end(err)
			return
		}
		if ping {
			pinged = now
			c.mu.Lock()
			c.trim()
			c.append([]byte{typePingreq, 0})
			c.mu.Unlock()
		}
		timer.Reset(max(next-now, time.Millisecond))
	}
}

// trim gives large buffers back when nothing is in them. The caller holds mu.
func (c *Conn) trim() {
	if cap(c.spare) > keepBuffer {
		c.spare = nil
	}
	if len(c.out) == 0 && cap(c.out) > keepBuffer {
		c.out = nil
	}
}

// look decides what the time has come for. Nothing that can happen later can
// come due before next.
func (c *Conn) look(now, pinged time.Duration) (next time.Duration, ping bool, err error) {
	bound, ask := c.o.Bound, c.o.Bound/2
	heard, wrote := time.Duration(c.heard.Load()), time.Duration(c.wrote.Load())
	busy := c.busy.Load()
	if busy {
		heard = now
	}
	if now-heard >= bound {
		return 0, false, fmt.Errorf("%w for %v", ErrSilent, now-heard)
	}
	next = heard + bound
	if now-heard >= ask && pinged < heard+ask {
		ping = true
	} else if now-heard < ask {
		next = heard + ask
	}

	if every := c.o.KeepAlive / 2; every > 0 { // MQTT 5, 3.1.2.10: send something within KeepAlive
		quiet := max(wrote, pinged)
		if now-quiet >= every {
			ping, quiet = true, now
		}
		next = min(next, quiet+every)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.waits == 0 || busy {
		return next, ping, nil
	}
	from := c.since
	if c.early > 0 {
		from = min(from, c.passed)
	}
	if now-from >= bound {
		return 0, false, fmt.Errorf("%w for %v, %d waiting", ErrUnconfirmed, now-from, c.waits)
	}
	next = min(next, from+bound)
	return next, ping, nil
}
