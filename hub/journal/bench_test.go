package journal

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/disk"
)

// benchDir is where the benchmarks write: HOLDFAST_BENCH_DIR, so that another
// medium can be measured, or a temporary directory.
func benchDir(b *testing.B) string {
	if dir := os.Getenv("HOLDFAST_BENCH_DIR"); dir != "" {
		dir, err := os.MkdirTemp(dir, "journal")
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { os.RemoveAll(dir) })
		return dir
	}
	return b.TempDir()
}

// benchJournal runs a journal on the real disk until the benchmark ends.
func benchJournal(b *testing.B, o Options) *Journal {
	host, err := disk.OpenHost(benchDir(b))
	if err != nil {
		b.Fatal(err)
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = 8 * 64 << 20
	}
	j, err := Open(host, o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- j.Run(ctx) }()
	b.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			b.Error(err)
		}
		j.Close()
		host.Close()
	})
	return j
}

// report adds the median and the 99th percentile of latencies.
func report(b *testing.B, lat []time.Duration) {
	slices.Sort(lat)
	b.ReportMetric(float64(lat[len(lat)/2].Nanoseconds())/1e3, "p50-us")
	b.ReportMetric(float64(lat[len(lat)*99/100].Nanoseconds())/1e3, "p99-us")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rec/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkSync is the physical baseline: overwrite a page of a filled file and
// fdatasync.
func BenchmarkSync(b *testing.B) {
	host, err := disk.OpenHost(benchDir(b))
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	f, err := host.Create("baseline")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, pageSize)
	const pages = 4096
	for i := range int64(pages) {
		if _, err := f.WriteAt(page, i*pageSize); err != nil {
			b.Fatal(err)
		}
	}
	f.Sync()
	var lat []time.Duration
	i := int64(0)
	for b.Loop() {
		start := time.Now()
		if _, err := f.WriteAt(page, i%pages*pageSize); err != nil {
			b.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			b.Fatal(err)
		}
		lat = append(lat, time.Since(start))
		i++
	}
	report(b, lat)
}

// BenchmarkAppend measures durable appends: producers x window outstanding.
func BenchmarkAppend(b *testing.B) {
	for _, c := range []struct {
		producers, window, size int
		delay                   time.Duration
	}{
		{1, 1, 128, 0}, {1, 100, 1024, 0}, {10, 100, 1024, 0}, {100, 100, 1024, 0}, {10, 100, 1024, 5 * time.Millisecond},
	} {
		b.Run(fmt.Sprintf("%dx%d/%dB/delay=%v", c.producers, c.window, c.size, c.delay), func(b *testing.B) {
			j := benchJournal(b, Options{SyncDelay: c.delay})
			produce(b, j, c.producers, c.window, c.size)
		})
	}
}

// produce appends b.N records, each in a batch of its own.
func produce(b *testing.B, j *Journal, producers, window, size int) {
	body := make([]byte, size)
	var mu sync.Mutex
	var lat []time.Duration
	var wg sync.WaitGroup
	b.ResetTimer()
	for p := range producers {
		n := b.N / producers
		if p < b.N%producers {
			n++
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			mine := make([]time.Duration, 0, n)
			free := make(chan *bench, window)
			for range window {
				bb := &bench{free: free}
				bb.b.Entries = []Entry{{Class: 5, Body: body}}
				bb.b.Done = bb.done
				free <- bb
			}
			for range n {
				bb := <-free
				if bb.took > 0 {
					mine = append(mine, bb.took)
				}
				bb.b.Entries[0].Time = time.Now().UnixMicro()
				bb.start = time.Now()
				if err := j.Submit(&bb.b); err != nil {
					b.Error(err)
					return
				}
			}
			for range window {
				if bb := <-free; bb.took > 0 {
					mine = append(mine, bb.took)
				}
			}
			mu.Lock()
			lat = append(lat, mine...)
			mu.Unlock()
		}()
	}
	wg.Wait()
	b.StopTimer()
	report(b, lat)
	s := j.Stats()
	b.ReportMetric(float64(s.Bytes)/float64(b.N*size), "log-bytes/byte")
	b.ReportMetric(float64(b.N)/float64(s.Groups), "rec/group")
}

type bench struct {
	b     Batch
	free  chan *bench
	start time.Time
	took  time.Duration
}

func (bb *bench) done(_ Offset, err error) {
	if err != nil {
		panic(err)
	}
	bb.took = time.Since(bb.start)
	bb.free <- bb
}

// BenchmarkFlash measures bytes that reach the block device per byte of body at
// a fixed rate, from the sectors in the device's statistics. Nothing else
// should write to the device meanwhile; what idles along is measured first and
// taken off. -benchtime 20s or more, please.
func BenchmarkFlash(b *testing.B) {
	for _, c := range []struct {
		rate, size int
		linger     time.Duration
		recycled   bool
	}{
		{10, 1024, 0, true}, {10, 1024, time.Second, true},
		{1000, 1024, 0, true}, {1000, 1024, 100 * time.Millisecond, true}, {1000, 1024, 100 * time.Millisecond, false},
		{1000, 128, 250 * time.Millisecond, true},
		{50000, 1024, 0, true}, {50000, 1024, 10 * time.Millisecond, true}, {50000, 1024, 10 * time.Millisecond, false},
	} {
		name := fmt.Sprintf("%d/s/%dB/linger=%v/recycled=%v", c.rate, c.size, c.linger, c.recycled)
		b.Run(name, func(b *testing.B) { flash(b, c.rate, c.size, c.linger, c.recycled) })
	}
}

