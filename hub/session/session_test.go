package session

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hub/broker"
)

func TestDelivery(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	pub, sub := w.connect("pub", 0), w.connect("sub", 0)
	sub.subscribe(1, "a/+")
	for i, p := range numbers("m", 0, 3) {
		pub.publish(fmt.Sprintf("a/%d", i), p, byte(i))
	}
	pub.publish("b/0", "not wanted", 1)
	list := sub.take(3)
	want(t, list, "m0", "m1", "m2")
	for i, q := range []byte{0, 1, 1} {
		if list[i].qos != q {
			t.Errorf("message %d came with QoS %d, want %d", i, list[i].qos, q)
		}
	}
	sub.nothing()
}

func TestOfflineSessionGetsItAll(t *testing.T) {
	for _, n := range []int{5, 20_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := open(t, disktest.New(), Options{})
			sub := w.connect("sub", broker.Forever)
			if sub.s.Present() {
				t.Error("a new session was there before")
			}
			sub.subscribe(1, "a/#")
			sub.leave()
			pub := w.connect("pub", 0)
			pub.publishAll("a/b", numbers("", 0, n), 1)
			sub = w.connect("sub", broker.Forever)
			if !sub.s.Present() {
				t.Error("the session is gone")
			}
			want(t, sub.take(n), numbers("", 0, n)...)
			sub.nothing()
			if s := w.hub.Status().Sessions; s[1].Client != "sub" || s[1].Lag != 0 || s[1].Behind {
				t.Errorf("status %+v", s[1])
			}
		})
	}
}

func TestOfflineMemoryDoesNotGrow(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	sub := w.connect("sub", broker.Forever)
	sub.subscribe(1, "#")
	sub.leave()
	w.connect("pub", 0).publishAll("a", numbers("", 0, 5000), 1)
	w.flush()
	s := w.hub.byKey[sessionKey("sub", "sub")]
	if n := s.feed.pending.len() + len(s.feed.window); n != 0 {
		t.Errorf("an offline session keeps %d items in memory", n)
	}
	if st := w.hub.Status().Sessions[1]; !st.Behind || st.Lag < 5000 {
		t.Errorf("status %+v", st)
	}
}

func TestSlowSessionFallsBehindAndCatchesUp(t *testing.T) {
	for _, tt := range []struct {
		name string
		o    Options
	}{
		{"pending", Options{MaxPending: 10}},
		{"ring", Options{RingBytes: 8 << 10}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := open(t, disktest.New(), tt.o)
			pub := w.connect("pub", 0)
			for _, expiry := range []time.Duration{0, broker.Forever} {
				slow, quick := w.connect(fmt.Sprint("slow", expiry), expiry), w.connect(fmt.Sprint("quick", expiry), 0)
				slow.subscribe(1, "a")
				quick.subscribe(1, "a")
				sent := numbers("x", 0, 1000)
				for i := 0; i < len(sent); i += 5 {
					pub.publishAll("a", sent[i:i+5], 1)
					want(t, quick.take(5), sent[i:i+5]...)
				}
				before := w.hub.Counters().FellBehind
				want(t, slow.take(1000), sent...)
				slow.nothing()
				pub.publishAll("a", []string{"again"}, 1)
				want(t, slow.take(1), "again")
				if w.hub.Counters().FellBehind == 0 {
					t.Error("it never fell behind", before)
				}
				slow.leave()
				quick.leave()
			}
		})
	}
}

func TestConcurrentStream(t *testing.T) {
	const senders, each = 4, 3000
	w := open(t, disktest.New(), Options{MaxPending: 64, RingBytes: 16 << 10})
	sub := w.connect("sub", broker.Forever)
	sub.subscribe(1, "s/+")
	for i := range senders {
		pub := w.connect(fmt.Sprint("pub", i), 0)
		go func() {
			list := numbers("", 0, each)
			for len(list) > 0 {
				n := min(len(list), 17)
				pub.publishAll(fmt.Sprint("s/", i), list[:n], 1)
				list = list[n:]
			}
		}()
	}
	next := map[string]int{}
	for range senders * each / 100 {
		for _, g := range sub.take(100) {
			if g.payload != fmt.Sprint(next[g.topic]) {
				t.Fatalf("%s: got %s, want %d", g.topic, g.payload, next[g.topic])
			}
			next[g.topic]++
		}
	}
	sub.nothing()
}

