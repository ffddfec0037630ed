package forward

import (
	"errors"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/internal/backoff"
	"holdfast/hub/journal"
)

// A lane reads the records of some priorities.
type lane struct {
	f       *Forwarder
	mask    uint16
	last    bool // the least important lane reads every class, so it tells of gaps
	classes journal.Classes
	main    source
	detours map[string]*detour
	order   []*detour // the same, in the order in which they were made
	turn    int       // which source has its turn
	due     time.Duration
}

// A source is one position in the journal and the reader that follows it.
type source struct {
	position
	lane   *lane
	detour *detour // nil for the lane's main source
	reader Reader
	at     journal.Offset // where the reader is
	head   *item          // the next to be sent, in the reader's memory
	item   item           // what head points to
}

// A detour is the source of one sender that stepped aside.
type detour struct {
	source
	sender  string
	pause   backoff.Backoff
	parked  bool // sends nothing but one probe at a time
	probing bool // the probe is in flight
	due     time.Duration
}

// gapSender is the name under which gap messages step aside. No sender has it:
// MQTT names hold no NUL.
const gapSender = "\x00gap"

// An item is one record, or a gap, that is wanted.
type item struct {
	off     journal.Offset
	rec     hub.Record
	body    []byte
	gap     *journal.Gap
	prio    uint8
	expires int64
	attempt int  // the sending that is due
	hole    bool // it is the source's first hole, not its next
}

// sender returns the name under which it may step aside.
func (i *item) sender() []byte {
	if i.gap != nil {
		return []byte(gapSender)
	}
	return i.rec.Sender
}

func newLane(f *Forwarder, s laneState) *lane {
	l := &lane{f: f, mask: s.mask, classes: classesFor(s.mask), detours: map[string]*detour{}}
	l.last = s.mask&(1<<hub.LowestPriority) != 0
	l.main = source{lane: l, position: s.main.copy()}
	for _, d := range s.detours {
		l.addDetour(d.sender, d.copy())
	}
	return l
}

func (l *lane) addDetour(sender string, p position) *detour {
	d := &detour{sender: sender, pause: l.f.newPause(), parked: true}
	d.source = source{lane: l, detour: d, position: p}
	l.detours[sender] = d
	l.order = append(l.order, d)
	return d
}

// state returns the lane's positions with what is in flight as holes.
func (l *lane) state(flights []*flight) laneState {
	s := laneState{mask: l.mask, main: l.main.copy()}
	at := map[string]int{}
	for i, d := range l.order {
		at[d.sender] = i
		s.detours = append(s.detours, detourState{d.sender, d.copy()})
	}
	for _, fl := range flights {
		if fl.lane != l {
			continue
		}
		p := &s.main
		if i, ok := at[string(fl.sender())]; ok {
			p = &s.detours[i].position
		}
		p.add(fl.hole())
	}
	return s
}

func (p *position) copy() position {
	return position{p.next, append([]hole(nil), p.holes...)}
}

// pick returns the source whose head is to be sent next, nil if none.
func (l *lane) pick(now time.Duration, budget *int) *source {
	if now < l.due {
		return nil
	}
	for range len(l.order) + 1 {
		l.turn++
		i := l.turn % (len(l.order) + 1)
		if i == 0 {
			if l.main.peek(budget) != nil {
				return &l.main
			}
			continue
		}
		if d := l.order[i-1]; d.ready(now) {
			if d.peek(budget) != nil {
				return &d.source
			}
			l.join(d)
		}
	}
	return nil
}

// ready reports whether the detour may send now.
func (d *detour) ready(now time.Duration) bool {
	if d.parked && (d.probing || now < d.due) {
		return false
	}
	// A hole of the lane may turn out to be this sender's; it goes first.
	m := &d.lane.main
	return len(m.holes) == 0 || m.holes[0].off > d.low()
}

// join ends a detour that has caught up with its lane.
func (l *lane) join(d *detour) {
	if len(d.holes) > 0 || d.next < l.main.next || d.probing {
		return
	}
	delete(l.detours, d.sender)
	for i := range l.order {
		if l.order[i] == d {
			l.order = append(l.order[:i], l.order[i+1:]...)
			break
		}
	}
	d.release()
}

