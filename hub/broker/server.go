package broker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/drivers/clock"
)

// A Server serves MQTT clients on any number of listeners.
type Server struct {
	backend  Backend
	o        Options
	counters Counters

	now     atomic.Int64 // nanoseconds of elapsed time at the last tick, never 0
	buffers buffers
	batches sync.Pool
	rounds  sync.Pool
	settled idLists

	mu        sync.Mutex
	changed   sync.Cond // of mu: a connection has left
	conns     map[*conn]struct{}
	listeners map[net.Listener]struct{}
	arrivals  bucket
	stopping  bool
}

// ErrStopped is returned by Serve after Run has ended.
var ErrStopped = errors.New("the server is stopped")

// New returns a server that asks b. [Server.Run] must run while it serves.
func New(b Backend, o Options) *Server {
	s := &Server{
		backend:   b,
		o:         o.withDefaults(),
		conns:     make(map[*conn]struct{}),
		listeners: make(map[net.Listener]struct{}),
	}
	s.changed.L = &s.mu
	s.readClock()
	s.arrivals = newBucket(s.o.ConnectRate, float64(s.o.ConnectBurst), s.o.Clock.Elapsed())
	return s
}

// Counters returns the server's figures, which may be read at any time.
func (s *Server) Counters() *Counters { return &s.counters }

func (s *Server) readClock() { s.now.Store(int64(s.o.Clock.Elapsed()) + 1) }

// Run keeps the time limits of all connections until ctx ends. Then it closes
// the listeners, tells every client ServerShuttingDown, and returns when every
// session has been detached: after DrainTimeout at the latest, with an error if
// some were not.
func (s *Server) Run(ctx context.Context) error {
	t := s.o.Clock.NewTimer(tick)
	defer t.Stop()
	for ctx.Err() == nil {
		select {
		case <-t.C():
			t.Reset(tick)
			s.sweep()
		case <-ctx.Done():
		}
	}
	empty := s.stop()
	limit := s.o.Clock.NewTimer(s.o.DrainTimeout + 2*closeGrace + 4*tick)
	defer limit.Stop()
	for {
		select {
		case <-empty:
			return nil
		case <-t.C():
			t.Reset(tick)
			s.sweep()
		case <-limit.C():
			s.mu.Lock()
			defer s.mu.Unlock()
			return fmt.Errorf("%d connections did not end", len(s.conns))
		}
	}
}

// stop ends all connections. The channel that it returns is closed when the last
// has left.
func (s *Server) stop() <-chan struct{} {
	s.mu.Lock()
	s.stopping = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.Close(ServerShuttingDown, "the server is shutting down")
	}
	s.mu.Unlock()
	empty := make(chan struct{})
	go func() {
		defer close(empty)
		s.mu.Lock()
		defer s.mu.Unlock()
		for len(s.conns) > 0 {
			s.changed.Wait()
		}
	}()
	return empty
}

// sweep looks at the time limits of all connections.
func (s *Server) sweep() {
	s.readClock()
	now := s.now.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.sweep(now)
	}
}

// Serve takes connections from l, and closes it, until ctx ends or the server
// stops; the connections go on after the former. The error is nil when ctx ended
// and ErrStopped when the server did.
func (s *Server) Serve(ctx context.Context, l net.Listener, o ListenerOptions) error {
	return s.serve(ctx, l, func(nc net.Conn) {
		c := s.newConn(nc, nc, &o)
		if o.TLS != nil {
			c.nc, c.sock = tls.Server(nc, o.TLS), nil
		}
		if s.enter(c) {
			go c.run()
		}
	})
}

// serve accepts connections.
func (s *Server) serve(ctx context.Context, l net.Listener, take func(net.Conn)) error {
	defer l.Close()
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return ErrStopped
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.listeners, l)
		s.mu.Unlock()
	}()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	pause := time.Duration(0)
	for {
		nc, err := l.Accept()
		if err == nil {
			pause = 0
			take(nc)
			continue
		}
		if ctx.Err() != nil {
			return nil
		}
		if s.isStopping() {
			return ErrStopped
		}
		if errors.Is(err, net.ErrClosed) {
			return fmt.Errorf("accepting on %q: %w", l.Addr(), err)
		}
		// Out of file descriptors, most likely: others must end first.
		if pause == 0 {
			s.o.Log.Warn("connection not accepted", "listener", l.Addr().String(), "err", err)
		}
		pause = min(max(2*pause, 5*time.Millisecond), time.Second)
		clock.Sleep(ctx, s.o.Clock, pause)
	}
}

func (s *Server) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

func (s *Server) newConn(nc, raw net.Conn, o *ListenerOptions) *conn {
	c := &conn{s: s, lo: o, nc: nc, raw: raw, sock: plainSocket(nc), stop: make(chan struct{})}
	c.changed.L = &c.mu
	c.setDeadline(phaseConnect, s.o.ConnectTimeout)
	return c
}

// enter registers a connection. It returns false, and closes it, when there are
// too many or the server stops.
func (s *Server) enter(c *conn) bool {
	s.counters.Accepted.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	c.late = !s.arrivals.take(s.o.Clock.Elapsed())
	full := len(s.conns) >= s.o.MaxClients+connectSlack
	// One that is late is told so, unless that takes a TLS handshake.
	if s.stopping || full || c.late && c.sock == nil {
		if full {
			s.counters.Refused[QuotaExceeded].Add(1)
		} else if c.late {
			s.counters.Refused[ConnectionRateExceeded].Add(1)
		}
		c.raw.Close()
		return false
	}
	s.conns[c] = struct{}{}
	s.counters.Connections.Add(1)
	return true
}

// leave is the inverse of enter.
func (s *Server) leave(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.counters.Connections.Add(-1)
	s.changed.Broadcast()
}

// reserve counts a client in, if there is room.
func (s *Server) reserve() bool {
	if s.counters.Clients.Add(1) > int64(s.o.MaxClients) {
		s.counters.Clients.Add(-1)
		return false
	}
	return true
}

// round returns working memory for a writer.
func (s *Server) round() *round {
	r, _ := s.rounds.Get().(*round)
	if r == nil {
		r = &round{}
	}
	return r
}

// idLists keeps lists of settled deliveries for reuse.
type idLists struct{ pool sync.Pool }

func (p *idLists) get() []uint64 {
	if l, ok := p.pool.Get().(*[]uint64); ok {
		return (*l)[:0]
	}
	return make([]uint64, 0, fetchCount)
}

func (p *idLists) put(l []uint64) { p.pool.Put(&l) }
