package point

import (
	"encoding/base64"
	"math"
	"strconv"
	"time"
	"unicode/utf8"

	"holdfast/drivers/clock"
)

// Limits of the wire encoding. The encoder keeps to them and the decoder
// refuses what does not.
const (
	MaxEncoded  = 16 << 20 // bytes of one batch
	MaxReadings = 65536    // readings of one batch
	MaxValue    = 1 << 20  // bytes of one String or Bytes value
	MaxDetail   = 1024     // bytes of one detail; longer ones are cut when encoding
)

// AppendBatch appends the wire encoding of b (FORMAT.md) to dst. It allocates
// nothing when dst has room. A value longer than MaxValue travels as Null with
// BadEncodingLimitsExceeded; bytes that are not UTF-8 in texts become U+FFFD; times
// are cut to the microsecond. The caller keeps to MaxReadings.
func AppendBatch(dst []byte, b *Batch) []byte {
	dst = append(dst, `{"device":`...)
	dst = appendString(dst, b.Device)
	dst = append(dst, `,"seq":`...)
	dst = strconv.AppendUint(dst, b.Sequence, 10)
	dst = append(dst, `,"boot":"`...)
	dst = appendHex16(dst, b.Boot)
	dst = append(dst, '"')
	batchTime, hasTime := micros(b.Time)
	if hasTime {
		dst = append(dst, `,"time":`...)
		dst = strconv.AppendInt(dst, batchTime, 10)
	}
	if b.Clock != 0 {
		dst = append(dst, `,"clock":`...)
		dst = appendString(dst, min(b.Clock, clock.Stepped).String())
	}
	if b.Dropped != 0 {
		dst = append(dst, `,"dropped":`...)
		dst = strconv.AppendUint(dst, b.Dropped, 10)
	}
	dst = append(dst, `,"readings":[`...)
	for i := range b.Readings {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendReading(dst, &b.Readings[i], batchTime, hasTime)
	}
	return append(dst, `]}`...)
}

func appendReading(dst []byte, r *Reading, batchTime int64, hasTime bool) []byte {
	dst = append(dst, `{"tag":`...)
	dst = appendString(dst, r.Tag)
	dst = append(dst, `,"value":`...)
	quality := r.Quality
	if len(r.Value.raw) > MaxValue {
		dst = append(dst, `null`...)
		quality = BadEncodingLimitsExceeded
	} else {
		dst = AppendValue(dst, r.Value)
	}
	if quality != Good {
		dst = append(dst, `,"quality":"`...)
		dst = appendQuality(dst, quality)
		dst = append(dst, '"')
	}
	if r.Detail != "" {
		dst = append(dst, `,"detail":`...)
		dst = appendString(dst, cut(r.Detail, MaxDetail))
	}
	if us, ok := micros(r.Source); ok {
		dst = append(dst, `,"source":`...)
		dst = strconv.AppendInt(dst, us, 10)
	}
	if us, ok := micros(r.Receive); ok && (!hasTime || us != batchTime) {
		dst = append(dst, `,"time":`...)
		dst = strconv.AppendInt(dst, us, 10)
	}
	return append(dst, '}')
}

// The microseconds since 1970 of the years 1 (but not its first instant, which
// is Go's zero time) to 9999: what the encoding can carry.
const (
	minMicros = -62135596799999999
	maxMicros = 253402300799999999
)

// micros returns t in microseconds since 1970 and whether it can travel.
func micros(t time.Time) (int64, bool) {
	if t.IsZero() {
		return 0, false
	}
	if sec := t.Unix(); sec < minMicros/1_000_000-1 || sec > maxMicros/1_000_000 { // else UnixMicro may wrap
		return 0, false
	}
	us := t.UnixMicro()
	return us, us >= minMicros && us <= maxMicros
}

// AppendValue appends one value as it stands in a batch.
func AppendValue(dst []byte, v Value) []byte {
	switch v.kind {
	case Bool:
		return strconv.AppendBool(dst, v.num == 1)
	case Int:
		return strconv.AppendInt(dst, int64(v.num), 10)
	case Uint:
		return strconv.AppendUint(dst, v.num, 10)
	case Float32:
		return appendFloat(dst, float64(math.Float32frombits(uint32(v.num))), 32)
	case Float:
		return appendFloat(dst, math.Float64frombits(v.num), 64)
	case String:
		return appendString(dst, v.raw)
	case Bytes:
		dst = append(dst, `{"base64":"`...)
		dst = base64.StdEncoding.AppendEncode(dst, v.raw)
		return append(dst, `"}`...)
	}
	return append(dst, `null`...)
}

