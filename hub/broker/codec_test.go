package broker

import (
	"bytes"
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestGoldenPackets compares what the server writes with testdata/packets.txt, one named
// packet in hexadecimal per line.
func TestGoldenPackets(t *testing.T) {
	hour, keep := time.Hour, uint16(60)
	message := Delivery{
		Message: Message{Topic: []byte("a/b"), Payload: []byte("hi"), QoS: 1, Props: []byte{1, 1}, Expiry: 1500 * time.Millisecond, Retain: true},
		SubIDs:  []uint32{1, 300},
	}
	publish := func(version, qos byte, dup bool) []byte {
		d := message
		d.Message.QoS = qos
		return appendPublish(nil, version, &d, 10, dup, publishSize(version, &d))
	}
	var out bytes.Buffer
	for _, p := range []struct {
		name  string
		bytes []byte
	}{
		{"connack 3.1.1 new session", appendConnack(nil, 4, Success, &welcome{})},
		{"connack 3.1.1 old session", appendConnack(nil, 4, Success, &welcome{present: true})},
		{"connack 3.1.1 refused", appendConnack(nil, 4, NotAuthorized, &welcome{reason: "no"})},
		{"connack 5", appendConnack(nil, 5, Success, &welcome{present: true, receiveMaximum: 10, aliasMaximum: 32, maxPacketSize: 1 << 20})},
		{"connack 5 with all", appendConnack(nil, 5, Success, &welcome{assignedID: "auto", keepAlive: &keep, sessionExpiry: &hour, receiveMaximum: 10})},
		{"connack 5 refused", appendConnack(nil, 5, NotAuthorized, &welcome{reason: "no"})},
		{"disconnect 5", appendDisconnect(nil, ServerShuttingDown, "bye")},
		{"suback 3.1.1", appendSuback(nil, 4, 7, []byte{0, 1, 2, 0x80}, false)},
		{"suback 5", appendSuback(nil, 5, 7, []byte{0, 1, 2, 0x87}, false)},
		{"unsuback 3.1.1", appendSuback(nil, 4, 7, []byte{0, 0}, true)},
		{"unsuback 5", appendSuback(nil, 5, 7, []byte{0, 0x11}, true)},
		{"puback", appendAck(nil, 4, typePuback, 258, Success)},
		{"puback 3.1.1 cannot refuse", appendAck(nil, 4, typePuback, 258, QuotaExceeded)},
		{"puback 5 refused", appendAck(nil, 5, typePuback, 258, QuotaExceeded)},
		{"pubrec", appendAck(nil, 5, typePubrec, 258, Success)},
		{"pubrel", appendAck(nil, 5, typePubrel, 258, Success)},
		{"pubcomp 5 unknown", appendAck(nil, 5, typePubcomp, 258, PacketIDNotFound)},
		{"publish 3.1.1 qos 0", publish(4, 0, false)},
		{"publish 3.1.1 qos 1", publish(4, 1, false)},
		{"publish 5 qos 2 again", publish(5, 2, true)},
	} {
		fmt.Fprintf(&out, "%s: %s\n", p.name, hex.EncodeToString(p.bytes))
	}
	path := filepath.Join("testdata", "packets.txt")
	if *update {
		if err := os.WriteFile(path, out.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, line := range strings.Split(out.String(), "\n") {
		if w := strings.Split(string(want), "\n"); i >= len(w) || line != w[i] {
			t.Errorf("line %d: got  %s", i+1, line)
		}
	}
}

// The other codec, which nobody here wrote, understands what is written.
func TestPublishIsUnderstood(t *testing.T) {
	for _, version := range []byte{4, 5} {
		for qos := range byte(3) {
			d := Delivery{Message: Message{Topic: []byte("topic/ü"), Payload: bytes.Repeat([]byte("x"), 300), QoS: qos, Retain: qos == 1}}
			if version == 5 {
				d.Message.Props = []byte{3, 0, 4, 't', 'e', 'x', 't', 38, 0, 1, 'k', 0, 1, 'v'}
				d.Message.Expiry = time.Minute
				d.SubIDs = []uint32{7, 70000}
			}
			b := appendPublish(nil, version, &d, 99, qos == 2, publishSize(version, &d))
			head, size, f := frame(b)
			if f != nil || head+size != len(b) {
				t.Fatalf("frame: %d+%d of %d, %v", head, size, len(b), f)
			}
			p := packets.Packet{ProtocolVersion: version}
			if err := p.FixedHeader.Decode(b[0]); err != nil {
				t.Fatal(err)
			}
			p.FixedHeader.Remaining = size
			if err := p.PublishDecode(b[head:]); err != nil {
				t.Fatal(err)
			}
			if p.TopicName != "topic/ü" || !bytes.Equal(p.Payload, d.Message.Payload) || p.FixedHeader.Qos != qos ||
				p.FixedHeader.Dup != (qos == 2) || p.FixedHeader.Retain != (qos == 1) || qos > 0 && p.PacketID != 99 {
				t.Errorf("v%d qos %d: got %+v", version, qos, p)
			}
			if q := p.Properties; version == 5 && (q.ContentType != "text" || q.MessageExpiryInterval != 60 ||
				fmt.Sprint(q.SubscriptionIdentifier) != "[7 70000]" || len(q.User) != 1) {
				t.Errorf("properties: %+v", q)
			}
		}
	}
}

// A CONNECT with everything, written by the other codec, is read the same way.
func TestConnectIsUnderstood(t *testing.T) {
	p := packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: 5,
		Connect: packets.ConnectParams{
			ProtocolName: []byte("MQTT"), ClientIdentifier: "id", Keepalive: 30, Clean: true,
			UsernameFlag: true, Username: []byte("user"), PasswordFlag: true, Password: []byte("pass"),
			WillFlag: true, WillQos: 2, WillRetain: true, WillTopic: "will/t", WillPayload: []byte("gone"),
			WillProperties: packets.Properties{WillDelayInterval: 5, MessageExpiryInterval: 9, ContentType: "ct", User: []packets.UserProperty{{Key: "k", Val: "v"}}},
		},
		Properties: packets.Properties{
			SessionExpiryInterval: 3600, SessionExpiryIntervalFlag: true, ReceiveMaximum: 3, MaximumPacketSize: 4096, TopicAliasMaximum: 7,
			RequestProblemInfo: 0, RequestProblemInfoFlag: true, User: []packets.UserProperty{{Key: "a", Val: "b"}, {Key: "a", Val: "b"}},
		},
	}
	var b bytes.Buffer
	if err := p.ConnectEncode(&b); err != nil {
		t.Fatal(err)
	}
	head, _, _ := frame(b.Bytes())
	h, f := parseConnect(b.Bytes()[head:])
	if f != nil {
		t.Fatal(f)
	}
	if h.ClientID != "id" || h.keepAlive != 30 || !h.CleanStart || h.Username != "user" || string(h.Password) != "pass" ||
		h.SessionExpiry != time.Hour || h.ReceiveMaximum != 3 || h.maxPacketSize != 4096 {
		t.Errorf("got %+v", h)
	}
	w := h.Will
	if w == nil || w.Delay != 5*time.Second || w.Message.Expiry != 9*time.Second || string(w.Message.Topic) != "will/t" ||
		string(w.Message.Payload) != "gone" || w.Message.QoS != 2 || !w.Message.Retain ||
		string(w.Message.Props) != "\x03\x00\x02ct\x26\x00\x01k\x00\x01v" {
		t.Errorf("will: %+v", w)
	}
}

// Properties that are the engine's own business are cut out where they stand.
func TestMessagePropertiesAreKeptWithoutTheEnginesOwn(t *testing.T) {
	props := []byte{
		2, 0, 0, 0, 10, // expiry
		1, 1, // payload format
		35, 0, 3, // alias
		38, 0, 1, 'a', 0, 1, 'b',
	}
	body := append([]byte{0, 1, 't', byte(len(props))}, props...)
	body = append(body, "payload"...)
	var p publish
	if f := p.parse(5, 0x30, body); f != nil {
		t.Fatal(f)
	}
	if p.Expiry != 10*time.Second || p.alias != 3 || string(p.Payload) != "payload" || string(p.Props) != "\x01\x01\x26\x00\x01a\x00\x01b" {
		t.Errorf("got %+v, props % x", p, p.Props)
	}
}

func TestFrame(t *testing.T) {
	for _, tt := range []struct {
		in         string
		head, body int
		bad        bool
	}{
		{in: ""}, {in: "30"}, {in: "3080"}, {in: "30ffffff"},
		{in: "3000", head: 2},
		{in: "307f", head: 2, body: 127},
		{in: "308001", head: 3, body: 128},
		{in: "30ffffff7f", head: 5, body: 268435455},
		{in: "30ffffffff", bad: true}, // [MQTT-1.5.5-1] at most four bytes
		{in: "30ffffff80", bad: true},
		{in: "308000", bad: true}, // [MQTT-1.5.5-1] not the fewest
		{in: "30ff8000", bad: true},
	} {
		b, _ := hex.DecodeString(tt.in)
		head, body, f := frame(b)
		if (f != nil) != tt.bad || !tt.bad && (head != tt.head || head > 0 && body != tt.body) {
			t.Errorf("frame(%s) = %d, %d, %v", tt.in, head, body, f)
		}
	}
	for _, n := range []int{0, 127, 128, 16383, 16384, 2097151, 2097152, 268435455} {
		if b := appendHead(nil, 0x30, n); len(b) != 1+varintSize(n) {
			t.Errorf("%d takes %d bytes, not %d", n, len(b)-1, varintSize(n))
		} else if head, body, f := frame(b); head != len(b) || body != n || f != nil {
			t.Errorf("%d became %d", n, body)
		}
	}
}

func TestTopics(t *testing.T) {
	for _, tt := range []struct {
		topic  string
		levels int
	}{
		{"a", 1}, {"/", 2}, {"a/b//c", 4}, {"$SYS/x", 2}, {"ä/€/😀", 3}, {" ", 1},
		{"", 0},             // [MQTT-4.7.3-1]
		{"a/+", 0},          // [MQTT-3.3.2-2]
		{"a#", 0},           // [MQTT-3.3.2-2]
		{"a\x00b", 0},       // [MQTT-4.7.3-2]
		{"a\xffb", 0},       // [MQTT-1.5.4-1]
		{"\xed\xa0\x80", 0}, // [MQTT-1.5.4-1] a surrogate
	} {
		if levels, f := checkTopic([]byte(tt.topic)); levels != tt.levels || (f == nil) != (tt.levels > 0) {
			t.Errorf("checkTopic(%q) = %d, %v", tt.topic, levels, f)
		}
	}
	for _, tt := range []struct {
		filter string
		ok     bool
	}{
		{"#", true}, {"+", true}, {"+/+", true}, {"/#", true}, {"a/+/b/#", true}, {"//", true}, {"a b", true},
		{"", false}, {"a#", false}, {"#/a", false}, {"a/#/b", false}, {"a+", false}, {"+a/b", false}, {"a/b+/c", false},
	} {
		if _, ok := validFilter(tt.filter); ok != tt.ok {
			t.Errorf("validFilter(%q) = %v [MQTT-4.7.1-1] [MQTT-4.7.1-2]", tt.filter, ok)
		}
	}
	for _, tt := range []struct {
		filter, inner string
		shared, ok    bool
	}{
		{"a/b", "a/b", false, true},
		{"$share/g/a/b", "a/b", true, true},
		{"$share/g//", "/", true, true},
		{"$shared/g/a", "$shared/g/a", false, true},
		{"$share", "", false, false},
		{"$share/", "", true, false},
		{"$share/g", "", true, false},    // [MQTT-4.8.2-2]
		{"$share//a", "", true, false},   // [MQTT-4.8.2-1]
		{"$share/g+/a", "", true, false}, // [MQTT-4.8.2-2]
		{"$share/#/a", "", true, false},  // [MQTT-4.8.2-2]
	} {
		inner, shared, ok := splitShare(tt.filter)
		if shared != tt.shared || ok != tt.ok || ok && inner != tt.inner {
			t.Errorf("splitShare(%q) = %q, %v, %v", tt.filter, inner, shared, ok)
		}
	}
}

func TestExpirySeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{
		0: 0, -time.Second: 0, 1: 1, time.Second: 1, time.Second + 1: 2, Forever: math.MaxUint32,
	} {
		if got := expirySeconds(d); got != want {
			t.Errorf("%v is %d s, want %d", d, got, want)
		}
	}
	if sessionExpiry(expiryInterval(Forever)) != Forever || sessionExpiry(expiryInterval(time.Hour)) != time.Hour {
		t.Error("session expiry does not come back as it was")
	}
	if expiryInterval(200*365*24*time.Hour) != math.MaxUint32-1 {
		t.Error("a very long session expiry became an endless one")
	}
}

// The paths that every message takes make no garbage.
func TestHotPathDoesNotAllocate(t *testing.T) {
	topic := []byte("plant/line/1/temperature")
	d := Delivery{Message: Message{Topic: topic, Payload: make([]byte, 1024), QoS: 1, Props: []byte{1, 1}, Expiry: time.Minute}, SubIDs: []uint32{1}}
	in := appendPublish(nil, 4, &d, 5, false, publishSize(4, &d))
	head, _, _ := frame(in)
	d.SubIDs = nil
	in5 := appendPublish(nil, 5, &d, 5, false, publishSize(5, &d))
	head5, _, _ := frame(in5)
	out := make([]byte, 0, 4096)
	work := make([]byte, len(in5))
	puback := []byte{0, 1, 0x10, 0}
	var p publish
	for name, f := range map[string]func(){
		"parsing 3.1.1": func() {
			if p.parse(4, in[0], in[head:]) != nil {
				t.Fatal("not parsed")
			}
			checkTopic(p.Topic)
		},
		"parsing 5": func() {
			copy(work, in5) // properties are cut in place
			if p.parse(5, work[0], work[head5:]) != nil {
				t.Fatal("not parsed")
			}
		},
		"encoding":     func() { out = appendPublish(out[:0], 5, &d, 5, true, publishSize(5, &d)) },
		"answering":    func() { out = appendAck(out[:0], 5, typePuback, 5, QuotaExceeded) },
		"acknowledged": func() { parseAck(5, typePuback, puback) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestFlightFindsFreeIdentifiers(t *testing.T) {
	f := NewFlight(FlightState{Sent: []FlightEntry{{PacketID: 65535, ID: 1}, {PacketID: 2, ID: 2, Released: true}}, Received: []uint16{9}})
	if f.receive(9) || !f.receive(10) {
		t.Error("received identifiers are not those of the state")
	}
	if got := fmt.Sprint(f.begin()); got != "[65535 2]" {
		t.Errorf("order is %s, want that of the state", got)
	}
	seen := map[uint16]bool{65535: true, 2: true}
	for f.free() > 0 {
		id := f.add(7, 1)
		if id == 0 || seen[id] { // [MQTT-2.2.1-3] [MQTT-2.2.1-4]
			t.Fatalf("identifier %d is not free", id)
		}
		seen[id] = true
	}
	if len(seen) != 65535 {
		t.Errorf("%d identifiers were found", len(seen))
	}
	delete(f.out, 77)
	if id := f.add(8, 1); id != 77 {
		t.Errorf("the only free identifier is 77, got %d", id)
	}
	if ids := f.begin(); ids[len(ids)-1] != 77 {
		t.Error("the last one sent is not the last in order")
	}
}

func TestReturnCodes(t *testing.T) {
	for code, want := range map[byte]byte{
		Success: 0, UnsupportedVersion: 1, ClientIDNotValid: 2, ServerUnavailable: 3, ServerBusy: 3, QuotaExceeded: 3,
		ConnectionRateExceeded: 3, BadUserNameOrPassword: 4, NotAuthorized: 5, Banned: 5, BadAuthenticationMethod: 5,
	} {
		if got := returnCode(code); got != want {
			t.Errorf("%#x becomes %d, want %d", code, got, want)
		}
	}
}

func TestBucket(t *testing.T) {
	b := newBucket(10, 5, 0)
	taken := 0
	for b.take(0) {
		taken++
	}
	if taken != 5 {
		t.Errorf("%d taken at once, want the burst of 5", taken)
	}
	if b.take(99 * time.Millisecond) {
		t.Error("taken before a tenth of a second")
	}
	if !b.take(100 * time.Millisecond) {
		t.Error("not taken after a tenth of a second")
	}
	b.tokens -= 20
	if d := b.owed(100 * time.Millisecond); d < 1900*time.Millisecond || d > 2100*time.Millisecond {
		t.Errorf("owed for %v, want 2 s", d)
	}
	b.fill(time.Hour)
	if b.tokens != 5 {
		t.Errorf("%v tokens after an hour", b.tokens)
	}
}

func TestRefusalIsAnError(t *testing.T) {
	err := fmt.Errorf("authenticating: %w", &Refusal{Code: Banned, Reason: "go away"})
	var r *Refusal
	if !errors.As(err, &r) || r.Code != Banned || !strings.Contains(err.Error(), "go away") {
		t.Errorf("got %v", err)
	}
}
