// Package client is an MQTT 3.1.1 and 5 client for the hub's own daemons, its
// MQTT upstream and tests.
//
// A [Conn] is one network connection and nothing more: it never reconnects
// behind its user's back, so that what is in flight has exactly one fate.
// [Keeper] dials again with back-off where that is all that is wanted.
//
// # Honest liveness
//
// A connection that no longer confirms anything is not a connection. A Conn
// ends by itself, and settles everything that is in flight with an error, when
//
//   - the far side has sent nothing at all for [Options.Bound], although it was
//     asked with PINGREQ after half of it; or
//   - something waits for confirmation and nothing has been confirmed for Bound,
//     although the far side may still answer PINGREQ; or
//   - one publish has been passed over: later ones were confirmed and this one
//     was not for Bound (MQTT 5, 4.6: confirmations come in order).
//
// So a half-open link, a black hole and a broker that only looks alive are all
// seen within Bound. TCP_USER_TIMEOUT is set to Bound too.
//
// # Hot path
//
// PUBLISH and PUBACK are encoded and parsed here, straight into and out of the
// socket buffers; everything else goes through the packets codec of mochi-mqtt.
// Publishes that queue while a write is under way leave with the next write
// together; confirmations that arrive together are settled under one lock.
package client
