package fielddaemon

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub/client"
	"holdfast/protocols/point"
)

// Limits of what the uplink has sent, or is about to, and the hub has not
// confirmed. Overflow rule: Publish waits, and the poller's outbox, which is
// bounded and merges by tag, holds what comes meanwhile.
const (
	uplinkBatches = 256
	uplinkBytes   = 8 << 20
)

// refusalPause is how long the uplink waits when the hub refuses a batch, which
// it does while its disk is full.
const refusalPause = 500 * time.Millisecond

// An uplink publishes batches to the hub, many in flight, and sends again what
// a connection that ended has not confirmed. The far side knows such repeats by
// device, boot and sequence. It is a [poll.Sink].
//
// While the hub refuses, as it does when its disk is full, one batch at a time
// probes it. Batches are confirmed in the order of Publish, except that those
// in flight behind the first refusal may have been taken before it is.
type uplink struct {
	clock  clock.Clock
	log    *slog.Logger
	keeper *client.Keeper

	mu        sync.Mutex
	changed   chan struct{} // closed and replaced when anything below changes
	pending   []*parcel     // not confirmed, in the order of Publish
	bytes     int           // of pending
	readings  int           // in pending
	conn      *client.Conn  // nil while there is none
	next      int           // index in pending of the first one not sent on conn
	flying    int           // sent on conn and not answered
	refusal   error         // why the hub refuses, nil when it does not
	probing   bool          // the one in flight asks whether it still does
	confirmed uint64
}

// parcel is one encoded batch.
type parcel struct {
	topic    []byte
	payload  []byte
	readings int
	settled  bool
}

// jsonProps is the content type of a batch, which routes ask for before they
// look inside.
var jsonProps = client.AppendContentType(nil, "application/json")

func newUplink(c clock.Clock, log *slog.Logger) *uplink {
	return &uplink{clock: c, log: log, changed: make(chan struct{})}
}

// touch wakes everybody who waits for a change. mu is held.
func (u *uplink) touch() {
	close(u.changed)
	u.changed = make(chan struct{})
}

// wait waits until f, called with mu held, is true.
func (u *uplink) wait(ctx context.Context, f func() bool) error {
	for {
		u.mu.Lock()
		ok, changed := f(), u.changed
		u.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Publish takes one batch, or waits until there is room. It does not wait for
// the hub.
func (u *uplink) Publish(ctx context.Context, b *point.Batch) error {
	p := &parcel{topic: readingsTopic(b.Device), payload: point.AppendBatch(nil, b), readings: len(b.Readings)}
	return u.wait(ctx, func() bool {
		if len(u.pending) > 0 && (len(u.pending) >= uplinkBatches || u.bytes+len(p.payload) > uplinkBytes) {
			return false
		}
		u.pending = append(u.pending, p)
		u.bytes += len(p.payload)
		u.readings += p.readings
		u.touch()
		return true
	})
}

// readingsTopic is where the readings of a device go.
func readingsTopic(device string) []byte { return []byte("field/" + device + "/readings") }

// up is told of each new connection: what the one before has not confirmed is
// sent again.
func (u *uplink) up(c *client.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conn, u.next, u.flying, u.probing = c, 0, 0, false
	u.touch()
}

func (u *uplink) down() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.conn = nil
	u.touch()
}

// run sends until ctx ends.
func (u *uplink) run(ctx context.Context) error {
	for {
		p, c, err := u.take(ctx)
		if err != nil {
			return nil
		}
		m := client.Message{Topic: p.topic, Payload: p.payload, Props: jsonProps, QoS: 1}
		if err := c.Publish(ctx, &m, func(code byte, err error) { u.settle(c, p, err) }); err != nil {
			u.unsent(c, p, err)
		}
	}
}

// take waits for the next batch to send and counts it as sent.
func (u *uplink) take(ctx context.Context) (p *parcel, c *client.Conn, err error) {
	for {
		probe := false
		err := u.wait(ctx, func() bool {
			switch {
			case u.conn == nil || len(u.pending) == 0:
				return false
			case u.refusal != nil:
				probe = u.flying == 0
				return probe
			case u.next == len(u.pending):
				return false
			}
			p, c = u.pending[u.next], u.conn
			u.next++
			u.flying++
			return true
		})
		if err == nil && probe {
			err = clock.Sleep(ctx, u.clock, refusalPause)
			p, c = u.probe()
		}
		if err != nil {
			return nil, nil, err
		}
		if p != nil && !p.settled {
			return p, c, nil
		}
		u.skip(c)
	}
}

// probe returns the oldest batch, to ask whether the hub takes it now.
func (u *uplink) probe() (*parcel, *client.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conn == nil || len(u.pending) == 0 {
		return nil, nil
	}
	u.next, u.probing = 1, true
	u.flying++
	return u.pending[0], u.conn
}

// skip takes back that something was sent: it was confirmed on an earlier
// connection.
func (u *uplink) skip(c *client.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c != nil && c == u.conn {
		u.flying--
	}
}

// settle takes the hub's answer to one batch.
func (u *uplink) settle(c *client.Conn, p *parcel, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.touch()
	if c == u.conn {
		u.flying--
	}
	var no *client.ReasonError
	switch {
	case err == nil:
		if !p.settled {
			u.confirmed++
		}
		u.settled(p)
		// What was in flight beside a refused one proves nothing; a probe does.
		if u.probing && c == u.conn {
			u.log.Info("the hub takes readings again")
			u.refusal, u.probing, u.next = nil, false, 0
		}
	case errors.As(err, &no) && c == u.conn:
		if u.refusal == nil {
			u.log.Warn("the hub refuses readings; they wait", "reason", err)
		}
		u.refusal, u.probing = err, false
	}
	// Any other error ends the connection, and up follows.
}

// settled is done with a parcel. mu is held.
func (u *uplink) settled(p *parcel) {
	if p.settled {
		return
	}
	p.settled = true
	u.readings -= p.readings
	for len(u.pending) > 0 && u.pending[0].settled {
		u.bytes -= len(u.pending[0].payload)
		u.pending[0] = nil
		u.pending = u.pending[1:]
		u.next = max(0, u.next-1)
	}
}

// unsent handles a batch that the connection did not take.
func (u *uplink) unsent(c *client.Conn, p *parcel, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	defer u.touch()
	if c == u.conn {
		u.flying--
	}
	if errors.Is(err, client.ErrInvalid) {
		// The hub's limit on sizes is below this batch: it would never go. The
		// poller cannot split what it has handed over, so this one is dropped, loudly.
		u.log.Error("a batch is larger than the hub takes and is dropped", "bytes", len(p.payload), "readings", p.readings, "reason", err)
		u.settled(p)
		return
	}
	if c == u.conn {
		u.conn = nil // up will bring the next one
	}
}

// flush waits until the hub has confirmed everything.
func (u *uplink) flush(ctx context.Context) error {
	return u.wait(ctx, func() bool { return len(u.pending) == 0 })
}

// state returns what is under way: batches, readings, confirmed batches and
// why the hub refuses, nil if it does not.
func (u *uplink) state() (batches, readings int, confirmed uint64, refusal error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return len(u.pending), u.readings, u.confirmed, u.refusal
}
