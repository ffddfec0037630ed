package broker_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// One and a half keep-alives without a packet end the connection [MQTT-3.1.2-22];
// any packet begins them anew.
func TestKeepAlive(t *testing.T) {
	versions(t, func(t *testing.T, v byte) {
		h := open(t, &brokertest.Memory{}, broker.Options{Clock: clocktest.New(time.Time{})})
		c := h.connect(hello{version: v, id: "c", clean: true, keepAlive: 10}.packet())
		forever := h.connect(hello{version: v, id: "forever", clean: true}.packet())
		c.ping()
		for range 3 {
			h.pass(14500 * time.Millisecond)
			c.ping()
		}
		h.pass(16500 * time.Millisecond) // and two ticks of the sweep
		c.disconnected(broker.KeepAliveTimeout)
		forever.ping()
	})
}

// The server's keep-alive is the one that counts [MQTT-3.2.2-21]. MQTT 3.1.1
// clients cannot be told and keep their own.
func TestServerKeepAlive(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: clocktest.New(time.Time{}), MaxKeepAlive: 10 * time.Second})
	c := h.connect(hello{version: 5, id: "c", clean: true}.packet())
	old := h.connect(hello{version: 4, id: "old", clean: true, keepAlive: 100}.packet())
	c.ping()
	old.ping()
	h.pass(16500 * time.Millisecond)
	c.disconnected(broker.KeepAliveTimeout)
	old.ping()
}

// A connection that never says who it is does not stay.
func TestConnectTimeout(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: clocktest.New(time.Time{})})
	silent, slow := h.dial(), h.dial()
	slow.send(hello{version: 5, id: "c"}.packet()[:5])
	eventually(t, "acceptance", func() bool { return h.server.Counters().Connections.Load() == 2 })
	h.pass(9 * time.Second)
	if n := h.server.Counters().Connections.Load(); n != 2 {
		t.Fatalf("%d connections after 9 s", n)
	}
	h.pass(2 * time.Second)
	silent.closed()
	slow.closed()
	eventually(t, "counting", func() bool { return h.server.Counters().TimedOut.Load() == 2 })
}

func TestMaxClients(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{MaxClients: 2})
	a, _ := h.join(5, "a", true), h.join(5, "b", true)
	c := h.dial()
	c.send(hello{version: 5, id: "c", clean: true}.packet())
	if first, body := c.packet(); first != 0x20 || body[1] != broker.QuotaExceeded {
		t.Errorf("got %x % x", first, body)
	}
	c.closed()
	c = h.dial()
	c.send(hello{version: 4, id: "c", clean: true}.packet())
	c.expect("CONNACK", 0x20, 2, 0, 3)
	a.send([]byte{0xe0, 0})
	a.closed()
	eventually(t, "leaving", func() bool { return h.server.Counters().Clients.Load() == 1 })
	h.join(5, "c", true).ping()
}

func TestConnectRate(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: clocktest.New(time.Time{}), ConnectRate: 1, ConnectBurst: 2})
	h.join(5, "a", true)
	h.join(5, "b", true)
	c := h.dial()
	c.send(hello{version: 5, id: "c", clean: true}.packet())
	if first, body := c.packet(); first != 0x20 || body[1] != broker.ConnectionRateExceeded {
		t.Errorf("got %x % x", first, body)
	}
	h.pass(time.Second)
	h.join(5, "c", true).ping()
}

// Above its rate a client is read more slowly; nothing is dropped.
func TestMessageRate(t *testing.T) {
	fake := clocktest.New(time.Time{})
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: fake, MessageRate: 2})
	c := h.join(4, "c", true)
	// One read takes all of what is there, so the third packet is sent alone.
	c.send(publish(4, "t", 1, 1, ""), publish(4, "t", 1, 2, ""), publish(4, "t", 1, 3, ""), publish(4, "t", 1, 4, ""))
	for i := range byte(4) {
		c.expect("PUBACK", 0x40, 2, 0, i+1)
	}
	c.send(publish(4, "t", 1, 5, ""))
	eventually(t, "throttling", func() bool { return h.server.Counters().Throttled.Load() == 1 })
	if n := h.server.Counters().MessagesIn[1].Load(); n != 4 {
		t.Errorf("%d messages were read, want 4", n)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := fake.WaitArmed(ctx, 2); err != nil { // the sweep's and the reader's
		t.Fatal(err)
	}
	fake.Advance(1100 * time.Millisecond)
	c.expect("PUBACK", 0x40, 2, 0, 5)
}

