// Package mqttload is a bounded MQTT load generator: it measures brokers it
// knows nothing about.
//
// It opens pipelined publisher connections, each with up to a window of QoS 1
// publishes in flight, and subscribers that count what is missing, doubled or
// out of order. It speaks MQTT 3.1.1 and 5 with code of its own, so that no
// broker is measured with its own client.
package mqttload

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Options describe one load. Zero values mean the defaults in brackets.
type Options struct {
	Broker     string // host:port
	Version    int    // 4 (MQTT 3.1.1) or 5 [4]
	Username   string // none when empty
	Password   string
	ClientID   string        // prefix of the client identifiers [mqttload]
	Persistent bool          // keep sessions (no clean start)
	Publishers int           // publisher connections
	Window     int           // unacknowledged publishes per connection [1]
	Size       int           // payload bytes [128]
	QoS        int           // 0 or 1
	Topic      string        // {n} is the publisher's index [bench/{n}/data]
	Subs       int           // subscriber connections; each gets every message
	SubTopic   string        // [bench/+/data]
	Duration   time.Duration // measured time [4s]
	Warmup     time.Duration // unmeasured time before it
	Drain      time.Duration // most time to wait for what is outstanding [5s]
	Count      int64         // hard cap on publishes [5,000,000]
	Rate       float64       // publishes per second, all together; 0 = as fast as the window allows
	PID        int           // broker process on this machine: its CPU time and memory are measured
}

func (o Options) withDefaults() *Options {
	set := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	set(&o.Version, 4)
	set(&o.Window, 1)
	set(&o.Size, 128)
	if o.Topic == "" {
		o.Topic = "bench/{n}/data"
	}
	if o.SubTopic == "" {
		o.SubTopic = "bench/+/data"
	}
	if o.ClientID == "" {
		o.ClientID = "mqttload"
	}
	if o.Duration == 0 {
		o.Duration = 4 * time.Second
	}
	if o.Drain == 0 {
		o.Drain = 5 * time.Second
	}
	if o.Count == 0 {
		o.Count = 5_000_000
	}
	return &o
}

// phase values: publishers stamp every message with the phase it was sent in.
const (
	phaseWarm int32 = iota
	phaseMeasure
	phaseDone
)

type shared struct {
	cfg     *Options
	base    time.Time
	phase   atomic.Int32
	sent    atomic.Int64 // all publishes written
	acked   atomic.Int64 // all PUBACKs (any reason code < 0x80)
	refused atomic.Int64 // PUBACKs with a reason code >= 0x80
	recv    atomic.Int64
	errs    sync.Map
	nerr    atomic.Int64
}

func (s *shared) now() int64 { return int64(time.Since(s.base)) }

func (s *shared) fail(what string, err error) {
	s.nerr.Add(1)
	s.errs.LoadOrStore(what+": "+err.Error(), true)
}

// payload header: 8 bytes send time (ns since base), 4 bytes publisher, 8 bytes
// sequence. Smaller payloads carry no header and are only counted.
const headerLen = 20

// Latency summarises a distribution of times in microseconds.
type Latency struct {
	N                              int64
	P50, P90, P99, P999, Max, Mean float64
}

// A Result is what one load showed.
type Result struct {
	Seconds       float64 // measured time
	PublishRate   float64 // acknowledged per second (QoS 0: written)
	DeliverRate   float64 // delivered per second, all subscribers together
	Ack, Delivery Latency // publish to acknowledgement, publish to delivery

	Sent, Acked, Refused, Unacked int64
	Received                      int64
	Missing                       int64 // acknowledged but not delivered
	Duplicates, Reordered         int64

	BrokerCPU  float64 // microseconds of processor time, user and system, per message
	BrokerRSS  int64   // KiB before the load
	BrokerPeak int64   // KiB, highest seen
	LoadCPU    float64 // microseconds per message spent by this process

	Errors int64
	Text   []string // the first few errors
}

