package broker

import (
	"context"
	"fmt"
)

var (
	errNoFilters      = violation("there is no topic filter")                                     // [MQTT-3.8.3-2] [MQTT-3.10.3-2]
	errOptions        = malformed("the reserved subscription options are not 0, or the QoS is 3") // [MQTT-3.8.3-5]
	errRetainHandling = violation("the retain handling option is 3")                              // 3.8.3.1
	errNoLocalShared  = violation("a shared subscription has the no-local option")                // [MQTT-3.8.3-4]
	errFilterEmpty    = violation("the topic filter is empty")                                    // [MQTT-4.7.3-1]
)

// parseSubscribe reads the body of a SUBSCRIBE (MQTT 5, 3.8). The strings of
// the result are their own.
func parseSubscribe(version byte, body []byte) (id uint16, subs []Subscription, f *fault) {
	s := fields{b: body}
	var subID uint32
	if id = s.uint16(); id == 0 && s.bad == nil {
		return 0, nil, errNoPacketID
	}
	if version == version5 {
		for rest := s.properties(typeSubscribe); len(rest) > 0; {
			var p property
			if p, rest = rest.next(typeSubscribe); p.id == propSubscriptionID {
				subID = p.num
			}
		}
	}
	for len(s.b) > 0 {
		sub := Subscription{Filter: string(s.text()), ID: subID}
		options := s.byte()
		if s.bad != nil {
			break
		}
		if f := sub.setOptions(version, options); f != nil {
			return id, nil, f
		}
		subs = append(subs, sub)
	}
	if s.bad == nil && len(subs) == 0 {
		s.bad = errNoFilters
	}
	return id, subs, s.bad
}

// setOptions reads the subscription options (MQTT 5, 3.8.3.1); MQTT 3.1.1 has
// only the QoS.
func (s *Subscription) setOptions(version, o byte) *fault {
	reserved := byte(0xfc)
	if version == version5 {
		reserved = 0xc0
	}
	s.QoS = o & 3
	if s.QoS == 3 || o&reserved != 0 {
		return errOptions
	}
	s.NoLocal = o&4 != 0
	s.RetainAsPublished = o&8 != 0
	s.RetainHandling = o >> 4 & 3
	switch _, shared, _ := splitShare(s.Filter); {
	case s.Filter == "":
		return errFilterEmpty
	case s.RetainHandling == 3:
		return errRetainHandling
	case shared && s.NoLocal:
		return errNoLocalShared
	}
	return nil
}

// parseUnsubscribe reads the body of an UNSUBSCRIBE (MQTT 5, 3.10).
func parseUnsubscribe(version byte, body []byte) (id uint16, filters []string, f *fault) {
	s := fields{b: body}
	if id = s.uint16(); id == 0 && s.bad == nil {
		return 0, nil, errNoPacketID
	}
	if version == version5 {
		s.properties(typeUnsubscribe)
	}
	for len(s.b) > 0 {
		filter := string(s.text())
		if s.bad == nil && filter == "" {
			return id, nil, errFilterEmpty
		}
		filters = append(filters, filter)
	}
	if s.bad == nil && len(filters) == 0 {
		s.bad = errNoFilters
	}
	return id, filters, s.bad
}

// checkFilter returns the reason code for which the client may not have the
// filter, or Success.
func (c *conn) checkFilter(filter string) byte {
	inner, _, ok := splitShare(filter)
	levels, valid := validFilter(inner)
	o := &c.s.o
	switch {
	case !ok || !valid || levels > o.MaxTopicLevels || len(filter) > o.MaxTopicLength:
		return TopicFilterInvalid
	case !c.principal.MaySubscribe(inner):
		return NotAuthorized
	}
	return Success
}

// subscribe carries out a SUBSCRIBE. It runs on the reader, which waits: the
// client's next packet is looked at when the change is durable.
func (c *conn) subscribe(body []byte) *fault {
	id, subs, f := parseSubscribe(c.version, body)
	if f != nil {
		return f
	}
	codes := make([]byte, len(subs))
	allowed := subs[:0]
	for i, s := range subs {
		if codes[i] = c.checkFilter(s.Filter); codes[i] == Success {
			allowed = append(allowed, s)
		}
	}
	c.fillCodes(codes, len(allowed), func(ctx context.Context) ([]byte, error) {
		return c.session.Subscribe(ctx, allowed)
	})
	if c.version != version5 {
		for i := range codes {
			if codes[i] >= 0x80 {
				codes[i] = SubscribeFailure
			}
		}
	}
	c.answerRare(appendSuback(nil, c.version, id, codes, false))
	return nil
}

// unsubscribe carries out an UNSUBSCRIBE. Filters that could not have been
// subscribed to are asked for all the same: they are not found.
func (c *conn) unsubscribe(body []byte) *fault {
	id, filters, f := parseUnsubscribe(c.version, body)
	if f != nil {
		return f
	}
	codes := make([]byte, len(filters))
	failed := c.fillCodes(codes, len(filters), func(ctx context.Context) ([]byte, error) {
		return c.session.Unsubscribe(ctx, filters)
	})
	if failed && c.version != version5 {
		// An UNSUBACK of MQTT 3.1.1 cannot say no.
		return &fault{ServerUnavailable, "the subscription could not be removed"}
	}
	c.answerRare(appendSuback(nil, c.version, id, codes, true))
	return nil
}

// fillCodes asks the backend for n codes and puts them where codes is Success.
// On an error all of them become UnspecifiedError.
func (c *conn) fillCodes(codes []byte, n int, ask func(context.Context) ([]byte, error)) (failed bool) {
	if n == 0 {
		return false
	}
	c.yield()
	ctx, done := c.begin(c.s.o.BackendTimeout)
	got, err := ask(ctx)
	if err == nil && len(got) != n {
		err = fmt.Errorf("the backend gave %d codes for %d filters", len(got), n)
	}
	if err != nil && ctx.Err() == nil {
		c.log().Warn("subscription not changed", "err", err)
	}
	done()
	next := 0
	for i := range codes {
		switch {
		case codes[i] != Success:
		case err != nil:
			codes[i] = UnspecifiedError
		default:
			codes[i] = got[next]
			next++
		}
	}
	return err != nil
}
