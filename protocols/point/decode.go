package point

import (
	"encoding/base64"
	"fmt"
	"math"
	"strconv"
	"time"

	"holdfast/drivers/clock"
)

// DecodeBatch reads one batch in the wire encoding into b. Unknown keys are
// passed over, so that a newer sender can be read; everything else is strict:
// a key twice, a missing device or readings, an unknown quality, a value out of
// range or anything after the batch is an error that names its byte. Every reading
// comes out with a receive time, its own or the batch's.
//
// b's Readings are used again if they have room, and texts in them that are the
// same as before are kept, so that decoding a stream of batches of one device
// into the same b allocates little. What an earlier call returned in b's
// Readings must no longer be in use.
func DecodeBatch(data []byte, b *Batch) error {
	if len(data) > MaxEncoded {
		return fmt.Errorf("batch of %d bytes is longer than %d", len(data), MaxEncoded)
	}
	s := scanner{data: data}
	s.batch(b)
	if s.peek() != 0 || s.err == nil && s.pos < len(data) {
		s.fail("unexpected data after the batch")
	}
	if s.err != nil {
		return fmt.Errorf("batch: %w", s.err)
	}
	return nil
}

// ParseValue reads one value as it stands in a batch.
func ParseValue(data []byte) (Value, error) {
	s := scanner{data: data}
	v := s.value()
	if s.peek() != 0 || s.err == nil && s.pos < len(data) {
		s.fail("unexpected data after the value")
	}
	if s.err != nil {
		return Value{}, fmt.Errorf("value: %w", s.err)
	}
	return v, nil
}

// seen notes the keys of one object and fails on a second one.
func (s *scanner) once(seen *uint16, bit uint16, key string) {
	if *seen&bit != 0 {
		s.fail("key %q twice", key)
	}
	*seen |= bit
}

func (s *scanner) batch(b *Batch) {
	device, readings := b.Device, b.Readings
	*b = Batch{Readings: readings[:0]}
	var seen uint16
	s.expect('{')
	for first := true; s.next('}', &first); {
		switch key := s.key(); string(key) {
		case "device":
			s.once(&seen, 1, "device")
			b.Device = keep(device, s.text(MaxName))
		case "seq":
			s.once(&seen, 2, "seq")
			b.Sequence = s.natural()
		case "boot":
			s.once(&seen, 4, "boot")
			b.Boot = s.boot()
		case "time":
			s.once(&seen, 8, "time")
			b.Time = s.micros()
		case "clock":
			s.once(&seen, 16, "clock")
			b.Clock = s.clock()
		case "dropped":
			s.once(&seen, 32, "dropped")
			b.Dropped = s.natural()
		case "readings":
			s.once(&seen, 64, "readings")
			b.Readings = s.readings(readings)
		default:
			s.skip(0)
		}
	}
	if s.err == nil && seen&65 != 65 {
		s.fail("device or readings missing")
	}
	for i := range b.Readings {
		if r := &b.Readings[i]; r.Receive.IsZero() {
			r.Receive = b.Time
		}
	}
}

func (s *scanner) boot() uint64 {
	text := s.text(16)
	n, err := strconv.ParseUint(string(text), 16, 64)
	if s.err == nil && err != nil {
		s.fail("boot %q is not hexadecimal", text)
	}
	return n
}

func (s *scanner) micros() time.Time {
	us := s.integer(minMicros, maxMicros)
	if s.err != nil {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}

func (s *scanner) clock() clock.Quality {
	text := s.text(MaxName)
	for _, q := range [...]clock.Quality{clock.Synced, clock.Unsynced, clock.Stepped} {
		if string(text) == q.String() {
			return q
		}
	}
	s.fail("unknown clock quality %q", text)
	return clock.Unsynced
}

func (s *scanner) readings(old []Reading) []Reading {
	all, out := old[:cap(old)], old[:0]
	s.expect('[')
	for first := true; s.next(']', &first); {
		if len(out) == MaxReadings {
			s.fail("more than %d readings", MaxReadings)
			break
		}
		var before Reading
		if len(out) < len(all) {
			before = all[len(out)]
		}
		out = append(out, Reading{})
		s.reading(&out[len(out)-1], &before)
	}
	return out
}

// reading reads one reading into r; before is what stood in its place, whose
// texts are kept where they are the same.
func (s *scanner) reading(r, before *Reading) {
	var seen uint16
	s.expect('{')
	for first := true; s.next('}', &first); {
		switch key := s.key(); string(key) {
		case "tag":
			s.once(&seen, 1, "tag")
			r.Tag = keep(before.Tag, s.text(MaxName))
		case "value":
			s.once(&seen, 2, "value")
			r.Value = s.value()
		case "quality":
			s.once(&seen, 4, "quality")
			r.Quality = s.quality()
		case "detail":
			s.once(&seen, 8, "detail")
			r.Detail = keep(before.Detail, s.text(MaxDetail))
		case "source":
			s.once(&seen, 16, "source")
			r.Source = s.micros()
		case "time":
			s.once(&seen, 32, "time")
			r.Receive = s.micros()
		default:
			s.skip(0)
		}
	}
	if s.err == nil && seen&3 != 3 {
		s.fail("tag or value missing")
	}
}

// keep returns text as a string: old, if it is the same.
func keep(old string, text []byte) string {
	if old == string(text) {
		return old
	}
	return string(text)
}

func (s *scanner) quality() Quality {
	text := s.text(64)
	if q, ok := qualityByName()[string(text)]; ok {
		return q
	}
	q, err := ParseQuality(string(text))
	if s.err == nil && err != nil {
		s.fail("%w", err)
	}
	return q
}

func (s *scanner) value() Value {
	switch c := s.peek(); c {
	case 'n':
		s.literal("null")
		return Value{}
	case 't':
		s.literal("true")
		return BoolValue(true)
	case 'f':
		s.literal("false")
		return BoolValue(false)
	case '"':
		text := s.text(MaxValue)
		return StringValue(string(text))
	case '{':
		return s.special()
	}
	text, whole := s.number()
	if s.err != nil {
		return Value{}
	}
	v, err := numberValue(text, whole)
	if err != nil {
		s.fail("%w", err)
	}
	return v
}

// special reads {"float":"NaN"} and its like, and {"base64":"..."}.
func (s *scanner) special() Value {
	s.expect('{')
	key := string(s.key())
	v := Value{}
	switch key {
	case "float":
		v = s.notFinite()
	case "base64":
		v = s.base64()
	default:
		s.fail("unknown kind of value %q", key)
	}
	s.expect('}')
	return v
}

func (s *scanner) notFinite() Value {
	text := s.text(16)
	switch string(text) {
	case "NaN":
		return FloatValue(math.NaN())
	case "Infinity":
		return FloatValue(math.Inf(1))
	case "-Infinity":
		return FloatValue(math.Inf(-1))
	}
	s.fail("unknown float %q", text)
	return Value{}
}

func (s *scanner) base64() Value {
	text := s.text(base64.StdEncoding.EncodedLen(MaxValue))
	raw, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if s.err == nil && err != nil {
		s.fail("value is not base64: %w", err)
	}
	if len(raw) > MaxValue {
		s.fail("bytes longer than %d", MaxValue)
	}
	return BytesValue(raw)
}
