package session

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hub/broker"
)

var crashes = flag.Int("crashes", 60, "power cuts of TestPowerCuts")

// plant is what the outside world knows across power cuts: what was sent, what
// was confirmed, and what came out.
type plant struct {
	t    *testing.T
	rng  *rand.Rand
	fs   *disktest.FS
	seed uint64

	sent     map[string]int      // by topic: numbers below were sent
	acked    map[string][]int    // and confirmed
	came     map[string][]int    // in the order of their first coming
	known    map[string]bool     // topic and number that came
	settled  map[string]int      // times that a confirmed QoS 2 delivery came
	retained map[string][2]int   // the last confirmed number, and the last sent one
	received map[uint16]struct{} // QoS 2 identifiers with PUBREC and without PUBCOMP
	unsure   map[uint16]struct{} // those of which the power cut left the answer open
	packet   uint16
}

// TestPowerCuts lets publishers, a QoS 1 and a QoS 2 subscriber and retained
// messages run, cuts the power at a random write, and looks at what is left; on
// it the next life begins.
func TestPowerCuts(t *testing.T) {
	for lives := 0; lives < *crashes; {
		seed := uint64(lives) + 1
		p := &plant{
			t: t, rng: rand.New(rand.NewPCG(seed, 1)), fs: disktest.New(), seed: seed,
			sent: map[string]int{}, acked: map[string][]int{}, came: map[string][]int{}, known: map[string]bool{},
			settled: map[string]int{}, retained: map[string][2]int{}, received: map[uint16]struct{}{}, unsure: map[uint16]struct{}{},
		}
		for range 6 {
			p.live(false)
			lives++
		}
		p.live(true)
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

func (p *plant) options() Options {
	o := Options{Access: everyone{}, SaveEvery: time.Millisecond, SnapshotBytes: 4 << 10, MaxPending: 8}
	o.Journal.SegmentBytes = 64 << 10
	o.Journal.TailBytes = 2 << 10
	return o
}

// life is one run between two power cuts.
type life struct {
	*plant
	w        *house
	one, two *client // subscribers
	pubs     map[string]*client
	keeper   *client // sends QoS 2
	open     map[uint64]broker.FlightEntry
	nextID   uint16
	broken   bool // a note failed, so the engine has closed the connection of two
}

func (p *plant) live(last bool) {
	p.t.Helper()
	w := &house{t: p.t, fs: p.fs, o: p.options()}
	w.start()
	if !last {
		p.fs.CutAfter(p.rng.IntN(150))
	}
	l := &life{plant: p, w: w, pubs: map[string]*client{}, open: map[uint64]broker.FlightEntry{}}
	if l.connect() {
		p.checkReceived(w)
		l.work(last)
	} else if last {
		p.t.Errorf("seed %d: nobody can connect", p.seed)
	}
	if err := w.close(); err != nil && last {
		p.t.Errorf("seed %d: %v", p.seed, err)
	}
	if last {
		p.check()
	}
	p.fs = p.fs.CrashClone(p.rng.Uint64())
}

func (l *life) connect() bool {
	attach := func(id string, filter string, qos byte) *client {
		c, err := l.w.tryConnect(id, broker.Forever)
		if err != nil {
			return nil
		}
		if filter != "" { // also again: the cut may have come between
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if _, err := c.s.Subscribe(ctx, []broker.Subscription{{Filter: filter, QoS: qos}}); err != nil {
				return nil
			}
		}
		return c
	}
	// Without a durable subscription nobody has promised to deliver anything.
	if l.one = attach("one", "s/#", 1); l.one == nil {
		return false
	}
	if l.two = attach("two", "s/#", 2); l.two == nil {
		return false
	}
	l.keeper = attach("keeper", "", 0)
	for _, n := range []string{"a", "b"} {
		l.pubs[n] = attach(n, "", 0)
	}
	return l.keeper != nil && l.pubs["a"] != nil && l.pubs["b"] != nil
}

func (l *life) work(last bool) {
	l.resume()
	for range 200 {
		switch l.rng.IntN(7) {
		case 0, 1:
			l.publish("a", "s/a", 1)
		case 2:
			l.publish("b", "s/b", 2)
		case 3:
			l.takeOne(l.rng.IntN(20))
		case 4:
			l.takeTwo(l.rng.IntN(20))
		case 5:
			l.retain()
		case 6:
			l.twice()
		}
	}
	if last {
		l.drain()
		l.checkRetained()
	}
}

// publish sends the next numbers of a topic in one batch.
func (l *life) publish(who, topic string, qos byte) {
	c := l.pubs[who]
	var items []broker.Item
	for range 1 + l.rng.IntN(5) {
		it := message(topic, strconv.Itoa(l.sent[topic]), qos)
		if qos == 2 {
			// The identifier is free again at once: this sender is done with it.
			l.packet++
			it.PacketID = l.packet
		} else {
			it.PacketID = 1
		}
		l.sent[topic]++
		items = append(items, it)
	}
	for _, it := range c.await(c.send(items...)) {
		if it.Code == 0 {
			n, _ := strconv.Atoi(string(it.Message.Payload))
			l.acked[topic] = append(l.acked[topic], n)
		}
		if qos == 2 {
			c.await(c.send(broker.Item{Kind: broker.ItemRelease, PacketID: it.PacketID}))
		}
	}
}

// twice plays the two halves of a QoS 2 publication at different times.
func (l *life) twice() {
	for id := range l.received {
		if l.rng.IntN(2) == 0 {
			continue
		}
		delete(l.received, id)
		if it := l.keeper.await(l.keeper.send(broker.Item{Kind: broker.ItemRelease, PacketID: id}))[0]; it.Code != 0 {
			l.unsure[id] = struct{}{}
		}
	}
	l.packet++
	it := message("q", "x", 2)
	it.PacketID = l.packet
	if it = l.keeper.await(l.keeper.send(it))[0]; it.Code == 0 {
		l.received[it.PacketID] = struct{}{}
	} else {
		l.unsure[it.PacketID] = struct{}{}
	}
}

// checkReceived compares what the hub knows of the keeper's QoS 2 messages with
// what the keeper was told.
func (p *plant) checkReceived(w *house) {
	p.t.Helper()
	state := w.hub.byKey[sessionKey("keeper", "keeper")].flightState().Received
	for id := range p.received {
		if !slices.Contains(state, id) {
			p.t.Errorf("seed %d: QoS 2 identifier %d was confirmed and is not known", p.seed, id)
		}
	}
	for _, id := range state {
		_, known := p.received[id]
		if _, unsure := p.unsure[id]; !known && !unsure {
			p.t.Errorf("seed %d: QoS 2 identifier %d was released and is known", p.seed, id)
		}
	}
}

func (l *life) retain() {
	r := l.retained["r"]
	r[1]++
	it := message("r", strconv.Itoa(r[1]), 1)
	it.PacketID = 1
	it.Message.Retain = true
	if l.keeper.await(l.keeper.send(it))[0].Code == 0 {
		r[0] = r[1]
	}
	l.retained["r"] = r
}

func (l *life) checkRetained() {
	c := l.w.connect("late", 0)
	c.subscribe(1, "r")
	r := l.retained["r"]
	list := c.fetch(10)
	if len(list) == 0 && r[0] == 0 {
		return
	}
	if len(list) != 1 {
		l.t.Errorf("seed %d: %d retained messages, %v was confirmed", l.seed, len(list), r[0])
		return
	}
	if n, _ := strconv.Atoi(list[0].payload); n < r[0] || n > r[1] {
		l.t.Errorf("seed %d: the retained message is %d, confirmed was %d, sent %d", l.seed, n, r[0], r[1])
	}
}

// takeOne takes some deliveries and confirms some of them.
func (l *life) takeOne(n int) {
	for _, g := range l.one.fetch(n) {
		l.arrived("one", g)
		if l.rng.IntN(4) > 0 {
			l.one.settle(g)
		}
	}
}

// takeTwo plays the QoS 2 deliveries as the engine does: noted before they are
// sent, noted when they are over.
func (l *life) takeTwo(n int) {
	if l.broken {
		return
	}
	for _, g := range l.two.fetch(n) {
		if g.qos == 1 {
			l.arrived("two", g)
			l.two.settle(g)
			continue
		}
		l.nextID++
		e := broker.FlightEntry{PacketID: l.nextID, ID: g.id}
		if !l.note(broker.FlightChange{Entry: e}) {
			return // not sent
		}
		l.arrived("two", g)
		if l.finish(e, g.topic+g.payload); l.broken {
			return
		}
	}
}

// finish goes through the rest of a QoS 2 delivery. When the client has
// answered PUBREC and the hub knows, the message must not come anew.
func (l *life) finish(e broker.FlightEntry, what string) {
	if l.rng.IntN(4) == 0 {
		return
	}
	e.Released = true
	if !l.note(broker.FlightChange{Entry: e}) {
		return
	}
	if l.settled[what]++; l.settled[what] > 1 {
		l.t.Errorf("seed %d: QoS 2 message %s came %d times", l.seed, what, l.settled[what])
	}
	if l.rng.IntN(4) == 0 {
		return
	}
	l.two.s.Settle([]uint64{e.ID})
	l.note(broker.FlightChange{Entry: e, Settled: true})
}

func (l *life) note(c broker.FlightChange) bool {
	done := make(chan error, 1)
	l.two.s.Note([]broker.FlightChange{c}, func(err error) { done <- err })
	select {
	case err := <-done:
		l.broken = l.broken || err != nil
		return err == nil
	case <-time.After(patience):
		l.t.Fatal("a note is not answered")
		return false
	}
}

// resume goes on with the QoS 2 deliveries that were in flight.
func (l *life) resume() {
	state := l.w.hub.byKey[sessionKey("two", "two")].flightState().Sent
	for _, e := range state {
		l.nextID = max(l.nextID, e.PacketID)
	}
	for _, e := range state {
		if l.broken {
			return
		}
		if e.Released {
			l.two.s.Settle([]uint64{e.ID})
			l.note(broker.FlightChange{Entry: e, Settled: true})
			continue
		}
		d, ok := l.two.s.Recall(e.ID)
		if !ok {
			l.t.Errorf("seed %d: a QoS 2 delivery in flight is gone", l.seed)
			continue
		}
		g := own(&d)
		l.arrived("two", g)
		l.finish(e, g.topic+g.payload)
	}
}

func (p *plant) arrived(who string, g got) {
	n, err := strconv.Atoi(g.payload)
	if err != nil || n >= p.sent[g.topic] {
		p.t.Errorf("seed %d: %s got %s %q, which nobody sent", p.seed, who, g.topic, g.payload)
	}
	if key := fmt.Sprint(who, " ", g.topic, " ", n); !p.known[key] {
		p.known[key] = true
		p.came[who+g.topic] = append(p.came[who+g.topic], n)
	}
}

// drain takes everything that is left.
func (l *life) drain() {
	l.w.flush()
	for {
		list := l.one.fetch(256)
		for _, g := range list {
			l.arrived("one", g)
			l.one.settle(g)
		}
		before := len(l.came["twos/a"]) + len(l.came["twos/b"])
		l.takeTwo(256)
		if len(list) == 0 && before == len(l.came["twos/a"])+len(l.came["twos/b"]) {
			return
		}
	}
}

// check looks at the sum of all lives.
func (p *plant) check() {
	for _, who := range []string{"one", "two"} {
		for _, topic := range []string{"s/a", "s/b"} {
			came := p.came[who+topic]
			if !slices.IsSorted(came) {
				p.t.Errorf("seed %d: %s got %s out of order: %v", p.seed, who, topic, came)
			}
			for _, n := range p.acked[topic] {
				if !p.known[fmt.Sprint(who, " ", topic, " ", n)] {
					p.t.Errorf("seed %d: %s never got %s %d, which was confirmed", p.seed, who, topic, n)
				}
			}
		}
	}
}
