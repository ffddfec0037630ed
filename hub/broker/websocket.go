package broker

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/coder/websocket"
)

// subprotocol is what a WebSocket client must ask for [MQTT-6.0.0-3].
const subprotocol = "mqtt"

// ServeWebSocket is [Server.Serve] for MQTT over WebSocket, with TLS if o has
// it. Other paths than o.Path are not found.
func (s *Server) ServeWebSocket(ctx context.Context, l net.Listener, o ListenerOptions) error {
	if o.Path == "" {
		o.Path = "/mqtt"
	}
	if o.TLS != nil {
		cfg := o.TLS.Clone()
		cfg.NextProtos = []string{"http/1.1"} // WebSocket's upgrade is of that version
		l = tls.NewListener(l, cfg)
	}
	mux := http.NewServeMux()
	mux.Handle(o.Path, s.WebSocket(o))
	h := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: s.o.ConnectTimeout,
		IdleTimeout:       s.o.ConnectTimeout,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(s.o.Log.Handler(), slog.LevelDebug),
	}
	in := &handoff{Listener: l, accepted: make(chan net.Conn)}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in.done = ctx.Done()
	served := make(chan struct{})
	go func() {
		defer close(served)
		h.Serve(in)
	}()
	err := s.serve(ctx, l, func(nc net.Conn) {
		select {
		case in.accepted <- nc:
		case <-in.done:
			nc.Close()
		}
	})
	cancel()
	h.Close() // not those that are WebSockets already: they belong to the server
	<-served
	return err
}

// handoff is a listener that gives an HTTP server what somebody else accepts,
// so that there is one accept loop with one set of rules.
type handoff struct {
	net.Listener
	accepted chan net.Conn
	done     <-chan struct{}
}

func (h *handoff) Accept() (net.Conn, error) {
	select {
	case nc := <-h.accepted:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// WebSocket returns a handler that takes MQTT connections, for an HTTP server
// that serves other things too. It looks at Name and Origins of o.
func (s *Server) WebSocket(o ListenerOptions) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		hijacked := &hijacker{ResponseWriter: w}
		ws, err := websocket.Accept(hijacked, r, &websocket.AcceptOptions{
			Subprotocols:   []string{subprotocol},
			OriginPatterns: o.Origins,
		})
		if err != nil {
			s.o.Log.Info("WebSocket refused", "listener", o.Name, "remote", r.RemoteAddr, "err", err)
			return
		}
		if ws.Subprotocol() != subprotocol {
			ws.Close(websocket.StatusProtocolError, "the subprotocol is not "+subprotocol)
			return
		}
		ws.SetReadLimit(-1) // packets are bounded, frames are not [MQTT-6.0.0-2]
		nc := &socketOverWeb{ws: ws, remote: webAddr(r.RemoteAddr), tls: r.TLS}
		raw := hijacked.conn
		if t, ok := raw.(*tls.Conn); ok {
			raw = t.NetConn()
		}
		c := s.newConn(nc, raw, &o)
		if s.enter(c) {
			c.run()
		}
	})
}

// hijacker remembers the connection that is taken from an HTTP server: what is
// below a WebSocket is closed to give it up, which its library cannot do without
// waiting.
type hijacker struct {
	http.ResponseWriter
	conn net.Conn
}

// Hijack implements http.Hijacker.
func (h *hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	h.conn = conn
	return conn, rw, err
}

// socketOverWeb is a WebSocket as a net.Conn. Reads and writes have no
// deadlines of their own: the sweep closes what is below.
type socketOverWeb struct {
	ws     *websocket.Conn
	part   io.Reader // of the message that is being read
	remote webAddr
	tls    *tls.ConnectionState
}

func (c *socketOverWeb) tlsState() *tls.ConnectionState { return c.tls }

var errText = errors.New("a WebSocket message is not binary") // [MQTT-6.0.0-1]

// Read reads from the stream that the messages make up [MQTT-6.0.0-2].
func (c *socketOverWeb) Read(p []byte) (int, error) {
	for {
		if c.part == nil {
			kind, part, err := c.ws.Reader(context.Background())
			if err != nil {
				return 0, err
			}
			if kind != websocket.MessageBinary {
				return 0, errText
			}
			c.part = part
		}
		n, err := c.part.Read(p)
		if err == io.EOF {
			c.part, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write writes p as one message.
func (c *socketOverWeb) Write(p []byte) (int, error) {
	if err := c.ws.Write(context.Background(), websocket.MessageBinary, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *socketOverWeb) Close() error         { return c.ws.CloseNow() }
func (c *socketOverWeb) LocalAddr() net.Addr  { return webAddr("") }
func (c *socketOverWeb) RemoteAddr() net.Addr { return c.remote }

// SetDeadline, SetReadDeadline and SetWriteDeadline do nothing: deadlines are
// set on the socket below.
func (c *socketOverWeb) SetDeadline(time.Time) error      { return nil }
func (c *socketOverWeb) SetReadDeadline(time.Time) error  { return nil }
func (c *socketOverWeb) SetWriteDeadline(time.Time) error { return nil }

// webAddr is the address of the other end as HTTP knows it.
type webAddr string

func (a webAddr) Network() string { return "websocket" }
func (a webAddr) String() string  { return string(a) }
