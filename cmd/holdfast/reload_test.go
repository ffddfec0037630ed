package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/internal/control"
	sim "holdfast/hil/plant/modbus"
)

// scanLog notes, at the field device, when each of its blocks is asked for. A
// block is the registers from 1000*n on, one for each scan class.
type scanLog struct {
	mu    sync.Mutex
	times map[string][]time.Time // by "unit/block"
}

// watch makes a device note requests that touch the first register of a block.
func (l *scanLog) watch(d *sim.Device, unit byte, block int) {
	key := fmt.Sprintf("%d/%d", unit, block)
	d.Source(sim.Holding, block*1000, 1, func(words []uint16) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.times[key] = append(l.times[key], time.Now())
		words[0]++
	})
}

func (l *scanLog) since(key string, start time.Time) []time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.times[key]
	for len(all) > 0 && all[0].Before(start) {
		all = all[1:]
	}
	return append([]time.Time(nil), all...)
}

// TestOneTagOfTenThousand changes one tag of 10,000 and counts at the field devices
// what that disturbs: no connection is made anew, and no other scan class of any
// device misses a scan.
func TestOneTagOfTenThousand(t *testing.T) {
	const units, perBlock, period = 10, 500, time.Second
	plant := sim.New(1)
	log := &scanLog{times: map[string][]time.Time{}}
	for u := byte(1); u <= units; u++ {
		d := plant.Add(u, sim.NewDevice(2000))
		log.watch(d, u, 0)
		log.watch(d, u, 1)
	}
	// Two links, so that also a link that nothing on it changes is watched.
	addresses := [2]string{servePlant(t, plant), servePlant(t, plant)}

	var text strings.Builder
	fmt.Fprintf(&text, "[field.classes]\na = \"%s\"\nb = \"%s\"\n", period, period)
	for u := 1; u <= units; u++ {
		fmt.Fprintf(&text, "[[field.device]]\nname = \"d%d\"\nprotocol = \"modbus\"\naddress = \"%s\"\nunit = %d\ntags = \"d%d.csv\"\n", u, addresses[u%2], u, u)
	}
	g := newGateway(t, "run", text.String())
	table := func(u int, factor string) {
		var b strings.Builder
		b.WriteString("name,address,class,factor\n")
		for i := range 2 * perBlock {
			class, by := "a", ""
			if i >= perBlock {
				class = "b"
			}
			if i == 7 {
				by = factor
			}
			fmt.Fprintf(&b, "t%d,holding:%d,%s,%s\n", i, i/perBlock*1000+i%perBlock, class, by)
		}
		if err := os.WriteFile(g.path(fmt.Sprintf("d%d.csv", u)), []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for u := 1; u <= units; u++ {
		table(u, "")
	}
	g.start()
	good := func(want int) func() bool {
		return func() bool { return g.field().good() == want }
	}
	g.wait("all 10,000 tags are good", good(2*perBlock*units))
	connections := plant.Connections()
	if connections != len(addresses) {
		t.Fatalf("%d connections before", connections)
	}
	skipped := g.field().skipped()

	time.Sleep(2 * period)
	start := time.Now()
	table(3, "0.5")
	if err := g.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	g.wait("the tag has its new scale", func() bool {
		out, err := g.run("tags", "--json", "d3/t7")
		return err == nil && strings.Contains(out, `"value": 0.0`)
	})
	time.Sleep(4 * period)
	end := time.Now()

	if n := plant.Connections(); n != connections {
		t.Errorf("%d connections were made anew", n-connections)
	}
	if n := g.field().skipped() - skipped; n > 0 {
		t.Errorf("%d scans were left out", n)
	}
	if n := g.field().good(); n != 2*perBlock*units {
		t.Errorf("%d tags are good", n)
	}
	for u := 1; u <= units; u++ {
		for block := range 2 {
			if u == 3 && block == 0 {
				continue // the class that was changed
			}
			key := fmt.Sprintf("%d/%d", u, block)
			times := log.since(key, start)
			want := int(end.Sub(start) / period)
			if len(times) < want-1 || len(times) > want+1 {
				t.Errorf("unit %s was asked %d times in %v, every %v", key, len(times), end.Sub(start), period)
			}
			for i := 1; i < len(times); i++ {
				if gap := times[i].Sub(times[i-1]); gap > period*19/10 {
					t.Errorf("unit %s missed a scan: %v between two", key, gap)
				}
			}
		}
	}
}

func servePlant(t *testing.T, p *sim.Plant) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.ServeTCP(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

type fieldStatus struct{ control.FieldStatus }

func (s fieldStatus) good() (n int) {
	for _, d := range s.Devices {
		n += d.Good
	}
	return n
}

func (s fieldStatus) skipped() (n uint64) {
	for _, d := range s.Devices {
		n += d.Skipped
	}
	return n
}

// field asks the field daemon for its status.
func (g *gateway) field() (s fieldStatus) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = control.NewClient(g.path("run/"+control.FieldSocket)).Get(ctx, "status", &s.FieldStatus) // zero while it does not answer
	return s
}
