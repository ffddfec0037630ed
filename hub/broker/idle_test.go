package broker_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// idleMost is what an idle connection may cost in resident memory, with its
// session in the backend of these tests.
const idleMost = 20 << 10

func TestIdleConnectionsAreCheap(t *testing.T) {
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	if got := idle(t, 1000); got > idleMost {
		t.Errorf("an idle connection costs %d bytes, at most %d are meant", got, idleMost)
	}
}

// BenchmarkIdleConnections reports what each of 10,000 idle connections costs.
func BenchmarkIdleConnections(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(float64(idle(b, 10_000)), "RSS-B/conn")
	}
	b.ReportMetric(0, "ns/op")
}

// idle returns the resident memory that each of n connections takes after it has
// subscribed, published, and come to rest. The clients are another process.
func idle(t testing.TB, n int) int {
	t.Helper()
	files(t, n)
	h := open(t, &brokertest.Memory{}, broker.Options{})
	warm := h.join(5, "warm", true)
	warm.ping()
	before := resident(t)
	cmd := exec.Command(os.Args[0], "-test.run=^TestIdleClients$")
	cmd.Env = append(os.Environ(), "HOLDFAST_IDLE="+h.addr.String(), "HOLDFAST_IDLE_N="+strconv.Itoa(n))
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer in.Close()
	line, err := bufio.NewReader(out).ReadString('\n')
	if line != "ready\n" {
		t.Fatalf("the clients say %q, %v", line, err)
	}
	if got := h.server.Counters().Clients.Load(); got != int64(n)+1 {
		t.Fatalf("%d clients are connected, want %d", got, n+1)
	}
	eventually(t, "rest", func() bool { return h.server.Resting(0) })
	return (resident(t) - before) / n
}

// TestIdleClients is the other process of idle.
func TestIdleClients(t *testing.T) {
	addr := os.Getenv("HOLDFAST_IDLE")
	if addr == "" {
		t.Skip("it runs for TestIdleConnectionsAreCheap")
	}
	n, err := strconv.Atoi(os.Getenv("HOLDFAST_IDLE_N"))
	if err != nil {
		t.Fatal(err)
	}
	files(t, n)
	h := &house{t: t, addr: &net.UnixAddr{Name: addr, Net: "unix"}}
	for i := range n {
		c := h.dial()
		c.r = bufio.NewReaderSize(c.nc, 64)
		c.connect(hello{version: 5, id: fmt.Sprint("idle", i), clean: true}.packet())
		c.subscribe(fmt.Sprint("idle/", i), 1)
		c.send(publish(5, fmt.Sprint("idle/", i), 1, 1, "x"))
		for range 2 {
			if first, body := c.packet(); first == 0x32 {
				c.send(pack(0x40, body[len(body)-4:len(body)-2]))
			}
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
}

// files raises the limit of open files for n connections.
func files(t testing.TB, n int) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	want := uint64(n + 500)
	if l.Max < want {
		t.Skipf("only %d files may be open", l.Max)
	}
	if l.Cur < want {
		l.Cur = l.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
			t.Fatal(err)
		}
	}
}

// resident is the memory of this process, in bytes, after garbage has gone.
func resident(t testing.TB) int {
	t.Helper()
	debug.FreeOSMemory()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "VmRSS:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
