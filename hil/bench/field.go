package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"holdfast/hil/bench/mqttload"
)

// A gateway is one side of a field measurement: it reads a source and publishes
// to an upstream broker.
type gateway struct {
	name        string
	start       func(ctx context.Context, o *Options, dir, source, upstream string) (*child, error)
	topic       string                   // filter under which its messages arrive
	tags        func(payload []byte) int // readings in one message
	stamp       []byte                   // text before a time in microseconds that tells how old the message is
	nanoseconds bool                     // instead: lines of the influx format, which end with the time
}

// A source starts what a gateway reads and returns where it is and how many
// tags a second it offers.
type source func(ctx context.Context, dir string) (address string, offered float64, stop io.Closer, err error)

var modbusGateways = []gateway{
	{name: "holdfast run", topic: "up/#", stamp: []byte(`"tag":"clock","value":`), tags: func(p []byte) int { return bytes.Count(p, []byte(`"value":`)) },
		start: func(_ context.Context, o *Options, dir, source, upstream string) (*child, error) {
			c, _, err := startHoldfast(o, dir, plantTags(), plantPeriod, modbusDevices(source), upstream)
			return c, err
		}},
	{name: "telegraf", topic: "telegraf/#", stamp: []byte("clock="), tags: influxFields,
		start: func(ctx context.Context, o *Options, dir, source, upstream string) (*child, error) {
			return startTelegraf(ctx, o, dir, telegrafModbus(source), plantPeriod, upstream)
		}},
}

// influxFields counts the fields of lines of the influx format: measurement,
// fields as key=value with commas between, time.
func influxFields(p []byte) int {
	n := 0
	for line := range bytes.Lines(p) {
		if f := bytes.Fields(line); len(f) >= 2 {
			n += bytes.Count(f[1], []byte("="))
		}
	}
	return n
}

// ages calls f with the age of what a message carries.
func (g *gateway) ages(payload []byte, now time.Time, f func(time.Duration)) {
	if g.nanoseconds {
		for line := range bytes.Lines(payload) {
			if w := bytes.Fields(line); len(w) >= 3 { // texts among the fields hold spaces
				if ns, err := strconv.ParseInt(string(w[len(w)-1]), 10, 64); err == nil {
					f(now.Sub(time.Unix(0, ns)))
				}
			}
		}
		return
	}
	for rest := payload; ; {
		_, after, ok := bytes.Cut(rest, g.stamp)
		if !ok {
			return
		}
		rest = after
		end := 0
		for end < len(after) && after[end] >= '0' && after[end] <= '9' {
			end++
		}
		if us, err := strconv.ParseInt(string(after[:end]), 10, 64); err == nil {
			f(now.Sub(time.UnixMicro(us)))
		}
	}
}

// fieldResult is what one gateway did with one load.
type fieldResult struct {
	offered  float64 // tags per second that were to be read
	rate     float64 // tags per second that arrived at the upstream broker
	cpu      float64 // microseconds of processor time per tag that arrived
	p50, p99 float64 // milliseconds from the device's answer to arrival
	rss      float64 // MiB, at the end
}

// measureField lets one gateway read a source and watches what arrives.
func measureField(ctx context.Context, o *Options, g gateway, from source) (*fieldResult, error) {
	dir, err := os.MkdirTemp(o.Dir, "field")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	broker, addr, clean, err := startMosquitto(ctx, o)
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return nil, err
	}
	defer broker.stop()
	address, offered, stop, err := from(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer stop.Close()

	var tags, measuring atomic.Int64
	var late mqttload.Histogram
	sub, err := mqttload.Listen(addr, "watch", g.topic, func(topic, payload []byte) {
		now := time.Now()
		tags.Add(int64(g.tags(payload)))
		if measuring.Load() == 0 {
			return
		}
		g.ages(payload, now, late.Add)
	})
	if err != nil {
		return nil, err
	}
	defer sub.Close()
	c, err := g.start(ctx, o, dir, address, addr)
	if err != nil {
		return nil, err
	}
	defer c.stop()
	if err := c.ready(ctx, func() bool { return tags.Load() > 0 }); err != nil {
		return nil, err
	}
	if err := pause(ctx, 3*time.Second); err != nil {
		return nil, err
	}
	cpu0, err := processor(c.pid())
	if err != nil {
		return nil, err
	}
	n0, t0 := tags.Load(), time.Now()
	measuring.Store(1)
	if err := pause(ctx, 8*time.Second); err != nil {
		return nil, err
	}
	measuring.Store(0)
	n, elapsed := float64(tags.Load()-n0), time.Since(t0).Seconds()
	cpu1, err := processor(c.pid())
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("%s: nothing arrived at the upstream broker: %s", g.name, c.log)
	}
	rss, err := memory(c.pid(), "status", "VmRSS")
	if err != nil {
		return nil, err
	}
	l := late.Summary()
	r := &fieldResult{offered: offered, rate: n / elapsed, cpu: (cpu1 - cpu0).Seconds() * 1e6 / n,
		p50: l.P50 / 1e3, p99: l.P99 / 1e3, rss: float64(rss) / 1024}
	fmt.Fprintf(o.Out, "  %-13s %7.0f tags/s offered %7.0f arrived, %5.2f us/tag, p50 %.1f p99 %.1f ms, %.0f MiB\n", g.name, r.offered, r.rate, r.cpu, r.p50, r.p99, r.rss)
	return r, nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fieldPair measures both gateways in every round, in random order. The first
