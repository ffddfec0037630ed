package client

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// TestPublishAgainstCodec holds our own PUBLISH encoding against the codec's.
func TestPublishAgainstCodec(t *testing.T) {
	for _, version := range []byte{Version311, Version5} {
		for _, size := range []int{0, 1, 100, 127, 128, 16_383, 16_384, 300_000} {
			m := Message{
				Topic: []byte("plant/line 1/°C"), Payload: bytes.Repeat([]byte{7}, size), QoS: 1, Retain: true,
				Expiry: 1500 * time.Millisecond, Props: AppendContentType(AppendUserProperty(nil, "k", "v"), "text/plain"),
			}
			got := appendPublish(nil, &m, 0x1234, version)
			pk := packets.Packet{
				FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1, Retain: true}, ProtocolVersion: version,
				TopicName: string(m.Topic), Payload: m.Payload, PacketID: 0x1234,
			}
			f, n, _, err := nextFrame(got, math.MaxInt)
			if err != nil || n != len(got) {
				t.Fatalf("v%d, %d bytes: frame of %d of %d bytes, %v", version, size, n, len(got), err)
			}
			back := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, ProtocolVersion: version}
			if err := back.PublishDecode(f.body); err != nil {
				t.Fatal(err)
			}
			if back.TopicName != pk.TopicName || back.PacketID != pk.PacketID || !bytes.Equal(back.Payload, m.Payload) {
				t.Errorf("v%d, %d bytes: codec reads another message", version, size)
			}
			p := back.Properties
			if version == Version5 && (p.MessageExpiryInterval != 2 || p.ContentType != "text/plain" || len(p.User) != 1 || p.User[0].Val != "v") {
				t.Errorf("v5: codec reads properties %+v", p)
			}

			var own Message
			if err := parsePublish(f, version, &own); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(own.Topic, m.Topic) || own.PacketID != 0x1234 || own.QoS != 1 || !own.Retain || !bytes.Equal(own.Payload, m.Payload) {
				t.Errorf("v%d, %d bytes: we read another message", version, size)
			}
			if v, ok := own.UserProperty("k"); version == Version5 && (!ok || v != "v" || own.Expiry != 2*time.Second || own.ContentType() != "text/plain") {
				t.Errorf("v5: user property %q, expiry %v, content type %q", v, own.Expiry, own.ContentType())
			}
			if _, ok := own.UserProperty("absent"); ok {
				t.Error("found a property that is not there")
			}
		}
	}
}

func TestNextFrame(t *testing.T) {
	for _, c := range []struct {
		name       string
		in         string
		n, need    int
		err        bool
		limit      int
		head, body string
	}{
		{name: "empty", in: "", limit: 100},
		{name: "first byte only", in: "\x40", limit: 100},
		{name: "length in the middle", in: "\x30\x80", limit: 100},
		{name: "body missing", in: "\x40\x02\x00", need: 4, limit: 100},
		{name: "whole", in: "\x40\x02\x00\x01\xd0", n: 4, need: 4, limit: 100, head: "\x40", body: "\x00\x01"},
		{name: "no body", in: "\xd0\x00", n: 2, need: 2, limit: 100, head: "\xd0"},
		{name: "too large", in: "\x30\x80\x01", err: true, limit: 100},
		{name: "length of five bytes", in: "\x30\xff\xff\xff\xff\x01", err: true, limit: math.MaxInt},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, n, need, err := nextFrame([]byte(c.in), c.limit)
			if n != c.n || need != c.need || (err != nil) != c.err {
				t.Fatalf("n %d, need %d, %v", n, need, err)
			}
			if c.n > 0 && (f.head != c.head[0] || string(f.body) != c.body) {
				t.Errorf("frame %x %x", f.head, f.body)
			}
		})
	}
}

