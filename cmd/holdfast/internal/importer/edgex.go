package importer

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"

	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// edgex reads device profiles and device lists of EdgeX together.
type edgex struct {
	*reader  // of the file that is being read
	result   Result
	profiles map[string]*edgexProfile
	order    []*edgexProfile
	lists    []edgexList
	devices  names
}

type edgexProfile struct {
	name      string
	r         *reader
	root      *node
	resources []*node
	commands  map[string][]string // of a device command: its resources
	usedBy    int
}

type edgexList struct {
	r    *reader
	node *node
}

func readEdgeX(in []Input, _ Options) (*Result, error) {
	e := &edgex{profiles: map[string]*edgexProfile{}, devices: names{}}
	var readers []*reader
	var roots [][]*node
	for _, f := range in {
		docs, err := edgexDocuments(f)
		if err != nil {
			return nil, err
		}
		e.reader = &reader{file: f.Name}
		readers, roots = append(readers, e.reader), append(roots, docs)
		found := false
		for _, doc := range docs {
			found = e.document(doc) || found
		}
		if !found {
			return nil, fmt.Errorf("%s: neither a device profile nor a device list", f.Name)
		}
	}
	for _, l := range e.lists {
		e.reader = l.r
		e.device(l.node)
	}
	for _, p := range e.order {
		if e.reader = p.r; p.usedBy == 0 {
			e.unused(p)
		}
	}
	for i, r := range readers {
		for _, doc := range roots[i] {
			r.leftovers(doc)
		}
		e.result.Notes = append(e.result.Notes, r.notes...)
	}
	return &e.result, nil
}

func edgexDocuments(f Input) ([]*node, error) {
	if strings.EqualFold(path.Ext(f.Name), ".toml") {
		n, err := parseTOML(f)
		return []*node{n}, err
	}
	return parseYAML(f)
}

// document takes the profile or the device list of a document.
func (e *edgex) document(doc *node) bool {
	if list := doc.get("deviceList"); list != nil {
		for _, d := range list.items() {
			e.lists = append(e.lists, edgexList{e.reader, d})
		}
		return true
	}
	switch {
	case doc.peek("deviceResources") != nil:
		e.profile(doc)
		return true
	case doc.peek("profileName") != nil:
		e.lists = append(e.lists, edgexList{e.reader, doc})
		return true
	}
	return false
}

func (e *edgex) profile(doc *node) {
	p := &edgexProfile{name: e.text(doc.get("name"), ""), r: e.reader, root: doc, commands: map[string][]string{}}
	for _, n := range doc.get("deviceResources").items() {
		if n.isTable() {
			p.resources = append(p.resources, n)
		}
	}
	for _, c := range doc.get("deviceCommands").items() {
		name := e.text(c.get("name"), "")
		for _, op := range c.get("resourceOperations").items() {
			p.commands[name] = append(p.commands[name], e.text(op.get("deviceResource"), ""))
			e.drop(op, "mappings", "values keep their numbers")
			e.drop(op, "defaultValue", "a command carries its value")
		}
		silently(c, "isHidden", "readWrite")
	}
	silently(doc, "manufacturer", "model", "labels", "description", "apiVersion", "id")
	if _, twice := e.profiles[p.name]; twice {
		e.lost(doc.line, "profile "+p.name, "there is another one of this name")
		return
	}
	e.profiles[p.name] = p
	e.order = append(e.order, p)
}

// unused makes a device of a profile that no device list uses: its address comes
// from elsewhere.
func (e *edgex) unused(p *edgexProfile) {
	d := &Device{Protocol: "modbus", Settings: map[string]any{}, line: p.root.line, names: names{}}
	d.Name = e.named(e.devices, p.root.line, "profile", p.name, deviceName, "")
	e.changed(p.root.line, "profile "+p.name, "no device uses it: one is made, whose address has to be given")
	e.resources(d, p, nil)
	e.result.Devices = append(e.result.Devices, *d)
}

