package broker

import (
	"bytes"
	"math"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// hello is a CONNECT as it came in (MQTT 5, 3.1). Its slices are its own.
type hello struct {
	Connect
	keepAlive     uint16 // seconds
	maxPacketSize uint32 // 0: no limit
	authMethod    bool
	authData      bool
}

var (
	errNotConnect   = violation("the first packet is not CONNECT")                         // [MQTT-3.1.0-1]
	errProtocol     = violation("the protocol name is not MQTT")                           // [MQTT-3.1.2-1]
	errLevel        = &fault{UnsupportedVersion, "the protocol version is not 3.1.1 or 5"} // [MQTT-3.1.2-2]
	errConnectFlags = malformed("the flags of CONNECT are wrong")                          // [MQTT-3.1.2-3], -11 to -15
	errPasswordOnly = malformed("there is a password but no user name")                    // [MQTT-3.1.2-22] of 3.1.1
	errAuthData     = violation("there is authentication data but no method")              // 3.1.2.11.10
	errWillTopic    = violation("the topic of the will is empty or has wildcards")
	errClientID     = &fault{ClientIDNotValid, "the client identifier is empty although the session is to be kept"} // [MQTT-3.1.3-8] of 3.1.1
)

// Connect flags (MQTT 5, 3.1.2.3).
const (
	flagReserved   = 1 << 0
	flagClean      = 1 << 1
	flagWill       = 1 << 2
	flagWillRetain = 1 << 5
	flagPassword   = 1 << 6
	flagUsername   = 1 << 7
)

// parseConnect reads the body of a CONNECT. After errLevel the version says
// how to answer.
func parseConnect(body []byte) (h *hello, f *fault) {
	h = &hello{}
	s := fields{b: bytes.Clone(body)}
	if f := h.parseVersion(&s); f != nil {
		return h, f
	}
	flags := s.byte()
	h.keepAlive = s.uint16()
	if s.bad != nil {
		return h, s.bad
	}
	willQoS := flags >> 3 & 3
	if flags&flagReserved != 0 || willQoS == 3 || flags&flagWill == 0 && (willQoS != 0 || flags&flagWillRetain != 0) {
		return h, errConnectFlags
	}
	if h.Version == version311 && flags&(flagUsername|flagPassword) == flagPassword {
		return h, errPasswordOnly
	}
	h.CleanStart = flags&flagClean != 0
	h.ReceiveMaximum = math.MaxUint16
	if h.Version == version5 {
		h.takeProperties(s.properties(typeConnect))
		if h.authData && !h.authMethod {
			return h, errAuthData
		}
	} else if !h.CleanStart {
		h.SessionExpiry = Forever
	}
	h.ClientID = string(s.text())
	if flags&flagWill != 0 {
		h.parseWill(&s, willQoS, flags&flagWillRetain != 0)
	}
	if flags&flagUsername != 0 {
		h.HasUsername, h.Username = true, string(s.text())
	}
	if flags&flagPassword != 0 {
		h.HasPassword, h.Password = true, s.binary()
	}
	return h, s.end()
}

// parseVersion reads protocol name and level. Version is what the refusal of
// another level is to be written in.
func (h *hello) parseVersion(s *fields) *fault {
	name, level := string(s.binary()), s.byte()
	switch {
	case s.bad != nil:
		return s.bad
	case name == "MQIsdp" && level == 3, name == "MQTT" && level&0x7f < version311:
		h.Version = version311
		return errLevel
	case name != "MQTT":
		return errProtocol
	case level == version311 || level == version5:
		h.Version = level
		return nil
	case level&0x80 != 0: // a bridge that asks whether the private extension for bridges is known
		h.Version = version311
	default:
		h.Version = version5
	}
	return errLevel
}

// takeProperties sets what the CONNECT properties say.
func (h *hello) takeProperties(block propertyBlock) {
	for rest := block; len(rest) > 0; {
		var p property
		p, rest = rest.next(typeConnect)
		switch p.id {
		case propSessionExpiry:
			h.SessionExpiry = sessionExpiry(p.num)
		case propReceiveMaximum:
			h.ReceiveMaximum = uint16(p.num)
		case propMaximumPacketSize:
			h.maxPacketSize = p.num
		case propAuthMethod:
			h.authMethod = true
		case propAuthData:
			h.authData = true
		}
	}
}

// parseWill reads the will (MQTT 5, 3.1.3.2 to 3.1.3.4).
func (h *hello) parseWill(s *fields, qos byte, retain bool) {
	w := publish{Message: Message{QoS: qos, Retain: retain}}
	var delay uint32
	if h.Version == version5 {
		delay = w.takeProperties(typeWill, s.properties(typeWill))
	}
	w.Topic = s.text()
	w.Payload = s.binary()
	if s.bad != nil {
		return
	}
	if _, f := checkTopic(w.Topic); f != nil {
		s.fail(errWillTopic)
		return
	}
	h.Will = &Will{Message: w.Message, Delay: time.Duration(delay) * time.Second}
}

// sessionExpiry is a session expiry interval as a duration (MQTT 5, 3.1.2.11.2).
func sessionExpiry(seconds uint32) time.Duration {
	if seconds == math.MaxUint32 {
		return Forever
	}
	return time.Duration(seconds) * time.Second
}

// expiryInterval is the inverse of sessionExpiry.
func expiryInterval(d time.Duration) uint32 {
	if d == Forever {
		return math.MaxUint32
	}
	return uint32(min(d/time.Second, math.MaxUint32-1))
}

// welcome is what a CONNACK says beside the code (MQTT 5, 3.2.2).
type welcome struct {
	present        bool
	assignedID     string
	keepAlive      *uint16        // when the server's replaces the client's
	sessionExpiry  *time.Duration // when the server's replaces the client's
	receiveMaximum uint16
	aliasMaximum   uint16
	maxPacketSize  uint32
	reason         string
}

// appendConnack appends a CONNACK.
func appendConnack(dst []byte, version, code byte, w *welcome) []byte {
	if version != version5 {
		return append(dst, typeConnack<<4, 2, boolByte(w.present), returnCode(code))
	}
	p := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connack},
		ProtocolVersion: version5,
		SessionPresent:  w.present,
		ReasonCode:      code,
		Properties: packets.Properties{
			AssignedClientID:  w.assignedID,
			ReceiveMaximum:    w.receiveMaximum,
			TopicAliasMaximum: w.aliasMaximum,
			MaximumPacketSize: w.maxPacketSize,
			ReasonString:      w.reason,
		},
	}
	if w.keepAlive != nil {
		p.Properties.ServerKeepAlive, p.Properties.ServerKeepAliveFlag = *w.keepAlive, true
	}
	if w.sessionExpiry != nil {
		p.Properties.SessionExpiryInterval, p.Properties.SessionExpiryIntervalFlag = expiryInterval(*w.sessionExpiry), true
	}
	return encode(dst, p.ConnackEncode)
}

