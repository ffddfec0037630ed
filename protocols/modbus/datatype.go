package modbus

import (
	"fmt"
	"strconv"
	"strings"
)

// kind is how a value is encoded in registers or bits.
type kind uint8

const (
	kindBool kind = iota
	kindInt8High
	kindUint8High
	kindInt8Low
	kindUint8Low
	kindInt16
	kindUint16
	kindInt32
	kindUint32
	kindInt64
	kindUint64
	kindFloat16
	kindFloat32
	kindFloat64
	kindBCD16
	kindBCD32
	kindString
	kindBytes
)

// kinds lists the type names that take no length, with the registers of each.
var kinds = []struct {
	name  string
	kind  kind
	words int
}{
	{"bool", kindBool, 1},
	{"int8h", kindInt8High, 1}, {"uint8h", kindUint8High, 1},
	{"int8l", kindInt8Low, 1}, {"uint8l", kindUint8Low, 1},
	{"int16", kindInt16, 1}, {"uint16", kindUint16, 1},
	{"int32", kindInt32, 2}, {"uint32", kindUint32, 2},
	{"int64", kindInt64, 4}, {"uint64", kindUint64, 4},
	{"float16", kindFloat16, 1}, {"float32", kindFloat32, 2}, {"float64", kindFloat64, 4},
	{"bcd16", kindBCD16, 1}, {"bcd32", kindBCD32, 2},
}

// maxText is the longest string or bytes value: 125 registers, the most that
// one request reads (AP 6.3).
const maxText = 250

// dataType is a kind with its size.
type dataType struct {
	kind  kind
	words int // registers
	bytes int // length of a string or bytes value
}

// parseType reads a tag's type; "" is the default of the address.
func parseType(text string, a Address) (dataType, error) {
	s := strings.ToLower(strings.TrimSpace(text))
	if s == "" {
		if a.Table.Bits() || a.Bit >= 0 {
			return dataType{kind: kindBool, words: 1}, nil
		}
		return dataType{kind: kindUint16, words: 1}, nil
	}
	t, err := lookupType(s)
	if err != nil {
		return dataType{}, fmt.Errorf("type %q: %w", text, err)
	}
	bit := a.Table.Bits() || a.Bit >= 0
	switch {
	case bit && t.kind != kindBool:
		return dataType{}, fmt.Errorf("type %q: %s is a bit, its type is bool", text, a)
	case !bit && t.kind == kindBool:
		return dataType{}, fmt.Errorf("type %q: %s is a register; name the bit, such as %s.0", text, a, a)
	case !bit && int(a.Item)+t.words > 65536:
		return dataType{}, fmt.Errorf("type %q: %d registers from %s reach beyond 65535", text, t.words, a)
	}
	return t, nil
}

func lookupType(s string) (dataType, error) {
	if name, rest, found := strings.Cut(s, "("); found && (name == "string" || name == "bytes") {
		digits, closed := strings.CutSuffix(rest, ")")
		n, err := strconv.Atoi(digits)
		if !closed || err != nil || n < 1 || n > maxText {
			return dataType{}, fmt.Errorf("the length is a number of bytes from 1 to %d, such as %s(16)", maxText, name)
		}
		t := dataType{kind: kindString, words: (n + 1) / 2, bytes: n}
		if name == "bytes" {
			t.kind = kindBytes
		}
		return t, nil
	}
	known := []string{"string(16)", "bytes(16)"}
	for _, k := range kinds {
		if k.name == s {
			return dataType{kind: k.kind, words: k.words}, nil
		}
		known = append(known, k.name)
	}
	if s == "string" || s == "bytes" {
		return dataType{}, fmt.Errorf("needs a length in bytes, such as %s(16)", s)
	}
	return dataType{}, fmt.Errorf("is unknown%s", didYouMean(s, known))
}

// order is how a number's bytes stand in registers: any mix of the two swaps.
type order struct {
	words bool // least significant register first
	bytes bool // least significant byte first within each register
}

var orders = []struct {
	name  string
	order order
}{
	{"ABCD", order{}}, {"DCBA", order{words: true, bytes: true}},
	{"BADC", order{bytes: true}}, {"CDAB", order{words: true}},
	{"ABCDEFGH", order{}}, {"HGFEDCBA", order{words: true, bytes: true}},
	{"BADCFEHG", order{bytes: true}}, {"GHEFCDAB", order{words: true}},
	{"AB", order{}}, {"BA", order{bytes: true}},
}

func parseOrder(text string) (order, error) {
	s := strings.ToUpper(strings.TrimSpace(text))
	known := make([]string, len(orders))
	for i, o := range orders {
		if o.name == s {
			return o.order, nil
		}
		known[i] = o.name
	}
	return order{}, fmt.Errorf("order %q is none of ABCD, DCBA, BADC, CDAB, their eight-letter forms, AB, BA%s",
		text, didYouMean(s, known))
}
