package broker_test

import (
	"context"
	"fmt"
	"testing"

	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// A rule is one normative statement: what a client says, and what it is told.
// Rules with a version of 0 hold for both. Names are those of the statements of
// MQTT 5 unless they say otherwise.
type rule struct {
	name    string
	version byte
	say     []byte // sent after connecting, or instead of it
	hear    []byte // exactly this comes
	then    byte   // afterwards: 0 the connection lives; else it ends with this code
}

const quietly = 1 // it ends without a word

// What the first packet may be.
func TestFirstPacket(t *testing.T) {
	connack := func(code byte) []byte { return []byte{0x20, 3, 0, code, 0} } // as begun: a reason string follows
	props := func(b ...byte) []byte { return hello{version: 5, id: "c", clean: true, props: b}.packet() }
	rules := []rule{
		{"MQTT-3.1.0-1 the first packet is CONNECT", 0, []byte{0xc0, 0}, nil, quietly},
		{"MQTT-3.1.2-1 protocol name", 0, pack(0x10, join(text("MQTX"), []byte{5, 2, 0, 0, 0}, text("c"))), nil, quietly},
		{"MQTT-3.1.2-2 level 3 (3.1)", 4, pack(0x10, join(text("MQIsdp"), []byte{3, 2, 0, 0}, text("c"))), []byte{0x20, 2, 0, 1}, quietly},
		{"MQTT-3.1.2-2 a bridge's level", 4, pack(0x10, join(text("MQTT"), []byte{0x84, 2, 0, 0}, text("c"))), []byte{0x20, 2, 0, 1}, quietly},
		{"MQTT-3.1.2-2 level 6", 5, pack(0x10, join(text("MQTT"), []byte{6, 2, 0, 0, 0}, text("c"))), connack(broker.UnsupportedVersion), quietly},
		{"MQTT-3.1.2-3 reserved connect flag", 4, hello{version: 4, id: "c", flags: 1}.packet(), nil, quietly},
		{"MQTT-3.1.2-3 reserved connect flag", 5, hello{version: 5, id: "c", flags: 1}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-3.1.2-11 will QoS without will", 5, hello{version: 5, id: "c", flags: 0x08}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-3.1.2-12 will QoS 3", 5, hello{version: 5, id: "c", flags: 0x1c, rest: join([]byte{0}, text("t"), text("p"))}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-3.1.2-13 will retain without will", 5, hello{version: 5, id: "c", flags: 0x20}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-3.1.2-17 user name flag without user name", 5, hello{version: 5, id: "c", flags: 0x80}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-3.1.2-22 (3.1.1) password without user name", 4, hello{version: 4, id: "c", clean: true, flags: 0x40, rest: text("p")}.packet(), nil, quietly},
		{"3.1.2.9 password without user name is allowed in 5", 5, hello{version: 5, id: "c", clean: true, flags: 0x40, rest: text("p")}.packet(), nil, 0},
		{"3.1.4 bytes after the last field", 5, hello{version: 5, id: "c", rest: []byte{0}}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-1.5.4-1 client identifier not UTF-8", 5, hello{version: 5, id: "\xff"}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-1.5.4-2 client identifier with U+0000", 5, hello{version: 5, id: "a\x00"}.packet(), connack(broker.MalformedPacket), quietly},
		{"MQTT-3.1.3-8 (3.1.1) no identifier, session kept", 4, hello{version: 4}.packet(), []byte{0x20, 2, 0, 2}, quietly},
		{"3.1.2.11.2 session expiry twice", 5, props(17, 0, 0, 0, 1, 17, 0, 0, 0, 1), connack(broker.ProtocolError), quietly},
		{"3.1.2.11.3 receive maximum 0", 5, props(33, 0, 0), connack(broker.ProtocolError), quietly},
		{"3.1.2.11.4 maximum packet size 0", 5, props(39, 0, 0, 0, 0), connack(broker.ProtocolError), quietly},
		{"3.1.2.11.7 request problem information 2", 5, props(23, 2), connack(broker.ProtocolError), quietly},
		{"2.2.2.2 property of another packet", 5, props(35, 0, 1), connack(broker.MalformedPacket), quietly},
		{"2.2.2.2 unknown property", 5, props(99), connack(broker.MalformedPacket), quietly},
		{"2.2.2.1 property longer than the block", 5, props(17, 0, 0), connack(broker.MalformedPacket), quietly},
		{"3.1.2.11.10 authentication data without method", 5, props(22, 0, 1, 'x'), connack(broker.ProtocolError), quietly},
		{"4.12 enhanced authentication is not offered", 5, props(21, 0, 1, 'x'), connack(broker.BadAuthenticationMethod), quietly},
		{"MQTT-3.3.2-2 wildcard in the will's topic", 5, hello{version: 5, id: "c", flags: 0x04, rest: join([]byte{0}, text("t/#"), text("p"))}.packet(), connack(broker.ProtocolError), quietly},
		{"MQTT-3.1.4-3 packet too large", 5, pack(0x10, make([]byte, 70000)), nil, quietly},
		{"MQTT-1.5.5-1 length of five bytes", 5, []byte{0x10, 0xff, 0xff, 0xff, 0xff, 1}, nil, quietly},
	}
	h := open(t, &brokertest.Memory{}, broker.Options{})
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			h.t = t
			c := h.dial()
			c.nc.Write(r.say)
			switch {
			case r.then == 0:
				if first, body := c.packet(); first != 0x20 || body[1] != 0 {
					t.Fatalf("got %x % x, want a welcome", first, body)
				}
				return
			case len(r.hear) == 0:
			case r.version == 5:
				if first, body := c.packet(); first != 0x20 || body[1] != r.hear[3] {
					t.Fatalf("got %x % x, want a refusal with %#x", first, body, r.hear[3])
				}
			default:
				c.expect("CONNACK", r.hear...)
			}
			c.closed()
		})
	}
}

