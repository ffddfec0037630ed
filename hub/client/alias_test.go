package client_test

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
)

// TestAliases sends topics in turn to a server that allows two aliases.
func TestAliases(t *testing.T) {
	for _, c := range []struct {
		name      string
		ours, its int
		limit     int // the server's largest packet
		version   byte
		topics    []string
		want      []string // topic and alias as sent
	}{
		{"first come", 10, 2, 0, 5, []string{"plant/a", "plant/b", "plant/c", "plant/a", "plant/b", "plant/c"},
			[]string{"plant/a 1", "plant/b 2", "plant/c 0", " 1", " 2", "plant/c 0"}},
		{"ours is lower", 1, 2, 0, 5, []string{"plant/a", "plant/b", "plant/a"}, []string{"plant/a 1", "plant/b 0", " 1"}},
		{"the server allows none", 10, 0, 0, 5, []string{"plant/a", "plant/a"}, []string{"plant/a 0", "plant/a 0"}},
		{"none asked for", 0, 10, 0, 5, []string{"plant/a", "plant/a"}, []string{"plant/a 0", "plant/a 0"}},
		{"too short to gain", 10, 10, 0, 5, []string{"a/b", "a/b"}, []string{"a/b 0", "a/b 0"}},
		{"too large with it", 10, 10, 20, 5, []string{"plant/abc", "plant/abc"}, []string{"plant/abc 0", "plant/abc 0"}},
		{"3.1.1", 10, 10, 0, 4, []string{"plant/a", "plant/a"}, []string{"plant/a 0", "plant/a 0"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var mu sync.Mutex
			var got []string
			srv := clienttest.Start(t, clienttest.Options{
				OnConnect: func(_, ack *packets.Packet) *packets.Packet {
					ack.Properties.TopicAliasMaximum = uint16(c.its)
					ack.Properties.MaximumPacketSize = uint32(c.limit)
					return ack
				},
				OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
					mu.Lock()
					defer mu.Unlock()
					got = append(got, fmt.Sprint(p.TopicName, " ", p.Properties.TopicAlias))
					return 0
				},
			})
			conn := dial(t, client.Options{URL: srv.URL, Version: c.version, Aliases: c.ours})
			for _, topic := range c.topics {
				if err := conn.PublishWait(testContext(t), &client.Message{Topic: []byte(topic), QoS: 1, Payload: []byte("xxxx")}); err != nil {
					t.Fatal(err)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(got, c.want) {
				t.Errorf("sent %q, want %q", got, c.want)
			}
		})
	}
}

// TestAliasesWithMosquitto has a broker that nobody here wrote give the topics
// back.
func TestAliasesWithMosquitto(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	got := make(chan string, 100)
	sub := dial(t, client.Options{URL: m.URL, OnMessage: func(_ *client.Conn, m *client.Message) {
		v, _ := m.UserProperty("k")
		got <- fmt.Sprint(string(m.Topic), " ", string(m.Payload), " ", v, " ", m.Expiry)
	}})
	if _, err := sub.Subscribe(testContext(t), client.Subscription{Filter: "plant/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	pub := dial(t, client.Options{URL: m.URL, Aliases: 100})
	for i := range 60 {
		msg := client.Message{Topic: fmt.Appendf(nil, "plant/%d", i%20), Payload: fmt.Append(nil, i), QoS: 1, Expiry: time.Hour, Props: client.AppendUserProperty(nil, "k", "v")}
		if err := pub.PublishWait(testContext(t), &msg); err != nil {
			t.Fatal(err)
		}
		if s, want := <-got, fmt.Sprintf("plant/%d %d v 1h0m0s", i%20, i); s != want {
			t.Errorf("got %q, want %q", s, want)
		}
	}
}

func TestForOtherPayload(t *testing.T) {
	keep := client.AppendResponseTopic(client.AppendCorrelation(client.AppendUserProperty(nil, "a", "b"), []byte{1}), "r")
	all := client.AppendTextPayload(client.AppendContentType(bytes.Clone(keep), "application/json"))
	all = client.AppendUserProperty(all, "c", "d")
	want := client.AppendUserProperty(bytes.Clone(keep), "c", "d")
	if got := client.AppendForOtherPayload(nil, all); !bytes.Equal(got, want) {
		t.Errorf("got % x, want % x", got, want)
	}
	if got := client.AppendForOtherPayload([]byte{9}, append(bytes.Clone(keep), 0xff)); !bytes.Equal(got, append([]byte{9}, keep...)) {
		t.Errorf("of malformed ones: % x", got)
	}
}
