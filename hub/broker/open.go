package broker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"math"
	"time"
)

// open is the connection's life up to its session: handshake, CONNECT, and the
// backend's two answers. It returns true when the session is attached.
func (c *conn) open() bool {
	h, f := c.hello()
	if f != nil {
		c.refuse(h, f.code, f.text)
		return false
	}
	if h == nil {
		return false
	}
	c.id = h.ClientID
	if code, reason := c.admit(h); code != Success {
		c.refuse(h, code, reason)
		return false
	}
	if !c.s.reserve() {
		c.refuse(h, QuotaExceeded, "there are too many clients")
		return false
	}
	w := c.negotiate(h)
	err := c.ask(h)
	if err != nil {
		c.s.counters.Clients.Add(-1)
		var r *Refusal
		if !errors.As(err, &r) {
			c.log().Warn("client not attached", "err", err)
			r = &Refusal{Code: ServerUnavailable, Reason: "the server is not ready"}
		}
		c.refuse(h, r.Code, r.Reason)
		return false
	}
	return c.attach(h, w)
}

// hello reads the CONNECT. It returns nil, nil when the client has gone.
func (c *conn) hello() (*hello, *fault) {
	if t, ok := c.nc.(*tls.Conn); ok {
		if err := t.HandshakeContext(context.Background()); err != nil { // bounded by the sweep
			c.log().Info("TLS handshake", "err", err)
			c.lost(err)
			return nil, nil
		}
	}
	for {
		if c.off < c.end {
			rest := c.in.b[c.off:c.end]
			head, size, f := frame(rest)
			switch {
			case f != nil:
				return nil, f
			case rest[0] != typeConnect<<4:
				return nil, errNotConnect
			case head+size > c.s.o.MaxConnectSize:
				return nil, &fault{PacketTooLarge, "CONNECT is too large"}
			}
			if c.need = head + size; head > 0 && len(rest) >= c.need {
				c.off += c.need
				c.need = 0
				return c.parseHello(rest[head : head+size])
			}
		}
		if err := c.fill(); err != nil {
			c.lost(err)
			return nil, nil
		}
	}
}

func (c *conn) parseHello(body []byte) (*hello, *fault) {
	h, f := parseConnect(body)
	c.version = h.Version
	if f == nil {
		return h, nil
	}
	if f.code == UnsupportedVersion || h.Version == version5 {
		return h, f
	}
	return nil, f // an MQTT 3.1.1 client is told nothing [MQTT-3.1.4-1]
}

// admit looks at what needs no backend.
func (c *conn) admit(h *hello) (code byte, reason string) {
	switch {
	case c.late:
		return ConnectionRateExceeded, "too many connections per second"
	case h.authMethod:
		return BadAuthenticationMethod, "enhanced authentication is not offered"
	case len(h.ClientID) > c.s.o.MaxClientID:
		return ClientIDNotValid, "the client identifier is too long"
	case h.ClientID == "" && h.Version == version311 && !h.CleanStart:
		return errClientID.code, errClientID.text
	}
	if h.ClientID == "" {
		h.ClientID, h.AssignedID = "auto-"+rand.Text(), true // [MQTT-3.1.3-6]
	}
	if h.Will != nil {
		if levels, _ := checkTopic(h.Will.Message.Topic); levels > c.s.o.MaxTopicLevels || len(h.Will.Message.Topic) > c.s.o.MaxTopicLength {
			return TopicNameInvalid, "the topic of the will is too long"
		}
	}
	return Success, ""
}