// What may be said afterwards.
func TestPackets(t *testing.T) {
	v5 := func(b ...byte) []byte { return b }
	filter := func(id byte, props []byte, rest ...byte) []byte {
		return pack(0x82, join([]byte{0, id, byte(len(props))}, props, rest))
	}
	rules := []rule{
		{"MQTT-3.1.0-2 CONNECT twice", 0, hello{version: 5, id: "c", clean: true}.packet(), nil, broker.ProtocolError},
		{"2.1.2 packet type 0", 0, []byte{0x00, 0}, nil, broker.MalformedPacket},
		{"2.1.2 a packet of servers", 0, []byte{0xd0, 0}, nil, broker.ProtocolError},
		{"MQTT-2.1.3-1 flags of PINGREQ", 0, []byte{0xc1, 0}, nil, broker.MalformedPacket},
		{"MQTT-3.6.1-1 flags of PUBREL", 0, []byte{0x60, 2, 0, 1}, nil, broker.MalformedPacket},
		{"MQTT-3.8.1-1 flags of SUBSCRIBE", 0, []byte{0x80, 2, 0, 1}, nil, broker.MalformedPacket},
		{"MQTT-3.10.1-1 flags of UNSUBSCRIBE", 0, []byte{0xa0, 2, 0, 1}, nil, broker.MalformedPacket},
		{"MQTT-3.12.4-1 PINGREQ is answered", 0, []byte{0xc0, 0}, []byte{0xd0, 0}, 0},
		{"3.12 PINGREQ has no body", 0, []byte{0xc0, 1, 0}, nil, broker.MalformedPacket},

		{"MQTT-3.3.1-4 QoS 3", 4, publishWith(4, 0x36, "t", 1, nil, ""), nil, broker.MalformedPacket},
		{"MQTT-3.3.1-4 QoS 3", 5, publishWith(5, 0x36, "t", 1, nil, ""), nil, broker.MalformedPacket},
		{"MQTT-3.3.1-2 DUP with QoS 0", 4, publishWith(4, 0x38, "t", 0, nil, ""), nil, broker.ProtocolError},
		{"MQTT-2.2.1-3 packet identifier 0", 4, publish(4, "t", 1, 0, ""), nil, broker.ProtocolError},
		{"MQTT-2.2.1-3 packet identifier 0", 5, publish(5, "t", 1, 0, ""), nil, broker.ProtocolError},
		{"MQTT-3.3.2-2 wildcard in topic", 5, publish(5, "t/+", 0, 0, ""), nil, broker.ProtocolError},
		{"MQTT-4.7.3-1 empty topic", 4, publish(4, "", 0, 0, ""), nil, broker.ProtocolError},
		{"MQTT-4.7.3-1 empty topic without alias", 5, publish(5, "", 0, 0, ""), nil, broker.ProtocolError},
		{"MQTT-3.3.2-1 topic not UTF-8", 5, publish(5, "\xff", 0, 0, ""), nil, broker.MalformedPacket},
		{"MQTT-1.5.4-2 topic with U+0000", 5, publish(5, "a\x00", 0, 0, ""), nil, broker.MalformedPacket},
		{"3.3 PUBLISH without identifier", 4, pack(0x32, text("t")), nil, broker.MalformedPacket},
		{"3.3 PUBLISH without topic", 4, pack(0x30, v5(0)), nil, broker.MalformedPacket},
		{"3.3 topic longer than the packet", 4, pack(0x30, v5(0, 9, 't')), nil, broker.MalformedPacket},
		{"MQTT-3.3.2-8 alias 0", 5, publishWith(5, 0x30, "t", 0, v5(35, 0, 0), ""), nil, broker.TopicAliasInvalid},
		{"MQTT-3.3.2-9 alias above the maximum", 5, publishWith(5, 0x30, "t", 0, v5(35, 0, 33), ""), nil, broker.TopicAliasInvalid},
		{"3.3.4 alias that stands for nothing", 5, publishWith(5, 0x30, "", 0, v5(35, 0, 1), ""), nil, broker.ProtocolError},
		{"MQTT-3.3.4-6 subscription identifier", 5, publishWith(5, 0x30, "t", 0, v5(11, 1), ""), nil, broker.MalformedPacket},
		{"MQTT-3.3.2-14 response topic with wildcard", 5, publishWith(5, 0x30, "t", 0, v5(8, 0, 1, '#'), ""), nil, broker.ProtocolError},
		{"3.3.2.3.2 payload format 2", 5, publishWith(5, 0x30, "t", 0, v5(1, 2), ""), nil, broker.ProtocolError},
		{"3.3.2.3.3 expiry twice", 5, publishWith(5, 0x30, "t", 0, v5(2, 0, 0, 0, 1, 2, 0, 0, 0, 1), ""), nil, broker.ProtocolError},
		{"MQTT-1.5.4-1 user property not UTF-8", 5, publishWith(5, 0x30, "t", 0, v5(38, 0, 1, 0xff, 0, 0), ""), nil, broker.MalformedPacket},
		{"MQTT-1.5.5-1 property length not the shortest", 5, pack(0x30, join(text("t"), v5(0x80, 0))), nil, broker.MalformedPacket},
		{"MQTT-3.2.2-15 packet larger than the maximum", 0, []byte{0x30, 0x81, 0x80, 0x40}, nil, broker.PacketTooLarge},

		{"3.4 PUBACK too short", 0, []byte{0x40, 1, 0}, nil, broker.MalformedPacket},
		{"2.2.1 PUBACK with identifier 0", 0, []byte{0x40, 2, 0, 0}, nil, broker.ProtocolError},
		{"3.4 PUBACK of an unknown identifier", 0, []byte{0x40, 2, 0, 9, 0xc0, 0}, []byte{0xd0, 0}, 0},
		{"3.5 PUBREC of an unknown identifier", 4, []byte{0x50, 2, 0, 9}, []byte{0x62, 2, 0, 9}, 0},
		{"3.6.2.1 PUBREC of an unknown identifier", 5, []byte{0x50, 2, 0, 9}, []byte{0x62, 3, 0, 9, 0x92}, 0},
		{"3.7 PUBCOMP of an unknown identifier", 0, []byte{0x70, 2, 0, 9, 0xc0, 0}, []byte{0xd0, 0}, 0},
		{"3.4 (3.1.1) PUBACK with a reason code", 4, []byte{0x40, 3, 0, 9, 0}, nil, broker.MalformedPacket},
		{"3.4.2.2 PUBACK with a property of others", 5, []byte{0x40, 6, 0, 9, 0, 2, 1, 0}, nil, broker.MalformedPacket},
		{"3.4.2.2 PUBACK with a reason string", 5, []byte{0x40, 8, 0, 9, 0, 4, 31, 0, 1, 'x', 0xc0, 0}, []byte{0xd0, 0}, 0},

		{"MQTT-3.8.3-2 SUBSCRIBE without filter", 4, []byte{0x82, 2, 0, 1}, nil, broker.ProtocolError},
		{"MQTT-3.8.3-2 SUBSCRIBE without filter", 5, []byte{0x82, 3, 0, 1, 0}, nil, broker.ProtocolError},
		{"2.2.1 SUBSCRIBE with identifier 0", 5, filter(0, nil, 0, 1, 'a', 0), nil, broker.ProtocolError},
		{"3.8.3 filter without options", 5, filter(1, nil, 0, 1, 'a'), nil, broker.MalformedPacket},
		{"MQTT-3.8.3-1 filter not UTF-8", 5, filter(1, nil, 0, 1, 0xff, 0), nil, broker.MalformedPacket},
		{"MQTT-3.8.3-4 no-local on a shared subscription", 5, subscribe(5, 1, "$share/g/a", 4), nil, broker.ProtocolError},
		{"MQTT-3.8.3-5 reserved options", 5, subscribe(5, 1, "a", 0x40), nil, broker.MalformedPacket},
		{"MQTT-3-8.3-4 (3.1.1) reserved options", 4, subscribe(4, 1, "a", 4), nil, broker.MalformedPacket},
		{"3.8.3.1 QoS 3", 5, subscribe(5, 1, "a", 3), nil, broker.MalformedPacket},
		{"3.8.3.1 retain handling 3", 5, subscribe(5, 1, "a", 0x30), nil, broker.ProtocolError},
		{"3.8.2.1.2 subscription identifier 0", 5, filter(1, v5(11, 0), 0, 1, 'a', 0), nil, broker.ProtocolError},
		{"3.8.2.1.2 subscription identifier twice", 5, filter(1, v5(11, 1, 11, 2), 0, 1, 'a', 0), nil, broker.ProtocolError},
		{"MQTT-4.7.3-1 empty filter", 5, filter(1, nil, 0, 0, 0), nil, broker.ProtocolError},
		{"MQTT-4.7.1-1 misplaced #", 5, subscribe(5, 1, "a/#/b", 0), []byte{0x90, 4, 0, 1, 0, broker.TopicFilterInvalid}, 0},
		{"MQTT-4.7.1-1 misplaced #", 4, subscribe(4, 1, "a/#/b", 0), []byte{0x90, 3, 0, 1, 0x80}, 0},
		{"MQTT-4.7.1-2 misplaced +", 5, subscribe(5, 1, "a+", 0), []byte{0x90, 4, 0, 1, 0, broker.TopicFilterInvalid}, 0},
		{"MQTT-4.8.2-1 empty share name", 5, subscribe(5, 1, "$share//a", 0), []byte{0x90, 4, 0, 1, 0, broker.TopicFilterInvalid}, 0},
		{"MQTT-4.8.2-2 wildcard in share name", 5, subscribe(5, 1, "$share/+/a", 0), []byte{0x90, 4, 0, 1, 0, broker.TopicFilterInvalid}, 0},
		{"MQTT-3.8.4-6 one code for each filter", 5, filter(7, nil, join(text("a"), v5(1), text("no/x"), v5(1), text("#x"), v5(0), text("b"), v5(2))...),
			[]byte{0x90, 7, 0, 7, 0, 1, broker.NotAuthorized, broker.TopicFilterInvalid, 2}, 0},
		{"MQTT-3.8.4-6 (3.1.1: 3.9.3) one code for each filter", 4, pack(0x82, join(v5(0, 7), text("a"), v5(1), text("no/x"), v5(1), text("b"), v5(2))),
			[]byte{0x90, 5, 0, 7, 1, 0x80, 2}, 0},

		{"MQTT-3.10.3-2 UNSUBSCRIBE without filter", 5, []byte{0xa2, 3, 0, 1, 0}, nil, broker.ProtocolError},
		{"MQTT-3.11.3-1 one code for each filter", 5, pack(0xa2, join(v5(0, 8, 0), text("x"), text("y"))), []byte{0xb0, 5, 0, 8, 0, 0x11, 0x11}, 0},
		{"3.11 (3.1.1) no codes", 4, pack(0xa2, join(v5(0, 8), text("x"))), []byte{0xb0, 2, 0, 8}, 0},

		{"3.14 DISCONNECT", 0, []byte{0xe0, 0}, nil, quietly},
		{"3.14 (3.1.1) DISCONNECT has no body", 4, []byte{0xe0, 1, 0}, nil, broker.MalformedPacket},
		{"3.14.2.1 DISCONNECT with a reason", 5, []byte{0xe0, 1, 4}, nil, quietly},
		{"3.14.2.2.2 session expiry cannot become longer than 0", 5, []byte{0xe0, 7, 0, 5, 17, 0, 0, 0, 1}, nil, broker.ProtocolError},
		{"4.12 AUTH without method", 5, []byte{0xf0, 0}, nil, broker.ProtocolError},
	}
	m := &brokertest.Memory{MaySubscribe: func(_, filter string) bool { return filter != "no/x" }}
	h := open(t, m, broker.Options{})
	for _, r := range rules {
		for _, v := range []byte{4, 5} {
			if r.version != 0 && r.version != v {
				continue
			}
			t.Run(r.name+map[byte]string{4: "/v4", 5: "/v5"}[v], func(t *testing.T) {
				h.t = t
				c := h.join(v, "c", true)
				c.send(r.say)
				if r.hear != nil {
					c.expect("answer", r.hear...)
				}
				switch r.then {
				case 0:
					c.ping()
				case quietly:
					c.closed()
				default:
					c.disconnected(r.then)
				}
			})
		}
	}
}

