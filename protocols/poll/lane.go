package poll

import (
	"context"
	"log/slog"
	"math"
	"sync"
	"time"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A lane reads the tags of one scan class of one device on its own schedule.
type lane struct {
	dev    *device
	name   string
	log    *slog.Logger
	phase  float64 // place of its grid in the period, 0 to below 1
	ctx    context.Context
	stop   context.CancelFunc
	done   chan struct{} // closed when the goroutine has ended; nil before start
	redone chan struct{} // a new plan waits; has room for one

	mu   sync.Mutex
	plan *plan // what the next read reads
	stat ClassStatus
	last time.Duration // elapsed time of the last finished read or, before it, of the start

	seen, heard bool // guarded by device.mu
	onTime      int  // reads in a row that kept the period, up to steady
}

// A plan is what a lane reads. It is replaced whole, between two reads.
type plan struct {
	class      Class
	group      protocols.Group      // nil when subscribed
	subscriber protocols.Subscriber // nil when polled
	tags       []point.Tag
	states     []*tagState // of tags
	samples    []point.Sample
	stalest    time.Duration // the shortest time to staleness among the tags; 0 = none goes stale
	beats      bool          // some tag has a heartbeat
}

// timeout returns how long one read may take.
func (p *plan) timeout() time.Duration {
	if p.class.Timeout > 0 {
		return p.class.Timeout
	}
	return p.class.Period
}

func (l *lane) start() {
	if l.done != nil || l.dev.p.ctx == nil {
		return
	}
	l.ctx, l.stop = context.WithCancel(l.dev.p.ctx)
	l.done = make(chan struct{})
	l.last = l.dev.p.o.Clock.Elapsed()
	l.dev.p.running.Add(1)
	go func() {
		defer l.dev.p.running.Done()
		defer close(l.done)
		l.run()
	}()
}

func (l *lane) cancel() {
	if l.done != nil {
		l.stop()
	}
}

func (l *lane) wait() {
	if l.done != nil {
		<-l.done
	}
}

// replace gives the lane another plan. A read under way is finished first.
func (l *lane) replace(p *plan) {
	l.mu.Lock()
	l.plan = p
	l.stat.Period, l.stat.Tags, l.stat.Subscribed = p.class.Period, len(p.states), p.subscriber != nil
	l.mu.Unlock()
	select {
	case l.redone <- struct{}{}:
	default:
	}
}

func (l *lane) current() *plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.plan
}

func (l *lane) status() ClassStatus {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stat
}

// run reads on schedule until the lane is cancelled.
func (l *lane) run() {
	clk := l.dev.p.o.Clock
	p := l.current()
	g := newGrid(clk.Elapsed(), p.class.Period, l.phase)
	due := g.first()
	timer := clk.NewTimer(due - clk.Elapsed())
	defer timer.Stop()
	for {
		if p.subscriber != nil {
			if !l.subscribe(p) {
				return
			}
			due = clk.Elapsed()
			timer.Reset(0)
		}
		select {
		case <-l.ctx.Done():
			return
		case <-l.redone:
		case <-timer.C():
			if p.subscriber == nil {
				l.read(p)
				var skipped uint64
				due, skipped = g.after(due, clk.Elapsed())
				l.overran(skipped)
				timer.Reset(due - clk.Elapsed())
			}
		}
		if next := l.current(); next != p {
			if next.class.Period != p.class.Period || p.subscriber != nil {
				g = newGrid(clk.Elapsed(), next.class.Period, l.phase)
				due = g.first()
				timer.Reset(due - clk.Elapsed())
			}
			p = next
		}
	}
}

// read reads the plan's tags once.
func (l *lane) read(p *plan) {
	clk := l.dev.p.o.Clock
	started := clk.Elapsed()
	for i := range p.samples {
		p.samples[i] = point.Sample{Quality: point.BadNoData, Detail: "the adapter gave no answer for this tag"}
	}
	// The deadline is on real time even under a test's clock: it is for the
	// kernel's sockets.
	ctx, cancel := context.WithTimeout(l.ctx, p.timeout())
	p.group.Read(ctx, p.samples)
	cancel()
	if l.ctx.Err() != nil {
		return // what was interrupted by our own stop says nothing about the device
	}
	heard, reason := l.take(p, p.states, p.samples)
	took := clk.Elapsed() - started
	l.mu.Lock()
	l.stat.Reads++
	l.stat.Last = took
	l.stat.Sum += took
	l.last = started + took
	l.mu.Unlock()
	l.dev.saw(l, heard, reason)
}

