package payload

import (
	"encoding/binary"
	"math"
	"math/bits"
	"strconv"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// mask is a set of fields.
type mask uint32

func (m mask) has(f field) bool { return m&(1<<f) != 0 }

// batchFields are those that stand once in a batch.
const batchFields = mask(1<<fGateway | 1<<fPath | 1<<fDevice | 1<<fSeq | 1<<fBoot | 1<<fClock | 1<<fDropped)

// present returns the fields that have something to say. r is nil for the outer
// object of a batch; first says that r is the first reading of a batch.
func (e *Encoder) present(r *point.Reading, t Tag, first bool) (m mask) {
	set := func(f field, present bool) {
		if present && e.keys[f] != "" {
			m |= 1 << f
		}
	}
	b := &e.batch
	set(fGateway, e.o.Gateway != "")
	set(fPath, t.Path != "")
	set(fDevice, true)
	set(fSeq, true)
	set(fBoot, true)
	set(fClock, b.Clock != clock.Synced)
	set(fDropped, b.Dropped != 0 && first)
	if r == nil {
		set(fReadings, true)
		return m
	}
	set(fTag, true)
	set(fValue, true)
	set(fUnit, t.Unit != "")
	set(fClass, t.Class != "")
	set(fQuality, true)
	set(fDetail, r.Detail != "")
	set(fTime, !r.Receive.IsZero())
	set(fSource, !r.Source.IsZero())
	return m
}

// appendFlat appends one reading and what its batch says, as one object.
func (e *Encoder) appendFlat(dst []byte, i int) []byte {
	r := &e.batch.Readings[i]
	t := e.lookup(r.Tag)
	return e.appendObject(dst, e.present(r, t, i == 0), r, t)
}

// appendBatch appends the whole batch.
func (e *Encoder) appendBatch(dst []byte) []byte {
	t := e.lookup("")
	return e.appendObject(dst, e.present(nil, t, true), nil, t)
}

// appendObject appends the fields in m, in order.
func (e *Encoder) appendObject(dst []byte, m mask, r *point.Reading, t Tag) []byte {
	w := writer{e: e, b: dst}
	w.open(m)
	for f := field(0); f < fieldCount; f++ {
		if !m.has(f) {
			continue
		}
		w.key(f)
		switch f {
		case fGateway:
			w.text(e.o.Gateway)
		case fPath:
			w.text(t.Path)
		case fDevice:
			w.text(e.batch.Device)
		case fSeq:
			w.uint(e.batch.Sequence)
		case fBoot:
			w.hex16(e.batch.Boot)
		case fClock:
			w.text(e.batch.Clock.String())
		case fDropped:
			w.uint(e.batch.Dropped)
		case fTag:
			w.text(r.Tag)
		case fValue:
			w.value(r.Value)
		case fUnit:
			w.text(t.Unit)
		case fClass:
			w.text(t.Class)
		case fQuality:
			w.quality(r.Quality)
		case fDetail:
			w.text(r.Detail)
		case fTime:
			w.time(r.Receive)
		case fSource:
			w.time(r.Source)
		case fReadings:
			w.readings()
		}
	}
	w.close()
	return w.b
}

// A writer writes JSON or CBOR. In CBOR everything has a length that is known
// beforehand, so nothing needs closing.
type writer struct {
	e    *Encoder
	b    []byte
	rest bool // JSON: a comma comes before the next key
}

func (w *writer) cbor() bool { return w.e.o.Form == CBOR }

func (w *writer) open(m mask) {
	if w.cbor() {
		w.b = appendHead(w.b, cborMap, uint64(bits.OnesCount32(uint32(m))))
		return
	}
	w.b = append(w.b, '{')
}

func (w *writer) close() {
	if !w.cbor() {
		w.b = append(w.b, '}')
	}
}

func (w *writer) key(f field) {
	if w.cbor() {
		w.text(w.e.keys[f])
		return
	}
	if w.rest {
		w.b = append(w.b, ',')
	}
	w.rest = true
	w.b = append(w.b, w.e.jsons[f]...)
}

// readings writes the readings of the batch as an array of objects.
func (w *writer) readings() {
	e := w.e
	list := e.batch.Readings
	if w.cbor() {
		w.b = appendHead(w.b, cborArray, uint64(len(list)))
	} else {
		w.b = append(w.b, '[')
	}
	for i := range list {
		if i > 0 && !w.cbor() {
			w.b = append(w.b, ',')
		}
		r := &list[i]
		t := e.lookup(r.Tag)
		w.b = e.appendObject(w.b, e.present(r, t, false)&^batchFields, r, t)
	}
	if !w.cbor() {
		w.b = append(w.b, ']')
	}
}

func (w *writer) text(s string) {
	if w.cbor() {
		w.b = append(appendHead(w.b, cborText, uint64(len(s))), s...)
		return
	}
	w.b = appendJSONText(w.b, s)
}

func (w *writer) uint(n uint64) {
	if w.cbor() {
		w.b = appendHead(w.b, cborUint, n)
		return
	}
	w.b = strconv.AppendUint(w.b, n, 10)
}

func (w *writer) int(n int64) {
	if w.cbor() {
		w.b = appendCBORInt(w.b, n)
		return
	}
	w.b = strconv.AppendInt(w.b, n, 10)
}

// hex16 writes sixteen hexadecimal digits as text.
func (w *writer) hex16(n uint64) {
	var digits [16]byte
	for i := range digits {
		digits[i] = "0123456789abcdef"[n>>(60-4*i)&15]
	}
	if w.cbor() {
		w.b = append(appendHead(w.b, cborText, 16), digits[:]...)
		return
	}
	w.b = append(append(append(w.b, '"'), digits[:]...), '"')
}

func (w *writer) quality(q point.Quality) {
	if w.e.o.Qualities == Codes {
		w.uint(uint64(q))
		return
	}
	w.text(q.String())
}

func (w *writer) value(v point.Value) {
	if w.cbor() {
		w.b = appendCBORValue(w.b, v)
		return
	}
	w.b = point.AppendValue(w.b, v)
}

const (
	microsPerSecond = 1_000_000
	layout          = "2006-01-02T15:04:05.000000Z" // always six places, so that it sorts
)

func (w *writer) time(t time.Time) {
	us := t.UnixMicro()
	switch w.e.o.Times {
	case Micros:
		w.int(us)
	case Millis:
		w.int(floor(us, 1000))
	case Seconds:
		w.seconds(us)
	case RFC3339:
		w.rfc3339(t)
	}
}

// floor divides and rounds down, also before 1970.
func floor(n, by int64) int64 {
	q := n / by
	if n%by < 0 {
		q--
	}
	return q
}

// seconds writes a decimal with six places in JSON, a double in CBOR: both give
// the microsecond back when rounded to it.
func (w *writer) seconds(us int64) {
	if w.cbor() {
		w.b = binary.BigEndian.AppendUint64(append(w.b, cborFloat64), math.Float64bits(float64(us)/microsPerSecond))
		return
	}
	if us < 0 {
		w.b = append(w.b, '-')
		us = -us
	}
	w.b = strconv.AppendInt(w.b, us/microsPerSecond, 10)
	w.b = append(w.b, '.')
	n := us % microsPerSecond
	for by := int64(microsPerSecond / 10); by > 0; by /= 10 {
		w.b = append(w.b, byte('0'+n/by%10))
	}
}

// rfc3339 writes a text, which in CBOR has the tag of a date (RFC 8949, 3.4.1).
func (w *writer) rfc3339(t time.Time) {
	if w.cbor() {
		w.b = append(appendHead(w.b, cborTag, 0), cborText|24, byte(len(layout)))
		w.b = t.UTC().AppendFormat(w.b, layout)
		return
	}
	w.b = append(t.UTC().AppendFormat(append(w.b, '"'), layout), '"')
}

// appendJSONText appends a text as it stands in a batch. What point decodes is
// valid UTF-8; keys are made valid.
func appendJSONText(dst []byte, s string) []byte { return point.AppendValue(dst, point.StringValue(s)) }
