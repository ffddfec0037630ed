package fault

import (
	"context"
	"net"
	"sync"
	"time"
)

// A pair is one connection of a client and ours to the target for it. Its
// fields are guarded by the link's mu.
type pair struct {
	link   *Link
	client net.Conn
	target net.Conn // nil when the link was broken as it came in
	lost   bool     // bytes of it were dropped
}

// close ends both connections. The caller holds the link's mu.
func (p *pair) close(hard bool) {
	for _, c := range []net.Conn{p.client, p.target} {
		switch {
		case c == nil:
		case hard:
			reset(c)
		default:
			c.Close()
		}
	}
}

func (p *pair) run(ctx context.Context, mode Mode) {
	l := p.link
	defer func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		p.close(false)
		delete(l.pairs, p)
	}()
	if mode == Pass {
		target, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", l.o.Target)
		if err != nil {
			reset(p.client)
			return
		}
		l.mu.Lock()
		p.target = target
		l.mu.Unlock()
	}
	var wg sync.WaitGroup
	if p.target != nil {
		wg.Go(func() { p.carry(p.target, p.client) })
	}
	p.carry(p.client, p.target)
	wg.Wait()
}

// A chunk is some bytes and when they are to arrive; its end is told by no bytes.
type chunk struct {
	data []byte
	due  time.Time
}

// pipeline is how many chunks may be under way in one direction; more wait in
// the sender's socket.
const pipeline = 256

// carry moves bytes one way until either end is closed. dst may be nil.
func (p *pair) carry(src, dst net.Conn) {
	chunks := make(chan chunk, pipeline)
	var wg sync.WaitGroup
	wg.Go(func() { p.deliver(dst, chunks) })
	defer wg.Wait()
	defer close(chunks)

	var last time.Time
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			carry, shape, jitter := p.judge(n)
			if carry && dst != nil {
				due := time.Now().Add(shape.Delay + jitter)
				if due.Before(last) {
					due = last // bytes of one connection do not overtake
				}
				if shape.Bandwidth > 0 {
					due = due.Add(time.Duration(float64(n) / float64(shape.Bandwidth) * float64(time.Second)))
				}
				last = due
				chunks <- chunk{append([]byte(nil), buf[:n]...), due}
			}
		}
		if err != nil {
			p.ended(src)
			return
		}
	}
}

// judge decides about n bytes that came in; in mode Stall it waits.
func (p *pair) judge(n int) (carry bool, s Shape, jitter time.Duration) {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.mode == Stall && !l.closed {
		changed := l.changed
		l.mu.Unlock()
		<-changed
		l.mu.Lock()
	}
	if p.lost || l.mode == BlackHole || l.mode == HalfOpen {
		p.lost = true
		l.count.Swallowed += int64(n)
		return false, s, 0
	}
	l.count.Carried += int64(n)
	if l.shape.Jitter > 0 {
		jitter = time.Duration(l.rng.Int64N(int64(l.shape.Jitter)))
	}
	return true, l.shape, jitter
}

func (p *pair) deliver(dst net.Conn, chunks <-chan chunk) {
	for c := range chunks {
		time.Sleep(time.Until(c.due))
		if _, err := dst.Write(c.data); err != nil {
			for range chunks { // the reader must not wait for us
			}
			return
		}
	}
}

// ended passes the end of one side on to the other, unless the mode hides it.
func (p *pair) ended(src net.Conn) {
	l := p.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if src == p.target && (p.lost || l.mode == BlackHole || l.mode == HalfOpen || l.mode == Stall) {
		p.lost = true // the client is not told
		return
	}
	hidden := src == p.client && (l.mode == BlackHole || l.mode == Stall)
	p.client.Close()
	if p.target != nil && !hidden {
		p.target.Close()
	}
}
