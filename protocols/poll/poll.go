// Package poll turns configured field devices into a stream of readings: it
// decides when each tag is read, stamps and scales what came back, holds back
// what did not change, keeps the current value of every tag, and hands batches
// to a [Sink].
//
// # Schedule
//
// The tags of one device that name the same scan class are one group and are
// read together. Each group has its own goroutine and its own grid of times,
// one period apart and counted from when it started on elapsed time, so that it
// neither drifts nor notices a jump of the wall clock. The grids of groups are
// shifted against each other so that they do not all fire at once. A group that has
// not finished when its next time comes skips it; reads never pile up.
//
// # When something is slow
//
// Nothing here waits for anything else: a group that hangs delays no other, and
// a sink that hangs delays no group. Readings that the sink does not take are
// kept in a bounded outbox, and beyond its bound merged by tag (see [Options]).
package poll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A Class is one scan class: how often and how patiently a group of tags is read.
type Class struct {
	Period    time.Duration // between the starts of two reads; at least 1 ms
	Timeout   time.Duration // of one read; 0 = the period
	Heartbeat time.Duration // a tag that is held back by its dead-band is published at least this often; 0 = only on change
}

// A Device is one field device and how to poll it.
type Device struct {
	Name      string
	Protocol  string
	Settings  map[string]any // as in protocols.Device
	Tags      []point.Tag
	Classes   map[string]Class
	Class     string // of tags that name none
	KeepLast  bool   // a Bad reading carries the last good value; else it carries none
	Subscribe bool   // be told of changes, where the protocol can do that
}

// Field returns the device as its adapter sees it.
func (d *Device) Field() protocols.Device {
	periods := make(map[string]time.Duration, len(d.Classes))
	for name, c := range d.Classes {
		periods[name] = c.Period
	}
	return protocols.Device{
		Name: d.Name, Protocol: d.Protocol, Settings: d.Settings, Tags: d.Tags, Classes: periods,
	}
}

// Check reports every mistake in what all protocols share: names, classes, tags
// that are there twice. The adapter checks the rest.
func (d *Device) Check() error {
	var errs []error
	add := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if err := point.CheckName(d.Name); err != nil {
		add("%w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(d.Classes)) {
		switch c := d.Classes[name]; {
		case c.Period < time.Millisecond:
			add("class %q: a period of %s is below 1ms", name, c.Period)
		case c.Timeout < 0 || c.Heartbeat < 0:
			add("class %q: times must not be negative", name)
		}
	}
	seen := make(map[string]bool, len(d.Tags))
	for i := range d.Tags {
		t := &d.Tags[i]
		if err := t.Check(); err != nil {
			errs = append(errs, err)
		}
		if seen[t.Name] {
			add("tag %q is there twice", t.Name)
		}
		seen[t.Name] = true
		if class := d.classOf(t); t.Access.Readable() && d.Classes[class].Period == 0 {
			add("tag %q: no scan class %q", t.Name, class)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("device %q: %w", d.Name, err)
	}
	return nil
}

func (d *Device) classOf(t *point.Tag) string {
	if t.Class != "" {
		return t.Class
	}
	return d.Class
}

// A Sink takes batches, one at a time, in order.
type Sink interface {
	// Publish takes one batch or waits until it can. The batch is the caller's
	// again when it returns. After an error the same batch, under the same
	// sequence number, is offered again a little later.
	Publish(ctx context.Context, b *point.Batch) error
}

// Options are what a Poller is made with. The zero value works but for the
// clock, which is needed.
type Options struct {
	Clock clock.Clock
	Log   *slog.Logger // nil = none
	Boot  uint64       // random; tells this run of the daemon from others (point.Batch.Boot)

	// Queue bounds the readings that wait for the sink, all devices together;
	// 0 = 50,000. Beyond it a device's new readings are merged into its last
	// waiting batch: of each tag the newest stays, and what it replaced is counted in the
	// batch's Dropped. So the most that is ever kept is Queue and one reading of
	// every tag.
	Queue int

	BatchSize int           // most readings in one batch; 0 = 1000
	Drain     time.Duration // how long Run goes on handing out what waits after its context ended; 0 = 2 s
}

// A Poller polls devices. Make it with New, give it devices with Apply, and run
// it. Its methods may be called from many goroutines.
type Poller struct {
	o        Options
	adapters map[string]protocols.Adapter
	table    *Table
	outbox   *outbox

	applying sync.Mutex // one Apply at a time, and none while Run starts and stops devices
	ended    bool       // Run has stopped them; guarded by applying

	mu      sync.Mutex
	devices map[string]*device
	queues  map[string]*queue // by device; they outlive a device's restart, so that sequence numbers go on
	ctx     context.Context   // of Run; nil while not running
	running sync.WaitGroup    // the goroutines of lanes
	spread  map[time.Duration]int
}

// New returns a poller without devices that hands its batches to sink. adapters
// are by protocol name; they remain the caller's to close, after Run has returned.
func New(adapters map[string]protocols.Adapter, sink Sink, o Options) *Poller {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Queue <= 0 {
		o.Queue = 50_000
	}
	if o.BatchSize <= 0 {
		o.BatchSize = 1000
	}
	o.BatchSize = min(o.BatchSize, point.MaxReadings)
	if o.Drain <= 0 {
		o.Drain = 2 * time.Second
	}
	return &Poller{
		o: o, adapters: adapters, table: newTable(o.Clock),
		outbox:  newOutbox(sink, o),
		devices: map[string]*device{}, queues: map[string]*queue{}, spread: map[time.Duration]int{},
	}
}

// Run polls until ctx ends, then stops all groups, hands out what still waits
// for as long as Options.Drain says, and closes all sessions. It returns nil. It is
// called once.
func (p *Poller) Run(ctx context.Context) error {
	lanes, stop := context.WithCancel(ctx)
	defer stop()
	sending, stopSending := context.WithCancel(context.WithoutCancel(ctx))
	defer stopSending()
	sent := make(chan struct{})
	go func() {
		defer close(sent)
		p.outbox.run(sending)
	}()

	p.applying.Lock()
	p.mu.Lock()
	p.ctx = lanes
	for _, d := range p.devices {
		d.start()
	}
	p.mu.Unlock()
	p.applying.Unlock()
	p.keep(lanes) // until ctx ends

	p.applying.Lock()
	defer p.applying.Unlock()
	p.ended = true
	p.mu.Lock()
	devices := slices.Collect(maps.Values(p.devices))
	p.mu.Unlock()
	for _, d := range devices {
		d.close()
	}
	p.running.Wait()

	p.outbox.close()
	drain := p.o.Clock.NewTimer(p.o.Drain)
	defer drain.Stop()
	select {
	case <-sent:
	case <-drain.C():
	}
	stopSending()
	<-sent
	return nil
}

// Table returns the current values of all tags.
func (p *Poller) Table() *Table { return p.table }

// Lookup finds a tag and the session of its device. The session is nil when the
// device could not be opened.
func (p *Poller) Lookup(device, tag string) (t point.Tag, s protocols.Session, ok bool) {
	p.mu.Lock()
	d := p.devices[device]
	p.mu.Unlock()
	if d == nil {
		return point.Tag{}, nil, false
	}
	d.table.mu.Lock()
	defer d.table.mu.Unlock()
	st := d.table.byName[tag]
	if st == nil {
		return point.Tag{}, nil, false
	}
	return *st.tag, d.session, true
}
