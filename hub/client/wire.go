package client

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Packet types (MQTT 5, table 2-1) as the upper half of the first byte.
const (
	typeConnack    = 2 << 4
	typePublish    = 3 << 4
	typePuback     = 4 << 4
	typePubrec     = 5 << 4
	typePubrel     = 6 << 4
	typePubcomp    = 7 << 4
	typeSuback     = 9 << 4
	typeUnsuback   = 11 << 4
	typePingreq    = 12 << 4
	typePingresp   = 13 << 4
	typeDisconnect = 14 << 4
)

// maxRemaining is the largest remaining length (MQTT 5, 1.5.5).
const maxRemaining = 268_435_455

// A frame is one control packet: its first byte and what follows the remaining
// length.
type frame struct {
	head byte
	body []byte
}

// packet returns what the codec wants to know before it decodes f.
func (f frame) packet(version byte) *packets.Packet {
	return &packets.Packet{
		ProtocolVersion: version,
		FixedHeader:     packets.FixedHeader{Type: f.head >> 4, Remaining: len(f.body)},
	}
}

// nextFrame cuts the first packet off buf. n is its size; n = 0 without an
// error means that buf does not hold all of it, and need then says how many
// bytes it has in all, 0 when that is not known yet.
func nextFrame(buf []byte, limit int) (f frame, n, need int, err error) {
	if len(buf) < 2 {
		return f, 0, 0, nil
	}
	length, size, err := varint(buf[1:])
	if err != nil {
		return f, 0, 0, err
	}
	if size == 0 {
		return f, 0, 0, nil
	}
	total := 1 + size + length
	if total > limit {
		return f, 0, 0, fmt.Errorf("%w: %d bytes, the limit is %d", ErrMalformed, total, limit)
	}
	if len(buf) < total {
		return f, 0, total, nil
	}
	return frame{buf[0], buf[1+size : total : total]}, total, total, nil
}

// varint reads a variable byte integer (MQTT 5, 1.5.5). size is 0 when b ends
// in the middle of it.
func varint(b []byte) (v, size int, err error) {
	for i := 0; i < len(b) && i < 4; i++ {
		v |= int(b[i]&0x7f) << (7 * i)
		if b[i] < 0x80 {
			return v, i + 1, nil
		}
	}
	if len(b) >= 4 {
		return 0, 0, fmt.Errorf("%w: length of more than four bytes", ErrMalformed)
	}
	return 0, 0, nil
}

func appendVarint(dst []byte, v int) []byte {
	for v >= 0x80 {
		dst = append(dst, byte(v)|0x80)
		v >>= 7
	}
	return append(dst, byte(v))
}

func varintSize(v int) int {
	n := 1
	for ; v >= 0x80; v >>= 7 {
		n++
	}
	return n
}

// parsePublish sets m to the PUBLISH in f; its slices point into f.
func parsePublish(f frame, version byte, m *Message) error {
	b := f.body
	*m = Message{QoS: f.head >> 1 & 3, Retain: f.head&1 != 0, Dup: f.head&8 != 0}
	if m.QoS == 3 || len(b) < 2 {
		return fmt.Errorf("%w: publish header", ErrMalformed)
	}
	n := int(binary.BigEndian.Uint16(b))
	if len(b) < 2+n {
		return fmt.Errorf("%w: publish topic", ErrMalformed)
	}
	m.Topic, b = b[2:2+n:2+n], b[2+n:]
	if validTopic(m.Topic) != nil {
		// Also refuses the empty topic: we allow the server no aliases.
		return fmt.Errorf("%w: publish topic", ErrMalformed)
	}
	if m.QoS > 0 {
		if len(b) < 2 || binary.BigEndian.Uint16(b) == 0 {
			return fmt.Errorf("%w: publish packet identifier", ErrMalformed)
		}
		m.PacketID, b = binary.BigEndian.Uint16(b), b[2:]
	}
	if version == Version5 {
		props, rest, err := cutProps(b)
		if err != nil {
			return err
		}
		m.Props, b = props, rest
		err = eachProp(props, func(id byte, v []byte) bool {
			if id == propExpiry {
				m.Expiry = time.Duration(binary.BigEndian.Uint32(v)) * time.Second
			}
			return true
		})
		if err != nil {
			return err
		}
	}
	m.Payload = b
	return nil
}