func TestUnsettledAreRecalled(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	sub, pub := w.connect("sub", broker.Forever), w.connect("pub", 0)
	sub.subscribe(1, "a")
	pub.publishAll("a", numbers("", 0, 5), 1)
	list := sub.hold(5)
	sub.settle(list[1])
	sub.leave()
	sub = w.connect("sub", broker.Forever)
	for i, g := range list {
		d, ok := sub.s.Recall(g.id)
		if ok != (i != 1) {
			t.Errorf("recall of %d: %v", i, ok)
		} else if ok && (own(&d).payload != g.payload || d.Message.QoS != 1 || d.ID != g.id) {
			t.Errorf("recall of %d brings %+v", i, own(&d))
		}
	}
	sub.nothing()
}

func TestUnsettledComeAgainAfterRestart(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	sub, pub := w.connect("sub", broker.Forever), w.connect("pub", 0)
	sub.subscribe(1, "a")
	pub.publishAll("a", numbers("", 0, 6), 1)
	list := sub.hold(5)
	sub.settle(list[0], list[1], list[3])
	sub.leave()
	w.restart()
	sub = w.connect("sub", broker.Forever)
	if !sub.s.Present() {
		t.Fatal("the session is gone")
	}
	// In order ended, the hub has saved what was confirmed out of order too.
	want(t, sub.take(3), "2", "4", "5")
	sub.nothing()
}

func TestTakeOver(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	first := w.connect("c", broker.Forever)
	first.auto = true
	first.subscribe(1, "a")
	second := w.connect("c", broker.Forever)
	if first.closed != broker.TakenOver {
		t.Errorf("the first connection was told %#x", first.closed)
	}
	if !second.s.Present() {
		t.Error("the session was not handed over")
	}
	w.connect("pub", 0).publish("a", "x", 1)
	want(t, second.take(1), "x")
}

func TestForeignClientIdentifier(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	as := func(user string) func(*broker.Connect) {
		return func(k *broker.Connect) { k.Username, k.HasUsername = user, true }
	}
	mine := w.connect("c", broker.Forever, as("ann"))
	mine.subscribe(1, "a")
	other := w.connect("c", broker.Forever, as("bob"))
	if other.s.Present() || mine.closed != 0 {
		t.Error("one user got another's session")
	}
}

func TestCleanStartForgets(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	c := w.connect("c", broker.Forever)
	c.subscribe(1, "a")
	c.leave()
	w.connect("pub", 0).publish("a", "x", 1)
	c = w.connect("c", broker.Forever, clean)
	if c.s.Present() {
		t.Error("a clean start found a session")
	}
	c.nothing()
	c.leave()
	w.restart()
	c = w.connect("c", broker.Forever)
	if !c.s.Present() {
		t.Error("the new session was not kept")
	}
	w.connect("pub", 0).publish("a", "y", 1)
	c.nothing()
}

func TestSubscriptionOptions(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	c, pub := w.connect("c", 0), w.connect("pub", 0)
	c.subscribeTo(
		broker.Subscription{Filter: "a/b", QoS: 0, ID: 7},
		broker.Subscription{Filter: "a/#", QoS: 2, ID: 9, NoLocal: true},
		broker.Subscription{Filter: "own", QoS: 1, NoLocal: true},
		broker.Subscription{Filter: "keep", QoS: 1, RetainAsPublished: true},
	)
	pub.publish("a/b", "both", 1)
	list := c.take(1)
	slices.Sort(list[0].ids)
	if list[0].qos != 1 || !slices.Equal(list[0].ids, []uint32{7, 9}) {
		t.Errorf("overlapping: %+v", list[0])
	}
	c.publish("a/b", "mine", 1)
	if list = c.take(1); list[0].qos != 0 || !slices.Equal(list[0].ids, []uint32{7}) {
		t.Errorf("no local: %+v", list[0])
	}
	c.publish("own", "mine", 1)
	c.nothing()
	pub.publish("keep", "r", 1, retain)
	pub.publish("a/x", "r", 1, retain)
	if list = c.take(2); !list[0].retain || list[1].retain {
		t.Errorf("retain as published: %+v", list)
	}
	if codes := c.unsubscribe("a/b", "nope"); codes[0] != 0 || codes[1] != broker.NoSubscriptionExisted {
		t.Errorf("unsubscribe: %v", codes)
	}
	pub.publish("a/b", "one", 1)
	if list = c.take(1); !slices.Equal(list[0].ids, []uint32{9}) {
		t.Errorf("after unsubscribe: %+v", list[0])
	}
}

