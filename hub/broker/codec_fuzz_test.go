package broker

import (
	"bytes"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// FuzzPublish checks that what is understood of a PUBLISH is all there is: what
// is written from it is understood the same way.
func FuzzPublish(f *testing.F) {
	f.Add(byte(0x32), byte(5), []byte{0, 1, 't', 0, 1, 5, 2, 0, 0, 0, 9, 'p'})
	f.Add(byte(0x30), byte(4), []byte{0, 1, 't', 'p'})
	f.Add(byte(0x3d), byte(5), []byte{0, 0, 0, 1, 3, 35, 0, 1})
	f.Fuzz(func(t *testing.T, first, version byte, body []byte) {
		version = 4 + version&1
		work := bytes.Clone(body)
		var p publish
		if p.parse(version, typePublish<<4|first&15, work) != nil {
			return
		}
		if len(p.Topic)+len(p.Payload)+len(p.Props) > len(body) {
			t.Fatal("more came out than went in")
		}
		d := Delivery{Message: p.Message}
		out := appendPublish(nil, version, &d, p.id, p.dup, publishSize(version, &d))
		head, size, bad := frame(out)
		if bad != nil || head+size != len(out) {
			t.Fatalf("written with a wrong length: %d+%d of %d", head, size, len(out))
		}
		var q publish
		if bad := q.parse(version, out[0], out[head:]); bad != nil {
			t.Fatalf("not understood again: %v", bad)
		}
		if q.id != p.id || q.dup != p.dup || q.QoS != p.QoS || q.Retain != p.Retain || q.Expiry != p.Expiry ||
			!bytes.Equal(q.Topic, p.Topic) || !bytes.Equal(q.Payload, p.Payload) || !bytes.Equal(q.Props, p.Props) {
			t.Fatalf("%+v became %+v", p, q)
		}
	})
}

// FuzzConnect compares with the other codec, which is less strict: what is taken
// here, it takes too, and reads the same.
func FuzzConnect(f *testing.F) {
	f.Add([]byte("\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c"))
	f.Add([]byte("\x00\x04MQTT\x05\xce\x00\x3c\x05\x11\x00\x00\x00\x09\x00\x01c\x05\x18\x00\x00\x00\x09\x00\x01t\x00\x01p\x00\x01u\x00\x01p"))
	f.Fuzz(func(t *testing.T, body []byte) {
		h, bad := parseConnect(body)
		if bad != nil {
			return
		}
		p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connect, Remaining: len(body)}}
		if err := p.ConnectDecode(bytes.Clone(body)); err != nil {
			t.Fatalf("only taken here: %v", err)
		}
		c := p.Connect
		if p.ProtocolVersion != h.Version || c.ClientIdentifier != h.ClientID || c.Keepalive != h.keepAlive || c.Clean != h.CleanStart ||
			string(c.Username) != h.Username || !bytes.Equal(c.Password, h.Password) || c.WillFlag != (h.Will != nil) {
			t.Fatalf("read as %+v, by the other as %+v", h, p)
		}
		if w := h.Will; w != nil && (c.WillTopic != string(w.Message.Topic) || !bytes.Equal(c.WillPayload, w.Message.Payload) || c.WillQos != w.Message.QoS) {
			t.Fatalf("will read as %+v, by the other as %+v", w, c)
		}
	})
}

// FuzzRare feeds the parsers of the packets that come seldom.
func FuzzRare(f *testing.F) {
	f.Add(byte(5), []byte{0, 1, 2, 11, 5, 0, 1, 'a', 1})
	f.Add(byte(4), []byte{0, 1, 0, 1, 'a', 1, 0, 1, '#', 2})
	f.Add(byte(5), []byte{0, 1, 0x10, 4, 31, 0, 1, 'x'})
	f.Fuzz(func(t *testing.T, version byte, body []byte) {
		version = 4 + version&1
		if _, subs, bad := parseSubscribe(version, body); bad == nil {
			p := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Remaining: len(body)}, ProtocolVersion: version}
			if err := p.SubscribeDecode(bytes.Clone(body)); err != nil || len(p.Filters) != len(subs) {
				t.Fatalf("%d subscriptions, by the other codec %d, %v", len(subs), len(p.Filters), err)
			}
			for i, s := range subs {
				if o := p.Filters[i]; o.Filter != s.Filter || o.Qos != s.QoS || uint32(o.Identifier) != s.ID {
					t.Fatalf("subscription %+v, by the other codec %+v", s, o)
				}
				inner, _, ok := splitShare(s.Filter)
				if levels, valid := validFilter(inner); ok && valid && levels == 0 {
					t.Fatal("a filter without levels")
				}
			}
		}
		parseUnsubscribe(version, body)
		for _, kind := range []int{typePuback, typePubrec, typePubrel, typePubcomp} {
			parseAck(version, kind, body)
		}
		head, size, bad := frame(body)
		if bad == nil && head > 0 && varintSize(size) != head-1 {
			t.Fatalf("length %d in %d bytes", size, head-1)
		}
	})
}
