package forward

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/hub"
	"holdfast/hub/journal"
)

// checkOnce fails unless exactly the offsets 1..n arrived and were confirmed,
// each once, in order.
func checkOnce(t *testing.T, got []arrival, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%d arrivals, want %d", len(got), n)
	}
	for i, a := range got {
		if a.off != uint64(i+1) || a.verdict != confirm || a.sender == "wrong payload" {
			t.Fatalf("arrival %d is %+v", i, a)
		}
	}
}

func TestDrainsInOrderAndRemembers(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(3000, 5, "a", "b", "c")...)
	b.log.add(b.clk, entry{sender: "a", endpoint: "elsewhere"})
	b.start(Options{Window: 100})
	b.until("drained", b.empty)
	if err := b.stop(); err != nil {
		t.Fatal(err)
	}
	checkOnce(t, b.far.arrivals(), 3000)
	if s := b.f.Stats(); s.Confirmed != 3000 || s.Sent != 3000 || s.Retried != 0 || s.InFlight != 0 {
		t.Errorf("%+v", s)
	}
	b.log = b.log.crash()
	b.log.add(b.clk, repeat(1, 5, "a")...)
	b.far.got = nil
	b.start(Options{})
	b.until("drained", b.empty)
	if got := b.far.arrivals(); len(got) != 1 || got[0].off != 3002 {
		t.Errorf("after a clean stop it sent %v", got)
	}
}

func TestLinkLossSendsTheWindowAgain(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(1000, 5, "a", "b")...)
	n := 0
	b.far.judge = func(m *hub.Outgoing) verdict {
		if n++; n > 300 {
			return hold
		}
		return confirm
	}
	b.start(Options{Window: 64})
	b.still("the window is full", func() bool { return b.far.count() == 364 })
	if s := b.f.Stats(); s.Link.Phase != Up || s.InFlight != 64 {
		t.Errorf("%+v", s)
	}
	b.far.set(nil)
	b.far.cut()
	b.still("the loss is told", func() bool { return b.f.Stats().Link.Phase != Up })
	if s := b.f.Stats(); s.Link.Reason != "cut" || s.InFlight != 0 || s.Queued[0] != 700 {
		t.Errorf("while down: %+v", s)
	}
	b.until("drained", b.empty)
	got := b.far.arrivals()
	checkOnce(t, got[:300], 300)
	for i, a := range got[364:] {
		want := 1
		if i < 64 {
			want = 2
		}
		if a.off != uint64(301+i) || a.attempt != want {
			t.Fatalf("after the loss, arrival %d is %+v", i, a)
		}
	}
	if s := b.f.Stats(); s.Confirmed != 1000 || s.Retried != 64 || len(got) != 1064 {
		t.Errorf("%d arrivals, %+v", len(got), s)
	}
}

// TestCrashRepeatsTheWindowOnly cuts the power between confirmations and the
// saving of the position.
func TestCrashRepeatsTheWindowOnly(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(5000, 5, "a")...)
	o := Options{Window: 50, DuplicateWindow: 200}
	b.start(o)
	b.still("the first save", func() bool {
		b.log.mu.Lock()
		defer b.log.mu.Unlock()
		return b.log.durable != nil
	})
	b.log.setFlush(true, nil)
	at := 0
	b.still("sending has stopped at the duplicate window", func() bool {
		before := at
		at = b.far.count()
		time.Sleep(5 * time.Millisecond)
		return at > 0 && at == before && b.f.Stats().InFlight == 0
	})
	crashed := b.log.crash()
	done := confirmedBefore(t, crashed)
	if over := at - int(done); over > 200 {
		t.Errorf("%d were sent beyond the durable position %d, want at most 200", over, done)
	}
	b.log.setFlush(false, nil)
	b.stop()

	c := newBench(t)
	c.log, c.clk = crashed, b.clk
	c.start(o)
	c.until("drained", c.empty)
	checkTail(t, c.far.arrivals(), done+1, 5000)
}

