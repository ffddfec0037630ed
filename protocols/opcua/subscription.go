package opcua

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock"
	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// A subscription is one call of Subscribe: some tags, and what must be known to
// go on after a break without losing or repeating a value.
type subscription struct {
	l     *link
	items []*item
	every time.Duration // publishing interval, as asked for
	sink  func(tag int, s point.Sample)

	id      atomic.Uint32 // the server's number; 0 = there is none
	heard   atomic.Int64  // elapsed time of the last message
	limit   atomic.Int64  // silence that is longer means that nothing is known
	recheck atomic.Bool   // nodes may have become others

	// mu orders what is done with the server. It is held while requests are under
	// way, by the publisher and by whoever creates or restores.
	mu     sync.Mutex
	conn   *conn  // on which it lives
	last   uint32 // sequence number of the last message that was handed on
	doubts bool   // values were lost, and what the tags are now has to be read

	// out orders what goes to the sink. It is never held while waiting.
	out    sync.Mutex
	silent bool
	ended  bool
}

// An item is one tag of a subscription. What is above the line belongs to
// subscription.mu, what is below to subscription.out.
type item struct {
	*spec
	at     int // its place among the tags; its client handle too
	node   wire.NodeID
	live   bool   // there is a monitored item
	number uint32 // the server's
	failed error  // why there is none
	gap    string // why values before the next one may be missing; "" = none are
	keeps  history
	width  float64       // of the dead-band in percent of EURange, in raw units; 0 = unknown
	local  float64       // dead-band here, in raw units, where the server has none; 0 = none
	read   time.Time     // source time of a value that was read out of turn
	readAt time.Duration // when that was

	last   point.Sample // the last one from the server
	have   bool
	mute   bool // marked as not heard of
	passed float64
}

// history says whether a server keeps the history of a node.
type history uint8

const (
	unasked history = iota
	kept
	notKept
)

// number returns the server's number of the subscription, 0 if it has none.
func (s *subscription) number() uint32 { return s.id.Load() }

func newSubscription(l *link, specs []*spec, every time.Duration, sink func(int, point.Sample)) *subscription {
	s := &subscription{l: l, every: every, sink: sink}
	for i, sp := range specs {
		s.items = append(s.items, &item{spec: sp, at: i})
	}
	s.heard.Store(int64(l.clk.Elapsed()))
	s.setLimit(every, s.keepAliveCount(every))
	return s
}

// keepAliveCount is how many publishing intervals make the keep-alive time.
func (s *subscription) keepAliveCount(every time.Duration) uint32 {
	return uint32(max(1, (s.l.s.keepAlive+every-1)/every))
}

// setLimit sets how long a silence may be: one and a half times the time in which
// the server promised to say something.
func (s *subscription) setLimit(every time.Duration, count uint32) {
	s.limit.Store(int64(every) * int64(count) * 3 / 2)
}

// run watches for silence until ctx or the link ends.
func (s *subscription) run(ctx context.Context) error {
	l := s.l
	l.start()
	l.add(s)
	defer l.remove(s)
	l.mu.Lock()
	c := l.conn
	l.mu.Unlock()
	if c != nil {
		if err := s.restore(ctx, c, false); err != nil && ctx.Err() == nil {
			c.Close() // the link finds out and comes back
		}
	}
	const retry = 10 * time.Second
	due := l.clk.Elapsed() + retry
	for {
		tick := min(max(time.Duration(s.limit.Load())/8, 20*time.Millisecond), time.Second)
		if clock.Sleep(ctx, l.clk, tick) != nil {
			s.end()
			return nil
		}
		if l.ctx.Err() != nil {
			return errClosed
		}
		now := l.clk.Elapsed()
		if now-time.Duration(s.heard.Load()) > time.Duration(s.limit.Load()) {
			s.hush()
		}
		if now >= due || s.recheck.Load() {
			due = now + retry
			s.mend(ctx)
		}
	}
}

