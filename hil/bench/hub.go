package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"holdfast/hil/bench/mqttload"
)

// A broker is one side of a paired measurement.
type broker struct {
	name  string
	start func(ctx context.Context, o *Options) (*child, string, func(), error) // process, address, clean-up
}

var (
	ours = broker{"holdfast hub", func(ctx context.Context, o *Options) (*child, string, func(), error) {
		return startHub(ctx, o, hubConfig{})
	}}
	mosquitto = broker{"mosquitto", startMosquitto}
)

// startMosquitto starts mosquitto without persistence, its fastest setting.
func startMosquitto(ctx context.Context, o *Options) (*child, string, func(), error) {
	program, err := findProgram("mosquitto")
	if err != nil {
		return nil, "", nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "mosquitto")
	if err != nil {
		return nil, "", nil, err
	}
	clean := func() { os.RemoveAll(dir) }
	host, port := splitAddr(addr)
	conf := fmt.Sprintf("listener %s %s\nallow_anonymous true\npersistence false\nmax_inflight_messages 0\nmax_queued_messages 0\nlog_type error\n", port, host)
	path := filepath.Join(dir, "mosquitto.conf")
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		return nil, "", clean, err
	}
	c, err := start(nil, program, "-c", path)
	if err != nil {
		return nil, "", clean, err
	}
	if err := c.ready(ctx, func() bool { return listening(addr) }); err != nil {
		c.stop()
		return nil, "", clean, err
	}
	return c, addr, clean, nil
}

// measureBroker starts one broker afresh, applies one load and stops it.
func measureBroker(ctx context.Context, o *Options, b broker, load mqttload.Options) (*mqttload.Result, error) {
	c, addr, clean, err := b.start(ctx, o)
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return nil, err
	}
	defer c.stop()
	load.Broker, load.PID = addr, c.pid()
	r, err := mqttload.Run(ctx, load)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	if r.Errors > 0 || r.Missing > 0 {
		return nil, fmt.Errorf("%s: %d errors %v, %d acknowledged messages missing", b.name, r.Errors, r.Text, r.Missing)
	}
	return r, nil
}

// paired runs a load on both brokers in every round, in random order.
func paired(ctx context.Context, o *Options, load mqttload.Options) (a, b []*mqttload.Result, err error) {
	for round := range o.Rounds {
		sides := []broker{ours, mosquitto}
		if rand.IntN(2) == 0 {
			slices.Reverse(sides)
		}
		for _, side := range sides {
			r, err := measureBroker(ctx, o, side, load)
			if err != nil {
				return nil, nil, err
			}
			fmt.Fprintf(o.Out, "  round %d %-13s %8.0f acknowledged/s %8.0f delivered/s %6.2f us/message\n", round+1, side.name, r.PublishRate, r.DeliverRate, r.BrokerCPU)
			if side.name == ours.name {
				a = append(a, r)
			} else {
				b = append(b, r)
			}
		}
	}
	return a, b, nil
}

func column(rs []*mqttload.Result, f func(*mqttload.Result) float64) series {
	s := make(series, len(rs))
	for i, r := range rs {
		s[i] = f(r)
	}
	return s
}

func publishRate(r *mqttload.Result) float64 { return r.PublishRate }
func deliverRate(r *mqttload.Result) float64 { return r.DeliverRate }
func brokerCPU(r *mqttload.Result) float64   { return r.BrokerCPU }