func TestExpiry(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	sub, pub := w.connect("sub", broker.Forever), w.connect("pub", 0)
	sub.subscribe(1, "a")
	soon := func(it *broker.Item) { it.Message.Expiry = time.Hour }
	now := func(it *broker.Item) { it.Message.Expiry = time.Microsecond }
	pub.publish("a", "long", 1, soon)
	pub.publish("a", "short", 1, now)
	time.Sleep(time.Millisecond)
	pub.publish("a", "none", 1)
	list := sub.hold(2)
	want(t, list, "long", "none")
	if e := list[0].expiry; e <= 59*time.Minute || e > time.Hour {
		t.Errorf("expiry left: %v", e)
	}
	if w.hub.Counters().Expired != 1 {
		t.Error("the expired message was not counted")
	}
}

func TestLimits(t *testing.T) {
	w := open(t, disktest.New(), Options{MaxSessions: 2, MaxSubscriptions: 2, MaxRetained: 1})
	c := w.connect("a", 0)
	if codes := c.subscribe(1, "1", "2", "3", "1", "$share//x"); !slices.Equal(codes, []byte{1, 1, broker.QuotaExceeded, 1, broker.TopicFilterInvalid}) {
		t.Errorf("subscriptions: %v", codes)
	}
	w.connect("b", 0)
	if _, err := w.tryConnect("c", 0); err == nil || err.(*broker.Refusal).Code != broker.QuotaExceeded {
		t.Errorf("third session: %v", err)
	}
	if code := c.publish("r", "1", 1, retain); code != 0 {
		t.Errorf("first retained message: %#x", code)
	}
	w.flush()
	if code := c.publish("r", "2", 1, retain); code != 0 {
		t.Errorf("its replacement: %#x", code)
	}
	if code := c.publish("s", "1", 1, retain); code != broker.QuotaExceeded {
		t.Errorf("second retained message: %#x", code)
	}
}

// TestIdleSessionsDoNotHoldTheJournal: after a crash nobody knows what lies
// between a saved position and the end; it is found out without the client.
func TestIdleSessionsDoNotHoldTheJournal(t *testing.T) {
	w := open(t, disktest.New(), Options{SaveEvery: time.Millisecond})
	for _, id := range []string{"idle", "waiting"} {
		c := w.connect(id, broker.Forever)
		c.subscribe(1, "for/"+id)
		c.subscribe(0, "a")
		c.leave()
	}
	pub := w.connect("pub", 0)
	pub.publishAll("a", numbers("", 0, 300), 1)
	pub.publish("for/waiting", "x", 1)
	pub.publishAll("a", numbers("", 0, 300), 1)
	w = w.crash(1)
	status := func(id string) SessionStatus {
		st := w.hub.Status().Sessions
		return st[slices.IndexFunc(st, func(s SessionStatus) bool { return s.Client == id })]
	}
	eventually(t, "the idle session passes over what it does not want", func() bool {
		return status("idle").Lag == 0 && status("waiting").Lag < 310
	})
	if s := status("waiting"); !s.Behind || s.Lag <= 300 {
		t.Errorf("the session with a message: %+v", s)
	}
	c := w.connect("waiting", broker.Forever)
	if list := c.take(301); list[0].payload != "x" {
		t.Errorf("got %q first", list[0].payload)
	}
	w.connect("idle", broker.Forever).nothing()
}

// TestTakeOverStorm has many connections fight for few sessions while messages
// flow.
func TestTakeOverStorm(t *testing.T) {
	w := open(t, disktest.New(), Options{MaxPending: 16, SaveEvery: time.Millisecond, SnapshotBytes: 1 << 10})
	stop := make(chan struct{})
	var wait, publishing sync.WaitGroup
	publishing.Go(func() {
		pub := w.connect("pub", 0)
		for {
			select {
			case <-stop:
				return
			default:
				pub.publishAll("a", numbers("", 0, 20), 1)
			}
		}
	})
	for i := range 8 {
		wait.Go(func() {
			for n := range 20 {
				expiry := broker.Forever
				if n%3 == 0 {
					expiry = 0
				}
				c, err := w.tryConnect(fmt.Sprint("c", i%2), expiry, withWill("a", "will", 0))
				if err != nil {
					t.Error(err)
					return
				}
				c.subscribe(1, "a", "$share/g/a")
				for len(c.fetch(10)) == 0 {
					select {
					case <-c.wake:
					case <-time.After(patience):
						t.Error("no message comes")
						return
					}
				}
				c.leave(broker.Detachment{SessionExpiry: expiry, TakenOver: true})
			}
		})
	}
	wait.Wait()
	close(stop)
	publishing.Wait()
	if n := len(w.hub.Status().Sessions); n > 3 {
		t.Errorf("%d sessions", n)
	}
}
