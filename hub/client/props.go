package client

import (
	"encoding/binary"
	"fmt"
)

// Property identifiers that are looked at here (MQTT 5, table 2-4).
const (
	propExpiry      = 0x02
	propContentType = 0x03
	propPayloadForm = 0x01
	propReason      = 0x1f
	propAlias       = 0x23
	propUser        = 0x26
)

// propKind says how a property's value is laid out.
type propKind byte

const (
	kindNone propKind = iota
	kindByte
	kindTwo
	kindFour
	kindVarint
	kindString // also binary data: two bytes of length, then the bytes
	kindPair
)

// propKinds is MQTT 5, table 2-4.
var propKinds = [43]propKind{
	1: kindByte, 2: kindFour, 3: kindString, 8: kindString, 9: kindString, 11: kindVarint, 17: kindFour, 18: kindString,
	19: kindTwo, 21: kindString, 22: kindString, 23: kindByte, 24: kindFour, 25: kindByte, 26: kindString, 28: kindString,
	31: kindString, 33: kindTwo, 34: kindTwo, 35: kindTwo, 36: kindByte, 37: kindByte, 38: kindPair, 39: kindFour,
	40: kindByte, 41: kindByte, 42: kindByte,
}

// eachProp calls f with each property and its raw value until f returns false.
func eachProp(props []byte, f func(id byte, value []byte) bool) error {
	for len(props) > 0 {
		id := props[0]
		n := valueSize(id, props[1:])
		if n < 0 || len(props) < 1+n {
			return fmt.Errorf("%w: property 0x%02x", ErrMalformed, id)
		}
		if !f(id, props[1:1+n:1+n]) {
			return nil
		}
		props = props[1+n:]
	}
	return nil
}

// valueSize returns the size of the value of property id at the start of b, or
// -1 when there is none.
func valueSize(id byte, b []byte) int {
	if int(id) >= len(propKinds) {
		return -1
	}
	switch propKinds[id] {
	case kindByte:
		return 1
	case kindTwo:
		return 2
	case kindFour:
		return 4
	case kindVarint:
		if _, n, err := varint(b); err == nil && n > 0 {
			return n
		}
	case kindString:
		return stringSize(b)
	case kindPair:
		if n := stringSize(b); n >= 0 && n <= len(b) {
			if m := stringSize(b[n:]); m >= 0 {
				return n + m
			}
		}
	}
	return -1
}

func stringSize(b []byte) int {
	if len(b) < 2 {
		return -1
	}
	return 2 + int(binary.BigEndian.Uint16(b))
}

// UserProperty returns the value of the first user property of that name.
func (m *Message) UserProperty(name string) (value string, ok bool) {
	// Props was checked when it came in; of a message of our own making, what
	// precedes an error counts.
	_ = eachProp(m.Props, func(id byte, v []byte) bool {
		if id != propUser {
			return true
		}
		n := stringSize(v)
		if string(v[2:n]) == name {
			value, ok = string(v[n+2:]), true
		}
		return !ok
	})
	return value, ok
}

// ContentType returns the MQTT 5 content type, "" when there is none.
func (m *Message) ContentType() (s string) {
	_ = eachProp(m.Props, func(id byte, v []byte) bool {
		if id == propContentType {
			s = string(v[2:])
		}
		return true
	})
	return s
}

// AppendUserProperty appends an MQTT 5 user property to props. Name and value
// are cut at 65535 bytes.
func AppendUserProperty(props []byte, name, value string) []byte {
	return appendString(appendString(append(props, propUser), name), value)
}

// AppendContentType appends the MQTT 5 content type to props.
func AppendContentType(props []byte, s string) []byte {
	return appendString(append(props, propContentType), s)
}

// AppendTextPayload appends the MQTT 5 payload format indicator that says that
// the payload is UTF-8 (3.3.2.3.2).
func AppendTextPayload(props []byte) []byte { return append(props, propPayloadForm, 1) }

// AppendForOtherPayload appends to dst the properties in props that hold whatever
// the payload becomes: all but the content type and the payload format indicator.
func AppendForOtherPayload(dst, props []byte) []byte {
	// As in UserProperty: what precedes an error counts.
	_ = eachProp(props, func(id byte, v []byte) bool {
		if id != propContentType && id != propPayloadForm {
			dst = append(append(dst, id), v...)
		}
		return true
	})
	return dst
}

func appendString(dst []byte, s string) []byte {
	s = s[:min(len(s), 65535)]
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(s)))
	return append(dst, s...)
}
