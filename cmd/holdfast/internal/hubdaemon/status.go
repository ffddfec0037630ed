package hubdaemon

import (
	"holdfast/cmd/internal/control"
	"holdfast/hub/forward"
	"holdfast/hub/session"
)

func (d *Daemon) status() control.HubStatus {
	d.mu.Lock()
	c := d.config
	d.mu.Unlock()
	s := control.HubStatus{
		Process:    control.ThisProcess(c.Name, d.o.Version, d.started),
		Clients:    int(d.server.Counters().Clients.Load()),
		Endpoints:  []control.Endpoint{},
		Conditions: []control.Condition{},
	}
	for _, door := range d.doors {
		s.Listeners = append(s.Listeners, control.Listener{Name: door.Name, Type: door.Type, Address: door.net.Addr().String()})
	}
	h := d.hub.Status()
	s.Sessions = len(h.Sessions)
	s.Received, s.Sent = h.Counters.Received, h.Counters.Delivered
	s.Dropped = h.Counters.Dropped + h.Counters.Lost
	s.Journal = control.Journal{Epoch: h.Epoch, First: h.First, Committed: h.Committed, Bytes: d.journalBytes(), Budget: int64(c.Hub.Journal.Budget)}
	for _, u := range d.upstreams {
		s.Endpoints = append(s.Endpoints, endpointOf(u))
	}
	s.Conditions = append(s.Conditions, d.conditions(&h)...)
	return s
}

// journalBytes returns what the journal's files take on the medium.
func (d *Daemon) journalBytes() int64 { return d.hub.Journal().Stats().Footprint }

func endpointOf(u *upstream) control.Endpoint {
	f := u.forwarder.Stats()
	e := control.Endpoint{
		Name: u.name, Connected: f.Link.Phase == forward.Up, Since: f.Link.Since, Reason: f.Link.Reason, InFlight: f.InFlight,
		Sent: f.Sent, Confirmed: f.Confirmed, Expired: f.Expired, Rejected: f.Rejected, Lost: f.Lost,
	}
	for _, n := range f.Queued {
		e.Waiting = max(e.Waiting, n)
	}
	return e
}

// conditions returns what troubles the hub and its upstreams.
func (d *Daemon) conditions(h *session.Status) (all []control.Condition) {
	for _, c := range h.Conditions {
		all = append(all, control.Condition{Subject: "hub", Trouble: c.Name, Since: c.Since, Reason: c.Reason})
	}
	for _, u := range d.upstreams {
		all = append(all, u.conditions()...)
	}
	return all
}
