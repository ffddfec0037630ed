package client

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A Conn is one connection. Its methods may be called from many goroutines.
type Conn struct {
	o    Options
	sock *socket

	// What the server allows, from CONNACK.
	clientID  string
	maxPacket int
	maxQoS    byte
	noRetain  bool
	maxAlias  int

	heard atomic.Int64 // Elapsed when bytes last came in
	wrote atomic.Int64 // Elapsed when bytes last went out
	busy  atomic.Bool  // OnMessage is running: what is unread is not the far side's silence

	mu      sync.Mutex
	work    sync.Cond     // the writer waits here
	room    chan struct{} // closed when room appears; nil when nobody waits
	out     []byte        // bytes for the socket
	spare   []byte        // empty, to be the next out
	outDone []func(byte, error)
	err     error // set once, when the connection ends
	closing bool  // DISCONNECT is queued; nothing may follow it
	aliases map[string]uint16
	window

	pending map[uint16]chan *packets.Packet // SUBSCRIBE and UNSUBSCRIBE in flight
	nextID  uint16

	ended   chan struct{} // closed with err set
	flushed chan struct{} // closed when DISCONNECT was written
	done    chan struct{} // closed when everything is settled and no goroutine is left
}

// A flight is one QoS 1 publish in the window.
type flight struct {
	done    func(code byte, err error)
	waiting bool
}

// window is the QoS 1 publishes in the order sent. The one with number n sits
// in flights[n%len] and has packet identifier n%len+1, so an identifier is used
// again only when everything sent before it has been confirmed.
type window struct {
	flights    []flight
	head, tail uint64 // numbers of the oldest in the window and of the next
	early      int    // confirmed ones behind head
	waits      int    // what waits for confirmation: flights, SUBSCRIBE, UNSUBSCRIBE

	since  time.Duration // Elapsed when waits left zero or something was last confirmed
	passed time.Duration // while early > 0: Elapsed when head was passed over
}

func newConn(o Options, s *socket, ack *packets.Packet, rest []byte) *Conn {
	p := &ack.Properties
	c := &Conn{
		o: o, sock: s, clientID: o.ClientID, maxPacket: math.MaxInt, maxQoS: 2,
		pending: map[uint16]chan *packets.Packet{},
		ended:   make(chan struct{}), flushed: make(chan struct{}), done: make(chan struct{}),
	}
	c.work.L = &c.mu
	size := o.Window
	if o.Version == Version5 {
		if p.AssignedClientID != "" {
			c.clientID = p.AssignedClientID
		}
		if p.ReceiveMaximum > 0 {
			size = min(size, int(p.ReceiveMaximum))
		}
		if p.MaximumPacketSize > 0 {
			c.maxPacket = int(p.MaximumPacketSize)
		}
		if p.MaximumQosFlag {
			c.maxQoS = p.MaximumQos
		}
		if p.ServerKeepAliveFlag {
			c.o.KeepAlive = time.Duration(p.ServerKeepAlive) * time.Second
		}
		c.maxAlias = min(o.Aliases, int(p.TopicAliasMaximum))
		c.noRetain = p.RetainAvailableFlag && p.RetainAvailable == 0
	}
	c.flights = make([]flight, size)
	if !ack.SessionPresent {
		c.o.Inbox.ids = nil
	}
	now := int64(o.Clock.Elapsed())
	c.heard.Store(now)
	c.wrote.Store(now)
	go c.run(rest)
	return c
}

// run owns the connection's goroutines, and settles what is left when they are
// gone.
func (c *Conn) run(rest []byte) {
	defer close(c.done)
	var wg sync.WaitGroup
	wg.Go(func() { c.end(c.read(rest)) })
	wg.Go(c.write)
	wg.Go(c.watch)
	wg.Wait()
	c.sock.close()
	c.settleAll()
}

// end makes the connection end, for the reason of the first call.
func (c *Conn) end(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return
	}
	if c.closing {
		err = ErrClosed
	}
	c.err = err
	c.sock.raw.Close()
	close(c.ended)
	c.work.Broadcast()
	c.giveRoom()
}

// settleAll answers everything that is still waiting, in the order sent.
func (c *Conn) settleAll() {
	c.mu.Lock()
	var dones []func(byte, error)
	for ; c.head < c.tail; c.head++ {
		if f := &c.flights[c.head%uint64(len(c.flights))]; f.waiting {
			dones = append(dones, f.done)
			*f = flight{}
		}
	}
	dones = append(dones, c.outDone...)
	c.outDone, c.out = nil, nil
	err := c.err
	c.mu.Unlock()
	for _, done := range dones {
		done(0, err)
	}
}

// ClientID returns the client id, which an MQTT 5 server may have assigned.
func (c *Conn) ClientID() string { return c.clientID }

// Window returns how many QoS 1 publishes may be in flight.
func (c *Conn) Window() int { return len(c.flights) }

// MaxPacket returns the largest packet that the server takes in bytes.
func (c *Conn) MaxPacket() int { return c.maxPacket }

// Done is closed when the connection has ended, everything in flight has been
// settled, and no goroutine is left.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Err returns why the connection has ended, nil while it has not. It is
// ErrClosed after Close, a *ReasonError when the server sent DISCONNECT, and
// wraps ErrSilent or ErrUnconfirmed when the far side was found dead.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// closeGrace is how long Close waits for the socket to take DISCONNECT.
const closeGrace = time.Second

