package session

import (
	"errors"
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
)

func TestQoS2InboundSurvivesRestart(t *testing.T) {
	for _, small := range []bool{false, true} {
		o := Options{}
		if small {
			o.SnapshotBytes = 1
		}
		w := open(t, disktest.New(), o)
		c := w.connect("c", broker.Forever)
		for id := uint16(1); id <= 3; id++ {
			c.publish("a", "x", 2, func(it *broker.Item) { it.PacketID = id })
		}
		c.await(c.send(broker.Item{Kind: broker.ItemRelease, PacketID: 2}))
		w = w.crash(1)
		s := w.hub.byKey[sessionKey("c", "c")]
		if got := s.flightState().Received; !slices.Equal(got, []uint16{1, 3}) {
			t.Errorf("received and not released: %v", got)
		}
		w.restart()
		s = w.hub.byKey[sessionKey("c", "c")]
		if got := s.flightState().Received; !slices.Equal(got, []uint16{1, 3}) {
			t.Errorf("after the snapshot: %v", got)
		}
	}
}

// note makes a step of a QoS 2 delivery durable, as the engine does.
func (c *client) note(changes ...broker.FlightChange) {
	c.w.t.Helper()
	done := make(chan error, 1)
	c.s.Note(changes, func(err error) { done <- err })
	select {
	case err := <-done:
		if err != nil {
			c.w.t.Fatal(err)
		}
	case <-time.After(patience):
		c.w.t.Fatal("a note is not answered")
	}
}

func TestQoS2OutboundSurvivesRestart(t *testing.T) {
	for seed := range uint64(20) {
		o := Options{SaveEvery: time.Hour}
		if seed%2 == 1 {
			o.SnapshotBytes = 1
		}
		w := open(t, disktest.New(), o)
		sub, pub := w.connect("sub", broker.Forever), w.connect("pub", 0)
		sub.subscribe(2, "a")
		pub.publishAll("a", numbers("", 0, 5), 2)
		list := sub.hold(4)
		entry := func(i int, released bool) broker.FlightEntry {
			return broker.FlightEntry{PacketID: uint16(10 + i), ID: list[i].id, Released: released}
		}
		for i := range 4 {
			sub.note(broker.FlightChange{Entry: entry(i, false)})
		}
		sub.note(broker.FlightChange{Entry: entry(0, true)}, broker.FlightChange{Entry: entry(1, true)})
		sub.settle(list[1])
		sub.note(broker.FlightChange{Entry: entry(1, true), Settled: true})
		w = w.crash(seed)
		for range 2 { // and once more after an orderly end with a snapshot
			s := w.hub.byKey[sessionKey("sub", "sub")]
			want := []broker.FlightEntry{entry(0, true), entry(2, false), entry(3, false)}
			if got := s.flightState().Sent; !slices.Equal(got, want) {
				t.Fatalf("seed %d: in flight %v, want %v", seed, got, want)
			}
			sub = w.connect("sub", broker.Forever)
			if d, ok := sub.s.Recall(list[2].id); !ok || string(d.Message.Payload) != "2" || d.Message.QoS != 2 {
				t.Fatalf("seed %d: recall brings %v %+v", seed, ok, own(&d))
			}
			// Neither what is in flight nor what is over comes as a new delivery.
			if some := sub.hold(1); some[0].payload != "4" {
				t.Fatalf("seed %d: got %v", seed, payloads(some))
			}
			sub.nothing()
			sub.leave()
			w.restart()
		}
	}
}

