package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
)

func message(i int) *client.Message {
	return &client.Message{Topic: []byte("t"), Payload: fmt.Append(nil, i), QoS: 1}
}

func ended(t *testing.T, c *client.Conn) error {
	t.Helper()
	select {
	case <-c.Done():
	case <-testContext(t).Done():
		t.Fatal("the connection did not end")
	}
	return c.Err()
}

func TestAnswers(t *testing.T) {
	s := clienttest.Start(t, clienttest.Options{OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
		switch string(p.Payload) {
		case "1":
			return 0x10 // no matching subscribers: a success
		case "2":
			return 0x87
		}
		return 0
	}})
	c := dial(t, client.Options{URL: s.URL})
	for i, want := range []byte{0, 0x10, 0x87, 0} {
		answer := make(chan string, 1)
		err := c.TryPublish(message(i), func(code byte, err error) {
			var reason *client.ReasonError
			if errors.As(err, &reason) && reason.Code != code {
				t.Errorf("code 0x%02x with %v", code, err)
			}
			answer <- fmt.Sprintf("%02x %t", code, reason != nil)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-answer; got != fmt.Sprintf("%02x %t", want, want >= 0x80) {
			t.Errorf("message %d: answer %s", i, got)
		}
	}
	if err := c.PublishWait(testContext(t), message(2)); err == nil || !strings.Contains(err.Error(), "not authorized") {
		t.Errorf("error is %v", err)
	}
}

func TestWindow(t *testing.T) {
	var held atomic.Int32
	s := clienttest.Start(t, clienttest.Options{
		OnConnect: func(_, ack *packets.Packet) *packets.Packet {
			ack.Properties.ReceiveMaximum = 3
			return ack
		},
		OnPublish: func(*clienttest.Session, *packets.Packet) int {
			held.Add(1)
			return clienttest.Silent
		},
	})
	c := dial(t, client.Options{URL: s.URL, Window: 10, Clock: clocktest.New(time.Time{})})
	if c.Window() != 3 {
		t.Fatalf("window is %d, want the server's 3", c.Window())
	}
	var settled []int
	for i := range 3 {
		if err := c.TryPublish(message(i), func(_ byte, err error) {
			if !errors.Is(err, client.ErrClosed) {
				t.Errorf("message %d settled with %v", i, err)
			}
			settled = append(settled, i)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.TryPublish(message(3), nil); !errors.Is(err, client.ErrWindow) {
		t.Errorf("a full window says %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error, 1)
	go func() { waiting <- c.Publish(ctx, message(3), nil) }()
	cancel()
	if err := <-waiting; !errors.Is(err, context.Canceled) {
		t.Errorf("waiting for room ended with %v", err)
	}
	go func() { waiting <- c.Publish(testContext(t), message(3), nil) }()
	for held.Load() < 3 {
		time.Sleep(time.Millisecond)
	}
	c.Close()
	if err := <-waiting; !errors.Is(err, client.ErrClosed) {
		t.Errorf("waiting for room ended with %v", err)
	}
	if !slices.Equal(settled, []int{0, 1, 2}) {
		t.Errorf("settled %v on Close", settled)
	}
	if err := c.TryPublish(message(4), nil); !errors.Is(err, client.ErrClosed) {
		t.Errorf("a closed connection says %v", err)
	}
}

// TestOutOfOrder answers from the back: identifiers must not be used again
// while an older publish still holds the window.
func TestOutOfOrder(t *testing.T) {
	const window = 8
	var mu sync.Mutex
	var held []uint16
	s := clienttest.Start(t, clienttest.Options{OnPublish: func(ses *clienttest.Session, p *packets.Packet) int {
		mu.Lock()
		defer mu.Unlock()
		if slices.Contains(held, p.PacketID) {
			t.Errorf("identifier %d is used twice", p.PacketID)
		}
		if held = append(held, p.PacketID); len(held) == window {
			for _, id := range slices.Backward(held) {
				ses.Send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Puback}, PacketID: id})
			}
			held = nil
		}
		return clienttest.Silent
	}})
	c := dial(t, client.Options{URL: s.URL, Window: window})
	var n atomic.Int32
	var all sync.WaitGroup
	all.Add(50 * window)
	for i := range 50 * window {
		if err := c.Publish(testContext(t), message(i), func(code byte, err error) {
			if err == nil {
				n.Add(1)
			}
			all.Done()
		}); err != nil {
			t.Fatal(err)
		}
	}
	all.Wait()
	if n.Load() != 50*window {
		t.Errorf("%d of %d confirmed", n.Load(), 50*window)
	}
}

// TestDeadWithinBound has a far side die in each way; time is moved, not waited for.
func TestDeadWithinBound(t *testing.T) {
	const bound = 10 * time.Second
	mute := func(*clienttest.Session, *packets.Packet) bool { return true }
	for _, c := range []struct {
		name    string
		publish int
		o       clienttest.Options
		want    error
	}{
		{"silent while idle", 0, clienttest.Options{}, client.ErrSilent},
		{"silent with publishes waiting", 3, clienttest.Options{
			OnPublish: func(*clienttest.Session, *packets.Packet) int { return clienttest.Silent },
		}, nil}, // either rule may see it first
		{"answers pings only", 3, clienttest.Options{
			OnPublish: func(*clienttest.Session, *packets.Packet) int { return clienttest.Silent },
		}, client.ErrUnconfirmed},
		{"forgets one", 3, clienttest.Options{
			OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
				if string(p.Payload) == "0" {
					return clienttest.Silent
				}
				return 0
			},
		}, client.ErrUnconfirmed},
	} {
		t.Run(c.name, func(t *testing.T) {
			var connected atomic.Bool
			if strings.HasPrefix(c.name, "silent") {
				c.o.OnPacket = func(s *clienttest.Session, p *packets.Packet) bool {
					return connected.Load() && mute(s, p)
				}
			}
			s := clienttest.Start(t, c.o)
			clk := clocktest.New(time.Time{})
			conn := dial(t, client.Options{URL: s.URL, Clock: clk, Bound: bound})
			connected.Store(true)
			var settled atomic.Int32
			for i := range c.publish {
				if err := conn.TryPublish(message(i), func(_ byte, err error) { settled.Add(1) }); err != nil {
					t.Fatal(err)
				}
			}
			start := clk.Elapsed()
			for {
				time.Sleep(5 * time.Millisecond) // lets answers to pings arrive before time goes on
				select {
				case <-conn.Done():
				default:
					if clk.Elapsed()-start > bound+bound/10 {
						t.Fatalf("still up after %v", clk.Elapsed()-start)
					}
					clk.Advance(bound / 100)
					continue
				}
				break
			}
			if took := clk.Elapsed() - start; took < bound*9/10 {
				t.Errorf("given up after %v already", took)
			}
			err := conn.Err()
			if c.want != nil && !errors.Is(err, c.want) || !errors.Is(err, client.ErrSilent) && !errors.Is(err, client.ErrUnconfirmed) {
				t.Errorf("ended with %v, want %v", err, c.want)
			}
			if int(settled.Load()) != c.publish {
				t.Errorf("%d of %d settled", settled.Load(), c.publish)
			}
		})
	}
}

// TestStaysUp idles for an hour, which only PINGREQ in time survives.
func TestStaysUp(t *testing.T) {
	var pings atomic.Int32
	s := clienttest.Start(t, clienttest.Options{OnPacket: func(_ *clienttest.Session, p *packets.Packet) bool {
		if p.FixedHeader.Type == packets.Pingreq {
			pings.Add(1)
		}
		return false
	}})
	clk := clocktest.New(time.Time{})
	c := dial(t, client.Options{URL: s.URL, Clock: clk, Bound: time.Minute})
	for range 120 {
		before := pings.Load()
		clk.Advance(30 * time.Second)
		for deadline := time.Now().Add(10 * time.Second); pings.Load() == before && time.Now().Before(deadline); {
			time.Sleep(100 * time.Microsecond)
		}
		// The answer must be in before time goes on; a round trip on the same
		// connection proves it.
		if _, err := c.Subscribe(testContext(t), client.Subscription{Filter: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	if n := pings.Load(); n < 100 || n > 260 {
		t.Errorf("%d pings in an hour with a bound of a minute", n)
	}
}

func TestServerEnds(t *testing.T) {
	t.Run("disconnect", func(t *testing.T) {
		s := clienttest.Start(t, clienttest.Options{})
		c := dial(t, client.Options{URL: s.URL})
		s.Sessions()[0].Send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Disconnect}, ReasonCode: 0x8e})
		var reason *client.ReasonError
		if err := ended(t, c); !errors.As(err, &reason) || reason.Code != 0x8e {
			t.Errorf("ended with %v", err)
		}
	})
	t.Run("cut", func(t *testing.T) {
		s := clienttest.Start(t, clienttest.Options{OnPublish: func(*clienttest.Session, *packets.Packet) int { return clienttest.Silent }})
		c := dial(t, client.Options{URL: s.URL})
		var got error
		if err := c.TryPublish(message(0), func(_ byte, err error) { got = err }); err != nil {
			t.Fatal(err)
		}
		s.Cut()
		if err := ended(t, c); err == nil || got != err {
			t.Errorf("ended with %v, settled with %v", err, got)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		s := clienttest.Start(t, clienttest.Options{})
		c := dial(t, client.Options{URL: s.URL})
		s.Sessions()[0].Conn.Write([]byte(strings.Repeat("HTTP/1.1 400 Bad Request\r\n", 10)))
		if err := ended(t, c); !errors.Is(err, client.ErrMalformed) {
			t.Errorf("ended with %v", err)
		}
	})
}

func TestRefusedConnect(t *testing.T) {
	for _, version := range []byte{4, 5} {
		code := byte(0x86)
		if version == 4 {
			code = 4
		}
		s := clienttest.Start(t, clienttest.Options{OnConnect: func(_, ack *packets.Packet) *packets.Packet {
			ack.ReasonCode = code
			return ack
		}})
		_, _, err := client.Dial(testContext(t), client.Options{URL: s.URL, Version: version})
		var reason *client.ReasonError
		if !errors.As(err, &reason) || reason.Code != code || !strings.Contains(err.Error(), "bad user name or password") {
			t.Errorf("v%d: %v", version, err)
		}
	}
}

func TestDialIsBounded(t *testing.T) {
	s := clienttest.Start(t, clienttest.Options{OnConnect: func(_, _ *packets.Packet) *packets.Packet { return nil }})
	clk := clocktest.New(time.Time{})
	result := make(chan error, 1)
	go func() {
		_, _, err := client.Dial(context.Background(), client.Options{URL: s.URL, Clock: clk, Bound: 5 * time.Second})
		result <- err
	}()
	if err := clk.WaitArmed(testContext(t), 1); err != nil {
		t.Fatal(err)
	}
	clk.Advance(5 * time.Second)
	if err := <-result; err == nil || !strings.Contains(err.Error(), "within the bound") {
		t.Errorf("dial ended with %v", err)
	}
}

func TestCannotBeSent(t *testing.T) {
	s := clienttest.Start(t, clienttest.Options{OnConnect: func(_, ack *packets.Packet) *packets.Packet {
		ack.Properties.MaximumPacketSize = 100
		ack.Properties.MaximumQosFlag = true // 0
		ack.Properties.RetainAvailableFlag = true
		return ack
	}})
	c := dial(t, client.Options{URL: s.URL})
	topic := []byte("t")
	for name, m := range map[string]*client.Message{
		"large":    {Topic: topic, Payload: make([]byte, 97)},
		"qos":      {Topic: topic, QoS: 1},
		"retained": {Topic: topic, Retain: true},
		"wildcard": {Topic: []byte("a/#")},
	} {
		if err := c.TryPublish(m, nil); !errors.Is(err, client.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	// 2 fixed header + 3 topic + 1 properties + 94 payload: exactly 100.
	if err := c.PublishWait(testContext(t), &client.Message{Topic: topic, Payload: bytes.Repeat([]byte("x"), 94)}); err != nil {
		t.Errorf("a packet of the allowed size: %v", err)
	}
}

// TestQoS2In checks that a repeated QoS 2 message is handed on once, and that
// all of it is answered.
func TestQoS2In(t *testing.T) {
	replies := make(chan string, 10)
	s := clienttest.Start(t, clienttest.Options{OnPacket: func(_ *clienttest.Session, p *packets.Packet) bool {
		if p.FixedHeader.Type != packets.Connect {
			replies <- fmt.Sprintf("%s %d", packets.PacketNames[p.FixedHeader.Type], p.PacketID)
		}
		return false
	}})
	var got atomic.Int32
	dial(t, client.Options{URL: s.URL, OnMessage: func(*client.Conn, *client.Message) { got.Add(1) }})
	ses := s.Sessions()[0]
	publish := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 2}, TopicName: "a", PacketID: 9}
	release := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Pubrel}, PacketID: 9}
	for i, step := range []struct {
		send packets.Packet
		want string
		got  int32
	}{
		{publish, "Pubrec 9", 1},
		{publish, "Pubrec 9", 1}, // repeated: not handed on again
		{release, "Pubcomp 9", 1},
		{release, "Pubcomp 9", 1},
		{publish, "Pubrec 9", 2}, // released, so it is another message
	} {
		if err := ses.Send(&step.send); err != nil {
			t.Fatal(err)
		}
		if r := <-replies; r != step.want || got.Load() != step.got {
			t.Errorf("step %d: reply %s, %d messages; want %s, %d", i, r, got.Load(), step.want, step.got)
		}
	}
}

func TestManualAck(t *testing.T) {
	acked := make(chan uint16, 10)
	s := clienttest.Start(t, clienttest.Options{OnPacket: func(_ *clienttest.Session, p *packets.Packet) bool {
		if p.FixedHeader.Type == packets.Puback {
			acked <- p.PacketID
		}
		return false
	}})
	got := make(chan uint16, 10)
	c := dial(t, client.Options{URL: s.URL, ManualAck: true, OnMessage: func(_ *client.Conn, m *client.Message) { got <- m.PacketID }})
	s.Sessions()[0].Send(&packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Publish, Qos: 1}, TopicName: "a", PacketID: 5})
	id := <-got
	if _, err := c.Subscribe(testContext(t), client.Subscription{Filter: "x"}); err != nil { // a round trip
		t.Fatal(err)
	}
	if len(acked) != 0 {
		t.Error("acknowledged before Ack")
	}
	if err := c.Ack(1, id); err != nil {
		t.Fatal(err)
	}
	if a := <-acked; a != 5 {
		t.Errorf("acknowledged %d", a)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for want, o := range map[string]client.Options{
		"scheme must be":  {URL: "http://x"},
		"has no host":     {URL: "mqtt://"},
		"has no path":     {URL: "unix://"},
		"neither 4":       {URL: "mqtt://x", Version: 3},
		"window":          {URL: "mqtt://x", Window: 70_000},
		"no password":     {URL: "mqtt://x", Version: 4, Password: []byte("x")},
		"no kept session": {URL: "mqtt://x", Version: 4, KeepSession: true},
		"will to":         {URL: "mqtt://x", Will: &client.Message{Topic: []byte("a/#")}},
		"of their own":    {URL: "mqtt://me:secret@x"},
	} {
		_, _, err := client.Dial(testContext(t), o)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%+v: %v, want %q", o.URL, err, want)
		}
	}
}

func TestKeeper(t *testing.T) {
	s := clienttest.Start(t, clienttest.Options{})
	clk := clocktest.New(time.Time{})
	up := make(chan *client.Conn, 10)
	k := client.NewKeeper(client.KeeperOptions{
		Options: client.Options{URL: s.URL, Clock: clk},
		OnUp: func(ctx context.Context, c *client.Conn, _ bool) error {
			up <- c
			return nil
		},
	})
	if _, err := k.Conn(); !errors.Is(err, client.ErrDown) {
		t.Errorf("before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	for range 3 {
		c := <-up
		s.Cut()
		<-c.Done()
		for len(up) == 0 { // the pause is at most 8 s by now
			if ctx.Err() != nil {
				t.Fatal("did not come back")
			}
			clk.Advance(time.Second / 4)
			time.Sleep(time.Millisecond)
		}
	}
	last := <-up
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Run ended with %v", err)
	}
	if err := ended(t, last); !errors.Is(err, client.ErrClosed) {
		t.Errorf("the last connection ended with %v", err)
	}
}
