package mqtt

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/batch"
)

// Names of the user properties (MQTT 5).
const (
	PropEpoch    = "holdfast-epoch"
	PropOffset   = "holdfast-offset"
	PropIndex    = "holdfast-index"
	PropQuality  = "quality"
	PropUnit     = "unit"
	PropEncoding = "content-encoding"
)

// Permanent reports whether a PUBACK's reason code (MQTT 5, 3.4.2.1) is about
// the message itself, so that sending it again is refused again. "Not
// authorized" and "quota exceeded" are not: an operator or time may change them.
func Permanent(code byte) bool {
	switch code {
	case 0x90, // topic name invalid
		0x95, // packet too large
		0x99, // payload format invalid
		0x9a, // retain not supported
		0x9b: // qos not supported
		return true
	}
	return false
}

type upstream struct {
	o Options
	templates
}

// Connect implements hub.Upstream.
func (u *upstream) Connect(ctx context.Context) (hub.Link, error) {
	t, password, err := u.o.Credentials.Read(u.o.ReadFile)
	if err != nil {
		return nil, err
	}
	l := &link{u: u, arm: make(chan struct{}, 1), told: make(chan struct{}, 1), done: make(chan struct{})}
	if u.o.Compress {
		// A small window: messages are small, and each encoder holds a few of it.
		l.pack, err = zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true), zstd.WithWindowSize(128<<10))
		if err != nil {
			return nil, fmt.Errorf("compression: %w", err)
		}
	}
	if !u.o.Form.stored() {
		if l.readings, err = u.o.Readings(u.o.Form); err != nil {
			return nil, fmt.Errorf("readings as %s: %w", u.o.Form.Payload, err)
		}
	}
	l.conn, _, err = client.Dial(ctx, u.o.client(t, password))
	if err != nil {
		return nil, err
	}
	go l.run(u.o.Clock.NewTimer(time.Hour))
	return l, nil
}

// A link is one connection to the broker.
type link struct {
	u        *upstream
	conn     *client.Conn
	pack     *zstd.Encoder // nil without compression
	readings Readings      // nil when everything travels as stored
	arm      chan struct{} // a batch was begun
	told     chan struct{} // something is in over
	done     chan struct{}

	advanced atomic.Uint64 // see Advanced

	mu sync.Mutex

	// queue is what the connection had no room for yet, in order. Its bound is
	// the sender's window: each entry is a message that Send has accepted. first
	// is true when made is the message of its first entry.
	queue []publish
	made  client.Message
	first bool

	// spread is the record whose messages are being handed over, one after the
	// other; it comes before queue. nil: none.
	spread *spread

	// over is to be settled by run, because who found out may be in Send. Its
	// bound is the sender's window too.
	over []settlement

	filling      []part // the batch that is being filled
	fillingBytes int
	ended        bool // nothing is accepted any more

	// Buffers for the message being made; the connection keeps nothing of it.
	topic, props, payload, packed []byte
	entries                       []batch.Entry
}

// A part is one record on its way.
type part struct {
	m       *hub.Outgoing
	settled func(error)
}

// A settlement is what became of a record.
type settlement struct {
	part
	err error
}

// A publish is one entry of the queue: one record, or a batch of them.
type publish []part

// Send implements hub.Link.
func (l *link) Send(m *hub.Outgoing, settled func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return l.conn.Err()
	}
	p := part{m, settled}
	if !l.u.o.Batch {
		l.queue = append(l.queue, publish{p})
		if len(l.queue) == 1 && l.spread == nil {
			l.pumpLocked()
		}
		return nil
	}
	size := recordSize(m)
	if len(l.filling) > 0 && l.fillingBytes+size > l.u.o.BatchBytes {
		l.flush()
	}
	l.filling = append(l.filling, p)
	l.fillingBytes += size
	switch {
	case len(l.filling) >= l.u.o.BatchRecords || l.fillingBytes >= l.u.o.BatchBytes:
		l.flush()
	case len(l.filling) == 1:
		select {
		case l.arm <- struct{}{}:
		default:
		}
	}
	return nil
}

func recordSize(m *hub.Outgoing) int {
	r := &m.Record
	return len(r.Sender) + len(r.Topic) + len(r.Props) + len(r.Payload) + batch.Overhead
}

