package broker

// Flight is the packet-identifier state of one session: what was sent to the
// client and is not settled, and which QoS 2 messages from the client are not
// yet released. The two identifier spaces are separate (MQTT 5, 2.2.1).
type Flight struct {
	out      map[uint16]flying   // sent to the client, by packet identifier
	order    []uint16            // of out, as sent
	received map[uint16]struct{} // QoS 2 identifiers from the client, not released
	next     uint16              // where the search for a free identifier goes on
}

type flying struct {
	id       uint64
	qos      byte
	released bool // QoS 2: PUBREC came in, PUBREL is owed
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
	f := &Flight{out: map[uint16]flying{}, received: map[uint16]struct{}{}, next: 1}
	for _, e := range s.Sent {
		f.out[e.PacketID] = flying{id: e.ID, qos: 2, released: e.Released}
		f.order = append(f.order, e.PacketID)
	}
	for _, id := range s.Received {
		f.received[id] = struct{}{}
	}
	return f
}
