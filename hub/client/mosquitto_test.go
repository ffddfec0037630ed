package client_test

import (
	"context"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
)

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func dial(t *testing.T, o client.Options) *client.Conn {
	t.Helper()
	c, _, err := client.Dial(testContext(t), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestMosquitto sends through a real server on every transport with both
// versions, and checks order, properties and that nothing is missing or twice.
func TestMosquitto(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	for _, url := range []string{m.URL, m.TLSURL, m.UnixURL, m.WebSocketURL} {
		for _, version := range []byte{client.Version311, client.Version5} {
			for _, qos := range []byte{0, 1} {
				t.Run(fmt.Sprintf("%.5s/v%d/qos%d", url, version, qos), func(t *testing.T) {
					exchange(t, client.Options{URL: url, TLS: m.TLS, Version: version}, qos)
				})
			}
		}
	}
}

func exchange(t *testing.T, o client.Options, qos byte) {
	const count = 2000
	ctx := testContext(t)
	var got []string
	all := make(chan struct{})
	in := o
	in.OnMessage = func(_ *client.Conn, m *client.Message) {
		unit, _ := m.UserProperty("unit")
		got = append(got, fmt.Sprintf("%s %s %s", m.Topic, m.Payload, unit))
		if len(got) == count {
			close(all)
		}
	}
	sub := dial(t, in)
	codes, err := sub.Subscribe(ctx, client.Subscription{Filter: "a/#", QoS: qos})
	if err != nil || len(codes) != 1 || codes[0] != qos {
		t.Fatalf("subscribe: codes %v, %v", codes, err)
	}

	pub := dial(t, o)
	var wg sync.WaitGroup
	unit := ""
	if o.Version == client.Version5 {
		unit = "°C"
	}
	for i := range count {
		wg.Add(1)
		err := pub.Publish(ctx, &client.Message{
			Topic: fmt.Appendf(nil, "a/%d", i%3), Payload: fmt.Append(nil, i), QoS: qos,
			Props: client.AppendUserProperty(nil, "unit", "°C"),
		}, func(code byte, err error) {
			if err != nil || code >= 0x80 {
				t.Errorf("message %d: code 0x%02x, %v", i, code, err)
			}
			wg.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	select {
	case <-all:
	case <-ctx.Done():
		t.Fatalf("messages are missing: %v", ctx.Err())
	}
	sub.Close()
	for i, g := range got {
		if want := fmt.Sprintf("a/%d %d %s", i%3, i, unit); g != want {
			t.Fatalf("message %d is %q, want %q", i, g, want)
		}
	}
}

// TestMosquittoKeptSession finds QoS 1 and 2 messages that arrived while away.
func TestMosquittoKeptSession(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	for _, version := range []byte{client.Version311, client.Version5} {
		t.Run(fmt.Sprint("v", version), func(t *testing.T) {
			ctx := testContext(t)
			got := make(chan string, 10)
			o := client.Options{
				URL: m.URL, Version: version, ClientID: fmt.Sprint("keeper", version), KeepSession: true,
				Inbox: &client.Inbox{}, OnMessage: func(_ *client.Conn, m *client.Message) {
					got <- fmt.Sprintf("%d %s", m.QoS, m.Payload)
				},
			}
			c, present, err := client.Dial(ctx, o)
			if err != nil || present {
				t.Fatalf("first dial: present %v, %v", present, err)
			}
			if _, err := c.Subscribe(ctx, client.Subscription{Filter: "k/#", QoS: 2}); err != nil {
				t.Fatal(err)
			}
			c.Close()

			publishQoS2(t, m.Addr, "k/x", "exactly")
			other := dial(t, client.Options{URL: m.URL})
			if err := other.PublishWait(ctx, &client.Message{Topic: []byte("k/x"), Payload: []byte("least"), QoS: 1}); err != nil {
				t.Fatal(err)
			}

			c, present, err = client.Dial(ctx, o)
			if err != nil || !present {
				t.Fatalf("second dial: present %v, %v", present, err)
			}
			defer c.Close()
			for _, want := range []string{"2 exactly", "1 least"} {
				select {
				case g := <-got:
					if g != want {
						t.Fatalf("got %q, want %q", g, want)
					}
				case <-ctx.Done():
					t.Fatalf("%q did not come", want)
				}
			}
		})
	}
}

// publishQoS2 speaks MQTT 3.1.1 by hand, because the client sends no QoS 2.
func publishQoS2(t *testing.T, addr, topic, payload string) {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	step := func(send string, want string) {
		t.Helper()
		if _, err := c.Write([]byte(send)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		for n := 0; n < len(got); {
			m, err := c.Read(got[n:])
			if err != nil {
				t.Fatal(err)
			}
			n += m
		}
		if string(got) != want {
			t.Fatalf("server answered % x, want % x", got, want)
		}
	}
	step("\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02q2", "\x20\x02\x00\x00")
	body := fmt.Sprintf("\x00%c%s\x00\x07%s", len(topic), topic, payload)
	step(fmt.Sprintf("\x34%c%s", len(body), body), "\x50\x02\x00\x07")
	step("\x62\x02\x00\x07", "\x70\x02\x00\x07")
}