// peek returns the next item to be sent, nil if there is none or the budget of
// records to look at is used up. The item stays the head until consume or drop.
func (s *source) peek(budget *int) *item {
	for {
		if s.head == nil {
			if *budget <= 0 {
				s.lane.f.more = true
				return nil
			}
			*budget--
			if !s.read() {
				return nil
			}
			continue
		}
		if s.lane.f.expired(s.head.expires) {
			s.lane.f.stats.Expired++
			s.consume()
			continue
		}
		if s.detour == nil {
			if d, ok := s.lane.detours[string(s.head.sender())]; ok {
				if s.head.hole {
					d.add(s.holes[0])
					d.drop()
				}
				s.consume()
				continue
			}
		}
		return s.head
	}
}

// consume moves past the head.
func (s *source) consume() {
	s.pass(s.head.off, s.head.gap, s.head.hole)
	s.head = nil
}

func (s *source) pass(off journal.Offset, gap *journal.Gap, isHole bool) {
	switch {
	case isHole:
		s.holes = s.holes[1:]
	case gap != nil:
		s.next = max(s.next, gap.To+1)
	default:
		s.next = max(s.next, off+1)
	}
	s.lane.f.moved = true
}

// drop forgets the head without moving, because something before it turned up.
func (s *source) drop() { s.head = nil }

func (s *source) release() {
	s.drop()
	if s.reader != nil {
		s.reader.Release()
		s.reader = nil
	}
}

// read takes one step: it sets head, or moves past something that is not
// wanted. It returns false when there is nothing to read.
func (s *source) read() bool {
	want, isHole := s.next, len(s.holes) > 0
	if isHole {
		want = s.holes[0].off
	}
	limit := s.lane.f.log.Committed() + 1
	if s.detour != nil {
		limit = min(limit, s.lane.main.next)
	}
	if !isHole && want >= limit {
		return false
	}
	rec, err := s.seek(want)
	switch {
	case errors.Is(err, journal.ErrEnd):
		if isHole { // the journal does not know it any more
			s.lane.f.lost(1, "unknown to the journal")
			s.pass(want, nil, true)
			return true
		}
		s.next = max(s.next, min(s.reader.Offset(), limit))
		return false
	case err != nil:
		s.lane.f.readFailed(err)
		return false
	case rec.Gap != nil:
		return s.gap(rec, want, isHole)
	case isHole && rec.Offset > want:
		s.lane.f.lost(1, "unknown to the journal")
		s.pass(want, nil, true)
		return true
	case !isHole && rec.Offset >= limit:
		s.next = max(s.next, limit) // a detour goes no further than its lane
		return false
	}
	s.take(rec, isHole)
	return true
}

// seek returns the first record or gap at or after want. It reads along for
// short ways, because a seek looks up an index.
func (s *source) seek(want journal.Offset) (journal.Record, error) {
	const near = 256
	switch {
	case s.reader == nil:
		s.reader = s.lane.f.log.NewReader(want, s.lane.classes)
	case s.at > want || want-s.at > near:
		s.reader.Seek(want)
	}
	for {
		rec, err := s.reader.Next()
		if err != nil {
			s.at = s.reader.Offset()
			return rec, err
		}
		end := rec.Offset
		if rec.Gap != nil {
			end = rec.Gap.To
		}
		s.at = end + 1
		if end >= want {
			return rec, nil
		}
	}
}

// take makes rec the head if this source wants it.
func (s *source) take(rec journal.Record, isHole bool) {
	it := &s.item
	*it = item{off: rec.Offset, body: rec.Body, attempt: 1, hole: isHole}
	if isHole {
		it.attempt = s.holes[0].attempt + 1
	}
	if len(rec.Body) > 0 && rec.Body[0] == hub.KindMessage {
		if err := it.rec.Parse(rec.Body); err == nil {
			var ok bool
			it.prio, it.expires, ok = it.rec.Targets.Find(s.lane.f.endpoint)
			ok = ok && s.lane.mask&(1<<min(it.prio, hub.LowestPriority)) != 0
			if ok && (s.detour == nil || string(it.rec.Sender) == s.detour.sender) {
				if x := it.rec.Expires; x != 0 && (it.expires == 0 || x < it.expires) {
					it.expires = x
				}
				s.head = it
				return
			}
		} else {
			s.lane.f.lost(1, "not readable")
		}
	}
	s.pass(rec.Offset, nil, isHole)
}

