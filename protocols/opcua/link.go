package opcua

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock"
	"holdfast/protocols"
	"holdfast/protocols/opcua/wire"
)

var errClosed = errors.New("session closed")

// A link keeps one session with one server: it connects, notices that the
// connection is dead, and climbs the ladder of recovery:
//
//  1. a new channel, and the old session activated on it: nothing is lost, what
//     was sent and not received is asked for again by Republish;
//  2. a new session, to which the subscriptions are transferred: likewise;
//  3. a new session with new subscriptions: what the server does not have in its
//     history is lost, and every tag says so.
//
// It begins with the first use and ends with close.
type link struct {
	s    *settings
	clk  clock.Clock
	log  *slog.Logger
	dial dialer
	user *user

	ctx     context.Context
	cancel  context.CancelFunc
	running sync.WaitGroup
	once    sync.Once

	requests, errors atomic.Uint64
	alarms           alarmBook

	mu      sync.Mutex
	conn    *conn // nil while there is none
	reason  error // why there is none; nil before the first attempt has ended
	since   time.Time
	changed chan struct{} // closed when conn or reason changes
	ticket  *ticket       // the session that may still be alive
	subs    []*subscription
	state   string // what the server says of itself, "" = running
}

func newLink(s *settings, clk clock.Clock, log *slog.Logger, d dialer, u *user) *link {
	ctx, cancel := context.WithCancel(context.Background())
	return &link{s: s, clk: clk, log: log, dial: d, user: u, ctx: ctx, cancel: cancel, changed: make(chan struct{}), since: clk.Now()}
}

// start begins to connect, once.
func (l *link) start() {
	l.once.Do(func() {
		if l.ctx.Err() == nil {
			l.running.Go(l.run)
		}
	})
}

// close ends everything and waits for it.
func (l *link) close() {
	l.cancel()
	l.once.Do(func() {}) // from now on start does nothing
	l.running.Wait()
}

// run connects again and again until the link is closed.
func (l *link) run() {
	pause := l.s.reconnectMin
	var last string
	for l.ctx.Err() == nil {
		c, err := l.connect()
		if err == nil {
			if last != "" {
				l.log.Info("server connected", "session", keptText(c.kept))
			}
			last, pause = "", l.s.reconnectMin
			err = l.serve(c)
		}
		if l.ctx.Err() != nil {
			break
		}
		l.down(err)
		if text := err.Error(); text != last {
			l.log.Warn("server not connected", "reason", text)
			last = text
		}
		most := l.s.reconnectMax
		if _, refused := errors.AsType[*refusedError](err); refused {
			most = l.s.refusedMax
		}
		pause = min(pause, most)
		_ = clock.Sleep(l.ctx, l.clk, pause/2+rand.N(pause/2+1))
		pause = min(2*pause, most)
	}
	l.down(errClosed)
}

func keptText(kept bool) string {
	if kept {
		return "kept"
	}
	return "new"
}

// connect opens a channel and gets a session on it, the old one if the server
// still has it. The channel runs until the conn is closed.
func (l *link) connect() (*conn, error) {
	carrier, t, err := l.dial.dial(l.ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{carrier: carrier, link: l}
	c.forgetNodes()
	running := context.WithoutCancel(l.ctx) // until Close, so that the session can be ended in order
	l.running.Go(func() { _ = carrier.Run(running) })
	if err := l.session(c, t); err != nil {
		carrier.Close()
		return nil, err
	}
	return c, nil
}

// session is the first two steps of the ladder.
func (l *link) session(c *conn, t target) error {
	l.mu.Lock()
	old := l.ticket
	l.mu.Unlock()
	if old != nil {
		old.target = t
		err := old.activate(l.ctx, c.carrier, l.user)
		var status ua.StatusCode
		switch {
		case err == nil:
			c.ticket, c.kept = old, true
			return c.learn(l.ctx)
		case !errors.As(err, &status):
			return err // of the link: the session may be alive
		}
		l.log.Debug("the server has dropped the session", "reason", err)
		l.forget(old)
	}
	fresh, err := createSession(l.ctx, c.carrier, t, l.s)
	if err != nil {
		return l.refusal(err)
	}
	if err := fresh.activate(l.ctx, c.carrier, l.user); err != nil {
		fresh.close(l.ctx, c.carrier) // else it would take one of the server's places for minutes
		return err
	}
	c.ticket = fresh
	l.mu.Lock()
	l.ticket = fresh
	l.mu.Unlock()
	return c.learn(l.ctx)
}

func (l *link) refusal(err error) error {
	var status ua.StatusCode
	if errors.As(err, &status) && (security(status) || status == ua.StatusBadTooManySessions) {
		return &refusedError{err}
	}
	return err
}

// forget drops a session that the server does not have any more.
func (l *link) forget(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ticket == t {
		l.ticket = nil
	}
}

// serve brings the subscriptions back, lets everybody use the connection, and
// watches it until it ends. It returns why.
func (l *link) serve(c *conn) error {
	defer c.Close()
	c.publisher = newPublisher(l, c)
	alive := map[uint32]bool{}
	if !c.kept {
		alive = l.transfer(c)
	}
	if err := l.restore(c, alive); err != nil {
		return err
	}
	l.up(c)
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(l.ctx)
	defer cancel()
	work.Go(func() { c.publisher.run(ctx) })
	work.Go(func() { l.watch(ctx, c) })
	// A subscription that began while the others were brought back.
	if err := l.restore(c, nil); err != nil {
		return err
	}
	select {
	case <-c.Done():
		return c.Err()
	case <-l.ctx.Done():
		l.finish(c)
		return errClosed
	}
}

// finish ends the session on the server when the link is closed in order.
func (l *link) finish(c *conn) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	c.ticket.close(ctx, c.carrier)
}