// Answers keep the order of the messages, refused ones included
// [MQTT-4.6.0-2] [MQTT-4.6.0-3] [MQTT-3.3.5-2].
func TestRefusedPublicationsAreAnsweredInOrder(t *testing.T) {
	m := &brokertest.Memory{MayPublish: func(_, topic string) bool { return topic != "no" }}
	h := open(t, m, broker.Options{MaxTopicLevels: 3})
	c := h.join(5, "c", true)
	c.send(
		publish(5, "yes", 1, 1, ""), publish(5, "no", 1, 2, ""), publish(5, "no", 0, 0, ""),
		publish(5, "a/b/c/d", 1, 3, ""), publish(5, "no", 2, 4, ""), publish(5, "yes", 1, 5, ""),
	)
	c.expect("taken", 0x40, 2, 0, 1)
	c.expect("not authorized", 0x40, 3, 0, 2, broker.NotAuthorized)
	c.expect("too many levels", 0x40, 3, 0, 3, broker.TopicNameInvalid)
	c.expect("not authorized", 0x50, 3, 0, 4, broker.NotAuthorized)
	c.expect("taken", 0x40, 2, 0, 5)
	k := h.server.Counters()
	if a, b := k.Rejected[broker.NotAuthorized].Load(), k.Rejected[broker.TopicNameInvalid].Load(); a != 3 || b != 1 {
		t.Errorf("counted %d and %d, want 3 and 1", a, b)
	}
	old := h.join(4, "old", true)
	old.send(publish(4, "no", 0, 0, ""))
	old.ping()
	old.send(publish(4, "yes", 1, 1, ""), publish(4, "no", 1, 2, ""))
	old.expect("taken", 0x40, 2, 0, 1)
	old.closed()

	h = open(t, m, broker.Options{AckDenied: true})
	old = h.join(4, "old", true)
	old.subscribe("#", 0)
	old.send(publish(4, "no", 1, 2, ""), publish(4, "no", 2, 3, ""), acknowledge(6, 3))
	old.expect("acknowledged and dropped", 0x40, 2, 0, 2)
	old.expect("acknowledged and dropped", 0x50, 2, 0, 3)
	old.expect("acknowledged and dropped", 0x70, 2, 0, 3)
	old.ping()
}