// confirmedBefore returns the last offset before the durable position.
func confirmedBefore(t *testing.T, l *fakeLog) journal.Offset {
	t.Helper()
	_, lanes, err := parseState(l.durable.state)
	if err != nil || len(lanes) != 1 {
		t.Fatalf("%d lanes, %v", len(lanes), err)
	}
	if low := lanes[0].low(); low != l.durable.low+1 {
		t.Errorf("saved offset %d, but the state says %d", l.durable.low, low)
	}
	return l.durable.low
}

// checkTail fails unless from..to arrived in order, holes of a saved position
// aside.
func checkTail(t *testing.T, got []arrival, from, to journal.Offset) {
	t.Helper()
	if !slices.IsSortedFunc(got, func(a, b arrival) int { return int(a.off) - int(b.off) }) {
		t.Error("not in order")
	}
	if len(got) == 0 || got[0].off != uint64(from) || got[len(got)-1].off != uint64(to) {
		t.Errorf("%d arrivals, want %d to %d", len(got), from, to)
	}
}

func TestFailingSenderStepsAside(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(2000, 5, "good", "bad", "fine")...)
	b.far.judge = func(m *hub.Outgoing) verdict {
		if string(m.Record.Sender) == "bad" {
			return later
		}
		return confirm
	}
	var mu sync.Mutex
	var conditions []Condition
	b.start(Options{Window: 32, OnCondition: func(c Condition) {
		mu.Lock()
		defer mu.Unlock()
		conditions = append(conditions, c)
	}})
	// No time passes: the good ones do not wait for the bad one's back-off.
	b.still("the others are through", func() bool { return b.f.Stats().Confirmed == 1333 })
	s := b.f.Stats()
	if s.Parked != 1 || s.Failed == 0 || s.Failed > 32 {
		t.Errorf("%+v", s)
	}
	// It is tried again alone, ever more rarely.
	before := b.far.count()
	start := b.clk.Elapsed()
	b.pass(250*time.Millisecond, "a minute has passed", func() bool { return b.clk.Elapsed()-start > time.Minute })
	if n := b.far.count() - before; n < 4 || n > 9 {
		t.Errorf("%d probes in a minute, want about 6", n)
	}
	b.far.set(nil)
	b.until("all are through", func() bool { return b.f.Stats().Confirmed == 2000 && b.empty() })
	checkSenderOrder(t, b.far.arrivals(), 2000)
	if s := b.f.Stats(); s.Parked != 0 {
		t.Errorf("%+v", s)
	}
	mu.Lock()
	defer mu.Unlock()
	var parked []bool
	for _, c := range conditions {
		if c.Trouble == SendersParked {
			parked = append(parked, c.On)
		}
	}
	if !slices.Equal(parked, []bool{true, false}) {
		t.Errorf("conditions %v", conditions)
	}
}

// checkFirstTries checks that no record of a sender and priority was tried for
// the first time before an earlier one.
func checkFirstTries(t *testing.T, got []arrival) {
	t.Helper()
	tried := map[uint64]bool{}
	newest := map[string]uint64{}
	for _, a := range got {
		key := a.sender + string('0'+a.prio)
		if !tried[a.off] && a.off < newest[key] {
			t.Errorf("%d of %q was tried first after %d", a.off, key, newest[key])
		}
		tried[a.off] = true
		newest[key] = max(newest[key], a.off)
	}
}

// checkSenderOrder checks first tries, and that each of n offsets was confirmed
// exactly once.
func checkSenderOrder(t *testing.T, got []arrival, n int) {
	t.Helper()
	checkFirstTries(t, got)
	confirmed := map[uint64]int{}
	for _, a := range got {
		if a.verdict == confirm {
			confirmed[a.off]++
		}
	}
	for off := uint64(1); off <= uint64(n); off++ {
		if confirmed[off] != 1 {
			t.Errorf("%d was confirmed %d times", off, confirmed[off])
		}
	}
}

