package broker_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// keeper holds back batches.
type keeper struct {
	mu   sync.Mutex
	held []*broker.Inbound
}

func (k *keeper) publish(_ string, in *broker.Inbound, take func()) {
	take()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held = append(k.held, in)
}

// wait returns the batches when there are n items in them.
func (k *keeper) wait(t testing.TB, n int) (batches []*broker.Inbound) {
	t.Helper()
	eventually(t, "handing in", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		items := 0
		for _, in := range k.held {
			items += len(in.Items)
		}
		return items == n
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	batches, k.held = k.held, nil
	return batches
}

// A backend that answers late, and in another order than it was asked: clients
// see their answers late, in the order in which they sent, and none early.
func TestAnswersOutOfOrder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	versions(t, func(t *testing.T, v byte) {
		var k keeper
		h := open(t, &brokertest.Memory{Publish: k.publish}, broker.Options{})
		c := h.join(v, "c", true)
		var batches []*broker.Inbound
		const n = 20
		for i := range byte(n) {
			c.send(publish(v, "t", 1+i%2, uint16(i+1), ""))
			batches = append(batches, k.wait(t, 1)...)
		}
		c.ping() // and no answer before it
		rnd.Shuffle(n, func(i, j int) { batches[i], batches[j] = batches[j], batches[i] })
		var wg sync.WaitGroup
		for _, in := range batches {
			wg.Go(func() { in.Done(in) })
		}
		for i := range byte(n) {
			c.expect("answer", 0x40+0x10*(i%2), 2, 0, i+1)
		}
		wg.Wait()
	})
}

// A backend that refuses: MQTT 5 clients are told, those of MQTT 3.1.1 are not
// told yes.
func TestBackendRefuses(t *testing.T) {
	m := &brokertest.Memory{Publish: func(_ string, in *broker.Inbound, _ func()) {
		for i := range in.Items {
			in.Items[i].Code = broker.QuotaExceeded
		}
		go in.Done(in)
	}}
	h := open(t, m, broker.Options{})
	c := h.join(5, "c", true)
	c.send(publish(5, "t", 1, 1, ""), publish(5, "t", 2, 2, ""), publish(5, "t", 0, 0, ""))
	c.expect("PUBACK", 0x40, 3, 0, 1, broker.QuotaExceeded)
	c.expect("PUBREC", 0x50, 3, 0, 2, broker.QuotaExceeded)
	c.send(publish(5, "t", 2, 2, "")) // its identifier is free again [MQTT-4.3.3-4]
	c.expect("PUBREC", 0x50, 3, 0, 2, broker.QuotaExceeded)
	eventually(t, "counting", func() bool { return h.server.Counters().Rejected[broker.QuotaExceeded].Load() == 4 })
	old := h.join(4, "old", true)
	old.send(publish(4, "t", 1, 1, ""))
	old.closed()
}

// The repetition of a QoS 2 message must not be acknowledged before the message
// itself is safe, nor when it was refused.
func TestRepetitionWaitsForTheFirst(t *testing.T) {
	var k keeper
	h := open(t, &brokertest.Memory{Publish: k.publish}, broker.Options{})
	c := h.join(5, "c", true)
	c.send(publish(5, "t", 2, 1, "x"))
	first := k.wait(t, 1)[0]
	c.send(publishWith(5, 0x3c, "t", 1, nil, "x"))
	c.ping()
	first.Done(first)
	c.expect("PUBREC", 0x50, 2, 0, 1)
	c.expect("PUBREC", 0x50, 2, 0, 1)

	c.send(publish(5, "t", 2, 2, "x"))
	first = k.wait(t, 1)[0]
	c.send(publishWith(5, 0x3c, "t", 2, nil, "x"))
	c.ping()
	first.Items[0].Code = broker.QuotaExceeded
	first.Done(first)
	c.expect("PUBREC", 0x50, 3, 0, 2, broker.QuotaExceeded)
	c.expect("PUBREC", 0x50, 3, 0, 2, broker.UnspecifiedError)
}

// A release that could not be stored is not confirmed; the client asks again.
func TestReleaseRefused(t *testing.T) {
	var k keeper
	h := open(t, &brokertest.Memory{Publish: k.publish}, broker.Options{})
	c := h.join(5, "c", false)
	c.send(publish(5, "t", 2, 1, "x"))
	in := k.wait(t, 1)[0]
	in.Done(in)
	c.expect("PUBREC", 0x50, 2, 0, 1)
	c.send(acknowledge(6, 1))
	in = k.wait(t, 1)[0]
	in.Items[0].Code = broker.ImplementationError
	in.Done(in)
	c.disconnected(broker.ServerUnavailable)
	c = h.join(5, "c", false)
	c.send(acknowledge(6, 1))
	in = k.wait(t, 1)[0]
	in.Done(in)
	c.expect("PUBCOMP", 0x70, 2, 0, 1)
}