// A topic alias stands for its topic until it is set anew, on its connection
// (MQTT 5, 3.3.2.3.4).
func TestTopicAliases(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	c := h.join(5, "c", true)
	c.subscribe("#", 1)
	one := []byte{35, 0, 1}
	c.send(publishWith(5, 0x30, "first", 0, one, "a"), publishWith(5, 0x30, "", 0, one, "b"),
		publishWith(5, 0x30, "second", 0, one, "c"), publishWith(5, 0x30, "", 0, one, "d"))
	for _, want := range []string{"first a", "first b", "second c", "second d"} {
		if p := c.published(); p.topic+" "+p.payload != want || len(p.props) != 0 {
			t.Errorf("got %q %q % x, want %q", p.topic, p.payload, p.props, want)
		}
	}
	for range 20 { // the memory of the packet that set it is used again
		c.send(publish(5, "zzzzzzzzzzzz", 0, 0, "zzzzzzzzzzzz"))
		c.published()
	}
	c.send(publishWith(5, 0x30, "", 0, one, "d"))
	if p := c.published(); p.topic != "second" {
		t.Errorf("the alias stands for %q", p.topic)
	}
	c.nc.Close()
	c = h.join(5, "c", true)
	c.send(publishWith(5, 0x30, "", 0, one, "e"))
	c.disconnected(broker.ProtocolError) // [MQTT-3.3.2-7]
}

