package route

import (
	"bytes"
	bin "encoding/binary"
	"encoding/json"
	"unicode/utf16"
)

type bodyState uint8

const (
	bodyUnread  bodyState = iota
	bodyParsed            // root is the document, an object
	bodyInvalid           // not JSON by its properties, malformed, or no object
)

// eval finds the value in the body: undefined when the body cannot be asked or
// the place holds an object or array, null when there is nothing at the place.
func (n *bodyPath) eval(s *Scratch) value {
	if !s.document() {
		return undefined
	}
	v, _ := s.find(n.steps)
	switch v := v.(type) {
	case nil:
		return value{k: kindNull}
	case bool:
		return boolean(v)
	case float64:
		return number(v)
	case string:
		return value{k: kindString, s: bytesOf(v)}
	}
	return undefined
}

// find follows steps into the document.
func (s *Scratch) find(steps []step) (v any, found bool) {
	if !s.document() {
		return nil, false
	}
	v = s.root
	for _, st := range steps {
		switch at := v.(type) {
		case map[string]any:
			if v, found = at[st.key]; !found || st.key == "" {
				return nil, false
			}
		case []any:
			if st.key != "" || st.index >= len(at) {
				return nil, false
			}
			v = at[st.index]
		default:
			return nil, false
		}
	}
	return v, true
}

// document parses the body on the first call for a message.
func (s *Scratch) document() bool {
	if s.body == bodyUnread {
		s.body = bodyInvalid
		if b, ok := s.jsonText(); ok && json.Unmarshal(b, &s.root) == nil {
			if _, ok := s.root.(map[string]any); ok {
				s.body = bodyParsed
			}
		}
	}
	return s.body == bodyParsed
}

// jsonText returns the body as UTF-8 when its properties say that it is JSON in
// an encoding that routes can read.
func (s *Scratch) jsonText() ([]byte, bool) {
	contentType, _ := s.m.System("contentType")
	if !bytes.EqualFold(contentType, []byte("application/json")) {
		return nil, false
	}
	encoding, _ := s.m.System("contentEncoding")
	body := s.m.Body()
	switch {
	case bytes.EqualFold(encoding, []byte("utf-8")):
		return bytes.TrimPrefix(body, []byte("\xef\xbb\xbf")), true
	case bytes.EqualFold(encoding, []byte("utf-16")):
		return fromUTF16(body)
	case bytes.EqualFold(encoding, []byte("utf-32")):
		return fromUTF32(body)
	}
	return nil, false
}

// fromUTF16 converts UTF-16, little-endian unless a byte order mark says
// otherwise.
func fromUTF16(b []byte) ([]byte, bool) {
	if len(b)%2 != 0 {
		return nil, false
	}
	var order bin.ByteOrder = bin.LittleEndian
	if bytes.HasPrefix(b, []byte{0xfe, 0xff}) {
		order = bin.BigEndian
	}
	units := make([]uint16, 0, len(b)/2)
	for ; len(b) > 0; b = b[2:] {
		units = append(units, order.Uint16(b))
	}
	if len(units) > 0 && units[0] == 0xfeff {
		units = units[1:]
	}
	return []byte(string(utf16.Decode(units))), true
}

// fromUTF32 converts UTF-32, little-endian unless a byte order mark says
// otherwise.
func fromUTF32(b []byte) ([]byte, bool) {
	if len(b)%4 != 0 {
		return nil, false
	}
	var order bin.ByteOrder = bin.LittleEndian
	if bytes.HasPrefix(b, []byte{0, 0, 0xfe, 0xff}) {
		order = bin.BigEndian
	}
	runes := make([]rune, 0, len(b)/4)
	for ; len(b) > 0; b = b[4:] {
		runes = append(runes, rune(order.Uint32(b)))
	}
	if len(runes) > 0 && runes[0] == 0xfeff {
		runes = runes[1:]
	}
	return []byte(string(runes)), true
}
