package forward

import (
	"encoding/json"
	"errors"
	"fmt"

	"holdfast/hub"
	"holdfast/hub/journal"
)

// A flight is one record that was handed to the link and is not settled.
type flight struct {
	lane    *lane
	index   int    // in Forwarder.flights
	gen     uint64 // of this use; a settlement of an earlier use is ignored
	out     hub.Outgoing
	body    []byte // out.Record points into it
	gap     bool
	probe   bool // of a detour
	burying bool // refused, and on its way into the dead letters
}

func (fl *flight) hole() hole {
	return hole{off: journal.Offset(fl.out.Offset), attempt: fl.out.Attempt, gap: fl.gap}
}

func (fl *flight) sender() []byte {
	if fl.gap {
		return []byte(gapSender)
	}
	return fl.out.Record.Sender
}

// keepBody is the largest buffer that is kept for the next record.
const keepBody = 64 << 10

// settlement is what became of a flight.
type settlement struct {
	fl     *flight
	gen    uint64
	err    error
	buried bool // it is the dead letter store's answer
}

// settle is called by links and the dead letter store, from any goroutine.
func (f *Forwarder) settle(s settlement) {
	f.inbox.Lock()
	f.inbox.settled = append(f.inbox.settled, s)
	f.inbox.Unlock()
	f.wakeUp()
}

// roomFor reports whether a record of that size may be sent now.
func (f *Forwarder) roomFor(size int) bool {
	return len(f.flights) < f.o.Window &&
		(len(f.flights) == 0 || f.bytes+size <= f.o.WindowBytes) &&
		f.unsaved+len(f.flights) < f.o.DuplicateWindow
}

// send hands the source's head to the link. It returns false when the link
// does not take it.
func (f *Forwarder) send(s *source) bool {
	it := s.head
	fl := f.takeFlight()
	fl.lane, fl.gap, fl.probe = s.lane, it.gap != nil, s.detour != nil && s.detour.parked
	fl.out = hub.Outgoing{Epoch: f.epoch, Offset: uint64(it.off), Attempt: it.attempt, Priority: it.prio}
	if it.gap != nil {
		fl.out.Record = f.gapRecord(it.gap)
	} else {
		fl.body = append(fl.body[:0], it.body...)
		if err := fl.out.Record.Parse(fl.body); err != nil {
			panic("forward: a record that was parsed is not parsable: " + err.Error())
		}
	}
	gen := fl.gen
	err := f.link.Send(&fl.out, func(err error) { f.settle(settlement{fl: fl, gen: gen, err: err}) })
	if err != nil && !errors.Is(err, hub.ErrRejected) {
		f.freeFlight(fl)
		f.sendFailed = err
		return false
	}
	f.launch(s, fl)
	if err != nil { // the link can tell without asking
		f.settle(settlement{fl: fl, gen: gen, err: err})
	}
	return true
}

// launch puts fl into the window and moves its source on.
func (f *Forwarder) launch(s *source, fl *flight) {
	if len(f.flights) == 0 {
		f.progress = f.now
	}
	fl.index = len(f.flights)
	f.flights = append(f.flights, fl)
	f.bytes += len(fl.body)
	f.stats.Sent++
	if fl.out.Attempt > 1 {
		f.stats.Retried++
	}
	if fl.probe {
		s.detour.probing = true
	}
	s.consume()
}

func (f *Forwarder) takeFlight() *flight {
	if n := len(f.free); n > 0 {
		fl := f.free[n-1]
		f.free = f.free[:n-1]
		return fl
	}
	return &flight{}
}

// land takes fl out of the window and frees it.
func (f *Forwarder) land(fl *flight) {
	last := len(f.flights) - 1
	f.flights[fl.index] = f.flights[last]
	f.flights[fl.index].index = fl.index
	f.flights[last] = nil
	f.flights = f.flights[:last]
	f.bytes -= len(fl.body)
	f.freeFlight(fl)
}

func (f *Forwarder) freeFlight(fl *flight) {
	fl.gen++
	body := fl.body[:0]
	if cap(body) > keepBody {
		body = nil
	}
	*fl = flight{gen: fl.gen, body: body}
	f.free = append(f.free, fl)
}

// settleAll deals with everything that was settled since it was last called.
func (f *Forwarder) settleAll(list []settlement) {
	for i := range list {
		s := &list[i]
		fl := s.fl
		if fl.gen != s.gen || fl.burying != s.buried {
			continue // of an earlier link, or settled twice
		}
		switch {
		case s.buried && s.err == nil:
			f.stats.DeadLettered++
			f.over(fl)
		case s.buried:
			f.raise(Rejecting, "dead letter is not kept: "+s.err.Error())
			fl.burying = false
			f.failed(fl, s.err)
		case s.err == nil:
			f.confirmed(fl)
		case errors.Is(s.err, hub.ErrRejected):
			f.progress = f.now
			f.bury(fl, s.err)
		case f.link != nil && f.link.Err() == nil:
			f.progress = f.now
			f.failed(fl, s.err)
		}
		// Otherwise the link has ended: linkLost takes all of them back at once.
	}
}

func (f *Forwarder) confirmed(fl *flight) {
	f.stats.Confirmed++
	f.progress = f.now
	f.lastConfirmed = f.wall
	if !f.proven {
		f.proven = true
		f.pause.Reset()
	}
	f.over(fl)
}

// over ends a flight that needs no more sending.
func (f *Forwarder) over(fl *flight) {
	f.unsaved++
	f.moved = true
	l := fl.lane
	l.settled(fl)
	f.land(fl)
}

func (f *Forwarder) failed(fl *flight, err error) {
	f.stats.Failed++
	fl.lane.failed(fl, err)
	f.land(fl)
}

// bury keeps a refused record as a dead letter.
func (f *Forwarder) bury(fl *flight, reason error) {
	f.stats.Rejected++
	f.raise(Rejecting, fmt.Sprintf("record %d of %q: %v", fl.out.Offset, fl.out.Record.Sender, reason))
	if f.o.DeadLetters == nil {
		f.stats.Dropped++
		f.over(fl)
		return
	}
	fl.burying = true
	gen := fl.gen
	err := f.o.DeadLetters.Put(&DeadLetter{
		Endpoint: f.endpoint, Time: f.o.Clock.Now(), Reason: reason.Error(),
		Epoch: fl.out.Epoch, Offset: fl.out.Offset, Attempt: fl.out.Attempt, Record: fl.out.Record,
	}, func(err error) { f.settle(settlement{fl: fl, gen: gen, err: err, buried: true}) })
	if err != nil {
		f.settle(settlement{fl: fl, gen: gen, err: err, buried: true})
	}
}

// gapMessage is the payload of a gap message.
type gapMessage struct {
	Epoch  uint64 `json:"epoch"`
	From   uint64 `json:"from"`
	To     uint64 `json:"to"`
	Count  uint64 `json:"count"`
	Reason string `json:"reason"`
}

func (f *Forwarder) gapRecord(g *journal.Gap) hub.Record {
	b, err := json.Marshal(gapMessage{f.epoch, uint64(g.From), uint64(g.To), g.Count(), g.Reason.String()})
	if err != nil {
		panic("forward: encode gap: " + err.Error()) // numbers and a plain string
	}
	return hub.Record{QoS: 1, Received: f.wall, Topic: []byte(f.o.GapTopic), Payload: b}
}
