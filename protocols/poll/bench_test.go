package poll

import (
	"context"
	"fmt"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// steadyGroup answers from memory, with a little change in each read.
type steadyGroup struct{ n int64 }

func (g *steadyGroup) Read(_ context.Context, out []point.Sample) {
	g.n++
	for i := range out {
		out[i] = point.Sample{Value: point.IntValue(g.n + int64(i))}
	}
}

type encoding struct {
	buf   []byte
	bytes int
}

func (e *encoding) Publish(_ context.Context, b *point.Batch) error {
	e.buf = point.AppendBatch(e.buf[:0], b)
	e.bytes += len(e.buf)
	return nil
}

// BenchmarkTag is everything that happens to a tag between the adapter's answer
// and the bytes of its batch: scale, stamp, dead-band, current value, outbox, encoding.
func BenchmarkTag(b *testing.B) {
	for _, c := range []struct {
		name string
		tag  point.Tag
	}{
		{"plain", point.Tag{}},
		{"scaled", point.Tag{Scale: point.Scale{Kind: point.Factor, Factor: 0.1}}},
		{"onchange", point.Tag{Dead: point.Deadband{Kind: point.OnChange}}},
		{"held", point.Tag{Dead: point.Deadband{Kind: point.Absolute, Value: 1e9}}},
		{"swing", point.Tag{Reduce: point.Reduction{Swing: 0.5, Heartbeat: time.Hour}}},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkTag(b, c.tag) })
	}
}

func benchmarkTag(b *testing.B, kind point.Tag) {
	const n = 1000
	clk := clocktest.New(time.Time{})
	sink := &encoding{}
	p := New(map[string]protocols.Adapter{"fake": newCounting()}, sink, Options{Clock: clk})
	d := dev("press7")
	for i := range n {
		tag := kind
		tag.Name, tag.Address = fmt.Sprintf("register_%04d", i), fmt.Sprint(i)
		d.Tags = append(d.Tags, tag)
	}
	if _, err := p.Apply([]Device{d}); err != nil {
		b.Fatal(err)
	}
	l := p.devices["press7"].lanes["fast"]
	l.ctx = context.Background()
	l.plan.group = &steadyGroup{}
	b.ReportAllocs()
	for b.Loop() {
		clk.Advance(100 * time.Millisecond)
		l.read(l.plan)
		for {
			q, it, _ := p.outbox.next()
			if it == nil {
				break
			}
			p.outbox.send(context.Background(), q, it)
			p.outbox.sent(q, it)
			if len(q.items) == 0 {
				break
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/tag")
}

// BenchmarkSustained polls 200 devices of 1,000 tags once a second on the real
// clock, 200,000 tags a second, and reports the processor time of the whole process
// per tag, with and without somebody who watches the whole table. Run it with
// -benchtime 5x.
func BenchmarkSustained(b *testing.B) {
	b.Run("alone", func(b *testing.B) { benchmarkSustained(b, false) })
	b.Run("watched", func(b *testing.B) { benchmarkSustained(b, true) })
}

func benchmarkSustained(b *testing.B, watched bool) {
	const devices, n = 200, 1000
	sink := &encoding{}
	p := New(map[string]protocols.Adapter{"fake": steadyAdapter{}}, sink, Options{Clock: clock.NewReal()})
	var all []Device
	for i := range devices {
		d := dev(fmt.Sprintf("device%03d", i))
		d.Class = "slow"
		for k := range n {
			name := fmt.Sprintf("register_%04d", k)
			d.Tags = append(d.Tags, point.Tag{Name: name, Address: name, Scale: point.Scale{Kind: point.Factor, Factor: 0.1}})
		}
		all = append(all, d)
	}
	if _, err := p.Apply(all); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	if watched {
		go p.Table().Watch(ctx, time.Second, func([]Entry, bool) error { return nil })
	}
	time.Sleep(2 * time.Second)
	tags := func() (n uint64) {
		for _, s := range p.Status() {
			n += s.Published
		}
		return n
	}
	before, cpu := tags(), processorTime()
	for b.Loop() {
		time.Sleep(time.Second)
	}
	took, read := processorTime()-cpu, tags()-before
	b.ReportMetric(float64(took.Nanoseconds())/float64(read), "cpu-ns/tag")
	b.ReportMetric(float64(read)/b.Elapsed().Seconds(), "tags/s")
	cancel()
	<-done
}

func processorTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

type steadyAdapter struct{}

func (steadyAdapter) Check(protocols.Device) error                       { return nil }
func (a steadyAdapter) Open(protocols.Device) (protocols.Session, error) { return a, nil }
func (steadyAdapter) Group([]point.Tag) (protocols.Group, error)         { return &steadyGroup{}, nil }
func (steadyAdapter) Close() error                                       { return nil }

// BenchmarkMerged is the cost of overload: everything is merged.
func BenchmarkMerged(b *testing.B) {
	const n = 1000
	o := newOutbox(&encoding{}, Options{Clock: clocktest.New(time.Time{}), Queue: n, BatchSize: n})
	q := &queue{device: "d"}
	readings, ids := make([]point.Reading, n), make([]uint32, n)
	for i := range readings {
		readings[i] = point.Reading{Tag: fmt.Sprint(i), Value: point.IntValue(1)}
		ids[i] = uint32(i)
	}
	for b.Loop() {
		o.offer(q, time.Time{}, clock.Synced, readings, ids)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/tag")
}
