package session

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"slices"
	"strings"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

// A snapshot is the shortest list of records that gives the present state: the
// same control records as in the journal, and the retained messages. It is read
// by the same code. hub/FORMAT.md has the byte table.

const (
	snapshotName   = "snapshot"
	snapshotNew    = "snapshot.new"
	snapshotBad    = "snapshot.bad"
	snapshotMagic  = "HFSESS01"
	snapshotHeader = 8 + 8 + 8 + 8 + 8 // magic, epoch, offset, next session number, next group number
	frameHeader    = 4 + 8             // length, offset
	maxSnapshot    = 1 << 30
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errSnapshot = errors.New("snapshot is damaged")

// snapshotWriter collects the records of a snapshot.
type snapshotWriter struct{ b []byte }

func (w *snapshotWriter) frame(off journal.Offset, body []byte) {
	w.b = binary.LittleEndian.AppendUint32(w.b, uint32(len(body)))
	w.b = binary.LittleEndian.AppendUint64(w.b, uint64(off))
	w.b = append(w.b, body...)
}

func (w *snapshotWriter) control(off journal.Offset, c *control) {
	at := len(w.b)
	w.b = binary.LittleEndian.AppendUint32(w.b, 0)
	w.b = binary.LittleEndian.AppendUint64(w.b, uint64(off))
	w.b = c.append(w.b)
	binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at-frameHeader))
}

// state collects the present state and the offset that it includes.
func (h *Hub) collect() (w snapshotWriter, at journal.Offset) {
	h.mu.Lock()
	at = journal.Offset(h.applied.Load())
	w.b = append(w.b, snapshotMagic...)
	w.b = binary.LittleEndian.AppendUint64(w.b, h.j.Epoch())
	w.b = binary.LittleEndian.AppendUint64(w.b, uint64(at))
	w.b = binary.LittleEndian.AppendUint64(w.b, h.nextNumber)
	w.b = binary.LittleEndian.AppendUint64(w.b, h.nextGroup)
	for _, s := range h.byNumber {
		if s.durable.Load() {
			s.collect(&w)
		}
	}
	list := make([]*retained, 0, len(h.retained))
	for _, m := range h.retained {
		list = append(list, m)
	}
	h.changed, h.sinceSnap = false, 0
	h.mu.Unlock()
	for _, m := range list {
		w.frame(0, m.body)
	}
	w.b = binary.LittleEndian.AppendUint32(w.b, crc32.Checksum(w.b, castagnoli))
	return w, at
}

func (s *session) collect(w *snapshotWriter) {
	n := s.number
	w.control(s.opened, &control{kind: kindOpened, number: n, expiry: s.expiry, client: []byte(s.client), owner: s.ownerName})
	for _, sub := range s.subs {
		c := control{kind: kindSubscribed, number: n, filter: []byte(sub.filter), sub: broker.Subscription{
			QoS: sub.qos, NoLocal: sub.noLocal, RetainAsPublished: sub.asIs, RetainHandling: sub.retain, ID: sub.id}}
		since := sub.since
		if sub.group != nil {
			c.group = sub.group.number
			since = sub.group.sub.since
		}
		w.control(since, &c)
		if !sub.owed {
			w.control(0, &control{kind: kindRetainedSent, number: n, filter: c.filter})
		}
	}
	for p, off := range s.received {
		w.control(off, &control{kind: kindReceived, number: n, packet: p})
	}
	s.collectOutbound(w)
	if s.will != nil {
		w.control(0, &control{kind: kindWill, number: n, delay: s.will.delay, message: s.will.message})
	}
	if s.gone == nil {
		w.control(0, &control{kind: kindDetached, number: n, expiry: s.expiry, at: s.detachedAt})
	}
}

// collectOutbound writes the QoS 2 deliveries in flight, in the order sent, the
// positions, and the QoS 2 deliveries above them that are over.
func (s *session) collectOutbound(w *snapshotWriter) {
	for _, e := range s.flightState().Sent {
		c := control{kind: kindOutbound, number: s.number, packet: e.PacketID, id: e.ID}
		w.control(0, &c)
		if e.Released {
			c.step = stepReleased
			w.control(0, &c)
		}
	}
	for _, d := range append([]*feed{&s.feed}, groupFeeds(s.groupList())...) {
		d.mu.Lock()
		// With the position, because the cursor may not be durable yet and what
		// was over below it is not written down.
		number, _ := splitID(d.id(0))
		w.control(d.low(), &control{kind: kindPosition, number: s.number, group: number})
		for _, sl := range d.window {
			if sl.settled && sl.qos == 2 && (d.group == nil || sl.to == s) {
				w.control(0, &control{kind: kindOutbound, number: s.number, step: stepSettled, id: d.id(sl.offset)})
			}
		}
		d.mu.Unlock()
	}
}

