package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"holdfast/hub"
	"holdfast/hub/broker"
)

// Control records are journal entries that change what the hub knows about a
// session. They lie among the messages, so that one sync makes both durable
// and their order is the order in which things happened. hub/FORMAT.md has the
// byte tables.

// Kinds of control records. The numbers are part of the format.
const (
	kindOpened       = 16 // a session begins, or a client is back
	kindEnded        = 17 // a session is over
	kindDetached     = 18 // the connection ended, the session goes on
	kindSubscribed   = 19
	kindUnsubscribed = 20
	kindReleased     = 21 // the client released a QoS 2 message that it had sent
	kindOutbound     = 22 // one step of a QoS 2 delivery
	kindWill         = 23 // a will is left with the hub
	kindWillCleared  = 24 // it was published, or is no longer wanted
	kindRetainedSent = 25 // a subscription's retained messages have arrived
	kindReceived     = 26 // in snapshots: a QoS 2 message was received and not released
	kindPosition     = 27 // in snapshots: nothing up to its offset is wanted any more
)

// Steps of a QoS 2 delivery in a kindOutbound record.
const (
	stepSent     = 0
	stepReleased = 1
	stepSettled  = 2
)

// control is a control record of any kind; the kind says which fields count.
type control struct {
	kind    byte
	number  uint64 // of the session
	expiry  int64  // opened, detached: microseconds after the connection ends; forever = -1
	at      int64  // detached: unix microseconds
	client  []byte // opened
	owner   []byte // opened: name of the principal
	sub     broker.Subscription
	filter  []byte // subscribed, unsubscribed, retained sent
	group   uint64 // subscribed, position: number of the shared group, 0 for none
	packet  uint16 // released, outbound, received
	id      uint64 // outbound: the delivery
	step    byte   // outbound
	delay   int64  // will: microseconds
	message []byte // will: an encoded message record
}

const forever = -1

// micros converts a session expiry for storing.
func micros(d time.Duration) int64 {
	if d == broker.Forever {
		return forever
	}
	return d.Microseconds()
}

func fromMicros(us int64) time.Duration {
	if us < 0 || us > int64(broker.Forever/time.Microsecond) {
		return broker.Forever
	}
	return time.Duration(us) * time.Microsecond
}

// append encodes c after dst.
func (c *control) append(dst []byte) []byte {
	dst = append(dst, c.kind)
	dst = binary.LittleEndian.AppendUint64(dst, c.number)
	switch c.kind {
	case kindOpened:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.expiry))
		dst = appendString(dst, c.client)
		dst = appendString(dst, c.owner)
	case kindDetached:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.expiry))
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.at))
	case kindSubscribed:
		dst = append(dst, subscriptionFlags(&c.sub))
		dst = binary.LittleEndian.AppendUint32(dst, c.sub.ID)
		dst = binary.LittleEndian.AppendUint64(dst, c.group)
		dst = appendString(dst, c.filter)
	case kindPosition:
		dst = binary.LittleEndian.AppendUint64(dst, c.group)
	case kindUnsubscribed, kindRetainedSent:
		dst = appendString(dst, c.filter)
	case kindReleased, kindReceived:
		dst = binary.LittleEndian.AppendUint16(dst, c.packet)
	case kindOutbound:
		dst = append(dst, c.step)
		dst = binary.LittleEndian.AppendUint16(dst, c.packet)
		dst = binary.LittleEndian.AppendUint64(dst, c.id)
	case kindWill:
		dst = binary.LittleEndian.AppendUint64(dst, uint64(c.delay))
		dst = append(dst, c.message...)
	}
	return dst
}

func appendString(dst, s []byte) []byte {
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}

// subscriptionFlags packs the options of a subscription: bits 0-1 QoS, 2 no
// local, 3 retain as published, 4-5 retain handling.
func subscriptionFlags(s *broker.Subscription) byte {
	f := s.QoS&3 | s.RetainHandling&3<<4
	if s.NoLocal {
		f |= 4
	}
	if s.RetainAsPublished {
		f |= 8
	}
	return f
}

var errControl = errors.New("control record is shorter or longer than its kind")

// parse reads a control record. The slices of c point into body.
func (c *control) parse(body []byte) error {
	if len(body) < 9 {
		return errControl
	}
	*c = control{kind: body[0], number: binary.LittleEndian.Uint64(body[1:])}
	in := input{rest: body[9:]}
	switch c.kind {
	case kindOpened:
		c.expiry = int64(in.uint64())
		c.client = in.str()
		c.owner = in.str()
	case kindEnded, kindWillCleared:
	case kindDetached:
		c.expiry = int64(in.uint64())
		c.at = int64(in.uint64())
	case kindSubscribed:
		f := in.byte()
		c.sub = broker.Subscription{QoS: f & 3, NoLocal: f&4 != 0, RetainAsPublished: f&8 != 0, RetainHandling: f >> 4 & 3}
		c.sub.ID = in.uint32()
		c.group = in.uint64()
		c.filter = in.str()
		c.sub.Filter = string(c.filter)
		if f&3 == 3 || f>>6 != 0 {
			in.bad = true
		}
	case kindPosition:
		c.group = in.uint64()
	case kindUnsubscribed, kindRetainedSent:
		c.filter = in.str()
	case kindReleased, kindReceived:
		c.packet = in.uint16()
	case kindOutbound:
		c.step = in.byte()
		c.packet = in.uint16()
		c.id = in.uint64()
		in.bad = in.bad || c.step > stepSettled
	case kindWill:
		c.delay = int64(in.uint64())
		c.message = in.rest
		in.rest = nil
		var r hub.Record
		if err := r.Parse(c.message); err != nil {
			return fmt.Errorf("will: %w", err)
		}
	default:
		return fmt.Errorf("control record is of the unknown kind %d", c.kind)
	}
	if in.bad || len(in.rest) > 0 {
		return errControl
	}
	return nil
}

// input takes fields from the front of a record.
type input struct {
	rest []byte
	bad  bool // a field was missing
}

func (in *input) take(n int) []byte {
	if len(in.rest) < n {
		in.bad = true
		in.rest = nil
		return make([]byte, n)
	}
	b := in.rest[:n:n]
	in.rest = in.rest[n:]
	return b
}

func (in *input) byte() byte     { return in.take(1)[0] }
func (in *input) uint16() uint16 { return binary.LittleEndian.Uint16(in.take(2)) }
func (in *input) uint32() uint32 { return binary.LittleEndian.Uint32(in.take(4)) }
func (in *input) uint64() uint64 { return binary.LittleEndian.Uint64(in.take(8)) }
func (in *input) str() []byte    { return in.take(int(in.uint16())) }
