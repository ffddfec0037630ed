package sparkplug

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/sparkplug/payload"
)

// Names of properties. "Quality" is the specification's (6.4.10), "engUnit" and
// "readOnly" are what hosts commonly read; the others are ours.
const (
	propertyQuality  = "Quality"
	propertyStatus   = "opcuaStatus" // the status code behind Quality, where that is not good
	propertyDetail   = "detail"      // likewise, why, for people
	propertyUnit     = "engUnit"
	propertyReadOnly = "readOnly"
)

// A session is the edge node's life on one connection, from its birth on. It
// makes the messages, in order, and numbers them.
type session struct {
	o    *Options
	n    *node
	bd   uint8
	send func(topic, payload []byte) error
	wall func() time.Time

	seq   uint8 // of the next message
	topic []byte
	buf   []byte
	list  []entry
	props []payload.Property
	stats *stats
}

// An entry is one value in a data message.
type entry struct {
	m          *metric
	value      payload.Value
	stamp      int64
	status     uint32
	detail     string
	historical bool
}

// appendTopic appends the topic of a message (specification 3.0.0, 4.1).
func (o *Options) appendTopic(dst []byte, kind, device string) []byte {
	dst = append(dst, namespace...)
	dst = append(append(dst, '/'), o.Group...)
	dst = append(append(dst, '/'), kind...)
	dst = append(append(dst, '/'), o.Node...)
	if device != "" {
		dst = append(append(dst, '/'), device...)
	}
	return dst
}

// appendDeath appends the payload of NDEATH: bdSeq and nothing else
// (tck-id-topics-ndeath-payload, tck-id-topics-ndeath-seq).
func appendDeath(dst []byte, bd uint8, now time.Time) []byte {
	m := bdSeq(bd, now)
	return payload.AppendMetric(payload.AppendTimestamp(dst, uint64(now.UnixMilli())), &m)
}

func bdSeq(bd uint8, now time.Time) payload.Metric {
	return payload.Metric{
		Name: metricBdSeq, Timestamp: uint64(now.UnixMilli()), HasTimestamp: true, Datatype: payload.Int64,
		Scalar: payload.Scalar{Field: payload.LongField, Bits: uint64(bd)},
	}
}

// begin starts a message in s.buf.
func (s *session) begin(now time.Time) {
	s.buf = payload.AppendTimestamp(s.buf[:0], uint64(now.UnixMilli()))
}

// publish sends what is in s.buf under the next sequence number.
func (s *session) publish(kind, device string) error {
	s.buf = payload.AppendSeq(s.buf, uint64(s.seq))
	s.topic = s.o.appendTopic(s.topic[:0], kind, device)
	if err := s.send(s.topic, s.buf); err != nil {
		return fmt.Errorf("%s: %w", kind, err)
	}
	s.seq++ // 255 is followed by 0 (tck-id-payloads-sequence-num-incrementing)
	return nil
}

// birth sends NBIRTH and the DBIRTH of every device that lives.
func (s *session) birth() error {
	now := s.wall()
	s.seq = 0 // tck-id-topics-nbirth-seq-num
	s.begin(now)
	bd := bdSeq(s.bd, now)
	s.buf = payload.AppendMetric(s.buf, &bd)
	s.appendControl(metricRebirth, now)
	if len(s.o.servers()) > 1 {
		s.appendControl(metricNextServer, now)
	}
	for _, p := range s.o.properties() {
		m := payload.Metric{Name: propertyFolder + p.name, Timestamp: uint64(now.UnixMilli()), HasTimestamp: true, Datatype: payload.String,
			Scalar: payload.Scalar{Field: payload.StringField, Raw: []byte(p.value)}}
		s.buf = payload.AppendMetric(s.buf, &m)
	}
	s.appendBirths(s.n.self, now)
	if err := s.publish(nbirth, ""); err != nil {
		return err
	}
	s.n.self.bornNow()
	s.stats.births.Add(1)
	for _, d := range s.n.order {
		d.born = false
	}
	for _, d := range s.n.order {
		if d.dead {
			continue
		}
		// A device whose birth is larger than the server takes is not born; its
		// records will be refused one by one, and the others go on.
		if err := s.deviceBirth(d); err != nil && !errors.Is(err, client.ErrInvalid) {
			return err
		}
	}
	return nil
}

