package broker

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A conn is one client's connection.
//
// One goroutine, the reader, lives as long as the connection: it reads, parses,
// hands in batches, and in the end tears down. Whatever is to be written is
// written by the writer: a role that whoever has something to write takes if
// nobody has it, and that ends when nothing is left. A reader that has just
// handed in a batch takes it itself, so that what is answered at once costs no
// goroutine; else it is a goroutine of its own. So an idle connection is one
// goroutine without buffers.
type conn struct {
	s    *Server
	lo   *ListenerOptions
	nc   net.Conn        // carries the packets
	raw  net.Conn        // the socket below, closed to give up
	sock syscall.RawConn // of nc, if it is a plain socket: reading and writing without waiting
	late bool            // came in above the connection rate: to be refused

	// What the client said; constant after open.
	version   byte
	id        string
	maxPacket int // what the client takes, 0 = anything
	expiry    time.Duration
	principal Principal
	session   Session

	// The reader's own.
	in       *buffer // what was read; nil when nothing is left of it
	off, end int     // the unread part of in
	need     int     // length of the packet that begins at off, 0 = not known
	class    int     // size of the next buffer
	small    int     // reads in a row that a smaller buffer could have held
	recv     recvState
	batch    *batch // being filled
	aliases  map[uint16][]byte
	limit    rateLimits
	tally    tally
	mine     bool // the reader has the writer's role

	// Looked at by the sweep, which enforces time limits. Times are readings
	// of Server.now; 0 = not now.
	deadline   atomic.Int64 // when expire is called
	idleSince  atomic.Int64 // the reader waits for the client
	keepAlive  atomic.Int64 // how long it may: one and a half times the keep-alive, in nanoseconds
	writeSince atomic.Int64 // a write waits for the client
	noteSince  atomic.Int64 // a Note waits for the backend
	unacked    atomic.Int32 // QoS 1 and 2 publications of the client that are not acknowledged

	mu      sync.Mutex
	changed sync.Cond // of mu: something that the reader waits for
	phase   phase
	cancel  context.CancelFunc // of the backend call under way
	stop    chan struct{}      // closed when closing is set
	closing bool               // the connection is to end; nothing new is begun
	ending  ending             // why
	drained bool               // the wait for the backend is over
	gone    bool               // Detach was called: the flight is no longer ours

	full        bool // the reader waits for room
	writing     bool // somebody has the writer's role
	out         *buffer
	wake        bool // Fetch may have something
	attached    bool // CONNACK is in out: Fetch may be called
	quota       int  // QoS 1 and 2 deliveries that may still be sent
	flight      *Flight
	resend      []uint16       // of the flight, still to be sent again
	settled     []uint64       // deliveries to be told to the backend
	changes     []FlightChange // to be noted
	notes       int            // calls of Note that are not done
	held        *buffer        // QoS 2 deliveries that wait for their Note
	heldReady   bool
	slow        bool // QoS 0 is dropped until the client has caught up
	first, last *batch
	pending     int // batches that are not answered
	pendingSize int // bytes of their buffers
}

// phase says what deadline means.
type phase uint8

const (
	phaseConnect phase = iota // CONNECT is awaited
	phaseBackend              // the backend is asked something
	phaseOpen
	phaseClosing // the last packet is being written
	phaseDrain   // the backend's answers are awaited
	phaseLinger  // the client's end is awaited
)

// ending is why and how a connection ends.
type ending struct {
	Detachment
	code byte // told to an MQTT 5 client
	tell bool
}

// run is the reader.
func (c *conn) run() {
	defer c.s.leave(c)
	if c.open() {
		c.read()
	}
	c.finish()
}

// log is for what deserves a line.
func (c *conn) log() *slog.Logger {
	l := c.s.o.Log.With("listener", c.lo.Name, "remote", c.nc.RemoteAddr().String())
	if c.id != "" {
		l = l.With("client", c.id)
	}
	return l
}

// setDeadline makes expire be called after d. The caller holds mu or has not
// yet shown c to anybody.
func (c *conn) setDeadline(p phase, d time.Duration) {
	c.phase = p
	if d == 0 {
		c.deadline.Store(0)
		return
	}
	c.deadline.Store(c.s.now.Load() + int64(d+tick))
}

// begin starts a call of the backend that may take up to d. done must be called
// after it.
func (c *conn) begin(d time.Duration) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(context.Background())
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.phase
	if c.closing {
		cancel()
	} else {
		c.cancel = cancel
		c.setDeadline(phaseBackend, d)
	}
	return ctx, func() {
		c.mu.Lock()
		c.cancel = nil
		if !c.closing {
			c.setDeadline(before, 0)
		}
		c.mu.Unlock()
		cancel()
	}
}