func TestRetained(t *testing.T) {
	w := open(t, disktest.New(), Options{SnapshotBytes: 1})
	pub := w.connect("pub", 0)
	pub.publish("r/a", "old", 1, retain)
	pub.publish("r/a", "a", 1, retain)
	pub.publish("r/b", "b", 0, retain)
	pub.publish("r/c", "c", 2, retain)
	pub.publish("r/c", "", 1, retain)
	pub.publish("$r/x", "x", 1, retain)
	for _, after := range []string{"live", "restart"} {
		c := w.connect("c", broker.Forever, clean)
		c.subscribe(1, "#")
		list := c.take(2)
		want(t, list, "a", "b")
		if !list[0].retain || list[0].qos != 1 || list[1].qos != 0 {
			t.Errorf("%s: %+v", after, list)
		}
		c.subscribe(1, "#") // again: sent again
		c.take(2)
		c.subscribeTo(broker.Subscription{Filter: "#", QoS: 1, RetainHandling: 1})
		c.subscribeTo(broker.Subscription{Filter: "r/b", QoS: 1, RetainHandling: 2})
		c.nothing()
		c.subscribeTo(broker.Subscription{Filter: "r/a", QoS: 1, RetainHandling: 1})
		want(t, c.take(1), "a")
		c.subscribe(1, "$share/g/r/a")
		c.nothing()
		pub.publish("r/b", "live", 1, retain)
		if list = c.take(1); list[0].retain {
			t.Error("a live message came as retained")
		}
		pub.publish("r/b", "b", 0, retain)
		c.take(1)
		c.leave()
		if after == "live" {
			w.restart()
			pub = w.connect("pub", 0)
		}
	}
}

func TestRetainedInFlightAtRestart(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	pub := w.connect("pub", 0)
	for _, p := range numbers("", 0, 5) {
		pub.publish("r/"+p, p, 1, retain)
	}
	c := w.connect("c", broker.Forever)
	c.subscribe(1, "r/#")
	list := c.hold(5)
	c.settle(list[:2]...)
	if d, ok := c.s.Recall(list[3].id); !ok || string(d.Message.Payload) != "3" {
		t.Error("a retained message in flight cannot be sent again")
	}
	w = w.crash(3)
	c = w.connect("c", broker.Forever)
	want(t, c.take(5), numbers("", 0, 5)...)
	w.flush()
	w = w.crash(4)
	w.connect("c", broker.Forever).nothing()
}

func TestRetainedExpire(t *testing.T) {
	k := clocktest.New(time.Time{})
	w := open(t, disktest.New(), Options{Clock: k})
	pub := w.connect("pub", 0)
	pub.publish("r", "x", 1, retain, func(it *broker.Item) { it.Message.Expiry = time.Minute })
	k.Advance(2 * time.Minute)
	c := w.connect("c", 0)
	c.subscribe(1, "r")
	c.nothing()
	eventually(t, "the retained message is forgotten", func() bool {
		k.Advance(time.Second)
		return w.hub.Status().Retained == 0
	})
}

func withWill(topic, payload string, delay time.Duration) func(*broker.Connect) {
	return func(k *broker.Connect) {
		k.Will = &broker.Will{Message: broker.Message{Topic: []byte(topic), Payload: []byte(payload), QoS: 1}, Delay: delay}
	}
}

func TestWills(t *testing.T) {
	lost := broker.Detachment{}
	tests := []struct {
		name   string
		expiry time.Duration
		delay  time.Duration
		how    broker.Detachment
		pass   time.Duration // until the will is there; -1 = never
	}{
		{"lost, session ends", 0, time.Minute, lost, 0},
		{"lost, no delay", broker.Forever, 0, lost, 0},
		{"lost, delay", broker.Forever, time.Minute, lost, time.Minute},
		{"lost, session expires first", 10 * time.Second, time.Minute, lost, 10 * time.Second},
		{"said good-bye", broker.Forever, 0, broker.Detachment{Clean: true}, -1},
		{"said good-bye with will", broker.Forever, 0, broker.Detachment{Clean: true, WithWill: true}, 0},
		{"said good-bye, session ends", 0, 0, broker.Detachment{Clean: true}, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := clocktest.New(time.Time{})
			w := open(t, disktest.New(), Options{Clock: k})
			sub := w.connect("sub", 0)
			sub.subscribe(1, "will")
			c := w.connect("c", tt.expiry, withWill("will", "gone", tt.delay))
			tt.how.SessionExpiry = tt.expiry
			c.leave(tt.how)
			if tt.pass < 0 {
				k.Advance(time.Hour)
				sub.nothing()
				return
			}
			if tt.pass > 0 {
				sub.nothing()
				k.Advance(tt.pass - time.Second)
				sub.nothing()
				k.Advance(2 * time.Second)
			}
			eventually(t, "the will", func() bool {
				k.Advance(time.Millisecond)
				return len(sub.fetch(1)) == 1
			})
			k.Advance(time.Hour)
			sub.nothing()
		})
	}
}

