package broker_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// The client publishes with the packet identifiers of deliveries that it holds:
// the two identifier spaces are separate, so the deliveries come again.
func TestIdentifierSpacesAreSeparate(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		for _, qos := range []byte{1, 2} {
			t.Run(fmt.Sprintf("qos%d", qos), func(t *testing.T) {
				h := open(t, &brokertest.Memory{}, broker.Options{})
				sub := h.join(v, "sub", false)
				sub.subscribe("in", qos)
				pub := h.join(v, "pub", true)
				for i := range uint16(5) {
					pub.send(publish(v, "in", 1, i+1, fmt.Sprint(i)))
					pub.expect("PUBACK", 0x40, 2, 0, byte(i+1))
				}
				got := min(qos, 1)
				var ids []uint16
				for i := range 5 {
					ids = append(ids, sub.expectPublish(got, false, fmt.Sprint(i)))
				}
				for _, id := range ids {
					sub.send(publish(v, "out", 2, id, "x"))
					sub.expect("PUBREC", 0x50, 2, 0, byte(id))
				}
				sub.nc.Close()
				sub = h.join(v, "sub", false)
				for i := range 5 {
					if id := sub.expectPublish(got, true, fmt.Sprint(i)); id != ids[i] {
						t.Errorf("message %d came as %d again, not as %d [MQTT-4.4.0-1]", i, id, ids[i])
					}
				}
				for _, id := range ids {
					sub.send(acknowledge(6, id))
					sub.expect("PUBCOMP", 0x70, 2, 0, byte(id))
				}
			})
		}
	})
}

func TestOfflineMessagesComeInOrder(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		h := open(t, &brokertest.Memory{}, broker.Options{})
		sub := h.join(v, "sub", false)
		sub.subscribe("in", 1)
		sub.nc.Close()
		pub := h.join(v, "pub", true)
		for i := range uint16(200) {
			pub.send(publish(v, "in", 1, i+1, fmt.Sprint(i)))
		}
		for i := range uint16(200) {
			pub.expect("PUBACK", 0x40, 2, byte((i+1)>>8), byte(i+1))
		}
		sub = h.join(v, "sub", false)
		for i := range 200 {
			sub.send(acknowledge(4, sub.expectPublish(1, false, fmt.Sprint(i))))
		}
		eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 0 })
	})
}

// Messages held back by the client's Receive Maximum are not lost, and the
// maximum is kept [MQTT-3.3.4-9], also when messages come again.
func TestReceiveMaximumHoldsBackAndLosesNothing(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	narrow := hello{version: 5, id: "sub", props: []byte{33, 0, 2, 17, 0xff, 0xff, 0xff, 0xff}}.packet()
	sub := h.connect(narrow)
	sub.subscribe("in", 1)
	pub := h.join(5, "pub", true)
	for i := range uint16(6) {
		pub.send(publish(5, "in", 1, i+1, fmt.Sprint(i)))
		pub.expect("PUBACK", 0x40, 2, 0, byte(i+1))
	}
	first := sub.expectPublish(1, false, "0")
	sub.expectPublish(1, false, "1")
	sub.ping() // and no third one before it
	sub.send(acknowledge(4, first))
	sub.expectPublish(1, false, "2")
	sub.nc.Close()

	sub = h.connect(narrow)
	one := sub.expectPublish(1, true, "1")
	two := sub.expectPublish(1, true, "2")
	sub.ping()
	sub.send(acknowledge(4, one), acknowledge(4, two))
	for _, want := range []string{"3", "4", "5"} {
		sub.send(acknowledge(4, sub.expectPublish(1, false, want)))
	}
	eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 0 })
}

// Fewer are allowed on the second connection than were in flight on the first.
func TestRedeliveryKeepsASmallerReceiveMaximum(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	sub := h.join(5, "sub", false)
	sub.subscribe("in", 1)
	pub := h.join(5, "pub", true)
	for i := range uint16(5) {
		pub.send(publish(5, "in", 1, i+1, fmt.Sprint(i)))
		pub.expect("PUBACK", 0x40, 2, 0, byte(i+1))
		sub.expectPublish(1, false, fmt.Sprint(i))
	}
	sub.nc.Close()
	sub = h.connect(hello{version: 5, id: "sub", props: []byte{33, 0, 1, 17, 0xff, 0xff, 0xff, 0xff}}.packet())
	for i := range 5 {
		id := sub.expectPublish(1, true, fmt.Sprint(i))
		sub.ping()
		sub.send(acknowledge(4, id))
	}
	eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 0 })
}

