package forward

import (
	"context"
	"errors"
	"fmt"
	"time"

	"holdfast/hub"
)

// checkLink dials when it is time, and gives up a link that settles nothing.
func (f *Forwarder) checkLink(ctx context.Context, dial bool) {
	if a, ok := f.link.(hub.Advancer); ok {
		if n := a.Advanced(); n != f.advanced {
			f.advanced, f.progress = n, f.now
		}
	}
	if f.link != nil && len(f.flights) > 0 && f.now-f.progress >= f.o.Bound && f.waitsForLink() {
		f.linkLost(fmt.Errorf("nothing confirmed for %v", f.now-f.progress))
	}
	if f.link == nil && !f.dialing && dial && f.now >= f.dialDue {
		f.dialing = true
		f.setPhase(Connecting, "")
		f.goroutine.Go(func() { f.dial(ctx) })
	}
}

// waitsForLink reports whether a flight waits for the far side and not for the
// dead letters.
func (f *Forwarder) waitsForLink() bool {
	for _, fl := range f.flights {
		if !fl.burying {
			return true
		}
	}
	return false
}

// dial makes one attempt, for ConnectTimeout at most.
func (f *Forwarder) dial(ctx context.Context) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := f.o.Clock.NewTimer(f.o.ConnectTimeout)
	defer timer.Stop()
	f.goroutine.Go(func() {
		select {
		case <-timer.C():
			cancel(fmt.Errorf("no connection within %v", f.o.ConnectTimeout))
		case <-ctx.Done():
		}
	})
	link, err := f.up.Connect(ctx)
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	f.inbox.Lock()
	f.inbox.linked = &linked{link, err}
	f.inbox.Unlock()
	f.wakeUp()
}

// linked takes the outcome of dial.
func (f *Forwarder) linked(ctx context.Context, r *linked) {
	f.dialing = false
	if r.err != nil {
		f.down(r.err)
		return
	}
	f.link, f.proven, f.progress, f.advanced = r.link, false, f.now, 0
	f.setPhase(Up, "")
	f.stats.Connects++
	f.goroutine.Go(func() {
		select {
		case <-r.link.Done():
		case <-ctx.Done():
			r.link.Close() // Run has ended without it
			return
		}
		f.inbox.Lock()
		f.inbox.ended = r.link
		f.inbox.Unlock()
		f.wakeUp()
	})
}

// linkLost takes everything in flight back. What the link settles later, if
// anything, is ignored.
func (f *Forwarder) linkLost(reason error) {
	if reason == nil {
		reason = errors.New("link ended")
	}
	link := f.link
	f.link = nil
	if link.Err() == nil {
		f.goroutine.Go(func() { link.Close() })
	}
	kept := f.flights[:0]
	for _, fl := range f.flights {
		if fl.burying {
			fl.index = len(kept)
			kept = append(kept, fl)
			continue
		}
		fl.lane.unsent(fl)
		f.bytes -= len(fl.body)
		f.freeFlight(fl)
	}
	clear(f.flights[len(kept):])
	f.flights = kept
	for _, l := range f.lanes {
		l.rewound()
	}
	if !f.stopping {
		f.down(reason)
	}
}

// rewound puts what unsent gave back in order. Senders that stepped aside may
// try at once: their trouble may have been the link's.
func (l *lane) rewound() {
	sortHoles(&l.main.position)
	l.due = 0
	for _, d := range l.order {
		sortHoles(&d.position)
		d.due = 0
	}
}

func (f *Forwarder) down(reason error) {
	f.dialDue = f.now + f.pause.Next()
	f.setPhase(Down, reason.Error())
}

// setPhase changes the told state. Connecting again after Down is still being
// down: it keeps the time and the reason.
func (f *Forwarder) setPhase(p Phase, reason string) {
	before := f.state
	f.state.Phase = p
	switch {
	case p == Up:
		f.state.Since, f.state.Reason = f.o.Clock.Now(), ""
		f.clear(LinkDown)
		f.o.Log.Info("link is up", "endpoint", f.endpoint)
	case p == Down:
		if before.Phase == Up || before.Reason == "" {
			f.state.Since = f.o.Clock.Now()
		}
		if before.Reason != reason {
			f.o.Log.Warn("link is down", "endpoint", f.endpoint, "reason", reason)
		}
		f.state.Reason = reason
		f.raise(LinkDown, reason)
	}
}

// isEvent says that a trouble has no end of its own.
func (t Trouble) isEvent() bool { return t == Rejecting || t == RecordsLost }

// raise tells of a trouble, once while it lasts.
func (f *Forwarder) raise(t Trouble, reason string) {
	_, on := f.trouble[t]
	f.trouble[t] = 0
	if t.isEvent() {
		f.trouble[t] = max(f.now, 1)
	}
	if !on {
		f.o.OnCondition(Condition{f.endpoint, t, true, reason})
	}
}

func (f *Forwarder) clear(t Trouble) {
	if _, on := f.trouble[t]; on {
		delete(f.trouble, t)
		f.o.OnCondition(Condition{f.endpoint, t, false, ""})
	}
}

// calm ends troubles that have not happened again for a while, and keeps the
// one about parked senders true.
func (f *Forwarder) calm() {
	for _, t := range []Trouble{Rejecting, RecordsLost} {
		if at, on := f.trouble[t]; on && f.now-at >= eventHold {
			f.clear(t)
		}
	}
	parked := 0
	for _, l := range f.lanes {
		for _, d := range l.order {
			if d.parked {
				parked++
			}
		}
	}
	if parked > 0 {
		f.raise(SendersParked, fmt.Sprintf("%d senders wait", parked))
	} else {
		f.clear(SendersParked)
	}
}

// lost counts records that the journal does not have any more.
func (f *Forwarder) lost(n uint64, reason string) {
	f.stats.Lost += n
	f.raise(RecordsLost, fmt.Sprintf("%d records: %s", n, reason))
}

func (f *Forwarder) readFailed(err error) {
	f.readDue = f.now + time.Second
	f.raise(ReadFailed, err.Error())
}
