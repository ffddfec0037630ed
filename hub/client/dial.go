package client

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/coder/websocket"
	"github.com/mochi-mqtt/server/v2/packets"
)

// errDialBound is the cause of a dial that took longer than the bound.
var errDialBound = errors.New("no answer within the bound")

// Dial connects and waits for CONNACK, for Options.Bound at most. present says
// that the server goes on with an earlier session. A refusal is a *ReasonError.
//
// The connection's goroutines live until it has ended; Close waits for them.
func Dial(ctx context.Context, opts Options) (c *Conn, present bool, err error) {
	o, u, err := opts.withDefaults()
	if err != nil {
		return nil, false, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := o.Clock.NewTimer(o.Bound)
	defer timer.Stop()
	go func() {
		select {
		case <-timer.C():
			cancel(errDialBound)
		case <-ctx.Done():
		}
	}()

	s, err := o.open(ctx, u)
	if err != nil {
		return nil, false, fmt.Errorf("connect to %q: %w", u.Redacted(), because(ctx, err))
	}
	stop := context.AfterFunc(ctx, func() { s.raw.Close() })
	ack, rest, err := o.handshake(s)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		s.close()
		return nil, false, fmt.Errorf("connect to %q: %w", u.Redacted(), because(ctx, err))
	}
	return newConn(o, s, ack, rest), ack.SessionPresent, nil
}

// because prefers the reason for which ctx ended to the error that its end made.
func because(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// A socket is a network connection with its layers.
type socket struct {
	net.Conn                 // what MQTT is spoken on
	raw      net.Conn        // the connection below TLS and WebSocket; closing it never blocks
	ws       *websocket.Conn // nil without WebSocket
}

// close ends the connection without any farewell of its layers, which could
// block for seconds on a dead link.
func (s *socket) close() {
	s.raw.Close()
	if s.ws != nil {
		s.ws.CloseNow()
	}
}

func (o *Options) open(ctx context.Context, u *url.URL) (*socket, error) {
	switch u.Scheme {
	case "unix":
		nc, err := o.dial(ctx, "unix", u.Path)
		return &socket{Conn: nc, raw: nc}, err
	case "ws", "wss":
		return o.openWebSocket(ctx, u)
	case "mqtts", "tls", "ssl":
		nc, err := o.dial(ctx, "tcp", withPort(u, "8883"))
		if err != nil {
			return nil, err
		}
		t := tls.Client(nc, o.tlsConfig(u))
		if err := t.HandshakeContext(ctx); err != nil {
			nc.Close()
			return nil, err
		}
		return &socket{Conn: t, raw: nc}, nil
	}
	nc, err := o.dial(ctx, "tcp", withPort(u, "1883"))
	return &socket{Conn: nc, raw: nc}, err
}

func (o *Options) dial(ctx context.Context, network, address string) (net.Conn, error) {
	dial := o.Dial
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: -1}).DialContext // PINGREQ does that job
	}
	nc, err := dial(ctx, network, address)
	if err != nil {
		return nil, err
	}
	setUserTimeout(nc, o.Bound)
	return nc, nil
}

func (o *Options) tlsConfig(u *url.URL) *tls.Config {
	c := &tls.Config{}
	if o.TLS != nil {
		c = o.TLS.Clone()
	}
	if c.ServerName == "" {
		c.ServerName = u.Hostname()
	}
	c.MinVersion = max(c.MinVersion, tls.VersionTLS12)
	return c
}

func (o *Options) openWebSocket(ctx context.Context, u *url.URL) (*socket, error) {
	s := &socket{}
	transport := &http.Transport{
		TLSClientConfig:   o.tlsConfig(u),
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			nc, err := o.dial(ctx, network, address)
			s.raw = nc
			return nc, err
		},
	}
	ws, _, err := websocket.Dial(ctx, u.String(), &websocket.DialOptions{
		HTTPClient:   &http.Client{Transport: transport},
		Subprotocols: []string{"mqtt"}, // MQTT 5, 6.0
	})
	if err != nil {
		return nil, err
	}
	ws.SetReadLimit(-1) // MaxPacket is checked on the MQTT packet, which may span frames
	s.ws = ws
	s.Conn = websocket.NetConn(context.Background(), ws, websocket.MessageBinary)
	return s, nil
}

