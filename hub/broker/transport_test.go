package broker_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// certificate makes a self-signed certificate for 127.0.0.1.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "sensor-7"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, pool
}

func listenTCP(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// remember returns a backend that keeps what it was told of the last client.
func remember() (*brokertest.Memory, func() broker.Connect) {
	var mu sync.Mutex
	var last broker.Connect
	return &brokertest.Memory{Auth: func(c *broker.Connect) error {
			mu.Lock()
			defer mu.Unlock()
			last = *c
			return nil
		}}, func() broker.Connect {
			mu.Lock()
			defer mu.Unlock()
			return last
		}
}

// transports are the ways in. dial returns a connected, quiet byte stream.
type transport struct {
	name  string
	open  func(t *testing.T, m *brokertest.Memory, o broker.Options) *house
	dial  func(h *house) net.Conn
	check func(t *testing.T, c broker.Connect)
}

func transports(t *testing.T) []transport {
	cert, pool := certificate(t)
	server := &tls.Config{Certificates: []tls.Certificate{cert}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven}
	peer := &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{cert}, ServerName: "127.0.0.1"}
	secure := func(t *testing.T, c broker.Connect) {
		if c.TLS == nil || len(c.TLS.VerifiedChains) == 0 || c.TLS.PeerCertificates[0].Subject.CommonName != "sensor-7" {
			t.Errorf("the client's certificate was not told: %+v", c.TLS)
		}
	}
	plain := func(h *house) net.Conn {
		nc, err := net.Dial(h.addr.Network(), h.addr.String())
		if err != nil {
			h.t.Fatal(err)
		}
		return nc
	}
	web := func(o broker.ListenerOptions) func(*testing.T, *brokertest.Memory, broker.Options) *house {
		return func(t *testing.T, m *brokertest.Memory, so broker.Options) *house {
			h, l := start(t, m, so), listenTCP(t)
			h.addr = l.Addr()
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- h.server.ServeWebSocket(ctx, l, o) }()
			t.Cleanup(func() {
				cancel()
				if err := <-ended; err != nil && err != broker.ErrStopped {
					t.Error("ServeWebSocket:", err)
				}
			})
			return h
		}
	}
	return []transport{
		{
			name: "tcp",
			open: func(t *testing.T, m *brokertest.Memory, o broker.Options) *house {
				return openOn(t, m, o, listenTCP(t), broker.ListenerOptions{Name: "test"})
			},
			dial:  plain,
			check: func(t *testing.T, c broker.Connect) { checkRemote(t, c.Remote) },
		},
		{
			name: "unix",
			open: func(t *testing.T, m *brokertest.Memory, o broker.Options) *house { return open(t, m, o) },
			dial: plain,
			check: func(t *testing.T, c broker.Connect) {
				if c.Peer == nil || c.Peer.PID != os.Getpid() || c.Peer.UID != os.Getuid() || c.Peer.GID != os.Getgid() {
					t.Errorf("peer is %+v", c.Peer)
				}
			},
		},
		{
			name: "tls",
			open: func(t *testing.T, m *brokertest.Memory, o broker.Options) *house {
				return openOn(t, m, o, listenTCP(t), broker.ListenerOptions{Name: "test", TLS: server})
			},
			dial: func(h *house) net.Conn {
				nc, err := tls.Dial("tcp", h.addr.String(), peer)
				if err != nil {
					h.t.Fatal(err)
				}
				return nc
			},
			check: secure,
		},
		{
			name:  "websocket",
			open:  web(broker.ListenerOptions{Name: "test"}),
			dial:  func(h *house) net.Conn { return dialWeb(h, "ws", "/mqtt", nil) },
			check: func(t *testing.T, c broker.Connect) { checkRemote(t, c.Remote) },
		},
		{
			name:  "websocket over tls, elsewhere",
			open:  web(broker.ListenerOptions{Name: "test", TLS: server, Path: "/$iothub/websocket"}),
			dial:  func(h *house) net.Conn { return dialWeb(h, "wss", "/$iothub/websocket", peer) },
			check: secure,
		},
	}
}

func checkRemote(t *testing.T, a net.Addr) {
	if host, _, err := net.SplitHostPort(a.String()); err != nil || host != "127.0.0.1" {
		t.Errorf("remote address is %q", a)
	}
}

