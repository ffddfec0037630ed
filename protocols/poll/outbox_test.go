package poll

import (
	"context"
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols/point"
)

func readingsOf(value int64, ids ...uint32) []point.Reading {
	var out []point.Reading
	for _, id := range ids {
		out = append(out, point.Reading{Tag: string(rune('a' + id)), Value: point.IntValue(value)})
	}
	return out
}

func TestOutboxMergesNewestWins(t *testing.T) {
	clk := clocktest.New(time.Time{})
	s := &sink{gate: make(chan struct{})}
	o := newOutbox(s, Options{Clock: clk, Boot: 5, Queue: 4, BatchSize: 100})
	q, other := &queue{device: "d"}, &queue{device: "e"}
	offer := func(q *queue, v int64, ids ...uint32) {
		o.offer(q, clk.Now(), clk.Quality(), readingsOf(v, ids...), ids)
	}
	offer(q, 1, 0, 1) // queued
	offer(q, 2, 0, 1) // queued: the bound is reached
	offer(q, 3, 0, 1) // merged into the second
	clk.SetQuality(clock.Stepped)
	offer(q, 4, 1, 2) // merged: c is new
	clk.SetQuality(clock.Synced)
	offer(q, 5, 1)
	offer(other, 9, 0) // a device without anything waiting always gets one
	if queued, dropped, _ := o.status(q); queued != 5 || dropped != 4 {
		t.Errorf("queued %d, dropped %d", queued, dropped)
	}
	o.close()
	done := make(chan struct{})
	go func() { defer close(done); o.run(context.Background()) }()
	for range 3 {
		s.gate <- struct{}{}
	}
	<-done
	var first, merged, e point.Batch
	for _, b := range s.all() {
		switch {
		case b.Device == "e":
			e = b
		case b.Sequence == 1:
			first = b
		default:
			merged = b
		}
	}
	if first.Readings[0].Value.Int() != 1 || first.Dropped != 0 {
		t.Errorf("first %+v", first)
	}
	if merged.Sequence != 5 || merged.Dropped != 4 || merged.Clock != clock.Stepped || len(merged.Readings) != 3 {
		t.Fatalf("merged %+v", merged)
	}
	for i, want := range []int64{3, 5, 4} {
		if got := merged.Readings[i]; got.Value.Int() != want {
			t.Errorf("%s = %s, want %d", got.Tag, got.Value, want)
		}
	}
	if e.Sequence != 1 || len(e.Readings) != 1 {
		t.Errorf("other device %+v", e)
	}
}

// TestOutboxAccountsForEveryReading: under a random load, whatever the sink does,
// published and dropped readings add up to those offered, the newest of every
// tag arrives, sequence numbers tell the holes, and the bound holds.
func TestOutboxAccountsForEveryReading(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	const limit, tagCount = 200, 30
	clk := clocktest.New(time.Time{})
	s := &sink{gate: make(chan struct{})}
	o := newOutbox(s, Options{Clock: clk, Queue: limit, BatchSize: 25})
	queues := []*queue{{device: "p"}, {device: "q"}, {device: "r"}}
	done := make(chan struct{})
	go func() { defer close(done); o.run(context.Background()) }()
	newest := map[string]int64{}
	offered, offers := 0, map[string]uint64{}
	for i := range int64(5000) {
		q := queues[rng.IntN(len(queues))]
		var ids []uint32
		for id := range uint32(tagCount) {
			if rng.IntN(3) == 0 {
				ids = append(ids, id)
				newest[q.device+string(rune('a'+id))] = i
			}
		}
		if len(ids) > 0 && rng.IntN(10) == 0 { // a subscription may bring one tag twice
			ids = append(ids, ids[0])
		}
		offered += len(ids)
		if len(ids) > 0 {
			offers[q.device]++
		}
		o.offer(q, clk.Now(), clock.Synced, readingsOf(i, ids...), ids)
		o.mu.Lock()
		if most := limit + len(queues)*tagCount + len(ids); o.queued > most {
			t.Fatalf("%d readings queued, more than %d", o.queued, most)
		}
		o.mu.Unlock()
		if rng.IntN(4) == 0 {
			select {
			case s.gate <- struct{}{}:
			case <-time.After(time.Millisecond):
			}
		}
	}
	s.mu.Lock()
	close(s.gate)
	s.mu.Unlock()
	o.close()
	<-done
	published, dropped := 0, uint64(0)
	last, seq := map[string]int64{}, map[string]uint64{}
	for _, b := range s.all() {
		if b.Sequence <= seq[b.Device] || len(b.Readings) > 25 {
			t.Fatalf("sequence %d after %d with %d readings", b.Sequence, seq[b.Device], len(b.Readings))
		}
		seq[b.Device] = b.Sequence
		dropped += b.Dropped
		for _, r := range b.Readings {
			published++
			if v := r.Value.Int(); v < last[b.Device+r.Tag] {
				t.Fatalf("%s/%s goes back from %d to %d", b.Device, r.Tag, last[b.Device+r.Tag], v)
			} else {
				last[b.Device+r.Tag] = v
			}
		}
	}
	if published+int(dropped) != offered {
		t.Errorf("%d published and %d dropped of %d offered", published, dropped, offered)
	}
	if dropped == 0 {
		t.Error("nothing was dropped: the test does not test")
	}
	for tag, v := range newest {
		if last[tag] != v {
			t.Errorf("%s: the last that arrived is %d, not %d", tag, last[tag], v)
		}
	}
	if o.queued != 0 || queues[0].queued != 0 {
		t.Errorf("%d, %d readings left", o.queued, queues[0].queued)
	}
}

func TestOutboxTriesAgain(t *testing.T) {
	clk := clocktest.New(time.Time{})
	s := &sink{fail: errors.New("hub is away")}
	o := newOutbox(s, Options{Clock: clk, Queue: 10, BatchSize: 10, Log: newRig(t, Options{}).p.o.Log})
	q := &queue{device: "d"}
	o.offer(q, clk.Now(), clock.Synced, readingsOf(1, 0), []uint32{0})
	o.close()
	done := make(chan struct{})
	go func() { defer close(done); o.run(context.Background()) }()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for range 5 {
		if err := clk.WaitArmed(ctx, 1); err != nil {
			t.Fatal(err)
		}
		clk.Advance(5 * time.Second)
	}
	if err := clk.WaitArmed(ctx, 1); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	s.fail = nil
	s.mu.Unlock()
	clk.Advance(5 * time.Second)
	<-done
	if got := s.all(); len(got) != 1 || got[0].Sequence != 1 {
		t.Errorf("got %+v", got)
	}
}
