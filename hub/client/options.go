package client

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/url"
	"time"

	"holdfast/drivers/clock"
)

// Versions of the protocol, as they stand in CONNECT.
const (
	Version311 = 4
	Version5   = 5
)

// Limits and defaults.
const (
	DefaultBound     = 10 * time.Second
	DefaultWindow    = 1024
	DefaultBuffer    = 1 << 20
	DefaultMaxPacket = 1 << 20
	MaxWindow        = 60_000 // packet identifiers above are kept for SUBSCRIBE and UNSUBSCRIBE
)

// Options say where to connect and as whom. The zero value of each field but
// URL works.
type Options struct {
	// URL is where the server listens: mqtt://host:1883 (or tcp), mqtts://host:8883
	// (or tls, ssl), ws://host/path, wss://host/path, unix:///path/to/socket.
	URL string

	// TLS is used for mqtts and wss; nil means the system's roots. ServerName
	// defaults to the host in URL.
	TLS *tls.Config

	// Dial opens the network connection; nil means net.Dialer. Schemes with
	// TLS and WebSocket are layered on top of it.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	Version  byte // Version311 or Version5; 0 means Version5
	ClientID string
	Username string
	Password []byte // sent when not empty

	// KeepSession asks the server to go on with the session of ClientID, and to
	// keep it for SessionExpiry after the connection ends (MQTT 5; MQTT 3.1.1
	// servers keep it as long as they like). Without it every connection is a
	// clean start.
	KeepSession   bool
	SessionExpiry time.Duration // whole seconds; 0 with KeepSession means for ever

	Will *Message // nil: none

	// Bound is how long the far side may be silent or confirm nothing before
	// the connection ends; see the package comment. 0 means DefaultBound, less
	// than 100 ms is raised to it. It also bounds Dial.
	Bound time.Duration

	// KeepAlive is the interval told to the server, in whole seconds (MQTT 5,
	// 3.1.2.10); 0 means Bound, rounded up. A server's own value wins.
	KeepAlive time.Duration

	// Window is how many QoS 1 publishes may wait for confirmation, at most
	// MaxWindow; the server's Receive Maximum lowers it. 0 means DefaultWindow.
	// Overflow rule: Publish waits, TryPublish returns ErrWindow.
	Window int

	// Buffer is how many bytes may wait for the socket; a single message larger
	// than it is taken when nothing else waits. 0 means DefaultBuffer. Overflow
	// rule as for Window.
	Buffer int

	// Aliases is how many topics may be sent as a number after the first time
	// (MQTT 5, 3.3.2.3.4), at most 65535; the server's Topic Alias Maximum lowers
	// it. 0 means none. Overflow rule: the topics that came first keep theirs,
	// all others are sent in full, so a cycle of many topics still gains.
	Aliases int

	// MaxPacket is the largest packet accepted from the server in bytes, which
	// MQTT 5 servers are told. 0 means DefaultMaxPacket. A larger one ends the
	// connection.
	MaxPacket int

	// ReceiveMaximum is how many QoS 1 and 2 messages the server may send ahead
	// of our confirmation (MQTT 5 only). 0 means 1024.
	ReceiveMaximum uint16

	// OnMessage is called for each message in order of arrival, by the one
	// goroutine that also settles publishes: it must be quick and must not wait
	// for Publish, Subscribe or Close (TryPublish is fine). The message and its
	// memory are valid until it returns; then the message is acknowledged,
	// unless ManualAck is set.
	OnMessage func(c *Conn, m *Message)

	// ManualAck leaves the acknowledgement of QoS 1 and 2 messages to Conn.Ack.
	ManualAck bool

	// Inbox remembers QoS 2 messages across connections of one session; nil
	// means for this connection only.
	Inbox *Inbox

	Clock clock.Clock  // nil: the real one
	Log   *slog.Logger // nil: silent
}