// negotiate settles limits and fills in what the backend is told.
func (c *conn) negotiate(h *hello) *welcome {
	o := &c.s.o
	w := &welcome{
		receiveMaximum: o.ReceiveMaximum,
		aliasMaximum:   uint16(o.TopicAliasMaximum),
		maxPacketSize:  uint32(o.MaxPacketSize),
	}
	if h.AssignedID {
		w.assignedID = h.ClientID
	}
	keep := time.Duration(h.keepAlive) * time.Second
	// An MQTT 3.1.1 client cannot be told, so nothing can be demanded of it.
	if o.MaxKeepAlive > 0 && (keep == 0 || keep > o.MaxKeepAlive) && h.Version == version5 {
		s := uint16(max(1, min(o.MaxKeepAlive/time.Second, math.MaxUint16)))
		keep, w.keepAlive = time.Duration(s)*time.Second, &s // [MQTT-3.2.2-21]
	}
	c.keepAlive.Store(int64(keep + keep/2)) // [MQTT-3.1.2-22]
	if d := c.capExpiry(h.SessionExpiry); d != h.SessionExpiry {
		h.SessionExpiry, w.sessionExpiry = d, &d
	}
	c.expiry = h.SessionExpiry
	c.maxPacket = int(h.maxPacketSize)
	h.ReceiveMaximum = min(h.ReceiveMaximum, o.MaxInflight)
	h.Remote = c.nc.RemoteAddr()
	h.Listener = c.lo.Name
	h.Peer = peerCredentials(c.raw)
	if t, ok := c.nc.(*tls.Conn); ok {
		state := t.ConnectionState()
		h.TLS = &state
	} else if t, ok := c.nc.(interface{ tlsState() *tls.ConnectionState }); ok {
		h.TLS = t.tlsState()
	}
	return w
}

func (c *conn) capExpiry(d time.Duration) time.Duration {
	if m := c.s.o.MaxSessionExpiry; m > 0 && d > m {
		return m
	}
	return d
}

// ask asks the backend who the client is and for its session.
func (c *conn) ask(h *hello) error {
	ctx, done := c.begin(c.s.o.BackendTimeout)
	defer done()
	p, err := c.s.backend.Authenticate(ctx, &h.Connect)
	if err != nil {
		return fmt.Errorf("authenticating %q: %w", h.ClientID, err)
	}
	if h.Will != nil && !p.MayPublish(h.Will.Message.Topic) {
		return &Refusal{Code: NotAuthorized, Reason: "the client may not publish its will"}
	}
	c.principal = p
	session, err := c.s.backend.Attach(ctx, p, &h.Connect, c)
	if err != nil {
		return fmt.Errorf("attaching %q: %w", h.ClientID, err)
	}
	c.session = session
	return nil
}

// attach welcomes the client and sets the session going, unless the connection
// has been ended meanwhile.
func (c *conn) attach(h *hello, w *welcome) bool {
	c.limit = newRateLimits(&c.s.o)
	w.present = c.session.Present() && !h.CleanStart
	p := appendConnack(nil, c.version, Success, w)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.flight = c.session.Flight()
	if c.closing {
		return false
	}
	c.resend = c.flight.begin()
	c.quota = int(h.ReceiveMaximum)
	c.attached, c.wake = true, true
	c.setDeadline(phaseOpen, 0)
	c.reserveOut(len(p))
	c.out.b = append(c.out.b, p...) // the first packet [MQTT-3.2.0-1]
	c.kick()
	return true
}

// refuse tells a client that it is not let in (MQTT 5, 4.13) and ends the
// connection. Nothing is told before the version is known.
func (c *conn) refuse(h *hello, code byte, reason string) {
	c.s.counters.Refused[code].Add(1)
	c.log().Info("client refused", "reason", reason, "code", code)
	if h == nil {
		c.shut(ending{Detachment: Detachment{Reason: reason}})
		return
	}
	w := &welcome{reason: reason}
	p := appendConnack(nil, h.Version, code, w)
	if h.maxPacketSize > 0 && len(p) > int(h.maxPacketSize) {
		w.reason = "" // [MQTT-3.2.2-19]
		p = appendConnack(nil, h.Version, code, w)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing {
		return
	}
	c.reserveOut(len(p))
	c.out.b = append(c.out.b, p...)
	c.shutLocked(ending{tell: true, code: code, Detachment: Detachment{Reason: reason}})
}
