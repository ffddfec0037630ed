// Package fault breaks links: a TCP proxy that cuts, goes silent, delays and
// narrows as it is told.
//
// What it can do to a connection is what a plant's network does: end it in
// order or by reset, lose one half of it, swallow everything while both ends
// believe that it is there, stop taking bytes, or carry them late and slowly.
package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A Mode says what a link does with connections and bytes.
type Mode uint8

// The modes.
const (
	// Pass carries everything.
	Pass Mode = iota
	// BlackHole takes bytes from both ends and drops them. Nobody is told; TCP
	// itself looks healthy. New connections are accepted and get no answer.
	BlackHole
	// Stall stops reading, so that both ends' windows fill. New connections are
	// accepted and get no answer.
	Stall
	// HalfOpen ends every connection towards the target, and leaves the client
	// believing in it: its bytes are dropped. New connections as in BlackHole.
	HalfOpen
	// Refuse resets new connections at once. Those that exist go on.
	Refuse
)

// String returns the name of the mode.
func (m Mode) String() string {
	names := [...]string{"pass", "black-hole", "stall", "half-open", "refuse"}
	if int(m) < len(names) {
		return names[m]
	}
	return fmt.Sprintf("mode %d", m)
}

// A Shape is how bytes are carried in mode Pass. The zero value is at once.
type Shape struct {
	Delay     time.Duration // of each byte, one way
	Jitter    time.Duration // added to Delay: evenly spread from 0 to this
	Bandwidth int           // bytes per second for each connection and direction, 0 = unlimited
}

// Options say what a Link stands in front of.
type Options struct {
	Target string // host:port
	Listen string // "" means 127.0.0.1:0
	Seed   uint64 // of the jitter
}

// A Link is one proxy. Its methods may be called from many goroutines.
type Link struct {
	o  Options
	ln net.Listener

	mu      sync.Mutex
	mode    Mode
	shape   Shape
	changed chan struct{} // closed when mode changes
	pairs   map[*pair]struct{}
	closed  bool
	rng     *rand.Rand
	count   Count
}

// Count is what a link has done.
type Count struct {
	Accepted  int   // connections
	Open      int   // connections that the client believes in
	Carried   int64 // bytes, both directions
	Swallowed int64 // bytes, both directions
}

// Open listens. Nothing is carried before Run.
func Open(o Options) (*Link, error) {
	if o.Listen == "" {
		o.Listen = "127.0.0.1:0"
	}
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return nil, fmt.Errorf("fault link: %w", err)
	}
	return &Link{
		o: o, ln: ln, changed: make(chan struct{}), pairs: map[*pair]struct{}{},
		rng: rand.New(rand.NewPCG(o.Seed, 1)),
	}, nil
}

// Addr returns the address on which the link listens, host:port.
func (l *Link) Addr() string { return l.ln.Addr().String() }

// Run carries connections until ctx ends, then closes all of them and returns nil.
func (l *Link) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { l.ln.Close() })
	defer stop()
	defer func() {
		l.mu.Lock()
		l.closed = true
		l.wake()
		l.mu.Unlock()
		l.end(false)
	}()
	for {
		c, err := l.ln.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("fault link: %w", err)
		}
		l.accept(ctx, &wg, c)
	}
}

func (l *Link) accept(ctx context.Context, wg *sync.WaitGroup, c net.Conn) {
	l.mu.Lock()
	mode := l.mode
	l.count.Accepted++
	p := &pair{link: l, client: c}
	if mode != Refuse {
		l.pairs[p] = struct{}{}
		p.lost = mode != Pass
	}
	l.mu.Unlock()
	if mode == Refuse {
		reset(c)
		return
	}
	wg.Go(func() { p.run(ctx, mode) })
}

// Set changes the mode. Connections that have lost bytes cannot go on: they are
// reset when the mode becomes Pass again.
func (l *Link) Set(m Mode) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mode = m
	l.wake()
	for p := range l.pairs {
		switch {
		case m == HalfOpen:
			p.lost = true
			if p.target != nil {
				p.target.Close()
			}
		case m == Pass && p.lost:
			p.close(true)
		}
	}
}

// wake tells the pairs of a change. The caller holds mu.
func (l *Link) wake() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// SetShape changes how bytes are carried from now on.
func (l *Link) SetShape(s Shape) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.shape = s
}

// Cut ends all connections in order (FIN) towards both ends.
func (l *Link) Cut() { l.end(false) }

// Reset ends all connections with RST towards both ends.
func (l *Link) Reset() { l.end(true) }

func (l *Link) end(hard bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for p := range l.pairs {
		p.close(hard)
	}
}

// Count returns what has been done so far.
func (l *Link) Count() Count {
	l.mu.Lock()
	defer l.mu.Unlock()
	c := l.count
	c.Open = len(l.pairs)
	return c
}

// reset closes c so that its other end sees RST.
func reset(c net.Conn) {
	if t, ok := c.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}