// A Message is one publication, sent or received.
type Message struct {
	Topic   []byte
	Payload []byte

	// Props is MQTT 5 properties as they follow the property length. When
	// sending: without message expiry and topic alias. When received: as they
	// came. Ignored with MQTT 3.1.1.
	Props []byte

	Expiry   time.Duration // MQTT 5 message expiry interval, sent in seconds rounded up; 0 = none
	QoS      byte          // 0 or 1 when sending
	Retain   bool
	Dup      bool   // received only
	PacketID uint16 // received only; 0 for QoS 0

	alias uint16 // given by the connection while sending; 0 = none
}

// An Inbox is the set of packet identifiers of QoS 2 messages that were
// received and not yet released. It belongs to one Conn at a time.
type Inbox struct{ ids map[uint16]struct{} }

// withDefaults returns o with the blanks filled in and its URL taken apart.
func (o Options) withDefaults() (Options, *url.URL, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return o, nil, fmt.Errorf("server address: %w", err)
	}
	if o.Version == 0 {
		o.Version = Version5
	}
	if o.Bound == 0 {
		o.Bound = DefaultBound
	}
	o.Bound = max(o.Bound, 100*time.Millisecond)
	if o.KeepAlive <= 0 {
		o.KeepAlive = o.Bound
	}
	o.KeepAlive = min((o.KeepAlive + time.Second - 1).Truncate(time.Second), math.MaxUint16*time.Second)
	o.Window = defaulted(o.Window, DefaultWindow)
	o.Buffer = defaulted(o.Buffer, DefaultBuffer)
	o.MaxPacket = defaulted(o.MaxPacket, DefaultMaxPacket)
	if o.ReceiveMaximum == 0 {
		o.ReceiveMaximum = 1024
	}
	if o.Inbox == nil {
		o.Inbox = &Inbox{}
	}
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o, u, o.check(u)
}

func defaulted(v, def int) int {
	if v == 0 {
		return def
	}
	return v
}

func (o *Options) check(u *url.URL) error {
	switch u.Scheme {
	case "mqtt", "tcp", "mqtts", "tls", "ssl", "ws", "wss":
		if u.Hostname() == "" {
			return fmt.Errorf("server address %q has no host", o.URL)
		}
	case "unix":
		if u.Path == "" {
			return fmt.Errorf("server address %q has no path", o.URL)
		}
	default:
		return fmt.Errorf("server address %q: scheme must be mqtt, mqtts, ws, wss or unix", o.URL)
	}
	switch {
	case u.User != nil:
		return fmt.Errorf("server address %q: user name and password have options of their own", u.Redacted())
	case o.Version != Version311 && o.Version != Version5:
		return fmt.Errorf("protocol version %d is neither 4 (3.1.1) nor 5", o.Version)
	case o.Window < 0 || o.Window > MaxWindow:
		return fmt.Errorf("window %d is outside 1..%d", o.Window, MaxWindow)
	case o.Aliases < 0 || o.Aliases > math.MaxUint16:
		return fmt.Errorf("%d topic aliases are outside 0..65535", o.Aliases)
	case o.Buffer < 0 || o.MaxPacket < 0 || o.SessionExpiry < 0:
		return errors.New("buffer, packet size and session expiry must not be negative")
	case o.Will != nil && (validTopic(o.Will.Topic) != nil || o.Will.QoS > 2):
		return fmt.Errorf("will to %q with qos %d cannot be sent", o.Will.Topic, o.Will.QoS)
	case len(o.ClientID) > math.MaxUint16 || len(o.Username) > math.MaxUint16 || len(o.Password) > math.MaxUint16:
		return errors.New("client id, user name and password are at most 65535 bytes each")
	case o.Version == Version311 && len(o.Password) > 0 && o.Username == "":
		return errors.New("MQTT 3.1.1 allows no password without a user name (3.1.2.9)")
	case o.Version == Version311 && o.KeepSession && o.ClientID == "":
		return errors.New("MQTT 3.1.1 allows no kept session without a client id (3.1.3.1)")
	}
	return nil
}

// Check returns what is wrong with the options, without any I/O.
func (o Options) Check() error {
	_, _, err := o.withDefaults()
	return err
}