func TestWillWithdrawnByReturn(t *testing.T) {
	k := clocktest.New(time.Time{})
	w := open(t, disktest.New(), Options{Clock: k})
	sub := w.connect("sub", 0)
	sub.subscribe(1, "will")
	c := w.connect("c", broker.Forever, withWill("will", "gone", time.Minute))
	c.leave()
	c = w.connect("c", broker.Forever)
	k.Advance(time.Hour)
	sub.nothing()
	c.leave()
	k.Advance(time.Hour)
	sub.nothing()
}

func TestWillAfterCrash(t *testing.T) {
	k := clocktest.New(time.Time{})
	w := open(t, disktest.New(), Options{Clock: k})
	sub := w.connect("sub", broker.Forever)
	sub.subscribe(1, "will")
	w.connect("short", 0, withWill("will", "short", 0))
	w.connect("long", broker.Forever, withWill("will", "long", time.Minute))
	bye := w.connect("bye", broker.Forever, withWill("will", "bye", 0))
	bye.leave(broker.Detachment{Clean: true, SessionExpiry: broker.Forever})
	w.flush()
	w = w.crash(5)
	sub = w.connect("sub", broker.Forever)
	eventually(t, "the will without delay", func() bool {
		k.Advance(time.Millisecond)
		list := sub.fetch(1)
		return len(list) == 1 && list[0].payload == "short"
	})
	sub.nothing()
	k.Advance(2 * time.Minute)
	eventually(t, "the will with delay", func() bool {
		k.Advance(time.Millisecond)
		list := sub.fetch(1)
		return len(list) == 1 && list[0].payload == "long"
	})
	w.flush()
	w = w.crash(6)
	k.Advance(time.Hour)
	if n := w.hub.Counters().Wills; n != 0 {
		t.Errorf("%d wills were published again", n)
	}
}

func TestSessionExpiry(t *testing.T) {
	k := clocktest.New(time.Time{})
	w := open(t, disktest.New(), Options{Clock: k})
	hour := broker.Detachment{SessionExpiry: time.Hour}
	c := w.connect("c", time.Hour)
	c.subscribe(1, "a")
	c.leave(hour)
	k.Jump(365 * 24 * time.Hour) // the wall is not elapsed time
	k.Advance(59 * time.Minute)
	c = w.connect("c", time.Hour)
	if !c.s.Present() {
		t.Fatal("the session expired early")
	}
	k.Advance(2 * time.Hour)
	w.flush()
	c.leave(hour)
	w.restart()
	k.Advance(59 * time.Minute)
	w.flush()
	if w.hub.byKey[sessionKey("c", "c")] == nil {
		t.Fatal("the session expired early after a restart")
	}
	w.close()
	k.Advance(time.Hour)
	w.start()
	eventually(t, "the session expires", func() bool {
		k.Advance(time.Second)
		return len(w.hub.Status().Sessions) == 0
	})
	w.flush()
	if names := w.hub.Journal().Cursors(); slices.Contains(names, "session/1") {
		t.Errorf("cursors left: %v", names)
	}
}

func TestSessionExpiryWithoutTrustedClock(t *testing.T) {
	k := clocktest.New(time.Time{})
	w := open(t, disktest.New(), Options{Clock: k})
	w.connect("c", time.Hour).leave(broker.Detachment{SessionExpiry: time.Hour})
	w.close()
	k.Jump(365 * 24 * time.Hour)
	k.SetQuality(clock.Unsynced)
	w.start()
	k.Advance(time.Minute)
	w.flush()
	if c := w.connect("c", time.Hour); !c.s.Present() {
		t.Error("a clock that nobody set ended a session")
	}
}