func withPort(u *url.URL, port string) string {
	if p := u.Port(); p != "" {
		port = p
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// handshake sends CONNECT and reads CONNACK. rest is what came after it.
func (o *Options) handshake(s *socket) (ack *packets.Packet, rest []byte, err error) {
	var out bytes.Buffer
	if err := o.connectPacket().ConnectEncode(&out); err != nil {
		return nil, nil, fmt.Errorf("encode connect: %w", err)
	}
	if _, err := s.Write(out.Bytes()); err != nil {
		return nil, nil, err
	}
	buf := make([]byte, 0, 4096)
	for {
		f, n, need, err := nextFrame(buf, o.MaxPacket)
		if err != nil {
			return nil, nil, err
		}
		if n > 0 {
			ack, err := o.parseConnack(f)
			return ack, buf[n:], err
		}
		if need > cap(buf) || len(buf) == cap(buf) {
			buf = append(make([]byte, 0, max(need, 2*cap(buf))), buf...)
		}
		n, err = s.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if err != nil && n == 0 {
			return nil, nil, fmt.Errorf("before the connect was answered: %w", err)
		}
	}
}

func (o *Options) connectPacket() *packets.Packet {
	pk := &packets.Packet{
		FixedHeader:     packets.FixedHeader{Type: packets.Connect},
		ProtocolVersion: o.Version,
		Connect: packets.ConnectParams{
			ProtocolName:     []byte("MQTT"),
			Clean:            !o.KeepSession,
			Keepalive:        uint16(o.KeepAlive / time.Second),
			ClientIdentifier: o.ClientID,
			UsernameFlag:     o.Username != "",
			Username:         []byte(o.Username),
			PasswordFlag:     len(o.Password) > 0,
			Password:         o.Password,
		},
		Properties: packets.Properties{
			ReceiveMaximum:    o.ReceiveMaximum,
			MaximumPacketSize: uint32(o.MaxPacket),
		},
	}
	if o.KeepSession {
		pk.Properties.SessionExpiryIntervalFlag = true
		pk.Properties.SessionExpiryInterval = 1<<32 - 1 // MQTT 5, 3.1.2.11.2: does not expire
		if o.SessionExpiry > 0 {
			pk.Properties.SessionExpiryInterval = seconds(o.SessionExpiry)
		}
	}
	if w := o.Will; w != nil {
		pk.Connect.WillFlag = true
		pk.Connect.WillTopic = string(w.Topic)
		pk.Connect.WillPayload = w.Payload
		pk.Connect.WillQos = w.QoS
		pk.Connect.WillRetain = w.Retain
		if w.Expiry > 0 {
			pk.Connect.WillProperties.MessageExpiryInterval = seconds(w.Expiry)
		}
	}
	return pk
}

func (o *Options) parseConnack(f frame) (*packets.Packet, error) {
	pk := f.packet(o.Version)
	if f.head != typeConnack {
		return nil, fmt.Errorf("%w: packet 0x%02x instead of connack", ErrMalformed, f.head)
	}
	if o.Version == Version5 && len(f.body) == 2 {
		pk.ProtocolVersion = Version311 // a server that knows no MQTT 5 refuses in the old form
	}
	if err := pk.ConnackDecode(f.body); err != nil {
		return nil, fmt.Errorf("%w: connack: %w", ErrMalformed, err)
	}
	if pk.ReasonCode != 0 {
		return nil, reasonError("connect", pk.ProtocolVersion, pk.ReasonCode, pk.Properties.ReasonString)
	}
	if pk.ProtocolVersion != o.Version {
		return nil, fmt.Errorf("%w: connack without properties", ErrMalformed)
	}
	return pk, nil
}