func TestPropertiesReachTheSubscriber(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	sub := h.join(5, "sub", true)
	sub.send(pack(0x82, join([]byte{0, 1, 3, 11, 0x80, 2}, text("#"), []byte{1})))
	sub.expect("SUBACK", 0x90, 4, 0, 1, 0, 1)
	old := h.join(4, "old", true)
	old.subscribe("#", 1)
	kept := []byte{1, 1, 8, 0, 1, 'r', 9, 0, 1, 'c', 38, 0, 1, 'k', 0, 1, 'v', 38, 0, 1, 'k', 0, 1, 'w'} // order is kept [MQTT-3.3.2-18]
	pub := h.join(5, "pub", true)
	pub.send(publishWith(5, 0x30, "t", 0, join([]byte{2, 0, 0, 0, 60}, kept), "x"))
	want := string(join([]byte{2, 0, 0, 0, 60, 11, 0x80, 2}, kept))
	if p := sub.published(); string(p.props) != want {
		t.Errorf("properties % x, want % x", p.props, want)
	}
	old.expect("the same without properties", publish(4, "t", 0, 0, "x")...)
}

// What CONNACK says of limits and of the identifier (MQTT 5, 3.2.2.3).
func TestWelcome(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{
		ReceiveMaximum: 10, MaxPacketSize: 0x10000, TopicAliasMaximum: 7,
		MaxKeepAlive: 60e9, MaxSessionExpiry: 3600e9,
	})
	limits := "\x21\x00\x0a\x22\x00\x07\x27\x00\x01\x00\x00"
	body := h.dial().connect(hello{version: 5, id: "c", clean: true, keepAlive: 60, props: []byte{17, 0, 0, 0x0e, 0x10}}.packet())
	if string(body[3:]) != limits {
		t.Errorf("nothing replaced: got % x", body[3:])
	}
	body = h.dial().connect(hello{version: 5, id: "d", clean: true, keepAlive: 61, props: []byte{17, 0xff, 0xff, 0xff, 0xff}}.packet())
	if string(body[3:]) != "\x11\x00\x00\x0e\x10\x13\x00\x3c"+limits {
		t.Errorf("session expiry and keep-alive replaced: got % x", body[3:])
	}
	body = h.dial().connect(hello{version: 5, clean: true, keepAlive: 1}.packet())
	if len(body) < 10 || body[3] != 18 || string(body[6:11]) != "auto-" { // [MQTT-3.1.3-6] [MQTT-3.2.2-16]
		t.Errorf("no assigned client identifier in % x", body)
	}
	body = h.dial().connect(hello{version: 4, clean: true}.packet())
	if string(body) != "\x00\x00" {
		t.Errorf("3.1.1: got % x", body)
	}
	// Session present [MQTT-3.2.2-2] [MQTT-3.2.2-3].
	for i, want := range []byte{0, 1, 1} {
		c := h.dial()
		if body := c.connect(hello{version: 4, id: "kept"}.packet()); body[0] != want {
			t.Errorf("connection %d: session present is %d", i, body[0])
		}
		c.send([]byte{0xe0, 0})
		c.closed()
	}
	if body := h.dial().connect(hello{version: 4, id: "kept", clean: true}.packet()); body[0] != 0 {
		t.Error("session present after a clean start")
	}
}