// hubRates compares durable acknowledgement with mosquitto's that is not.
func hubRates(ctx context.Context, o *Options) ([]Row, error) {
	load := mqttload.Options{Publishers: 10, Window: 100, Size: 1024, QoS: 1, Warmup: time.Second, Duration: 3 * time.Second, Count: 50_000_000}
	a, b, err := paired(ctx, o, load)
	if err != nil {
		return nil, err
	}
	rate := column(a, publishRate).over(column(b, publishRate))
	cpu := column(a, brokerCPU).over(column(b, brokerCPU))
	const note = "mosquitto without persistence"
	rows := []Row{
		{"publishes acknowledged, 1 KiB, 10 publishers, window 100", column(a, publishRate).thousands("/s"), column(b, publishRate).thousands("/s"),
			rate.show("%.2f"), "at least 2.0", verdict(rate.median() >= 2), note},
		{"processor time per message, same load", column(a, brokerCPU).show("%.2f") + " µs", column(b, brokerCPU).show("%.2f") + " µs",
			cpu.show("%.2f"), "at most 0.6", verdict(cpu.median() <= 0.6), note},
	}
	load.Subs = 1
	a, b, err = paired(ctx, o, load)
	if err != nil {
		return rows, err
	}
	rate = column(a, deliverRate).over(column(b, deliverRate))
	cpu = column(a, brokerCPU).over(column(b, brokerCPU))
	return append(rows,
		Row{"the same with one subscriber, messages delivered", column(a, deliverRate).thousands("/s"), column(b, deliverRate).thousands("/s"),
			rate.show("%.2f"), "at least 2.0", verdict(rate.median() >= 2), note},
		Row{"processor time per message, same load", column(a, brokerCPU).show("%.2f") + " µs", column(b, brokerCPU).show("%.2f") + " µs",
			cpu.show("%.2f"), "at most 0.6", verdict(cpu.median() <= 0.6), note}), nil
}

// hubLatency compares one publisher's acknowledgement with a bare fdatasync on
// the same disk in the same round.
func hubLatency(ctx context.Context, o *Options) ([]Row, error) {
	var ack, sync series
	for round := range o.Rounds {
		s, err := syncLatency(o.Dir)
		if err != nil {
			return nil, err
		}
		r, err := measureBroker(ctx, o, ours, mqttload.Options{Publishers: 1, Window: 1, Size: 1024, QoS: 1, Warmup: 500 * time.Millisecond, Duration: 2 * time.Second})
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(o.Out, "  round %d acknowledgement p50 %.0f us, fdatasync p50 %.0f us\n", round+1, r.Ack.P50, s)
		ack, sync = append(ack, r.Ack.P50), append(sync, s)
	}
	ratio := ack.over(sync)
	return []Row{{"acknowledgement p50, one publisher, window 1", ack.show("%.0f") + " µs", sync.show("%.0f") + " µs", ratio.show("%.2f"),
		"at most 2.0", verdict(ratio.median() <= 2), "peer: 4 KiB overwrite and fdatasync of a zero-filled file, p50"}}, nil
}

// syncLatency returns the median time in microseconds of a 4 KiB overwrite with
// fdatasync in a zero-filled file under dir.
func syncLatency(dir string) (float64, error) {
	f, err := os.CreateTemp(dir, "sync")
	if err != nil {
		return 0, err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	const block, blocks = 4096, 2000
	if _, err := f.Write(make([]byte, block*blocks)); err != nil {
		return 0, err
	}
	if err := f.Sync(); err != nil {
		return 0, err
	}
	var times series
	buf := make([]byte, block)
	for i := range blocks {
		buf[0]++
		t := time.Now()
		if _, err := f.WriteAt(buf, int64(i)*block); err != nil {
			return 0, err
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, err
		}
		times = append(times, float64(time.Since(t).Nanoseconds())/1e3)
	}
	return times.median(), nil
}

// hubSlowDisk adds 5 ms to every sync, as cheap flash does.
func hubSlowDisk(ctx context.Context, o *Options) ([]Row, error) {
	slow := broker{"slow disk", func(ctx context.Context, o *Options) (*child, string, func(), error) {
		return startHub(ctx, o, hubConfig{syncDelay: 5 * time.Millisecond})
	}}
	var rate series
	for range o.Rounds {
		r, err := measureBroker(ctx, o, slow, mqttload.Options{Publishers: 10, Window: 100, Size: 1024, QoS: 1, Warmup: time.Second, Duration: 2 * time.Second})
		if err != nil {
			return nil, err
		}
		rate = append(rate, r.PublishRate)
	}
	return []Row{{"publishes acknowledged with 5 ms added to every sync, 1 KiB, 10 publishers, window 100", rate.thousands("/s"), "", "",
		"at least 40 k/s", verdict(rate.median() >= 40_000), ""}}, nil
}
