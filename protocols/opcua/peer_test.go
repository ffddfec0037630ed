package opcua

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/hil/fault"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// patience bounds every wait for the peer; it is no promise about speed.
const patience = 60 * time.Second

// A peer is a node-opcua server in a process of its own.
type peer struct {
	args map[string]any
	port int
	cert []byte // DER

	mu  sync.Mutex
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

var (
	sharing sync.Mutex
	common  *peer
)

// sharedPeer returns the one server of all tests that leave it as they found it.
func sharedPeer(t testing.TB) *peer {
	t.Helper()
	sharing.Lock()
	defer sharing.Unlock()
	if common == nil {
		dir, err := os.MkdirTemp("", "opcua")
		if err != nil {
			t.Fatal(err)
		}
		common = newPeer(t, dir, nil)
	}
	return common
}

func TestMain(m *testing.M) {
	code := m.Run()
	if common != nil {
		common.kill()
		os.RemoveAll(common.args["root"].(string))
	}
	os.Exit(code)
}

const serverURI = "urn:holdfast:test:server"

// startPeer starts a server that is stopped when the test ends. args overwrite
// the server's own; see testdata/node/server.js.
func startPeer(t testing.TB, args map[string]any) *peer {
	t.Helper()
	p := newPeer(t, t.TempDir(), args)
	t.Cleanup(p.kill)
	return p
}

func newPeer(t testing.TB, dir string, args map[string]any) *peer {
	t.Helper()
	if _, err := os.Stat("testdata/node/node_modules/node-opcua"); err != nil {
		if os.Getenv("HOLDFAST_REQUIRE_PEERS") != "" {
			t.Fatal("node-opcua is missing: run hil/setup.sh")
		}
		t.Skip("node-opcua is missing: run hil/setup.sh")
	}
	key := newKey(t)
	der := newCert(t, key, certOptions{uri: serverURI})
	writePEM(t, filepath.Join(dir, "cert.pem"), "CERTIFICATE", der)
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	writePEM(t, filepath.Join(dir, "key.pem"), "PRIVATE KEY", raw)
	p := &peer{port: freePort(t), cert: der, args: map[string]any{
		"root": dir, "certificate": filepath.Join(dir, "cert.pem"), "key": filepath.Join(dir, "key.pem"), "uri": serverURI,
	}}
	p.args["port"] = p.port
	for k, v := range args {
		p.args[k] = v
	}
	p.start(t)
	return p
}

func freePort(t testing.TB) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func (p *peer) start(t testing.TB) {
	t.Helper()
	args, _ := json.Marshal(p.args)
	cmd := exec.Command("node", "server.js", string(args))
	cmd.Dir = "testdata/node"
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var noise strings.Builder
	cmd.Stderr = &noise
	if testing.Verbose() {
		cmd.Stderr = io.MultiWriter(&noise, os.Stderr)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.cmd, p.in, p.out = cmd, in, bufio.NewScanner(out)
	p.out.Buffer(nil, 1<<20)
	if got := p.line(); got != "ready" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("the server says %q and:\n%s", got, noise.String())
	}
}

// line returns the next answer; what the server's libraries print is passed over.
func (p *peer) line() string {
	for p.out.Scan() {
		s, ok := strings.CutPrefix(p.out.Text(), "@@ ")
		if ok {
			return s
		}
		if testing.Verbose() {
			fmt.Fprintln(os.Stderr, "server:", s)
		}
	}
	return ""
}

// tell gives the server a command and returns its answer.
func (p *peer) tell(t testing.TB, command map[string]any) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	line, _ := json.Marshal(command)
	if _, err := p.in.Write(append(line, '\n')); err != nil {
		t.Fatal(err)
	}
	return p.line()
}

func (p *peer) set(t testing.TB, node string, value any) {
	t.Helper()
	if got := p.tell(t, map[string]any{"do": "set", "node": node, "value": value}); got != "ok" {
		t.Fatalf("set %s: %q", node, got)
	}
}

