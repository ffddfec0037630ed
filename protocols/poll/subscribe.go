package poll

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// subscription collects the samples of a subscribed lane between two flushes.
type subscription struct {
	l *lane
	p *plan

	mu     sync.Mutex
	states []*tagState
	sample []point.Sample
	wake   chan struct{} // has room for one
}

// linger is how long samples wait for company before they become a batch.
const linger = 20 * time.Millisecond

// subscribe keeps a subscription for the plan until it is replaced, and then
// returns true, or until the lane is cancelled.
func (l *lane) subscribe(p *plan) bool {
	clk := l.dev.p.o.Clock
	const least, most = time.Second, 30 * time.Second
	pause := least
	for {
		started := clk.Elapsed()
		err, replaced := l.subscribeOnce(p)
		if l.ctx.Err() != nil {
			return false
		}
		if replaced {
			return true
		}
		if err == nil {
			err = errors.New("the device ended the subscription")
		}
		l.lost(p, err)
		if clk.Elapsed()-started > time.Minute {
			pause = least
		}
		// Some jitter, so that many devices behind one gateway do not come back together.
		if l.pause(pause/2 + rand.N(pause/2)) {
			return true
		}
		if l.ctx.Err() != nil {
			return false
		}
		pause = min(2*pause, most)
	}
}

// pause waits for d. It reports true at once when a new plan has come.
func (l *lane) pause(d time.Duration) (replaced bool) {
	timer := l.dev.p.o.Clock.NewTimer(d)
	defer timer.Stop()
	select {
	case <-l.redone:
		return true
	case <-timer.C():
	case <-l.ctx.Done():
	}
	return false
}

// subscribeOnce holds one subscription until it ends by itself, a new plan
// comes, or the lane is cancelled.
func (l *lane) subscribeOnce(p *plan) (err error, replaced bool) {
	ctx, cancel := context.WithCancel(l.ctx)
	s := &subscription{l: l, p: p, wake: make(chan struct{}, 1)}
	ended := make(chan error, 1)
	go func() { ended <- p.subscriber.Subscribe(ctx, p.tags, s.add) }()
	over := false
	defer func() {
		cancel()
		if !over {
			<-ended
		}
		s.flush()
	}()
	for {
		select {
		case <-l.ctx.Done():
			return nil, false
		case <-l.redone:
			return nil, true
		case err := <-ended:
			over = true
			return err, false
		case <-s.wake:
			_ = clock.Sleep(l.ctx, l.dev.p.o.Clock, linger)
			s.flush()
		}
	}
}

// add takes one sample. Bounded: when a full batch has gathered it is flushed
// here, into the outbox, which never waits.
func (s *subscription) add(tag int, sample point.Sample) {
	if tag < 0 || tag >= len(s.p.states) {
		return
	}
	s.mu.Lock()
	s.states = append(s.states, s.p.states[tag])
	s.sample = append(s.sample, sample)
	full := len(s.states) >= s.l.dev.p.o.BatchSize
	s.mu.Unlock()
	if full {
		s.flush()
		return
	}
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscription) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.states) == 0 {
		return
	}
	heard, reason := s.l.take(s.p, s.states, s.sample)
	n := uint64(1)
	s.l.mu.Lock()
	s.l.stat.Reads += n
	s.l.last = s.l.dev.p.o.Clock.Elapsed()
	s.l.mu.Unlock()
	s.states, s.sample = s.states[:0], s.sample[:0]
	s.l.dev.saw(s.l, heard, reason)
}

// lost marks all tags of a subscription that has ended.
func (l *lane) lost(p *plan, err error) {
	samples := make([]point.Sample, len(p.states))
	for i := range samples {
		samples[i] = point.Sample{Quality: point.BadNoCommunication, Detail: err.Error()}
	}
	heard, reason := l.take(p, p.states, samples)
	l.dev.saw(l, heard, reason)
}