// A backend that never answers: the session is let go after DrainTimeout, the
// message counts as not received, and a very late answer does no harm.
func TestBackendNeverAnswers(t *testing.T) {
	var k keeper
	detached := make(chan broker.Detachment, 4)
	m := &brokertest.Memory{Publish: k.publish, OnDetach: func(_ string, d broker.Detachment) { detached <- d }}
	h := open(t, m, broker.Options{Clock: clocktest.New(time.Time{})})
	c := h.join(5, "c", false)
	c.send(publish(5, "t", 2, 1, "x"), publish(5, "t", 1, 2, "y"))
	late := k.wait(t, 2)
	c.nc.Close()
	h.pass(29 * time.Second)
	select {
	case <-detached:
		t.Fatal("the session was let go before the backend had its time")
	default:
	}
	h.pass(2 * time.Second)
	<-detached
	if n := h.server.Counters().NotAnswered.Load(); n == 0 {
		t.Error("it was not counted")
	}
	for _, in := range late {
		in.Done(in)
	}
	c = h.join(5, "c", false)
	c.send(publishWith(5, 0x3c, "t", 1, nil, "x"))
	in := k.wait(t, 1)[0]
	if m := in.Items[0].Message; string(m.Payload) != "x" || m.QoS != 2 {
		t.Errorf("the message that was never acknowledged came as %+v", m)
	}
	in.Done(in)
	c.expect("PUBREC", 0x50, 2, 0, 1)
}

// The session is not let go while a batch is with the backend.
func TestDetachWaitsForAnswers(t *testing.T) {
	var k keeper
	detached := make(chan broker.Detachment, 4)
	m := &brokertest.Memory{Publish: k.publish, OnDetach: func(_ string, d broker.Detachment) { detached <- d }}
	h := open(t, m, broker.Options{})
	c := h.join(4, "c", false)
	c.send(publish(4, "t", 1, 1, "x"), []byte{0xe0, 0})
	in := k.wait(t, 1)[0]
	c.closed()
	select {
	case <-detached:
		t.Fatal("detached although a batch is not answered")
	case <-time.After(20 * time.Millisecond):
	}
	in.Done(in)
	if d := <-detached; !d.Clean {
		t.Errorf("detachment %+v", d)
	}
}

// A second answer to a batch is noticed and changes nothing.
func TestAnsweredTwice(t *testing.T) {
	var k keeper
	h := open(t, &brokertest.Memory{Publish: k.publish}, broker.Options{})
	c := h.join(4, "c", true)
	c.send(publish(4, "t", 1, 1, "x"))
	in := k.wait(t, 1)[0]
	in.Done(in)
	in.Done(in)
	c.expect("PUBACK", 0x40, 2, 0, 1)
	c.ping()
}

// Attach that is slow, fails, or ends when nobody waits any more.
func TestAttach(t *testing.T) {
	fake := clocktest.New(time.Time{})
	var mu sync.Mutex
	var before func(context.Context) error
	m := &brokertest.Memory{BeforeAttach: func(ctx context.Context, _ *broker.Connect) error {
		mu.Lock()
		f := before
		mu.Unlock()
		return f(ctx)
	}}
	set := func(f func(context.Context) error) {
		mu.Lock()
		defer mu.Unlock()
		before = f
	}
	h := open(t, m, broker.Options{Clock: fake})
	h.t = t

	// Slow: what the client sends meanwhile is kept [MQTT-3.1.4-5].
	release := make(chan struct{})
	set(func(context.Context) error { <-release; return nil })
	c := h.dial()
	c.send(hello{version: 5, id: "c", clean: true}.packet(), []byte{0xc0, 0})
	close(release)
	if first, body := c.packet(); first != 0x20 || body[1] != 0 {
		t.Errorf("got %x % x", first, body)
	}
	c.expect("PINGRESP", 0xd0, 0)

	// Failing: the client is told what it may know.
	set(func(context.Context) error { return errors.New("secret") })
	c = h.dial()
	c.send(hello{version: 5, id: "d", clean: true}.packet())
	if first, body := c.packet(); first != 0x20 || body[1] != broker.ServerUnavailable || len(body) > 40 {
		t.Errorf("got %x % x", first, body)
	}
	c.closed()

	// Too slow: its context ends.
	asked := make(chan struct{})
	set(func(ctx context.Context) error { close(asked); <-ctx.Done(); return ctx.Err() })
	c = h.dial()
	c.send(hello{version: 4, id: "e", clean: true}.packet())
	<-asked
	for range 70 {
		fake.Advance(500 * time.Millisecond)
		time.Sleep(time.Millisecond)
	}
	c.expect("CONNACK", 0x20, 2, 0, 3)
	c.closed()

	// Gone: the client has left before Attach returns.
	release = make(chan struct{})
	set(func(context.Context) error { <-release; return nil })
	c = h.dial()
	c.send(hello{version: 5, id: "f", clean: true}.packet())
	c.nc.Close()
	close(release)
	eventually(t, "leaving", func() bool { return h.server.Counters().Clients.Load() == 1 })
}