// appendFloat appends the shortest decimal that gives the same number of the
// given size, always with '.' or 'e', so that it stays a float when read.
func appendFloat(dst []byte, f float64, bits int) []byte {
	if bits == 64 {
		if short, ok := appendShort(dst, f); ok {
			return short
		}
	}
	abs := math.Abs(f)
	switch {
	case f != f:
		return append(dst, `{"float":"NaN"}`...)
	case math.IsInf(f, 1):
		return append(dst, `{"float":"Infinity"}`...)
	case math.IsInf(f, -1):
		return append(dst, `{"float":"-Infinity"}`...)
	case abs != 0 && (abs < 1e-6 || abs >= 1e21):
		return strconv.AppendFloat(dst, f, 'e', -1, bits)
	}
	start := len(dst)
	dst = strconv.AppendFloat(dst, f, 'f', -1, bits)
	for _, c := range dst[start:] {
		if c == '.' {
			return dst
		}
	}
	return append(dst, '.', '0')
}

// appendShort appends f if it is a decimal of at most six places and at most
// fifteen digits. Any two such decimals are different doubles, and the quotient
// below is rounded correctly, so if it gives f back, the digits are f's
// shortest form. Most field values are of this kind, and this takes a third of
// the time of the general algorithm.
func appendShort(dst []byte, f float64) ([]byte, bool) {
	const places = 1e6
	scaled := f * places
	if !(scaled > -1e15 && scaled < 1e15) {
		return dst, false
	}
	n := int64(math.RoundToEven(scaled))
	if float64(n)/places != f || n == 0 { // zero has a sign
		return dst, false
	}
	if n < 0 {
		dst = append(dst, '-')
		n = -n
	}
	dst = strconv.AppendInt(dst, n/places, 10)
	part := uint32(n % places)
	if part == 0 {
		return append(dst, '.', '0'), true
	}
	var digits [6]byte
	end := 0
	for i := 5; i >= 0; i-- {
		digits[i] = byte('0' + part%10)
		part /= 10
		if end == 0 && digits[i] != '0' {
			end = i + 1
		}
	}
	dst = append(dst, '.')
	return append(dst, digits[:end]...), true
}

func appendHex16(dst []byte, n uint64) []byte {
	const hex = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, hex[n>>shift&15])
	}
	return dst
}

func appendQuality(dst []byte, q Quality) []byte {
	if name := q.name(); name != "" {
		return append(dst, name...)
	}
	const hex = "0123456789ABCDEF"
	dst = append(dst, "0x"...)
	for shift := 28; shift >= 0; shift -= 4 {
		dst = append(dst, hex[q>>shift&15])
	}
	return dst
}

// cut shortens s to at most n bytes without breaking a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// appendString appends s as a JSON string. Only what must be escaped is.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst = append(dst, '"')
	start := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= 0x20 && c < utf8.RuneSelf && c != '"' && c != '\\' {
			i++
			continue
		}
		if c >= utf8.RuneSelf {
			r, size := decodeRune(s[i:])
			if r == utf8.RuneError && size == 1 {
				dst = append(dst, s[start:i]...)
				dst = append(dst, "\uFFFD"...)
				start = i + 1
			}
			i += size
			continue
		}
		dst = append(dst, s[start:i]...)
		dst = appendEscape(dst, c)
		i++
		start = i
	}
	dst = append(dst, s[start:]...)
	return append(dst, '"')
}

func appendEscape(dst []byte, c byte) []byte {
	const hex = "0123456789abcdef"
	switch c {
	case '"', '\\':
		return append(dst, '\\', c)
	case '\n':
		return append(dst, '\\', 'n')
	case '\r':
		return append(dst, '\\', 'r')
	case '\t':
		return append(dst, '\\', 't')
	}
	return append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
}

func decodeRune[T string | []byte](s T) (rune, int) {
	n := min(len(s), utf8.UTFMax)
	var b [utf8.UTFMax]byte
	copy(b[:], s[:n])
	return utf8.DecodeRune(b[:n])
}
