package session

import (
	"encoding/binary"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/route"
)

func prop(id byte, parts ...string) []byte {
	b := []byte{id}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
		b = append(b, p...)
	}
	return b
}

func TestRoutesSeeMessages(t *testing.T) {
	json := prop(propContentType, "application/json")
	user := append(prop(propUser, "line", "L2"), append(prop(propResponseTopic, "r"), prop(propUser, "Site", "north")...)...)
	for _, tt := range []struct {
		about, sender, topic string
		props                []byte
		payload, route       string
		want                 bool
	}{
		{"any", "c", "a/b", nil, "", "FROM /* INTO $upstream", true},
		{"topic", "c", "plant/l1/x", nil, "", "FROM /messages/topics/plant/l1/* INTO $upstream", true},
		{"other topic", "c", "plant/l10/x", nil, "", "FROM /messages/topics/plant/l1/* INTO $upstream", false},
		{"field", "field", "field/plc-1/readings", nil, "", "FROM /messages/modules/field/outputs/plc-1 INTO $upstream", true},
		{"field with another identifier", "field/x", "field/plc-1/readings", nil, "", "FROM /messages/modules/field/* INTO $upstream", true},
		{"not field", "c", "field/plc-1/readings", nil, "", "FROM /messages/modules/* INTO $upstream", false},
		{"field, other topic", "field", "field/plc-1/x/readings", nil, "", "FROM /messages/modules/* INTO $upstream", false},
		{"output", "field", "field/p/readings", nil, "", "FROM /* WHERE $outputName = 'p' AND $connectionModuleId = 'field' INTO $upstream", true},
		{"no output", "c", "a", nil, "", "FROM /* WHERE is_defined($outputName) OR is_defined($connectionModuleId) INTO $upstream", false},
		{"user property", "c", "a", user, "", "FROM /* WHERE line = 'L2' AND site = 'north' INTO $upstream", true},
		{"body", "c", "a", json, `{"x":5}`, "FROM /* WHERE $body.x > 4 INTO $upstream", true},
		{"body without content type", "c", "a", nil, `{"x":5}`, "FROM /* WHERE $body.x > 4 INTO $upstream", false},
		{"format indicator", "c", "a", []byte{propPayloadFormat, 1}, "", "FROM /* WHERE $contentEncoding = 'utf-8' INTO $upstream", true},
		{"correlation", "c", "a", prop(propCorrelation, "id"), "", "FROM /* WHERE $correlationId = 'id' AND $cid = 'id' INTO $upstream", true},
		{"system topic", "c", "a/b", nil, "", "FROM /* WHERE ends_with($topic, '/b') AND $userId = 'c' INTO $upstream", true},
	} {
		table, err := route.NewTable([]route.Spec{{Text: tt.route, Priority: 3, TTL: time.Second}}, route.Options{})
		if err != nil {
			t.Fatal(err)
		}
		r := hub.Record{Sender: []byte(tt.sender), Topic: []byte(tt.topic), Props: tt.props, Payload: []byte(tt.payload), Received: 1000}
		var rt router
		class := rt.targets(table, &r)
		priority, expires, ok := r.Targets.Find("$upstream")
		if ok != tt.want || ok && (priority != 3 || class != 3 || expires != 1_001_000) || !ok && class != hub.DefaultPriority {
			t.Errorf("%s: %v, priority %d, class %d, expires %d", tt.about, ok, priority, class, expires)
		}
	}
}

func FuzzProperties(f *testing.F) {
	f.Add(append(prop(propUser, "a", "b"), prop(propContentType, "x")...))
	f.Fuzz(func(t *testing.T, p []byte) {
		n := 0
		eachProperty(p, func(_ byte, key, val []byte) { n += 1 + len(key) + len(val) })
		if n > len(p) {
			t.Errorf("%d bytes out of %d", n, len(p))
		}
	})
}

func TestWhatIsStored(t *testing.T) {
	table, err := route.NewTable([]route.Spec{{Text: "FROM /messages/topics/up/* INTO $upstream"}}, route.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := open(t, disktest.New(), Options{Routes: table})
	c, sub := w.connect("c", 0), w.connect("sub", 0)
	sub.subscribe(1, "#")
	stored := func() uint64 { return w.hub.Status().Committed }
	for _, tt := range []struct {
		topic  string
		qos    byte
		retain bool
		want   uint64
	}{
		{"a", 0, false, 0}, {"a", 0, true, 1}, {"a", 1, false, 1}, {"a", 2, false, 1}, {"up/a", 0, false, 1},
	} {
		before := stored()
		c.publish(tt.topic, "x", tt.qos, func(it *broker.Item) { it.Message.Retain = tt.retain })
		sub.take(1) // it comes in order in any case
		if n := stored() - before; n != tt.want {
			t.Errorf("%+v: %d records", tt, n)
		}
	}
	// New routes count for what comes.
	w.hub.SetRoutes(nil)
	before := stored()
	c.publish("up/a", "x", 0)
	sub.take(1)
	if stored() != before {
		t.Error("a QoS 0 message was stored although no route wants it")
	}
}
