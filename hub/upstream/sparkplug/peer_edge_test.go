package sparkplug_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/sparkplug/payload"
)

// TestPeerEdge reads what an independent edge node sends, and has it read
// commands of ours.
func TestPeerEdge(t *testing.T) {
	t.Parallel()
	needPeers(t)
	m := clienttest.StartMosquitto(t, "")
	got := make(chan string, 100)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, _, err := client.Dial(ctx, client.Options{URL: m.URL, OnMessage: func(_ *client.Conn, m *client.Message) {
		var p payload.Payload
		if err := payload.Decode(append([]byte(nil), m.Payload...), &p); err != nil {
			t.Errorf("%s: %v", m.Topic, err)
		}
		got <- describe(string(m.Topic), &p)
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Subscribe(ctx, client.Subscription{Filter: "spBv1.0/+/+/peer/#"}); err != nil {
		t.Fatal(err)
	}
	edge := spawn(t, "node", filepath.Join(peers, "edge.js"), m.URL)
	for _, want := range []string{
		"spBv1.0/G/NBIRTH/peer at 1 number 0: Node Control/Rebirth=false bdSeq=0",
		"spBv1.0/G/DBIRTH/peer/press at 2 number 1: temp#1=21.5@5[Quality=192] count#2=-5@6",
		"spBv1.0/G/DDATA/peer/press at 3 number 2: #1=-0.25@7(old)",
		"spBv1.0/G/DDEATH/peer/press at 4 number 3:",
	} {
		select {
		case g := <-got:
			if g != want {
				t.Errorf("got  %s\nwant %s", g, want)
			}
		case <-ctx.Done():
			t.Fatalf("no %s", want)
		}
	}
	count := payload.Metric{Name: "count", Datatype: payload.Int16, Scalar: payload.Scalar{Field: payload.IntField, Bits: 1<<32 - 7}}
	want := `{"device":"press","metrics":["count=-7"],"timestamp":1700000000000}`
	until(t, 30*time.Second, "the commands", func() bool { // its subscriptions may come after its births
		for topic, p := range map[string]payload.Metric{"spBv1.0/G/NCMD/peer": rebirth(), "spBv1.0/G/DCMD/peer/press": count} {
			if err := c.PublishWait(ctx, &client.Message{Topic: []byte(topic), Payload: command(time.UnixMilli(1700000000000), p), QoS: 1}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(50 * time.Millisecond)
		said := fmt.Sprintf("%s", edge.from(0))
		return strings.Contains(said, want) && strings.Contains(said, `{"node":["Node Control/Rebirth=true"]}`)
	})
}

// describe puts a message into one line.
func describe(topic string, p *payload.Payload) string {
	line := fmt.Sprintf("%s at %d number %d:", topic, p.Timestamp, p.Seq)
	for i := range p.Metrics {
		m := &p.Metrics[i]
		v, err := m.Value(payload.Unknown)
		if err != nil {
			return err.Error()
		}
		line += " " + m.Name
		if m.HasAlias {
			line += fmt.Sprint("#", m.Alias)
		}
		line += "=" + v.String()
		if m.HasTimestamp {
			line += fmt.Sprint("@", m.Timestamp)
		}
		if m.Historical {
			line += "(old)"
		}
		for _, q := range m.Properties {
			w, _ := q.Scalar.Decode(q.Datatype)
			line += "[" + q.Key + "=" + w.String() + "]"
		}
	}
	return line
}