func flash(b *testing.B, rate, size int, linger time.Duration, recycled bool) {
	dir := benchDir(b)
	stat := deviceStat(b, dir)
	host, err := disk.OpenHost(dir)
	if err != nil {
		b.Fatal(err)
	}
	o := Options{Linger: linger, SegmentBytes: 8 << 20, QueueBytes: 64 << 20}
	if recycled { // a full journal that reuses its files, as a gateway's is after some days
		o.MaxBytes = 4 * o.SegmentBytes
		fill, err := Open(host, o)
		if err != nil {
			b.Fatal(err)
		}
		for fill.lastID < 6 {
			fill.Submit(&Batch{Entries: []Entry{{Class: 5, Body: make([]byte, 1<<20)}}})
			fill.step(false)
		}
		fill.Close()
	}
	j, err := Open(host, o)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- j.Run(ctx) }()
	defer func() { cancel(); <-done; j.Close(); host.Close() }()

	// Wait until earlier work has reached the medium; what never ends is noise.
	var noise float64
	for range 20 {
		syscall.Sync()
		before := stat()
		time.Sleep(time.Second)
		if noise = float64(stat() - before); noise == 0 {
			break
		}
	}
	before := stat()
	start := time.Now()
	var wg sync.WaitGroup
	body := make([]byte, size)
	tick := max(time.Second/time.Duration(rate), time.Millisecond)
	sent := 0
	for b.Loop() { // one op is one tick
		time.Sleep(time.Until(start.Add(time.Duration(sent) * time.Second / time.Duration(rate)).Add(tick)))
		for want := int(time.Since(start).Seconds() * float64(rate)); sent < want; sent++ {
			wg.Add(1)
			err := j.Submit(&Batch{Entries: []Entry{{Class: 5, Time: time.Now().UnixMicro(), Body: body}}, Done: func(Offset, error) { wg.Done() }})
			if err != nil {
				b.Fatal(err)
			}
		}
	}
	wg.Wait()
	took := time.Since(start).Seconds()
	syscall.Sync()
	bytes := float64(stat()-before) - noise*took
	if sent == 0 {
		return
	}
	b.ReportMetric(bytes/float64(sent*size), "device-bytes/byte")
	b.ReportMetric(noise, "idle-bytes/s")
	b.ReportMetric(float64(sent)/took, "rec/s")
	s := j.Stats()
	b.ReportMetric(float64(s.Bytes)/float64(sent*size), "log-bytes/byte")
	b.ReportMetric(float64(sent)/float64(max(1, s.Groups)), "rec/group")
	b.ReportMetric(0, "ns/op")
}

// deviceStat returns a function that reads the bytes written so far to the
// block device under a directory.
func deviceStat(b *testing.B, dir string) func() int64 {
	var st syscall.Stat_t
	if err := syscall.Stat(dir, &st); err != nil {
		b.Fatal(err)
	}
	major, minor := st.Dev>>8&0xfff, st.Dev&0xff|st.Dev>>12&0xfff00
	path := filepath.Join("/sys/dev/block", fmt.Sprintf("%d:%d", major, minor), "stat")
	read := func() int64 {
		text, err := os.ReadFile(path)
		if err != nil {
			b.Skipf("no statistics of the device under %s: %v", dir, err)
		}
		sectors, err := strconv.ParseInt(strings.Fields(string(text))[6], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		return sectors * 512
	}
	read()
	return read
}

// BenchmarkOpen opens a journal of ten million records.
func BenchmarkOpen(b *testing.B) {
	const records = 10_000_000
	dir := benchDir(b)
	host, err := disk.OpenHost(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer host.Close()
	j, err := Open(host, Options{})
	if err != nil {
		b.Fatal(err)
	}
	entries := make([]Entry, 10_000)
	for i := range entries {
		entries[i] = Entry{Class: uint8(i % 10), Body: make([]byte, 128)}
	}
	for range records / len(entries) {
		if err := j.Submit(&Batch{Entries: entries}); err != nil {
			b.Fatal(err)
		}
		j.step(false)
	}
	j.Close()
	for b.Loop() {
		j, err := Open(host, Options{})
		if err != nil {
			b.Fatal(err)
		}
		if j.Committed() != records {
			b.Fatalf("committed %d", j.Committed())
		}
		if rec, err := j.ReadAt(records / 2); err != nil || rec.Offset != records/2 {
			b.Fatal(rec, err)
		}
		j.Close()
	}
}

// BenchmarkRead reads a backlog from the files.
func BenchmarkRead(b *testing.B) {
	j := benchJournal(b, Options{TailBytes: 1})
	entries := make([]Entry, 1000)
	for i := range entries {
		entries[i] = Entry{Body: make([]byte, 1024)}
	}
	for range 200 {
		if _, err := j.Append(context.Background(), entries...); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(1024)
	r := j.NewReader(1)
	for b.Loop() {
		if _, err := r.Next(); err != nil {
			r.Seek(1)
		}
	}
}
