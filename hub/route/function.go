package route

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
	"unsafe"
)

// A function can be called in a condition. An argument of another type than it
// wants makes the result undefined; do is not called then.
type function struct {
	name        string
	least, most int
	args        []kind // the last one stands for all that follow
	result      kind
	do          func(s *Scratch, a []value) value
	refused     string // why it cannot be used, instead of do
}

func (f *function) arg(i int) kind { return f.args[min(i, len(f.args)-1)] }

func (f *function) arity() string {
	switch {
	case f.least == f.most && f.least == 1:
		return "1 argument"
	case f.least == f.most:
		return fmt.Sprintf("%d arguments", f.least)
	case f.most > 3:
		return fmt.Sprintf("at least %d arguments", f.least)
	}
	return fmt.Sprintf("%d or %d arguments", f.least, f.most)
}

func functionNamed(name string) *function {
	for i := range functions {
		if strings.EqualFold(functions[i].name, name) {
			return &functions[i]
		}
	}
	return nil
}

func functionNames() []string {
	var names []string
	for i := range functions {
		names = append(names, functions[i].name)
	}
	return names
}

var (
	oneNumber  = []kind{kindNumber}
	strings1   = []kind{kindString}
	oneAny     = []kind{kindAny}
	substrArgs = []kind{kindString, kindNumber, kindNumber}
)

// functions is never written to.
var functions = [...]function{
	math1("abs", math.Abs),
	math1("exp", math.Exp),
	math1("square", func(f float64) float64 { return f * f }),
	math1("ceiling", math.Ceil),
	math1("floor", math.Floor),
	math1("sign", sign),
	math1("sqrt", math.Sqrt),
	{name: "power", least: 2, most: 2, args: oneNumber, result: kindNumber,
		do: func(_ *Scratch, a []value) value { return number(math.Pow(a[0].n, a[1].n)) }},
	{name: "as_number", least: 1, most: 1, args: strings1, result: kindNumber, do: asNumber},
	test("is_bool", func(v value) bool { return v.k == kindBool }),
	test("is_defined", func(v value) bool { return v.k != kindUndefined }),
	test("is_null", func(v value) bool { return v.k == kindNull }),
	test("is_number", func(v value) bool { return v.k == kindNumber && !math.IsInf(v.n, 0) }),
	test("is_string", func(v value) bool { return v.k == kindString }),
	{name: "concat", least: 2, most: math.MaxInt, args: strings1, result: kindString, do: concat},
	{name: "length", least: 1, most: 1, args: strings1, result: kindNumber,
		do: func(_ *Scratch, a []value) value { return number(float64(units(a[0].s))) }},
	{name: "lower", least: 1, most: 1, args: strings1, result: kindString,
		do: func(_ *Scratch, a []value) value { return text(bytes.ToLower(a[0].s), true) }},
	{name: "upper", least: 1, most: 1, args: strings1, result: kindString,
		do: func(_ *Scratch, a []value) value { return text(bytes.ToUpper(a[0].s), true) }},
	{name: "substring", least: 2, most: 3, args: substrArgs, result: kindString, do: substring},
	{name: "index_of", least: 2, most: 2, args: strings1, result: kindNumber, do: indexOf},
	test2("starts_with", bytes.HasPrefix),
	test2("ends_with", bytes.HasSuffix),
	test2("contains", bytes.Contains),
	{name: "twin_change_includes", least: 1, most: 1, args: strings1, result: kindBool,
		refused: "cannot be used in a route that is written as text"},
}

func math1(name string, f func(float64) float64) function {
	return function{name: name, least: 1, most: 1, args: oneNumber, result: kindNumber,
		do: func(_ *Scratch, a []value) value { return number(f(a[0].n)) }}
}

func test(name string, f func(value) bool) function {
	return function{name: name, least: 1, most: 1, args: oneAny, result: kindBool,
		do: func(_ *Scratch, a []value) value { return boolean(f(a[0])) }}
}

func test2(name string, f func(s, part []byte) bool) function {
	return function{name: name, least: 2, most: 2, args: strings1, result: kindBool,
		do: func(_ *Scratch, a []value) value { return boolean(f(a[0].s, a[1].s)) }}
}

func sign(f float64) float64 {
	switch {
	case f > 0:
		return 1
	case f < 0:
		return -1
	}
	return f
}

// asNumber reads a decimal number; one beyond the range of a double is
// infinite.
func asNumber(_ *Scratch, a []value) value {
	if a[0].k == kindNumber {
		return a[0]
	}
	s := bytes.TrimSpace(a[0].s)
	for _, c := range s {
		// Not every word that ParseFloat knows is a number here.
		if !isDigit(c) && strings.IndexByte("+-.eE", c) < 0 {
			return undefined
		}
	}
	// The string is not kept, so it may share the message's memory.
	f, err := strconv.ParseFloat(unsafe.String(unsafe.SliceData(s), len(s)), 64)
	if err != nil && !math.IsInf(f, 0) {
		return undefined
	}
	return number(f)
}

func concat(s *Scratch, a []value) value {
	from := len(s.text)
	for _, v := range a {
		s.text = append(s.text, v.s...)
	}
	return value{k: kindString, s: s.text[from:len(s.text):len(s.text)]}
}

// Positions and lengths count UTF-16 code units, as they do in the original.

// units returns the length of b in UTF-16 code units.
func units(b []byte) int {
	n := 0
	for i := 0; i < len(b); {
		r, size := utf8.DecodeRune(b[i:])
		n += width(r)
		i += size
	}
	return n
}

func width(r rune) int {
	if r > 0xffff {
		return 2
	}
	return 1
}

// skipUnits returns the byte position n units into b; ok is false when b is
// shorter or n splits a character.
func skipUnits(b []byte, n int) (pos int, ok bool) {
	for n > 0 && pos < len(b) {
		r, size := utf8.DecodeRune(b[pos:])
		n -= width(r)
		pos += size
	}
	return pos, n == 0
}

// substring(s, i) and substring(s, i, n): undefined when out of range.
func substring(_ *Scratch, a []value) value {
	from, ok := a[0].s, inRange(a[1].n)
	if !ok {
		return undefined
	}
	start, ok := skipUnits(from, int(a[1].n))
	if !ok {
		return undefined
	}
	rest := from[start:]
	if len(a) == 2 {
		return text(rest, true)
	}
	if !inRange(a[2].n) {
		return undefined
	}
	end, ok := skipUnits(rest, int(a[2].n))
	if !ok {
		return undefined
	}
	return text(rest[:end], true)
}

func inRange(f float64) bool { return f >= 0 && f <= math.MaxInt32 }

func indexOf(_ *Scratch, a []value) value {
	i := bytes.Index(a[0].s, a[1].s)
	if i < 0 {
		return number(-1)
	}
	return number(float64(units(a[0].s[:i])))
}

// bytesOf returns the bytes of s without copying; nobody writes to them.
func bytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
