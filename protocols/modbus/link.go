package modbus

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/serial"
	"holdfast/protocols/point"
)

// A link is a connection or a serial line with all units behind it. Requests run
// in the goroutine of whoever asks, one turn at a time; only connecting has a
// goroutine of its own, because it may take longer than a caller can wait.
type link struct {
	name string
	set  linkSettings
	line serial.Config
	clk  clock.Clock
	log  *slog.Logger
	open func(ctx context.Context) (stream, error)
	turn turnstile

	// Used by the holder of the turn only.
	wire    wire
	nextAt  time.Duration // no request before
	usedAt  time.Duration // last exchange
	backoff time.Duration
	retryAt time.Duration // no connect before
	barren  int           // connections in a row that brought no answer
	spent   time.Duration // the last connect took this long, its delay included

	mu       sync.Mutex
	conn     stream // nil when not connected
	holder   *call
	dial     *dial // under way or not yet looked at
	units    map[byte]*unit
	since    time.Time
	reason   string // why not connected
	sessions int
	closed   bool
	done     sync.WaitGroup
	stop     context.CancelFunc // ends dialling and the idle watch
	ctx      context.Context
}

// A dial is one attempt to connect.
type dial struct {
	done chan struct{} // closed when the attempt has ended
	conn stream
	err  error
	took time.Duration
}

// A call is one caller's use of links: a group's reads or a session's writes.
type call struct {
	ctx    context.Context
	link   *link
	ticket *ticket
	ended  bool // ctx has ended; guarded by link.mu
}

// begin starts a use that ends with ctx; the function returned ends it.
func (c *call) begin(ctx context.Context) (stop func() bool) {
	c.link.mu.Lock()
	c.ctx, c.ended = ctx, false
	c.link.mu.Unlock()
	return context.AfterFunc(ctx, func() {
		l := c.link
		l.mu.Lock()
		defer l.mu.Unlock()
		if c.ctx == ctx {
			c.ended = true
			if l.holder == c && l.conn != nil {
				_ = l.conn.SetDeadline(past) // ends the read under way
			}
		}
	})
}

// arm sets the deadline for the stream's next reads and writes, d from now. The
// wall time that this takes is only used as now plus d, at once, so steps of the
// wall clock do not matter.
func (c *call) arm(d time.Duration) error {
	l := c.link
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.ended {
		return c.ctx.Err()
	}
	if l.conn == nil {
		return errors.New("not connected")
	}
	return l.conn.SetDeadline(l.clk.Now().Add(d))
}

// acquire takes the turn and gets the link ready to send to the unit.
func (l *link) acquire(c *call, u *unit, p *patience, prio priority) *failure {
	if err := l.turn.acquire(c.ctx, c.ticket, prio); err != nil {
		return ended(err, l.name+" is busy")
	}
	l.mu.Lock()
	l.holder = c
	f := l.refuse(u, p)
	l.mu.Unlock()
	if f == nil {
		f = l.ready(c)
	}
	if f != nil {
		l.release(c)
	}
	return f
}

// release gives the turn to the next one.
func (l *link) release(c *call) {
	l.mu.Lock()
	l.holder = nil
	l.mu.Unlock()
	l.turn.release()
}

// run exchanges requests with a unit. The caller holds the turn.
func (l *link) run(c *call, u *unit, reqs []*request) {
	if err := clock.Sleep(c.ctx, l.clk, l.nextAt-l.clk.Elapsed()); err != nil {
		for _, r := range reqs {
			r.err = ended(err, "pausing between requests")
		}
		return
	}
	l.mu.Lock()
	conn := l.conn
	u.requests += uint64(len(reqs))
	budget := u.budget(&reqs[0].patience)
	l.mu.Unlock()
	now := l.clk.Elapsed()
	for _, r := range reqs {
		r.sentAt, r.wait = now, budget
	}
	if conn == nil { // lost between two exchanges of one turn
		for _, r := range reqs {
			r.err = failed(point.BadNotConnected, "%s: not connected", l.name)
		}
		return
	}
	usable := l.wire.exchange(c, conn, reqs)
	l.usedAt = l.clk.Elapsed()
	l.nextAt = l.usedAt + l.set.requestPause
	l.account(u, reqs)
	if !usable {
		for _, r := range reqs {
			if f, ok := r.err.(*failure); ok {
				l.drop(f.Error())
				return
			}
		}
		l.drop("link failed")
	}
}

// current returns the connection, nil when there is none.
func (l *link) current() stream {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// account notes what the outcome of requests says about their unit.
func (l *link) account(u *unit, reqs []*request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range reqs {
		f, isFailure := r.err.(*failure)
		code := exceptionOf(r.err)
		switch {
		case isFailure && f.closed:
			// Not a time-out, but it cost a connection, and whoever is next pays for
			// the new one.
			l.missed(u, &r.patience, f.quality, f.Error(), f.blame+l.spent, r.timeout)
		case isFailure && f.sent:
			l.missed(u, &r.patience, f.quality, f.Error(), f.blame, min(f.blame, r.timeout))
		case isFailure:
		case code == 10 || code == 11:
			l.barren, l.backoff = 0, 0
			q, text := explain(r.err, false)
			waited := l.usedAt - r.sentAt
			l.missed(u, &r.patience, q, u.text()+": "+text, waited, min(waited, r.timeout))
		default:
			l.barren, l.backoff = 0, 0
			l.heard(u, l.usedAt-r.sentAt)
			if r.err != nil {
				u.errors++
			}
		}
	}
}