func TestMoreFailingSendersThanPlaces(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(300, 5, "a", "b", "c", "d")...)
	open := map[string]bool{}
	b.far.judge = func(m *hub.Outgoing) verdict {
		if open[string(m.Record.Sender)] {
			return confirm
		}
		return later
	}
	b.start(Options{Window: 16, MaxParked: 2})
	start := b.clk.Elapsed()
	b.until("ten seconds have passed", func() bool { return b.clk.Elapsed()-start > 10*time.Second })
	if s := b.f.Stats(); s.Parked != 2 || s.Confirmed != 0 {
		t.Errorf("%+v", s)
	}
	for _, s := range []string{"d", "a", "c", "b"} {
		b.far.set(func(m *hub.Outgoing) verdict {
			if open[s] = true; open[string(m.Record.Sender)] {
				return confirm
			}
			return later
		})
		start := b.clk.Elapsed()
		b.until("some time has passed", func() bool { return b.clk.Elapsed()-start > 5*time.Second })
	}
	b.until("all are through", func() bool { return b.f.Stats().Confirmed == 300 && b.empty() })
	checkSenderOrder(t, b.far.arrivals(), 300)
}

// TestPriorityOvertakes has a long backlog, a failing sender and a slow far
// side; a record of priority 0 gets the next free place.
func TestPriorityOvertakes(t *testing.T) {
	const window = 16
	b := newBench(t)
	b.log.add(b.clk, repeat(20_000, 5, "bulk", "bad")...)
	n := 0
	b.far.judge = func(m *hub.Outgoing) verdict {
		switch {
		case string(m.Record.Sender) == "bad":
			return later
		case n >= 100:
			return hold
		}
		n++
		return confirm
	}
	b.start(Options{Window: window, Priorities: []uint8{5, 0, 7}})
	b.still("the window is full, and nothing of priority 0 is in the backlog", func() bool {
		s := b.f.Stats()
		return s.InFlight == window && s.Queued[0] == 0
	})
	before := b.far.count() // a failure that comes late may make room before the release
	b.log.add(b.clk, entry{sender: "alarm", prio: 0})
	b.log.add(b.clk, repeat(10, 7, "bulk")...)
	b.far.release(nil)
	alarm := func() int {
		return slices.IndexFunc(b.far.arrivals()[before:], func(a arrival) bool { return a.sender == "alarm" })
	}
	b.still("the alarm is in the next window", func() bool { return alarm() >= 0 })
	if i := alarm(); i > window {
		t.Errorf("%d others went first", i)
	}
	b.far.set(nil)
	b.far.release(nil)
	b.until("all are through", func() bool { return b.f.Stats().Confirmed == 20_011 && b.empty() })
	got := b.far.arrivals()
	checkSenderOrder(t, got, 20_011)
	// The sender that failed may come last of all: it waits out its pause.
	got = slices.DeleteFunc(got, func(a arrival) bool { return a.sender == "bad" })
	if last := got[len(got)-1]; last.prio != 7 {
		t.Errorf("the last one is %+v, want one of priority 7", last)
	}
}

func TestTimeToLiveIsLookedAtAgain(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk,
		entry{sender: "a", prio: 5, ttl: time.Minute}, // 1: fails, expires while it waits
		entry{sender: "a", prio: 5},                   // 2
		entry{sender: "b", prio: 5, ttl: time.Minute}, // 3: confirmed in time
		entry{sender: "c", prio: 5, ttl: 30 * time.Second},
	)
	b.far.judge = func(m *hub.Outgoing) verdict {
		if string(m.Record.Sender) == "b" {
			return confirm
		}
		return later
	}
	b.start(Options{MinPause: 2 * time.Minute, MaxPause: 2 * time.Minute})
	b.still("three have failed", func() bool { s := b.f.Stats(); return s.Failed == 3 && s.Confirmed == 1 })
	b.far.set(nil)
	b.pass(time.Second, "drained", b.empty)
	s := b.f.Stats()
	if s.Expired != 2 || s.Confirmed != 2 {
		t.Errorf("%+v", s)
	}
	got := b.far.arrivals()
	if last := got[len(got)-1]; last.off != 2 || last.attempt != 2 || len(got) != 5 {
		t.Errorf("arrivals %v", got)
	}
}