// hush marks all tags: nothing was heard of them for too long. A connection that
// is there is dead.
func (s *subscription) hush() {
	l := s.l
	l.mu.Lock()
	c, reason := l.conn, l.reason
	l.mu.Unlock()
	text := "nothing heard from the server"
	if c == nil && reason != nil {
		text = "not connected: " + reason.Error()
	}
	s.out.Lock()
	if s.ended || s.silent {
		s.out.Unlock()
		return
	}
	s.silent = true
	for _, it := range s.items {
		if !it.mute {
			it.mute = true
			s.sink(it.at, silence(it, text))
		}
	}
	s.out.Unlock()
	if c != nil && s.number() != 0 {
		l.log.Debug("a subscription is silent", "for", time.Duration(s.limit.Load()))
		c.Close()
	}
}

// silence is the sample of a tag of which nothing is heard.
func silence(it *item, why string) point.Sample {
	if !it.have || it.last.Quality.Bad() || it.kind != aValue {
		return point.Sample{Quality: point.BadNoCommunication, Detail: why}
	}
	return point.Sample{Value: it.last.Value, Quality: point.UncertainNoCommunicationLastUsable, Source: it.last.Source, Detail: why}
}

// hear notes that the server has spoken of this subscription, and takes back
// what hush has said. Items that were made anew wait for their first value.
func (s *subscription) hear() {
	s.heard.Store(int64(s.l.clk.Elapsed()))
	s.out.Lock()
	defer s.out.Unlock()
	if !s.silent {
		return
	}
	s.silent = false
	for _, it := range s.items {
		if it.mute && it.have && it.gap == "" && it.live && it.kind == aValue && !s.ended {
			it.mute = false
			s.sink(it.at, it.last)
		} else if it.mute && it.live && it.kind != aValue && !s.ended {
			it.mute = false
			s.sink(it.at, listening)
		}
	}
}

// emit gives the sink a sample from the server.
func (s *subscription) emit(it *item, sample point.Sample) {
	s.out.Lock()
	defer s.out.Unlock()
	if s.ended {
		return
	}
	it.mute = false
	hold := it.local > 0 && it.have && sample.Quality == it.last.Quality && sample.Quality.Good() && it.near(sample.Value)
	it.last, it.have = sample, true
	if hold {
		return
	}
	if f, ok := sample.Value.Float(); ok {
		it.passed = f
	}
	s.sink(it.at, sample)
}

// near reports whether a value is within the dead-band around the last one that
// passed.
func (it *item) near(v point.Value) bool {
	f, ok := v.Float()
	d := f - it.passed
	return ok && d <= it.local && -d <= it.local
}

// tell gives the sink a sample of our own, which is not the server's word.
func (s *subscription) tell(it *item, sample point.Sample) {
	s.out.Lock()
	defer s.out.Unlock()
	if !s.ended {
		s.sink(it.at, sample)
	}
}

// end takes the subscription away from the server, without waiting long.
func (s *subscription) end() {
	s.out.Lock()
	s.ended = true
	s.out.Unlock()
	s.l.remove(s)
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.id.Swap(0)
	if s.conn == nil || n == 0 || s.conn.Err() != nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	bound, release := s.l.bind(ctx)
	defer release()
	_ = s.conn.call(bound, &ua.DeleteSubscriptionsRequest{SubscriptionIDs: []uint32{n}},
		&wire.Statuses{Type: id.DeleteSubscriptionsResponse_Encoding_DefaultBinary})
}

// restore brings the subscription to a new connection. alive says that the
// server should still have it. An error is of the connection.
func (s *subscription) restore(ctx context.Context, c *conn, alive bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c {
		return nil
	}
	if alive && s.number() != 0 {
		found, err := s.resume(ctx, c)
		if err != nil {
			return err
		}
		if found {
			s.conn = c
			c.publisher.kick()
			return nil
		}
	}
	return s.create(ctx, c, "the server has lost the subscription")
}

// resume asks for what was sent while nobody listened, until the server has no
// more. found is false when it does not have the subscription.
func (s *subscription) resume(ctx context.Context, c *conn) (found bool, err error) {
	for range 100_000 { // a server that never ends has another fault
		outcome, err := s.republish(ctx, c, following(s.last))
		switch {
		case err != nil:
			return false, err
		case outcome == noSubscription:
			return false, nil
		case outcome == notAvailable:
			return true, nil
		}
	}
	return true, nil
}

// The outcomes of a Republish.
type outcome uint8

const (
	republished outcome = iota
	notAvailable
	noSubscription
)

