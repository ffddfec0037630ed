package session

import (
	"cmp"
	"slices"
	"sync/atomic"
	"time"

	"holdfast/hub/journal"
)

// counters are the hub's, since it was opened.
type counters struct {
	received, receivedBytes, delivered  atomic.Uint64
	dropped, expired, lost              atomic.Uint64
	failed, fellBehind, wills, connects atomic.Uint64
	expiredSessions                     atomic.Uint64
	storedBytes                         atomic.Uint64
}

// Counters are totals since the hub was opened.
type Counters struct {
	Received        uint64 `json:"received"`        // publications taken
	ReceivedBytes   uint64 `json:"receivedBytes"`   // their payload
	Delivered       uint64 `json:"delivered"`       // handed to connections
	Dropped         uint64 `json:"dropped"`         // QoS 0 messages that a slow session missed
	Expired         uint64 `json:"expired"`         // deliveries whose message had expired
	Lost            uint64 `json:"lost"`            // messages that the journal dropped before a session had read them
	Failed          uint64 `json:"failed"`          // batches that the journal refused
	FellBehind      uint64 `json:"fellBehind"`      // times that a session began to read the journal
	Wills           uint64 `json:"wills"`           // wills published
	Connects        uint64 `json:"connects"`        // sessions attached
	ExpiredSessions uint64 `json:"expiredSessions"` // sessions whose time was over
}

// SessionStatus is how one session, or one shared subscription, stands.
type SessionStatus struct {
	Client        string        `json:"client"` // the filter, for a shared subscription
	Owner         string        `json:"owner,omitempty"`
	Connected     bool          `json:"connected"`
	Durable       bool          `json:"durable"`
	Subscriptions int           `json:"subscriptions"`
	Members       int           `json:"members,omitempty"` // of a shared subscription
	Lag           uint64        `json:"lag"`               // records of the journal after its position, wanted or not
	Age           time.Duration `json:"age"`               // of the oldest of them; 0 without lag
	Behind        bool          `json:"behind"`            // it reads the journal instead of being fed
	InFlight      int           `json:"inFlight"`          // sent and not confirmed
	Delivered     uint64        `json:"delivered"`
	Lost          uint64        `json:"lost"`
	Expired       uint64        `json:"expired"`
	Dropped       uint64        `json:"dropped"`
}

// A Condition is a trouble that lasts.
type Condition struct {
	Name   string    `json:"name"`
	Reason string    `json:"reason"`
	Since  time.Time `json:"since"`
}

// Status is how the hub stands.
type Status struct {
	Epoch      uint64          `json:"epoch"`
	First      uint64          `json:"first"`     // oldest record kept
	Committed  uint64          `json:"committed"` // newest record
	Sessions   []SessionStatus `json:"sessions"`  // by client
	Shared     []SessionStatus `json:"shared"`    // by filter
	Retained   int             `json:"retained"`
	Conditions []Condition     `json:"conditions"`
	Counters   Counters        `json:"counters"`
}

// Status returns how the hub stands. It reads one journal record for each
// session that lags.
func (h *Hub) Status() Status {
	st := Status{Epoch: h.j.Epoch(), First: uint64(h.j.First()), Committed: uint64(h.j.Committed()), Counters: h.Counters()}
	type entry struct {
		status SessionStatus
		low    journal.Offset
	}
	var sessions, groups []entry
	h.mu.Lock()
	for _, s := range h.byNumber {
		e, low := s.feed.status()
		e.Client, e.Owner, e.Durable, e.Subscriptions = s.client, s.owner, s.durable.Load(), len(s.subs)
		sessions = append(sessions, entry{e, low})
	}
	for _, g := range h.groups {
		e, low := g.feed.status()
		e.Client, e.Subscriptions, e.Members, e.Durable = g.filter, 1, len(g.members), g.feed.durable
		groups = append(groups, entry{e, low})
	}
	st.Retained = len(h.retained)
	h.mu.Unlock()
	st.Conditions = []Condition{}
	h.conditioned.Lock()
	for _, c := range h.conditions {
		st.Conditions = append(st.Conditions, c)
	}
	h.conditioned.Unlock()
	now := h.now()
	finish := func(list []entry) []SessionStatus {
		out := []SessionStatus{}
		for _, e := range list {
			if e.status.Lag > 0 {
				if rec, err := h.j.ReadAt(e.low + 1); err == nil && rec.Gap == nil {
					e.status.Age = max(0, time.Duration(now-rec.Time)*time.Microsecond)
				}
			}
			out = append(out, e.status)
		}
		slices.SortFunc(out, func(a, b SessionStatus) int {
			return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.Owner, b.Owner))
		})
		return out
	}
	st.Sessions, st.Shared = finish(sessions), finish(groups)
	slices.SortFunc(st.Conditions, func(a, b Condition) int { return cmp.Compare(a.Name, b.Name) })
	return st
}