// gap deals with records that are not there any more.
func (s *source) gap(rec journal.Record, want journal.Offset, isHole bool) bool {
	f, g := s.lane.f, *rec.Gap
	if isHole && s.holes[0].gap { // counted already, to be told again
		g.From = want
		g.To = min(g.To, max(s.next, want+1)-1)
		s.setGap(g, true)
		return true
	}
	if isHole {
		n := uint64(0)
		for len(s.holes) > 0 && s.holes[0].off <= g.To && !s.holes[0].gap {
			s.pass(0, nil, true)
			n++
		}
		f.lost(n, g.Reason.String())
		return true
	}
	g.From = max(g.From, want)
	if s.detour != nil {
		g.To = min(g.To, s.lane.main.next-1)
	}
	if !s.lane.last || s.detour != nil || g.Reason == journal.Consumed {
		s.pass(0, &g, false)
		return true
	}
	f.lost(g.Count(), g.Reason.String())
	if f.o.GapTopic == "" {
		s.pass(0, &g, false)
		return true
	}
	s.setGap(g, false)
	return true
}

func (s *source) setGap(g journal.Gap, isHole bool) {
	s.item = item{off: g.From, gap: &g, prio: hub.LowestPriority, attempt: 1, hole: isHole}
	s.head = &s.item
}

// failed takes a flight back that the far side did not take although the link
// lives: its sender steps aside.
func (l *lane) failed(fl *flight, reason error) {
	sender := string(fl.sender())
	now := l.f.o.Clock.Elapsed()
	d := l.detours[sender]
	switch {
	case d == nil && len(l.order) >= l.f.o.MaxParked:
		// Overflow rule of Options.MaxParked: the lane waits.
		l.main.add(fl.hole())
		l.main.drop()
		if now >= l.due {
			l.due = now + l.f.o.MinPause
		}
		return
	case d == nil:
		d = l.addDetour(sender, position{next: l.main.next})
		d.due = now + d.pause.Next()
		l.main.drop() // it may be this sender's
	case !d.parked || fl.probe:
		d.parked = true
		d.due = now + d.pause.Next()
	}
	if fl.probe {
		d.probing = false
	}
	d.add(fl.hole())
	d.drop()
	if d.reader != nil {
		d.reader.Release() // it may be a while
	}
	l.f.o.Log.Debug("sender steps aside", "endpoint", l.f.endpoint, "sender", sender, "reason", reason, "until", d.due)
}

// settled notes that a flight is over for good.
func (l *lane) settled(fl *flight) {
	if !fl.probe {
		return
	}
	if d := l.detours[string(fl.sender())]; d != nil {
		d.probing, d.parked = false, false
		d.pause.Reset()
		l.join(d)
	}
}

// unsent takes a flight back whose link was lost.
func (l *lane) unsent(fl *flight) {
	s := &l.main
	if d := l.detours[string(fl.sender())]; d != nil {
		s = &d.source
		if fl.probe {
			d.probing = false
		}
	}
	s.holes = append(s.holes, fl.hole()) // sorted by rewound
	s.drop()
}

// nextDue returns when the lane has something to do by itself.
func (l *lane) nextDue(next time.Duration) time.Duration {
	if l.due > l.f.now {
		next = min(next, l.due)
	}
	for _, d := range l.order {
		if d.parked && !d.probing && d.due > l.f.now {
			next = min(next, d.due)
		}
	}
	return next
}

// expired reports whether the unix microsecond has passed. While the wall clock
// has just jumped nothing expires: a stamp from before the jump means nothing.
func (f *Forwarder) expired(micros int64) bool {
	return micros != 0 && micros <= f.wall && f.o.Clock.Quality() != clock.Stepped
}