// More unacknowledged messages than the server allows end an MQTT 5 connection
// [MQTT-3.3.4-8]; QoS 0 does not count. Identifiers count until PUBCOMP.
func TestReceiveMaximumOfTheServer(t *testing.T) {
	var mu sync.Mutex
	var held []*broker.Inbound
	m := &brokertest.Memory{Publish: func(_ string, in *broker.Inbound, take func()) {
		mu.Lock()
		defer mu.Unlock()
		take()
		held = append(held, in)
	}}
	answer := func() {
		mu.Lock()
		batches := held
		held = nil
		mu.Unlock()
		for _, in := range batches {
			in.Done(in)
		}
	}
	h := open(t, m, broker.Options{ReceiveMaximum: 2})
	c := h.join(5, "c", true)
	c.send(publish(5, "t", 1, 1, ""), publish(5, "t", 2, 2, ""), publish(5, "t", 0, 0, ""))
	c.ping()
	answer()
	c.expect("PUBACK", 0x40, 2, 0, 1)
	c.expect("PUBREC", 0x50, 2, 0, 2)
	c.send(publish(5, "t", 1, 3, ""))
	c.ping()
	answer()
	c.expect("PUBACK", 0x40, 2, 0, 3)
	c.send(acknowledge(6, 2))
	c.ping()
	answer()
	c.expect("PUBCOMP", 0x70, 2, 0, 2)
	c.send(publish(5, "t", 2, 4, ""), publish(5, "t", 1, 5, ""), publish(5, "t", 1, 6, ""))
	c.disconnected(broker.ReceiveMaximumExceeded)
	eventually(t, "handing in", func() bool { mu.Lock(); defer mu.Unlock(); return len(held) > 0 })
	answer()
}

// A QoS 2 message counts until PUBCOMP, not only until PUBREC (MQTT 5, 4.9).
func TestReceiveMaximumOfTheServerCountsUntilPubcomp(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{ReceiveMaximum: 1})
	c := h.join(5, "c", true)
	for range 2 {
		c.send(publish(5, "t", 2, 1, ""), acknowledge(6, 1))
		c.expect("PUBREC", 0x50, 2, 0, 1)
		c.expect("PUBCOMP", 0x70, 2, 0, 1)
	}
	c.send(publish(5, "t", 2, 1, ""))
	c.expect("PUBREC", 0x50, 2, 0, 1)
	c.send(publish(5, "t", 1, 2, ""))
	c.disconnected(broker.ReceiveMaximumExceeded)
}

// What waits for the backend is bounded: the socket is not read, nothing is lost.
func TestBackPressure(t *testing.T) {
	var mu sync.Mutex
	var held []*broker.Inbound
	m := &brokertest.Memory{Publish: func(_ string, in *broker.Inbound, take func()) {
		mu.Lock()
		defer mu.Unlock()
		take()
		held = append(held, in)
	}}
	h := open(t, m, broker.Options{MaxInboundBytes: 256 << 10})
	c := h.join(4, "c", true)
	const n = 4000
	sent := make(chan int, 1)
	go func() {
		p, i := strings.Repeat("x", 1000), 0
		for ; i < n; i++ {
			if _, err := c.nc.Write(publish(4, "t", 1, uint16(i+1), p)); err != nil {
				break
			}
		}
		sent <- i
	}()
	k := h.server.Counters()
	eventually(t, "throttling", func() bool { return k.Throttled.Load() > 0 })
	if got := k.MessagesIn[1].Load(); got*1000 > 512<<10 {
		t.Errorf("%d messages are waiting in memory", got)
	}
	stop := make(chan struct{})
	defer close(stop)
	go func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(time.Millisecond):
			}
			mu.Lock()
			batches := held
			held = nil
			mu.Unlock()
			for _, in := range batches {
				in.Done(in)
			}
		}
	}()
	for i := range n {
		c.expect("PUBACK", acknowledge(4, uint16(i+1))...)
	}
	if got := <-sent; got != n {
		t.Errorf("%d were sent", got)
	}
}

