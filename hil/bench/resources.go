package bench

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"holdfast/hil/bench/mqttload"
)

// hubMemory measures an idle hub, and one with 10,000 connections that do
// nothing.
func hubMemory(ctx context.Context, o *Options) ([]Row, error) {
	const clients = 10_000
	limit := syscall.Rlimit{}
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return nil, err
	}
	if limit.Max < clients+200 {
		limit.Max = clients + 1000 // root may
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < clients+200 {
		return nil, fmt.Errorf("%d open files are needed, %d are allowed", clients+200, limit.Cur)
	}
	c, addr, clean, err := startHub(ctx, o, hubConfig{clients: clients + 10})
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return nil, err
	}
	defer c.stop()
	time.Sleep(2 * time.Second)
	idle, err := memory(c.pid(), "status", "VmRSS")
	if err != nil {
		return nil, err
	}
	conns := make([]net.Conn, 0, clients)
	defer func() {
		for _, nc := range conns {
			nc.Close()
		}
	}()
	for i := range clients {
		nc, err := mqttload.Connect(addr, fmt.Sprintf("idle-%d", i))
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		conns = append(conns, nc)
	}
	time.Sleep(2 * time.Second)
	full, err := memory(c.pid(), "status", "VmRSS")
	if err != nil {
		return nil, err
	}
	each := float64(full-idle) / clients
	return []Row{
		{"memory of an idle hub, resident", fmt.Sprintf("%.1f MiB", float64(idle)/1024), "", "", "at most 25 MiB", verdict(idle <= 25*1024), ""},
		{"memory of each of 10,000 idle connections, resident", fmt.Sprintf("%.1f KiB", each), "", "", "at most 20 KiB", verdict(each <= 20),
			fmt.Sprintf("all in: %.0f MiB resident with them", float64(full)/1024)},
	}, nil
}

// hubBacklog fills the journal with 10 million messages for a subscriber that
// is away, and measures what they cost and how long a restart takes.
func hubBacklog(ctx context.Context, o *Options) ([]Row, error) {
	const messages = 10_000_000
	dir, err := os.MkdirTemp(o.Dir, "backlog")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	conf := hubConfig{data: filepath.Join(dir, "data"), budget: "8GiB"}
	c, addr, clean, err := startHub(ctx, o, conf)
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return nil, err
	}
	stopped := false
	defer func() {
		if !stopped {
			c.stop()
		}
	}()
	if err := mqttload.Park(addr, "away", "bench/+/data"); err != nil {
		return nil, fmt.Errorf("park a subscriber: %w", err)
	}
	load := mqttload.Options{Broker: addr, Publishers: 10, Window: 200, Size: 128, QoS: 1, Warmup: time.Second, Duration: 3 * time.Minute, Count: messages}
	// One pass before the fill brings the process to its working size.
	if _, err := mqttload.Run(ctx, mqttload.Options{Broker: addr, Publishers: 10, Window: 200, Size: 128, QoS: 1, Duration: 3 * time.Second}); err != nil {
		return nil, err
	}
	before, err := memory(c.pid(), "status", "VmRSS")
	if err != nil {
		return nil, err
	}
	r, err := mqttload.Run(ctx, load)
	if err != nil {
		return nil, err
	}
	if r.Acked < messages {
		return nil, fmt.Errorf("%d of %d messages were acknowledged: %v", r.Acked, messages, r.Text)
	}
	time.Sleep(2 * time.Second)
	after, err := memory(c.pid(), "status", "VmRSS")
	if err != nil {
		return nil, err
	}
	c.stop()
	stopped = true

	var opens series
	for range o.Rounds {
		t := time.Now()
		again, _, cleanAgain, err := startHub(ctx, o, conf)
		if err != nil {
			return nil, err
		}
		opens = append(opens, time.Since(t).Seconds())
		again.stop()
		cleanAgain()
	}
	growth := float64(after-before) / 1024
	return []Row{
		{"memory that a backlog of 10 million messages costs", fmt.Sprintf("%+.1f MiB", growth), "", "", "none", verdict(growth < 8),
			fmt.Sprintf("%.1f MiB resident before, %.1f MiB after; under 8 MiB counts as none", float64(before)/1024, float64(after)/1024)},
		{"start of a hub whose journal holds 10 million records", opens.show("%.2f") + " s", "", "", "under 1 s", verdict(opens.median() < 1),
			"process start to first accepted connection"},
	}, nil
}

