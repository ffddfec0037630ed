package clienttest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// A Mosquitto is a running mosquitto that ends with the test.
type Mosquitto struct {
	Addr string // host:port of the plain listener
	URL  string // of the plain listener

	// Further listeners.
	TLSURL, UnixURL, WebSocketURL string
	// TLS trusts the TLS listener and holds a client certificate that it asks for.
	TLS *tls.Config
	// CAFile, CertFile and KeyFile are the PEM files behind TLS.
	CAFile, CertFile, KeyFile string
}

// StartMosquitto starts mosquitto with a plain, a TLS, a unix and a WebSocket
// listener; extra is appended to its configuration. It skips the test when
// mosquitto is not installed.
func StartMosquitto(t testing.TB, extra string) *Mosquitto {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path = "/usr/sbin/mosquitto"; !exists(path) {
			t.Skip("mosquitto is not installed")
		}
	}
	dir, err := os.MkdirTemp("", "mq") // short: a unix socket lives in it
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &Mosquitto{}
	m.certificates(t, dir)
	// Between choosing a port and mosquitto's bind somebody else may take it,
	// so a start that fails is tried again.
	for range 5 {
		if m.start(t, path, dir, extra) {
			return m
		}
	}
	t.Fatal("mosquitto did not start")
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (m *Mosquitto) start(t testing.TB, path, dir, extra string) bool {
	plain, secure, ws := freePort(t), freePort(t), freePort(t)
	socket := filepath.Join(dir, "s")
	os.Remove(socket)
	conf := fmt.Sprintf(`
user root
allow_anonymous true
log_dest none
max_queued_messages 100000
listener %d 127.0.0.1
listener %d 127.0.0.1
cafile %s
certfile %s
keyfile %s
require_certificate true
listener 0 %s
listener %d 127.0.0.1
protocol websockets
%s
`, plain, secure, m.CAFile, m.CertFile, m.KeyFile, socket, ws, extra)
	file := filepath.Join(dir, "conf")
	if err := os.WriteFile(file, []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "-c", file)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan struct{})
	go func() {
		cmd.Wait()
		close(exited)
	}()
	stop := func() {
		cmd.Process.Kill()
		<-exited
	}
	m.Addr = fmt.Sprintf("127.0.0.1:%d", plain)
	m.URL = "mqtt://" + m.Addr
	m.TLSURL = fmt.Sprintf("mqtts://127.0.0.1:%d", secure)
	m.UnixURL = "unix://" + socket
	m.WebSocketURL = fmt.Sprintf("ws://127.0.0.1:%d/mqtt", ws)
	for range 500 {
		select {
		case <-exited:
			return false
		case <-time.After(20 * time.Millisecond):
		}
		if c, err := net.Dial("unix", socket); err == nil {
			c.Close()
			if c, err := net.Dial("tcp", m.Addr); err == nil {
				c.Close()
				t.Cleanup(stop)
				return true
			}
		}
	}
	stop()
	return false
}

func freePort(t testing.TB) int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().(*net.TCPAddr).Port
}

// certificates makes one self-signed certificate that serves as authority,
// server and client.
func (m *Mosquitto) certificates(t testing.TB, dir string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	write := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	m.CAFile, m.CertFile, m.KeyFile = write("ca.pem", certPEM), write("cert.pem", certPEM), write("key.pem", keyPEM)
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	m.TLS = &tls.Config{RootCAs: x509.NewCertPool(), Certificates: []tls.Certificate{pair}}
	m.TLS.RootCAs.AppendCertsFromPEM(certPEM)
}
