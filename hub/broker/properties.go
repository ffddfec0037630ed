package broker

import "encoding/binary"

// Property identifiers that the engine itself looks at (MQTT 5, 2.2.2.2).
const (
	propPayloadFormat     = 1
	propMessageExpiry     = 2
	propResponseTopic     = 8
	propSubscriptionID    = 11
	propSessionExpiry     = 17
	propAuthMethod        = 21
	propAuthData          = 22
	propRequestProblem    = 23
	propWillDelay         = 24
	propRequestResponse   = 25
	propReceiveMaximum    = 33
	propTopicAliasMaximum = 34
	propTopicAlias        = 35
	propUser              = 38
	propMaximumPacketSize = 39
)

type propType byte

const (
	propByte propType = iota + 1
	propUint16
	propUint32
	propVarint
	propText
	propBinary
	propPair
)

// properties says of each property its type and in which packets a client may
// send it. Properties that only servers send are left out: from a client they
// are an error like unknown ones.
var properties = [40]struct {
	typ propType
	in  uint32 // bit by packet type
}{
	propPayloadFormat:     {propByte, 1<<typePublish | 1<<typeWill},
	propMessageExpiry:     {propUint32, 1<<typePublish | 1<<typeWill},
	3:                     {propText, 1<<typePublish | 1<<typeWill}, // content type
	propResponseTopic:     {propText, 1<<typePublish | 1<<typeWill},
	9:                     {propBinary, 1<<typePublish | 1<<typeWill}, // correlation data
	propSubscriptionID:    {propVarint, 1 << typeSubscribe},           // in PUBLISH only from servers [MQTT-3.3.4-6]
	propSessionExpiry:     {propUint32, 1<<typeConnect | 1<<typeDisconnect},
	propAuthMethod:        {propText, 1<<typeConnect | 1<<typeAuth},
	propAuthData:          {propBinary, 1<<typeConnect | 1<<typeAuth},
	propRequestProblem:    {propByte, 1 << typeConnect},
	propWillDelay:         {propUint32, 1 << typeWill},
	propRequestResponse:   {propByte, 1 << typeConnect},
	31:                    {propText, 1<<typePuback | 1<<typePubrec | 1<<typePubrel | 1<<typePubcomp | 1<<typeDisconnect | 1<<typeAuth}, // reason string
	propReceiveMaximum:    {propUint16, 1 << typeConnect},
	propTopicAliasMaximum: {propUint16, 1 << typeConnect},
	propTopicAlias:        {propUint16, 1 << typePublish},
	propUser: {propPair, 1<<typeConnect | 1<<typePublish | 1<<typeWill | 1<<typePuback | 1<<typePubrec | 1<<typePubrel |
		1<<typePubcomp | 1<<typeSubscribe | 1<<typeUnsubscribe | 1<<typeDisconnect | 1<<typeAuth},
	propMaximumPacketSize: {propUint32, 1 << typeConnect},
}

var (
	errPropUnknown  = malformed("a property is unknown or not allowed in this packet")
	errPropTwice    = violation("a property stands twice")
	errPropValue    = violation("a property has a value that is not allowed")
	errPropAlias    = &fault{TopicAliasInvalid, "the topic alias is 0 or above the maximum"}
	errPropResponse = violation("the response topic has wildcards or is empty")
)

// A property is one entry of a property block.
type property struct {
	id    byte
	num   uint32 // of numbers
	bytes []byte // of texts and binary data
	raw   []byte // the whole entry
}

// properties takes a property block, its length included, and checks the form
// of every entry: a packet is refused before any of it has an effect.
func (s *fields) properties(packet int) propertyBlock {
	block := s.take(s.varint())
	var seen uint64
	for rest := block; len(rest) > 0; {
		p, tail, f := nextProperty(rest, packet)
		if f == nil && p.id != propUser && seen&(1<<p.id) != 0 {
			f = errPropTwice
		}
		if f == nil {
			f = p.check()
		}
		if f != nil {
			s.fail(f)
			return nil
		}
		seen |= 1 << p.id
		rest = tail
	}
	return block
}

// A propertyBlock holds properties whose form has been checked.
type propertyBlock []byte

// next returns the first property of the block and what follows it.
func (b propertyBlock) next(packet int) (property, propertyBlock) {
	p, tail, _ := nextProperty(b, packet)
	return p, tail
}

// nextProperty parses the property at the front of b.
func nextProperty(b []byte, packet int) (p property, tail []byte, f *fault) {
	p.id = b[0]
	if int(p.id) >= len(properties) || properties[p.id].in&(1<<packet) == 0 {
		return p, nil, errPropUnknown
	}
	s := fields{b: b[1:]}
	switch properties[p.id].typ {
	case propByte:
		p.num = uint32(s.byte())
	case propUint16:
		p.num = uint32(s.uint16())
	case propUint32:
		p.num = s.uint32()
	case propVarint:
		p.num = uint32(s.varint())
	case propText:
		p.bytes = s.text()
	case propBinary:
		p.bytes = s.binary()
	case propPair:
		s.text()
		s.text()
	}
	p.raw = b[:len(b)-len(s.b)]
	return p, s.b, s.bad
}

// check looks at values that the protocol excludes.
func (p *property) check() *fault {
	switch p.id {
	case propPayloadFormat, propRequestProblem, propRequestResponse:
		if p.num > 1 {
			return errPropValue
		}
	case propReceiveMaximum, propMaximumPacketSize, propSubscriptionID:
		if p.num == 0 {
			return errPropValue
		}
	case propTopicAlias:
		if p.num == 0 {
			return errPropAlias // [MQTT-3.3.2-8]
		}
	case propResponseTopic:
		if len(p.bytes) == 0 || hasWildcard(p.bytes) {
			return errPropResponse // [MQTT-3.3.2-14]
		}
	}
	return nil
}

// appendMessageProperties appends the property block of a PUBLISH to a client,
// its length included.
func appendMessageProperties(dst []byte, d *Delivery) []byte {
	dst = appendVarint(dst, messagePropertiesSize(d))
	if s := expirySeconds(d.Message.Expiry); s > 0 {
		dst = binary.BigEndian.AppendUint32(append(dst, propMessageExpiry), s)
	}
	for _, id := range d.SubIDs {
		dst = appendVarint(append(dst, propSubscriptionID), int(id))
	}
	return append(dst, d.Message.Props...)
}

// messagePropertiesSize is the property length of a PUBLISH to a client.
func messagePropertiesSize(d *Delivery) int {
	n := len(d.Message.Props)
	if d.Message.Expiry > 0 {
		n += 5
	}
	for _, id := range d.SubIDs {
		n += 1 + varintSize(int(id))
	}
	return n
}
