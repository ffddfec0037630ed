package session

// A group is a shared subscription: one position in the journal from which all
// members take. What a member has and has not confirmed when its connection
// ends goes to the next one that asks, except QoS 2 deliveries, which wait for
// it as long as its session lives (MQTT 5, 4.8.2). So the order of a group is
// kept while its members stay.
type group struct {
	number  uint64
	filter  string // $share/name/filter
	sub     *subscription
	members []*subscription // written under Hub.mu and feed.mu, read under one of them
	feed    feed
}

// terms returns with what QoS, identifiers and retain handling a member takes.
// feed.mu is held.
func (g *group) terms(s *session) (qos byte, ids []uint32, asIs bool) {
	for _, m := range g.members {
		if m.feed == &s.feed {
			if m.id != 0 {
				ids = []uint32{m.id}
			}
			return m.qos, ids, m.asIs
		}
	}
	return 0, nil, false
}

// fetch gives a member its share of what is waiting: a part of it, so that the
// first one who asks does not take all.
func (g *group) fetch(s *session, r *room) {
	d := &g.feed
	d.mu.Lock()
	online := 0
	for _, m := range g.members {
		if m.feed.session.out.Load() != nil {
			online++
		}
	}
	share := d.hub.o.MaxPending
	if online > 1 {
		share = max(1, (d.pending.len()+online-1)/online)
		if d.behind {
			share = 16
		}
	}
	d.mu.Unlock()
	limited := room{count: min(r.count, share), bytes: r.bytes, steps: r.steps, now: r.now, dst: r.dst}
	before := limited.count
	d.fetch(s, &limited)
	r.count -= before - limited.count
	r.dst, r.bytes, r.steps = limited.dst, limited.bytes, limited.steps
	r.again = r.again || limited.again || limited.count == 0 && share < d.hub.o.MaxPending
	if limited.count == 0 {
		g.wakeOthers(s)
	}
}

// wakeOthers tells the other members that there may be something left.
func (g *group) wakeOthers(s *session) {
	g.feed.mu.Lock()
	defer g.feed.mu.Unlock()
	for _, m := range g.members {
		if m.feed.session != s {
			m.feed.session.wake()
		}
	}
}

// redeliver gives s what members who left had not confirmed. d.mu is held, but
// not while it reads.
func (d *feed) redeliver(s *session, r *room) {
	for d.orphans > 0 && r.left() {
		i := 0
		for i < len(d.window) && !d.window[i].orphan() {
			i++
		}
		if i == len(d.window) {
			d.orphans = 0
			return
		}
		off := d.window[i].offset
		d.orphans--
		d.window[i].to = s
		d.mu.Unlock()
		rec, ok := s.reread(off)
		d.mu.Lock()
		if i, found := d.find(off); found && !d.window[i].settled {
			w := &d.window[i]
			dl, alive := delivery(&rec, r.now)
			if !ok || !alive {
				w.settled = true
				continue
			}
			qos, ids, asIs := d.group.terms(s)
			w.qos = max(1, min(w.qos, qos))
			dl.ID, dl.SubIDs = d.id(off), ids
			dl.Message.QoS, dl.Message.Retain = w.qos, rec.Retain && asIs
			r.add(dl)
		}
	}
}

// orphan reports whether a delivery of a group waits for a new holder.
func (w *slot) orphan() bool { return w.to == nil && !w.settled && w.qos < 2 }

// leave takes back what s has of the group. When the session is over, also its
// QoS 2 deliveries.
func (g *group) leave(s *session, over bool) {
	d := &g.feed
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.window {
		w := &d.window[i]
		if w.to == s && (over || w.qos < 2) {
			w.to = nil
			w.qos = min(w.qos, 1)
			d.orphans++
		}
	}
	g.setOnline()
	for _, m := range g.members {
		m.feed.session.wake()
	}
}

// setOnline notes whether anybody is there to take messages. feed.mu is held.
func (g *group) setOnline() {
	online := false
	for _, m := range g.members {
		online = online || m.feed.session.out.Load() != nil
	}
	if g.feed.online && !online {
		g.feed.goOffline()
	}
	g.feed.online = online
}

// goOffline gives the list up: what waits is read from the journal when there
// is somebody again. d.mu is held.
func (d *feed) goOffline() {
	d.online = false
	for d.pending.len() > 0 {
		it, _ := d.pending.pop()
		if it.offset == 0 {
			continue // QoS 0 is not kept for those who are away
		}
		if it.match.qos == 0 {
			continue
		}
		d.missed = max(d.missed, it.offset)
		d.fallBehind(it.offset)
	}
	d.pending = queue{}
}
