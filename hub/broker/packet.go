package broker

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"
)

// Packet types (MQTT 5, 2.1.2).
const (
	typeConnect     = 1
	typeConnack     = 2
	typePublish     = 3
	typePuback      = 4
	typePubrec      = 5
	typePubrel      = 6
	typePubcomp     = 7
	typeSubscribe   = 8
	typeSuback      = 9
	typeUnsubscribe = 10
	typeUnsuback    = 11
	typePingreq     = 12
	typePingresp    = 13
	typeDisconnect  = 14
	typeAuth        = 15
	typeWill        = 16 // not a packet: the will's properties within CONNECT
)

// Protocol levels (MQTT 5, 3.1.2.2).
const (
	version311 = 4
	version5   = 5
)

var (
	errLength      = malformed("the remaining length is malformed")
	errTruncated   = malformed("the packet is shorter than its fields")
	errTrailing    = malformed("the packet is longer than its fields")
	errFlags       = malformed("the reserved flags of the fixed header are wrong")
	errUTF8        = malformed("a string is not valid UTF-8")
	errNoPacketID  = violation("the packet identifier is 0")
	errUnsolicited = violation("the packet is one that only a server sends")
)

// frame reads a fixed header (MQTT 5, 2.1). head is its length and body the
// remaining length; head is 0 when b does not hold all of it.
func frame(b []byte) (head, body int, f *fault) {
	for i := 1; i <= 4; i++ {
		if i >= len(b) {
			return 0, 0, nil
		}
		body |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i] < 0x80 {
			if b[i] == 0 && i > 1 {
				return 0, 0, errLength // [MQTT-1.5.5-1] the fewest bytes that do
			}
			return i + 1, body, nil
		}
	}
	return 0, 0, errLength
}

// appendHead appends a fixed header.
func appendHead(dst []byte, first byte, body int) []byte {
	return appendVarint(append(dst, first), body)
}

// appendVarint appends a variable byte integer (MQTT 5, 1.5.5).
func appendVarint(dst []byte, v int) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

// varintSize is the length of v as a variable byte integer.
func varintSize(v int) int {
	switch {
	case v < 1<<7:
		return 1
	case v < 1<<14:
		return 2
	case v < 1<<21:
		return 3
	}
	return 4
}

// fields takes the fields of a packet from its front. The first mistake sticks
// in bad, and all later fields are zero.
type fields struct {
	b   []byte
	bad *fault
}

func (s *fields) fail(f *fault) {
	if s.bad == nil {
		s.bad = f
	}
	s.b = nil
}

func (s *fields) take(n int) []byte {
	if n > len(s.b) {
		s.fail(errTruncated)
		return nil
	}
	p := s.b[:n:n]
	s.b = s.b[n:]
	return p
}

func (s *fields) byte() byte {
	if p := s.take(1); p != nil {
		return p[0]
	}
	return 0
}

func (s *fields) uint16() uint16 {
	if p := s.take(2); p != nil {
		return binary.BigEndian.Uint16(p)
	}
	return 0
}

func (s *fields) uint32() uint32 {
	if p := s.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (s *fields) varint() int {
	v := 0
	for i := range 4 {
		b := s.byte()
		v |= int(b&0x7f) << (7 * i)
		if b < 0x80 {
			if b == 0 && i > 0 {
				s.fail(errLength)
			}
			return v
		}
	}
	s.fail(errLength)
	return 0
}

func (s *fields) binary() []byte { return s.take(int(s.uint16())) }

// text takes a UTF-8 encoded string (MQTT 5, 1.5.4).
func (s *fields) text() []byte {
	p := s.binary()
	if !validText(p) {
		s.fail(errUTF8)
		return nil
	}
	return p
}

// end requires that nothing is left.
func (s *fields) end() *fault {
	if s.bad == nil && len(s.b) > 0 {
		s.bad = errTrailing
	}
	return s.bad
}

// validText reports whether p may stand in a packet: UTF-8 without surrogates
// and without U+0000 [MQTT-1.5.4-1] [MQTT-1.5.4-2].
func validText(p []byte) bool {
	return utf8.Valid(p) && bytes.IndexByte(p, 0) < 0
}