// take stamps samples and gives what is to be published to the outbox. It
// reports whether the device was heard of, and if not the first reason.
func (l *lane) take(p *plan, states []*tagState, samples []point.Sample) (heard bool, reason string) {
	clk := l.dev.p.o.Clock
	now := clk.Now().UTC().Truncate(time.Microsecond)
	it := l.dev.p.outbox.blank() // filled in place: a batch is copied nowhere
	it.readings, it.ids, heard, reason = l.dev.table.take(intake{
		states: states, samples: samples, now: now, elapsed: clk.Elapsed(),
		heartbeat: p.class.Heartbeat, period: p.class.Period, keepLast: l.dev.keepLast.Load(),
		out: it.readings, ids: it.ids,
	})
	l.dev.p.outbox.put(l.dev.queue, now, clk.Quality(), it)
	return heard, reason
}

// steady is how many reads in a row must keep the period before the condition
// of an overrun is over, so that one on the edge does not fill the log.
const steady = 20

// overran counts times that came too early and logs when that begins and ends.
func (l *lane) overran(skipped uint64) {
	l.mu.Lock()
	before := l.stat.Overrun
	l.stat.Skipped += skipped
	if skipped > 0 {
		l.onTime, l.stat.Overrun = 0, true
	} else if l.onTime++; l.onTime >= steady {
		l.onTime, l.stat.Overrun = 0, false
	}
	after, took, period := l.stat.Overrun, l.stat.Last, l.stat.Period
	l.mu.Unlock()
	switch {
	case after && !before:
		l.log.Warn("scan class cannot keep its period", "period", period, "took", took)
	case before && !after:
		l.log.Info("scan class keeps its period again", "period", period, "took", took)
	}
}

// age marks the values of the lane that were not read again in time, and gives
// subscribed ones their heartbeat. It runs beside the lane's own goroutine.
func (l *lane) age() {
	l.mu.Lock()
	p, last := l.plan, l.last
	l.mu.Unlock()
	clk := l.dev.p.o.Clock
	elapsed := clk.Elapsed()
	beat := p.subscriber != nil && p.beats
	if !beat && (p.stalest == 0 || elapsed-last < p.stalest) {
		return
	}
	now := clk.Now().UTC().Truncate(time.Microsecond)
	out, ids := l.dev.table.age(p, elapsed, now, beat)
	l.dev.p.outbox.offer(l.dev.queue, now, clk.Quality(), out, ids)
}

// A grid is a lane's times: begin, begin+period, ...
type grid struct {
	soon, begin, period time.Duration
}

// newGrid lays a grid whose times are at phase of the period.
func newGrid(now, period time.Duration, phase float64) grid {
	const within = 100 * time.Millisecond
	return grid{
		soon:   now + time.Duration(phase*float64(min(period, within))),
		begin:  now + time.Duration(phase*float64(period)),
		period: period,
	}
}

// first returns when to read first: soon, because somebody has just configured or
// started this, but not all lanes in the same moment.
func (g grid) first() time.Duration { return g.soon }

// after returns the first time of the grid that lies after now, and how many of
// those after the one just served have passed.
func (g grid) after(served, now time.Duration) (due time.Duration, skipped uint64) {
	next := g.begin
	if served >= g.begin {
		next += ((served-g.begin)/g.period + 1) * g.period
	}
	if now < next {
		return next, 0
	}
	missed := (now-next)/g.period + 1
	return next + missed*g.period, uint64(missed)
}

// phaseOf spreads the nth lane of a period: multiples of the golden ratio keep
// any number of points apart (the three-distance theorem).
func phaseOf(n int) float64 {
	_, frac := math.Modf(float64(n) * math.Phi)
	return frac
}