func TestExpiresWhileTheLinkIsDown(t *testing.T) {
	b := newBench(t)
	b.far.refuse = errors.New("no route to host")
	b.log.add(b.clk, entry{sender: "a", prio: 5, ttl: time.Minute}, entry{sender: "a", prio: 5})
	b.start(Options{})
	b.still("it is told", func() bool { return b.f.Stats().Link.Reason == "no route to host" })
	if s := b.f.Stats(); s.Expired != 0 || s.Queued[0] != 2 {
		t.Errorf("%+v", s)
	}
	b.pass(time.Second/2, "the first has expired", func() bool { return b.f.Stats().Expired == 1 })
	if s := b.f.Stats(); s.Oldest < 50*time.Second || s.Link.Phase == Up {
		t.Errorf("%+v", s)
	}
	b.far.mu.Lock()
	b.far.refuse = nil
	b.far.mu.Unlock()
	b.until("drained", b.empty)
	if got := b.far.arrivals(); len(got) != 1 || got[0].off != 2 {
		t.Errorf("arrivals %v", got)
	}
}

// deadStore is a dead letter store that fails when told.
type deadStore struct {
	mu     sync.Mutex
	err    error
	putErr error
	kept   []DeadLetter
}

func (s *deadStore) Put(d *DeadLetter, done func(error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.putErr != nil {
		return s.putErr
	}
	err := s.err
	if err == nil {
		var c DeadLetter
		if err := c.Parse(d.Append(nil)); err != nil {
			return err
		}
		s.kept = append(s.kept, c)
	}
	go done(err)
	return nil
}

func TestRefusedBecomesDeadLetter(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(10, 5, "a", "b")...)
	b.far.judge = func(m *hub.Outgoing) verdict {
		if m.Offset == 3 || m.Offset == 4 {
			return reject
		}
		return confirm
	}
	store := &deadStore{err: journal.ErrNoSpace}
	b.start(Options{DeadLetters: store})
	// While the store fails, the refused ones and what follows from their
	// senders stay in the queue.
	b.until("the store has failed a few times", func() bool { return b.f.Stats().Rejected > 5 })
	if s := b.f.Stats(); s.DeadLettered != 0 || s.Parked == 0 || s.Dropped != 0 {
		t.Errorf("%+v", s)
	}
	store.mu.Lock()
	store.err, store.putErr = nil, journal.ErrFull
	store.mu.Unlock()
	n := b.f.Stats().Rejected
	b.until("the store has refused a few times", func() bool { return b.f.Stats().Rejected > n+3 })
	store.mu.Lock()
	store.putErr = nil
	store.mu.Unlock()
	b.until("drained", b.empty)
	if err := b.stop(); err != nil {
		t.Error(err)
	}
	if s := b.f.Stats(); s.Confirmed != 8 || s.DeadLettered != 2 {
		t.Errorf("%+v", s)
	}
	for i, d := range store.kept {
		if d.Offset != uint64(3+i) && d.Offset != uint64(4-i) || d.Epoch != 7 || d.Endpoint != endpoint ||
			!strings.Contains(d.Reason, "payload format") || string(d.Record.Payload) != string('0'+byte(d.Offset)) || d.Time.IsZero() {
			t.Errorf("dead letter %+v", d)
		}
	}
}

