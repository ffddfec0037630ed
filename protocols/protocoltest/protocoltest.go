// Package protocoltest is the conformance suite of field protocols: what
// package protocols promises of an adapter, as tests that every adapter's own
// tests run against a field device of its kind.
package protocoltest

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A Harness is one adapter with one field device that answers it, as an
// adapter's test makes it for each part of the suite.
type Harness struct {
	Adapter protocols.Adapter
	Device  protocols.Device // at least three readable tags, all of which read Good with values that stand still

	// Refused are devices that Check must refuse. The key is a word that must be
	// in the error.
	Refused map[string]protocols.Device

	// Writes are values that the device takes, in this order, for tags of Device.
	// The last of each tag is read back as it is. Empty if the protocol cannot
	// write.
	Writes []protocols.Write
	// BadWrites are for tags of Device that the adapter or the device must refuse.
	BadWrites []protocols.Write

	Gone   func() // take the device away: power off, cable out. nil if that cannot happen
	Silent func() // the device stays connected and answers nothing more. nil if that cannot happen
	Back   func() // undo both

	// Slack is how long after its deadline a read may return; 0 = 2 s, which a
	// loaded machine needs.
	Slack time.Duration
}

// patience bounds every wait of the suite; it is not a promise about speed.
const patience = 30 * time.Second

// Run runs the suite. make is called for each part and cleans up by t.Cleanup;
// the suite closes sessions and adapter.
func Run(t *testing.T, make func(t *testing.T) Harness) {
	for _, part := range []struct {
		name string
		test func(*testing.T, *suite)
	}{
		{"CheckAccepts", checkAccepts},
		{"CheckRefuses", checkRefuses},
		{"ReadFillsEverything", readFillsEverything},
		{"ReadKeepsOrder", readKeepsOrder},
		{"ReadNeedsNoOrder", readOnce},
		{"EmptyGroup", emptyGroup},
		{"GroupsAreIndependent", groupsAreIndependent},
		{"ExpiredDeadline", expiredDeadline},
		{"GoneIsBadWithReason", goneIsBad},
		{"SilentKeepsDeadline", silentKeepsDeadline},
		{"CancelUnblocks", cancelUnblocks},
		{"CloseUnblocks", closeUnblocks},
		{"ReadAfterClose", readAfterClose},
		{"SessionOutlivesDevice", sessionOutlivesDevice},
		{"WritesAreConfirmed", writesAreConfirmed},
		{"BadWritesAreRefused", badWritesAreRefused},
		{"WriteToGoneFails", writeToGone},
		{"WriteToSilentMayHaveHappened", writeToSilent},
		{"Concurrent", concurrent},
	} {
		t.Run(part.name, func(t *testing.T) {
			h := make(t)
			if h.Slack == 0 {
				h.Slack = 2 * time.Second
			}
			if n := len(readable(h.Device.Tags)); n < 3 {
				t.Fatalf("the harness has %d readable tags, want three", n)
			}
			part.test(t, &suite{Harness: h, t: t})
		})
	}
}

type suite struct {
	Harness
	t *testing.T
}

// open opens the device; session and adapter are closed when the test ends.
func (s *suite) open() protocols.Session {
	s.t.Helper()
	session, err := s.Adapter.Open(s.Device)
	if err != nil {
		s.t.Fatalf("Open of what the harness gives: %v", err)
	}
	s.t.Cleanup(func() {
		if err := session.Close(); err != nil {
			s.t.Errorf("Close of the session: %v", err)
		}
		if err := s.Adapter.Close(); err != nil {
			s.t.Errorf("Close of the adapter: %v", err)
		}
	})
	return session
}

func (s *suite) group(session protocols.Session, tags []point.Tag) protocols.Group {
	s.t.Helper()
	g, err := session.Group(tags)
	if err != nil {
		s.t.Fatalf("Group: %v", err)
	}
	return g
}

