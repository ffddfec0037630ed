package importer

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// readNeuron reads a tag list of Neuron for a Modbus driver that was saved as CSV.
// It makes a device for each station; where they are, is not in the list.
func readNeuron(in Input, o Options) (*Result, error) {
	n := &neuron{reader: reader{file: in.Name}, devices: names{}, stations: map[int]*Device{}, groups: map[string]bool{}}
	if n.base = o.Device; n.base == "" {
		n.base = baseName(in.Name)
	}
	if err := n.rows(in, []string{"name", "address", "type"}, n.row); err != nil {
		return nil, err
	}
	for _, d := range n.order {
		n.result.Devices = append(n.result.Devices, *d)
	}
	n.result.Notes = n.notes
	return &n.result, nil
}

type neuron struct {
	reader
	result   Result
	base     string
	devices  names
	stations map[int]*Device
	order    []*Device
	groups   map[string]bool // that were told about
}

func (n *neuron) row(w *row) {
	group, name := w.take("group"), w.take("name")
	station, f, err := neuronAddress(w.take("address"), w.take("type"))
	t := point.Tag{}
	if err == nil {
		err = f.address(&t)
	}
	if err != nil {
		n.lost(w.line, "tag "+name, "%v", err)
		clear(w.cells)
		return
	}
	n.access(w, &t, f.table)
	by, bias := w.number("decimal", 0), w.number("bias", 0)
	if number := f.typ != "" && !strings.HasPrefix(f.typ, "string"); number {
		factor(&t, by, bias)
	} else if by != 0 && by != 1 || bias != 0 {
		n.lost(w.line, "decimal, bias", "texts and bits have no scale")
	}
	w.drop("precision", "values are not rounded", "0")
	t.Comment = clearText(w.take("description"))
	t.Unit = clearText(w.take("unit"))
	if ms := w.number("interval", 0); ms > 0 && ms <= 1e9 {
		t.Class = n.result.class(time.Duration(ms * float64(time.Millisecond)))
	}
	d := n.station(station, w.line)
	better := ""
	if group != "" {
		better = group + "_" + name
		if !n.groups[group] {
			n.groups[group] = true
			n.changed(w.line, "group "+group, "tags are named by device and tag; how often they are read is said by scan classes")
		}
	}
	t.Name = n.named(d.names, w.line, "tag", name, tagName, better)
	d.add(t, w.line)
}

// station returns the device of a station.
func (n *neuron) station(unit, line int) *Device {
	if d := n.stations[unit]; d != nil {
		return d
	}
	given := n.base
	if len(n.stations) > 0 {
		given = fmt.Sprintf("%s-%d", n.base, unit)
	}
	d := &Device{Protocol: "modbus", Settings: map[string]any{"unit": int64(unit)}, names: names{}, line: line}
	d.Name = n.named(n.devices, line, "station", given, deviceName, "")
	n.stations[unit] = d
	n.order = append(n.order, d)
	return d
}

// access reads the attribute: words, or the sum of 1 read, 2 write, 4 subscribe.
func (n *neuron) access(w *row, t *point.Tag, table modbus.Table) {
	text := w.take("attribute")
	words := strings.FieldsFunc(strings.ToLower(text), func(c rune) bool { return strings.ContainsRune(" ,;/|&+", c) })
	if sum, err := strconv.Atoi(text); err == nil {
		words = nil
		for bit, word := range []string{"read", "write", "subscribe"} {
			if sum>>bit&1 == 1 {
				words = append(words, word)
			}
		}
	}
	write := slices.Contains(words, "write")
	read := slices.Contains(words, "read") || slices.Contains(words, "subscribe") || len(words) == 0
	switch {
	case write && !table.Writable():
		n.changed(w.line, "attribute", "the table %s cannot be written: the tag is read only", table)
	case write && read:
		t.Access = point.ReadWrite
	case write:
		t.Access = point.WriteOnly
	}
	if slices.Contains(words, "subscribe") {
		t.Dead = point.Deadband{Kind: point.OnChange}
	}
	for _, word := range words {
		if word != "read" && word != "write" && word != "subscribe" && word != "static" {
			n.lost(w.line, "attribute", "%q is not known", word)
		}
	}
}

var neuronTypes = map[string]string{
	"INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
	"FLOAT": "float32", "DOUBLE": "float64",
}

// neuronOrders says in which order #ENDIAN puts the bytes of a value, the most
// significant being 1.
var neuronOrders = map[string]string{"": "", "L": "", "B": "BA", "LL": "", "LB": "BADC", "BL": "CDAB", "BB": "DCBA"}

// neuronAddress reads SLAVE!ADDRESS[.BIT][#ENDIAN][.LEN[H|L|D|E]].
func neuronAddress(text, typ string) (station int, f field, err error) {
	f.bit = -1
	bad := func(format string, args ...any) (int, field, error) {
		return 0, f, fmt.Errorf("address %q: %w", text, fmt.Errorf(format, args...))
	}
	slave, rest, ok := strings.Cut(text, "!")
	station, err = strconv.Atoi(strings.TrimSpace(slave))
	if !ok || err != nil || station < 0 || station > 255 {
		return bad("want station!address")
	}
	rest, order, _ := strings.Cut(rest, "#")
	order, after, hasAfter := strings.Cut(order, ".") // a length may stand behind the order
	number, suffix, hasSuffix := strings.Cut(rest, ".")
	if hasAfter {
		suffix, hasSuffix = after, true
	}
	a, err := modbus.ParseAddress(number)
	if err != nil {
		return 0, f, err
	}
	f.table, f.item = a.Table, int(a.Item)
	if f.order, ok = neuronOrders[strings.ToUpper(order)]; !ok {
		return bad("order %q is not known", order)
	}
	typ = strings.ToUpper(typ)
	known, isNumber := neuronTypes[typ]
	switch {
	case typ == "BIT" || typ == "BOOL":
		if f.table.Bits() {
			return station, f, nil
		}
		f.bit = 0
		if hasSuffix {
			if f.bit, err = strconv.Atoi(suffix); err != nil {
				return bad("bit %q is not a number", suffix)
			}
		}
	case f.table.Bits():
		return bad("a %s has type BIT, not %s", f.table, typ)
	case typ == "STRING":
		return neuronText(text, station, f, suffix)
	case typ == "BYTES":
		n, err := strconv.Atoi(suffix)
		if err != nil || n < 1 || n > 250 {
			return bad("length %q is not a number from 1 to 250", suffix)
		}
		f.typ = fmt.Sprintf("bytes(%d)", n)
	case !isNumber:
		return bad("type %q is not known", typ)
	case hasSuffix:
		return bad("type %s has no bit or length", typ)
	default:
		f.typ = known
	}
	return station, f, nil
}

// neuronText reads the length of a text and how its bytes stand in registers:
// H high byte first, L, which is meant without a letter, low byte first.
func neuronText(text string, station int, f field, suffix string) (int, field, error) {
	upper := strings.ToUpper(suffix)
	digits := strings.TrimRight(upper, "HLDE")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 250 {
		return 0, f, fmt.Errorf("address %q: length %q is not a number from 1 to 250", text, suffix)
	}
	switch upper[len(digits):] {
	case "H":
		f.order = ""
	case "L", "":
		f.order = "BA"
	default:
		return 0, f, fmt.Errorf("address %q: texts with one byte in each register cannot be read", text)
	}
	f.typ = fmt.Sprintf("string(%d)", n)
	return station, f, nil
}