func TestMalformed(t *testing.T) {
	for _, c := range []struct {
		name string
		head byte
		body string
		v    byte
	}{
		{"publish of qos 3", 0x36, "\x00\x01a\x00\x01", 4},
		{"publish without topic", 0x30, "\x00", 4},
		{"publish with short topic", 0x30, "\x00\x05ab", 4},
		{"publish with empty topic", 0x30, "\x00\x00", 4},
		{"publish to a wildcard", 0x30, "\x00\x01#", 4},
		{"publish to bad UTF-8", 0x30, "\x00\x01\xff", 4},
		{"publish without identifier", 0x32, "\x00\x01a\x00", 4},
		{"publish with identifier 0", 0x32, "\x00\x01a\x00\x00", 4},
		{"publish without properties", 0x30, "\x00\x01a", 5},
		{"publish with short properties", 0x30, "\x00\x01a\x05\x01", 5},
		{"publish with unknown property", 0x30, "\x00\x01a\x02\x7f\x00", 5},
		{"publish with cut property", 0x30, "\x00\x01a\x02\x02\x00", 5},
		{"puback without identifier", 0x40, "\x00", 4},
		{"long puback", 0x40, "\x00\x01\x00", 4},
		{"puback with bad properties", 0x40, "\x00\x01\x80\x05\x1f", 5},
		{"packet of a client", 0x10, "", 5},
		{"reserved packet", 0x00, "", 5},
		{"suback without identifier", 0x90, "\x00", 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := &reader{c: &Conn{o: Options{Version: c.v, MaxPacket: 1000, Inbox: &Inbox{}}}}
			in := append([]byte{c.head, byte(len(c.body))}, c.body...)
			if _, _, err := r.consume(in); !errors.Is(err, ErrMalformed) {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestValidTopic(t *testing.T) {
	for topic, good := range map[string]bool{
		"a": true, "/": true, "a/b c/€": true, "$SYS/x": true, strings.Repeat("x", 65535): true,
		"": false, "a/+": false, "a/#": false, "a\x00": false, "\xc3": false, strings.Repeat("x", 65536): false,
	} {
		if err := validTopic([]byte(topic)); (err == nil) != good || err != nil && !errors.Is(err, ErrInvalid) {
			t.Errorf("topic %.20q: %v", topic, err)
		}
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		1: 1, time.Second: 1, time.Second + 1: 2, math.MaxInt64: math.MaxUint32,
	} {
		if got := seconds(d); got != want {
			t.Errorf("%v is %d s, want %d", d, got, want)
		}
	}
}

// FuzzConsume feeds the reader of a connection with foreign bytes.
func FuzzConsume(f *testing.F) {
	f.Add([]byte("\x40\x02\x00\x01\xd0\x00"), byte(4))
	f.Add([]byte("\x32\x09\x00\x01a\x00\x01\x00hey"), byte(5))
	f.Add([]byte("\x34\x07\x00\x01a\x00\x01hi\x62\x02\x00\x01"), byte(4))
	f.Add([]byte("\x90\x04\x00\x01\x00\x02\xe0\x02\x81\x00"), byte(5))
	f.Add(appendPublish(nil, &Message{Topic: []byte("t"), Props: AppendUserProperty(nil, "a", "b"), Expiry: 1e9}, 0, 5), byte(5))
	f.Fuzz(func(t *testing.T, in []byte, version byte) {
		version = 4 + version&1
		o, _, err := Options{URL: "mqtt://x", Version: version, MaxPacket: 1 << 16}.withDefaults()
		if err != nil {
			t.Fatal(err)
		}
		o.OnMessage = func(_ *Conn, m *Message) {
			if len(m.Topic) == 0 || m.QoS > 2 || (m.QoS > 0) != (m.PacketID > 0) {
				t.Errorf("handed on %+v", m)
			}
			m.UserProperty("a")
			m.ContentType()
		}
		c := &Conn{o: o, window: window{flights: make([]flight, 4)}}
		c.work.L = &c.mu
		r := &reader{c: c}
		used, need, err := r.consume(in)
		if used < 0 || used > len(in) || err == nil && need > 0 && need <= len(in)-used {
			t.Errorf("used %d of %d, need %d, %v", used, len(in), need, err)
		}
		_, _ = o.parseConnack(frame{typeConnack, in})
	})
}