// A refusal is told with its code, and to MQTT 3.1.1 with the nearest of its own.
func TestRefusal(t *testing.T) {
	m := &brokertest.Memory{Auth: func(c *broker.Connect) error {
		if c.Username != "u" || string(c.Password) != "p" {
			return &broker.Refusal{Code: broker.BadUserNameOrPassword, Reason: "who are you?"}
		}
		return nil
	}}
	h := open(t, m, broker.Options{})
	c := h.dial()
	c.send(hello{version: 4, id: "c", clean: true}.packet())
	c.expect("CONNACK", 0x20, 2, 0, 4)
	c.closed()
	c = h.dial()
	c.send(hello{version: 5, id: "c", clean: true}.packet())
	c.expect("CONNACK", pack(0x20, join([]byte{0, broker.BadUserNameOrPassword, 15, 31}, text("who are you?")))...)
	c.closed()
	c = h.dial()
	c.send(hello{version: 5, id: "c", clean: true, props: []byte{39, 0, 0, 0, 12}}.packet())
	c.expect("CONNACK that fits [MQTT-3.2.2-19]", 0x20, 3, 0, broker.BadUserNameOrPassword, 0)
	c.closed()
	h.connect(hello{version: 5, id: "c", clean: true, flags: 0xc0, rest: join(text("u"), text("p"))}.packet()).ping()
	if n := h.server.Counters().Refused[broker.BadUserNameOrPassword].Load(); n != 3 {
		t.Errorf("%d refusals were counted, want 3", n)
	}
}