// appendDisconnect appends a DISCONNECT, of which MQTT 3.1.1 servers have none.
func appendDisconnect(dst []byte, code byte, reason string) []byte {
	p := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Disconnect},
		ProtocolVersion: version5,
		ReasonCode:      code,
		Properties:      packets.Properties{ReasonString: reason},
	}
	return encode(dst, p.DisconnectEncode)
}

// appendSuback appends a SUBACK or, with unsubscribed, an UNSUBACK.
func appendSuback(dst []byte, version byte, id uint16, codes []byte, unsubscribed bool) []byte {
	p := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Suback},
		ProtocolVersion: version,
		PacketID:        id,
		ReasonCodes:     codes,
	}
	if unsubscribed {
		p.FixedHeader.Type = packets.Unsuback
		return encode(dst, p.UnsubackEncode)
	}
	return encode(dst, p.SubackEncode)
}

// encode appends what an encoder writes. None of those used here can fail.
func encode(dst []byte, encoder func(*bytes.Buffer) error) []byte {
	b := bytes.NewBuffer(dst)
	if err := encoder(b); err != nil {
		panic("broker: encoding a packet of the server: " + err.Error())
	}
	return b.Bytes()
}

func boolByte(b bool) byte {
	if b {
		return 1
	}
	return 0
}
