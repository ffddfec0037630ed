package modbus

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// A Table is one of the four tables of the Modbus data model (AP 4.3).
type Table uint8

// The tables. Their order is that of the leading digits 0, 1, 3, 4.
const (
	Coil     Table = iota // bits, read and written
	Discrete              // bits, read only
	Input                 // registers, read only
	Holding               // registers, read and written
)

var tableNames = [...]string{Coil: "coil", Discrete: "discrete", Input: "input", Holding: "holding"}

// String returns coil, discrete, input or holding.
func (t Table) String() string {
	if int(t) < len(tableNames) {
		return tableNames[t]
	}
	return "table " + strconv.Itoa(int(t))
}

// Bits reports whether the table holds bits, not registers.
func (t Table) Bits() bool { return t <= Discrete }

// Writable reports whether the table can be written.
func (t Table) Writable() bool { return t == Coil || t == Holding }

// An Address is an item of a table, counted from 0 as on the wire, and for
// registers possibly one bit of it.
type Address struct {
	Table Table
	Item  uint16
	Bit   int8 // 0 (least significant) to 15, or -1 for the whole item
}

// String returns the canonical notation: table:item or table:item.bit, decimal,
// counted from 0. ParseAddress reads it back.
func (a Address) String() string {
	s := a.Table.String() + ":" + strconv.Itoa(int(a.Item))
	if a.Bit >= 0 {
		s += "." + strconv.Itoa(int(a.Bit))
	}
	return s
}

// Number returns the six-digit data model number, counted from 1, with the bit
// if there is one: 400101 for holding:100.
func (a Address) Number() string {
	digit := [...]int{Coil: 0, Discrete: 1, Input: 3, Holding: 4}[a.Table]
	s := fmt.Sprintf("%06d", digit*100000+int(a.Item)+1)
	if a.Bit >= 0 {
		s += "." + strconv.Itoa(int(a.Bit))
	}
	return s
}

var tablePrefixes = []struct {
	name  string
	table Table
}{
	{"holding", Holding}, {"input", Input}, {"coil", Coil}, {"discrete", Discrete},
	{"hr", Holding}, {"ir", Input}, {"co", Coil}, {"di", Discrete},
}

// ParseAddress reads an address in any of the notations of the package comment.
// An error says what is wrong with the text, and the nearest table name when
// that is what is unknown.
func ParseAddress(text string) (Address, error) {
	a, err := parseAddress(strings.TrimSpace(text))
	if err != nil {
		return Address{}, fmt.Errorf("address %q: %w", text, err)
	}
	return a, nil
}

func parseAddress(s string) (Address, error) {
	if s == "" {
		return Address{}, errors.New("is empty")
	}
	a := Address{Bit: -1}
	if name, rest, found := strings.Cut(s, ":"); found {
		table, err := parseTable(name)
		if err != nil {
			return Address{}, err
		}
		a.Table = table
		item, bit, hasBit := strings.Cut(rest, ".")
		n, err := parseItem(item)
		if err != nil {
			return Address{}, err
		}
		a.Item = n
		return withBit(a, bit, hasBit)
	}
	number, bit, hasBit := strings.Cut(s, ".")
	a, err := parseNumber(number)
	if err != nil {
		return Address{}, err
	}
	return withBit(a, bit, hasBit)
}

func parseTable(name string) (Table, error) {
	lower := strings.ToLower(name)
	known := make([]string, len(tablePrefixes))
	for i, p := range tablePrefixes {
		if p.name == lower {
			return p.table, nil
		}
		known[i] = p.name
	}
	return 0, fmt.Errorf("unknown table %q%s", name, didYouMean(lower, known))
}

// parseItem reads an item counted from 0, decimal or 0x hexadecimal.
func parseItem(s string) (uint16, error) {
	digits, base := s, 10
	if len(s) > 2 && (s[:2] == "0x" || s[:2] == "0X") {
		digits, base = s[2:], 16
	}
	if digits == "" || digits[0] == '+' || digits[0] == '-' {
		return 0, fmt.Errorf("item %q is not a number from 0 to 65535", s)
	}
	n, err := strconv.ParseUint(digits, base, 16)
	if err != nil {
		return 0, fmt.Errorf("item %q is not a number from 0 to 65535", s)
	}
	return uint16(n), nil
}

// parseNumber reads a data model number: a leading digit for the table, then
// four or five digits counted from 1.
func parseNumber(s string) (Address, error) {
	if len(s) != 5 && len(s) != 6 {
		return Address{}, fmt.Errorf("%q has neither a table before a colon nor five or six digits", s)
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return Address{}, fmt.Errorf("%q is not a number of five or six digits", s)
		}
	}
	a := Address{Bit: -1}
	switch s[0] {
	case '0':
		a.Table = Coil
	case '1':
		a.Table = Discrete
	case '3':
		a.Table = Input
	case '4':
		a.Table = Holding
	default:
		return Address{}, fmt.Errorf("%q begins with none of 0 (coil), 1 (discrete), 3 (input), 4 (holding)", s)
	}
	n, err := strconv.Atoi(s[1:])
	if err != nil || n < 1 || n > 65536 {
		return Address{}, fmt.Errorf("%q: the part after the first digit counts from 1 to 65536", s)
	}
	a.Item = uint16(n - 1)
	return a, nil
}

func withBit(a Address, bit string, has bool) (Address, error) {
	if !has {
		return a, nil
	}
	if a.Table.Bits() {
		return Address{}, fmt.Errorf("a %s has no bit %q", a.Table, bit)
	}
	if len(bit) == 0 || len(bit) > 2 || bit[0] == '+' || bit[0] == '-' {
		return Address{}, fmt.Errorf("bit %q is not a number from 0 to 15", bit)
	}
	n, err := strconv.Atoi(bit)
	if err != nil || n > 15 {
		return Address{}, fmt.Errorf("bit %q is not a number from 0 to 15", bit)
	}
	a.Bit = int8(n)
	return a, nil
}