func TestRefusedWithoutStoreIsCounted(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(3, 5, "a")...)
	b.far.judge = func(m *hub.Outgoing) verdict {
		if m.Offset == 2 {
			return reject
		}
		return confirm
	}
	told := make(chan Condition, 10)
	b.start(Options{OnCondition: func(c Condition) { told <- c }})
	b.until("drained", b.empty)
	if s := b.f.Stats(); s.Dropped != 1 || s.Rejected != 1 || s.Confirmed != 2 {
		t.Errorf("%+v", s)
	}
	if c := <-told; c.Trouble != Rejecting || !c.On || !strings.Contains(c.Reason, "record 2") {
		t.Errorf("condition %+v", c)
	}
	b.pass(5*time.Second, "the trouble is over after a while", func() bool { return len(told) > 0 })
	if c := <-told; c.Trouble != Rejecting || c.On {
		t.Errorf("condition %+v", c)
	}
}

func TestGapIsTold(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(100, 5, "a")...)
	b.log.dropRange(11, 50, journal.Budget)
	fails := 2
	b.far.judge = func(m *hub.Outgoing) verdict {
		if string(m.Record.Topic) == "gap" && fails > 0 {
			fails--
			return later
		}
		return confirm
	}
	b.start(Options{GapTopic: "gap", Priorities: []uint8{0, 5}})
	b.until("drained", b.empty)
	if s := b.f.Stats(); s.Lost != 40 || s.Confirmed != 61 || s.Parked != 0 {
		t.Errorf("%+v", s)
	}
	var gaps []string
	for _, a := range b.far.arrivals() {
		if a.gap != "" {
			gaps = append(gaps, a.gap)
		}
	}
	want := `{"epoch":7,"from":11,"to":50,"count":40,"reason":"budget"}`
	if len(gaps) != 3 || gaps[0] != want || gaps[2] != want {
		t.Errorf("gap messages %v", gaps)
	}
}

// TestGapOverHoles drops records that were in flight when the link was lost.
func TestGapOverHoles(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(30, 5, "a")...)
	b.far.judge = func(m *hub.Outgoing) verdict { return hold }
	b.start(Options{Window: 20})
	b.still("the window is full", func() bool { return b.f.Stats().InFlight == 20 })
	b.log.dropRange(5, 25, journal.Budget)
	b.far.set(nil)
	b.far.cut()
	b.until("drained", b.empty)
	if s := b.f.Stats(); s.Lost != 21 || s.Confirmed != 9 {
		t.Errorf("%+v", s)
	}
}

func TestLinkThatSettlesNothingIsDown(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(10, 5, "a")...)
	b.far.judge = func(m *hub.Outgoing) verdict { return hold }
	b.start(Options{Bound: 10 * time.Second})
	b.still("all are in flight", func() bool { return b.f.Stats().InFlight == 10 })
	start := b.clk.Elapsed()
	b.until("the link is given up", func() bool { return b.f.Stats().Link.Phase != Up })
	if took := b.clk.Elapsed() - start; took < 10*time.Second || took > 11*time.Second {
		t.Errorf("took %v, want 10 s", took)
	}
	if s := b.f.Stats(); !strings.Contains(s.Link.Reason, "nothing confirmed for 10") {
		t.Errorf("%+v", s)
	}
	b.far.set(nil)
	b.until("drained", b.empty)
	if s := b.f.Stats(); s.Confirmed != 10 || s.Link.Phase != Up || s.Link.LastConfirmed.IsZero() {
		t.Errorf("%+v", s)
	}
}

// TestLinkThatAdvancesIsUp has one record take the far side a minute, with an
// answer now and then, and then none any more.
func TestLinkThatAdvancesIsUp(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(1, 5, "a")...)
	b.far.judge = func(m *hub.Outgoing) verdict { return hold }
	b.start(Options{Bound: 10 * time.Second})
	b.still("it is in flight", func() bool { return b.f.Stats().InFlight == 1 })
	start := b.clk.Elapsed()
	b.pass(time.Second, "a minute has passed", func() bool {
		b.far.advanced.Add(1)
		return b.clk.Elapsed()-start > time.Minute
	})
	if s := b.f.Stats(); s.Link.Phase != Up || s.Connects != 1 {
		t.Fatalf("%+v", s)
	}
	start = b.clk.Elapsed()
	b.until("the link is given up", func() bool { return b.f.Stats().Link.Phase != Up })
	if took := b.clk.Elapsed() - start; took > 21*time.Second { // it is looked at once in each bound
		t.Errorf("took %v", took)
	}
}

