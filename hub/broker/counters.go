package broker

import "sync/atomic"

// Counters are a server's figures. All but Connections and Clients only grow.
// They are updated per batch, not per message, so that reading them during load
// may be one batch late.
type Counters struct {
	Connections atomic.Int64 // open sockets, now
	Clients     atomic.Int64 // attached sessions, now

	Accepted    atomic.Uint64      // sockets accepted
	Refused     [256]atomic.Uint64 // CONNECTs refused, by MQTT 5 reason code
	Ended       [256]atomic.Uint64 // connections that the server ended, by MQTT 5 reason code
	TimedOut    atomic.Uint64      // connections closed for not sending a whole CONNECT in time
	Stuck       atomic.Uint64      // connections closed because a write took longer than WriteTimeout
	BytesIn     atomic.Uint64      // bytes of packets, without TLS and WebSocket framing
	BytesOut    atomic.Uint64
	MessagesIn  [3]atomic.Uint64   // publications received, by QoS, repeated ones included
	MessagesOut [3]atomic.Uint64   // publications sent, by QoS, repeated ones included
	Rejected    [256]atomic.Uint64 // publications not taken, by MQTT 5 reason code
	Throttled   atomic.Uint64      // times that a socket was not read because too much waited or came too fast

	DroppedSlow    atomic.Uint64 // QoS 0 publications not sent to a slow client
	DroppedTooBig  atomic.Uint64 // publications larger than the client's Maximum Packet Size
	DroppedExpired atomic.Uint64 // deliveries in flight that the backend no longer had at reconnection
	ClientRefused  atomic.Uint64 // deliveries that a client answered with an error
	NotAnswered    atomic.Uint64 // batches that the backend had not answered after DrainTimeout
}
