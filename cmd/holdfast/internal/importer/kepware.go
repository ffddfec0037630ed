package importer

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// readKepware reads the tag list of a Kepware device with a Modbus driver. Where
// the device is, is not in it.
func readKepware(in Input, o Options) (*Result, error) {
	r := &reader{file: in.Name}
	result := &Result{}
	d := &Device{Protocol: "modbus", Settings: map[string]any{}, names: names{}, line: 1}
	given := o.Device
	if given == "" {
		given = baseName(in.Name)
	}
	d.Name = r.named(names{}, 1, "device", given, deviceName, "")
	double := 0 // line of the first value of several registers
	err := r.rows(in, []string{"Tag Name", "Address"}, func(w *row) {
		name, address, typ := w.take("Tag Name"), w.take("Address"), w.take("Data Type")
		t, err := kepwareTag(address, typ)
		if err != nil {
			r.lost(w.line, "tag "+name, "%v", err)
			clear(w.cells)
			return
		}
		kepwareRow(w, result, &t)
		if double == 0 && (strings.HasSuffix(t.Type, "32") || strings.HasSuffix(t.Type, "64")) {
			double = w.line
		}
		t.Name = r.named(d.names, w.line, "tag", name, tagName, "")
		d.add(t, w.line)
	})
	if err != nil {
		return nil, err
	}
	if double > 0 {
		// "First Word Low" and "First DWord Low" are on unless somebody has changed it.
		d.Settings["order"] = "CDAB"
		r.changed(double, "order", "the list does not say it: taken as Kepware's usual \"first word low\", order = \"CDAB\"")
	}
	result.Devices, result.Notes = []Device{*d}, r.notes
	return result, nil
}

// kepwareRow reads the columns besides name, address and type.
func kepwareRow(w *row, result *Result, t *point.Tag) {
	switch access := w.take("Client Access"); strings.ToUpper(access) {
	case "", "RO", "READ ONLY", "R":
	case "R/W", "RW", "READ/WRITE":
		t.Access = point.ReadWrite
	case "WO", "WRITE ONLY":
		t.Access = point.WriteOnly
	default:
		w.r.lost(w.line, "Client Access", "%q is not known", access)
	}
	if a, err := modbus.ParseAddress(t.Address); err == nil && t.Access.Writable() && !a.Table.Writable() {
		t.Access = point.ReadOnly
		w.r.changed(w.line, "Client Access", "the table %s cannot be written: the tag is read only", a.Table)
	}
	if rate := w.number("Scan Rate", 0); rate > 0 && rate <= 1e9 {
		t.Class = result.class(time.Duration(rate * float64(time.Millisecond)))
	}
	kepwareScale(w, t)
	t.Unit = clearText(w.take("Eng Units"))
	if u := clearText(w.take("Eng. Units")); u != "" {
		t.Unit = u
	}
	t.Comment = clearText(w.take("Description"))
	w.take("Respect Data Type") // a tag has the type that it has
	w.drop("Negate Value", "write a scale that turns the sign", "0", "false", "no")
}

func kepwareScale(w *row, t *point.Tag) {
	kind := w.take("Scaling")
	rawLow, rawHigh := w.number("Raw Low", 0), w.number("Raw High", 0)
	low, high := w.number("Scaled Low", 0), w.number("Scaled High", 0)
	clampLow, clampHigh := truth(w.take("Clamp Low")), truth(w.take("Clamp High"))
	typ := w.take("Scaled Data Type")
	switch strings.ToLower(kind) {
	case "", "none", "0":
		return
	case "linear", "1":
	default:
		w.r.lost(w.line, "Scaling", "%q: only linear scales are known, the raw value is taken", kind)
		return
	}
	s := point.Scale{Kind: point.Linear, RawLow: rawLow, RawHigh: rawHigh, EngLow: low, EngHigh: high, Clamp: clampLow && clampHigh}
	if err := s.Check(); err != nil {
		w.r.lost(w.line, "Scaling", "%v; the raw value is taken", err)
		return
	}
	t.Scale = s
	if clampLow != clampHigh {
		w.r.lost(w.line, "Clamp", "a scale clamps at both ends or at none")
	}
	if typ != "" && !strings.EqualFold(typ, "Float") && !strings.EqualFold(typ, "Double") {
		w.r.changed(w.line, "Scaled Data Type", "a scaled value is a floating-point number, not %s", typ)
	}
}

func truth(s string) bool {
	return s == "1" || strings.EqualFold(s, "true") || strings.EqualFold(s, "yes")
}

var kepwareTypes = map[string]string{
	"": "uint16", "default": "uint16", "short": "int16", "word": "uint16", "long": "int32", "dword": "uint32", "llong": "int64", "qword": "uint64",
	"float": "float32", "double": "float64", "bcd": "bcd16", "lbcd": "bcd32",
}

// kepwareTag reads an address such as 400001, 40001.5, H4000A or 400100.20H with
// a type.
func kepwareTag(address, typ string) (point.Tag, error) {
	var t point.Tag
	if strings.ContainsAny(address, "[]") {
		return t, fmt.Errorf("address %q: arrays have no counterpart, write a tag for each element", address)
	}
	number, suffix, hasSuffix := strings.Cut(address, ".")
	f := field{bit: -1}
	if hex, ok := strings.CutPrefix(strings.ToUpper(number), "H"); ok && len(hex) >= 2 {
		item, err := strconv.ParseUint(hex[1:], 16, 32)
		if err != nil || item < 1 || item > 65536 {
			return t, fmt.Errorf("address %q is not known", address)
		}
		number = fmt.Sprintf("%s%05d", hex[:1], item)
	}
	a, err := modbus.ParseAddress(number)
	if err != nil {
		return t, err
	}
	f.table, f.item = a.Table, int(a.Item)
	lower := strings.ToLower(typ)
	switch known, ok := kepwareTypes[lower]; {
	case f.table.Bits():
		if lower != "boolean" && lower != "default" && lower != "" {
			return t, fmt.Errorf("a %s has no type %q", f.table, typ)
		}
	case lower == "string":
		if err := kepwareText(&f, suffix); err != nil {
			return t, fmt.Errorf("address %q: %w", address, err)
		}
	case hasSuffix && (lower == "boolean" || lower == "default" || lower == ""):
		if f.bit, err = strconv.Atoi(suffix); err != nil {
			return t, fmt.Errorf("address %q: bit %q is not a number", address, suffix)
		}
	case hasSuffix:
		return t, fmt.Errorf("address %q has a bit, but type %q", address, typ)
	case lower == "boolean":
		f.bit = 0
	case !ok:
		return t, fmt.Errorf("type %q is not known for Modbus", typ)
	default:
		f.typ = known
	}
	err = f.address(&t)
	return t, err
}

// kepwareText reads the length of a text and where the first of its two bytes in
// a register is: 20H or 20L.
func kepwareText(f *field, suffix string) error {
	digits := strings.TrimRight(strings.ToUpper(suffix), "HL")
	n, err := strconv.Atoi(digits)
	if err != nil || n < 1 || n > 250 {
		return fmt.Errorf("text length %q is not a number from 1 to 250 with H or L", suffix)
	}
	f.typ = fmt.Sprintf("string(%d)", n)
	if strings.HasSuffix(strings.ToUpper(suffix), "L") {
		f.order = "BA"
	}
	return nil
}
