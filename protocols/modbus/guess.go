package modbus

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A Reading is one way to read registers: as a type in an order, what comes of
// it, and how plausible that is.
type Reading struct {
	Type  string `json:"type"`            // as a tag's type
	Order string `json:"order,omitempty"` // as the tag parameter order; "" for text and bits
	Value string `json:"value"`
	Score int    `json:"score"` // 0 means nothing to 100; of one register's readings only the comparison counts
}

// A Guess is what is known and thought of one register.
type Guess struct {
	Item   int       `json:"item"`
	Word   uint16    `json:"word"`
	Text   string    `json:"text"`             // its two bytes as ASCII, what cannot be printed as '.'
	Single []Reading `json:"single"`           // of this register: int16 and uint16
	Double []Reading `json:"double,omitempty"` // of this and the next: int32, uint32, float32 in all four orders
	Likely *Reading  `json:"likely,omitempty"` // the best of all, nil when the register is part of the value before it
}

// doubleOrders are the orders in which two registers can be read.
var doubleOrders = []string{"ABCD", "CDAB", "BADC", "DCBA"}

// maxTextGuess bounds the length of a guessed text, in registers.
const maxTextGuess = maxText / 2

// Interpret reads registers in all the ways that are common and says which is
// the most likely. Nothing but the values is known, so it is a guess: numbers of
// ordinary size and few digits, text that can be read, and one order of registers
// throughout a device are taken to be more likely. Items that are not there are left out.
func Interpret(items *Items) []Guess {
	var out []Guess
	for from := 0; from < len(items.Words); {
		if !items.There[from] {
			from++
			continue
		}
		to := from
		for to < len(items.Words) && items.There[to] {
			to++
		}
		out = append(out, interpretRun(items.From+from, items.Words[from:to], habit(items))...)
		from = to
	}
	return out
}

// habit returns the order that most of the plausible floating-point numbers of a
// device stand in, "" when there are too few to tell. Read one register too late,
// numbers in one order look like numbers in another; so the most plausible set of
// them counts, and that values of two registers mostly begin at even items.
func habit(items *Items) string {
	best, most := "", 0
	for _, name := range doubleOrders {
		o := mustOrder(name)
		n, sum := 0, 0
		for i := 0; i+1 < len(items.Words); i++ {
			if !items.There[i] || !items.There[i+1] {
				continue
			}
			if score := floatScore(bits32(items.Words[i:], o)); score >= 60 {
				n++
				sum += score + even(items.From+i)
				i++ // values do not overlap
			}
		}
		if n >= 2 && sum > most {
			best, most = name, sum
		}
	}
	return best
}

// even is what beginning at an even item is worth.
func even(item int) int { return 3 * (1 - item%2) }

func mustOrder(name string) order {
	o, err := parseOrder(name)
	if err != nil {
		panic(err) // the names stand above
	}
	return o
}

// bits32 joins two registers.
func bits32(words []uint16, o order) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint16(b[:], words[0])
	binary.BigEndian.PutUint16(b[2:], words[1])
	return uint32(o.load(b[:], 2))
}

// interpretRun reads registers that follow each other and chooses the readings
// that together are the most plausible and do not overlap.
func interpretRun(from int, words []uint16, habit string) []Guess {
	out := make([]Guess, len(words))
	type choice struct{ score, width int }
	best := make([]choice, len(words)+1) // of what begins here, and all after
	likely := make([]Reading, len(words))
	texts := findTexts(words, habit)
	for i := len(words) - 1; i >= 0; i-- {
		g := &out[i]
		g.Item, g.Word, g.Text = from+i, words[i], printable(words[i])
		g.Single = singleReadings(words[i])
		likely[i] = g.Single[0]
		best[i] = choice{best[i+1].score + g.Single[0].Score, 1}
		if i+1 < len(words) {
			g.Double = doubleReadings(words[i], words[i+1], habit)
			if score := best[i+2].score + 2*g.Double[0].Score + even(from+i); score > best[i].score {
				likely[i], best[i] = g.Double[0], choice{score, 2}
			}
		}
		if n := texts[i]; n > 0 {
			if score := best[i+n].score + n*textScore; score > best[i].score {
				likely[i], best[i] = textReading(words[i:i+n]), choice{score, n}
			}
		}
	}
	for i := 0; i < len(words); i += best[i].width {
		r := likely[i]
		out[i].Likely = &r
	}
	return out
}

// singleReadings returns the readings of one register, best first.
func singleReadings(w uint16) []Reading {
	signed := int16(w)
	u, s := 30, 25
	switch {
	case w == 0:
		u, s = 10, 9
	case w <= 10_000:
		u = 40
	case w == 0x7fff || w == 0x8000 || w == 0xffff: // what devices say when they have no value
		u, s = 6, 5
	case signed < 0 && signed >= -1000:
		u, s = 15, 42
	}
	out := []Reading{
		{Type: "uint16", Order: "ABCD", Value: strconv.Itoa(int(w)), Score: u},
		{Type: "int16", Order: "ABCD", Value: strconv.Itoa(int(signed)), Score: s},
	}
	if s > u {
		out[0], out[1] = out[1], out[0]
	}
	return out
}

