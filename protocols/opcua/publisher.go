package opcua

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock"
	"holdfast/protocols/opcua/wire"
)

// How many Publish requests wait at the server: with one alone it has nothing to
// answer with while our next one travels.
const (
	leastPublishes = 2
	mostPublishes  = 4
)

// maxAcks bounds the acknowledgements of one request; more wait for the next.
const maxAcks = 1000

// A publisher keeps Publish requests waiting at the server and hands what they
// bring to the subscriptions, in order. One goroutine does that: while it is busy,
// at most mostPublishes messages wait here and the rest stays in the server's queues.
type publisher struct {
	l    *link
	c    *conn
	in   chan answer   // never full: it has room for all requests under way
	wake chan struct{} // room for one

	mu      sync.Mutex
	waiting int // requests at the server
	most    int // of them
	idle    bool
	acks    []*ua.SubscriptionAcknowledgement
}

type answer struct {
	m   wire.Message
	err error
}

func newPublisher(l *link, c *conn) *publisher {
	return &publisher{l: l, c: c, in: make(chan answer, 2*mostPublishes), wake: make(chan struct{}, 1), most: mostPublishes}
}

// kick tells that there is a subscription to publish for.
func (p *publisher) kick() {
	p.mu.Lock()
	p.idle = false
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// run works until the connection or ctx ends.
func (p *publisher) run(ctx context.Context) {
	for {
		if p.fill() != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-p.c.Done():
			return
		case <-p.wake:
		case a := <-p.in:
			p.mu.Lock()
			p.waiting--
			p.mu.Unlock()
			p.take(ctx, a)
		}
	}
}

// fill sends Publish requests until enough wait at the server.
func (p *publisher) fill() error {
	subs := p.l.active()
	for {
		p.mu.Lock()
		want := min(max(1+subs, leastPublishes), mostPublishes, p.most)
		if subs == 0 || p.idle || p.waiting >= want {
			p.mu.Unlock()
			return nil
		}
		p.waiting++
		n := min(len(p.acks), maxAcks)
		acks := p.acks[:n:n]
		p.acks = p.acks[n:]
		p.mu.Unlock()
		p.l.requests.Add(1)
		err := p.c.Start(&ua.PublishRequest{SubscriptionAcknowledgements: acks}, p.c.ticket.token, 0, func(m wire.Message, err error) {
			p.in <- answer{m, err}
		})
		if err != nil {
			return err
		}
	}
}

// take handles one answer.
func (p *publisher) take(ctx context.Context, a answer) {
	if a.err != nil {
		return // the channel is over
	}
	var res wire.Publish
	err := wire.Decode(a.m, &res)
	var status ua.StatusCode
	switch {
	case err == nil:
		p.dispatch(ctx, &res)
	case errors.As(err, &status):
		p.refused(ctx, status)
	default:
		p.l.errors.Add(1)
		p.l.log.Warn("the server sends a notification that cannot be read", "reason", err)
		for _, s := range p.l.list() {
			s.damaged(ctx, p.c, err)
		}
	}
}

func (p *publisher) dispatch(ctx context.Context, res *wire.Publish) {
	for _, s := range p.l.list() {
		if s.number() != res.Subscription {
			continue
		}
		for _, seq := range s.take(ctx, p.c, &res.Notification) {
			p.acks = append(p.acks, &ua.SubscriptionAcknowledgement{SubscriptionID: res.Subscription, SequenceNumber: seq})
		}
		return
	}
}

// refused handles a Publish that the server turned down.
func (p *publisher) refused(ctx context.Context, status ua.StatusCode) {
	switch {
	case status == ua.StatusBadTooManyPublishRequests:
		p.mu.Lock()
		p.most = max(1, p.waiting)
		p.mu.Unlock()
	case status == ua.StatusBadNoSubscription:
		p.mu.Lock()
		p.idle = true
		p.mu.Unlock()
		for _, s := range p.l.list() {
			s.gone(ctx, p.c, "the server has dropped the subscription")
		}
	case sessionGone(status):
		p.l.forget(p.c.ticket)
		p.c.Close()
	case status == ua.StatusBadTimeout: // of this request, which waited long enough
	default:
		p.l.errors.Add(1)
		_ = clock.Sleep(ctx, p.l.clk, 100*time.Millisecond) // it would say the same again at once
	}
}
