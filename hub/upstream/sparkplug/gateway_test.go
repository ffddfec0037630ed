package sparkplug_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/forward"
	"holdfast/hub/journal"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/hub/upstream/sparkplug/payload"
)

// A gateway is what a test runs, in its own process or in one of its own: a
// journal on a disk, a forwarder, and an edge node. Record n is a reading of tag
// "n" whose value is n.
type gateway struct {
	dir, url string
	options  sparkplug.Options
	pace     time.Duration
}

const gatewayEnv = "HOLDFAST_SPARKPLUG_GATEWAY"

// TestMain is the gateway's process when the environment says so.
func TestMain(m *testing.M) {
	if os.Getenv(gatewayEnv) == "" {
		os.Exit(m.Run())
	}
	first, err := strconv.Atoi(os.Args[3])
	if err == nil {
		g := gateway{dir: os.Args[1], url: os.Args[2], pace: 2 * time.Millisecond}
		err = g.run(context.Background(), first, func(n int) bool {
			fmt.Println(n)
			return true
		}, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

// run writes records from first on until wrote says that it was enough, each
// reported once the journal has it, and forwards until ctx ends or everything is
// confirmed; idle, if not nil, is then called once.
func (g *gateway) run(ctx context.Context, first int, wrote func(n int) bool, idle func(forward.Stats)) error {
	fs, err := disk.OpenHost(g.dir)
	if err != nil {
		return err
	}
	j, err := journal.Open(fs, journal.Options{CursorDelay: 20 * time.Millisecond})
	if err != nil {
		return err
	}
	defer j.Close()
	o := g.options
	o.URL, o.Group, o.Node, o.ClientID = g.url, "G", "N", "edge"
	o.Decode, o.Ledger = decodeNumber, sparkplug.FileLedger{FS: fs, Name: "bdseq"}
	if o.Bound == 0 {
		o.Bound = 2 * time.Second
	}
	if os.Getenv("HOLDFAST_SPARKPLUG_LOG") != "" {
		o.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	}
	up, err := sparkplug.New(o)
	if err != nil {
		return err
	}
	f, err := forward.New("$upstream", forward.FromJournal(j), up, forward.Options{
		SaveEvery: 50 * time.Millisecond, MinPause: 20 * time.Millisecond, MaxPause: 200 * time.Millisecond, DrainTimeout: time.Millisecond, Log: o.Log,
	})
	if err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.Background())
	keep, end := context.WithCancel(context.Background())
	var forwarding, keeping sync.WaitGroup
	defer func() {
		cancel()
		forwarding.Wait()
		end()
		keeping.Wait()
	}()
	keeping.Go(func() { _ = j.Run(keep) })
	forwarding.Go(func() { _ = f.Run(run) })
	for n := first; ; n++ {
		r := hub.Record{QoS: 1, Received: time.Now().UnixMicro(), Sender: []byte("field"), Topic: []byte("field/press/readings"), Payload: strconv.AppendInt(nil, int64(n), 10),
			Targets: hub.Targets(nil).Append("$upstream", hub.DefaultPriority, 0)}
		if _, err := j.Append(ctx, journal.Entry{Class: hub.DefaultPriority, Body: r.Append(nil)}); err != nil {
			return err
		}
		if !wrote(n) {
			break
		}
		time.Sleep(g.pace)
	}
	for ctx.Err() == nil {
		if s := f.Stats(); s.InFlight == 0 && s.Queued[hub.DefaultPriority] == 0 && s.Link.Phase == forward.Up {
			if idle != nil {
				idle(s)
			}
			return nil
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ctx.Err()
}

func decodeNumber(r *hub.Record, b *sparkplug.Batch) error {
	n, err := strconv.ParseInt(string(r.Payload), 10, 64)
	if err != nil {
		return errors.New("not a number")
	}
	b.Device = "press"
	b.Readings = append(b.Readings, sparkplug.Reading{Tag: "n", Value: payload.IntValue(n)})
	return nil
}