// cutProps splits b after its properties.
func cutProps(b []byte) (props, rest []byte, err error) {
	n, size, err := varint(b)
	if err != nil || size == 0 || len(b) < size+n {
		return nil, nil, fmt.Errorf("%w: property length", ErrMalformed)
	}
	return b[size : size+n : size+n], b[size+n:], nil
}

// parseAck reads PUBACK, PUBREC, PUBREL or PUBCOMP. words is the reason string.
func parseAck(f frame, version byte) (id uint16, code byte, words string, err error) {
	b := f.body
	if len(b) < 2 {
		return 0, 0, "", fmt.Errorf("%w: acknowledgement", ErrMalformed)
	}
	id = binary.BigEndian.Uint16(b)
	if len(b) == 2 {
		return id, 0, "", nil // MQTT 5, 3.4.2.1: absent means success
	}
	if version == Version311 {
		return 0, 0, "", fmt.Errorf("%w: acknowledgement of %d bytes", ErrMalformed, len(b))
	}
	code = b[2]
	if len(b) > 3 {
		props, _, err := cutProps(b[3:])
		if err != nil {
			return 0, 0, "", err
		}
		err = eachProp(props, func(id byte, v []byte) bool {
			if id == propReason {
				words = string(v[2:])
			}
			return true
		})
		if err != nil {
			return 0, 0, "", err
		}
	}
	return id, code, words, nil
}

// publishSize returns the remaining length of m's PUBLISH and the length of its
// properties.
func publishSize(m *Message, version byte) (remaining, props int) {
	remaining = 2 + len(m.Topic) + len(m.Payload)
	if m.QoS > 0 {
		remaining += 2
	}
	if version == Version5 {
		props = len(m.Props)
		if m.Expiry > 0 {
			props += 5
		}
		if m.alias != 0 {
			props += 3
		}
		remaining += varintSize(props) + props
	}
	return remaining, props
}

// appendPublish appends m as a PUBLISH packet.
func appendPublish(dst []byte, m *Message, id uint16, version byte) []byte {
	remaining, props := publishSize(m, version)
	head := byte(typePublish) | m.QoS<<1
	if m.Retain {
		head |= 1
	}
	dst = appendVarint(append(dst, head), remaining)
	dst = binary.BigEndian.AppendUint16(dst, uint16(len(m.Topic)))
	dst = append(dst, m.Topic...)
	if m.QoS > 0 {
		dst = binary.BigEndian.AppendUint16(dst, id)
	}
	if version == Version5 {
		dst = appendVarint(dst, props)
		if m.Expiry > 0 {
			dst = append(dst, propExpiry)
			dst = binary.BigEndian.AppendUint32(dst, seconds(m.Expiry))
		}
		if m.alias != 0 {
			dst = append(dst, propAlias, byte(m.alias>>8), byte(m.alias))
		}
		dst = append(dst, m.Props...)
	}
	return append(dst, m.Payload...)
}

// appendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP that says success.
func appendAck(dst []byte, head byte, id uint16) []byte {
	if head == typePubrel {
		head |= 2 // MQTT 5, 3.6.1
	}
	return append(dst, head, 2, byte(id>>8), byte(id))
}

// seconds rounds up, so that a message never expires early, within 32 bits.
func seconds(d time.Duration) uint32 {
	s := d / time.Second
	if d%time.Second > 0 {
		s++
	}
	return uint32(min(s, 1<<32-1))
}

// validTopic checks a topic name (MQTT 5, 4.7).
func validTopic(t []byte) error {
	switch {
	case len(t) == 0:
		return fmt.Errorf("%w: topic is empty", ErrInvalid)
	case len(t) > 65535:
		return fmt.Errorf("%w: topic of %d bytes", ErrInvalid, len(t))
	case bytes.ContainsAny(t, "+#\x00"):
		return fmt.Errorf("%w: topic %q holds a wildcard or NUL", ErrInvalid, t)
	case !utf8.Valid(t):
		return fmt.Errorf("%w: topic %q is not UTF-8", ErrInvalid, t)
	}
	return nil
}