// Whether the will is sent depends on how the connection ends
// [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.4-3].
func TestWills(t *testing.T) {
	ended := make(chan broker.Detachment, 1)
	m := &brokertest.Memory{OnDetach: func(client string, d broker.Detachment) {
		if client == "w" {
			ended <- d
		}
	}}
	h := open(t, m, broker.Options{})
	sub := h.join(5, "sub", true)
	sub.subscribe("will", 1)
	for _, tt := range []struct {
		name string
		end  []byte
		will bool
		want broker.Detachment
	}{
		{"lost", nil, true, broker.Detachment{}},
		{"disconnect", []byte{0xe0, 0}, false, broker.Detachment{Clean: true}},
		{"disconnect with will", []byte{0xe0, 1, 4}, true, broker.Detachment{Clean: true, WithWill: true}},
		{"disconnect with error", []byte{0xe0, 1, 0x80}, true, broker.Detachment{}},
		{"mistake", []byte{0, 0}, true, broker.Detachment{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h.t = t
			c := h.connect(hello{version: 5, id: "w", clean: true, flags: 0x0c, rest: join([]byte{2, 1, 1}, text("will"), text("gone"))}.packet())
			if tt.end == nil {
				c.nc.Close()
			} else {
				c.send(tt.end)
			}
			d := <-ended
			if d.Clean != tt.want.Clean || d.WithWill != tt.want.WithWill || d.TakenOver || d.Reason == "" {
				t.Errorf("detachment %+v, want %+v", d, tt.want)
			}
			if tt.will {
				sub.expectPublish(1, false, "gone")
				sub.send(acknowledge(4, 1))
			}
			sub.ping()
		})
	}
}