func (e *edgex) device(n *node) {
	name := e.text(n.get("name"), "")
	profile := e.profiles[e.text(n.get("profileName"), "")]
	if profile == nil {
		e.lost(n.at(), "device "+name, "its profile %q is in none of the files", e.text(n.peek("profileName"), ""))
		n.take()
		return
	}
	profile.usedBy++
	d := &Device{Protocol: "modbus", Settings: map[string]any{}, line: n.at(), names: names{}}
	if why := e.link(n.get("protocols"), d.Settings); why != "" {
		e.lost(n.at(), "device "+name, "%s", why)
		n.take()
		return
	}
	d.Name = e.named(e.devices, n.at(), "device", name, deviceName, "")
	silently(n, "description", "labels", "serviceName", "operatingState", "apiVersion", "id")
	if s := n.get("adminState"); strings.EqualFold(e.text(s, ""), "LOCKED") {
		e.lost(s.at(), s.path(), "a device cannot be configured and locked")
	}
	e.resources(d, profile, e.autoEvents(n.get("autoEvents"), profile))
	e.result.Devices = append(e.result.Devices, *d)
}

// link reads where the device is. It returns why that is not known.
func (e *edgex) link(p *node, settings map[string]any) string {
	tcp, rtu := p.get("modbus-tcp"), p.get("modbus-rtu")
	at := tcp
	switch {
	case tcp != nil && rtu == nil:
		address := e.text(tcp.get("Address"), "") + ":" + e.text(tcp.get("Port"), "502")
		if err := tcpTarget(settings, address); err != nil {
			return err.Error()
		}
	case rtu != nil && tcp == nil:
		at = rtu
		e.serialLine(settings, e.text(rtu.get("Address"), ""), rtu.get("BaudRate"), rtu.get("Parity"), rtu.get("StopBits"), rtu.get("DataBits"))
	default:
		return "it has neither modbus-tcp nor modbus-rtu, or both"
	}
	settings["unit"] = int64(e.integer(at.get("UnitID"), 1, 0, 255))
	e.setDuration(settings, "timeout", at.get("Timeout"), time.Second)
	e.setDuration(settings, "idle_close", at.get("IdleTimeout"), time.Second)
	return ""
}

// An autoEvent is how often EdgeX reads a resource by itself.
type autoEvent struct {
	interval  time.Duration
	onChange  bool
	threshold float64
}

// autoEvents returns by resource how it is read; the fastest counts.
func (e *edgex) autoEvents(list *node, p *edgexProfile) map[string]autoEvent {
	out := map[string]autoEvent{}
	for _, n := range list.items() {
		a := autoEvent{
			interval: e.duration(n.get("interval"), time.Second), onChange: e.boolean(n.get("onChange"), false),
			threshold: e.number(n.get("onChangeThreshold"), 0),
		}
		source := e.text(n.get("sourceName"), "")
		names, isCommand := p.commands[source]
		if !isCommand {
			names = []string{source}
		}
		for _, name := range names {
			if before, ok := out[name]; ok && (before.interval <= a.interval) {
				e.changed(n.at(), n.path(), "%s is read every %s already", name, before.interval)
				continue
			}
			out[name] = a
		}
	}
	return out
}

func (e *edgex) resources(d *Device, p *edgexProfile, auto map[string]autoEvent) {
	device := e.reader
	e.reader = p.r // notes about resources belong to the profile's file
	defer func() { e.reader = device }()
	for _, n := range p.resources {
		t, ok := e.resource(d, n)
		if !ok {
			continue
		}
		a, read := auto[e.text(n.peek("name"), "")]
		switch {
		case read:
			t.Class = e.result.class(a.interval)
			if a.threshold > 0 {
				t.Dead = point.Deadband{Kind: point.Absolute, Value: a.threshold}
			} else if a.onChange {
				t.Dead = point.Deadband{Kind: point.OnChange}
			}
		case t.Access.Readable() && auto != nil:
			e.changed(n.at(), "resource "+t.Name, "is read like all tags, in EdgeX only when asked for")
		}
		d.add(t, n.at())
	}
}

// edgexTables are EdgeX's names of the tables.
var edgexTables = map[string]modbus.Table{
	"COILS": modbus.Coil, "DISCRETES_INPUT": modbus.Discrete, "INPUT_REGISTERS": modbus.Input, "HOLDING_REGISTERS": modbus.Holding,
}

var edgexTypes = map[string]string{
	"BOOL": "bit", "INT16": "int16", "UINT16": "uint16", "INT32": "int32", "UINT32": "uint32", "INT64": "int64", "UINT64": "uint64",
	"FLOAT32": "float32", "FLOAT64": "float64",
}