// Run applies one load and returns what it showed. It ends by itself, at the
// latest a little after warm-up, duration and three times the drain time.
func Run(ctx context.Context, o Options) (*Result, error) {
	cfg := o.withDefaults()
	if cfg.Window > 65535 || cfg.QoS < 0 || cfg.QoS > 1 || cfg.Version != 4 && cfg.Version != 5 {
		return nil, fmt.Errorf("load of window %d, QoS %d, version %d is not possible", cfg.Window, cfg.QoS, cfg.Version)
	}
	sh := &shared{cfg: cfg, base: time.Now()}
	ctx, cancel := context.WithTimeout(ctx, cfg.Warmup+cfg.Duration+3*cfg.Drain+30*time.Second)
	defer cancel()
	var err error

	var proc *procWatch
	if cfg.PID > 0 {
		if proc, err = watchProc(cfg.PID); err != nil {
			return nil, err
		}
		defer proc.stop()
	}

	subs := make([]*subscriber, cfg.Subs)
	for i := range subs {
		c, err := dial(cfg, "sub", i)
		if err != nil {
			return nil, fmt.Errorf("subscriber %d: %w", i, err)
		}
		if err := c.subscribe(cfg.SubTopic, 1); err != nil {
			return nil, fmt.Errorf("subscriber %d: %w", i, err)
		}
		subs[i] = &subscriber{sh: sh, c: c, last: make([]uint64, cfg.Publishers), seen: make([]bitset, cfg.Publishers), done: make(chan struct{})}
		go subs[i].loop()
	}
	pubs := make([]*publisher, cfg.Publishers)
	for i := range pubs {
		c, err := dial(cfg, "pub", i)
		if err != nil {
			return nil, fmt.Errorf("publisher %d: %w", i, err)
		}
		pubs[i] = newPublisher(sh, c, i)
	}

	var wg sync.WaitGroup
	for _, p := range pubs {
		wg.Add(1)
		go func() { defer wg.Done(); p.writeLoop() }()
	}
	written := make(chan struct{})
	go func() { wg.Wait(); close(written) }()

	sleepUntil(ctx, written, cfg.Warmup)
	sh.phase.Store(phaseMeasure)
	t0 := time.Now()
	own0 := ownCPU()
	if proc != nil {
		proc.mark()
	}
	a0, r0 := sh.acked.Load(), sh.recv.Load()
	s0 := sh.sent.Load()
	sleepUntil(ctx, written, cfg.Duration)
	elapsed := time.Since(t0)
	own1 := ownCPU()
	var cpu float64
	if proc != nil {
		cpu = proc.sinceMark()
	}
	a1, r1, s1 := sh.acked.Load(), sh.recv.Load(), sh.sent.Load()
	sh.phase.Store(phaseDone)
	<-written

	// Drain: acknowledgements first, then deliveries.
	deadline := time.Now().Add(cfg.Drain)
	for cfg.QoS == 1 && sh.acked.Load()+sh.refused.Load() < sh.sent.Load() && time.Now().Before(deadline) && sh.nerr.Load() == 0 {
		time.Sleep(5 * time.Millisecond)
	}
	deadline = time.Now().Add(cfg.Drain)
	want := sh.sent.Load()
	if cfg.QoS == 1 {
		want = sh.acked.Load()
	}
	lastN, lastChange := sh.recv.Load(), time.Now()
	for cfg.Subs > 0 && sh.recv.Load() < want*int64(cfg.Subs) && time.Now().Before(deadline) {
		time.Sleep(5 * time.Millisecond)
		if n := sh.recv.Load(); n != lastN {
			lastN, lastChange = n, time.Now()
			deadline = lastChange.Add(cfg.Drain)
		} else if time.Since(lastChange) > cfg.Drain/2 {
			break
		}
	}
	for _, p := range pubs {
		p.c.close()
		<-p.readDone
	}
	for _, s := range subs {
		s.c.close()
		<-s.done
	}

	msgs := float64(a1 - a0)
	if cfg.QoS == 0 {
		msgs = float64(s1 - s0)
	}
	r := &Result{
		Seconds:     elapsed.Seconds(),
		PublishRate: msgs / elapsed.Seconds(), DeliverRate: float64(r1-r0) / elapsed.Seconds(),
		Sent: sh.sent.Load(), Acked: sh.acked.Load(), Refused: sh.refused.Load(), Received: sh.recv.Load(), Errors: sh.nerr.Load(),
	}
	if cfg.QoS == 1 {
		r.Unacked = r.Sent - r.Acked - r.Refused
		var h hist
		for _, p := range pubs {
			h.merge(&p.h)
		}
		r.Ack = h.summary()
	}
	if cfg.Subs > 0 {
		var h hist
		var unique int64
		for _, s := range subs {
			h.merge(&s.h)
			r.Duplicates += s.dups
			r.Reordered += s.reordered
			unique += s.unique
		}
		r.Delivery = h.summary()
		if r.Missing = want*int64(cfg.Subs) - unique; r.Missing < 0 {
			r.Missing = 0
		}
	}
	if msgs > 0 {
		r.LoadCPU = (own1 - own0) * 1e6 / msgs
		if proc != nil {
			r.BrokerCPU = cpu * 1e6 / msgs
		}
	}
	if proc != nil {
		r.BrokerRSS, r.BrokerPeak = proc.rss0, proc.peak.Load()
	}
	sh.errs.Range(func(k, _ any) bool {
		if len(r.Text) < 5 {
			r.Text = append(r.Text, k.(string))
		}
		return true
	})
	return r, nil
}

func sleepUntil(ctx context.Context, done <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	case <-ctx.Done():
	}
}