// appendControl appends a command of the node. It never has an alias
// (tck-id-operational-behavior-data-commands-rebirth-name-aliases).
func (s *session) appendControl(name string, now time.Time) {
	m := payload.Metric{Name: name, Timestamp: uint64(now.UnixMilli()), HasTimestamp: true, Datatype: payload.Boolean,
		Scalar: payload.Scalar{Field: payload.BoolField}}
	s.buf = payload.AppendMetric(s.buf, &m)
}

func (s *session) deviceBirth(d *device) error {
	now := s.wall()
	s.begin(now)
	s.appendBirths(d, now)
	if err := s.publish(dbirth, d.name); err != nil {
		return err
	}
	d.bornNow()
	s.stats.deviceBirths.Add(1)
	return nil
}

// bornNow notes that the host knows everything that is known of d.
func (d *device) bornNow() {
	d.born, d.dead, d.behind = true, false, false
	for _, m := range d.order {
		m.behind = false
		if m.has {
			m.told = m.stamp
		}
	}
}

// appendBirths appends all metrics of d as they are now.
func (s *session) appendBirths(d *device, now time.Time) {
	for _, m := range d.order {
		e := entry{m: m, value: m.value, stamp: m.stamp, status: m.status, detail: m.detail}
		if !m.has {
			e.stamp, e.status = now.UnixMilli(), statusBadWaitingForInitialData
		}
		w := s.wire(&e)
		w.Name, w.Datatype = m.name, m.shown()
		if m.unit != "" {
			w.Properties = append(w.Properties, payload.StringProperty(propertyUnit, m.unit))
		}
		if m.configured && m.readOnly {
			w.Properties = append(w.Properties, payload.BoolProperty(propertyReadOnly, true))
		}
		s.props = w.Properties[:0]
		s.buf = payload.AppendMetric(s.buf, &w)
	}
}

// wire returns e as it stands in a data message.
func (s *session) wire(e *entry) payload.Metric {
	m := e.m
	w := payload.Metric{Timestamp: uint64(e.stamp), HasTimestamp: true, Historical: e.historical}
	if s.o.NoAliases {
		w.Name = m.name
	} else {
		w.Alias, w.HasAlias = m.alias, true
	}
	if s.o.Datatypes {
		w.Datatype = m.shown()
	}
	// learn has made the datatype fit, so that there is no error; a value without
	// a member is null (tck-id-operational-behavior-data-publish-dbirth-values).
	w.Scalar, _ = payload.Encode(m.shown(), e.value)
	w.Null = w.Scalar.Field == payload.NoField
	q := quality(e.status)
	w.Properties = s.props[:0]
	if q != qualityGood || m.qualified {
		w.Properties = append(w.Properties, payload.Int32Property(propertyQuality, q))
	}
	m.qualified = q != qualityGood
	if e.status != 0 {
		w.Properties = append(w.Properties, payload.Int64Property(propertyStatus, int64(e.status)))
	}
	if e.detail != "" {
		w.Properties = append(w.Properties, payload.StringProperty(propertyDetail, e.detail))
	}
	return w
}

// errRefused is wrapped by errors that are about one record only.
var errRefused = hub.ErrRejected

