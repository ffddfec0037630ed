package broker

// A batch is an Inbound on its way: what one read brought in, the memory it
// lies in, and the answers that are owed for it. Batches of a connection are
// answered in the order of their coming, whatever order the backend keeps
// [MQTT-4.6.0-2] [MQTT-4.6.0-3].
type batch struct {
	Inbound
	c       *conn
	buf     *buffer
	answers []answer
	quota   int32 // QoS 1 and 2 publications in it
	done    bool  // under conn.mu: the backend has answered
	next    *batch
}

// answer is an acknowledgement that is owed.
type answer struct {
	item   int32 // index of the item whose code it carries, or -1
	id     uint16
	packet byte // typePuback, typePubrec or typePubcomp
	code   byte // if there is no item
	again  bool // PUBREC for a repeated message: the first one decides
}

// current returns the batch that is being filled.
func (c *conn) current() *batch {
	if c.batch == nil {
		b, _ := c.s.batches.Get().(*batch)
		if b == nil {
			b = &batch{}
			b.Done = b.answered
		}
		b.c, b.buf, b.quota, b.done, b.next = c, c.in, 0, false, nil
		c.in.refs.Add(1)
		c.batch = b
	}
	return c.batch
}

// submit hands the batch that is being filled to the backend.
func (c *conn) submit() {
	b := c.batch
	if b == nil {
		return
	}
	c.batch = nil
	items := len(b.Items)
	c.mu.Lock()
	if c.last == nil {
		c.first = b
	} else {
		c.last.next = b
	}
	c.last = b
	c.pending++
	c.pendingSize += len(b.buf.b)
	c.unacked.Add(b.quota)
	if items == 0 { // only answers: they wait for those before them
		b.done = true
		c.emit()
	}
	c.mu.Unlock()
	if items > 0 {
		c.session.Publish(&b.Inbound)
	}
}

// answered is Inbound.Done.
func (b *batch) answered(*Inbound) {
	c := b.c
	c.mu.Lock()
	defer c.mu.Unlock()
	if b.done {
		c.log().Error("the backend answered a batch twice")
		return
	}
	b.done = true
	if c.gone {
		return
	}
	c.emit()
}

// emit writes the answers of the batches at the front that are done. The caller
// holds mu.
func (c *conn) emit() {
	for b := c.first; b != nil && b.done; b = c.first {
		if c.first = b.next; c.first == nil {
			c.last = nil
		}
		c.reserveOut(len(b.answers) * 5)
		for i := range b.answers {
			c.answer(b, &b.answers[i])
		}
		c.countRejected(b)
		c.pending--
		c.pendingSize -= len(b.buf.b)
		c.recycle(b)
	}
	c.changed.Broadcast()
	c.kick()
}

// recycle takes back the memory of a batch that was answered.
func (c *conn) recycle(b *batch) {
	c.s.buffers.release(b.buf)
	clear(b.Items)
	b.Items, b.answers = b.Items[:0], b.answers[:0]
	b.buf, b.next = nil, nil
	c.s.batches.Put(b)
}

// countRejected counts what the backend did not take.
func (c *conn) countRejected(b *batch) {
	for i := range b.Items {
		if it := &b.Items[i]; it.Code >= 0x80 && it.Kind == ItemPublish {
			c.s.counters.Rejected[it.Code].Add(1)
		}
	}
}

// answer writes one acknowledgement. The caller holds mu and has reserved room.
func (c *conn) answer(b *batch, a *answer) {
	code := a.code
	if a.item >= 0 {
		code = b.Items[a.item].Code
	}
	refused := code >= 0x80
	switch a.packet {
	case typePubrec:
		if _, known := c.flight.received[a.id]; a.again && !known {
			code, refused = UnspecifiedError, true // the first one was refused meanwhile
		}
		if refused && !a.again {
			delete(c.flight.received, a.id)
		}
	case typePubcomp:
		if a.item >= 0 && refused {
			c.shutLocked(ending{code: ServerUnavailable, tell: true, Detachment: Detachment{Reason: "the release of a message could not be stored"}})
			return
		}
		delete(c.flight.received, a.id)
	}
	if a.packet != typePubrec || refused {
		if c.unacked.Load() > 0 {
			c.unacked.Add(-1)
		}
	}
	if c.closing {
		return
	}
	if refused && c.version != version5 && a.packet != typePubcomp {
		// This version cannot say no, and yes would be a lie.
		c.shutLocked(ending{code: code, tell: true, Detachment: Detachment{Reason: "a message could not be taken"}})
		return
	}
	c.out.b = appendAck(c.out.b, c.version, int(a.packet), a.id, code)
}

// forgetPending gives up on batches that the backend has not answered: the
// client was not told that their messages are safe, so it will send them again.
// The caller holds mu.
func (c *conn) forgetPending() {
	for b := c.first; b != nil; b = b.next {
		for _, a := range b.answers {
			if a.packet == typePubrec && !a.again {
				delete(c.flight.received, a.id)
			}
		}
	}
	c.first, c.last = nil, nil
}