func TestSharedSubscription(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	pub := w.connect("pub", 0)
	var members []*client
	for i := range 3 {
		m := w.connect(fmt.Sprint("m", i), broker.Forever)
		m.subscribe(1, "$share/g/a/#")
		members = append(members, m)
	}
	pub.publishAll("a/b", numbers("", 0, 300), 1)
	w.flush()
	seen := map[string]int{}
	shares := make([]int, 3)
	for len(seen) < 300 {
		before := len(seen)
		for i, m := range members {
			some := m.fetch(50)
			m.settle(some...)
			shares[i] += len(some)
			for _, g := range some {
				seen[g.payload]++
			}
		}
		if len(seen) == before {
			t.Fatalf("only %d messages came", len(seen))
		}
	}
	for p, n := range seen {
		if n != 1 {
			t.Errorf("message %s came %d times", p, n)
		}
	}
	if slices.Min(shares) == 0 {
		t.Errorf("a member got nothing: %v", shares)
	}
}

func TestSharedSubscriptionOfLostMember(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	pub := w.connect("pub", 0)
	one, two := w.connect("one", broker.Forever), w.connect("two", broker.Forever)
	one.subscribe(1, "$share/g/a")
	two.subscribe(1, "$share/g/a")
	two.leave()
	pub.publishAll("a", numbers("", 0, 10), 1)
	list := one.hold(10)
	one.settle(list[0], list[5])
	two = w.connect("two", broker.Forever)
	one.leave()
	var all []string
	for len(all) < 8 {
		some := two.fetch(100)
		if len(some) == 0 {
			t.Fatalf("only %v came", all)
		}
		two.settle(some...)
		all = append(all, payloads(some)...)
	}
	if want := []string{"1", "2", "3", "4", "6", "7", "8", "9"}; !slices.Equal(all, want) {
		t.Errorf("got %v, want %v", all, want)
	}
	one = w.connect("one", broker.Forever)
	if _, ok := one.s.Recall(list[1].id); ok {
		t.Error("a delivery that went to another member can be sent again")
	}
	one.nothing()
	// All away: it waits, also over a restart.
	one.leave()
	two.leave()
	pub.publishAll("a", numbers("x", 0, 5), 1)
	w.restart()
	two = w.connect("two", broker.Forever)
	want(t, two.take(5), numbers("x", 0, 5)...)
}

func TestFullDisk(t *testing.T) {
	fs := disktest.New()
	w := open(t, fs, Options{SaveEvery: 10 * time.Millisecond})
	five, four := w.connect("five", 0), w.connect("four", 0, old)
	sub := w.connect("sub", broker.Forever)
	sub.subscribe(1, "#")
	five.publish("a", "before", 1)
	fs.Fail(disktest.OpWrite, 1, -1, syscall.ENOSPC)
	fs.Fail(disktest.OpAllocate, 1, -1, syscall.ENOSPC)
	if code := five.publish("a", "refused", 1); code < 0x80 {
		t.Errorf("answered with %#x", code)
	}
	var waiting []<-chan *broker.Inbound
	for _, p := range numbers("", 0, 20) {
		it := message("a", p, 1)
		it.PacketID = 1
		waiting = append(waiting, four.send(it))
	}
	time.Sleep(50 * time.Millisecond)
	for _, c := range waiting {
		select {
		case <-c:
			t.Fatal("answered although nothing can be stored")
		default:
		}
	}
	fs.Heal()
	for _, c := range waiting {
		if it := four.await(c)[0]; it.Code != 0 {
			t.Fatalf("answered with %#x", it.Code)
		}
	}
	list := sub.take(21)
	want(t, list, append([]string{"before"}, numbers("", 0, 20)...)...)
}

func TestBudgetLeavesAGapThatIsTold(t *testing.T) {
	w := open(t, disktest.New(), Options{Journal: journal.Options{SegmentBytes: 64 << 10, MaxBytes: 256 << 10, GroupBytes: 16 << 10, TailBytes: 1}})
	sub := w.connect("sub", broker.Forever)
	sub.subscribe(1, "a")
	sub.leave()
	pub := w.connect("pub", 0)
	payload := string(make([]byte, 1000))
	for range 160 {
		list := make([]string, 5)
		for i := range list {
			list[i] = payload
		}
		pub.publishAll("a", list, 1)
	}
	eventually(t, "the journal drops something", func() bool {
		rec, err := w.hub.Journal().ReadAt(100)
		return err == nil && rec.Gap != nil
	})
	sub = w.connect("sub", broker.Forever)
	n := 0
	for {
		some := sub.fetch(100)
		if len(some) == 0 {
			break
		}
		n += len(some)
		sub.settle(some...)
	}
	st := w.hub.Status()
	i := slices.IndexFunc(st.Sessions, func(s SessionStatus) bool { return s.Client == "sub" })
	if s := st.Sessions[i]; n == 800 || s.Lost < uint64(800-n) {
		t.Errorf("%d of 800 came, %d counted as lost", n, s.Lost)
	}
	if !slices.ContainsFunc(st.Conditions, func(c Condition) bool { return c.Name == "sessions-lost-messages" }) {
		t.Errorf("conditions %+v", st.Conditions)
	}
	pub.publish("a", "later", 1)
	want(t, sub.take(1), "later")
}

