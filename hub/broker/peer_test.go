package broker_test

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// need finds a program of somebody else's. Without it the test is skipped,
// unless HOLDFAST_REQUIRE_PEERS=1 says that it must be there.
func need(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err == nil {
		return path
	}
	missing(t, name)
	return ""
}

func missing(t *testing.T, what string) {
	t.Helper()
	if required() {
		t.Fatalf("%s is missing, and HOLDFAST_REQUIRE_PEERS=1", what)
	}
	t.Skipf("%s is missing", what)
}

func required() bool { return os.Getenv("HOLDFAST_REQUIRE_PEERS") == "1" }

// run runs a peer and returns its output.
func run(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s", filepath.Base(name), strings.Join(args, " "), err, out.String())
	}
	return out.String()
}

// mosquitto_pub and mosquitto_sub, with both versions and all QoS.
func TestMosquittoClients(t *testing.T) {
	pub, sub := need(t, "mosquitto_pub"), need(t, "mosquitto_sub")
	for _, version := range []string{"mqttv311", "mqttv5"} {
		t.Run(version, func(t *testing.T) {
			h := openOn(t, &brokertest.Memory{}, broker.Options{}, listenTCP(t), broker.ListenerOptions{})
			host, port, err := net.SplitHostPort(h.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			base := []string{"-h", host, "-p", port, "-V", version}
			session := append(base, "-i", "msub", "-c", "-q", "2", "-t", "plant/#", "-F", "%t %q %r %p", "-W", "30")
			run(t, "", sub, append(session, "-E")...) // subscribes and leaves
			for _, q := range []string{"0", "1", "2"} {
				run(t, "", pub, append(base, "-q", q, "-t", "plant/"+q, "-m", "value "+q)...)
			}
			lines := strings.Repeat("line\n", 500)
			cmd := exec.Command(pub, append(base, "-q", "2", "-t", "plant/lines", "-l")...)
			cmd.Stdin = strings.NewReader(lines)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("mosquitto_pub -l: %v\n%s", err, out)
			}
			want := "plant/0 0 0 value 0\nplant/1 1 0 value 1\nplant/2 2 0 value 2\n" + strings.Repeat("plant/lines 2 0 line\n", 500)
			if got := run(t, "", sub, append(session, "-C", "503")...); got != want {
				t.Errorf("got %d lines:\n%.300s", strings.Count(got, "\n"), got)
			}
			eventually(t, "settling", func() bool { return h.backend.Queued("msub") == 0 })
		})
	}
}

// The client that most JavaScript programs use, as an MQTT 5 peer over TCP and
// WebSocket.
func TestNpmClient(t *testing.T) {
	node := need(t, "node")
	dir := filepath.Join("testdata", "npm")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "mqtt")); err != nil {
		if !required() {
			t.Skip("the packages are not there: run npm ci in testdata/npm")
		}
		run(t, dir, need(t, "npm"), "ci", "--no-audit", "--no-fund")
	}
	h := start(t, &brokertest.Memory{}, broker.Options{})
	tcp, web := listenTCP(t), listenTCP(t)
	go h.server.Serve(context.Background(), tcp, broker.ListenerOptions{})
	go h.server.ServeWebSocket(context.Background(), web, broker.ListenerOptions{})
	for _, url := range []string{"mqtt://" + tcp.Addr().String(), "ws://" + web.Addr().String() + "/mqtt"} {
		t.Run(url[:strings.Index(url, ":")], func(t *testing.T) {
			if out := run(t, dir, node, "peer.js", url); strings.TrimSpace(out) != "ok" {
				t.Error(out)
			}
			h.backend.Forget()
		})
	}
}
