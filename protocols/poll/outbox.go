package poll

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// outbox keeps batches until the sink takes them. Offering never waits.
//
// Bounded: Options.Queue readings in all. Beyond that a device's readings are
// merged into the last of its batches that is not on its way already, by tag,
// newest wins; what is replaced counts as dropped.
type outbox struct {
	sink  Sink
	clock clock.Clock
	log   *slog.Logger
	boot  uint64
	limit int
	size  int // most readings in one batch

	mu     sync.Mutex
	ready  []*queue // queues with something to send, each once, served in turn
	queued int      // readings in all queues
	free   []*item  // for use again
	closed bool
	wake   chan struct{} // has room for one
}

// A queue is what waits of one device. Guarded by outbox.mu.
type queue struct {
	device  string
	items   []*item
	queued  int
	seq     uint64 // of the last batch that was sent or left out
	dropped uint64 // since the start
	ready   bool   // is in outbox.ready or being sent
}

// An item is readings that were taken together, or were merged.
type item struct {
	time     time.Time
	clock    clock.Quality
	readings []point.Reading
	ids      []uint32
	index    map[uint32]int // id to place in readings; made when first merged into
	merged   uint64         // batches that went into this one
	dropped  uint64         // readings that were replaced in it
	sending  bool
}

func newOutbox(sink Sink, o Options) *outbox {
	return &outbox{
		sink: sink, clock: o.Clock, log: o.Log, boot: o.Boot, limit: o.Queue, size: o.BatchSize,
		wake: make(chan struct{}, 1),
	}
}

// offer queues readings of one device. It copies them.
func (o *outbox) offer(q *queue, now time.Time, cq clock.Quality, readings []point.Reading, ids []uint32) {
	it := o.blank()
	it.readings = append(it.readings, readings...)
	it.ids = append(it.ids, ids...)
	o.put(q, now, cq, it)
}

// put queues an item that blank returned and the caller has filled; it is the
// outbox's from then on.
func (o *outbox) put(q *queue, now time.Time, cq clock.Quality, it *item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(it.readings)
	if n == 0 {
		o.recycle(it)
		return
	}
	if o.queued+n > o.limit && len(q.items) > 0 && !q.items[len(q.items)-1].sending {
		o.merge(q, q.items[len(q.items)-1], now, cq, it.readings, it.ids)
		o.recycle(it)
		return
	}
	it.time, it.clock = now, cq
	q.items = append(q.items, it)
	q.queued += n
	o.queued += n
	if !q.ready {
		q.ready = true
		o.ready = append(o.ready, q)
	}
	o.signal()
}

func (o *outbox) signal() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// blank returns an empty item to fill.
func (o *outbox) blank() *item {
	o.mu.Lock()
	defer o.mu.Unlock()
	if n := len(o.free); n > 0 {
		it := o.free[n-1]
		o.free = o.free[:n-1]
		return it
	}
	return &item{}
}

// merge puts readings into an item that waits: of each tag the newest stays.
func (o *outbox) merge(q *queue, it *item, now time.Time, cq clock.Quality, readings []point.Reading, ids []uint32) {
	if it.index == nil {
		it.index = make(map[uint32]int, len(it.ids))
		o.compact(q, it)
	}
	it.time, it.clock = now, max(it.clock, cq)
	it.merged++
	for i := range readings {
		if at, ok := it.index[ids[i]]; ok {
			it.readings[at] = readings[i]
			it.dropped++
			q.dropped++
			continue
		}
		it.index[ids[i]] = len(it.readings)
		it.readings = append(it.readings, readings[i])
		it.ids = append(it.ids, ids[i])
		q.queued++
		o.queued++
	}
}

// compact fills the index of an item, which may hold a tag more than once when
// it came from a subscription.
func (o *outbox) compact(q *queue, it *item) {
	n := 0
	for i, id := range it.ids {
		if at, ok := it.index[id]; ok {
			it.readings[at] = it.readings[i]
			it.dropped++
			q.dropped++
			q.queued--
			o.queued--
			continue
		}
		it.index[id] = n
		it.readings[n], it.ids[n] = it.readings[i], id
		n++
	}
	clear(it.readings[n:])
	it.readings, it.ids = it.readings[:n], it.ids[:n]
}

// close lets run return when everything has been sent.
func (o *outbox) close() {
	o.mu.Lock()
	o.closed = true
	o.mu.Unlock()
	o.signal()
}

// run sends until ctx ends, or until the outbox is closed and empty. Devices are
// served in turn, one item each.
func (o *outbox) run(ctx context.Context) {
	for ctx.Err() == nil {
		q, it, over := o.next()
		if over {
			return
		}
		if it == nil {
			select {
			case <-ctx.Done():
			case <-o.wake:
			}
			continue
		}
		if o.send(ctx, q, it) {
			o.sent(q, it)
		}
	}
}

func (o *outbox) next() (q *queue, it *item, over bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.ready) == 0 {
		return nil, nil, o.closed
	}
	q = o.ready[0]
	o.ready = o.ready[1:]
	it = q.items[0]
	it.sending = true
	return q, it, false
}

// send gives an item to the sink in batches of the greatest size or less, each
// again and again until it is taken. It reports false if ctx ended before that.
func (o *outbox) send(ctx context.Context, q *queue, it *item) bool {
	o.mu.Lock()
	q.seq += it.merged
	b := point.Batch{Device: q.device, Boot: o.boot, Time: it.time, Clock: it.clock, Dropped: it.dropped}
	o.mu.Unlock()
	for rest := it.readings; len(rest) > 0; b.Dropped = 0 {
		n := min(len(rest), o.size)
		b.Readings, rest = rest[:n:n], rest[n:]
		o.mu.Lock()
		q.seq++
		b.Sequence = q.seq
		o.mu.Unlock()
		if !o.publish(ctx, &b) {
			return false
		}
	}
	return true
}

func (o *outbox) publish(ctx context.Context, b *point.Batch) bool {
	const least, most = 50 * time.Millisecond, 5 * time.Second
	for pause := least; ; pause = min(2*pause, most) {
		err := o.sink.Publish(ctx, b)
		if err == nil {
			if pause > least {
				o.log.Info("batches are taken again", "device", b.Device)
			}
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		if pause == least {
			o.log.Warn("batch not taken", "device", b.Device, "error", err)
		}
		if clock.Sleep(ctx, o.clock, pause) != nil {
			return false
		}
	}
}

// sent takes an item off its queue and puts the queue at the end of the line if
// it has more.
func (o *outbox) sent(q *queue, it *item) {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(it.readings)
	q.queued -= n
	o.queued -= n
	copy(q.items, q.items[1:])
	q.items[len(q.items)-1] = nil
	q.items = q.items[:len(q.items)-1]
	if len(q.items) > 0 {
		o.ready = append(o.ready, q)
	} else {
		q.ready = false
	}
	o.recycle(it)
}

// recycle keeps an item for use again: a few, and none that is unusually large.
func (o *outbox) recycle(it *item) {
	if len(o.free) < 64 && cap(it.readings) <= 4*o.size {
		*it = item{readings: it.readings[:0], ids: it.ids[:0]}
		o.free = append(o.free, it)
	}
}

func (o *outbox) status(q *queue) (queued int, dropped, seq uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return q.queued, q.dropped, q.seq
}
