package mqttload

import (
	"fmt"
	"math"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// hist is a log-linear histogram of nanoseconds, about 1.6 % wide per bucket.
type hist struct {
	b   [64 * 64]int64
	n   int64
	sum float64
	max int64
}

func bucket(v int64) int {
	if v < 64 {
		return int(max(v, 0))
	}
	e := bits.Len64(uint64(v)) - 7
	return (e+1)*64 + int(v>>e) - 64
}

func bucketValue(i int) float64 {
	if i < 64 {
		return float64(i)
	}
	e := i/64 - 1
	return (float64(i%64) + 64.5) * math.Pow(2, float64(e))
}

func (h *hist) add(v int64) {
	h.b[bucket(v)]++
	h.n++
	h.sum += float64(v)
	h.max = max(h.max, v)
}

func (h *hist) merge(o *hist) {
	for i, c := range o.b {
		h.b[i] += c
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

func (h *hist) quantile(q float64) float64 {
	want, c := int64(math.Ceil(q*float64(h.n))), int64(0)
	for i, k := range h.b {
		if c += k; c >= want && k > 0 {
			return math.Min(bucketValue(i), float64(h.max))
		}
	}
	return float64(h.max)
}

func (h *hist) summary() Latency {
	if h.n == 0 {
		return Latency{}
	}
	us := func(ns float64) float64 { return ns / 1e3 }
	return Latency{N: h.n, P50: us(h.quantile(.5)), P90: us(h.quantile(.9)), P99: us(h.quantile(.99)), P999: us(h.quantile(.999)),
		Max: us(float64(h.max)), Mean: us(h.sum / float64(h.n))}
}

func ownCPU() float64 {
	var ru syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &ru)
	return float64(ru.Utime.Nano()+ru.Stime.Nano()) / 1e9
}

// procWatch follows one process' CPU time and resident memory.
type procWatch struct {
	pid   int
	rss0  int64
	peak  atomic.Int64
	start float64
	quit  chan struct{}
}

func watchProc(pid int) (*procWatch, error) {
	p := &procWatch{pid: pid, quit: make(chan struct{})}
	r, err := p.rss()
	if err != nil {
		return nil, fmt.Errorf("broker process: %w", err)
	}
	p.rss0 = r
	p.peak.Store(r)
	go func() {
		t := time.NewTicker(50 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-p.quit:
				return
			case <-t.C:
				if r, err := p.rss(); err == nil && r > p.peak.Load() {
					p.peak.Store(r)
				}
			}
		}
	}()
	return p, nil
}

func (p *procWatch) stop() { close(p.quit) }

func (p *procWatch) rss() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		return 0, err
	}
	for _, l := range strings.Split(string(b), "\n") {
		if v, ok := strings.CutPrefix(l, "VmRSS:"); ok {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(v), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("no VmRSS for %d", p.pid)
}

func (p *procWatch) cpu() float64 {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return 0
	}
	s := string(b)
	f := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
	if len(f) < 13 {
		return 0
	}
	u, _ := strconv.ParseFloat(f[11], 64)
	k, _ := strconv.ParseFloat(f[12], 64)
	return (u + k) / 100 // USER_HZ is 100 on every Linux that Go runs on
}

func (p *procWatch) mark() { p.start = p.cpu() }

func (p *procWatch) sinceMark() float64 { return p.cpu() - p.start }