func TestDamagedSnapshot(t *testing.T) {
	fs := disktest.New()
	w := open(t, fs, Options{})
	w.connect("c", broker.Forever).leave()
	w.close()
	f, err := fs.Open("sessions/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 12); err != nil {
		t.Fatal(err)
	}
	f.Close()
	w.start()
	if c := w.hub.Status().Conditions; len(c) != 1 || c[0].Name != "sessions-snapshot-damaged" {
		t.Errorf("conditions %+v", c)
	}
	if names, _ := fs.List("sessions"); !slices.Contains(names, "snapshot.bad") {
		t.Errorf("the damaged file was not kept: %v", names)
	}
	// What the journal still has counts.
	if c := w.connect("c", broker.Forever); !c.s.Present() {
		t.Error("the session is gone although the journal knows it")
	}
}

func TestNobodyWithoutAccess(t *testing.T) {
	h, err := Open(disktest.New(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	_, err = h.Authenticate(t.Context(), &broker.Connect{ClientID: "c"})
	var r *broker.Refusal
	if !errors.As(err, &r) || r.Code != broker.NotAuthorized {
		t.Errorf("%v", err)
	}
}

// TestFullQueue: what the journal's queue has no room for waits, in order.
func TestFullQueue(t *testing.T) {
	fs := disktest.New()
	fs.SetSyncDelay(time.Millisecond)
	w := open(t, fs, Options{Journal: journal.Options{QueueBytes: 2 << 10}})
	sub, pub := w.connect("sub", 0), w.connect("pub", 0)
	sub.subscribe(1, "a")
	var answers []<-chan *broker.Inbound
	for _, p := range numbers("", 0, 500) {
		it := message("a", p, 1)
		it.PacketID = 1
		answers = append(answers, pub.send(it))
	}
	for _, a := range answers {
		if it := pub.await(a)[0]; it.Code != 0 {
			t.Fatalf("answered with %#x", it.Code)
		}
	}
	want(t, sub.take(500), numbers("", 0, 500)...)
}

func TestTooLargeForTheJournal(t *testing.T) {
	w := open(t, disktest.New(), Options{Journal: journal.Options{SegmentBytes: 64 << 10}})
	c := w.connect("c", 0, old)
	if code := c.publish("a", string(make([]byte, 9<<10)), 1); code != broker.PacketTooLarge {
		t.Errorf("answered with %#x", code)
	}
	if code := c.publish("a", string(make([]byte, 8<<10)), 1); code != 0 {
		t.Errorf("answered with %#x", code)
	}
}

// TestSyncFails: what was written before a failed sync is not confirmed, and the
// hub goes on by itself.
func TestSyncFails(t *testing.T) {
	fs := disktest.New()
	w := open(t, fs, Options{SaveEvery: 10 * time.Millisecond})
	sub := w.connect("sub", broker.Forever)
	sub.subscribe(1, "#")
	five, four := w.connect("five", 0), w.connect("four", 0, old)
	fs.Fail(disktest.OpSync, 1, 3, syscall.EIO)
	if code := five.publish("a", "x", 1); code < 0x80 {
		t.Errorf("answered with %#x", code)
	}
	if code := four.publish("a", "kept", 1); code != 0 {
		t.Errorf("answered with %#x", code)
	}
	for {
		if list := sub.take(1); list[0].payload == "kept" {
			break
		}
	}
	if code := five.publish("a", "y", 1); code != 0 {
		t.Errorf("answered with %#x afterwards", code)
	}
}