func (d *feed) status() (SessionStatus, journal.Offset) {
	d.mu.Lock()
	defer d.mu.Unlock()
	low, end := d.low(), journal.Offset(d.hub.applied.Load())
	st := SessionStatus{Connected: d.online, Behind: d.behind, Delivered: d.delivered, Lost: d.lost, Expired: d.expired, Dropped: d.dropped}
	if low < end {
		st.Lag = uint64(end - low)
	}
	for _, s := range d.window {
		if !s.settled {
			st.InFlight++
		}
	}
	return st, low
}

// Counters returns the hub's totals.
func (h *Hub) Counters() Counters {
	c := &h.stats
	return Counters{
		Received: c.received.Load(), ReceivedBytes: c.receivedBytes.Load(), Delivered: c.delivered.Load(),
		Dropped: c.dropped.Load(), Expired: c.expired.Load(), Lost: c.lost.Load(),
		Failed: c.failed.Load(), FellBehind: c.fellBehind.Load(), Wills: c.wills.Load(), Connects: c.connects.Load(),
		ExpiredSessions: c.expiredSessions.Load(),
	}
}

// raise notes a condition; one log line for each change.
func (h *Hub) raise(name, reason string) {
	h.conditioned.Lock()
	defer h.conditioned.Unlock()
	c, on := h.conditions[name]
	if on && c.Reason == reason {
		return
	}
	if !on {
		c.Since = h.clock.Now()
	}
	c.Name, c.Reason = name, reason
	h.conditions[name] = c
	h.log.Warn("condition raised", "condition", name, "reason", reason)
}

func (h *Hub) clear(name string) {
	h.conditioned.Lock()
	defer h.conditioned.Unlock()
	if _, on := h.conditions[name]; on {
		delete(h.conditions, name)
		h.log.Info("condition cleared", "condition", name)
	}
}

// journalCondition passes the journal's conditions on.
func (h *Hub) journalCondition(c journal.Condition) {
	if c.On {
		h.raise(string(c.Trouble), c.Reason)
	} else {
		h.clear(string(c.Trouble))
	}
}

// idleBytes is how much may be stored before the position of a session that
// nothing happened to is saved: it keeps the journal from keeping it.
const idleBytes = 16 << 20

// saveMoved saves the positions that moved, reports whether any had, and wakes
// the sessions that could not read.
func (h *Hub) saveMoved() (moved bool) {
	stored, steps := h.stats.storedBytes.Load(), maxSkim
	for _, d := range h.feeds() {
		d.mu.Lock()
		if d.cursor != nil {
			switch {
			case d.durable && (d.moved || stored-d.savedBytes >= idleBytes):
				if low := d.low(); low != d.saved || d.moved {
					moved = moved || d.moved
					d.save(low)
				}
			case !d.durable && d.behind:
				d.save(d.low())
			case !d.durable && len(d.window) == 0:
				d.cursor.Delete()
				d.cursor = nil
			}
		}
		if d.failed {
			d.wake() // to try again
		}
		idle := d.behind && !d.online && !d.wanted && d.cursor != nil
		d.mu.Unlock()
		if idle && steps > 0 {
			steps = d.skim(steps)
		}
	}
	return moved
}

// maxSkim bounds the records that offline sessions pass over at a time.
const maxSkim = 50_000

// saveAll saves every position before the journal closes.
func (h *Hub) saveAll() {
	for _, d := range h.feeds() {
		d.mu.Lock()
		if d.cursor != nil && d.durable {
			d.save(d.low())
		}
		d.mu.Unlock()
	}
}

func (d *feed) wake() {
	if d.session != nil {
		d.session.wake()
		return
	}
	for _, m := range d.group.members {
		m.feed.session.wake()
	}
}

func (h *Hub) feeds() []*feed {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := make([]*feed, 0, len(h.byNumber)+len(h.groups))
	for _, s := range h.byNumber {
		list = append(list, &s.feed)
	}
	for _, g := range h.groups {
		list = append(list, &g.feed)
	}
	return list
}
