package hubdaemon

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync/atomic"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/internal/control"
	"holdfast/hub/broker"
)

// LocalListener is the name of the listener that programs of this machine use.
const LocalListener = "local"

// A door is one open listener.
type door struct {
	config.Listener
	net net.Listener
	tls *certificates // nil for plain ones
}

// openDoors opens the local socket and every configured listener. On an error
// none stays open.
func openDoors(c *config.Config) (doors []*door, err error) {
	defer func() {
		if err != nil {
			closeDoors(doors)
		}
	}()
	local := config.Listener{Name: LocalListener, Type: "unix", Address: filepath.Join(c.Run, config.HubSocket)}
	for _, l := range append([]config.Listener{local}, c.Hub.Listeners...) {
		d := &door{Listener: l}
		if l.Type == "unix" {
			d.net, err = control.Listen(l.Address)
		} else {
			d.net, err = net.Listen("tcp", l.Address)
		}
		if err != nil {
			return doors, fmt.Errorf("listener %q: %w", l.Name, err)
		}
		doors = append(doors, d)
		if l.Certificate != "" {
			if d.tls, err = loadCertificates(l); err != nil {
				return doors, fmt.Errorf("listener %q: %w", l.Name, err)
			}
		}
	}
	return doors, nil
}

func closeDoors(doors []*door) {
	for _, d := range doors {
		d.net.Close()
	}
}

// serve takes clients until the server stops.
func (d *door) serve(ctx context.Context, s *broker.Server) error {
	o := broker.ListenerOptions{Name: d.Name, Path: d.Path}
	if d.tls != nil {
		o.TLS = d.tls.config()
	}
	serve := s.Serve
	if d.Type == "ws" || d.Type == "wss" {
		serve = s.ServeWebSocket
	}
	err := serve(ctx, d.net, o)
	if err == nil || errors.Is(err, broker.ErrStopped) {
		return nil
	}
	return fmt.Errorf("listener %q: %w", d.Name, err)
}

// certificates are a listener's, read again on reload: certificates are renewed
// while a gateway runs.
type certificates struct {
	from    config.Listener
	current atomic.Pointer[tls.Config]
}

func loadCertificates(l config.Listener) (*certificates, error) {
	c := &certificates{from: l}
	return c, c.load()
}

func (c *certificates) load() error {
	pair, err := tls.LoadX509KeyPair(c.from.Certificate, c.from.Key)
	if err != nil {
		return fmt.Errorf("certificate: %w", err)
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{pair}}
	if c.from.ClientCA != "" {
		pem, err := os.ReadFile(c.from.ClientCA)
		if err != nil {
			return fmt.Errorf("client_ca: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(pem) {
			return fmt.Errorf("client_ca: %q holds no certificate", c.from.ClientCA)
		}
		// A client without a certificate may still have a password.
		t.ClientAuth = tls.VerifyClientCertIfGiven
	}
	c.current.Store(t)
	return nil
}

// config returns what each handshake asks for the certificates of the moment.
func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	}
}
