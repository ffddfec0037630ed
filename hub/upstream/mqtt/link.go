package mqtt

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
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
	o          Options
	topic      template
	batchTopic template
}

// Connect implements hub.Upstream.
func (u *upstream) Connect(ctx context.Context) (hub.Link, error) {
	t, password, err := u.o.credentials()
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
	l.conn, _, err = client.Dial(ctx, u.o.client(t, password))
	if err != nil {
		return nil, err
	}
	go l.run(u.o.Clock.NewTimer(time.Hour))
	return l, nil
}

// A link is one connection to the broker.
type link struct {
	u    *upstream
	conn *client.Conn
	pack *zstd.Encoder // nil without compression
	arm  chan struct{} // a batch was begun
	told chan struct{} // something is in bad
	done chan struct{}

	mu sync.Mutex

	// queue is what the connection had no room for yet, in order. Its bound is
	// the sender's window: each entry is a message that Send has accepted.
	queue []publish

	// bad is to be settled by run, because who found out may be in Send. Its
	// bound is the sender's window too.
	bad []rejected

	filling      []part // the batch that is being filled
	fillingBytes int
	ended        bool // nothing is accepted any more

	// Buffers for the message being made; the connection keeps nothing of it.
	topic, props, payload []byte
	entries               []batch.Entry
}

// A part is one record on its way.
type part struct {
	m       *hub.Outgoing
	settled func(error)
}

type rejected struct {
	part
	err error
}

// A publish is one message on its way: one record, or a batch of them.
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
		if len(l.queue) > 0 {
			l.queue = append(l.queue, publish{p})
			return nil
		}
		return l.first(l.publish(publish{p}), publish{p})
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

// first turns the outcome of a publish that nothing waits in front of into
// Send's.
func (l *link) first(err error, p publish) error {
	switch {
	case errors.Is(err, client.ErrWindow):
		l.queue = append(l.queue, p)
		return nil
	case errors.Is(err, client.ErrInvalid):
		return fmt.Errorf("%w: %w", hub.ErrRejected, err)
	}
	return err
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
	for len(l.queue) > 0 {
		p := l.queue[0]
		err := l.publish(p)
		switch {
		case errors.Is(err, client.ErrWindow):
			return // the next confirmation pumps again
		case errors.Is(err, client.ErrInvalid):
			l.queue = l.queue[1:]
			l.refused(p, err)
		case err != nil:
			return // run settles the queue when the connection has ended
		default:
			l.queue[0] = nil
			l.queue = l.queue[1:]
		}
	}
	l.queue = nil
}

// refused deals with a message that can never be taken. One bad record must
// not take its neighbours with it: each goes again alone. The caller holds mu.
func (l *link) refused(p publish, err error) {
	if len(p) == 1 {
		l.bad = append(l.bad, rejected{p[0], fmt.Errorf("%w: %w", hub.ErrRejected, err)})
		select {
		case l.told <- struct{}{}:
		default:
		}
		return
	}
	single := make([]publish, len(p))
	for i := range p {
		single[i] = p[i : i+1 : i+1]
	}
	l.queue = append(single, l.queue...)
}

// publish hands p to the connection. The caller holds mu.
func (l *link) publish(p publish) error {
	m := l.message(p)
	return l.conn.TryPublish(&m, func(code byte, err error) {
		var reason *client.ReasonError
		if err != nil && errors.As(err, &reason) && reason.Op == "publish" && Permanent(code) {
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
	})
}

// message makes the MQTT message of p in the link's buffers.
func (l *link) message(p publish) client.Message {
	o := &l.u.o
	if o.Batch {
		l.entries = l.entries[:0]
		for i := range p {
			l.entries = append(l.entries, batch.Of(p[i].m))
		}
		l.payload = batch.Append(l.payload[:0], p[0].m.Epoch, l.entries, l.pack)
		clear(l.entries)
		l.topic = l.u.batchTopic.append(l.topic[:0], o.Device, nil)
		return client.Message{Topic: l.topic, Payload: l.payload, QoS: 1}
	}
	r := &p[0].m.Record
	l.topic = l.u.topic.append(l.topic[:0], o.Device, r)
	m := client.Message{Topic: l.topic, Payload: r.Payload, QoS: 1, Retain: r.Retain && o.Retain}
	if o.Version == client.Version311 {
		return m
	}
	m.Expiry = l.remaining(r.Expires)
	l.props = append(l.props[:0], r.Props...)
	if l.pack != nil && len(r.Payload) >= 64 {
		l.payload = l.pack.EncodeAll(r.Payload, l.payload[:0])
		if gain := len(r.Payload) - len(l.payload); gain > len(PropEncoding)+len("zstd")+5 {
			m.Payload = l.payload
			l.props = client.AppendUserProperty(l.props, PropEncoding, "zstd")
		}
	}
	if o.Identify {
		l.props = client.AppendUserProperty(l.props, PropEpoch, strconv.FormatUint(p[0].m.Epoch, 10))
		l.props = client.AppendUserProperty(l.props, PropOffset, strconv.FormatUint(p[0].m.Offset, 10))
	}
	m.Props = l.props
	return m
}

// remaining returns the message expiry interval that is left (MQTT 5,
// 3.3.2.3.3), at least a second: whether it is over was decided before.
func (l *link) remaining(expires int64) time.Duration {
	if expires == 0 {
		return 0
	}
	return max(time.Second, time.UnixMicro(expires).Sub(l.u.o.Clock.Now()))
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
			l.settleBad()
			continue
		case <-l.conn.Done():
		}
		break
	}
	l.mu.Lock()
	l.ended = true
	left := append(l.queue, publish(l.filling))
	l.queue, l.filling = nil, nil
	l.mu.Unlock()
	l.settleBad()
	err := l.conn.Err()
	for _, p := range left {
		for i := range p {
			p[i].settled(err)
		}
	}
}

func (l *link) settleBad() {
	l.mu.Lock()
	bad := l.bad
	l.bad = nil
	l.mu.Unlock()
	for _, b := range bad {
		b.settled(b.err)
	}
}

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
