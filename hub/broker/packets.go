package broker

// tally counts what came in, to be added to the counters once per read.
type tally struct {
	bytes    uint64
	messages [3]uint64
}

// read is the reader while the session is attached.
func (c *conn) read() {
	for {
		open := c.handle()
		c.count()
		if !open || !c.await() {
			return
		}
		if err := c.fill(); err != nil {
			c.lost(err)
			return
		}
	}
}

// handle takes the packets that are there. It returns false when the connection
// is to end.
func (c *conn) handle() bool {
	c.claim()
	f := c.packets()
	c.submit() // also what came before a mistake
	c.yield()
	if f == errEnd {
		return false
	}
	if f != nil {
		c.fail(f)
		return false
	}
	c.keepRest()
	return true
}

// packets takes whole packets from in.
func (c *conn) packets() *fault {
	for c.off < c.end {
		rest := c.in.b[c.off:c.end]
		head, size, f := frame(rest)
		if f != nil {
			return f
		}
		if head+size > c.s.o.MaxPacketSize {
			return &fault{PacketTooLarge, "the packet is larger than the maximum packet size"} // [MQTT-3.2.2-15]
		}
		if c.need = head + size; head == 0 || c.need > len(rest) {
			break
		}
		c.off += c.need
		c.need = 0
		if f := c.packet(rest[0], rest[head:head+size:head+size]); f != nil {
			return f
		}
	}
	return nil
}

// errEnd says that the connection is to end and everything has been said.
var errEnd = &fault{Success, "the client has disconnected"}

// packet takes one packet.
func (c *conn) packet(first byte, body []byte) *fault {
	kind := int(first >> 4)
	if kind == typePublish {
		return c.publish(first, body)
	}
	want := byte(0)
	if kind == typePubrel || kind == typeSubscribe || kind == typeUnsubscribe {
		want = 2
	}
	if first&15 != want {
		return errFlags // [MQTT-2.1.3-1]
	}
	switch kind {
	case typePuback:
		return c.puback(body)
	case typePubrec:
		return c.pubrec(body)
	case typePubrel:
		return c.pubrel(body)
	case typePubcomp:
		return c.pubcomp(body)
	case typePingreq:
		return c.pingreq(body)
	case typeSubscribe:
		return c.apart(c.subscribe, body)
	case typeUnsubscribe:
		return c.apart(c.unsubscribe, body)
	case typeDisconnect:
		return c.disconnect(body)
	case typeConnect:
		return violation("CONNECT came twice") // [MQTT-3.1.0-2]
	case typeAuth:
		return violation("AUTH came without an authentication method") // 4.12
	case 0:
		return malformed("the packet type is 0")
	}
	return errUnsolicited
}

// apart takes a packet that makes the reader wait for the backend: what came
// before is handed in and answered first.
func (c *conn) apart(take func([]byte) *fault, body []byte) *fault {
	c.submit()
	f := take(body)
	c.claim()
	return f
}

// pingreq answers a PINGREQ [MQTT-3.12.4-1].
func (c *conn) pingreq(body []byte) *fault {
	if len(body) > 0 {
		return errTrailing
	}
	c.mu.Lock()
	c.reserveOut(2)
	c.out.b = append(c.out.b, typePingresp<<4, 0)
	c.mu.Unlock()
	return nil
}

// disconnect takes a DISCONNECT (MQTT 5, 3.14).
func (c *conn) disconnect(body []byte) *fault {
	e := ending{Detachment: Detachment{Clean: true, Reason: "the client has disconnected"}}
	if len(body) > 0 {
		if c.version != version5 {
			return errTrailing
		}
		s := fields{b: body[1:]}
		if len(body) > 1 {
			for rest := s.properties(typeDisconnect); len(rest) > 0; {
				var p property
				if p, rest = rest.next(typeDisconnect); p.id == propSessionExpiry {
					if c.expiry == 0 && p.num != 0 {
						return violation("the session expiry was 0 and cannot be changed") // 3.14.2.2.2
					}
					c.expiry = c.capExpiry(sessionExpiry(p.num))
				}
			}
		}
		if f := s.end(); f != nil {
			return f
		}
		switch code := body[0]; {
		case code == DisconnectWithWill:
			e.WithWill = true
		case code != Success: // [MQTT-3.14.4-3]: only Success takes the will back
			e.Clean = false
			e.Reason = "the client has disconnected because of an error"
		}
	}
	c.submit()
	c.shut(e)
	return errEnd
}