// restore brings the subscriptions to the connection, those alive as they are and
// the others, which is the third step of the ladder, anew.
func (l *link) restore(c *conn, alive map[uint32]bool) error {
	for _, s := range l.list() {
		if err := s.restore(l.ctx, c, c.kept || alive[s.number()]); err != nil {
			return err
		}
	}
	return nil
}

// transfer asks the server to give the subscriptions of a lost session to the new
// one (OPC 10000-4, 5.14.7), and returns those that it did.
func (l *link) transfer(c *conn) map[uint32]bool {
	var ids []uint32
	for _, s := range l.list() {
		if n := s.number(); n != 0 {
			ids = append(ids, n)
		}
	}
	alive := map[uint32]bool{}
	if len(ids) == 0 {
		return alive
	}
	var res wire.Transferred
	err := c.call(l.ctx, &ua.TransferSubscriptionsRequest{SubscriptionIDs: ids, SendInitialValues: true}, &res)
	if err != nil || len(res.Results) != len(ids) {
		l.log.Debug("the server transfers no subscriptions", "reason", err)
		return alive
	}
	for i, r := range res.Results {
		alive[ids[i]] = r.Status>>30 == 0
	}
	return alive
}

func (l *link) up(c *conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conn, l.reason, l.since = c, nil, l.clk.Now()
	close(l.changed)
	l.changed = make(chan struct{})
}

func (l *link) down(err error) {
	if err == nil {
		err = errors.New("the connection ended")
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil || l.reason == nil {
		l.since = l.clk.Now()
	}
	l.conn, l.reason, l.state = nil, err, ""
	close(l.changed)
	l.changed = make(chan struct{})
}

// bind ends a context when the link is closed.
func (l *link) bind(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(l.ctx, func() { cancel(errClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

// get returns the connection, or why there is none. It waits only while the first
// attempt is under way.
func (l *link) get(ctx context.Context) (*conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.start()
	for {
		l.mu.Lock()
		c, reason, changed := l.conn, l.reason, l.changed
		l.mu.Unlock()
		switch {
		case l.ctx.Err() != nil:
			return nil, errClosed
		case c != nil:
			return c, nil
		case reason != nil:
			return nil, fmt.Errorf("not connected: %w", reason)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.ctx.Done():
		}
	}
}

// watch reads the server's state every now and then: it keeps a session alive
// that nobody reads or subscribes with, notices a dead connection, and sees
// shutdowns announced and namespaces changed.
func (l *link) watch(ctx context.Context, c *conn) {
	nodes := []*ua.ReadValueID{
		attribute(wire.Num(0, id.Server_ServerStatus_State), ua.AttributeIDValue),
		attribute(wire.Num(0, id.Server_ServerStatus_SecondsTillShutdown), ua.AttributeIDValue),
		attribute(wire.Num(0, id.Server_NamespaceArray), ua.AttributeIDValue),
	}
	for {
		if clock.Sleep(ctx, l.clk, max(l.s.keepAlive, minHeartbeat)) != nil {
			return
		}
		values, err := c.readNodes(ctx, nodes, ua.TimestampsToReturnNeither)
		if ctx.Err() != nil {
			return
		}
		var status ua.StatusCode
		if err != nil && !errors.As(err, &status) {
			l.log.Debug("the server does not answer", "reason", err)
			c.Close()
			return
		}
		if err != nil {
			continue
		}
		l.observe(serverState(values))
		if ns, ok := namespaceArray(&values[2]); ok && c.renamed(ns) {
			l.log.Info("the server's namespaces changed", "namespaces", len(ns))
			l.recheck()
		}
	}
}

// serverState puts the server's state into words, "" when it runs.
func serverState(values []wire.DataValue) string {
	names := []string{"", "failed", "without configuration", "suspended", "shutting down", "in test", "without communication", "in an unknown state"}
	state := values[0].Value.Num
	if values[0].Status>>30 != 0 || state >= uint64(len(names)) {
		return ""
	}
	text := names[state]
	if left := values[1].Value.Num; values[1].Status>>30 == 0 && left > 0 && left < 1<<31 {
		text = fmt.Sprintf("shutting down in %ds", left)
	}
	return text
}

func (l *link) observe(state string) {
	l.mu.Lock()
	before := l.state
	l.state = state
	l.mu.Unlock()
	switch {
	case state == before:
	case state != "":
		l.log.Warn("server state", "state", state)
	default:
		l.log.Info("server state", "state", "running")
	}
}

// recheck tells the subscriptions that nodes may have become others.
func (l *link) recheck() {
	for _, s := range l.list() {
		s.recheck.Store(true)
	}
}

// status is what people see.
func (l *link) status() protocols.Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	st := protocols.Status{
		Link: l.s.endpoint, Connected: l.conn != nil, Since: l.since,
		Requests: l.requests.Load(), Errors: l.errors.Load(),
	}
	switch {
	case l.ctx.Err() != nil:
		st.Connected, st.Reason = false, errClosed.Error()
	case l.conn == nil && l.reason != nil:
		st.Reason = l.reason.Error()
	case l.conn == nil:
		st.Reason = "not connected yet"
	}
	return st
}