func groupFeeds(groups []*group) []*feed {
	var list []*feed
	for _, g := range groups {
		list = append(list, &g.feed)
	}
	return list
}

// snapshot writes the state down and lets the journal forget what it includes.
func (h *Hub) snapshot() error {
	h.snapshotting.Lock()
	defer h.snapshotting.Unlock()
	w, at := h.collect()
	if err := h.writeSnapshot(w.b); err != nil {
		h.mu.Lock()
		h.changed = true
		h.mu.Unlock()
		return fmt.Errorf("write snapshot of sessions: %w", err)
	}
	h.snapSize = int64(len(w.b))
	h.snapAt = at
	return h.saveState(at)
}

func (h *Hub) writeSnapshot(b []byte) error {
	if err := h.state.Remove(snapshotNew); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := h.state.Create(snapshotNew)
	if err != nil {
		return err
	}
	if _, err = f.WriteAt(b, 0); err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err != nil {
		return err
	}
	if err := h.state.Rename(snapshotNew, snapshotName); err != nil {
		return err
	}
	return h.state.SyncDir(".")
}

// saveState says in the journal up to where the snapshot and what follows it
// without any change of state reach. The cursor's state names the snapshot.
func (h *Hub) saveState(upTo journal.Offset) error {
	c, err := h.j.Cursor(stateCursor)
	if err != nil {
		return err
	}
	return c.Save(upTo, binary.LittleEndian.AppendUint64(nil, uint64(h.snapAt)))
}

// snapshotIfDue keeps what opening has to read short. A journal in which only
// messages came needs no new snapshot, only a later start.
func (h *Hub) snapshotIfDue() error {
	h.mu.Lock()
	h.expireRetained()
	due := h.sinceSnap >= max(h.o.SnapshotBytes, 2*h.snapSize)
	changed, at := h.changed, journal.Offset(h.applied.Load())
	if due && !changed {
		h.sinceSnap = 0
	}
	h.mu.Unlock()
	switch {
	case !due:
		return nil
	case changed:
		return h.snapshot()
	}
	return h.saveState(at)
}

// recover reads the snapshot and what the journal has after it.
func (h *Hub) recover() error {
	h.replaying = true
	defer func() { h.replaying = false }()
	from, epoch, err := h.loadSnapshot()
	if err != nil {
		return err
	}
	if c, err := h.j.Cursor(stateCursor); err != nil {
		return err
	} else if c.Saved() && len(c.State()) == 8 && binary.LittleEndian.Uint64(c.State()) == uint64(h.snapAt) {
		from = max(from, c.Offset())
	}
	if c, err := h.j.Cursor(stateCursor); err != nil {
		return err
	} else if !c.Saved() {
		// A cursor that was never saved pins nothing: without this the journal
		// could reclaim changes of sessions that no snapshot has yet.
		if err := h.saveState(from); err != nil {
			return err
		}
	}
	end := h.j.Committed()
	if from > end || epoch != 0 && epoch != h.j.Epoch() {
		from = min(from, end)
		h.journalLostEnd(end)
	}
	if err := h.replay(from + 1); err != nil {
		return err
	}
	h.applied.Store(uint64(end))
	return h.restoreFeeds()
}

// replay applies the journal from an offset on.
func (h *Hub) replay(from journal.Offset) error {
	r := h.j.NewReader(from)
	defer r.Release()
	for {
		rec, err := r.Next()
		switch {
		case errors.Is(err, journal.ErrEnd):
			return nil
		case err != nil:
			return fmt.Errorf("read journal: %w", err)
		case rec.Gap != nil:
			if rec.Gap.Reason != journal.Consumed {
				h.raise("sessions-state-gap", fmt.Sprintf("the journal lost records %d to %d (%s): changes of sessions may be among them", rec.Gap.From, rec.Gap.To, rec.Gap.Reason))
			}
			continue
		}
		h.sinceSnap += int64(len(rec.Body))
		if err := h.apply(rec.Body, rec.Offset, nil); err != nil {
			h.log.Warn("journal entry not understood", "offset", rec.Offset, "error", err)
		}
	}
}

// journalLostEnd corrects offsets beyond the journal's end, which damage has
// taken, so that new records of the same numbers are not passed over.
func (h *Hub) journalLostEnd(end journal.Offset) {
	for _, s := range h.byNumber {
		s.opened = min(s.opened, end)
		for _, sub := range s.subs {
			sub.since = min(sub.since, end)
		}
	}
	for _, g := range h.groups {
		g.sub.since = min(g.sub.since, end)
	}
}