func readable(tags []point.Tag) (out []point.Tag) {
	for _, t := range tags {
		if t.Access.Readable() {
			out = append(out, t)
		}
	}
	return out
}

// unfilled is what stands in out before a read; no adapter gives it.
var unfilled = point.Sample{Value: point.StringValue("\x00 unfilled"), Quality: 0x80FFFFFF}

// read reads the group once and checks what holds of every read: all entries
// are filled, and what is not Good says why.
func (s *suite) read(g protocols.Group, n int, timeout time.Duration) []point.Sample {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return s.readCtx(ctx, g, n)
}

func (s *suite) readCtx(ctx context.Context, g protocols.Group, n int) []point.Sample {
	s.t.Helper()
	out := make([]point.Sample, n)
	for i := range out {
		out[i] = unfilled
	}
	g.Read(ctx, out)
	for i := range out {
		switch {
		case out[i].Quality == unfilled.Quality:
			s.t.Errorf("entry %d was not filled", i)
		case out[i].Quality.Bad() && out[i].Detail == "":
			s.t.Errorf("entry %d is %s without a reason", i, out[i].Quality)
		case out[i].Quality == point.Good && out[i].Detail != "":
			s.t.Errorf("entry %d is Good with a reason: %q", i, out[i].Detail)
		}
	}
	return out
}

// good reads until all is Good, which must happen in the end.
func (s *suite) good(g protocols.Group, n int) []point.Sample {
	s.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		out := s.read(g, n, 5*time.Second)
		if bad := firstNotGood(out); bad < 0 {
			return out
		} else if time.Now().After(end) || s.t.Failed() {
			s.t.Fatalf("entry %d stays %s: %s", bad, out[bad].Quality, out[bad].Detail)
		}
	}
}

func firstNotGood(out []point.Sample) int {
	for i := range out {
		if !out[i].Quality.Good() || out[i].Value.Kind() == point.Null {
			return i
		}
	}
	return -1
}

func (s *suite) allBad(out []point.Sample) {
	s.t.Helper()
	for i := range out {
		if !out[i].Quality.Bad() {
			s.t.Errorf("entry %d is %s %s", i, out[i].Quality, out[i].Value)
		}
	}
}

// soon runs f and fails if it does not return within d and the slack.
func (s *suite) soon(what string, d time.Duration, f func()) {
	s.t.Helper()
	started := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(patience):
		s.t.Fatalf("%s does not return", what)
	}
	if took := time.Since(started); took > d+s.Slack {
		s.t.Errorf("%s took %s, want at most %s", what, took.Round(time.Millisecond), d+s.Slack)
	}
}

func checkAccepts(t *testing.T, s *suite) {
	if err := s.Adapter.Check(s.Device); err != nil {
		t.Errorf("Check: %v", err)
	}
	s.open()
}

