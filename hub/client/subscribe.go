package client

import (
	"bytes"
	"context"
	"fmt"

	"github.com/mochi-mqtt/server/v2/packets"
)

// A Subscription is one filter with its options. All but Filter and QoS are
// MQTT 5 (3.8.3.1).
type Subscription struct {
	Filter            string
	QoS               byte
	NoLocal           bool
	RetainAsPublished bool
	RetainHandling    byte
}

// Subscribe asks for messages and waits for the answer: one code for each
// subscription, the granted QoS or a reason of 0x80 and above. When the server
// refused any of them the error is a *ReasonError with the first such code.
func (c *Conn) Subscribe(ctx context.Context, subs ...Subscription) ([]byte, error) {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Subscribe, Qos: 1}, ProtocolVersion: c.o.Version}
	for _, s := range subs {
		pk.Filters = append(pk.Filters, packets.Subscription{
			Filter: s.Filter, Qos: s.QoS, NoLocal: s.NoLocal,
			RetainAsPublished: s.RetainAsPublished, RetainHandling: s.RetainHandling,
		})
	}
	return c.exchange(ctx, &pk, pk.SubscribeEncode)
}

// Unsubscribe gives filters up, and waits for the answer like Subscribe. With
// MQTT 3.1.1 there are no codes.
func (c *Conn) Unsubscribe(ctx context.Context, filters ...string) ([]byte, error) {
	pk := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Unsubscribe, Qos: 1}, ProtocolVersion: c.o.Version}
	for _, f := range filters {
		pk.Filters = append(pk.Filters, packets.Subscription{Filter: f})
	}
	return c.exchange(ctx, &pk, pk.UnsubscribeEncode)
}

// exchange sends pk under an identifier of its own and waits for its answer.
func (c *Conn) exchange(ctx context.Context, pk *packets.Packet, enc func(*bytes.Buffer) error) ([]byte, error) {
	op := packets.PacketNames[pk.FixedHeader.Type]
	if len(pk.Filters) == 0 {
		return nil, fmt.Errorf("%s: no filter", op)
	}
	reply := make(chan *packets.Packet, 1)
	c.mu.Lock()
	if err := c.usable(); err != nil {
		c.mu.Unlock()
		return nil, err
	}
	id := MaxWindow + 1 + c.nextID%(1<<16-1-MaxWindow)
	c.nextID++
	if _, taken := c.pending[id]; taken {
		c.mu.Unlock()
		return nil, ErrWindow
	}
	pk.PacketID = id
	var b bytes.Buffer
	if err := enc(&b); err != nil {
		c.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	c.pending[id] = reply
	c.wait()
	c.append(b.Bytes())
	c.mu.Unlock()

	select {
	case ack := <-reply:
		for i, code := range ack.ReasonCodes {
			if code >= 0x80 {
				filter := ""
				if i < len(pk.Filters) {
					filter = pk.Filters[i].Filter
				}
				return ack.ReasonCodes, reasonError(fmt.Sprintf("%s %q", op, filter), c.o.Version, code, ack.Properties.ReasonString)
			}
		}
		return ack.ReasonCodes, nil
	case <-c.ended:
		return nil, c.Err()
	case <-ctx.Done():
		return nil, ctx.Err() // its identifier stays taken until the answer comes
	}
}

// subscribed takes SUBACK and UNSUBACK.
func (c *Conn) subscribed(f frame) error {
	pk := f.packet(c.o.Version)
	decode := pk.SubackDecode
	if f.head&0xf0 == typeUnsuback {
		decode = pk.UnsubackDecode
	}
	// The codec keeps slices of the buffer, and the answer outlives it.
	if err := decode(bytes.Clone(f.body)); err != nil {
		return fmt.Errorf("%w: answer to subscribe: %w", ErrMalformed, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if reply, ok := c.pending[pk.PacketID]; ok {
		delete(c.pending, pk.PacketID)
		c.confirmed(c.o.Clock.Elapsed())
		reply <- pk
	}
	return nil
}
