package modbus

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/goburrow/modbus"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols/point"
)

// TestMain lets the test binary be the server of benchmarks: as a process of its
// own, so that what it spends is not counted.
func TestMain(m *testing.M) {
	if os.Getenv("HOLDFAST_TEST_SERVE") == "" {
		os.Exit(m.Run())
	}
	serveForever()
}

func serveForever() {
	p := sim.New(1)
	p.Add(1, ramp(2000))
	ln := inherited()
	if err := p.ServeTCP(context.Background(), ln); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// cpu returns what this process has spent so far.
func cpu() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// measure runs a benchmark whose every operation reads n tags and reports the
// processor time of one tag.
func measure(b *testing.B, n int, op func()) {
	op()
	b.ReportAllocs()
	start := cpu()
	for b.Loop() {
		op()
	}
	spent := cpu() - start
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N)/float64(n), "cpu-ns/tag")
	b.ReportMetric(float64(b.N)*float64(n)/b.Elapsed().Seconds(), "tags/s")
}

// BenchmarkRead compares the adapter with goburrow's own client, which the loop
// decodes into the same samples, on the same server.
func BenchmarkRead(b *testing.B) {
	addr := serverProcess(b)
	for _, n := range []int{1, 125, 1000} {
		b.Run("holdfast/"+strconv.Itoa(n), func(b *testing.B) {
			s := open(b, newAdapter(b), map[string]any{"address": addr, "timeout": "10s"})
			benchGroup(b, s, n)
		})
		b.Run("holdfast-pipelined/"+strconv.Itoa(n), func(b *testing.B) {
			s := open(b, newAdapter(b), map[string]any{"address": addr, "timeout": "10s", "pipeline": int64(8)})
			benchGroup(b, s, n)
		})
		b.Run("goburrow/"+strconv.Itoa(n), func(b *testing.B) {
			h := modbus.NewTCPClientHandler(addr)
			h.SlaveId = 1
			defer h.Close()
			c := modbus.NewClient(h)
			out := make([]point.Sample, n)
			measure(b, n, func() {
				for from := 0; from < n; from += 125 {
					count := min(125, n-from)
					raw, err := c.ReadHoldingRegisters(uint16(from), uint16(count))
					if err != nil {
						b.Fatal(err)
					}
					for i := range count {
						out[from+i] = point.Sample{Value: point.IntValue(int64(binary.BigEndian.Uint16(raw[2*i:])))}
					}
				}
			})
		})
	}
}

func benchGroup(b *testing.B, s *session, n int) {
	g, err := s.Group(registers(0, n))
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	out := make([]point.Sample, n)
	measure(b, n, func() { g.Read(ctx, out) })
	if out[n-1].Value.Int() != int64(n-1) || out[n-1].Quality != point.Good {
		b.Fatalf("%v %s", out[n-1].Value, out[n-1].Detail)
	}
}

// BenchmarkDecode is the part that is ours alone: from an answer to samples.
func BenchmarkDecode(b *testing.B) {
	for _, typ := range []string{"uint16", "float32", "uint64", "bcd32", "string(8)"} {
		b.Run(typ, func(b *testing.B) {
			s := open(b, newAdapter(b), map[string]any{"address": "127.0.0.1:1"})
			var tags []point.Tag
			for at := 0; at < 120; at += 4 {
				tags = append(tags, point.Tag{Name: strconv.Itoa(at), Address: "holding:" + strconv.Itoa(at), Type: typ})
			}
			gr, err := s.Group(tags)
			if err != nil {
				b.Fatal(err)
			}
			g := gr.(*group)
			out := make([]point.Sample, len(tags))
			blk := g.blocks[0]
			blk.req.answer = make([]byte, 252)
			b.ReportAllocs()
			for b.Loop() {
				g.decode(blk, out)
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(tags)), "ns/tag")
		})
	}
}

// TestReadAllocates bounds the garbage of a read: what one Read of any size may
// allocate is for its context, not for its tags.
func TestReadAllocates(t *testing.T) {
	addr := serverProcess(t)
	s := open(t, newAdapter(t), map[string]any{"address": addr, "timeout": "10s"})
	for _, n := range []int{125, 1000} {
		g, err := s.Group(registers(0, n))
		if err != nil {
			t.Fatal(err)
		}
		out := make([]point.Sample, n)
		ctx := context.Background()
		if got := testing.AllocsPerRun(100, func() { g.Read(ctx, out) }); got > 12 {
			t.Errorf("reading %d tags allocates %.0f times", n, got)
		} else {
			t.Logf("%d tags: %.0f allocations", n, got)
		}
	}
}

// serverProcess runs the plant in a process of its own and returns its address.
func serverProcess(t testing.TB) string {
	t.Helper()
	f, addr := listenFile(t)
	defer f.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_SERVE=1")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return addr
}

// listenFile returns a listener as a file that a child process can inherit.
func listenFile(t testing.TB) (*os.File, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return f, ln.Addr().String()
}

func inherited() net.Listener {
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	return ln
}