// republish asks for one message again and handles it.
func (s *subscription) republish(ctx context.Context, c *conn, seq uint32) (outcome, error) {
	var res wire.Republish
	err := c.call(ctx, &ua.RepublishRequest{SubscriptionID: s.number(), RetransmitSequenceNumber: seq}, &res)
	var status ua.StatusCode
	switch {
	case err == nil && res.Notification.Sequence == seq:
		s.hear()
		s.process(ctx, c, &res.Notification)
		s.last = seq
		return republished, nil
	case err == nil:
		return notAvailable, nil
	case !errors.As(err, &status) || sessionGone(status):
		return 0, err
	case status == ua.StatusBadSubscriptionIDInvalid:
		return noSubscription, nil
	}
	return notAvailable, nil
}

// following returns the sequence number after n: 0 is never used (OPC 10000-4,
// 7.26).
func following(n uint32) uint32 {
	if n++; n == 0 {
		return 1
	}
	return n
}

// take handles one message in its turn and returns the sequence numbers that may be
// acknowledged. The publisher calls it.
func (s *subscription) take(ctx context.Context, c *conn, n *wire.Notification) (acks []uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != c {
		return nil // of another time; it will be asked for again
	}
	s.hear()
	next := following(s.last)
	ahead := n.Sequence - next
	switch {
	case ahead >= 1<<31: // older than what was handed on: a repetition
		if !n.Empty {
			acks = append(acks, n.Sequence)
		}
		return acks
	case ahead > 0:
		if acks = s.missing(ctx, c, next, n.Sequence); s.conn != c {
			return nil
		}
	}
	if n.Empty {
		s.verify(ctx, c)
		return acks
	}
	s.process(ctx, c, n)
	s.last = n.Sequence
	s.verify(ctx, c)
	if n.Status>>30 != 0 {
		s.lost(ctx, c, "the server ended the subscription: "+wire.StatusText(n.Status))
		return nil
	}
	return append(acks, n.Sequence)
}

// missing asks for the messages from one sequence number to before another, which
// did not come.
func (s *subscription) missing(ctx context.Context, c *conn, from, to uint32) (acks []uint32) {
	const most = 1000 // more than a server keeps
	lost := ""
	if to-from > most {
		lost, from = fmt.Sprintf("%d messages of the server did not come", to-from), to
	}
	for seq := from; seq != to; seq = following(seq) {
		outcome, err := s.republish(ctx, c, seq)
		if err != nil {
			c.Close()
			s.conn = nil // the rest is asked for on the next connection
			return acks
		}
		switch outcome {
		case republished:
			acks = append(acks, seq)
		case noSubscription:
			s.lost(ctx, c, "the server has lost the subscription")
			return nil
		default:
			lost = "the server has dropped messages that did not come"
		}
	}
	s.last = to - 1
	if s.last == 0 {
		s.last--
	}
	if lost != "" {
		s.mark(lost)
	}
	return acks
}

// mark notes that values of all items may be missing before their next one.
func (s *subscription) mark(why string) {
	for _, it := range s.items {
		it.gap = why
	}
	s.doubts = true
}

// damaged notes that a message came that could not be read.
func (s *subscription) damaged(ctx context.Context, c *conn, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c && s.number() != 0 {
		s.mark("a message of the server cannot be read: " + err.Error())
		s.verify(ctx, c)
	}
}

// gone makes the subscription anew: the server does not have it.
func (s *subscription) gone(ctx context.Context, c *conn, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == c && s.number() != 0 {
		s.lost(ctx, c, why)
	}
}

// lost makes it anew. The caller holds mu.
func (s *subscription) lost(ctx context.Context, c *conn, why string) {
	s.l.log.Info("subscription made anew", "reason", why)
	if err := s.create(ctx, c, why); err != nil {
		s.conn = nil
		c.Close()
	}
}

// add makes the link keep a subscription.
func (l *link) add(s *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.subs = append(l.subs, s)
}

func (l *link) remove(s *subscription) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for i, other := range l.subs {
		if other == s {
			l.subs = append(l.subs[:i:i], l.subs[i+1:]...)
			return
		}
	}
}

// list returns the subscriptions. The slice is not changed later.
func (l *link) list() []*subscription {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.subs[:len(l.subs):len(l.subs)]
}

// active counts the subscriptions that the server has.
func (l *link) active() (n int) {
	for _, s := range l.list() {
		if s.number() != 0 {
			n++
		}
	}
	return n
}