// is ours.
func fieldPair(ctx context.Context, o *Options, rounds int, gateways []gateway, from source) (a, b []*fieldResult, err error) {
	for range rounds {
		order := []int{0, 1}
		if rand.IntN(2) == 0 {
			slices.Reverse(order)
		}
		for _, i := range order {
			r, err := measureField(ctx, o, gateways[i], from)
			if err != nil {
				return nil, nil, err
			}
			if i == 0 {
				a = append(a, r)
			} else {
				b = append(b, r)
			}
		}
	}
	return a, b, nil
}

func figures(rs []*fieldResult, f func(*fieldResult) float64) series {
	s := make(series, len(rs))
	for i, r := range rs {
		s[i] = f(r)
	}
	return s
}

// pairRows are the rows of one pair of gateways: processor time, and latency.
func pairRows(name, cpuTarget string, most float64, a, b []*fieldResult, latency string) []Row {
	cpu := func(r *fieldResult) float64 { return r.cpu }
	p99 := func(r *fieldResult) float64 { return r.p99 }
	rate := func(r *fieldResult) float64 { return r.rate }
	rss := func(r *fieldResult) float64 { return r.rss }
	c, l := figures(a, cpu).over(figures(b, cpu)), figures(a, p99).over(figures(b, p99))
	note := fmt.Sprintf("arrived: %s against %s; memory %s against %s MiB", figures(a, rate).thousands("/s"), figures(b, rate).thousands("/s"),
		figures(a, rss).show("%.0f"), figures(b, rss).show("%.0f"))
	return []Row{
		{name + ", processor time per tag", figures(a, cpu).show("%.2f") + " µs", figures(b, cpu).show("%.2f") + " µs", c.show("%.2f"),
			cpuTarget, verdict(c.median() <= most), note},
		{name + ", p99 " + latency, figures(a, p99).show("%.0f") + " ms", figures(b, p99).show("%.0f") + " ms", l.show("%.2f"),
			"at most 0.5", verdict(l.median() <= 0.5), "peer: Telegraf 1.39, flush 100 ms, QoS 0; ours QoS 1 with the durable hub between"},
	}
}

// fieldRates compares field to upstream with Telegraf.
func fieldRates(ctx context.Context, o *Options) ([]Row, error) {
	if _, err := telegraf(ctx, o); err != nil {
		return nil, err
	}
	var rows []Row
	for _, devices := range []int{1, 20} {
		a, b, err := fieldPair(ctx, o, o.Rounds, modbusGateways, plantOf(devices))
		if err != nil {
			return rows, err
		}
		name := fmt.Sprintf("%d k Modbus tags/s to the upstream", devices*tagsPerDevice/100)
		rows = append(rows, pairRows(name, "at most 0.33", 1.0/3, a, b, "from the device's answer to arrival")...)
	}
	var best [2]float64
	for _, devices := range []int{40, 80, 120} {
		a, b, err := fieldPair(ctx, o, 1, modbusGateways, plantOf(devices))
		if err != nil {
			return rows, err
		}
		best[0], best[1] = max(best[0], a[0].rate), max(best[1], b[0].rate)
	}
	ratio := best[0] / best[1]
	return append(rows, Row{"highest rate of Modbus tags that arrives", fmt.Sprintf("%.0f k/s", best[0]/1e3), fmt.Sprintf("%.0f k/s", best[1]/1e3),
		fmt.Sprintf("%.2f", ratio), "at least 2.0", verdict(ratio >= 2), "best of 400, 800 and 1,200 k tags/s offered"}), nil
}

// plantOf is a source of that many Modbus devices; its address is theirs, with
// commas between.
func plantOf(devices int) source {
	return func(context.Context, string) (string, float64, io.Closer, error) {
		p, err := startPlant(devices)
		if err != nil {
			return "", 0, nil, err
		}
		return strings.Join(p.addrs, ","), float64(devices*tagsPerDevice) / plantPeriod.Seconds(), p, nil
	}
}

// modbusDevices configures a field device for each address. The plant answers
// many requests at once, so they are sent so.
func modbusDevices(addrs string) string {
	var b strings.Builder
	for i, a := range strings.Split(addrs, ",") {
		fmt.Fprintf(&b, "[[field.device]]\nname = \"d%d\"\nprotocol = \"modbus\"\nclass = \"fast\"\naddress = %q\nunit = 1\npipeline = 8\ntags = \"tags.csv\"\n", i, a)
	}
	return b.String()
}