// publish takes a PUBLISH.
func (c *conn) publish(first byte, body []byte) *fault {
	var p publish
	if f := p.parse(c.version, first, body); f != nil {
		return f
	}
	if p.alias != 0 {
		if f := c.resolveAlias(&p); f != nil {
			return f
		}
	}
	levels, f := checkTopic(p.Topic)
	if f != nil {
		return f
	}
	c.tally.messages[p.QoS]++
	code := Success
	switch {
	case levels > c.s.o.MaxTopicLevels || len(p.Topic) > c.s.o.MaxTopicLength:
		code = TopicNameInvalid
	case !c.principal.MayPublish(p.Topic):
		code = NotAuthorized
	}
	if code != Success {
		return c.reject(&p, code)
	}
	return c.take(&p)
}

// take puts a publication and its answer into the batch.
func (c *conn) take(p *publish) *fault {
	b := c.current()
	a := answer{item: int32(len(b.Items)), id: p.id, packet: typePuback}
	if p.QoS > 0 {
		if f := c.useQuota(b); f != nil {
			return f
		}
	}
	if p.QoS == 2 {
		a.packet = typePubrec
		c.mu.Lock()
		a.again = !c.flight.receive(p.id)
		c.mu.Unlock()
		if a.again { // [MQTT-4.3.3-10]
			a.item = -1
			b.answers = append(b.answers, a)
			return nil
		}
	}
	b.Items = append(b.Items, Item{Kind: ItemPublish, Message: p.Message, PacketID: p.id})
	if p.QoS > 0 {
		b.answers = append(b.answers, a)
	}
	if len(b.Items) >= batchItems {
		c.submit()
	}
	return nil
}

// reject answers a publication that the client may not make.
func (c *conn) reject(p *publish, code byte) *fault {
	c.s.counters.Rejected[code].Add(1)
	if p.QoS == 0 {
		return nil
	}
	if c.version != version5 {
		if !c.s.o.AckDenied {
			return &fault{code, "the client may not publish to that topic"} // [MQTT-3.3.5-2] of 3.1.1
		}
		code = Success
	}
	b := c.current()
	if f := c.useQuota(b); f != nil {
		return f
	}
	a := answer{item: -1, id: p.id, packet: typePuback, code: code}
	if p.QoS == 2 {
		a.packet = typePubrec
		c.mu.Lock()
		if _, a.again = c.flight.received[p.id]; a.again {
			a.code = Success // it was allowed when it came first, and taken
		} else if code == Success {
			c.flight.receive(p.id) // its PUBREL will come
		}
		c.mu.Unlock()
	}
	b.answers = append(b.answers, a)
	return nil
}

var errQuota = &fault{ReceiveMaximumExceeded, "more messages are unacknowledged than the receive maximum"}

// useQuota counts a QoS 1 or 2 publication against the receive maximum
// [MQTT-3.3.4-7]. MQTT 3.1.1 has none: there, only what waits for the backend
// is bounded.
func (c *conn) useQuota(b *batch) *fault {
	if c.version == version5 && int(c.unacked.Load()+b.quota) >= int(c.s.o.ReceiveMaximum) {
		return errQuota // [MQTT-4.9.0-1]
	}
	b.quota++
	return nil
}

// resolveAlias sets the topic from a topic alias, or remembers it (MQTT 5,
// 3.3.2.3.4). Remembered topics are never overwritten: batches point at them.
func (c *conn) resolveAlias(p *publish) *fault {
	if int(p.alias) > c.s.o.TopicAliasMaximum {
		return errPropAlias // [MQTT-3.3.2-9]
	}
	if len(p.Topic) > 0 {
		if _, f := checkTopic(p.Topic); f != nil {
			return f
		}
		if c.aliases == nil {
			c.aliases = make(map[uint16][]byte)
		}
		if string(c.aliases[p.alias]) != string(p.Topic) {
			c.aliases[p.alias] = append([]byte(nil), p.Topic...)
		}
		return nil
	}
	topic, ok := c.aliases[p.alias]
	if !ok {
		return &fault{ProtocolError, "the topic alias stands for no topic"} // 3.3.4
	}
	p.Topic = topic
	return nil
}

// pubrel takes a PUBREL.
func (c *conn) pubrel(body []byte) *fault {
	r, f := parseAck(c.version, typePubrel, body)
	if f != nil {
		return f
	}
	b := c.current()
	c.mu.Lock()
	_, known := c.flight.received[r.id]
	c.mu.Unlock()
	a := answer{item: -1, id: r.id, packet: typePubcomp}
	switch {
	case known:
		a.item = int32(len(b.Items))
		b.Items = append(b.Items, Item{Kind: ItemRelease, PacketID: r.id})
	case c.version == version5:
		a.code = PacketIDNotFound // 3.7.2.1
	}
	b.answers = append(b.answers, a)
	return nil
}