// Wakes for nothing cost nothing and end.
func TestWakeWithoutDeliveries(t *testing.T) {
	b := &waker{Memory: &brokertest.Memory{}}
	h := startWith(t, b, b.Memory, broker.Options{}).listen(listen(t), broker.ListenerOptions{})
	c := h.join(5, "c", true)
	for range 1000 {
		b.out.Wake()
	}
	c.subscribe("t", 1)
	c.send(publish(5, "t", 0, 0, "x"))
	c.expectPublish(0, false, "x")
	c.send([]byte{0xe0, 0})
	c.closed()
	b.out.Wake() // after Detach
	b.out.Close(broker.TakenOver, "late")
}

// A connection that is ended before its session is attached gets no welcome, and
// the session is let go.
func TestClosedDuringAttach(t *testing.T) {
	detached := make(chan broker.Detachment, 1)
	b := &waker{Memory: &brokertest.Memory{OnDetach: func(_ string, d broker.Detachment) { detached <- d }}, close: true}
	h := startWith(t, b, b.Memory, broker.Options{}).listen(listen(t), broker.ListenerOptions{})
	c := h.dial()
	c.send(hello{version: 5, id: "c", clean: true}.packet(), publish(5, "t", 0, 0, "x"))
	c.closed()
	if d := <-detached; !d.TakenOver {
		t.Errorf("detachment is %+v", d)
	}
	if n := h.server.Counters().MessagesIn[0].Load(); n != 0 {
		t.Error("a message was taken")
	}
}

type waker struct {
	*brokertest.Memory
	out   broker.Outlet
	close bool
}

func (w *waker) Attach(ctx context.Context, p broker.Principal, c *broker.Connect, out broker.Outlet) (broker.Session, error) {
	if w.out = out; w.close {
		out.Close(broker.TakenOver, "too late")
	}
	return w.Memory.Attach(ctx, p, c, out)
}

// A delivery of QoS 2 is not sent before it is noted, PUBREL not before its
// PUBREC is, and neither when noting fails.
func TestNotes(t *testing.T) {
	type note struct {
		keep func()
		done func(error)
	}
	notes := make(chan note, 16)
	m := &brokertest.Memory{Note: func(_ string, _ []broker.FlightChange, keep func(), done func(error)) { notes <- note{keep, done} }}
	h := open(t, m, broker.Options{})
	sub := h.join(5, "sub", false)
	sub.subscribe("t", 2)
	pub := h.join(5, "pub", true)
	pub.send(publish(5, "t", 2, 1, "a"), publish(5, "t", 1, 2, "b"))
	first := <-notes
	sub.ping() // neither a nor, behind it, b
	pub.expect("PUBREC", 0x50, 2, 0, 1)
	pub.expect("PUBACK", 0x40, 2, 0, 2)
	pub.send(publish(5, "t", 1, 4, "later"))
	pub.expect("PUBACK", 0x40, 2, 0, 4)
	sub.ping() // nor what came later
	first.keep()
	first.done(nil)
	id := sub.expectPublish(2, false, "a")
	sub.send(acknowledge(4, sub.expectPublish(1, false, "b")))
	sub.send(acknowledge(4, sub.expectPublish(1, false, "later")))
	sub.send(acknowledge(5, id))
	second := <-notes
	sub.ping()
	second.keep()
	second.done(nil)
	sub.expect("PUBREL", acknowledge(6, id)...)
	sub.send(acknowledge(7, id))
	third := <-notes
	third.keep()
	third.done(nil)

	pub.send(publish(5, "t", 2, 3, "c"))
	failed := <-notes
	failed.done(errors.New("disk full"))
	sub.disconnected(broker.ServerUnavailable)
	sub = h.join(5, "sub", false)
	sub.send(acknowledge(5, sub.expectPublish(2, true, "c")))
	(<-notes).done(errors.New("disk full"))
	sub.disconnected(broker.ServerUnavailable)
	sub = h.join(5, "sub", false)
	sub.expectPublish(2, true, "c") // not PUBREL: the client's PUBREC is not safe
}

