package broker

import (
	"crypto/tls"
	"log/slog"
	"time"

	"holdfast/drivers/clock"
)

// Options are the limits and clockwork of a [Server]. The zero value of every
// field means its default.
type Options struct {
	Clock clock.Clock  // default: the machine's
	Log   *slog.Logger // default: nothing is logged

	// MaxClients is how many clients may be connected; one more is told
	// QuotaExceeded. Default 16,384.
	MaxClients int
	// ConnectRate is how many connections per second are let in, on all
	// listeners together, with bursts of ConnectBurst (default: one second's
	// worth). One more is told ConnectionRateExceeded. Default: no limit.
	ConnectRate  float64
	ConnectBurst int

	// MaxPacketSize is the largest packet taken from a client, in bytes.
	// Default 1 MiB; at most 256 MiB.
	MaxPacketSize int
	// MaxConnectSize is the largest CONNECT, in bytes: it is read before anybody
	// knows who sends it. Default 64 KiB.
	MaxConnectSize int
	// MaxClientID is the longest client identifier, in bytes. Default 1,024.
	MaxClientID int
	// MaxTopicLength and MaxTopicLevels bound topic names and filters, in bytes
	// and in levels. Defaults 65,535 and 128.
	MaxTopicLength int
	MaxTopicLevels int
	// TopicAliasMaximum is how many topic aliases a client may set. Default 32.
	TopicAliasMaximum int

	// ReceiveMaximum is how many QoS 1 and 2 messages an MQTT 5 client may have
	// unacknowledged. Default 1,024.
	ReceiveMaximum uint16
	// MaxInflight is how many QoS 1 and 2 messages a client is sent before it
	// acknowledges the first, if it does not ask for fewer. Whatever comes behind
	// them waits, QoS 0 included: order is kept. Default 1,024.
	MaxInflight uint16
	// MaxInboundBytes and MaxInboundBatches bound what one client has handed in
	// and the backend has not answered. Beyond them its socket is not read:
	// nothing is dropped. Defaults 1 MiB and 256.
	MaxInboundBytes   int
	MaxInboundBatches int
	// MessageRate and ByteRate are what one client may send per second, with
	// bursts of one second's worth. Above, its socket is read more slowly:
	// nothing is dropped. Default: no limit.
	MessageRate float64
	ByteRate    float64

	// MaxKeepAlive replaces a longer keep-alive, or none, of an MQTT 5 client,
	// which is told. Default: as the client says.
	MaxKeepAlive time.Duration
	// MaxSessionExpiry replaces a longer session expiry of a client; MQTT 5
	// clients are told. Default: as the client says.
	MaxSessionExpiry time.Duration

	// ConnectTimeout bounds the time from accept to a whole CONNECT, TLS and
	// WebSocket handshakes included. Default 10 s.
	ConnectTimeout time.Duration
	// BackendTimeout bounds each call of Authenticate, Attach, Subscribe and
	// Unsubscribe, and the wait for a Note. Default 30 s.
	BackendTimeout time.Duration
	// WriteTimeout is how long the client may take to accept 64 KiB, or less if
	// there is less; then it counts as stuck and its connection is closed.
	// Default 20 s.
	WriteTimeout time.Duration
	// SlowAfter is how long a write may wait before the client counts as slow. A
	// slow client loses the QoS 0 messages that gathered meanwhile, until it has
	// caught up; QoS 1 and 2 are not touched. Default 1 s.
	SlowAfter time.Duration
	// DrainTimeout bounds the wait, at the end of a connection, for the backend's
	// answers to what it was handed; Detach is called afterwards. Default 30 s.
	DrainTimeout time.Duration

	// AckDenied answers a QoS 1 or 2 publication that an MQTT 3.1.1 client may not
	// make with an acknowledgement, and drops it. By default the connection is
	// closed; that version leaves only these two ways (MQTT 3.1.1, 3.3.5-2).
	// MQTT 5 clients are told NotAuthorized either way. A QoS 0 publication that
	// is not allowed is dropped.
	AckDenied bool
}

// ListenerOptions are the properties of one listener.
type ListenerOptions struct {
	Name string      // told to the backend in Connect.Listener
	TLS  *tls.Config // nil for plain connections

	// Path is where WebSocket connections are taken. Default "/mqtt".
	Path string
	// Origins are the origins, beside the server's own, from which a browser may
	// open a WebSocket, as patterns of path.Match.
	Origins []string
}

// Limits that are not worth an option.
const (
	maxPacket    = 256 << 20              // the protocol's own limit (2.1.4)
	tick         = 500 * time.Millisecond // how often time limits are looked at; they are kept with up to two ticks of delay
	closeGrace   = time.Second            // how long the last packet to a client may take, and its reading of it
	writeChunk   = 64 << 10               // what WriteTimeout is measured on
	fetchBytes   = 64 << 10               // payload asked of the backend at a time
	fetchCount   = 256                    // deliveries asked of the backend at a time
	batchItems   = 1024                   // items in one Inbound
	maxAnswers   = 64 << 10               // answers that a client leaves unread before its socket is not read
	inlineRounds = 4                      // rounds that a reader writes before it goes back to reading
	connectSlack = 256                    // connections beyond MaxClients that get a proper refusal
)

func (o Options) withDefaults() Options {
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	orDefault(&o.MaxClients, 16384)
	orDefault(&o.MaxPacketSize, 1<<20)
	o.MaxPacketSize = min(o.MaxPacketSize, maxPacket)
	orDefault(&o.MaxConnectSize, 64<<10)
	o.MaxConnectSize = min(o.MaxConnectSize, o.MaxPacketSize)
	orDefault(&o.MaxClientID, 1024)
	orDefault(&o.MaxTopicLength, 65535)
	orDefault(&o.MaxTopicLevels, 128)
	orDefault(&o.TopicAliasMaximum, 32)
	o.TopicAliasMaximum = min(o.TopicAliasMaximum, 65535)
	orDefault(&o.ReceiveMaximum, 1024)
	orDefault(&o.MaxInflight, 1024)
	orDefault(&o.MaxInboundBytes, 1<<20)
	orDefault(&o.MaxInboundBatches, 256)
	orDefault(&o.ConnectTimeout, 10*time.Second)
	orDefault(&o.BackendTimeout, 30*time.Second)
	orDefault(&o.WriteTimeout, 20*time.Second)
	orDefault(&o.SlowAfter, time.Second)
	orDefault(&o.DrainTimeout, 30*time.Second)
	if o.ConnectBurst <= 0 {
		o.ConnectBurst = max(1, int(o.ConnectRate))
	}
	return o
}

func orDefault[T int | uint16 | time.Duration](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}