// expire is called when the deadline has passed.
func (c *conn) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline.Store(0)
	switch c.phase {
	case phaseConnect:
		c.s.counters.TimedOut.Add(1)
		c.raw.Close()
	case phaseBackend:
		if c.cancel != nil {
			c.cancel()
		}
	case phaseClosing, phaseLinger:
		c.raw.Close()
	case phaseDrain:
		c.drained = true
		c.changed.Broadcast()
	}
}

// sweep enforces the time limits of a connection.
func (c *conn) sweep(now int64) {
	if d := c.deadline.Load(); d != 0 && now >= d {
		c.expire()
	}
	if t, limit := c.idleSince.Load(), c.keepAlive.Load(); t != 0 && limit != 0 && now-t > limit+int64(tick) {
		c.shut(ending{code: KeepAliveTimeout, tell: true, Detachment: Detachment{Reason: "nothing came from the client for one and a half keep-alives"}})
	}
	if t := c.writeSince.Load(); t != 0 && now-t > int64(c.s.o.WriteTimeout+tick) {
		if c.shut(ending{Detachment: Detachment{Reason: "the client takes nothing"}}) {
			c.s.counters.Stuck.Add(1)
		}
		c.raw.Close()
	}
	if t := c.noteSince.Load(); t != 0 && now-t > int64(c.s.o.BackendTimeout+tick) {
		c.shut(ending{code: ServerUnavailable, tell: true, Detachment: Detachment{Reason: "the backend did not note a delivery in time"}})
	}
}

// Wake implements [Outlet].
func (c *conn) Wake() {
	c.mu.Lock()
	c.wake = true
	c.kick()
	c.mu.Unlock()
}

// Close implements [Outlet].
func (c *conn) Close(code byte, reason string) {
	c.shut(ending{code: code, tell: true, Detachment: Detachment{TakenOver: code == TakenOver, Reason: reason}})
}

// fail ends the connection because of the client's mistake.
func (c *conn) fail(f *fault) {
	c.log().Info("connection ended", "reason", f.text, "code", f.code)
	c.shut(ending{code: f.code, tell: true, Detachment: Detachment{Reason: f.text}})
}

// shut makes the connection end. It may be called by anybody, at any time; the
// first call decides, and returns true.
func (c *conn) shut(e ending) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.shutLocked(e)
}

func (c *conn) shutLocked(e ending) bool {
	if c.closing {
		return false
	}
	c.closing = true
	c.ending = e
	close(c.stop)
	if c.cancel != nil {
		c.cancel()
	}
	c.setDeadline(phaseClosing, closeGrace)
	if e.tell {
		c.s.counters.Ended[e.code].Add(1)
		if c.attached && c.version == version5 {
			reason := e.Reason
			if c.maxPacket > 0 && len(reason)+16 > c.maxPacket {
				reason = "" // [MQTT-3.14.2-3]
			}
			c.reserveOut(len(reason) + 16)
			c.out.b = appendDisconnect(c.out.b, e.code, reason)
		}
	}
	c.changed.Broadcast()
	if c.kick(); !c.writing {
		c.interrupt()
	}
	return true
}

// interrupt makes the reader stop waiting for the client.
func (c *conn) interrupt() { c.raw.SetReadDeadline(time.Unix(1, 0)) }

// finish tears down: the last packet is written, the backend has answered, the
// session is let go, and the client gets a moment to read what it was told.
func (c *conn) finish() {
	c.shut(ending{Detachment: Detachment{Reason: "the connection was lost"}})
	c.mu.Lock()
	if !c.ending.tell {
		c.raw.Close()
	}
	for c.writing {
		c.changed.Wait()
	}
	told := c.ending.tell
	c.mu.Unlock()
	if told {
		c.sayNoMore()
	}
	c.mu.Lock()
	if c.session != nil {
		c.drain()
	}
	c.setDeadline(phaseLinger, closeGrace)
	c.mu.Unlock()
	if told {
		c.linger()
	}
	c.nc.Close()
	c.raw.Close()
	if c.in != nil {
		c.s.buffers.release(c.in)
	}
}

// drain waits for the backend and detaches. The caller holds mu.
func (c *conn) drain() {
	c.setDeadline(phaseDrain, c.s.o.DrainTimeout)
	for !c.drained && (c.pending > 0 || c.notes > 0) || c.writing {
		c.changed.Wait()
	}
	if c.pending > 0 || c.notes > 0 {
		c.s.counters.NotAnswered.Add(uint64(c.pending))
		c.log().Error("the backend did not answer in time", "batches", c.pending, "notes", c.notes)
		c.forgetPending()
	}
	c.gone = true
	c.flight.trim()
	for _, b := range []*buffer{c.out, c.held} {
		if b != nil {
			c.s.buffers.release(b)
		}
	}
	c.out, c.held = nil, nil
	d := c.ending.Detachment
	c.mu.Unlock()
	d.SessionExpiry = c.expiry
	c.session.Detach(d)
	c.s.counters.Clients.Add(-1)
	c.mu.Lock()
}