// record sends a batch. buffered says that it is not news: everything in it is
// historical. An error that is errRefused is about this record; after any other
// the session is over.
func (s *session) record(b *Batch, rec *hub.Record, buffered bool, elapsed time.Duration) error {
	if err := s.n.check(b); err != nil {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if len(b.Readings) == 0 {
		return nil
	}
	d, err := s.n.device(b.Device)
	if err != nil {
		return err
	}
	changed, err := s.n.learn(d, b)
	if err != nil {
		return err
	}
	d.heard = elapsed
	if d.dead && !changed && allLost(b) {
		for i := range b.Readings { // its death has said so already
			s.update(d, d.metrics[b.Readings[i].Tag], &b.Readings[i], stampOf(&b.Readings[i], rec))
		}
		return nil
	}
	if err := s.bear(d, changed); err != nil {
		return err
	}
	s.list = s.list[:0]
	if !buffered {
		s.catchUp(d, b)
	}
	for i := range b.Readings {
		s.take(d, &b.Readings[i], stampOf(&b.Readings[i], rec), buffered)
	}
	if err := s.data(d); err != nil {
		return err
	}
	if !buffered {
		return s.bury(d)
	}
	return nil
}

// bear makes sure that the host knows of d what there is to know.
func (s *session) bear(d *device, changed bool) error {
	if d.born && !changed {
		return nil
	}
	var err error
	if d == s.n.self {
		err = s.birth() // NBIRTH is followed by all DBIRTHs
	} else {
		err = s.deviceBirth(d)
	}
	if errors.Is(err, client.ErrInvalid) {
		d.born = false
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	return err
}

func allLost(b *Batch) bool {
	for i := range b.Readings {
		if !lost(b.Readings[i].Quality) {
			return false
		}
	}
	return true
}

// catchUp puts the metrics into the list that the host knows from history only,
// before news of the same device.
func (s *session) catchUp(d *device, news *Batch) {
	if !d.behind {
		return
	}
	for _, m := range d.order {
		if m.behind && !slices.ContainsFunc(news.Readings, func(r Reading) bool { return r.Tag == m.name }) {
			s.list = append(s.list, entry{m: m, value: m.value, stamp: m.stamp, status: m.status, detail: m.detail})
			m.behind, m.told = false, m.stamp
		}
	}
	d.behind = false // those in news are decided by take
}

// take puts a reading into the list.
func (s *session) take(d *device, r *Reading, stamp int64, buffered bool) {
	m := d.metrics[r.Tag]
	e := entry{m: m, value: r.Value, stamp: stamp, status: r.Quality, detail: r.Detail, historical: buffered}
	if m.has && stamp < m.stamp {
		// It was overtaken, by a record of higher priority for instance: a host
		// must not go back to it.
		e.historical = true
	}
	s.list = append(s.list, e)
	s.update(d, m, r, stamp)
	if !e.historical {
		m.behind, m.told = false, stamp
	} else if m.stamp > m.told {
		m.behind = true
	}
	d.behind = d.behind || m.behind
}

func (s *session) update(d *device, m *metric, r *Reading, stamp int64) {
	if !m.has || stamp >= m.stamp {
		d.set(m, r, stamp)
	}
}

// data sends the list, in order of time
// (tck-id-operational-behavior-data-publish-dbirth-order), in as many messages
// as its size asks for.
func (s *session) data(d *device) error {
	if len(s.list) == 0 {
		return nil
	}
	slices.SortStableFunc(s.list, func(a, b entry) int { return cmp.Compare(a.stamp, b.stamp) })
	kind := ddata
	if d.name == "" {
		kind = ndata
	}
	now := s.wall()
	s.begin(now)
	for i := range s.list {
		before := len(s.buf)
		w := s.wire(&s.list[i])
		s.props = w.Properties[:0]
		s.buf = payload.AppendMetric(s.buf, &w)
		if len(s.buf) > s.o.MaxMessage && before > headerSize {
			s.buf = s.buf[:before]
			if err := s.publishData(kind, d.name); err != nil {
				return err
			}
			s.begin(now)
			s.buf = payload.AppendMetric(s.buf, &w)
		}
	}
	return s.publishData(kind, d.name)
}

// headerSize is the most that a message holds before its first metric.
const headerSize = 11

func (s *session) publishData(kind, device string) error {
	err := s.publish(kind, device)
	if errors.Is(err, client.ErrInvalid) {
		return fmt.Errorf("%w: %w", errRefused, err)
	}
	if err == nil {
		s.stats.data.Add(1)
	}
	return err
}

// bury sends the death of a device that lives and is out of reach.
func (s *session) bury(d *device) error {
	if !d.gone() {
		return nil
	}
	return s.deviceDeath(d)
}

func (s *session) deviceDeath(d *device) error {
	s.begin(s.wall())
	if err := s.publish(ddeath, d.name); err != nil {
		return err
	}
	d.born, d.dead = false, true
	s.stats.deviceDeaths.Add(1)
	return nil
}

// refresh tells the host the current values that it knows from history only,
// and which devices are out of reach. It is called when history has been told.
func (s *session) refresh() error {
	if err := s.refreshDevice(s.n.self); err != nil {
		return err
	}
	for _, d := range s.n.order {
		if err := s.refreshDevice(d); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) refreshDevice(d *device) error {
	if !d.born {
		return nil
	}
	s.list = s.list[:0]
	s.catchUp(d, &Batch{})
	if err := s.data(d); err != nil {
		return err
	}
	return s.bury(d)
}

// silent sends the death of the devices that nothing has come from for the
// given time, and returns when the next one may be due, 0 for never.
func (s *session) silent(elapsed, limit time.Duration) (next time.Duration, err error) {
	for _, d := range s.n.order {
		if !d.born {
			continue
		}
		if at := d.heard + limit; elapsed < at {
			if next == 0 || at < next {
				next = at
			}
			continue
		}
		if err := s.deviceDeath(d); err != nil {
			return 0, err
		}
	}
	return next, nil
}