// puback takes a PUBACK.
func (c *conn) puback(body []byte) *fault {
	a, f := parseAck(c.version, typePuback, body)
	if f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.flight.out[a.id]
	switch {
	case !ok:
		return nil // of an earlier connection, or answered twice
	case e.qos != 1:
		return violation("PUBACK for a QoS 2 message")
	case a.code >= 0x80:
		c.s.counters.ClientRefused.Add(1)
	}
	c.over(a.id, e)
	return nil
}

// pubrec takes a PUBREC.
func (c *conn) pubrec(body []byte) *fault {
	a, f := parseAck(c.version, typePubrec, body)
	if f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.flight.out[a.id]
	entry := FlightEntry{PacketID: a.id, ID: e.id}
	switch {
	case ok && e.qos != 2:
		return violation("PUBREC for a QoS 1 message")
	case a.code >= 0x80:
		if ok {
			c.s.counters.ClientRefused.Add(1)
			c.over(a.id, e)
		}
	case !ok, e.released:
		code := Success
		if !ok {
			code = PacketIDNotFound // 3.6.2.1
		}
		c.reserveOut(5)
		c.out.b = appendAck(c.out.b, c.version, typePubrel, a.id, code)
	default:
		entry.Released = true
		c.changes = append(c.changes, FlightChange{Entry: entry})
	}
	return nil
}

// pubcomp takes a PUBCOMP.
func (c *conn) pubcomp(body []byte) *fault {
	a, f := parseAck(c.version, typePubcomp, body)
	if f != nil {
		return f
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.flight.out[a.id]
	switch {
	case !ok:
		return nil
	case e.qos != 2 || !e.released:
		return violation("PUBCOMP for a message that was not released")
	}
	c.over(a.id, e)
	return nil
}

// over ends a delivery. The caller holds mu.
func (c *conn) over(id uint16, e flying) {
	delete(c.flight.out, id)
	c.settle(e.id)
	if e.counted {
		c.quota++
	}
	if e.qos == 2 {
		c.changes = append(c.changes, FlightChange{
			Entry:   FlightEntry{PacketID: id, ID: e.id, Released: e.released},
			Settled: true,
		})
	}
}

// await waits until there is room for more of the client's packets, and slows
// the client down to its rate. It returns false when the connection is to end.
func (c *conn) await() bool {
	c.mu.Lock()
	for !c.closing && !c.hasRoom() {
		if !c.full {
			c.full = true
			c.s.counters.Throttled.Add(1)
		}
		c.changed.Wait()
	}
	c.full = false
	closing := c.closing
	c.mu.Unlock()
	if closing {
		return false
	}
	return c.limit.wait(c)
}

// hasRoom reports whether the socket may be read. The caller holds mu.
func (c *conn) hasRoom() bool {
	return c.pending < c.s.o.MaxInboundBatches && c.pendingSize < c.s.o.MaxInboundBytes &&
		(c.out == nil || len(c.out.b) < maxAnswers)
}

// count adds the tally to the counters and to the rates.
func (c *conn) count() {
	k := &c.s.counters
	k.BytesIn.Add(c.tally.bytes)
	n := uint64(0)
	for qos, m := range c.tally.messages {
		if m > 0 {
			k.MessagesIn[qos].Add(m)
			n += m
		}
	}
	c.limit.spend(float64(n), float64(c.tally.bytes))
	c.tally = tally{}
}
