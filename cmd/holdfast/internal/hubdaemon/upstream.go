package hubdaemon

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/internal/control"
	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/forward"
	"holdfast/hub/journal"
	"holdfast/hub/route"
)

// Dead letters are kept apart from the journal, so that they cannot push out
// what still has a chance.
const (
	deadLetterBytes   = 64 << 20
	deadLetterSegment = 4 << 20
)

// How a forwarder paces itself: positions are saved often enough that a crash
// repeats little, and a link that was down for a week is tried at least this
// often.
const (
	saveEvery = time.Second
	maxPause  = 15 * time.Second
)

// An upstream is one far side with what feeds it.
type upstream struct {
	name       string // of its endpoint in routes
	priorities []uint8
	forwarder  *forward.Forwarder

	mu       sync.Mutex
	troubles map[forward.Trouble]control.Condition
}

// DeadLetterDir returns where a hub keeps what an upstream refused for good.
func DeadLetterDir(c *config.Config) string { return filepath.Join(DataDir(c), "deadletters") }

// openUpstreams makes the upstreams and what they need. Nothing connects before
// Run.
func (d *Daemon) openUpstreams(c *config.Config) error {
	if err := d.forgetUpstreams(c); err != nil {
		return err
	}
	if len(c.Hub.Upstreams) == 0 {
		return nil
	}
	dir := DeadLetterDir(c)
	fs, err := disk.OpenHost(DataDir(c))
	if err != nil {
		return err
	}
	if err := fs.MkdirAll(filepath.Base(dir)); err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	letters, err := disk.OpenHost(dir)
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	d.letters, err = journal.Open(letters, journal.Options{Clock: d.o.Clock, Log: d.o.Log, SegmentBytes: deadLetterSegment, MaxBytes: deadLetterBytes})
	if err != nil {
		return fmt.Errorf("dead letters: %w", err)
	}
	for i := range c.Hub.Upstreams {
		u, err := d.openUpstream(c, i)
		if err != nil {
			return fmt.Errorf("upstream %q: %w", c.Hub.Upstreams[i].Name, err)
		}
		d.upstreams = append(d.upstreams, u)
	}
	return nil
}

// upstreamCursor begins the names of the forwarders' cursors, which the journal
// holds beside those of the sessions.
const upstreamCursor = "upstream/"

// forgetUpstreams deletes the positions of upstreams that are no longer
// configured: each of them would keep the journal from reclaiming anything.
func (d *Daemon) forgetUpstreams(c *config.Config) error {
	for _, name := range d.hub.Journal().Cursors() {
		end, ok := strings.CutPrefix(name, upstreamCursor)
		if !ok || slices.ContainsFunc(c.Hub.Upstreams, func(u config.Upstream) bool { return u.Name == end }) {
			continue
		}
		cursor, err := d.hub.Journal().Cursor(name)
		if err != nil {
			return err
		}
		d.o.Log.Warn("upstream is no longer configured: what waits for it is given up", "upstream", end, "after", uint64(cursor.Offset()))
		cursor.Delete()
	}
	return nil
}

// namedCursors gives a forwarder's cursor a name that no session's can have,
// and that stays when the order of the upstreams changes.
type namedCursors struct {
	forward.Log
	name string
}

// Cursor implements forward.Log.
func (l namedCursors) Cursor(string) (forward.Cursor, error) { return l.Log.Cursor(l.name) }

func (d *Daemon) openUpstream(c *config.Config, i int) (*upstream, error) {
	far, err := d.o.Upstream(c.Hub.Upstreams[i])
	if err != nil {
		return nil, err
	}
	u := &upstream{name: c.Hub.Endpoint(i), priorities: prioritiesOf(c, c.Hub.Endpoint(i)), troubles: map[forward.Trouble]control.Condition{}}
	log := namedCursors{forward.FromJournal(d.hub.Journal()), upstreamCursor + c.Hub.Upstreams[i].Name}
	u.forwarder, err = forward.New(u.name, log, far, forward.Options{
		Priorities:  u.priorities,
		DeadLetters: forward.NewDeadLetters(d.letters),
		GapTopic:    "holdfast/gap",
		MaxPause:    maxPause,
		SaveEvery:   saveEvery,
		OnCondition: func(t forward.Condition) { u.condition(d, t) },
		Clock:       d.o.Clock,
		Log:         d.o.Log.With("upstream", u.name),
	})
	return u, err
}

// prioritiesOf returns the priorities with which routes lead to an endpoint.
func prioritiesOf(c *config.Config, endpoint string) []uint8 {
	var all []uint8
	for _, s := range c.Hub.RouteSpecs() {
		r, err := route.Parse(s.Text, c.Hub.Dialect())
		if err == nil && r.Endpoint() == endpoint && !slices.Contains(all, s.Priority) {
			all = append(all, s.Priority)
		}
	}
	if len(all) == 0 {
		all = []uint8{hub.DefaultPriority}
	}
	slices.Sort(all)
	return all
}

// condition notes what the forwarder tells.
func (u *upstream) condition(d *Daemon, t forward.Condition) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if !t.On {
		delete(u.troubles, t.Trouble)
		return
	}
	since := d.o.Clock.Now()
	if old, ok := u.troubles[t.Trouble]; ok {
		since = old.Since
	}
	u.troubles[t.Trouble] = control.Condition{Subject: u.name, Trouble: string(t.Trouble), Since: since, Reason: t.Reason}
}

func (u *upstream) conditions() []control.Condition {
	u.mu.Lock()
	defer u.mu.Unlock()
	var all []control.Condition
	for _, c := range u.troubles {
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b control.Condition) int {
		if a.Trouble < b.Trouble {
			return -1
		}
		return 1
	})
	return all
}

// runUpstreams feeds all upstreams until ctx ends, and keeps the dead letters
// until they have.
func (d *Daemon) runUpstreams(ctx context.Context) error {
	keep, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	errs := make(chan error, len(d.upstreams)+1)
	var feeding, keeping sync.WaitGroup
	keeping.Go(func() { errs <- d.letters.Run(keep) })
	for _, u := range d.upstreams {
		feeding.Go(func() { errs <- u.forwarder.Run(ctx) })
	}
	feeding.Wait()
	stop()
	keeping.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}
