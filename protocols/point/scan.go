package point

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strconv"
	"unicode/utf8"
)

// scanner reads JSON from a byte slice without reflection. After an error it
// stays where it is and every method returns at once.
type scanner struct {
	data []byte
	pos  int
	err  error
	buf  []byte // unescaped text of the last string that had escapes
}

// maxDepth bounds the nesting of what is skipped.
const maxDepth = 64

func (s *scanner) fail(format string, args ...any) {
	if s.err == nil {
		s.err = fmt.Errorf("byte %d: %w", s.pos, fmt.Errorf(format, args...))
	}
}

// peek skips white space and returns the next byte, 0 at the end or after an
// error.
func (s *scanner) peek() byte {
	for s.err == nil && s.pos < len(s.data) {
		switch c := s.data[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

func (s *scanner) expect(c byte) {
	if s.peek() != c || c == 0 {
		s.unexpected(fmt.Sprintf("%q", c))
		return
	}
	s.pos++
}

func (s *scanner) unexpected(want string) {
	if s.pos >= len(s.data) {
		s.fail("unexpected end, want %s", want)
		return
	}
	s.fail("unexpected %q, want %s", s.data[s.pos], want)
}

// next prepares for the next member of an object or array that ends with
// closer, and reports whether there is one. first is true before the first.
func (s *scanner) next(closer byte, first *bool) bool {
	c := s.peek()
	if s.err != nil {
		return false
	}
	if c == closer {
		s.pos++
		return false
	}
	if !*first {
		s.expect(',')
		if s.peek() == closer {
			s.unexpected("a member after ','")
		}
	}
	*first = false
	return s.err == nil
}

// key reads the name of an object's member and its colon.
func (s *scanner) key() []byte {
	k := s.text(MaxName)
	s.expect(':')
	return k
}

// text reads a string of at most limit bytes. The result is valid until the
// next string is read or the data change.
func (s *scanner) text(limit int) []byte {
	s.expect('"')
	if s.err != nil {
		return nil
	}
	start := s.pos
	ascii := true
	for s.pos < len(s.data) {
		c := s.data[s.pos]
		if c == '"' {
			out := s.data[start:s.pos]
			s.pos++
			return s.checked(out, limit, ascii)
		}
		if c == '\\' {
			return s.escaped(start, limit)
		}
		if c < 0x20 {
			break
		}
		if c >= utf8.RuneSelf {
			ascii = false
		}
		s.pos++
	}
	s.unexpected("the end of a string")
	return nil
}

func (s *scanner) checked(out []byte, limit int, ascii bool) []byte {
	if len(out) > limit {
		s.fail("string longer than %d bytes", limit)
		return nil
	}
	if !ascii && !utf8.Valid(out) {
		s.fail("string is not UTF-8")
		return nil
	}
	return out
}

// escaped reads the rest of a string from its first backslash on.
func (s *scanner) escaped(start, limit int) []byte {
	s.buf = append(s.buf[:0], s.data[start:s.pos]...)
	for s.pos < len(s.data) && len(s.buf) <= limit {
		c := s.data[s.pos]
		switch {
		case c == '"':
			s.pos++
			return s.checked(s.buf, limit, false)
		case c == '\\':
			s.pos++
			s.escape()
			if s.err != nil {
				return nil
			}
		case c < 0x20:
			s.unexpected("the end of a string")
			return nil
		default:
			s.buf = append(s.buf, c)
			s.pos++
		}
	}
	if len(s.buf) > limit {
		s.fail("string longer than %d bytes", limit)
	} else {
		s.unexpected("the end of a string")
	}
	return nil
}

func (s *scanner) escape() {
	if s.pos >= len(s.data) {
		s.unexpected("an escape")
		return
	}
	c := s.data[s.pos]
	s.pos++
	if i := bytes.IndexByte([]byte(`"\/bfnrt`), c); i >= 0 {
		s.buf = append(s.buf, "\"\\/\b\f\n\r\t"[i])
		return
	}
	if c != 'u' {
		s.pos--
		s.unexpected("an escape")
		return
	}
	r := s.hex4()
	if r >= 0xDC00 && r < 0xE000 {
		s.fail("lone surrogate")
		return
	}
	if r >= 0xD800 && r < 0xDC00 {
		if s.pos+2 > len(s.data) || s.data[s.pos] != '\\' || s.data[s.pos+1] != 'u' {
			s.fail("lone surrogate")
			return
		}
		s.pos += 2
		low := s.hex4()
		if low < 0xDC00 || low >= 0xE000 {
			s.fail("lone surrogate")
			return
		}
		r = 0x10000 + (r-0xD800)<<10 + (low - 0xDC00)
	}
	s.buf = utf8.AppendRune(s.buf, r)
}

func (s *scanner) hex4() rune {
	if s.pos+4 > len(s.data) {
		s.fail("unexpected end in an escape")
		return 0
	}
	var r rune
	for _, c := range s.data[s.pos : s.pos+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			s.fail("bad escape")
			return 0
		}
	}
	s.pos += 4
	return r
}

// number reads the text of a JSON number and whether it is a whole one without
// fraction or exponent.
func (s *scanner) number() (text []byte, whole bool) {
	s.peek()
	start := s.pos
	digits := func() int {
		from := s.pos
		for s.pos < len(s.data) && s.data[s.pos] >= '0' && s.data[s.pos] <= '9' {
			s.pos++
		}
		return s.pos - from
	}
	at := func(set string) bool {
		return s.pos < len(s.data) && bytes.IndexByte([]byte(set), s.data[s.pos]) >= 0
	}
	if at("-") {
		s.pos++
	}
	first := s.pos
	n := digits()
	if n == 0 || n > 1 && s.data[first] == '0' {
		s.unexpected("a number")
		return nil, false
	}
	whole = true
	if at(".") {
		s.pos++
		whole = false
		if digits() == 0 {
			s.unexpected("a digit")
		}
	}
	if at("eE") {
		s.pos++
		whole = false
		if at("+-") {
			s.pos++
		}
		if digits() == 0 {
			s.unexpected("a digit")
		}
	}
	if s.err != nil {
		return nil, false
	}
	return s.data[start:s.pos], whole
}

// natural reads a whole number from 0 to 2^64-1.
func (s *scanner) natural() uint64 {
	text, whole := s.number()
	if s.err != nil {
		return 0
	}
	n, ok := parseNatural(text)
	if !whole || !ok {
		s.fail("%q is not a whole number from 0 to 2^64-1", text)
	}
	return n
}

// integer reads a whole number from low to high, which are representable.
func (s *scanner) integer(low, high int64) int64 {
	text, whole := s.number()
	if s.err != nil {
		return 0
	}
	v, err := numberValue(text, whole)
	if err != nil || v.kind != Int || v.Int() < low || v.Int() > high {
		s.fail("%q is not a whole number in range", text)
	}
	return v.Int()
}

func parseNatural(text []byte) (n uint64, ok bool) {
	if len(text) == 0 || len(text) > 20 {
		return 0, false
	}
	for _, c := range text {
		d := uint64(c - '0')
		if d > 9 || n > math.MaxUint64/10 || n*10 > math.MaxUint64-d {
			return 0, false
		}
		n = n*10 + d
	}
	return n, true
}

// numberValue turns the text of a JSON number into a value.
func numberValue(text []byte, whole bool) (Value, error) {
	if !whole {
		f, err := strconv.ParseFloat(string(text), 64)
		if err != nil {
			return Value{}, fmt.Errorf("number %.40q is beyond a double", text)
		}
		return FloatValue(f), nil
	}
	negative := text[0] == '-'
	if negative {
		text = text[1:]
	}
	n, ok := parseNatural(text)
	switch {
	case !ok || negative && n > 1<<63:
		return Value{}, fmt.Errorf("integer %.40q is beyond 64 bits", text)
	case negative:
		return IntValue(-int64(n)), nil
	}
	return UintValue(n), nil
}

var errLiteral = errors.New("unknown literal")

func (s *scanner) literal(word string) {
	if s.err == nil && len(s.data)-s.pos >= len(word) && string(s.data[s.pos:s.pos+len(word)]) == word {
		s.pos += len(word)
		return
	}
	s.fail("%w", errLiteral)
}

// skip passes over one value of any kind.
func (s *scanner) skip(depth int) {
	if depth > maxDepth {
		s.fail("nested deeper than %d", maxDepth)
		return
	}
	switch c := s.peek(); c {
	case '{':
		s.pos++
		for first := true; s.next('}', &first); {
			s.key()
			s.skip(depth + 1)
		}
	case '[':
		s.pos++
		for first := true; s.next(']', &first); {
			s.skip(depth + 1)
		}
	case '"':
		s.text(MaxEncoded)
	case 't':
		s.literal("true")
	case 'f':
		s.literal("false")
	case 'n':
		s.literal("null")
	default:
		s.number()
	}
}
