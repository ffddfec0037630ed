package fielddaemon

import (
	"context"
	"path/filepath"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/internal/control"
	"holdfast/protocols/point"
	"holdfast/protocols/poll"
)

// watchInterval is how often a stream of tags is written at most.
const watchInterval = 100 * time.Millisecond

func (d *Daemon) tags() []control.Tag {
	now := d.o.Clock.Now()
	out := []control.Tag{}
	for _, e := range d.poller.Table().Snapshot() {
		out = append(out, tagOf(&e, now))
	}
	return out
}

func (d *Daemon) watch(ctx context.Context, emit func(control.Update) error) error {
	return d.poller.Table().Watch(ctx, watchInterval, func(changed []poll.Entry, fresh bool) error {
		u := control.Update{Fresh: fresh, Tags: make([]control.Tag, len(changed))}
		now := d.o.Clock.Now()
		for i := range changed {
			u.Tags[i] = tagOf(&changed[i], now)
		}
		return emit(u)
	})
}

func tagOf(e *poll.Entry, now time.Time) control.Tag {
	t := control.Tag{
		Device: e.Device, Tag: e.Tag, Class: e.Class, Unit: e.Unit, Comment: e.Comment,
		Value: point.AppendValue(nil, e.Value), Text: e.Value.String(), Quality: e.Quality.String(), Level: levelOf(e.Quality),
		Source: e.Source, Receive: e.Receive, Age: -1, Detail: e.Detail, Writable: e.Access.Writable(),
	}
	if e.Value.Kind() == point.Null {
		t.Text = "-"
	}
	if !e.Receive.IsZero() {
		t.Age = max(0, now.Sub(e.Receive).Seconds())
	}
	return t
}

func levelOf(q point.Quality) string {
	switch q.Level() {
	case point.LevelGood:
		return "good"
	case point.LevelUncertain:
		return "uncertain"
	}
	return "bad"
}

func (d *Daemon) status() control.FieldStatus {
	s := control.FieldStatus{Process: control.ThisProcess(d.config.Name, d.o.Version, d.started), Devices: []control.Device{}, Conditions: []control.Condition{}}
	up, since, err := d.keeper.State()
	s.Hub = control.Link{Address: "unix:" + filepath.Join(d.config.Run, config.HubSocket), Connected: up, Since: since}
	if err != nil {
		s.Hub.Reason = err.Error()
	}
	if !up {
		s.Conditions = append(s.Conditions, control.Condition{Subject: "hub", Trouble: "hub-unreachable", Since: since, Reason: s.Hub.Reason})
	}
	var refusal error
	s.Outbox.Batches, s.Outbox.Readings, s.Outbox.Published, refusal = d.uplink.state()
	if refusal != nil {
		s.Conditions = append(s.Conditions, control.Condition{Subject: "hub", Trouble: "readings-refused", Reason: refusal.Error()})
	}
	now := map[string]*counts{}
	for _, e := range d.poller.Table().Snapshot() {
		c := now[e.Device]
		if c == nil {
			c = &counts{}
			now[e.Device] = c
		}
		c.add(e.Quality)
	}
	for _, p := range d.poller.Status() {
		dev := deviceOf(&p)
		if c := now[p.Name]; c != nil {
			dev.Good, dev.Uncertain, dev.Bad = c.good, c.uncertain, c.bad
		}
		s.Outbox.Readings += p.Queued
		s.Outbox.Dropped += p.Dropped
		s.Devices = append(s.Devices, dev)
		if p.Known && !p.Connected {
			s.Conditions = append(s.Conditions, control.Condition{Subject: p.Name, Trouble: "device-unreachable", Since: p.Since, Reason: p.Reason})
		}
		for _, c := range p.Classes {
			if c.Overrun {
				s.Conditions = append(s.Conditions, control.Condition{Subject: p.Name, Trouble: "scan-too-slow",
					Reason: "reading scan class " + c.Name + " takes " + c.Last.Round(time.Millisecond).String() + ", its period is " + c.Period.String()})
			}
		}
	}
	return s
}

type counts struct{ good, uncertain, bad int }

func (c *counts) add(q point.Quality) {
	switch q.Level() {
	case point.LevelGood:
		c.good++
	case point.LevelUncertain:
		c.uncertain++
	default:
		c.bad++
	}
}

func deviceOf(p *poll.DeviceStatus) control.Device {
	d := control.Device{
		Name: p.Name, Protocol: p.Protocol, Tags: p.Tags, Readings: p.Readings, Held: p.Held, Dropped: p.Dropped,
		Link: control.Link{Connected: p.Connected, Since: p.Since, Reason: p.Reason},
	}
	for _, c := range p.Classes {
		d.Skipped += c.Skipped
	}
	if p.Link != nil {
		d.Link.Address, d.Requests, d.Errors = p.Link.Link, p.Link.Requests, p.Link.Errors
	}
	return d
}