// An acknowledgement of what was not yet sent again is taken, and makes no room:
// the client still has as many as it takes.
func TestAcknowledgementOfAnEarlierConnection(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	sub := h.join(5, "sub", false)
	sub.subscribe("in", 1)
	pub := h.join(5, "pub", true)
	var ids []uint16
	for i := range uint16(3) {
		pub.send(publish(5, "in", 1, i+1, fmt.Sprint(i)))
		pub.expect("PUBACK", 0x40, 2, 0, byte(i+1))
		ids = append(ids, sub.expectPublish(1, false, fmt.Sprint(i)))
	}
	sub.nc.Close()
	sub = h.connect(hello{version: 5, id: "sub", props: []byte{33, 0, 2, 17, 0xff, 0xff, 0xff, 0xff}}.packet())
	sub.expectPublish(1, true, "0")
	sub.expectPublish(1, true, "1")
	sub.send(acknowledge(4, ids[2]))
	pub.send(publish(5, "in", 1, 4, "3"))
	pub.expect("PUBACK", 0x40, 2, 0, 4)
	sub.ping()
	sub.send(acknowledge(4, ids[0]))
	sub.expectPublish(1, false, "3")
	sub.ping()
}

func TestManyAcknowledgedWhileOfflineAreDelivered(t *testing.T) {
	const n = 20000
	h := open(t, &brokertest.Memory{}, broker.Options{})
	sub := h.join(4, "sub", false)
	sub.subscribe("in", 1)
	sub.nc.Close()
	pub := h.join(4, "pub", true)
	go func() {
		for i := range n {
			pub.nc.Write(publish(4, "in", 1, uint16(i%60000)+1, fmt.Sprint(i)))
		}
	}()
	for i := range n {
		pub.expect("PUBACK", acknowledge(4, uint16(i%60000)+1)...)
	}
	sub = h.join(4, "sub", false)
	for i := range n {
		sub.send(acknowledge(4, sub.expectPublish(1, false, fmt.Sprint(i))))
	}
	eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 0 })
}

// A QoS 2 message is taken once however often it is sent, until it is released
// [MQTT-4.3.3-10] [MQTT-4.3.3-12].
func TestExactlyOnceIn(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		h := open(t, &brokertest.Memory{}, broker.Options{})
		sub := h.join(v, "sub", true)
		sub.subscribe("in", 0)
		pub := h.join(v, "pub", false)
		again := publishWith(v, 0x3c, "in", 7, nil, "once")
		pub.send(publish(v, "in", 2, 7, "once"))
		pub.expect("PUBREC", 0x50, 2, 0, 7)
		pub.nc.Close()
		pub = h.join(v, "pub", false)
		pub.send(again)
		pub.expect("PUBREC", 0x50, 2, 0, 7)
		pub.nc.Close()
		eventually(t, "detachment", func() bool { return h.server.Counters().Clients.Load() == 1 })
		sub.expectPublish(0, false, "once")
		sub.nc.Close()
		eventually(t, "detachment", func() bool { return h.server.Counters().Clients.Load() == 0 })

		h.backend.Restart() // what was received is still known
		sub = h.join(v, "sub", true)
		sub.subscribe("in", 0)
		pub = h.join(v, "pub", false)
		pub.send(again, acknowledge(6, 7))
		pub.expect("PUBREC", 0x50, 2, 0, 7)
		pub.expect("PUBCOMP", 0x70, 2, 0, 7)
		sub.ping() // nothing came
		pub.send(publish(v, "in", 2, 7, "new"))
		pub.expect("PUBREC", 0x50, 2, 0, 7)
		sub.expectPublish(0, false, "new")
		pub.send(acknowledge(6, 7))
		pub.expect("PUBCOMP", 0x70, 2, 0, 7)
		pub.send(acknowledge(6, 7)) // not known any more: 3.7.2.1
		if v == 5 {
			pub.expect("PUBCOMP", 0x70, 3, 0, 7, broker.PacketIDNotFound)
		} else {
			pub.expect("PUBCOMP", 0x70, 2, 0, 7)
		}
	})
}

