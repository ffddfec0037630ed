package broker

import (
	"encoding/binary"
	"math"
	"time"
)

// publish is a PUBLISH as it came in. Its slices point into the packet.
type publish struct {
	Message
	id    uint16
	alias uint16
	dup   bool
}

var (
	errQoS      = malformed("the QoS of the message is 3")         // [MQTT-3.3.1-4]
	errDup      = violation("a QoS 0 message is marked as repeat") // [MQTT-3.3.1-2]
	errPropsBig = &fault{PacketTooLarge, "the properties of the message are longer than 65535 bytes"}
)

// parse reads a PUBLISH (MQTT 5, 3.3) and checks its form, but not whether its
// topic may be empty: that is known when the alias is.
func (p *publish) parse(version, first byte, body []byte) *fault {
	p.QoS = first >> 1 & 3
	p.Retain = first&1 != 0
	p.dup = first&8 != 0
	p.id, p.alias, p.Props, p.Expiry = 0, 0, nil, 0
	if p.QoS == 3 {
		return errQoS
	}
	if p.QoS == 0 && p.dup {
		return errDup
	}
	if len(body) < 2 {
		return errTruncated
	}
	n := int(binary.BigEndian.Uint16(body)) + 2
	if n > len(body) {
		return errTruncated
	}
	p.Topic = body[2:n:n]
	if p.QoS > 0 {
		if n+2 > len(body) {
			return errTruncated
		}
		p.id = binary.BigEndian.Uint16(body[n:])
		n += 2
		if p.id == 0 {
			return errNoPacketID // [MQTT-2.2.1-3]
		}
	}
	if version == version5 {
		if n < len(body) && body[n] == 0 { // no properties, as most
			n++
		} else {
			s := fields{b: body[n:]}
			p.takeProperties(typePublish, s.properties(typePublish))
			if s.bad != nil {
				return s.bad
			}
			if len(p.Props) > math.MaxUint16 {
				return errPropsBig
			}
			n = len(body) - len(s.b)
		}
	}
	p.Payload = body[n:]
	return nil
}

// takeProperties sets what the engine needs of the properties of a PUBLISH or a
// will and leaves the rest, in place, in Props. An expiry of 0 seconds, which
// Message cannot say, becomes the shortest that it can.
func (p *publish) takeProperties(packet int, block propertyBlock) (willDelay uint32) {
	kept := 0
	for rest := block; len(rest) > 0; {
		var e property
		e, rest = rest.next(packet)
		switch e.id {
		case propTopicAlias:
			p.alias = uint16(e.num)
		case propMessageExpiry:
			p.Expiry = time.Duration(max(e.num, 1)) * time.Second
		case propWillDelay:
			willDelay = e.num
		default:
			kept += copy(block[kept:], e.raw)
		}
	}
	if kept > 0 {
		p.Props = block[:kept:kept]
	}
	return willDelay
}

// expirySeconds is d as a message expiry interval: whole seconds, rounded up so
// that a message that lives does not become one that lives for ever.
func expirySeconds(d time.Duration) uint32 {
	if d <= 0 {
		return 0
	}
	return uint32(min(int64((d-1)/time.Second)+1, math.MaxUint32))
}

// publishSize returns the remaining length of d's PUBLISH.
func publishSize(version byte, d *Delivery) int {
	n := 2 + len(d.Message.Topic) + len(d.Message.Payload)
	if d.Message.QoS > 0 {
		n += 2
	}
	if version == version5 {
		props := messagePropertiesSize(d)
		n += varintSize(props) + props
	}
	return n
}

// appendPublish appends d's PUBLISH, whose remaining length is size.
func appendPublish(dst []byte, version byte, d *Delivery, id uint16, dup bool, size int) []byte {
	m := &d.Message
	first := byte(typePublish<<4) | m.QoS<<1
	if m.Retain {
		first |= 1
	}
	if dup {
		first |= 8
	}
	dst = appendHead(dst, first, size)
	dst = append(dst, byte(len(m.Topic)>>8), byte(len(m.Topic)))
	dst = append(dst, m.Topic...)
	if m.QoS > 0 {
		dst = append(dst, byte(id>>8), byte(id))
	}
	if version == version5 {
		dst = appendMessageProperties(dst, d)
	}
	return append(dst, m.Payload...)
}

// ack is a PUBACK, PUBREC, PUBREL or PUBCOMP as it came in.
type ack struct {
	id   uint16
	code byte
}

// parseAck reads one of the four (MQTT 5, 3.4 to 3.7).
func parseAck(version byte, packet int, body []byte) (a ack, f *fault) {
	if len(body) < 2 {
		return a, errTruncated
	}
	a.id = binary.BigEndian.Uint16(body)
	if a.id == 0 {
		return a, errNoPacketID
	}
	if len(body) == 2 {
		return a, nil
	}
	if version != version5 {
		return a, errTrailing
	}
	a.code = body[2]
	if len(body) > 3 {
		s := fields{b: body[3:]}
		s.properties(packet)
		return a, s.end()
	}
	return a, nil
}

// appendAck appends a PUBACK, PUBREC, PUBREL or PUBCOMP. MQTT 3.1.1 has no
// reason codes in them.
func appendAck(dst []byte, version byte, packet int, id uint16, code byte) []byte {
	first := byte(packet << 4)
	if packet == typePubrel {
		first |= 2 // [MQTT-3.6.1-1]
	}
	if code == Success || version != version5 {
		return append(dst, first, 2, byte(id>>8), byte(id))
	}
	return append(dst, first, 3, byte(id>>8), byte(id), code)
}