// The session expiry is that of CONNECT unless DISCONNECT changes it.
func TestSessionExpiryAtTheEnd(t *testing.T) {
	ended := make(chan broker.Detachment, 1)
	h := open(t, &brokertest.Memory{OnDetach: func(_ string, d broker.Detachment) { ended <- d }}, broker.Options{})
	hour := []byte{17, 0, 0, 0x0e, 0x10}
	for _, tt := range []struct {
		connect hello
		end     []byte
		seconds float64
	}{
		{hello{version: 5, id: "c", props: hour}, []byte{0xe0, 0}, 3600},
		{hello{version: 5, id: "c", props: hour}, []byte{0xe0, 7, 0, 5, 17, 0, 0, 0, 5}, 5},
		{hello{version: 5, id: "c", props: hour}, []byte{0xe0, 7, 0, 5, 17, 0, 0, 0, 0}, 0},
		{hello{version: 5, id: "c"}, []byte{0xe0, 0}, 0},
		{hello{version: 5, id: "c", props: []byte{17, 0xff, 0xff, 0xff, 0xff}}, []byte{0xe0, 0}, broker.Forever.Seconds()},
		{hello{version: 4, id: "c"}, []byte{0xe0, 0}, broker.Forever.Seconds()},
		{hello{version: 4, id: "c", clean: true}, []byte{0xe0, 0}, 0},
	} {
		c := h.connect(tt.connect.packet())
		c.send(tt.end)
		if d := <-ended; d.SessionExpiry.Seconds() != tt.seconds {
			t.Errorf("expiry after % x is %v, want %v s", tt.end, d.SessionExpiry, tt.seconds)
		}
	}
}

// Another connection of the same client ends the first [MQTT-3.1.4-3].
func TestTakeover(t *testing.T) {
	ended := make(chan broker.Detachment, 2)
	h := open(t, &brokertest.Memory{OnDetach: func(_ string, d broker.Detachment) { ended <- d }}, broker.Options{})
	versions(t, func(t *testing.T, v byte) {
		h.t = t
		id := fmt.Sprint("c", v)
		first := h.join(v, id, false)
		first.subscribe("t", 1)
		second := h.join(v, id, false)
		first.disconnected(broker.TakenOver)
		if d := <-ended; !d.TakenOver || d.Clean {
			t.Errorf("detachment is %+v", d)
		}
		second.send(publish(v, "t", 1, 1, "x"))
		for range 2 { // in either order
			if first, body := second.packet(); first != 0x40 && first != 0x32 {
				t.Errorf("got %x % x", first, body)
			}
		}
		second.send([]byte{0xe0, 0})
		<-ended
	})
}

// A client is told why the server goes [MQTT-3.14.4-1].
func TestShutdown(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	a, b := h.join(5, "a", false), h.join(4, "b", false)
	done := make(chan error, 1)
	go func() { done <- h.shutdown() }()
	a.disconnected(broker.ServerShuttingDown)
	b.closed()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := h.server.Counters().Clients.Load() + h.server.Counters().Connections.Load(); n != 0 {
		t.Errorf("%d are left", n)
	}
	if err := h.server.Serve(context.Background(), nowhere{}, broker.ListenerOptions{}); err != broker.ErrStopped {
		t.Errorf("Serve after the end: %v", err)
	}
}
