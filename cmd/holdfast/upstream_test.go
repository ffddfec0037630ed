package main

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"holdfast/hil/fault"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/mqtt"
	"holdfast/protocols/point"
)

// TestFieldToMosquitto is the main job from end to end: a field device is
// polled, its readings are stored, routed and forwarded to a broker that nobody
// here wrote, over a link that is cut and a gateway that is killed. No batch is
// missing at the broker, and what arrives twice can be told by epoch and offset.
func TestFieldToMosquitto(t *testing.T) {
	addr := clienttest.StartMosquitto(t, "max_queued_messages 0\n").Addr
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	link, err := fault.Open(fault.Options{Target: addr})
	if err != nil {
		t.Fatal(err)
	}
	all.Go(func() { link.Run(ctx) })

	got := &batches{seen: map[string]map[uint64]bool{}, offsets: map[string]bool{}}
	conn, _, err := client.Dial(ctx, client.Options{URL: "mqtt://" + addr, ClientID: "historian", OnMessage: got.take})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Subscribe(ctx, client.Subscription{Filter: "plant/#", QoS: 1}); err != nil {
		t.Fatal(err)
	}

	g := newGateway(t, "run", `
[log]
level = "error"
[hub.routes]
readings = "FROM /messages/modules/field/outputs/* INTO $upstream"
[[hub.upstream]]
name = "historian"
type = "mqtt"
url = "mqtt://`+link.Addr()+`"
topic = "plant/{topic}"
bound = "1s"
[field.classes]
normal = "20ms"
[[field.device]]
name = "trial"
protocol = "sim"
[[field.device.tag]]
name = "count"
address = "counter"
params = { period = "10ms" }
[[field.device.tag]]
name = "wave"
address = "sine"
`)
	g.start()
	g.wait("readings arrive", func() bool { return got.count() > 10 })
	link.Set(fault.BlackHole)
	time.Sleep(300 * time.Millisecond)
	g.kill() // with readings stored that nobody upstream has
	before := got.count()
	g.start()
	link.Set(fault.Pass)
	g.wait("the stored readings arrive", func() bool { return got.count() > before+30 })
	g.kill()
	before = got.count()
	g.start()
	g.wait("readings arrive after the second crash", func() bool { return got.count() > before+10 })
	g.stop()

	got.mu.Lock()
	defer got.mu.Unlock()
	if len(got.seen) != 3 {
		t.Errorf("batches of %d starts of the field daemon arrived, want 3", len(got.seen))
	}
	total := 0
	for boot, seen := range got.seen {
		total += len(seen)
		for n := uint64(1); n <= uint64(len(seen)); n++ {
			if !seen[n] {
				t.Errorf("start %s: batch %d of %d is missing", boot, n, len(seen))
			}
		}
	}
	for _, p := range got.problems {
		t.Error(p)
	}
	t.Logf("%d batches, %d duplicates", total, got.repeats)
}

// batches is what arrived at the broker.
type batches struct {
	mu       sync.Mutex
	seen     map[string]map[uint64]bool // by start of the field daemon: sequence numbers
	offsets  map[string]bool            // epoch and offset
	repeats  int
	problems []string
}

func (b *batches) count() (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.seen {
		n += len(s)
	}
	return n
}

func (b *batches) take(_ *client.Conn, m *client.Message) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var p point.Batch
	if err := point.DecodeBatch(m.Payload, &p); err != nil || string(m.Topic) != "plant/field/trial/readings" {
		b.problems = append(b.problems, fmt.Sprintf("topic %q: %v", m.Topic, err))
		return
	}
	epoch, _ := m.UserProperty(mqtt.PropEpoch)
	offset, ok := m.UserProperty(mqtt.PropOffset)
	if !ok {
		b.problems = append(b.problems, "a message without offset")
	}
	boot := fmt.Sprint(p.Boot)
	if b.seen[boot] == nil {
		b.seen[boot] = map[uint64]bool{}
	}
	twice := b.offsets[epoch+"/"+offset]
	if twice {
		b.repeats++
	}
	if b.seen[boot][p.Sequence] && !twice {
		b.problems = append(b.problems, fmt.Sprintf("batch %d arrives twice under two offsets", p.Sequence))
	}
	b.offsets[epoch+"/"+offset] = true
	b.seen[boot][p.Sequence] = true
}
