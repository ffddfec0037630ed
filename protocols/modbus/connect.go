package modbus

import (
	"context"
	"errors"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// idleCheck is how long a connection may lie unused before it is looked at
// whether the peer has ended it meanwhile. Many field devices close idle
// connections; the request that finds out would be lost.
const idleCheck = 10 * time.Millisecond

// maxBarren is how many connections in a row may end without a single answer
// before the next one has to wait.
const maxBarren = 3

// ready makes the link ready to send. The caller holds the turn.
func (l *link) ready(c *call) *failure {
	conn := l.current()
	if conn != nil && l.clk.Elapsed()-l.usedAt >= idleCheck {
		if err := conn.check(); err != nil {
			l.drop(lost(err))
			conn = nil
		}
	}
	if conn == nil {
		if f := l.connect(c); f != nil {
			return f
		}
		if conn = l.current(); conn == nil {
			return failed(point.BadShutdown, "%s: closed", l.name)
		}
	}
	id, took, err := l.wire.settle(c, conn)
	if took > 0 {
		l.charge(id, took)
	}
	if err == nil {
		return nil
	}
	return l.unsettled(c, err)
}

// unsettled is the failure of a request before which the line could not be
// brought back into step.
func (l *link) unsettled(c *call, err error) *failure {
	var f *failure
	switch {
	case errors.As(err, &f):
		return f
	case c.ctx.Err() != nil:
		return ended(c.ctx.Err(), "waiting for a late answer to pass")
	}
	l.drop(lost(err))
	return failed(point.BadConnectionClosed, "%s: %s", l.name, lost(err))
}

// charge puts the time that a late answer has cost to the account of its unit.
func (l *link) charge(id byte, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if u := l.units[id]; u != nil {
		l.leak(u, l.clk.Elapsed())
		u.waste += took
	}
}

// connect waits for the connection attempt under way, after it has started one
// if there is none and it is time.
func (l *link) connect(c *call) *failure {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		return failed(point.BadShutdown, "%s: closed", l.name)
	}
	if l.dial == nil {
		if wait := l.retryAt - l.clk.Elapsed(); wait > 0 {
			f := failed(point.BadNotConnected, "%s: %s; next try in %v", l.name, l.reason, wait.Round(10*time.Millisecond)+10*time.Millisecond)
			l.mu.Unlock()
			return f
		}
		l.dial = &dial{done: make(chan struct{})}
		l.done.Add(1)
		go l.attempt(l.dial)
	}
	d := l.dial
	l.mu.Unlock()
	select {
	case <-d.done:
	case <-c.ctx.Done():
		if errors.Is(c.ctx.Err(), context.Canceled) {
			return ended(c.ctx.Err(), "connecting")
		}
		return failed(point.BadNotConnected, "%s: still connecting: %w", l.name, c.ctx.Err())
	}
	return l.adopt(d)
}

// attempt connects once.
func (l *link) attempt(d *dial) {
	defer l.done.Done()
	defer close(d.done)
	start := l.clk.Elapsed()
	d.conn, d.err = l.open(l.ctx)
	if d.err == nil {
		d.err = clock.Sleep(l.ctx, l.clk, l.set.connectDelay)
	}
	if d.err != nil && d.conn != nil {
		_ = d.conn.Close()
		d.conn = nil
	}
	d.took = l.clk.Elapsed() - start
}

// adopt takes over the outcome of an attempt.
func (l *link) adopt(d *dial) *failure {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dial, l.spent = nil, d.took
	if d.err != nil {
		wasUp := l.backoff == 0
		l.postpone()
		l.reason = d.err.Error()
		if wasUp {
			l.since = l.clk.Now()
			l.log.Warn("link is down", "link", l.name, "reason", l.reason)
		}
		return failed(point.BadNotConnected, "%s: %w", l.name, d.err)
	}
	if l.closed {
		_ = d.conn.Close()
		return failed(point.BadShutdown, "%s: closed", l.name)
	}
	if l.backoff > 0 {
		l.log.Info("link is up", "link", l.name)
	}
	l.barren++
	l.conn, l.since, l.reason = d.conn, l.clk.Now(), ""
	l.wire.fresh()
	return nil
}

// postpone sets when the next attempt to connect may start.
func (l *link) postpone() {
	l.backoff = min(max(2*l.backoff, l.set.reconnectMin), l.set.reconnectMax)
	l.retryAt = l.clk.Elapsed() + jitter(l.backoff)
}

// drop closes the connection. It is made again at the next request.
func (l *link) drop(reason string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil {
		return
	}
	_ = l.conn.Close()
	l.conn, l.since, l.reason = nil, l.clk.Now(), reason
	l.log.Debug("connection closed", "link", l.name, "reason", reason)
	if l.barren >= maxBarren {
		l.postpone()
	}
}

// closeUnused closes the connection if nobody waits for it.
func (l *link) closeUnused(c *call) {
	if l.turn.waiting() || l.turn.acquire(c.ctx, c.ticket, forRead) != nil {
		return
	}
	if !l.turn.waiting() {
		l.drop("closed after reading")
	}
	l.turn.release()
}

// watchIdle closes the connection when it has not been used for a while.
func (l *link) watchIdle() {
	defer l.done.Done()
	t := newTicket()
	for wait := l.set.idleClose; ; {
		if clock.Sleep(l.ctx, l.clk, wait) != nil || l.turn.acquire(l.ctx, t, forRead) != nil {
			return
		}
		idle := l.clk.Elapsed() - l.usedAt
		if wait = l.set.idleClose - idle; wait <= 0 {
			l.drop("idle")
			wait = l.set.idleClose
		}
		l.turn.release()
	}
}

// start is called once, before the link is used.
func (l *link) start() {
	l.ctx, l.stop = context.WithCancel(context.Background())
	l.since = l.clk.Now()
	if l.set.idleClose > 0 {
		l.done.Add(1)
		go l.watchIdle()
	}
}

// close ends the link and waits for its goroutines.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	d := l.dial
	l.mu.Unlock()
	l.stop()
	l.done.Wait()
	if d != nil && d.conn != nil {
		_ = d.conn.Close()
	}
	l.drop("closed")
}
