package session

import (
	"bytes"
	"encoding/hex"
	"flag"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hub"
	"holdfast/hub/broker"
)

var update = flag.Bool("update", false, "write golden files")

// examples has one record of each kind.
func examples() []control {
	will := hub.Record{QoS: 1, Sender: []byte("ann"), Topic: []byte("will"), Payload: []byte("gone")}
	return []control{
		{kind: kindOpened, number: 1, expiry: forever, client: []byte("c"), owner: []byte("ann/c")},
		{kind: kindEnded, number: 1},
		{kind: kindDetached, number: 2, expiry: 60e6, at: 1_790_000_000_000_000},
		{kind: kindSubscribed, number: 2, sub: broker.Subscription{Filter: "$share/g/a", QoS: 2, RetainAsPublished: true, RetainHandling: 2, ID: 7}, filter: []byte("$share/g/a"), group: 3},
		{kind: kindSubscribed, number: 2, sub: broker.Subscription{Filter: "a/#", QoS: 1, NoLocal: true}, filter: []byte("a/#")},
		{kind: kindUnsubscribed, number: 2, filter: []byte("a/#")},
		{kind: kindReleased, number: 2, packet: 0x1234},
		{kind: kindOutbound, number: 2, step: stepReleased, packet: 5, id: 3<<idOffsetBits | 99},
		{kind: kindWill, number: 2, delay: 5e6, message: will.Append(nil)},
		{kind: kindWillCleared, number: 2},
		{kind: kindRetainedSent, number: 2, filter: []byte("a/#")},
		{kind: kindReceived, number: 2, packet: 6},
		{kind: kindPosition, number: 2, group: 3},
	}
}

// TestControlGolden holds the bytes still: they outlive the program.
func TestControlGolden(t *testing.T) {
	var b strings.Builder
	for _, c := range examples() {
		body := c.append(nil)
		b.WriteString(hex.EncodeToString(body) + "\n")
		var back control
		if err := back.parse(body); err != nil {
			t.Fatalf("kind %d: %v", c.kind, err)
		}
		if again := back.append(nil); !bytes.Equal(again, body) {
			t.Errorf("kind %d: %x became %x", c.kind, body, again)
		}
		for n := range body {
			if back.parse(body[:n]) == nil {
				t.Errorf("kind %d: %d of %d bytes are accepted", c.kind, n, len(body))
			}
		}
		if back.parse(append(body, 0)) == nil {
			t.Errorf("kind %d: a byte too much is accepted", c.kind)
		}
	}
	const name = "testdata/control.golden"
	if *update {
		if err := os.WriteFile(name, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("got\n%swant\n%s", b.String(), want)
	}
}

func FuzzControl(f *testing.F) {
	for _, c := range examples() {
		f.Add(c.append(nil))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var c control
		if c.parse(body) != nil {
			return
		}
		if again := c.append(nil); !bytes.Equal(again, body) {
			t.Errorf("%x became %x", body, again)
		}
		// No record may harm a hub, whatever its session.
		h, err := Open(disktest.New(), Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer h.Close()
		h.replaying = true
		first := control{kind: kindOpened, number: c.number, expiry: forever, client: []byte("c"), owner: []byte("o")}
		h.applyControl(&first, 1)
		h.applyControl(&c, 2)
		if err := h.restoreFeeds(); err != nil {
			t.Fatal(err)
		}
		h.collect()
	})
}

func FuzzSnapshot(f *testing.F) {
	w := open(f, disktest.New(), Options{})
	c := w.connect("c", broker.Forever, withWill("w", "gone", time.Minute))
	c.subscribe(2, "a", "$share/g/b")
	c.publish("r", "x", 2, retain)
	whole, _ := w.hub.collect()
	f.Add(whole.b)
	f.Add(whole.b[:50])
	f.Fuzz(func(t *testing.T, b []byte) {
		frames, err := checkSnapshot(b)
		if err != nil {
			return
		}
		n := snapshotHeader + 4
		for _, fr := range frames {
			n += frameHeader + len(fr.body)
		}
		if n != len(b) {
			t.Errorf("%d of %d bytes were read", n, len(b))
		}
	})
}

func TestTopics(t *testing.T) {
	filters := []string{"#", "+", "+/+", "a", "a/#", "a/+", "a/b", "a/+/c", "a/b/#", "+/b/#", "/", "/#", "+/", "a//c", "$sys/#", "$sys/a", "b/+/+/d"}
	topics := []string{"a", "b", "a/b", "a/b/c", "a/x/c", "/", "/a", "a/", "a//c", "$sys", "$sys/a", "$sys/b", "$", "b/1/2/d", "b/1/2"}
	var tr tree
	feeds := map[*feed]string{}
	subs := map[string]*subscription{}
	for _, f := range filters {
		d := &feed{}
		feeds[d] = f
		subs[f] = &subscription{feed: d, filter: f, topic: f}
		tr.add(subs[f])
	}
	check := func() {
		t.Helper()
		for _, topic := range topics {
			for range 2 { // the second answer comes from the cache
				found := map[string]bool{}
				for _, m := range tr.match([]byte(topic)) {
					found[feeds[m.feed]] = true
				}
				for f := range subs {
					if want := matches(f, []byte(topic)); found[f] != want {
						t.Errorf("filter %q, topic %q: the tree says %v", f, topic, found[f])
					}
				}
				if len(found) > len(subs) {
					t.Errorf("topic %q: removed filters match: %v", topic, found)
				}
			}
		}
	}
	check()
	for _, f := range filters {
		tr.remove(subs[f])
		delete(subs, f)
		check()
	}
	if !tr.root.empty() {
		t.Error("the empty tree keeps nodes")
	}
}

func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		filter, topic string
		want          bool
	}{
		{"#", "a/b", true}, {"#", "$a", false}, {"+/b", "$a/b", false}, {"$a/+", "$a/b", true},
		{"a/#", "a", true}, {"a/#", "ab", false}, {"a/+", "a", false}, {"a/+", "a/", true}, {"a/+/#", "a", false},
		{"a/+/#", "a/b", true}, {"a/b", "a/b/c", false}, {"a/b/c", "a/b", false}, {"+", "/a", false}, {"+/+", "/a", true}, {"/+", "/a", true},
	} {
		if got := matches(tt.filter, []byte(tt.topic)); got != tt.want {
			t.Errorf("%q %q: %v", tt.filter, tt.topic, got)
		}
	}
}
