// Package session is what MQTT clients of the hub talk to: it gives the
// broker's connections their meaning, and keeps everything that must outlive a
// connection in the journal.
//
// # A session is a cursor
//
// Every QoS 1 and 2 message is stored once, in the journal, whoever wants it. A
// session is a position in it, with filters and a small window of what has been
// sent and is not confirmed. A session that keeps up is fed from the groups that
// the journal has just committed, which are kept in a bounded ring for all
// sessions together. One that does not keep up, or is away, falls behind: it
// keeps no list, and reads the journal from its position when its client can
// take more. So a backlog costs disk and no memory.
//
// # One journal, one commit
//
// What changes a session lies in the same journal: opened, subscribed, QoS 2
// received and released, wills. The state is the sum of these records. It is
// written to a snapshot file from time to time, so that opening reads only what
// came after it.
//
// # What is promised
//
//   - PUBACK and PUBREC say that the message is on the medium. CONNACK with a
//     session that outlives the connection, SUBACK and UNSUBACK say the same of
//     what they answer.
//   - QoS 1 is delivered at least once, in the order of the journal, which for
//     one sender is the order of its publishing. What a client confirmed is
//     remembered at the latest [Options.SaveEvery] later; after a crash it may be
//     sent again what it confirmed in that time, and what was in flight: that is
//     the window of duplicates.
//   - QoS 2 is delivered and taken exactly once, restarts included.
//   - QoS 0 is not stored, except when it is retained or a route targets it. It
//     keeps its place among the others for a session that keeps up, and is
//     dropped, counted, for one that does not.
//   - What the journal had to drop is not passed over in silence: it is counted
//     and a condition is raised.
//
// There are no $SYS topics; [Hub.Status] tells more. Topics that begin with $
// are matched only by filters that begin with the same word.
package session

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
	"holdfast/hub/route"
)

// An Authenticator says who a client is; see [broker.Backend]. hub/access has
// one.
type Authenticator interface {
	Authenticate(ctx context.Context, c *broker.Connect) (broker.Principal, error)
}

// Options are those of a hub. The zero value works, and lets nobody in.
type Options struct {
	// Journal are the options of the journal. Clock, Log, OnCommit and
	// OnCondition are set by the hub. A payload is at most an eighth of
	// SegmentBytes; a larger one is refused with the reason code 0x95.
	Journal journal.Options

	Access Authenticator // nil: every client is refused
	Routes *route.Table  // nil: none; see also Hub.SetRoutes
	Clock  clock.Clock   // nil: the machine's
	Log    *slog.Logger  // nil: silent

	MaxSessions      int   // with those that are away. Default 20,000
	MaxSubscriptions int   // of one session. Default 1,000
	MaxRetained      int   // retained messages. Default 100,000
	MaxRetainedBytes int64 // their size together. Default 64 MiB

	// RingBytes is how much of the newest messages is kept in memory for the
	// sessions that keep up. Overflow rule: the oldest leave, and sessions that
	// still want them read the journal. Default 8 MiB.
	RingBytes int

	// MaxPending is how many messages may wait for one session that keeps up.
	// Overflow rule: it falls behind and reads the journal. Default 8,192.
	MaxPending int

	// MaxWindow is how far the newest message that a session has been sent may
	// be ahead, in messages, of the oldest that it has not confirmed. Overflow
	// rule: it is sent no more until it confirms. Default 4,096.
	MaxWindow int

	// SaveEvery is how long a position that moved may wait to be saved: it bounds
	// the duplicates after a crash. While sessions keep moving it is done five
	// times as often. Default 1 s.
	SaveEvery time.Duration

	// SnapshotBytes is how many bytes are stored between two snapshots at least.
	// It bounds what opening reads. Default 32 MiB.
	SnapshotBytes int64
}

func (o *Options) setDefaults() {
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	orDefault(&o.MaxSessions, 20_000)
	orDefault(&o.MaxSubscriptions, 1000)
	orDefault(&o.MaxRetained, 100_000)
	orDefault(&o.MaxRetainedBytes, 64<<20)
	orDefault(&o.RingBytes, 8<<20)
	orDefault(&o.MaxPending, 8192)
	orDefault(&o.MaxWindow, 4096)
	orDefault(&o.SaveEvery, time.Second)
	orDefault(&o.SnapshotBytes, 32<<20)
}

func orDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// A Hub is the journal with its sessions. It is the [broker.Backend] of the
// on-device hub.
type Hub struct {
	o     Options
	clock clock.Clock
	log   *slog.Logger
	state disk.FS
	j     *journal.Journal

	maxPayload int // that fits into the journal with everything around it

	routes  atomic.Pointer[route.Table]
	applied atomic.Uint64 // newest offset that every session has been offered
	readers atomic.Int32  // feeds that read the journal
	kick    chan struct{} // room for one: Run has something to look at

	mu         sync.Mutex // guards what follows; never held during I/O
	byKey      map[string]*session
	byNumber   map[uint64]*session
	byOwner    map[string]*session // durable ones
	groups     map[string]*group   // by filter
	byGroup    map[uint64]*group
	tree       tree
	retained   map[string]*retained
	retainedSz int64
	nextNumber uint64
	nextGroup  uint64
	replaying  bool
	changed    bool // a control record was applied since the snapshot
	sinceSnap  int64
	snapSize   int64
	snapAt     journal.Offset // what the snapshot file includes
	sent       uint64         // QoS 2 deliveries noted, for their order

	wake []*session // to be woken after the group

	ring  ring       // the committer's
	woken []*session // memory of the last wake; the committer's

	submitting sync.Mutex // guards what follows, and the order of Submit
	waiting    []*job     // refused by a full queue; bounded by the connections' own limits
	parked     []*session // with jobs that wait for the medium
	refused    []refusal  // to be answered when the lock is given back

	conditioned sync.Mutex
	conditions  map[string]Condition

	snapshotting sync.Mutex
	stats        counters
}

// Open opens the journal in the folder "journal" of fs and the sessions in its
// folder "sessions". Nothing is served until Run.
func Open(fs disk.FS, o Options) (*Hub, error) {
	o.setDefaults()
	h := &Hub{
		o: o, clock: o.Clock, log: o.Log,
		kick:  make(chan struct{}, 1),
		byKey: map[string]*session{}, byNumber: map[uint64]*session{}, byOwner: map[string]*session{},
		groups: map[string]*group{}, byGroup: map[uint64]*group{}, retained: map[string]*retained{},
		conditions: map[string]Condition{}, nextNumber: 1, nextGroup: 1,
	}
	h.routes.Store(o.Routes)
	jo := o.Journal
	if jo.SegmentBytes == 0 {
		jo.SegmentBytes = 64 << 20
	}
	// A batch of the journal is at most a quarter of a segment. A message may
	// have half of that to itself; the engine's other batches are far smaller.
	h.maxPayload = int(min(jo.SegmentBytes/8, hub.MaxPayload))
	jo.Clock, jo.Log = o.Clock, o.Log
	jo.OnCommit, jo.OnCondition = h.committed, h.journalCondition
	journalFS, err := folder(fs, "journal")
	if err != nil {
		return nil, err
	}
	if h.state, err = folder(fs, "sessions"); err != nil {
		return nil, err
	}
	if h.j, err = journal.Open(journalFS, jo); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	if err := h.recover(); err != nil {
		return nil, errors.Join(fmt.Errorf("open sessions: %w", err), h.j.Close())
	}
	return h, nil
}

// Journal returns the journal, for those who drain it. Do not close it.
func (h *Hub) Journal() *journal.Journal { return h.j }

// SetRoutes replaces the routes. Messages that are stored keep their targets.
func (h *Hub) SetRoutes(t *route.Table) { h.routes.Store(t) }

// Run serves until ctx ends. The broker must have ended before: what comes
// later is refused. It returns after a last snapshot, with the journal closed
// for appending.
func (h *Hub) Run(ctx context.Context) error {
	jctx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- h.j.Run(jctx) }()
	err := h.keep(ctx, done)
	h.saveAll()
	stop()
	if err == nil {
		err = <-done
	}
	h.dropParked()
	if e := h.snapshot(); e != nil && err == nil {
		err = e
	}
	return err
}

// Close releases the files. Run must have returned.
func (h *Hub) Close() error { return h.j.Close() }

// Authenticate implements [broker.Backend].
func (h *Hub) Authenticate(ctx context.Context, c *broker.Connect) (broker.Principal, error) {
	if h.o.Access == nil {
		return nil, &broker.Refusal{Code: broker.NotAuthorized, Reason: "nobody may connect: no access rules are set"}
	}
	return h.o.Access.Authenticate(ctx, c)
}

// keep does what is due until ctx or the journal ends.
func (h *Hub) keep(ctx context.Context, journal <-chan error) error {
	timer := h.clock.NewTimer(0)
	defer timer.Stop()
	nextSave := h.clock.Elapsed() + h.o.SaveEvery/5
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-journal:
			return err
		case <-h.kick:
		case <-timer.C():
		}
		busy := h.resubmit()
		due := h.timed()
		now := h.clock.Elapsed()
		if now >= nextSave {
			pause := h.o.SaveEvery
			if h.saveMoved() {
				pause /= 5 // while there is traffic a position rides on a commit that is made anyway
			}
			h.retryParked()
			if err := h.snapshotIfDue(); err != nil {
				h.raise("sessions-snapshot", err.Error())
			} else {
				h.clear("sessions-snapshot")
			}
			nextSave = now + pause
		}
		wait := nextSave - now
		if busy {
			wait = min(wait, retrySubmit)
		}
		if due > 0 {
			wait = min(wait, max(due-now, time.Millisecond))
		}
		timer.Reset(wait)
	}
}

// retrySubmit is the pause before a full journal queue is tried again. It is a
// fraction of the time that the queue takes to commit.
const retrySubmit = 2 * time.Millisecond

func (h *Hub) poke() {
	select {
	case h.kick <- struct{}{}:
	default:
	}
}

func (h *Hub) now() int64 { return h.clock.Now().UnixMicro() }