// flush closes the batch. The caller holds mu.
func (l *link) flush() {
	if len(l.filling) == 0 {
		return
	}
	l.queue = append(l.queue, publish(l.filling))
	l.filling, l.fillingBytes = nil, 0
	l.pumpLocked()
}

// pump sends what waits and has room now.
func (l *link) pump() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pumpLocked()
}

func (l *link) pumpLocked() {
	for l.spread != nil || len(l.queue) > 0 {
		if l.spread != nil {
			if !l.pumpSpread() {
				return
			}
			continue
		}
		p := l.queue[0]
		if !l.first && l.open(p) {
			l.next()
			continue
		}
		if !l.first {
			l.made, l.first = l.message(p), true
		}
		err := l.conn.TryPublish(&l.made, func(code byte, err error) { l.answered(p, code, err) })
		switch {
		case errors.Is(err, client.ErrWindow):
			return // the next confirmation pumps again
		case errors.Is(err, client.ErrInvalid):
			l.next()
			l.refused(p, err)
		case err != nil:
			return // run settles the queue when the connection has ended
		default:
			l.next()
		}
	}
	l.queue = nil
}

// next takes the first entry off the queue.
func (l *link) next() {
	l.queue[0] = nil
	l.queue, l.first = l.queue[1:], false
}

// answered takes the broker's answer to a message that was not made of readings.
func (l *link) answered(p publish, code byte, err error) {
	if rejects(code, err) {
		if len(p) > 1 {
			l.mu.Lock()
			l.refused(p, err)
			l.pumpLocked()
			l.mu.Unlock()
			return
		}
		err = fmt.Errorf("%w: %w", hub.ErrRejected, err)
	}
	for i := range p {
		p[i].settled(err)
	}
	l.pump()
}

// rejects reports whether an answer is final.
func rejects(code byte, err error) bool {
	var reason *client.ReasonError
	return err != nil && errors.As(err, &reason) && reason.Op == "publish" && Permanent(code)
}

// refused deals with a message that can never be taken. One bad record must
// not take its neighbours with it: each goes again alone. The caller holds mu.
func (l *link) refused(p publish, err error) {
	if len(p) == 1 {
		l.later(p[0], fmt.Errorf("%w: %w", hub.ErrRejected, err))
		return
	}
	single := make([]publish, len(p))
	for i := range p {
		single[i] = p[i : i+1 : i+1]
	}
	l.queue, l.first = append(single, l.queue...), false
}

// later has run settle a record. The caller holds mu.
func (l *link) later(p part, err error) {
	l.over = append(l.over, settlement{p, err})
	select {
	case l.told <- struct{}{}:
	default:
	}
}

// run flushes batches in time, and settles what is left when the connection
// has ended.
func (l *link) run(timer clock.Timer) {
	defer close(l.done)
	defer timer.Stop()
	if l.pack != nil {
		defer l.pack.Close()
	}
	for {
		select {
		case <-l.arm:
			timer.Reset(l.u.o.BatchDelay)
			continue
		case <-timer.C():
			l.mu.Lock()
			l.flush()
			l.mu.Unlock()
			continue
		case <-l.told:
			l.settleOver()
			continue
		case <-l.conn.Done():
		}
		break
	}
	l.mu.Lock()
	l.ended = true
	left := append(l.queue, publish(l.filling))
	if l.spread != nil { // with nothing in flight: an answer would have ended it
		left = append([]publish{{l.spread.part}}, left...)
	}
	l.queue, l.filling, l.spread = nil, nil, nil
	l.mu.Unlock()
	l.settleOver()
	err := l.conn.Err()
	for _, p := range left {
		for i := range p {
			p[i].settled(err)
		}
	}
}

func (l *link) settleOver() {
	l.mu.Lock()
	over := l.over
	l.over = nil
	l.mu.Unlock()
	for _, s := range over {
		s.settled(s.err)
	}
}

// Advanced implements hub.Advancer: a batch of many readings may take a narrow
// window longer than a forwarder waits for a settlement.
func (l *link) Advanced() uint64 { return l.advanced.Load() }

// Done implements hub.Link.
func (l *link) Done() <-chan struct{} { return l.done }

// Err implements hub.Link.
func (l *link) Err() error { return l.conn.Err() }

// Close implements hub.Link.
func (l *link) Close() error {
	l.conn.Close()
	<-l.done
	return nil
}
