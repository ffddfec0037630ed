package commission

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"holdfast/cmd/internal/table"
	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// WriteUnits prints the units that a scan has found.
func WriteUnits(w io.Writer, width int, found []modbus.FoundUnit) {
	rows := make([][]string, len(found))
	for i, f := range found {
		rows[i] = []string{strconv.Itoa(int(f.Unit)), milliseconds(f.Took), f.Answer}
	}
	table.Write(w, width, []table.Column{{Title: "UNIT", Right: true}, {Title: "AFTER", Right: true}, {Title: "ANSWER", Give: true}}, rows)
}

var registerColumns = []table.Column{{Title: "ADDRESS"}, {Title: "NUMBER", Right: true}, {Title: "HEX"}, {Title: "UINT16", Right: true}, {Title: "INT16", Right: true},
	{Title: "TEXT"}, {Title: "FLOAT32 ABCD", Right: true}, {Title: "CDAB", Right: true}, {Title: "BADC", Right: true}, {Title: "DCBA", Right: true},
	{Title: "LIKELY", Give: true}}

// WriteRegisters prints registers in all the ways that they can be read, side by
// side, and the most likely one.
func WriteRegisters(w io.Writer, width int, t modbus.Table, guesses []modbus.Guess) {
	rows := make([][]string, len(guesses))
	for i := range guesses {
		g := &guesses[i]
		row := []string{addressOf(t, g.Item), numberOf(t, g.Item), fmt.Sprintf("%04x", g.Word), strconv.Itoa(int(g.Word)), strconv.Itoa(int(int16(g.Word))), g.Text}
		for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
			row = append(row, floatOf(g, order))
		}
		rows[i] = append(row, likely(g))
	}
	table.Write(w, width, registerColumns, rows)
}

// floatOf returns two registers as a floating-point number, "·" where it is none
// that anybody would measure.
func floatOf(g *modbus.Guess, order string) string {
	for _, r := range g.Double {
		if r.Type == "float32" && r.Order == order {
			if r.Score < 20 {
				return "·"
			}
			return r.Value
		}
	}
	return ""
}

func likely(g *modbus.Guess) string {
	r := g.Likely
	switch {
	case r == nil:
		return "│"
	case r.Order == "" || r.Order == "ABCD":
		return fmt.Sprintf("%s = %s (%d)", r.Type, r.Value, r.Score)
	}
	return fmt.Sprintf("%s %s = %s (%d)", r.Type, r.Order, r.Value, r.Score)
}

func addressOf(t modbus.Table, item int) string {
	return modbus.Address{Table: t, Item: uint16(item), Bit: -1}.String()
}

func numberOf(t modbus.Table, item int) string {
	return modbus.Address{Table: t, Item: uint16(item), Bit: -1}.Number()
}

// WriteDoubles prints for each place where two registers begin all twelve ways to
// read them, with how plausible each is.
func WriteDoubles(w io.Writer, width int, t modbus.Table, guesses []modbus.Guess) {
	columns := []table.Column{{Title: "ADDRESS"}, {Title: "AS"}, {Title: "ABCD", Right: true, Give: true}, {Title: "CDAB", Right: true, Give: true},
		{Title: "BADC", Right: true, Give: true}, {Title: "DCBA", Right: true, Give: true}}
	var rows [][]string
	for i := range guesses {
		g := &guesses[i]
		for k, typ := range []string{"int32", "uint32", "float32"} {
			row := []string{"", typ}
			if k == 0 {
				row[0] = addressOf(t, g.Item)
			}
			for _, order := range []string{"ABCD", "CDAB", "BADC", "DCBA"} {
				for _, r := range g.Double {
					if r.Type == typ && r.Order == order {
						row = append(row, fmt.Sprintf("%s (%d)", r.Value, r.Score))
					}
				}
			}
			if len(row) > 2 {
				rows = append(rows, row)
			}
		}
	}
	table.Write(w, width, columns, rows)
}

// WriteBits prints coils or discrete inputs, sixteen on a line.
func WriteBits(w io.Writer, width int, items *modbus.Items) {
	var rows [][]string
	for at := 0; at < len(items.Words); at += 16 {
		var b strings.Builder
		some := false
		for i := at; i < min(at+16, len(items.Words)); i++ {
			if i > at && (i-at)%4 == 0 {
				b.WriteByte(' ')
			}
			if !items.There[i] {
				b.WriteByte('-')
				continue
			}
			some = true
			b.WriteByte('0' + byte(items.Words[i]))
		}
		if some {
			rows = append(rows, []string{addressOf(items.Table, items.From+at), b.String()})
		}
	}
	table.Write(w, width, []table.Column{{Title: "ADDRESS"}, {Title: "THIS AND THE NEXT"}}, rows)
}

// Tags returns a tag for each likely value of registers, named after its place.
func Tags(t modbus.Table, guesses []modbus.Guess) []point.Tag {
	var out []point.Tag
	for i := range guesses {
		g := &guesses[i]
		if g.Likely == nil {
			continue
		}
		tag := point.Tag{Name: fmt.Sprintf("%s_%d", t, g.Item), Address: addressOf(t, g.Item), Type: g.Likely.Type, Comment: "guessed, was " + clean(g.Likely.Value)}
		if g.Likely.Order != "" && g.Likely.Order != "ABCD" {
			tag.Params = point.Params{"order": g.Likely.Order}
		}
		out = append(out, tag)
	}
	return out
}

func clean(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' {
			return ' '
		}
		return c
	}, s)
}

// BitTags returns a tag for each bit that is there.
func BitTags(items *modbus.Items) []point.Tag {
	var out []point.Tag
	for i, there := range items.There {
		if there {
			at := items.From + i
			out = append(out, point.Tag{Name: fmt.Sprintf("%s_%d", items.Table, at), Address: addressOf(items.Table, at)})
		}
	}
	return out
}
