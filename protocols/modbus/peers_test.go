package modbus

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"holdfast/protocols/point"
)

// need skips the test when a program of a peer is missing, and fails it when
// HOLDFAST_REQUIRE_PEERS says that it must be there.
func need(t *testing.T, err error, what string) {
	t.Helper()
	if err == nil {
		return
	}
	if os.Getenv("HOLDFAST_REQUIRE_PEERS") != "" {
		t.Fatalf("%s is missing: %v", what, err)
	}
	t.Skipf("%s is missing: %v", what, err)
}

// spawn starts a program and stops it with the test.
func spawn(t *testing.T, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var output bytes.Buffer
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s: %s", name, output.String())
		}
	})
}

// python returns the command of a python that has pymodbus. It is the system's:
// others on the machine do not see its packages.
func python(t *testing.T) []string {
	t.Helper()
	need(t, exec.Command("/usr/bin/python3", "-c", "import pymodbus.server").Run(), "python3-pymodbus")
	return []string{"/usr/bin/python3", "testdata/pymodbus_server.py"}
}

// libmodbus compiles the server in testdata.
func libmodbus(t *testing.T) []string {
	t.Helper()
	flags, err := exec.Command("pkg-config", "--cflags", "--libs", "libmodbus").Output()
	need(t, err, "libmodbus-dev")
	bin := filepath.Join(t.TempDir(), "server")
	args := append([]string{"-O1", "-Wall", "-o", bin, "testdata/libmodbus_server.c"}, strings.Fields(string(flags))...)
	_, err = exec.LookPath("gcc")
	need(t, err, "gcc")
	if out, err := exec.Command("gcc", args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return []string{bin}
}

func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	return port
}

// ptyPair starts socat and returns the two ends of its line.
func ptyPair(t *testing.T) (a, b string) {
	t.Helper()
	_, err := exec.LookPath("socat")
	need(t, err, "socat")
	dir := t.TempDir()
	a, b = filepath.Join(dir, "a"), filepath.Join(dir, "b")
	spawn(t, "socat", "pty,raw,echo=0,link="+a, "pty,raw,echo=0,link="+b)
	eventually(t, func() bool {
		_, errA := os.Stat(a)
		_, errB := os.Stat(b)
		return errA == nil && errB == nil
	})
	return a, b
}

// TestPeers reads and writes every table of servers that are not ours, and has
// mbpoll read what was written.
func TestPeers(t *testing.T) {
	servers := []struct {
		name    string
		command func(*testing.T) []string
	}{{"pymodbus", python}, {"libmodbus", libmodbus}}
	for _, srv := range servers {
		t.Run(srv.name+"/tcp", func(t *testing.T) {
			t.Parallel()
			cmd, port := srv.command(t), freePort(t)
			spawn(t, cmd[0], append(cmd[1:], "tcp", port)...)
			talk(t, map[string]any{"address": "127.0.0.1:" + port}, []string{"-m", "tcp", "-p", port, "127.0.0.1"})
		})
		t.Run(srv.name+"/rtu", func(t *testing.T) {
			t.Parallel()
			cmd := srv.command(t)
			theirs, ours := ptyPair(t)
			spawn(t, cmd[0], append(cmd[1:], "rtu", theirs, "19200")...)
			talk(t, map[string]any{"transport": "rtu", "port": ours, "parity": "none", "stop_bits": int64(1)},
				[]string{"-m", "rtu", "-b", "19200", "-P", "none", ours})
		})
	}
}

