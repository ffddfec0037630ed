package hub

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
)

// Record is one stored message, as its sender published it. The byte slices
// point into the buffer it was parsed from.
//
// Its encoding is the body of a journal entry, and outlives the program:
// hub/FORMAT.md has the byte table. Records of another kind than a message
// begin with another first byte and belong to the packages that write them.
type Record struct {
	QoS      byte   // as published: 0, 1 or 2
	Retain   bool   // as published
	PacketID uint16 // as published; QoS 2 needs it to know a repeated message after a restart
	Received int64  // unix microseconds, by the hub's clock
	Expires  int64  // unix microseconds after which nobody wants it, 0 = never
	Sender   []byte // authenticated name of the publisher: order is kept for each of them
	Topic    []byte
	Props    []byte // MQTT 5 properties as they follow the property length, without topic alias, subscription identifier and message expiry
	Payload  []byte
	Targets  Targets
}

// Targets is the encoded list of a record's targets; see Append and Each.
type Targets []byte

// KindMessage is the first byte of an encoded message record. Kinds from 16 on
// belong to hub/session.
const KindMessage = 1

// Limits of a record's parts, in bytes.
const (
	MaxTopic   = math.MaxUint16
	MaxSender  = math.MaxUint16
	MaxProps   = math.MaxUint16
	MaxTargets = math.MaxUint16
	MaxPayload = 256 << 20
)

const recordHeader = 32

var errShort = errors.New("record is shorter than its header says")

// Size returns the length of r's encoding.
func (r *Record) Size() int {
	return recordHeader + len(r.Sender) + len(r.Topic) + len(r.Props) + len(r.Targets) + len(r.Payload)
}

// Append appends the encoding of r to dst. Parts beyond their limits are the
// caller's mistake: they are checked where messages come in.
func (r *Record) Append(dst []byte) []byte {
	var h [recordHeader]byte
	h[0] = KindMessage
	h[1] = r.QoS & 3
	if r.Retain {
		h[1] |= 4
	}
	binary.LittleEndian.PutUint16(h[2:], r.PacketID)
	binary.LittleEndian.PutUint64(h[4:], uint64(r.Received))
	binary.LittleEndian.PutUint64(h[12:], uint64(r.Expires))
	binary.LittleEndian.PutUint16(h[20:], uint16(len(r.Sender)))
	binary.LittleEndian.PutUint16(h[22:], uint16(len(r.Topic)))
	binary.LittleEndian.PutUint16(h[24:], uint16(len(r.Props)))
	binary.LittleEndian.PutUint16(h[26:], uint16(len(r.Targets)))
	binary.LittleEndian.PutUint32(h[28:], uint32(len(r.Payload)))
	dst = append(dst, h[:]...)
	dst = append(dst, r.Sender...)
	dst = append(dst, r.Topic...)
	dst = append(dst, r.Props...)
	dst = append(dst, r.Targets...)
	return append(dst, r.Payload...)
}

// Parse sets r to the message encoded in body, whose memory it keeps. It
// returns an error and leaves r undefined when body is not exactly one message
// record.
func (r *Record) Parse(body []byte) error {
	if len(body) < recordHeader {
		return errShort
	}
	if body[0] != KindMessage {
		return fmt.Errorf("record is of kind %d, not a message", body[0])
	}
	r.QoS = body[1] & 3
	r.Retain = body[1]&4 != 0
	r.PacketID = binary.LittleEndian.Uint16(body[2:])
	r.Received = int64(binary.LittleEndian.Uint64(body[4:]))
	r.Expires = int64(binary.LittleEndian.Uint64(body[12:]))
	sender := int(binary.LittleEndian.Uint16(body[20:]))
	topic := int(binary.LittleEndian.Uint16(body[22:]))
	props := int(binary.LittleEndian.Uint16(body[24:]))
	targets := int(binary.LittleEndian.Uint16(body[26:]))
	payload := int(binary.LittleEndian.Uint32(body[28:]))
	rest := body[recordHeader:]
	if sender+topic+props+targets+payload != len(rest) {
		return errShort
	}
	r.Sender, rest = rest[:sender:sender], rest[sender:]
	r.Topic, rest = rest[:topic:topic], rest[topic:]
	r.Props, rest = rest[:props:props], rest[props:]
	r.Targets, rest = Targets(rest[:targets:targets]), rest[targets:]
	r.Payload = rest[:payload:payload]
	return nil
}

// Append adds a target that expires at the given unix microsecond, 0 = never.
func (t Targets) Append(endpoint string, priority uint8, expires int64) Targets {
	t = append(t, byte(len(endpoint)), priority)
	t = binary.LittleEndian.AppendUint64(t, uint64(expires))
	return append(t, endpoint...)
}

// Each calls f for each target until it returns false. A malformed tail is
// ignored; Parse's length check and the journal's checksum make it unlikely.
func (t Targets) Each(f func(endpoint []byte, priority uint8, expires int64) bool) {
	for len(t) >= 10 {
		n := 10 + int(t[0])
		if n > len(t) || !f(t[10:n], t[1], int64(binary.LittleEndian.Uint64(t[2:]))) {
			return
		}
		t = t[n:]
	}
}

// Find returns the priority and expiry of the target with the given endpoint.
func (t Targets) Find(endpoint string) (priority uint8, expires int64, ok bool) {
	t.Each(func(e []byte, p uint8, x int64) bool {
		if string(e) == endpoint {
			priority, expires, ok = p, x, true
		}
		return !ok
	})
	return priority, expires, ok
}
