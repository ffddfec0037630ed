package opcua

import (
	"slices"
	"testing"

	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/point"
)

// shown returns what a tag showed: its values, with -1 for a gap and -2 for what
// is not known.
func shown(got []received) (out []float64) {
	for _, g := range got {
		switch v, ok := g.Value.Float(); {
		case g.Quality == point.BadNoData:
			out = append(out, -1)
		case !ok || !g.Quality.Good():
			out = append(out, -2)
		default:
			out = append(out, v)
		}
	}
	return out
}

func expect(t *testing.T, r *recorder, tag int, want ...float64) {
	t.Helper()
	eventually(t, "values", func() bool { return len(r.of(tag)) >= len(want) })
	if got := shown(r.of(tag)); !slices.Equal(got, want) {
		t.Errorf("tag %d shows %v, want %v", tag, got, want)
	}
}

// requests waits until publish requests are at the server again.
func (f *fakeServer) requests(t *testing.T) {
	t.Helper()
	eventually(t, "publish requests", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return len(f.waiting) >= leastPublishes
	})
}

// TestLadderSessionKept: the first step. What was sent and lost, and what was
// queued, comes in order and once.
func TestLadderSessionKept(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.set(1, 1)
	f.lose(1, 2, true)
	f.lose(1, 3, true)
	f.cut()
	f.set(1, 4)
	f.set(1, 5)
	expect(t, r, 0, 0, 1, 2, 3, 4, 5)
	if f.did("session") != 1 || f.did("create") != 1 || f.did("transfer") != 0 {
		t.Errorf("the server saw %q", f.log)
	}
}

// TestLadderTransfer: the second step. The session is gone, the subscription is not.
func TestLadderTransfer(t *testing.T) {
	f := newFakeServer()
	f.transfer = true
	_, r := openFake(t, f, 1)
	f.lose(1, 1, true)
	f.mu.Lock()
	f.session = 0
	f.mu.Unlock()
	f.cut()
	f.set(1, 2)
	expect(t, r, 0, 0, 1, 2)
	if f.did("session") != 2 || f.did("create") != 1 || f.did("transfer") != 1 {
		t.Errorf("the server saw %q", f.log)
	}
}

// TestLadderRecreate: the third step. What is lost is told once for each tag whose
// value is another one now.
func TestLadderRecreate(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 2)
	f.mu.Lock()
	f.session, f.down = 0, true
	f.mu.Unlock()
	f.cut()
	f.mu.Lock()
	f.values[1], f.down = 7, false
	f.mu.Unlock()
	expect(t, r, 0, 0, -1, 7)
	eventually(t, "the second tag", func() bool { return len(r.of(1)) >= 2 })
	expect(t, r, 1, 0, 0) // the same value of the same time: nothing has happened
	if f.did("session") != 2 || f.did("create") != 2 {
		t.Errorf("the server saw %q", f.log)
	}
}

// TestLadderSubscriptionGone: the server keeps the session and has lost the
// subscription.
func TestLadderSubscriptionGone(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.mu.Lock()
	f.sub = nil
	f.values[1] = 3
	f.mu.Unlock()
	f.cut()
	expect(t, r, 0, 0, -1, 3)
	if f.did("session") != 1 || f.did("create") != 2 {
		t.Errorf("the server saw %q", f.log)
	}
}

// TestLadderNoSubscription: the same, told by an answer to Publish.
func TestLadderNoSubscription(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.mu.Lock()
	f.sub.id += 100
	f.values[1] = 3
	f.mu.Unlock()
	f.refuse(ua.StatusBadNoSubscription)
	expect(t, r, 0, 0, -1, 3)
	f.requests(t)
	f.set(1, 4)
	expect(t, r, 0, 0, -1, 3, 4)
}

// TestHoleInRunning: a message that did not come is asked for before the next one
// is handed on, and both are acknowledged.
func TestHoleInRunning(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.lose(1, 1, true)
	f.lose(1, 2, true)
	f.set(1, 3)
	expect(t, r, 0, 0, 1, 2, 3)
	f.requests(t)
	f.set(1, 4)
	f.requests(t)
	eventually(t, "acknowledgements", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.acked[2] && f.acked[3] && f.acked[4]
	})
	if f.did("session") != 1 {
		t.Error("the connection was made again")
	}
}

// TestKeepAliveShowsHole: a keep-alive names the next message; one before it that
// did not come is asked for.
func TestKeepAliveShowsHole(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.lose(1, 1, true)
	f.keepAlive()
	expect(t, r, 0, 0, 1)
}

// TestHoleThatStays: a message is gone for good. The gap is told for every tag,
// and what changed in it and stands still now is read.
func TestHoleThatStays(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 3)
	f.lose(1, 5, false)
	f.set(2, 6)
	expect(t, r, 0, 0, -1, 5)
	expect(t, r, 1, 0, -1, 6)
	f.requests(t)
	f.set(1, 7)
	f.set(3, 8)
	expect(t, r, 0, 0, -1, 5, 7)
	eventually(t, "the third tag", func() bool { got := shown(r.of(2)); return got[len(got)-1] == 8 })
	for _, v := range shown(r.of(2)) {
		if v == -1 {
			t.Errorf("a tag that is as it was tells a gap: %v", shown(r.of(2)))
		}
	}
}

// TestRepetition: a message that comes twice is handed on once.
func TestRepetition(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.mu.Lock()
	first := f.sub.seq
	m := f.message(f.sub.items[1], 1)
	f.publish(m)
	f.publish(m)
	f.mu.Unlock()
	f.requests(t)
	f.set(1, 2)
	expect(t, r, 0, 0, 1, 2)
	if f.did("republish "+string(rune('0'+first))) > 0 {
		t.Error("asked for a message that had come")
	}
}

// TestSequenceWraps: after 2^32-1 comes 1.
func TestSequenceWraps(t *testing.T) {
	if following(0xffffffff) != 1 || following(0) != 1 || following(7) != 8 {
		t.Error("following is wrong")
	}
	f := newFakeServer()
	s, r := openFake(t, f, 1)
	sub := s.link.list()[0]
	sub.mu.Lock()
	f.mu.Lock()
	f.sub.seq, sub.last = 0xfffffffd, 0xfffffffd
	f.mu.Unlock()
	sub.mu.Unlock()
	f.set(1, 1)
	f.lose(1, 2, true) // 0xffffffff
	f.set(1, 3)        // 1
	f.requests(t)
	f.set(1, 4)
	expect(t, r, 0, 0, 1, 2, 3, 4)
}

// TestRubbish: a message that cannot be read is told as a gap, and the next
// ones count.
func TestRubbish(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.mu.Lock()
	f.values[1] = 2
	f.mu.Unlock()
	f.rubbish()
	expect(t, r, 0, 0, -1, 2)
	f.requests(t)
	f.set(1, 3)
	eventually(t, "the next value", func() bool { got := shown(r.of(0)); return got[len(got)-1] == 3 })
}

// TestTooManyPublishRequests: the server's limit is kept.
func TestTooManyPublishRequests(t *testing.T) {
	f := newFakeServer()
	_, r := openFake(t, f, 1)
	f.refuse(ua.StatusBadTooManyPublishRequests)
	for v := 1.0; v <= 20; v++ {
		f.set(1, v)
	}
	want := []float64{0}
	for v := 1.0; v <= 20; v++ {
		want = append(want, v)
	}
	expect(t, r, 0, want...)
}