func (p *peer) kill() {
	if p.cmd == nil {
		return
	}
	p.cmd.Process.Kill()
	p.cmd.Wait()
	p.cmd = nil
}

func (p *peer) addr() string { return fmt.Sprintf("127.0.0.1:%d", p.port) }

// link puts a link that can be broken in front of the server.
func (p *peer) link(t testing.TB) *fault.Link {
	t.Helper()
	l, err := fault.Open(fault.Options{Target: p.addr()})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		l.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return l
}

type certOptions struct {
	uri       string
	host      string // besides 127.0.0.1
	before    time.Time
	after     time.Time
	noAddress bool
}

func newKey(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func newCert(t testing.TB, key *rsa.PrivateKey, o certOptions) []byte {
	t.Helper()
	if o.before.IsZero() {
		o.before = time.Now().Add(-time.Hour)
	}
	if o.after.IsZero() {
		o.after = time.Now().Add(1000 * time.Hour)
	}
	u, err := url.Parse(o.uri)
	if err != nil {
		t.Fatal(err)
	}
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<60))
	c := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "test"}, NotBefore: o.before, NotAfter: o.after,
		URIs: []*url.URL{u}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if !o.noAddress {
		c.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	if o.host != "" {
		c.DNSNames = []string{o.host}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func writePEM(t testing.TB, name, kind string, der []byte) {
	t.Helper()
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
}

// newAdapter returns an adapter with a certificate store that trusts certs.
func newAdapter(t testing.TB, certs ...[]byte) *Adapter {
	t.Helper()
	fs, err := disk.OpenHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { fs.Close() })
	level := slog.LevelWarn
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: level}))
	a := New(protocols.Env{Clock: clock.NewReal(), Log: log}, Options{
		OpenFS: func() (disk.FS, error) { return fs, nil }, Hosts: []string{"localhost"}, ReadFile: os.ReadFile, Getenv: os.Getenv,
	})
	store, err := a.store()
	if err != nil {
		t.Fatal(err)
	}
	for _, der := range certs {
		if _, err := store.Add(der); err != nil {
			t.Fatal(err)
		}
	}
	return a
}

type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s %s", time.Now().Format("05.000"), strings.TrimSpace(string(b)))
	return len(b), nil
}

// settingsFor returns the settings of a device at an address.
func settingsFor(addr string, more ...any) map[string]any {
	m := map[string]any{"endpoint": "opc.tcp://" + addr, "security_policy": "None"}
	for i := 0; i < len(more); i += 2 {
		m[more[i].(string)] = more[i+1]
	}
	return m
}

func node(name string) point.Tag {
	return point.Tag{Name: name, Address: "nsu=urn:holdfast:test;s=" + name}
}

func openSession(t testing.TB, a *Adapter, set map[string]any, tags ...point.Tag) *session {
	t.Helper()
	s, err := a.Open(protocols.Device{Name: "plc", Protocol: "opcua", Settings: set, Tags: tags})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s.(*session)
}

// A recorder is a sink that keeps everything.
type recorder struct {
	mu  sync.Mutex
	got map[int][]received
	all int
}

type received struct {
	point.Sample
	at time.Time
}

func (r *recorder) sink(tag int, s point.Sample) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.got == nil {
		r.got = map[int][]received{}
	}
	r.got[tag] = append(r.got[tag], received{s, time.Now()})
	r.all++
}

func (r *recorder) of(tag int) []received {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got[tag][:len(r.got[tag]):len(r.got[tag])]
}

// subscribe subscribes until the test ends or the returned function is called.
func subscribe(t testing.TB, s *session, tags ...point.Tag) (*recorder, func()) {
	t.Helper()
	r := &recorder{}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Subscribe(ctx, tags, r.sink) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("Subscribe: %v", err)
				}
			case <-time.After(patience):
				t.Error("Subscribe does not return")
			}
		})
	}
	t.Cleanup(stop)
	return r, stop
}

// eventually waits until f is true.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("it does not happen: %s", what)
		}
	}
}