// TestFlappingLinkBacksOff checks that a link which connects and confirms
// nothing is not dialled at full speed.
func TestFlappingLinkBacksOff(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(10, 5, "a")...)
	b.far.judge = func(m *hub.Outgoing) verdict { go b.far.cut(); return hold }
	b.start(Options{})
	start := b.clk.Elapsed()
	b.pass(time.Second/2, "five minutes have passed", func() bool { return b.clk.Elapsed()-start > 5*time.Minute })
	if n := b.f.Stats().Connects; n < 8 || n > 18 {
		t.Errorf("%d connections in five minutes, want about 12", n)
	}
}

func TestStopWaitsForWhatIsInFlight(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(10, 5, "a")...)
	b.far.judge = func(m *hub.Outgoing) verdict { return hold }
	b.start(Options{DrainTimeout: time.Hour})
	b.still("all are in flight", func() bool { return b.f.Stats().InFlight == 10 })
	stopped := make(chan error, 1)
	go func() { stopped <- b.stop() }()
	b.until("a second has passed", func() bool { return b.clk.Elapsed() > time.Second })
	if len(stopped) > 0 {
		t.Fatal("did not wait")
	}
	b.far.release(nil)
	if err := <-stopped; err != nil {
		t.Error(err)
	}
	if low := b.log.durable.low; low != 10 {
		t.Errorf("saved position is %d, want 10", low)
	}
}

func TestStopTellsWhatIsNotSaved(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(10, 5, "a")...)
	b.log.setFlush(false, journal.ErrFailed)
	b.start(Options{})
	b.until("all are confirmed", func() bool { return b.f.Stats().Confirmed == 10 })
	if err := b.stop(); err == nil || !strings.Contains(err.Error(), "position is not saved") {
		t.Errorf("stop says %v", err)
	}
}

// TestDetourStaysBehindItsLane has a sender that comes back while its lane
// still has a long way to go: nothing may be sent by both.
func TestDetourStaysBehindItsLane(t *testing.T) {
	b := newBench(t)
	b.log.add(b.clk, repeat(2000, 5, "a", "a", "a", "a", "a", "a", "a", "a", "a", "b")...)
	b.far.judge = func(m *hub.Outgoing) verdict {
		if m.Offset == 10 && m.Attempt < 3 {
			return later
		}
		return confirm
	}
	b.start(Options{MinPause: 1, MaxPause: 1, Rand: func() float64 { return 0 }, Window: 64})
	b.still("drained", b.empty)
	checkSenderOrder(t, b.far.arrivals(), 2000)
	if s := b.f.Stats(); s.Failed != 2 || s.Retried < 2 || s.Parked != 0 {
		t.Errorf("%+v", s)
	}
}

func TestWindowBytes(t *testing.T) {
	b := newBench(t)
	for range 20 {
		b.log.add(b.clk, entry{sender: "a", prio: 5, size: 1000})
	}
	b.log.add(b.clk, entry{sender: "a", prio: 5, size: 50_000}, entry{sender: "a", prio: 5})
	b.far.judge = func(m *hub.Outgoing) verdict { return hold }
	b.start(Options{WindowBytes: 10_000})
	most, largest := 0, 0
	b.until("drained", func() bool {
		s := b.f.Stats()
		if most = max(most, s.InFlight); s.InFlightBytes > 10_000 {
			largest = max(largest, s.InFlight)
		}
		if s.InFlight > 0 {
			b.far.release(nil)
		}
		return b.empty()
	})
	if most < 8 || most > 9 || largest != 1 {
		t.Errorf("at most %d in flight, %d beside the one that is larger than the window", most, largest)
	}
	checkSenderOrder(t, b.far.arrivals(), 22)
}