// hubFlash compares the bytes that reached the disk with the bytes of the
// messages that were stored, on a file system of its own where it may make one.
func hubFlash(ctx context.Context, o *Options) ([]Row, error) {
	own := *o
	dir, clean, err := ownDisk(o.Dir)
	if err != nil {
		fmt.Fprintf(o.Out, "  measuring on a shared disk: %v\n", err)
	} else {
		defer clean()
		own.Dir = dir
	}
	var rows []Row
	for _, k := range []struct {
		rate    float64
		linger  time.Duration
		seconds int
	}{
		{10, time.Second, 30},
		{1000, 250 * time.Millisecond, 20},
		{50_000, 20 * time.Millisecond, 15},
	} {
		row, err := flashAt(ctx, &own, k.rate, k.linger, k.seconds)
		if err != nil {
			row = Row{Name: fmt.Sprintf("bytes written to the disk per payload byte, 1 KiB, %.0f messages/s", k.rate), Met: Unmeasured, Note: err.Error()}
		}
		rows = append(rows, row)
	}
	return rows, nil
}

// ownDisk makes a file system in a file, so that nobody else writes to its
// block device.
func ownDisk(dir string) (mounted string, clean func(), err error) {
	tmp, err := os.MkdirTemp(dir, "disk")
	if err != nil {
		return "", nil, err
	}
	image, mounted := filepath.Join(tmp, "image"), filepath.Join(tmp, "mnt")
	clean = func() {
		exec.Command("umount", mounted).Run()
		os.RemoveAll(tmp)
	}
	if err := os.Mkdir(mounted, 0o755); err != nil {
		clean()
		return "", nil, err
	}
	for _, args := range [][]string{
		{"truncate", "-s", "3G", image},
		{"/sbin/mkfs.ext4", "-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image},
		{"mount", "-o", "loop,noatime", image, mounted},
	} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			clean()
			return "", nil, fmt.Errorf("%s: %w: %.100s", args[0], err, out)
		}
	}
	return mounted, clean, nil
}

func flashAt(ctx context.Context, o *Options, rate float64, linger time.Duration, seconds int) (Row, error) {
	const size = 1024
	c, addr, clean, err := startHub(ctx, o, hubConfig{linger: linger})
	if clean != nil {
		defer clean()
	}
	if err != nil {
		return Row{}, err
	}
	defer c.stop()
	load := mqttload.Options{Broker: addr, Publishers: 10, Window: max(2, min(60_000, int(rate*linger.Seconds()*3/10))), Size: size, QoS: 1, Rate: rate}
	load.Duration = 2 * time.Second // files that are made once are not what is measured
	if _, err := mqttload.Run(ctx, load); err != nil {
		return Row{}, err
	}
	syscall.Sync()
	quiet, err := idleWrites(o.Dir, 5*time.Second)
	if err != nil {
		return Row{}, err
	}
	before, err := written(o.Dir)
	if err != nil {
		return Row{}, err
	}
	t := time.Now()
	load.Duration = time.Duration(seconds) * time.Second
	r, err := mqttload.Run(ctx, load)
	if err != nil {
		return Row{}, err
	}
	syscall.Sync()
	elapsed := time.Since(t)
	after, err := written(o.Dir)
	if err != nil {
		return Row{}, err
	}
	if r.PublishRate < rate*0.9 {
		return Row{}, fmt.Errorf("the load did not keep its rate: %.0f of %.0f messages/s", r.PublishRate, rate)
	}
	ratio := (float64(after-before) - quiet*elapsed.Seconds()) / (float64(r.Acked) * size)
	row := Row{Name: fmt.Sprintf("bytes written to the disk per payload byte, 1 KiB, %.0f messages/s", rate), Holdfast: fmt.Sprintf("%.2f", ratio),
		Note: fmt.Sprintf("linger %s; acknowledgement p50 %.0f ms; the device was given %.0f KiB/s before", linger, r.Ack.P50/1e3, quiet/1024)}
	if rate >= 1000 {
		row.Target, row.Met = "at most 1.3", verdict(ratio <= 1.3)
	}
	return row, nil
}

// idleWrites returns the bytes per second that reach the disk without us.
func idleWrites(dir string, d time.Duration) (float64, error) {
	a, err := written(dir)
	if err != nil {
		return 0, err
	}
	time.Sleep(d)
	b, err := written(dir)
	return float64(b-a) / d.Seconds(), err
}