func dialWeb(h *house, scheme, path string, cfg *tls.Config) net.Conn {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, scheme+"://"+h.addr.String()+path, &websocket.DialOptions{
		Subprotocols: []string{"mqtt"},
		HTTPClient:   &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	if ws.Subprotocol() != "mqtt" { // [MQTT-6.0.0-3]
		h.t.Fatalf("subprotocol %q", ws.Subprotocol())
	}
	return websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
}

// Everything that a connection does, over every transport.
func TestTransports(t *testing.T) {
	for _, tr := range transports(t) {
		t.Run(tr.name, func(t *testing.T) {
			m, last := remember()
			h := tr.open(t, m, broker.Options{})
			c := newClient(t, tr.dial(h))
			// CONNECT byte by byte: streams have no borders [MQTT-6.0.0-2].
			whole := hello{version: 5, id: "c", clean: true}.packet()
			for _, b := range whole[:len(whole)-1] {
				c.send([]byte{b})
			}
			c.connect2(whole[len(whole)-1:])
			if got := last(); got.Listener != "test" {
				t.Errorf("listener is %q", got.Listener)
			}
			tr.check(t, last())
			c.subscribe("t/#", 2)
			big := strings.Repeat("0123456789", 50_000)
			c.send(publish(5, "t/a", 1, 1, "small"), publish(5, "t/b", 0, 0, "tiny"), publish(5, "t/c", 1, 2, big))
			puback, payloads := 0, []string{}
			for len(payloads) < 3 || puback < 2 {
				first, body := c.packet()
				if first>>4 == 4 {
					puback++
					continue
				}
				payload := string(body[6+2*int(first>>1&1):])
				payloads = append(payloads, payload)
				if first>>1&3 == 1 {
					c.send(pack(0x40, body[5:7]))
				}
			}
			if payloads[0] != "small" || payloads[1] != "tiny" || payloads[2] != big {
				t.Errorf("got %d, %d, %d bytes", len(payloads[0]), len(payloads[1]), len(payloads[2]))
			}
			eventually(t, "settling", func() bool { return m.Queued("c") == 0 })
			c.ping()

			second := newClient(t, tr.dial(h))
			second.connect(whole)
			c.disconnected(broker.TakenOver)
			second.ping()
			go h.shutdown()
			second.disconnected(broker.ServerShuttingDown)
		})
	}
}

// connect2 sends the rest of a CONNECT of MQTT 5 and takes the welcome.
func (c *client) connect2(rest []byte) {
	c.t.Helper()
	c.v = 5
	c.send(rest)
	if first, body := c.packet(); first != 0x20 || body[1] != 0 {
		c.t.Fatalf("CONNACK is %x % x", first, body)
	}
}

// A handshake that does not go on is closed like a silent connection.
func TestHandshakeTimeout(t *testing.T) {
	cert, _ := certificate(t)
	o := broker.Options{Clock: clocktest.New(time.Time{})}
	h := openOn(t, &brokertest.Memory{}, o, listenTCP(t), broker.ListenerOptions{TLS: &tls.Config{Certificates: []tls.Certificate{cert}}})
	c := h.dial()
	eventually(t, "acceptance", func() bool { return h.server.Counters().Connections.Load() == 1 })
	for range 30 {
		h.clock.Advance(500 * time.Millisecond)
		time.Sleep(time.Millisecond)
	}
	c.closed()
	eventually(t, "leaving", func() bool { return h.server.Counters().Connections.Load() == 0 })
}

func TestWebSocketRefusals(t *testing.T) {
	h, l := start(t, &brokertest.Memory{}, broker.Options{}), listenTCP(t)
	go h.server.ServeWebSocket(context.Background(), l, broker.ListenerOptions{Origins: []string{"good.example"}})
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	dial := func(path, protocol, origin string) (*websocket.Conn, error) {
		o := &websocket.DialOptions{HTTPHeader: http.Header{}}
		if protocol != "" {
			o.Subprotocols = []string{protocol}
		}
		if origin != "" {
			o.HTTPHeader.Set("Origin", origin)
		}
		ws, _, err := websocket.Dial(ctx, "ws://"+l.Addr().String()+path, o)
		return ws, err
	}
	if _, err := dial("/other", "mqtt", ""); err == nil {
		t.Error("another path was taken")
	}
	if _, err := dial("/mqtt", "mqtt", "https://evil.example"); err == nil {
		t.Error("a foreign origin was taken")
	}
	ws, err := dial("/mqtt", "mqtt", "https://good.example")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if err := ws.Write(ctx, websocket.MessageText, []byte("hello")); err != nil { // [MQTT-6.0.0-1]
		t.Fatal(err)
	}
	if _, _, err := ws.Read(ctx); err == nil {
		t.Error("a text message was taken")
	}
	ws, err = dial("/mqtt", "chat", "")
	if err != nil {
		t.Fatal(err)
	}
	defer ws.CloseNow()
	if _, _, err := ws.Read(ctx); websocket.CloseStatus(err) != websocket.StatusProtocolError {
		t.Errorf("another subprotocol: %v", err)
	}
}

// Serve ends with its context; the connections stay.
func TestServeEnds(t *testing.T) {
	h, l := start(t, &brokertest.Memory{}, broker.Options{}), listen(t)
	h.addr = l.Addr()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.server.Serve(ctx, l, broker.ListenerOptions{}) }()
	c := h.join(5, "c", true)
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	c.ping()
	if _, err := net.Dial("unix", l.Addr().String()); err == nil {
		t.Error("it still listens")
	}
}
