package hubdaemon

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/internal/control"
	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/access"
	"holdfast/hub/client"
	upstreams "holdfast/hub/upstream/all"
	"holdfast/protocols"
)

const patience = 30 * time.Second

// start opens and runs a daemon with the given [hub] section.
func start(t *testing.T, dir, text string, log io.Writer) (*Daemon, *config.Config) {
	t.Helper()
	c := load(t, dir, text)
	d, err := Open(c, Options{Clock: clock.NewReal(), Log: slog.New(slog.NewTextHandler(log, nil)), Version: "test", Upstream: func(u config.Upstream) (hub.Upstream, error) {
		return upstreams.New(u.Type, u.Name, u.Settings, upstreams.Env{Device: "test"})
	}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, func() error { return errors.New("no file to read") }) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Error("the hub does not stop")
		}
	})
	return d, c
}

func load(t *testing.T, dir, text string) *config.Config {
	t.Helper()
	path := filepath.Join(dir, "c.toml")
	text = "data = \"" + dir + "/data\"\nrun = \"" + dir + "/run\"\n" + text
	c, err := config.Load(path, func(string) ([]byte, error) { return []byte(text), nil }, config.Kinds{
		Protocol: func(string) config.DeviceCheck { return func(protocols.Device) error { return nil } }, Upstream: upstreams.Check, Upstreams: upstreams.Types(),
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// shortDir is a directory whose name leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// authority makes certificates.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	a.cert, a.key, a.pem, _ = a.make("authority", nil)
	return a
}

// make makes a certificate for a name, signed by parent, nil for itself.
func (a *authority) make(name string, parent *authority) (*x509.Certificate, *ecdsa.PrivateKey, []byte, []byte) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: parent == nil, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	signer, signerKey := template, key
	if parent != nil {
		signer, signerKey = parent.cert, parent.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer, &key.PublicKey, signerKey)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (d *Daemon) addressOf(name string) string {
	for _, door := range d.doors {
		if door.Name == name {
			return door.net.Addr().String()
		}
	}
	return ""
}

// TestDoorsAndRules goes through every door as everybody who may, and as some
// who may not; then the rules and the certificate change while it runs.
func TestDoorsAndRules(t *testing.T) {
	dir := shortDir(t)
	ca := newAuthority(t)
	_, _, serverCert, serverKey := ca.make("hub", ca)
	write(t, dir+"/ca.pem", ca.pem)
	write(t, dir+"/hub.pem", serverCert)
	write(t, dir+"/hub.key", serverKey)
	hash, err := access.HashPassword([]byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	text := `
[[hub.listener]]
type = "tcp"
address = "127.0.0.1:0"
[[hub.listener]]
type = "ws"
address = "127.0.0.1:0"
path = "/mqtt"
[[hub.listener]]
type = "tls"
address = "127.0.0.1:0"
certificate = "hub.pem"
key = "hub.key"
client_ca = "ca.pem"
[[hub.user]]
name = "press7"
password = "` + hash + `"
[[hub.rule]]
users = ["press7"]
publish = ["press/%u/#"]
[[hub.rule]]
users = ["robot"]
publish = ["robot/#"]
`
	var log lockedBuffer
	d, _ := start(t, dir, text, &log)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.pem)
	_, _, robotCert, robotKey := ca.make("robot", ca)
	pair, err := tls.X509KeyPair(robotCert, robotKey)
	if err != nil {
		t.Fatal(err)
	}
	robot := &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{pair}}
	tcp, ws, secure := "mqtt://"+d.addressOf("tcp"), "ws://"+d.addressOf("ws")+"/mqtt", "mqtts://"+d.addressOf("tls")
	tests := []struct {
		what, url, user, password, topic string
		tls                              *tls.Config
		connect, publish                 bool
	}{
		{"a user by tcp", tcp, "press7", "secret", "press/press7/x", nil, true, true},
		{"a user by websocket", ws, "press7", "secret", "press/press7/x", nil, true, true},
		{"a user by tls", secure, "press7", "secret", "press/press7/x", &tls.Config{RootCAs: roots}, true, true},
		{"a user on another's topic", tcp, "press7", "secret", "press/press8/x", nil, true, false},
		{"a wrong password", tcp, "press7", "Secret", "", nil, false, false},
		{"nobody", tcp, "", "", "", nil, false, false},
		{"a certificate", secure, "", "", "robot/x", robot, true, true},
		{"a certificate elsewhere", secure, "", "", "press/x", robot, true, false},
		{"the gateway's own user", "unix://" + dir + "/run/hub.sock", "", "", "anything/x", nil, true, true},
	}
	try := func(what, url, user, password, topic string, conf *tls.Config, connect, publish bool) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		conn, _, err := client.Dial(ctx, client.Options{URL: url, Username: user, Password: []byte(password), TLS: conf})
		if (err == nil) != connect {
			t.Errorf("%s: connects: %v, want %v", what, err, connect)
		}
		if err != nil {
			return
		}
		defer conn.Close()
		err = conn.PublishWait(ctx, &client.Message{Topic: []byte(topic), QoS: 1})
		var no *client.ReasonError
		if publish && err != nil || !publish && !errors.As(err, &no) {
			t.Errorf("%s: publishes to %s: %v, want %v", what, topic, err, publish)
		}
	}
	for _, x := range tests {
		try(x.what, x.url, x.user, x.password, x.topic, x.tls, x.connect, x.publish)
	}

	// The hub gets a certificate of another authority, and press7 another rule.
	other := newAuthority(t)
	_, _, serverCert, serverKey = other.make("hub", other)
	write(t, dir+"/hub.pem", serverCert)
	write(t, dir+"/hub.key", serverKey)
	changed := strings.Replace(text, `publish = ["press/%u/#"]`, `publish = ["new/#"]`, 1) + "[hub.limits]\nclients = 5\n"
	if err := d.Reload(load(t, dir, changed)); err != nil {
		t.Fatal(err)
	}
	try("a user after the reload", tcp, "press7", "secret", "new/x", nil, true, true)
	try("a user under the old rule", tcp, "press7", "secret", "press/press7/x", nil, true, false)
	try("the old authority", secure, "press7", "secret", "", &tls.Config{RootCAs: roots}, false, false)
	if !strings.Contains(log.String(), "hub.limits") {
		t.Errorf("that limits need a restart is not told:\n%s", log.String())
	}
}