func (e *edgex) resource(d *Device, n *node) (t point.Tag, ok bool) {
	name := e.text(n.get("name"), "")
	silently(n, "isHidden", "tag") // hidden from the REST interface, not from reading
	properties, attributes := n.get("properties"), n.get("attributes")
	value, why := e.value(attributes, e.text(properties.get("valueType"), ""))
	if why == "" {
		if err := value.address(&t); err != nil {
			why = err.Error()
		}
	}
	if why != "" {
		e.lost(n.at(), "resource "+name, "%s", why)
		n.take()
		return t, false
	}
	switch access := e.text(properties.get("readWrite"), "R"); strings.ToUpper(access) {
	case "R":
	case "RW", "WR":
		t.Access = point.ReadWrite
	case "W":
		t.Access = point.WriteOnly
	default:
		e.lost(n.at(), "resource "+name, "readWrite %q is not known", access)
	}
	if t.Access.Writable() && !value.table.Writable() {
		e.changed(n.at(), "resource "+name, "the table %s cannot be written: the tag is read only", value.table)
		t.Access = point.ReadOnly
	}
	number := value.typ != "" && !strings.HasPrefix(value.typ, "string") && value.bit < 0
	if number {
		factor(&t, e.number(properties.get("scale"), 1), e.number(properties.get("offset"), 0))
	}
	e.limits(&t, properties, number)
	t.Unit = clearText(e.text(properties.get("units"), ""))
	t.Comment = clearText(e.text(n.get("description"), ""))
	silently(properties, "scale", "offset", "defaultValue", "mediaType")
	t.Name = e.named(d.names, n.at(), "resource", name, tagName, "")
	return t, true
}

// limits takes over what bounds writing.
func (e *edgex) limits(t *point.Tag, properties *node, number bool) {
	for _, b := range []struct {
		key string
		at  **float64
	}{{"minimum", &t.Min}, {"maximum", &t.Max}} {
		n := properties.get(b.key)
		if n == nil || !number {
			continue
		}
		if !t.Access.Writable() {
			e.lost(n.at(), n.path(), "bounds writing, and this is read only")
			continue
		}
		v := e.number(n, 0)
		*b.at = &v
	}
	if t.Min != nil && t.Max != nil && *t.Min > *t.Max {
		n := properties.peek("minimum")
		e.lost(n.at(), n.path(), "is above maximum")
		t.Min, t.Max = nil, nil
	}
}

// value reads where a resource is and how it is encoded.
func (e *edgex) value(a *node, valueType string) (f field, why string) {
	f.bit = -1
	table, ok := edgexTables[strings.ToUpper(e.text(a.get("primaryTable"), ""))]
	if !ok {
		return f, fmt.Sprintf("primaryTable %q is not known", e.text(a.peek("primaryTable"), ""))
	}
	f.table = table
	address, bit, hasBit := strings.Cut(e.text(a.get("startingAddress"), ""), ".")
	item, err := strconv.ParseUint(address, 0, 16)
	if err != nil {
		return f, fmt.Sprintf("startingAddress %q is not a number from 0 to 65535", address)
	}
	f.item = int(item)
	raw := a.get("rawType")
	swapBytes, swapWords := a.get("isByteSwap"), a.get("isWordSwap")
	size := a.get("stringRegisterSize")
	if strings.EqualFold(valueType, "String") {
		n := e.integer(size, 0, 1, 125)
		f.typ = fmt.Sprintf("string(%d)", 2*n)
		return f, map[bool]string{true: "stringRegisterSize is missing"}[n == 0]
	}
	if f.table.Bits() {
		return f, ""
	}
	typ := e.text(raw, valueType)
	if f.typ, ok = edgexTypes[strings.ToUpper(typ)]; !ok {
		return f, fmt.Sprintf("type %q is not known for a register", typ)
	}
	if f.typ == "bit" {
		f.bit = 0
		if hasBit {
			if f.bit, err = strconv.Atoi(bit); err != nil {
				return f, fmt.Sprintf("bit %q is not a number", bit)
			}
		}
		return f, ""
	}
	f.order = e.swaps(f.typ, swapBytes, swapWords)
	return f, ""
}

// swaps returns the order of registers and bytes. EdgeX swaps values of two
// registers only.
func (e *edgex) swaps(typ string, bytes, words *node) string {
	b, w := e.boolean(bytes, false), e.boolean(words, false)
	if !b && !w {
		return ""
	}
	if !strings.HasSuffix(typ, "32") {
		e.changed(max(bytes.at(), words.at()), "isByteSwap, isWordSwap", "EdgeX does not swap values of type %s; nor does this", typ)
		return ""
	}
	return map[[2]bool]string{{true, false}: "BADC", {false, true}: "CDAB", {true, true}: "DCBA"}[[2]bool{b, w}]
}