// talk does the work of TestPeers with one server.
func talk(t *testing.T, set map[string]any, mbpoll []string) {
	a := newAdapter(t)
	set = withSettings(set, "timeout", "2s", "worst_answer", "2s", "reconnect_max", "250ms", "demote_after", int64(100))
	s := open(t, a, set)
	eventually(t, func() bool { // the peer is up when it answers
		time.Sleep(20 * time.Millisecond)
		return read(t, s, registers(0, 1))[0].Quality == point.Good
	})
	var tags []point.Tag
	var want []point.Value
	add := func(address string, v point.Value) {
		tags = append(tags, point.Tag{Name: address, Address: address})
		want = append(want, v)
	}
	for i := 0; i < 1000; i += 9 {
		add(fmt.Sprintf("holding:%d", i), point.IntValue(int64(i)))
		add(fmt.Sprintf("input:%d", i), point.IntValue(int64(i)))
		add(fmt.Sprintf("coil:%d", i), point.BoolValue(i%3 == 0))
		add(fmt.Sprintf("discrete:%d", i), point.BoolValue(i%5 == 0))
	}
	compare(t, s, tags, want)

	writes := []point.Tag{
		tag("single coil", "coil:10", ""), tag("single register", "40101", "int16"),
		tag("float", "holding:102", "float32"), tag("swapped", "holding:104", "float64"),
		tag("bit", "holding:110.0", ""), tag("byte", "holding:111", "uint8h"), tag("text", "holding:120", "string(9)"),
		tag("big", "holding:130", "uint64"), tag("bcd", "holding:140", "bcd32"),
	}
	writes[3].Params = point.Params{"order": "CDAB"}
	values := []point.Value{
		point.BoolValue(true), point.IntValue(-777), point.Float32Value(2.5), point.FloatValue(-1e100),
		point.BoolValue(true), point.IntValue(171), point.StringValue("Pumpe 3"), point.UintValue(1 << 63), point.IntValue(87654321),
	}
	for i, tg := range writes {
		if err := write(t, s, tg, values[i]); err != nil {
			t.Errorf("write %s: %v", tg.Name, err)
		}
	}
	compare(t, s, writes, values)

	// The other functions: mask write, and writing by 15, 16 and 23.
	for i, mode := range []string{"multiple", "read_write"} {
		other := open(t, a, withSettings(set, "write_function", mode, "mask_write", true))
		n := point.IntValue(int64(500 + i))
		if err := write(t, other, tag("r", "holding:200", ""), n); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if err := write(t, other, tag("c", "coil:20", ""), point.BoolValue(i == 0)); err != nil {
			t.Errorf("%s: %v", mode, err)
		}
		if err := write(t, other, tag("b", "holding:201.15", ""), point.BoolValue(i == 0)); err != nil {
			t.Errorf("mask write: %v", err)
		}
		compare(t, other, []point.Tag{tag("r", "holding:200", ""), tag("c", "coil:20", ""), tag("b", "holding:201", "")},
			[]point.Value{n, point.BoolValue(i == 0), point.IntValue(int64(201 | (1-i)<<15))})
		other.Close()
	}
	if smp := read(t, s, registers(1000, 1))[0]; smp.Quality != point.BadConfigurationError || !containsText(smp.Detail, "exception 2") {
		t.Errorf("beyond the end: %v %s", smp.Quality, smp.Detail)
	}
	s.Close()
	a.Close()
	poll(t, mbpoll)
}

func compare(t *testing.T, s *session, tags []point.Tag, want []point.Value) {
	t.Helper()
	for i, smp := range read(t, s, tags) {
		if smp.Quality != point.Good || !smp.Value.Equal(want[i]) {
			t.Errorf("%s: %v %v %s, want %v", tags[i].Name, smp.Value, smp.Quality, smp.Detail, want[i])
		}
	}
}

// poll has mbpoll read what talk has written.
func poll(t *testing.T, target []string) {
	t.Helper()
	path, err := exec.LookPath("mbpoll")
	need(t, err, "mbpoll")
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"-t", "4", "-r", "100"}, `\[100\]:\s+64759 \(-777\)`},
		{[]string{"-t", "4:float", "-B", "-r", "102"}, `\[102\]:\s+2\.5\b`},
		{[]string{"-t", "4:hex", "-r", "110"}, `\[110\]:\s+0x006F`},
		{[]string{"-t", "4:hex", "-r", "111"}, `\[111\]:\s+0xAB6F`},
		{[]string{"-t", "4:hex", "-r", "140", "-c", "2"}, `(?s)\[140\]:\s+0x8765.*\[141\]:\s+0x4321`},
		{[]string{"-t", "0", "-r", "10"}, `\[10\]:\s+1\b`},
	} {
		args := append([]string{"-q", "-1", "-0", "-a", "1", "-o", "5"}, tt.args...)
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		out, err := exec.CommandContext(ctx, path, append(args, target...)...).CombinedOutput()
		cancel()
		if err != nil || !regexp.MustCompile(tt.want).Match(out) {
			t.Errorf("mbpoll %s: %v, want %s\n%s", strings.Join(tt.args, " "), err, tt.want, out)
		}
	}
}
