package mqtt

import (
	"strconv"
	"time"

	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/batch"
)

// message makes the MQTT message of p as stored, in the link's buffers.
func (l *link) message(p publish) client.Message {
	o := &l.u.o
	if o.Batch {
		l.entries = l.entries[:0]
		for i := range p {
			l.entries = append(l.entries, batch.Of(p[i].m))
		}
		l.payload = batch.Append(l.payload[:0], p[0].m.Epoch, l.entries, l.pack)
		clear(l.entries)
		l.topic = l.u.batch.append(l.topic[:0], o.Device, nil, nil)
		return client.Message{Topic: l.topic, Payload: l.payload, QoS: 1}
	}
	r := &p[0].m.Record
	l.topic = l.u.topic.append(l.topic[:0], o.Device, r, nil)
	l.props = append(l.props[:0], r.Props...)
	return l.dress(client.Message{Payload: r.Payload}, p[0].m)
}

// readingMessage makes message s.next of the record that is open in l.readings.
func (l *link) readingMessage(s *spread) client.Message {
	o := &l.u.o
	about := l.readings.About(s.next)
	l.payload = l.readings.Append(l.payload[:0], s.next)
	l.topic = l.u.reading.append(l.topic[:0], o.Device, &s.m.Record, &about)
	l.props = append(l.props[:0], s.props...)
	if o.Annotate {
		l.props = client.AppendUserProperty(l.props, PropQuality, about.Quality)
		if about.Unit != "" {
			l.props = client.AppendUserProperty(l.props, PropUnit, about.Unit)
		}
	}
	if o.Identify && s.n > 1 {
		l.props = client.AppendUserProperty(l.props, PropIndex, strconv.Itoa(s.next))
	}
	return l.dress(client.Message{Payload: l.payload}, s.m)
}

// contentTypes are those of the payload forms.
var contentTypes = map[string]string{"json": "application/json", "cbor": "application/cbor", "protobuf": "application/protobuf"}

// readingProps are the properties that all messages of a record have in common:
// its own, with what they say of the payload put right (MQTT 5, 3.3.2.3.2 and
// 3.3.2.3.9).
func (o *Options) readingProps(r *hub.Record) []byte {
	props := client.AppendForOtherPayload(nil, r.Props)
	if o.Form.Payload == "json" {
		props = client.AppendTextPayload(props)
	}
	return client.AppendContentType(props, contentTypes[o.Form.Payload])
}

// dress gives m, whose topic and properties are in the link's buffers, what every
// message of one record has.
func (l *link) dress(m client.Message, out *hub.Outgoing) client.Message {
	o := &l.u.o
	m.Topic, m.QoS, m.Retain = l.topic, 1, out.Record.Retain && o.Retain
	if o.Version == client.Version311 {
		return m
	}
	m.Expiry = l.remaining(out.Record.Expires)
	if l.pack != nil && len(m.Payload) >= 64 {
		l.packed = l.pack.EncodeAll(m.Payload, l.packed[:0])
		if gain := len(m.Payload) - len(l.packed); gain > len(PropEncoding)+len("zstd")+5 {
			m.Payload = l.packed
			l.props = client.AppendUserProperty(l.props, PropEncoding, "zstd")
		}
	}
	if o.Identify {
		l.props = client.AppendUserProperty(l.props, PropEpoch, strconv.FormatUint(out.Epoch, 10))
		l.props = client.AppendUserProperty(l.props, PropOffset, strconv.FormatUint(out.Offset, 10))
	}
	m.Props = l.props
	return m
}

// remaining returns the message expiry interval that is left (MQTT 5,
// 3.3.2.3.3), at least a second: whether it is over was decided before.
func (l *link) remaining(expires int64) time.Duration {
	if expires == 0 {
		return 0
	}
	return max(time.Second, time.UnixMicro(expires).Sub(l.u.o.Clock.Now()))
}