// Each step of a QoS 2 delivery survives the end of the connection and of the
// program: a message is sent again until PUBREC, then its PUBREL is.
func TestExactlyOnceOut(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		for _, restart := range []bool{false, true} {
			t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
				h := open(t, &brokertest.Memory{}, broker.Options{})
				sub := h.join(v, "sub", false)
				sub.subscribe("in", 2)
				pub := h.join(v, "pub", true)
				pub.send(publish(v, "in", 2, 1, "a"), publish(v, "in", 2, 2, "b"))
				pub.expect("PUBREC", 0x50, 2, 0, 1)
				pub.expect("PUBREC", 0x50, 2, 0, 2)
				a := sub.expectPublish(2, false, "a")
				b := sub.expectPublish(2, false, "b")
				pub.nc.Close()
				again := func() {
					sub.nc.Close()
					eventually(t, "detachment", func() bool { return h.server.Counters().Clients.Load() == 0 })
					if restart {
						h.backend.Restart()
					}
					sub = h.join(v, "sub", false)
				}
				again()
				if id := sub.expectPublish(2, true, "a"); id != a {
					t.Fatalf("a came as %d, then as %d", a, id)
				}
				sub.expectPublish(2, true, "b")
				sub.send(acknowledge(5, b))
				sub.expect("PUBREL", acknowledge(6, b)...)
				again()
				sub.expectPublish(2, true, "a")
				sub.expect("PUBREL", acknowledge(6, b)...)
				sub.send(acknowledge(7, b), acknowledge(5, a))
				sub.expect("PUBREL", acknowledge(6, a)...)
				sub.send(acknowledge(7, a))
				eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 0 })
				again()
				sub.ping()
			})
		}
	})
}

// The send quota comes back with PUBCOMP, not with PUBREC (MQTT 5, 4.9).
func TestReceiveMaximumCountsUntilPubcomp(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	sub := h.connect(hello{version: 5, id: "sub", clean: true, props: []byte{33, 0, 1}}.packet())
	sub.subscribe("in", 2)
	pub := h.join(5, "pub", true)
	pub.send(publish(5, "in", 2, 1, "a"), publish(5, "in", 2, 2, "b"))
	a := sub.expectPublish(2, false, "a")
	sub.send(acknowledge(5, a))
	sub.expect("PUBREL", acknowledge(6, a)...)
	sub.ping()
	sub.send(acknowledge(7, a))
	sub.expectPublish(2, false, "b")
}

// A client that refuses a QoS 2 message ends it (MQTT 5, 4.3.3).
func TestClientRefuses(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	sub := h.connect(hello{version: 5, id: "sub", clean: true, props: []byte{33, 0, 1}}.packet())
	sub.subscribe("in", 2)
	pub := h.join(5, "pub", true)
	pub.send(publish(5, "in", 2, 1, "a"), publish(5, "in", 1, 2, "b"), publish(5, "in", 1, 3, "c"))
	id := sub.expectPublish(2, false, "a")
	sub.send(pack(0x50, append(u16(id), broker.QuotaExceeded)))
	id = sub.expectPublish(1, false, "b")
	sub.send(pack(0x40, append(u16(id), broker.UnspecifiedError, 0)))
	sub.expectPublish(1, false, "c")
	if n := h.server.Counters().ClientRefused.Load(); n != 2 {
		t.Errorf("%d refusals were counted, want 2", n)
	}
}

// A message that is larger than the client takes counts as delivered
// [MQTT-3.1.2-24] [MQTT-3.1.2-25].
func TestMaximumPacketSizeOfTheClient(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{})
	small := hello{version: 5, id: "sub", props: []byte{39, 0, 0, 0, 30, 17, 0xff, 0xff, 0xff, 0xff}}
	sub := h.connect(small.packet())
	sub.subscribe("in", 1)
	pub := h.join(5, "pub", true)
	fits := "0123456789012345678901"[:30-9] // fixed header 2, topic 4, identifier 2, no properties 1
	pub.send(publish(5, "in", 1, 1, fits+"x"), publish(5, "in", 0, 0, fits+"xxx"), publish(5, "in", 1, 2, fits))
	sub.expectPublish(1, false, fits)
	if n := h.server.Counters().DroppedTooBig.Load(); n != 2 {
		t.Errorf("%d were counted, want 2", n)
	}
	eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 1 })
	sub.nc.Close()
	small.props[4] = 29 // it takes even less on its next connection
	sub = h.connect(small.packet())
	sub.ping()
	eventually(t, "settling", func() bool { return h.backend.Queued("sub") == 0 })
}

// What the backend has dropped meanwhile does not come again.
func TestRecallRefused(t *testing.T) {
	var gone atomic.Bool
	m := &brokertest.Memory{Recall: func(string, uint64) bool { return !gone.Load() }}
	h := open(t, m, broker.Options{})
	sub := h.join(5, "sub", false)
	sub.subscribe("in", 2)
	pub := h.join(5, "pub", true)
	pub.send(publish(5, "in", 1, 1, "a"), publish(5, "in", 2, 2, "b"))
	sub.expectPublish(1, false, "a")
	sub.expectPublish(2, false, "b")
	sub.nc.Close()
	gone.Store(true)
	sub = h.join(5, "sub", false)
	pub.send(publish(5, "in", 1, 3, "c"))
	sub.expectPublish(1, false, "c")
	if n := h.server.Counters().DroppedExpired.Load(); n != 2 {
		t.Errorf("%d were counted, want 2", n)
	}
}