// TestStatusAndMetrics looks at a hub through its control socket.
func TestStatusAndMetrics(t *testing.T) {
	dir := shortDir(t)
	d, _ := start(t, dir, `
[hub.routes]
all = "FROM /* INTO $upstream"
urgent = { route = "FROM /messages/topics/alarm/* INTO $upstream", priority = 0 }
[[hub.upstream]]
name = "hq"
type = "mqtt"
url = "mqtt://127.0.0.1:9"
`, io.Discard)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, _, err := client.Dial(ctx, client.Options{URL: "unix://" + dir + "/run/hub.sock"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, topic := range []string{"a/b", "alarm/x"} {
		if err := conn.PublishWait(ctx, &client.Message{Topic: []byte(topic), Payload: []byte("12345"), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	var s control.HubStatus
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		s = d.status()
		if len(s.Conditions) > 0 && s.Received == 2 {
			break
		}
		if time.Since(start) > patience {
			t.Fatalf("status: %+v", s)
		}
	}
	if len(s.Endpoints) != 1 || s.Endpoints[0].Connected || s.Endpoints[0].Reason == "" || s.Endpoints[0].Waiting < 2 {
		t.Errorf("endpoints: %+v", s.Endpoints)
	}
	if s.Conditions[0].Subject != "$upstream" || s.Conditions[0].Trouble != "upstream-down" || s.Clients != 1 || s.Journal.Committed < 2 {
		t.Errorf("status: %+v", s)
	}
	var over control.HubStatus
	if err := control.NewClient(filepath.Join(dir, "run", control.HubSocket)).Get(ctx, "status", &over); err != nil || !reflect.DeepEqual(over.Listeners, s.Listeners) {
		t.Errorf("over the socket: %+v, %v", over, err)
	}
	text := scrape(t, filepath.Join(dir, "run", control.HubSocket))
	for _, line := range []string{
		"edgehub_messages_received_total 2",
		"edgehub_message_size_bytes_sum 10",
		`edgehub_queue_length{endpoint="$upstream",priority="0"} `,
		`edgehub_queue_length{endpoint="$upstream",priority="5"} `,
		"edgehub_connected_clients 1",
		`holdfast_hub_upstream_up{upstream="$upstream"} 0`,
		`holdfast_hub_condition{subject="$upstream",trouble="upstream-down"} 1`,
		"process_resident_memory_bytes ",
	} {
		if !strings.Contains(text, "\n"+line) {
			t.Errorf("metrics have no %s\n%s", line, text)
		}
	}
}

func scrape(t *testing.T, socket string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}}}
	resp, err := c.Get("http://hub/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRemovedUpstreamIsForgotten: the position of an upstream that is no longer
// configured must not keep the journal from reclaiming.
func TestRemovedUpstreamIsForgotten(t *testing.T) {
	dir := shortDir(t)
	text := "[hub.routes]\nall = \"FROM /* INTO $upstream\"\n[[hub.upstream]]\nname = \"hq\"\ntype = \"mqtt\"\nurl = \"mqtt://127.0.0.1:9\"\n"
	t.Run("configured", func(t *testing.T) {
		d, _ := start(t, dir, text, io.Discard)
		for start := time.Now(); len(d.hub.Journal().Cursors()) < 2; time.Sleep(10 * time.Millisecond) {
			if time.Since(start) > patience {
				t.Fatalf("cursors: %q", d.hub.Journal().Cursors())
			}
		}
	})
	var log lockedBuffer
	d, _ := start(t, dir, "", &log)
	for _, name := range d.hub.Journal().Cursors() {
		if strings.HasPrefix(name, upstreamCursor) {
			t.Errorf("cursor %q is still there", name)
		}
	}
	if !strings.Contains(log.String(), "no longer configured") {
		t.Errorf("nothing was told:\n%s", log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