// Close sends what is queued and DISCONNECT, ends the connection, and returns
// when everything in flight has been settled with an error. It must not be
// called from OnMessage or a done function. It always returns nil.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.err == nil && !c.closing {
		c.out = append(c.out, typeDisconnect, 0) // MQTT 5, 3.14.2.1: no code means normal
		c.closing = true
		c.work.Broadcast()
		c.giveRoom()
	}
	c.mu.Unlock()
	timer := c.o.Clock.NewTimer(closeGrace)
	defer timer.Stop()
	select {
	case <-c.flushed:
	case <-c.ended:
	case <-timer.C():
	}
	c.end(ErrClosed)
	<-c.done
	return nil
}

// giveRoom wakes those who wait for room. The caller holds mu.
func (c *Conn) giveRoom() {
	if c.room != nil {
		close(c.room)
		c.room = nil
	}
}

// usable returns the reason why nothing can be sent any more. The caller holds mu.
func (c *Conn) usable() error {
	if c.err != nil {
		return c.err
	}
	if c.closing {
		return ErrClosed
	}
	return nil
}

// check finds what this server can never take.
func (c *Conn) check(m *Message) (size int, err error) {
	if err := validTopic(m.Topic); err != nil {
		return 0, err
	}
	remaining, _ := publishSize(m, c.o.Version)
	size = 1 + varintSize(remaining) + remaining
	switch {
	case m.QoS > 1:
		return 0, fmt.Errorf("%w: qos %d", ErrInvalid, m.QoS)
	case m.QoS > c.maxQoS:
		return 0, fmt.Errorf("%w: the server takes qos 0 only", ErrInvalid)
	case m.Retain && c.noRetain:
		return 0, fmt.Errorf("%w: the server takes no retained messages", ErrInvalid)
	case remaining > maxRemaining || size > c.maxPacket:
		return 0, fmt.Errorf("%w: packet of %d bytes, the server takes %d", ErrInvalid, size, min(c.maxPacket, maxRemaining))
	}
	return size, nil
}

// TryPublish queues m and returns. done is called exactly once, never from
// within TryPublish: for QoS 1 with the far side's answer, for QoS 0 when the
// kernel has taken the bytes.
//
//	code < 0x80, nil           confirmed
//	code >= 0x80, *ReasonError refused
//	0, any other error         the connection ended first; the fate of m is unknown
//
// When TryPublish itself returns an error (ErrWindow, ErrInvalid, or why the
// connection has ended), done is not called. done may be nil. m is not kept.
func (c *Conn) TryPublish(m *Message, done func(code byte, err error)) error {
	size, err := c.check(m)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.usable(); err != nil {
		return err
	}
	if !c.fits(m, size) {
		return ErrWindow
	}
	c.queue(m, done)
	return nil
}

// Publish is TryPublish that waits for room until ctx ends. Messages of one
// goroutine are sent in the order of its calls.
func (c *Conn) Publish(ctx context.Context, m *Message, done func(code byte, err error)) error {
	size, err := c.check(m)
	if err != nil {
		return err
	}
	for {
		c.mu.Lock()
		if err := c.usable(); err != nil {
			c.mu.Unlock()
			return err
		}
		if c.fits(m, size) {
			c.queue(m, done)
			c.mu.Unlock()
			return nil
		}
		if c.room == nil {
			c.room = make(chan struct{})
		}
		room := c.room
		c.mu.Unlock()
		select {
		case <-room:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// PublishWait publishes m and waits for its confirmation.
func (c *Conn) PublishWait(ctx context.Context, m *Message) error {
	answer := make(chan error, 1)
	if err := c.Publish(ctx, m, func(_ byte, err error) { answer <- err }); err != nil {
		return err
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Conn) fits(m *Message, size int) bool {
	if m.QoS > 0 && c.tail-c.head >= uint64(len(c.flights)) {
		return false
	}
	return len(c.out) == 0 || len(c.out)+size <= c.o.Buffer
}

// queue encodes m into the output. The caller holds mu and has checked fits.
func (c *Conn) queue(m *Message, done func(byte, error)) {
	if done == nil {
		done = func(byte, error) {}
	}
	var id uint16
	if m.QoS == 0 {
		c.outDone = append(c.outDone, done)
	} else {
		slot := c.tail % uint64(len(c.flights))
		c.flights[slot] = flight{done, true}
		c.tail++
		id = uint16(slot) + 1
		c.wait()
	}
	idle := len(c.out) == 0
	if c.maxAlias > 0 {
		aliased := c.alias(*m)
		m = &aliased
	}
	c.out = appendPublish(c.out, m, id, c.o.Version)
	if idle {
		c.work.Signal()
	}
}

// wait notes that one more thing waits for confirmation. The caller holds mu.
func (c *Conn) wait() {
	if c.waits == 0 {
		c.since = c.o.Clock.Elapsed()
	}
	c.waits++
}

// confirmed notes that one thing was confirmed. The caller holds mu.
func (c *Conn) confirmed(now time.Duration) {
	c.waits--
	c.since = now
}