// checkRefuses also holds Check and Open against each other: what Check lets
// pass, Open takes.
func checkRefuses(t *testing.T, s *suite) {
	if len(s.Refused) == 0 {
		t.Fatal("the harness has nothing to refuse")
	}
	for word, d := range s.Refused {
		err := s.Adapter.Check(d)
		if err == nil {
			t.Errorf("%s: Check accepts it", word)
			session, err := s.Adapter.Open(d)
			if err != nil {
				t.Errorf("%s: and Open does not: %v", word, err)
				continue
			}
			_ = session.Close()
			continue
		}
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	_ = s.Adapter.Close()
}

func readFillsEverything(_ *testing.T, s *suite) {
	tags := readable(s.Device.Tags)
	g := s.group(s.open(), tags)
	s.good(g, len(tags))
}

func readKeepsOrder(t *testing.T, s *suite) {
	tags := readable(s.Device.Tags)
	session := s.open()
	want := map[string]point.Value{}
	for i, sample := range s.good(s.group(session, tags), len(tags)) {
		want[tags[i].Name] = sample.Value
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5 {
		shuffled := append([]point.Tag(nil), tags...)
		rng.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		for i, sample := range s.good(s.group(session, shuffled), len(tags)) {
			if name := shuffled[i].Name; !sample.Value.Equal(want[name]) {
				t.Errorf("%s is %s in another order, %s before", name, sample.Value, want[name])
			}
		}
	}
}

// readOnce reads each tag in a group of its own.
func readOnce(_ *testing.T, s *suite) {
	session := s.open()
	for _, tag := range readable(s.Device.Tags) {
		s.good(s.group(session, []point.Tag{tag}), 1)
	}
}

func emptyGroup(_ *testing.T, s *suite) {
	g := s.group(s.open(), nil)
	s.soon("a read of nothing", time.Second, func() { s.read(g, 0, time.Second) })
}

func groupsAreIndependent(t *testing.T, s *suite) {
	tags := readable(s.Device.Tags)
	session := s.open()
	half := len(tags) / 2
	groups := []protocols.Group{s.group(session, tags[:half]), s.group(session, tags[half:]), s.group(session, tags)}
	sizes := []int{half, len(tags) - half, len(tags)}
	for i, g := range groups {
		s.good(g, sizes[i])
	}
	// A read of one that has no time left costs the others nothing.
	expired, cancel := context.WithDeadline(context.Background(), time.Now().Add(-time.Second))
	defer cancel()
	s.readCtx(expired, groups[0], sizes[0])
	for i, g := range groups[1:] {
		s.good(g, sizes[i+1])
	}
	var all sync.WaitGroup
	for i, g := range groups {
		all.Go(func() {
			for range 20 {
				if bad := firstNotGood(s.read(g, sizes[i], patience)); bad >= 0 {
					t.Errorf("group %d: entry %d is not Good while others read", i, bad)
					return
				}
			}
		})
	}
	all.Wait()
}

func expiredDeadline(_ *testing.T, s *suite) {
	tags := readable(s.Device.Tags)
	g := s.group(s.open(), tags)
	s.good(g, len(tags))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.soon("a read without time", 0, func() { s.readCtx(ctx, g, len(tags)) })
	s.good(g, len(tags)) // and it did no harm
}

func goneIsBad(t *testing.T, s *suite) {
	if s.Gone == nil {
		t.Skip("the device cannot go")
	}
	tags := readable(s.Device.Tags)
	g := s.group(s.open(), tags)
	s.good(g, len(tags))
	s.Gone()
	for range 3 {
		s.soon("a read of a device that is gone", time.Second, func() { s.allBad(s.read(g, len(tags), time.Second)) })
	}
}

func silentKeepsDeadline(t *testing.T, s *suite) {
	if s.Silent == nil {
		t.Skip("the device cannot be silent")
	}
	tags := readable(s.Device.Tags)
	g := s.group(s.open(), tags)
	s.good(g, len(tags))
	s.Silent()
	for range 3 {
		s.soon("a read of a silent device", 300*time.Millisecond, func() {
			s.allBad(s.read(g, len(tags), 300*time.Millisecond))
		})
	}
}

func cancelUnblocks(t *testing.T, s *suite) {
	if s.Silent == nil {
		t.Skip("the device cannot be silent")
	}
	tags := readable(s.Device.Tags)
	g := s.group(s.open(), tags)
	s.good(g, len(tags))
	s.Silent()
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	stop := time.AfterFunc(200*time.Millisecond, cancel)
	defer stop.Stop()
	s.soon("a read that is cancelled", 200*time.Millisecond, func() { s.allBad(s.readCtx(ctx, g, len(tags))) })
}

func closeUnblocks(t *testing.T, s *suite) {
	if s.Silent == nil {
		t.Skip("the device cannot be silent")
	}
	tags := readable(s.Device.Tags)
	session, err := s.Adapter.Open(s.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Adapter.Close()
	g := s.group(session, tags)
	s.good(g, len(tags))
	s.Silent()
	time.AfterFunc(200*time.Millisecond, func() { _ = session.Close() })
	s.soon("a read whose session is closed", 200*time.Millisecond, func() { s.allBad(s.read(g, len(tags), time.Hour)) })
}

func readAfterClose(t *testing.T, s *suite) {
	tags := readable(s.Device.Tags)
	session, err := s.Adapter.Open(s.Device)
	if err != nil {
		t.Fatal(err)
	}
	g := s.group(session, tags)
	s.good(g, len(tags))
	s.soon("Close", time.Second, func() {
		if err := session.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	s.soon("a read after Close", time.Second, func() { s.allBad(s.read(g, len(tags), time.Second)) })
	s.soon("Close of the adapter", time.Second, func() {
		if err := s.Adapter.Close(); err != nil {
			t.Errorf("Close of the adapter: %v", err)
		}
	})
}

// sessionOutlivesDevice: the device goes and comes, twice, and the session
// finds it again without help.
func sessionOutlivesDevice(t *testing.T, s *suite) {
	if s.Gone == nil || s.Back == nil {
		t.Skip("the device cannot go and come back")
	}
	tags := readable(s.Device.Tags)
	session := s.open()
	g := s.group(session, tags)
	s.good(g, len(tags))
	for range 2 {
		s.Gone()
		s.allBad(s.read(g, len(tags), time.Second))
		if r, ok := session.(protocols.Reporter); ok {
			if st := r.Status(); st.Link == "" || !st.Connected && st.Reason == "" {
				t.Errorf("status says nothing: %+v", st)
			}
		}
		s.Back()
		s.good(g, len(tags))
	}
	if s.Silent == nil {
		return
	}
	s.Silent()
	s.allBad(s.read(g, len(tags), 300*time.Millisecond))
	s.Back()
	s.good(g, len(tags))
}

func (s *suite) writer() (protocols.Session, protocols.Writer) {
	s.t.Helper()
	session := s.open()
	w, ok := session.(protocols.Writer)
	if len(s.Writes)+len(s.BadWrites) == 0 {
		s.t.Skip("the harness writes nothing")
	}
	if !ok {
		s.t.Fatal("the session is no Writer")
	}
	return session, w
}

// write writes and checks what holds of every outcome.
func (s *suite) write(w protocols.Writer, writes []protocols.Write, timeout time.Duration) []error {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	out := w.Write(ctx, writes)
	if len(out) != len(writes) {
		s.t.Fatalf("%d outcomes for %d writes", len(out), len(writes))
	}
	for i, err := range out {
		if err == nil {
			continue
		}
		we, ok := errors.AsType[*protocols.WriteError](err)
		if !ok {
			s.t.Errorf("write %d: the error is a %T, not a WriteError: %v", i, err, err)
		} else if we.Quality.Good() || we.Err == nil {
			s.t.Errorf("write %d: the error says %s, %v", i, we.Quality, we.Err)
		}
	}
	return out
}

func writesAreConfirmed(t *testing.T, s *suite) {
	session, w := s.writer()
	if len(s.Writes) == 0 {
		t.Skip("the harness has nothing that can be written")
	}
	for i, err := range s.write(w, s.Writes, patience) {
		if err != nil {
			t.Errorf("%s = %s: %v", s.Writes[i].Tag.Name, s.Writes[i].Value, err)
		}
	}
	last := map[string]protocols.Write{}
	for _, write := range s.Writes {
		last[write.Tag.Name] = write
	}
	for _, write := range last {
		if !write.Tag.Access.Readable() {
			continue
		}
		got := s.good(s.group(session, []point.Tag{write.Tag}), 1)[0].Value
		if !sameNumber(got, write.Value) {
			t.Errorf("%s reads %s (%s) after %s (%s) was written", write.Tag.Name, got, got.Kind(), write.Value, write.Value.Kind())
		}
	}
	if out := s.write(w, nil, time.Second); len(out) != 0 {
		t.Errorf("%d outcomes for no writes", len(out))
	}
}

// sameNumber compares values across kinds: a device may read an Int back as a Float.
func sameNumber(a, b point.Value) bool {
	x, ok1 := a.Float()
	y, ok2 := b.Float()
	if ok1 && ok2 {
		return x == y
	}
	return a.Equal(b)
}

func badWritesAreRefused(t *testing.T, s *suite) {
	_, w := s.writer()
	if len(s.BadWrites) == 0 {
		t.Skip("the harness has nothing to refuse")
	}
	for i, err := range s.write(w, s.BadWrites, patience) {
		bad := s.BadWrites[i]
		if err == nil {
			t.Errorf("%s = %s is confirmed", bad.Tag.Name, bad.Value)
		} else if we, ok := errors.AsType[*protocols.WriteError](err); ok && we.Maybe {
			t.Errorf("%s = %s: refused, but may have happened: %v", bad.Tag.Name, bad.Value, err)
		}
	}
	for i, err := range s.write(w, s.Writes, patience) { // what follows is not harmed
		if err != nil {
			t.Errorf("%s after a refusal: %v", s.Writes[i].Tag.Name, err)
		}
	}
}

func writeToGone(t *testing.T, s *suite) {
	if s.Gone == nil || len(s.Writes) == 0 {
		t.Skip("the device cannot go or cannot be written")
	}
	_, w := s.writer()
	s.write(w, s.Writes, patience)
	s.Gone()
	s.soon("a write to a device that is gone", time.Second, func() {
		for i, err := range s.write(w, s.Writes, time.Second) {
			if err == nil {
				t.Errorf("write %d to a device that is gone is confirmed", i)
			}
		}
	})
}

// writeToSilent: when the answer is what is missing, the device may have acted,
// and the first of the writes must say so.
func writeToSilent(t *testing.T, s *suite) {
	if s.Silent == nil || len(s.Writes) == 0 {
		t.Skip("the device cannot be silent or cannot be written")
	}
	_, w := s.writer()
	s.write(w, s.Writes, patience)
	s.Silent()
	s.soon("a write to a silent device", 300*time.Millisecond, func() {
		out := s.write(w, s.Writes, 300*time.Millisecond)
		for i, err := range out {
			if err == nil {
				t.Errorf("write %d to a silent device is confirmed", i)
			}
		}
		if we, ok := errors.AsType[*protocols.WriteError](out[0]); ok && !we.Maybe {
			t.Errorf("the first write cannot have happened, says %v", out[0])
		}
	})
}

// concurrent is for the race detector: reads of several groups, writes, status,
// new groups, and in the end Close, all at once.
func concurrent(t *testing.T, s *suite) {
	tags := readable(s.Device.Tags)
	session, err := s.Adapter.Open(s.Device)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	var all sync.WaitGroup
	var closing atomic.Bool // from then on Group may fail
	for i := range 3 {
		g := s.group(session, tags[i%2:])
		all.Go(func() {
			for ctx.Err() == nil {
				s.readCtx(ctx, g, len(tags)-i%2)
			}
		})
	}
	all.Go(func() {
		for ctx.Err() == nil {
			if _, err := session.Group(tags[:1]); err != nil && !closing.Load() {
				t.Errorf("Group: %v", err)
				return
			}
			if r, ok := session.(protocols.Reporter); ok {
				r.Status()
			}
			time.Sleep(time.Millisecond)
		}
	})
	if w, ok := session.(protocols.Writer); ok && len(s.Writes) > 0 {
		all.Go(func() {
			for ctx.Err() == nil {
				s.write(w, s.Writes, time.Second)
			}
		})
	}
	time.Sleep(150 * time.Millisecond)
	closing.Store(true)
	s.soon("Close while others read and write", time.Second, func() { _ = session.Close() })
	cancel()
	s.soon("the readers", time.Second, all.Wait)
	if err := s.Adapter.Close(); err != nil {
		t.Errorf("Close of the adapter: %v", err)
	}
}