// A client that takes nothing is closed in time, and disturbs nobody meanwhile.
func TestStuckClient(t *testing.T) {
	fake := clocktest.New(time.Time{})
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: fake})
	stuck, good := h.join(4, "stuck", false), h.join(4, "good", true)
	stuck.subscribe("t", 1)
	good.subscribe("t", 1)
	pub := h.join(4, "pub", true)
	big := strings.Repeat("x", 60<<10)
	const n = 30 // more than any socket buffer holds
	for i := range n {
		pub.send(publish(4, "t", 1, uint16(i+1), big))
		pub.expect("PUBACK", 0x40, 2, 0, byte(i+1))
		good.send(acknowledge(4, good.expectPublish(1, false, big)))
	}
	h.stuck = 1
	h.pass(19 * time.Second)
	if k := h.server.Counters(); k.Stuck.Load() != 0 || k.Clients.Load() != 3 {
		t.Fatalf("closed too early: %d clients", k.Clients.Load())
	}
	h.pass(3 * time.Second)
	eventually(t, "closing", func() bool { return h.server.Counters().Stuck.Load() == 1 && h.server.Counters().Clients.Load() == 2 })
	good.ping()
	stuck = h.join(4, "stuck", false) // nothing was lost
	for range n {
		p := stuck.published()
		stuck.send(acknowledge(4, p.id))
	}
	eventually(t, "settling", func() bool { return h.backend.Queued("stuck") == 0 })
}

// A slow client loses QoS 0 messages that gathered while it was, and only those.
func TestSlowClientLosesQoS0(t *testing.T) {
	fake := clocktest.New(time.Time{})
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: fake})
	slow := h.join(4, "slow", true)
	slow.subscribe("#", 1)
	pub := h.join(4, "pub", true)
	big := strings.Repeat("x", 60<<10)
	const n = 30
	for i := range n {
		pub.send(publish(4, "zero", 0, 0, big), publish(4, "one", 1, uint16(i+1), fmt.Sprint(i)))
		pub.expect("PUBACK", 0x40, 2, 0, byte(i+1))
	}
	h.stuck = 1
	h.pass(3 * time.Second) // less than the limit for stuck ones, more than that for slow ones
	zeros := 0
	for i := 0; i < n; {
		p := slow.published()
		if p.qos == 0 {
			zeros++
			continue
		}
		if p.payload != fmt.Sprint(i) {
			t.Fatalf("got %q, want %d", p.payload, i)
		}
		slow.send(acknowledge(4, p.id))
		i++
	}
	dropped := h.server.Counters().DroppedSlow.Load()
	if dropped == 0 || int(dropped)+zeros != n {
		t.Errorf("%d came, %d were counted as dropped, of %d", zeros, dropped, n)
	}
	eventually(t, "settling", func() bool { return h.backend.Queued("slow") == 0 })
	slow.ping()
	pub.send(publish(4, "zero", 0, 0, "again"))
	slow.expectPublish(0, false, "again")
}

// A client that sends and does not read its answers is not read either.
func TestUnreadAnswersAreBounded(t *testing.T) {
	fake := clocktest.New(time.Time{})
	h := open(t, &brokertest.Memory{}, broker.Options{Clock: fake})
	c := h.join(4, "c", true)
	pings := bytes.Repeat([]byte{0xc0, 0}, 8<<10)
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	wrote := make(chan error, 1)
	go func() {
		for {
			if _, err := c.nc.Write(pings); err != nil {
				wrote <- err
				return
			}
		}
	}()
	eventually(t, "throttling", func() bool { return h.server.Counters().Throttled.Load() > 0 })
	h.stuck = 1
	h.pass(22 * time.Second)
	if err := <-wrote; err == nil || err.(net.Error).Timeout() {
		t.Errorf("the connection was not closed: %v", err)
	}
	if n := h.server.Counters().Stuck.Load(); n != 1 {
		t.Errorf("%d stuck clients were counted", n)
	}
}
