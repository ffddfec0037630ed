package broker

import (
	"cmp"
	"slices"
)

// Flight is the packet-identifier state of one session: what was sent to the
// client and is not settled, and which QoS 2 messages from the client are not
// yet released. The two identifier spaces are separate (MQTT 5, 2.2.1).
//
// It belongs to the connection that the session is attached to, from Attach to
// Detach; nobody else may touch it meanwhile.
type Flight struct {
	out      map[uint16]flying   // sent to the client, by packet identifier
	received map[uint16]struct{} // QoS 2 identifiers from the client, not released
	next     uint16              // where the search for a free identifier goes on
	sent     uint64              // counts deliveries: the order of first sending
}

type flying struct {
	id       uint64 // Delivery.ID
	order    uint64
	qos      byte
	released bool // QoS 2: PUBREC came in and is durable, PUBREL is owed
	counted  bool // sent on this connection: the client's Receive Maximum counts it
}

// FlightState is the durable part of a flight.
type FlightState struct {
	Sent     []FlightEntry // QoS 2 deliveries, in the order sent
	Received []uint16      // QoS 2 identifiers received and not released
}

// FlightEntry is one QoS 2 delivery in flight.
type FlightEntry struct {
	PacketID uint16
	ID       uint64
	Released bool
}

// A FlightChange is one step of a QoS 2 delivery.
type FlightChange struct {
	Entry   FlightEntry // Released tells which step: sent, or PUBREC received
	Settled bool        // PUBCOMP received: the entry is over
}

// NewFlight returns the flight of a session that starts with the given state.
func NewFlight(s FlightState) *Flight {
	f := &Flight{next: 1}
	for _, e := range s.Sent {
		f.put(e.PacketID, flying{id: e.ID, qos: 2, released: e.Released})
	}
	for _, id := range s.Received {
		f.receive(id)
	}
	return f
}

// put records that packet identifier id is in use. Maps are made when they are
// needed: most sessions of a large system never are.
func (f *Flight) put(id uint16, e flying) {
	if f.out == nil {
		f.out = make(map[uint16]flying)
	}
	e.order = f.sent
	f.sent++
	f.out[id] = e
}

// add takes a free packet identifier for a delivery. There is one as long as
// free is not 0.
func (f *Flight) add(delivery uint64, qos byte) uint16 {
	for {
		id := f.next
		f.next++
		if id == 0 {
			continue
		}
		if _, used := f.out[id]; !used {
			f.put(id, flying{id: delivery, qos: qos, counted: true})
			return id
		}
	}
}

// trim gives back the memory of identifiers that are no longer in use.
func (f *Flight) trim() {
	if len(f.out) == 0 {
		f.out = nil
	}
	if len(f.received) == 0 {
		f.received = nil
	}
}

// free is the number of packet identifiers not in use.
func (f *Flight) free() int { return 65535 - len(f.out) }

// begin begins a connection: it returns the identifiers in flight in the order of
// first sending (MQTT 5, 4.6.0-1), of which none counts as sent again yet.
func (f *Flight) begin() []uint16 {
	if len(f.out) == 0 {
		return nil
	}
	ids := make([]uint16, 0, len(f.out))
	for id, e := range f.out {
		ids = append(ids, id)
		e.counted = false
		f.out[id] = e
	}
	slices.SortFunc(ids, func(a, b uint16) int { return cmp.Compare(f.out[a].order, f.out[b].order) })
	return ids
}

// receive records a QoS 2 identifier from the client and reports whether it is
// new.
func (f *Flight) receive(id uint16) bool {
	if _, known := f.received[id]; known {
		return false
	}
	if f.received == nil {
		f.received = make(map[uint16]struct{})
	}
	f.received[id] = struct{}{}
	return true
}