// restoreFeeds sets positions, deadlines and wills after a restart.
func (h *Hub) restoreFeeds() error {
	wanted := map[string]bool{stateCursor: true}
	for _, g := range h.groups {
		wanted[g.feed.name()] = true
		if err := g.feed.restore(g.sub.since); err != nil {
			return err
		}
	}
	for _, s := range h.byNumber {
		wanted[s.feed.name()] = true
		if err := s.feed.restore(s.opened); err != nil {
			return err
		}
		h.restoreTimes(s)
	}
	for _, name := range h.j.Cursors() {
		ours := strings.HasPrefix(name, sessionCursor) || strings.HasPrefix(name, groupCursor)
		if ours && !wanted[name] {
			c, err := h.j.Cursor(name)
			if err != nil {
				return err
			}
			c.Delete()
		}
	}
	return nil
}

// restoreTimes lets the time that the hub was away count, when the clock can be
// believed; otherwise session expiry and will delay begin anew.
func (h *Hub) restoreTimes(s *session) {
	now := h.now()
	away := int64(0)
	if s.detachedAt != 0 && h.clock.Quality() == clock.Synced {
		away = max(0, now-s.detachedAt)
	}
	if s.detachedAt == 0 {
		s.detachedAt = now
	}
	left := func(us int64) time.Duration {
		return max(1, h.clock.Elapsed()+time.Duration(max(0, us-away))*time.Microsecond)
	}
	if s.expiry >= 0 {
		s.deadline = left(s.expiry)
	}
	if s.will != nil {
		s.will.armed, s.will.due = true, left(s.will.delay)
	}
}

// loadSnapshot applies the snapshot file and returns what it includes. A
// damaged one is put aside: the state is then read from the whole journal, and
// a condition says that something may be missing.
func (h *Hub) loadSnapshot() (at journal.Offset, epoch uint64, err error) {
	b, err := readAll(h.state, snapshotName)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read snapshot: %w", err)
	}
	frames, err := checkSnapshot(b)
	if err != nil {
		h.raise("sessions-snapshot-damaged", "the snapshot of sessions is damaged; it was put aside and the journal is read instead")
		if err := h.state.Rename(snapshotName, snapshotBad); err != nil {
			return 0, 0, fmt.Errorf("put damaged snapshot aside: %w", err)
		}
		return 0, 0, h.state.SyncDir(".")
	}
	epoch = binary.LittleEndian.Uint64(b[8:])
	at = journal.Offset(binary.LittleEndian.Uint64(b[16:]))
	h.nextNumber = binary.LittleEndian.Uint64(b[24:])
	h.nextGroup = binary.LittleEndian.Uint64(b[32:])
	h.snapAt, h.snapSize = at, int64(len(b))
	for _, f := range frames {
		if err := h.apply(f.body, f.off, nil); err != nil {
			h.log.Warn("snapshot entry not understood", "error", err)
		}
	}
	return at, epoch, nil
}

type snapshotFrame struct {
	off  journal.Offset
	body []byte
}

// checkSnapshot checks the form and checksum of a snapshot and cuts it up.
func checkSnapshot(b []byte) ([]snapshotFrame, error) {
	if len(b) < snapshotHeader+4 || string(b[:8]) != snapshotMagic {
		return nil, errSnapshot
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], castagnoli) != binary.LittleEndian.Uint32(b[end:]) {
		return nil, errSnapshot
	}
	var frames []snapshotFrame
	for rest := b[snapshotHeader:end]; len(rest) > 0; {
		if len(rest) < frameHeader {
			return nil, errSnapshot
		}
		n := int(binary.LittleEndian.Uint32(rest))
		off := journal.Offset(binary.LittleEndian.Uint64(rest[4:]))
		if n > len(rest)-frameHeader {
			return nil, errSnapshot
		}
		frames = append(frames, snapshotFrame{off, slices.Clip(rest[frameHeader : frameHeader+n])})
		rest = rest[frameHeader+n:]
	}
	return frames, nil
}

func readAll(d disk.FS, name string) ([]byte, error) {
	f, err := d.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	n, err := f.Size()
	if err != nil {
		return nil, err
	}
	if n > maxSnapshot {
		return nil, errSnapshot
	}
	b := make([]byte, n)
	if n > 0 {
		if _, err := f.ReadAt(b, 0); err != nil {
			return nil, err
		}
	}
	return b, nil
}