// A Note that is never done ends the connection, and in the end the attachment.
func TestNoteNeverDone(t *testing.T) {
	fake := clocktest.New(time.Time{})
	var mu sync.Mutex
	var late []func(error)
	detached := make(chan broker.Detachment, 4)
	m := &brokertest.Memory{
		Note: func(_ string, _ []broker.FlightChange, _ func(), done func(error)) {
			mu.Lock()
			defer mu.Unlock()
			late = append(late, done)
		},
		OnDetach: func(_ string, d broker.Detachment) { detached <- d },
	}
	h := open(t, m, broker.Options{Clock: fake})
	sub := h.join(5, "sub", false)
	sub.subscribe("t", 2)
	sub.send(publish(5, "t", 2, 1, "a"))
	sub.expect("PUBREC", 0x50, 2, 0, 1)
	eventually(t, "noting", func() bool { mu.Lock(); defer mu.Unlock(); return len(late) == 1 })
	h.pass(32 * time.Second)
	sub.disconnected(broker.ServerUnavailable)
	h.pass(32 * time.Second)
	<-detached
	late[0](nil)
}

// Subscribe that fails, or gives too few codes, is a refusal.
func TestSubscribeFails(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    func() ([]byte, error)
	}{
		{"error", func() ([]byte, error) { return nil, errors.New("no") }},
		{"too few codes", func() ([]byte, error) { return nil, nil }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &subscribeLiar{Memory: &brokertest.Memory{}, f: tt.f}
			h := startWith(t, b, b.Memory, broker.Options{}).listen(listen(t), broker.ListenerOptions{})
			c := h.join(5, "c", true)
			c.send(subscribe(5, 1, "a", 1))
			c.expect("SUBACK", 0x90, 4, 0, 1, 0, broker.UnspecifiedError)
			c.send(pack(0xa2, join([]byte{0, 2, 0}, text("x"))))
			c.expect("UNSUBACK", 0xb0, 4, 0, 2, 0, broker.UnspecifiedError)
			old := h.join(4, "old", true)
			old.send(subscribe(4, 1, "a", 1))
			old.expect("SUBACK", 0x90, 3, 0, 1, 0x80)
			old.send(pack(0xa2, join([]byte{0, 2}, text("x"))))
			old.closed() // UNSUBACK cannot say no
		})
	}
}

type subscribeLiar struct {
	*brokertest.Memory
	f func() ([]byte, error)
}

func (l *subscribeLiar) Attach(ctx context.Context, p broker.Principal, c *broker.Connect, out broker.Outlet) (broker.Session, error) {
	s, err := l.Memory.Attach(ctx, p, c, out)
	return &lyingSession{s, l.f}, err
}

type lyingSession struct {
	broker.Session
	f func() ([]byte, error)
}

func (s *lyingSession) Subscribe(context.Context, []broker.Subscription) ([]byte, error) {
	return s.f()
}
func (s *lyingSession) Unsubscribe(context.Context, []string) ([]byte, error) { return s.f() }

// Many clients, a backend that answers when it likes, and connections that end
// at any time: every answered message is there, and everything is let go.
func TestStorm(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	m := &brokertest.Memory{Publish: func(_ string, in *broker.Inbound, take func()) {
		take()
		go func() {
			time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
			in.Done(in)
		}()
	}}
	h := open(t, m, broker.Options{MaxInboundBatches: 4})
	sub := h.join(5, "sub", false)
	sub.subscribe("t/#", 1)
	sub.nc.Close()
	var mu sync.Mutex
	acked := make(map[string]bool)
	var wg sync.WaitGroup
	for n := range 8 {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(n)))
			for life := range 8 {
				c := h.join(4+byte(n)%2, fmt.Sprint("pub", n), rnd.IntN(2) == 0)
				total := 1 + rnd.IntN(50)
				for i := range total {
					c.send(publish(c.v, fmt.Sprint("t/", n), 1, uint16(i+1), fmt.Sprint(n, ".", life, ".", i)))
				}
				for i := range rnd.IntN(total + 1) {
					c.expect("PUBACK", 0x40, 2, 0, byte(i+1))
					mu.Lock()
					acked[fmt.Sprint(n, ".", life, ".", i)] = true
					mu.Unlock()
				}
				if rnd.IntN(2) == 0 {
					c.send([]byte{0xe0, 0})
				}
				c.nc.Close()
			}
		})
	}
	wg.Wait()
	eventually(t, "leaving", func() bool { return h.server.Counters().Clients.Load() == 0 })
	sub = h.join(5, "sub", false)
	for len(acked) > 0 {
		p := sub.published()
		delete(acked, p.payload)
		sub.send(acknowledge(4, p.id))
	}
}
