package poll

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A device is one open field device with a lane for each scan class.
type device struct {
	p              *Poller
	name, protocol string
	cfg            Device            // used by Apply only
	session        protocols.Session // nil when the adapter refused to open it
	table          *deviceTable
	queue          *queue
	log            *slog.Logger

	mu     sync.Mutex // lanes and links
	lanes  map[string]*lane
	closed bool

	keepLast atomic.Bool

	link link
}

// link is what is known of the connection to the device, seen through its
// readings. Guarded by device.mu.
type link struct {
	known     bool // some lane has finished a read
	connected bool
	since     time.Time // wall time
	from      time.Duration
	reason    string
}

// linkQualities are the ones that speak of the way to the device and not of a tag.
func linkQuality(q point.Quality) bool {
	switch q & 0xFFFF0000 {
	case point.BadNoCommunication, point.BadTimeout, point.BadCommunicationError,
		point.BadNotConnected, point.BadConnectionClosed:
		return true
	}
	return false
}

// start starts all lanes that are not running. The caller holds the poller's
// mu and has seen its ctx.
func (d *device) start() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(d.lanes)) {
		d.lanes[name].start()
	}
}

// close stops the lanes and the session, waits for both, and hands out what
// reducers hold.
func (d *device) close() {
	d.mu.Lock()
	d.closed = true
	lanes := slices.Collect(maps.Values(d.lanes))
	d.mu.Unlock()
	for _, l := range lanes {
		l.cancel()
	}
	if d.session != nil {
		if err := d.session.Close(); err != nil {
			d.log.Warn("session did not close cleanly", "error", err)
		}
	}
	for _, l := range lanes {
		l.wait()
	}
	d.offer(d.table.flush(d.p.o.Clock.Elapsed()))
}

// saw notes how a lane's read went: whether the device answered anything, and if
// not why. It logs when the state of the whole device changes: a device is
// disconnected when no lane hears from it.
func (d *device) saw(l *lane, heard bool, reason string) {
	now, elapsed := d.p.o.Clock.Now(), d.p.o.Clock.Elapsed()
	d.mu.Lock()
	if d.closed {
		d.mu.Unlock()
		return
	}
	l.seen, l.heard = true, heard
	connected := false
	for _, other := range d.lanes {
		if other.seen && other.heard {
			connected = true
		}
	}
	before := d.link
	if before.known && before.connected == connected {
		if !connected {
			d.link.reason = reason
		}
		d.mu.Unlock()
		return
	}
	d.link = link{known: true, connected: connected, since: now, from: elapsed, reason: reason}
	d.mu.Unlock()
	switch {
	case !connected:
		d.log.Warn("device disconnected", "reason", reason)
	case before.known:
		d.log.Info("device connected", "after", elapsed-before.from)
	default:
		d.log.Info("device connected")
	}
}

// A DeviceStatus tells how a device is doing.
type DeviceStatus struct {
	Name, Protocol string
	Known          bool      // a read has finished since the device was opened
	Connected      bool      // some scan class heard from it in its last read
	Since          time.Time // of the present state; zero before the first read
	Reason         string    // why not connected
	Tags           int
	Readings       uint64 // samples taken
	Bad            uint64 // of them with a Bad quality
	Published      uint64 // readings given to the outbox
	Held           uint64 // readings held back by dead-bands
	Dropped        uint64 // readings replaced by newer ones before the sink took them
	Queued         int    // readings that wait for the sink
	Sequence       uint64 // of the last batch that the sink took
	Classes        []ClassStatus
	Link           *protocols.Status // as the session reports it; nil if it does not
}

// A ClassStatus tells how the reads of one device's scan class go.
type ClassStatus struct {
	Name       string
	Period     time.Duration
	Tags       int
	Subscribed bool
	Reads      uint64        // finished
	Skipped    uint64        // times that came while a read was still under way
	Last       time.Duration // how long the last read took
	Sum        time.Duration // of all reads, for an average
	Overrun    bool          // reads take longer than the period
}

// Status returns the state of all devices, sorted by name.
func (p *Poller) Status() []DeviceStatus {
	p.mu.Lock()
	devices := slices.SortedFunc(maps.Values(p.devices), func(a, b *device) int {
		return strings.Compare(a.name, b.name)
	})
	p.mu.Unlock()
	out := make([]DeviceStatus, 0, len(devices))
	for _, d := range devices {
		out = append(out, d.status())
	}
	return out
}

func (d *device) status() DeviceStatus {
	s := DeviceStatus{Name: d.name, Protocol: d.protocol}
	d.table.mu.Lock()
	s.Tags = len(d.table.tags)
	s.Readings, s.Bad = d.table.readings, d.table.bad
	s.Published, s.Held = d.table.published, d.table.held
	d.table.mu.Unlock()
	s.Queued, s.Dropped, s.Sequence = d.p.outbox.status(d.queue)
	d.mu.Lock()
	s.Known, s.Connected, s.Since, s.Reason = d.link.known, d.link.connected, d.link.since, d.link.reason
	for _, name := range slices.Sorted(maps.Keys(d.lanes)) {
		s.Classes = append(s.Classes, d.lanes[name].status())
	}
	d.mu.Unlock()
	if r, ok := d.session.(protocols.Reporter); ok {
		status := r.Status()
		s.Link = &status
	}
	return s
}

// keep watches for values that were not read again in time, until ctx ends.
func (p *Poller) keep(ctx context.Context) {
	const tick = 250 * time.Millisecond
	timer := p.o.Clock.NewTimer(tick)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		p.mu.Lock()
		devices := slices.Collect(maps.Values(p.devices))
		p.mu.Unlock()
		for _, d := range devices {
			d.mu.Lock()
			lanes := slices.Collect(maps.Values(d.lanes))
			d.mu.Unlock()
			for _, l := range lanes {
				l.age()
			}
		}
		timer.Reset(tick)
	}
}
