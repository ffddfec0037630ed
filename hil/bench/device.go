package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"holdfast/hil/bench/mqttload"
)

// A device is `holdfast run` between a plant and an upstream broker.
type device struct {
	*child
	plant   *plant
	hubAddr string
	first   time.Duration // process start to the first reading at the upstream
	closers []func()
}

func (d *device) close() {
	for i := len(d.closers) - 1; i >= 0; i-- {
		d.closers[i]()
	}
}

// startDevice starts a device and waits for the first readings to arrive at
// the upstream.
func startDevice(ctx context.Context, o *Options, period time.Duration) (_ *device, err error) {
	d := &device{}
	defer func() {
		if err != nil {
			d.close()
		}
	}()
	dir, err := os.MkdirTemp(o.Dir, "device")
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() { os.RemoveAll(dir) })
	broker, addr, clean, err := startMosquitto(ctx, o)
	if clean != nil {
		d.closers = append(d.closers, clean)
	}
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, broker.stop)
	if d.plant, err = startPlant(1); err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() { d.plant.Close() })
	arrived := make(chan struct{}, 1)
	sub, err := mqttload.Listen(addr, "watch", "up/#", func(_, payload []byte) {
		if bytes.Contains(payload, []byte(`"readings":`)) {
			select {
			case arrived <- struct{}{}:
			default:
			}
		}
	})
	if err != nil {
		return nil, err
	}
	d.closers = append(d.closers, func() { sub.Close() })
	t := time.Now()
	c, hubAddr, err := startHoldfast(o, dir, plantTags(), period, modbusDevices(d.plant.addrs[0]), addr)
	if err != nil {
		return nil, err
	}
	d.child, d.hubAddr = c, hubAddr
	d.closers = append(d.closers, c.stop)
	select {
	case <-arrived:
		d.first = time.Since(t)
		return d, nil
	case <-c.done:
		return nil, fmt.Errorf("holdfast ended: %v: %s", c.err, c.log)
	case <-time.After(20 * time.Second):
		return nil, fmt.Errorf("no reading arrived within 20 s: %s", c.log)
	}
}

// writeLatency measures a command from publish to its answer while 10,000 tags
// a second are polled.
func writeLatency(ctx context.Context, o *Options) ([]Row, error) {
	d, err := startDevice(ctx, o, 100*time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer d.close()
	var times mqttload.Histogram
	c, err := mqttload.Ask(d.hubAddr, "writer", "field/results/+")
	if err != nil {
		return nil, err
	}
	defer c.Close()
	const writes = 500
	for i := range writes {
		id := fmt.Sprintf("w%d", i)
		now := time.Now()
		command, err := json.Marshal(map[string]any{"id": id, "device": "d0", "tag": "setpoint", "value": i, "issued": now.UnixMicro(), "expires": now.Add(5 * time.Second).UnixMicro()})
		if err != nil {
			return nil, err
		}
		answer, err := c.Request("field/commands", command, []byte(`"`+id+`"`), 5*time.Second)
		if err != nil {
			return nil, fmt.Errorf("write %d: %w: %s", i, err, d.log)
		}
		if !bytes.Contains(answer, []byte(`"done"`)) {
			return nil, fmt.Errorf("write %d was not done: %s", i, answer)
		}
		if got := d.plant.written.Load(); got != uint32(i) {
			return nil, fmt.Errorf("write %d: the device has %d", i, got)
		}
		times.Add(time.Since(now))
		if err := pause(ctx, 13*time.Millisecond); err != nil {
			return nil, err
		}
	}
	l := times.Summary()
	return []Row{{"write to a tag, command to answer, p99, while 10 k tags/s are polled", fmt.Sprintf("%.1f ms", l.P99/1e3), "", "", "under 50 ms",
		verdict(l.P99 < 50_000), fmt.Sprintf("%d writes, p50 %.1f ms, through the durable hub and back", writes, l.P50/1e3)}}, nil
}

// startAndSize measures the whole device with 1,000 tags a second.
func startAndSize(ctx context.Context, o *Options) ([]Row, error) {
	var first, pss series
	for range o.Rounds {
		d, err := startDevice(ctx, o, time.Second)
		if err != nil {
			return nil, err
		}
		err = pause(ctx, 10*time.Second)
		k, err2 := memory(d.pid(), "smaps_rollup", "Pss")
		f := d.first
		d.close()
		if err != nil || err2 != nil {
			return nil, fmt.Errorf("%v %v", err, err2)
		}
		first, pss = append(first, f.Seconds()), append(pss, float64(k)/1024)
	}
	return []Row{
		{"holdfast run, process start to the first reading at the upstream", first.show("%.2f") + " s", "", "", "under 1 s", verdict(first.median() < 1), "1,000 tags, polled each second"},
		{"holdfast run, memory with 1,000 tags/s, PSS", pss.show("%.1f") + " MiB", "", "", "at most 40 MB", verdict(pss.median()*1.048576 <= 40), "after 10 s"},
	}, nil
}