// doubleReadings returns the readings of two registers, best first.
func doubleReadings(a, b uint16, habit string) []Reading {
	out := make([]Reading, 0, 3*len(doubleOrders))
	for _, name := range doubleOrders {
		v := bits32([]uint16{a, b}, mustOrder(name))
		f := math.Float32frombits(v)
		signed, unsigned := wholeScores(v)
		if a == 0 && b == 0 { // a zero says nothing by itself
			f, signed, unsigned = 0, 3, 4
		}
		add := func(typ, value string, score int) {
			switch {
			case habit != "" && habit != name:
				score -= 10
			case habit == name && typ == "float32":
				score += 15
			}
			out = append(out, Reading{Type: typ, Order: name, Value: value, Score: min(max(score, 0), 100)})
		}
		add("int32", strconv.Itoa(int(int32(v))), signed)
		add("uint32", strconv.FormatUint(uint64(v), 10), unsigned)
		add("float32", floatText(f), floatScore(v))
	}
	slices.SortStableFunc(out, func(x, y Reading) int { return y.Score - x.Score })
	return out
}

// floatText writes a number with the digits that a float32 has.
func floatText(f float32) string { return strconv.FormatFloat(float64(f), 'g', 6, 32) }

// floatScore says how plausible a bit pattern is as a floating-point number.
// Patterns that are none in truth have exponents all over the range.
func floatScore(v uint32) int {
	f := math.Float32frombits(v)
	size := math.Abs(float64(f))
	score := 0
	switch {
	case v == 0:
		return 5
	case size != size || math.IsInf(size, 0) || size < 1e-12 || v == 1<<31:
		return 0
	case size >= 1e-3 && size < 1e6:
		score = 60
	case size >= 1e-6 && size < 1e9:
		score = 25
	default:
		score = 3
	}
	switch digits := significant(f); {
	case digits <= 4:
		score += 25
	case digits <= 6:
		score += 10
	}
	return score
}

// significant returns the number of decimal digits that it takes to write f.
func significant(f float32) int {
	s := strconv.FormatFloat(math.Abs(float64(f)), 'e', -1, 32)
	mantissa, _, _ := strings.Cut(s, "e")
	return len(strings.ReplaceAll(mantissa, ".", ""))
}

// wholeScores says how plausible 32 bits are as one whole number and not as two
// of 16 bits: the high half is small, and the low half uses its range.
func wholeScores(v uint32) (signed, unsigned int) {
	high, low := v>>16, v&0xffff
	switch {
	case high == 0:
		return 24, 25
	case high <= 0xff && low >= 0x1000:
		return 37, 38 // less than that of two small numbers
	case high <= 0xfff && low >= 0x1000:
		return 29, 30
	case high == 0xffff && low >= 0x8000:
		return 46, 5
	case high <= 0xff:
		return 14, 15
	}
	return 4, 5
}

// textScore is the score of each register of a text.
const textScore = 88

// findTexts returns at each register how long a text is that begins there, in
// registers: at least four of them that can be printed, most of them letters and
// digits, perhaps padded with zeros. Floating-point numbers can look like that too;
// where all of it are such in the device's usual order, they win.
func findTexts(words []uint16, habit string) []int {
	out := make([]int, len(words))
	for from := 0; from < len(words); {
		to, letters := from, 0
		for to < len(words) && to-from < maxTextGuess && readable(words[to]) {
			letters += alphanumeric(byte(words[to]>>8)) + alphanumeric(byte(words[to]))
			to++
		}
		if n := to - from; n >= 4 && letters*10 >= n*2*6 && !floats(words[from:to], habit) {
			for to < len(words) && words[to] == 0 && to-from < maxTextGuess {
				to++ // padding
			}
			out[from] = to - from
		}
		from = max(to, from+1)
	}
	return out
}

// readable reports whether both bytes of a register can be printed, or the first
// one and then the text ends.
func readable(w uint16) bool {
	return isText(byte(w>>8)) && (isText(byte(w)) || byte(w) == 0)
}

func isText(c byte) bool { return c >= ' ' && c < 0x7f }

func alphanumeric(c byte) int {
	if c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || c == ' ' || c == 0 {
		return 1
	}
	return 0
}

// floats reports whether registers are plausible numbers in the usual order.
func floats(words []uint16, habit string) bool {
	if habit == "" {
		return false
	}
	o := mustOrder(habit)
	for i := 0; i+1 < len(words); i += 2 {
		if floatScore(bits32(words[i:], o)) < 60 {
			return false
		}
	}
	return true
}

func textReading(words []uint16) Reading {
	b := make([]byte, 0, 2*len(words))
	for _, w := range words {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	text, _, _ := strings.Cut(string(b), "\x00")
	return Reading{Type: fmt.Sprintf("string(%d)", 2*len(words)), Value: strconv.Quote(strings.TrimRight(text, " ")), Score: textScore}
}

func printable(w uint16) string {
	b := []byte{byte(w >> 8), byte(w)}
	for i, c := range b {
		if !isText(c) {
			b[i] = '.'
		}
	}
	return string(b)
}
