package importer

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// telegraf reads one file of Telegraf.
type telegraf struct {
	reader
	result   Result
	devices  names
	interval time.Duration // of the agent
}

func readTelegraf(in Input, _ Options) (*Result, error) {
	root, err := parseTOML(in)
	if err != nil {
		return nil, err
	}
	t := &telegraf{reader: reader{file: in.Name}, devices: names{}}
	agent := root.get("agent")
	t.interval = t.duration(agent.get("interval"), time.Second)
	inputs := root.get("inputs")
	found := false
	for _, plugin := range []struct {
		name string
		read func(*node)
	}{
		{"modbus", t.modbus},
		{"opcua", func(n *node) { t.opcua(n, false) }},
		{"opcua_listener", func(n *node) { t.opcua(n, true) }},
	} {
		if n := inputs.get(plugin.name); n.isList() {
			for _, p := range n.items() {
				found = true
				plugin.read(p)
			}
		}
	}
	if !found {
		return nil, fmt.Errorf("%s: there is no [[inputs.modbus]], [[inputs.opcua]] or [[inputs.opcua_listener]]", in.Name)
	}
	t.leftovers(root)
	t.result.Notes = t.notes
	return &t.result, nil
}

// variables notes texts in which Telegraf would replace something.
func (t *telegraf) variables(n *node) {
	if s, ok := n.scalar(); ok && (strings.Contains(s, "${") || strings.Contains(s, "@{")) {
		t.lost(n.at(), n.path(), "variables and secrets are not replaced: write the value")
	}
}

// class is the scan class of a plugin.
func (t *telegraf) class(p *node) string {
	d := t.duration(p.get("interval"), time.Second)
	if d == 0 {
		d = t.interval
	}
	return t.result.class(d)
}

// modbus reads one [[inputs.modbus]].
func (t *telegraf) modbus(p *node) {
	link := map[string]any{}
	if !t.modbusLink(p, link) {
		return
	}
	m := &telegrafModbus{telegraf: t, plugin: p, link: link, units: map[int]*Device{}}
	m.name = t.text(p.get("name"), t.text(p.get("alias"), "modbus"))
	m.class = t.class(p)
	silently(p, "debug_connection", "alias")
	style := t.text(p.get("configuration_type"), "register")
	slave := p.get("slave_id")
	switch style {
	case "register":
		m.registers(t.integer(slave, 0, 0, 255))
	case "request":
		for _, q := range p.get("request").items() {
			m.request(q, "modbus")
		}
	case "metric":
		for _, q := range p.get("metric").items() {
			m.metric(q)
		}
	default:
		t.lost(p.line, "configuration_type", "%q is none of register, request, metric", style)
		p.take()
		return
	}
	t.optimization(p, link)
	for _, d := range m.order {
		for key, v := range link {
			if _, given := d.Settings[key]; !given {
				d.Settings[key] = v
			}
		}
		t.result.Devices = append(t.result.Devices, *d)
	}
}

// modbusLink reads what belongs to the connection. It reports false when the
// device cannot be taken over at all.
func (t *telegraf) modbusLink(p *node, link map[string]any) bool {
	controller := p.get("controller")
	t.variables(controller)
	mode := strings.ToUpper(t.text(p.get("transmission_mode"), ""))
	if strings.HasPrefix(mode, "ASCII") {
		t.lost(p.peek("transmission_mode").at(), "inputs.modbus", "Modbus ASCII is not spoken here")
		p.take()
		return false
	}
	text := t.text(controller, "")
	u, err := url.Parse(text)
	var target error
	switch {
	case text == "" || err != nil:
		target = fmt.Errorf("%q is no address of a controller", text)
	case u.Scheme == "tcp":
		if target = tcpTarget(link, u.Host); mode == "RTUOVERTCP" {
			link["transport"] = "rtu-over-tcp"
		}
	case u.Scheme == "file" || u.Scheme == "" && u.Path != "" || strings.HasPrefix(strings.ToUpper(text), "COM"):
		path := text
		if u.Scheme == "file" {
			path = u.Host + u.Path
		}
		t.serialLine(link, path, p.get("baud_rate"), p.get("parity"), p.get("stop_bits"), p.get("data_bits"))
	default:
		target = fmt.Errorf("%q is neither tcp:// nor file://", text)
	}
	if target != nil {
		t.lost(max(controller.at(), p.line), "inputs.modbus", "controller: %v", target)
		p.take()
		return false
	}
	t.setDuration(link, "timeout", p.get("timeout"), time.Second)
	if n := t.integer(p.get("busy_retries"), 0, 0, 100); n > 0 {
		link["busy_retries"] = int64(n)
	}
	t.setDuration(link, "busy_pause", p.get("busy_retries_wait"), time.Second)
	t.workarounds(p.get("workarounds"), link)
	t.rs485(p.get("rs485"), link)
	return true
}

// setDuration sets a key to a time that is given and not zero.
func (r *reader) setDuration(settings map[string]any, key string, n *node, unit time.Duration) {
	if d := r.duration(n, unit); d > 0 {
		settings[key] = d.String()
	}
}

func (t *telegraf) workarounds(w *node, link map[string]any) {
	t.setDuration(link, "connect_delay", w.get("pause_after_connect"), time.Second)
	t.setDuration(link, "request_pause", w.get("pause_between_requests"), time.Second)
	if t.boolean(w.get("close_connection_after_gather"), false) {
		link["close_after_read"] = true
	}
	if n := t.integer(w.get("max_bit_registers_per_request"), 0, 0, 2000); n > 0 {
		link["max_bits"] = int64(n)
	}
	if n := t.integer(w.get("max_word_registers_per_request"), 0, 0, 125); n > 0 {
		link["max_registers"] = int64(n)
	}
	for _, key := range []string{"read_coils_starting_at_zero", "one_request_per_field"} {
		if c := w.get(key); t.boolean(c, false) {
			t.lost(c.at(), c.path(), "has no counterpart; max_gap = 0 and a small max_registers come near")
		}
	}
	if c := w.get("string_register_location"); t.text(c, "") != "" {
		t.lost(c.at(), c.path(), "texts with one byte in each register cannot be read")
	}
}

func (t *telegraf) rs485(n *node, link map[string]any) {
	if n == nil || link["transport"] != "rtu" {
		return
	}
	link["rs485"] = true
	t.setDuration(link, "rts_before", n.get("delay_rts_before_send"), time.Second)
	t.setDuration(link, "rts_after", n.get("delay_rts_after_send"), time.Second)
	silently(n, "rts_high_during_send") // that is how the kernel does it
	for _, key := range []string{"rts_high_after_send", "rx_during_tx"} {
		if c := n.get(key); t.boolean(c, false) {
			t.lost(c.at(), c.path(), "has no counterpart")
		}
	}
}

// optimization notes that requests are planned here by another rule.
func (t *telegraf) optimization(n *node, settings map[string]any) {
	how := n.get("optimization")
	fill := n.get("optimization_max_register_fill")
	if how == nil && fill == nil {
		return
	}
	if t.text(how, "") == "max_insert" && fill != nil {
		settings["max_gap"] = int64(t.integer(fill, 32, 0, 125))
	}
	t.changed(max(how.at(), fill.at()), "optimization", "requests are planned by the gateway: as few as max_registers and max_gap allow")
}

// telegrafModbus is one plugin: a device for each slave.
type telegrafModbus struct {
	*telegraf
	plugin *node
	link   map[string]any
	name   string
	class  string
	units  map[int]*Device
	order  []*Device
}

// unit returns the device of a slave.
func (m *telegrafModbus) unit(slave, line int) *Device {
	if d := m.units[slave]; d != nil {
		return d
	}
	given := m.name
	if len(m.units) > 0 || m.devices[deviceName(given)] {
		given = fmt.Sprintf("%s-%d", m.name, slave)
	}
	d := &Device{
		Name: m.named(m.devices, line, "device", given, deviceName, ""), Protocol: "modbus", Class: m.class,
		Settings: map[string]any{"unit": int64(slave)}, line: line, names: names{},
	}
	m.units[slave] = d
	m.order = append(m.order, d)
	return d
}

// registers reads the register style.
func (m *telegrafModbus) registers(slave int) {
	for _, part := range []struct {
		key   string
		table modbus.Table
	}{
		{"discrete_inputs", modbus.Discrete}, {"coils", modbus.Coil}, {"holding_registers", modbus.Holding}, {"input_registers", modbus.Input},
	} {
		list := m.plugin.get(part.key)
		if list == nil {
			continue
		}
		for _, f := range list.items() {
			if !f.isTable() {
				m.lost(f.at(), f.path(), "is not a table")
				continue
			}
			m.register(m.unit(slave, m.plugin.line), part.table, f)
		}
	}
}

func (m *telegrafModbus) register(d *Device, table modbus.Table, f *node) {
	addresses := f.get("address")
	var at []int
	for _, a := range addresses.items() {
		at = append(at, m.integer(a, -1, 0, 65535))
	}
	slices.Sort(at)
	for i := range at {
		if at[i] < 0 || i > 0 && at[i] != at[i-1]+1 {
			at = nil
			break
		}
	}
	if len(at) == 0 {
		m.lost(f.at(), f.path(), "address: want the numbers of registers that follow each other")
		f.take()
		return
	}
	value := field{table: table, item: at[0], bit: -1}
	if !table.Bits() {
		bit := f.get("bit")
		typ, ok := registerType(m.text(f.get("data_type"), ""), len(at))
		if typ == "bit" {
			value.bit, ok = m.integer(bit, 0, 0, 15), true
		} else if bit != nil {
			m.lost(bit.at(), bit.path(), "only a value of type BIT has one")
		}
		if !ok {
			m.lost(f.at(), f.path(), "data_type %q in %d registers is not known", m.text(f.peek("data_type"), ""), len(at))
			f.take()
			return
		}
		value.typ = typ
		value.order = m.byteOrder(f.get("byte_order"))
	}
	m.finish(d, f, value)
}

// registerType returns our type of one of the register style.
func registerType(name string, registers int) (string, bool) {
	bySize := func(prefix string) (string, bool) {
		typ, ok := map[int]string{1: prefix + "16", 2: prefix + "32", 4: prefix + "64"}[registers]
		return typ, ok
	}
	switch name {
	case "FIXED":
		return bySize("int")
	case "UFIXED", "FLOAT32":
		return bySize("uint")
	case "FLOAT16-IEEE", "FLOAT32-IEEE", "FLOAT64-IEEE":
		return strings.ToLower(strings.TrimSuffix(name, "-IEEE")), true
	case "STRING":
		return fmt.Sprintf("string(%d)", 2*registers), registers <= 125
	}
	return requestType(name, registers)
}

// requestType returns our type of one of the request and metric styles.
func requestType(name string, registers int) (string, bool) {
	switch name {
	case "INT8L", "INT8H", "UINT8L", "UINT8H", "INT16", "UINT16", "INT32", "UINT32", "INT64", "UINT64", "FLOAT16", "FLOAT32", "FLOAT64":
		return strings.ToLower(name), true
	case "BIT":
		return "bit", true
	case "STRING":
		return fmt.Sprintf("string(%d)", 2*registers), registers >= 1 && registers <= 125
	}
	return "", false
}

// byteOrders are the names that Telegraf knows.
var byteOrders = map[string]string{
	"": "", "AB": "", "ABCD": "", "ABCDEFGH": "", "MSW-BE": "", "BA": "BA", "DCBA": "DCBA", "HGFEDCBA": "DCBA", "LSW-LE": "DCBA",
	"BADC": "BADC", "BADCFEHG": "BADC", "MSW-LE": "BADC", "CDAB": "CDAB", "GHEFCDAB": "CDAB", "LSW-BE": "CDAB",
}

func (t *telegraf) byteOrder(n *node) string {
	text := t.text(n, "")
	order, ok := byteOrders[text]
	if !ok {
		t.lost(n.at(), n.path(), "byte order %q is not known", text)
	}
	return order
}

// telegrafTables are the names that Telegraf has for the tables.
var telegrafTables = map[string]modbus.Table{"coil": modbus.Coil, "discrete": modbus.Discrete, "holding": modbus.Holding, "input": modbus.Input}

// request reads one request.
func (m *telegrafModbus) request(q *node, measurement string) {
	d := m.unit(m.integer(q.get("slave_id"), 0, 0, 255), q.line)
	table, ok := telegrafTables[m.text(q.get("register"), "holding")]
	if !ok {
		m.lost(q.at(), q.path(), "register %q is none of coil, discrete, holding, input", m.text(q.peek("register"), ""))
		q.take()
		return
	}
	order := m.byteOrder(q.get("byte_order"))
	m.measurement(q)
	m.optimization(q, d.Settings)
	m.fields(d, q, order, func(*node) (modbus.Table, bool) { return table, true })
}

// metric reads one metric.
func (m *telegrafModbus) metric(q *node) {
	d := m.unit(m.integer(q.get("slave_id"), 0, 0, 255), q.line)
	order := m.byteOrder(q.get("byte_order"))
	m.measurement(q)
	m.fields(d, q, order, func(f *node) (modbus.Table, bool) {
		table, ok := telegrafTables[m.text(f.get("register"), "holding")]
		return table, ok
	})
}

func (m *telegrafModbus) measurement(q *node) {
	if n := q.get("measurement"); n != nil && m.text(n, "") != "modbus" {
		m.changed(n.at(), n.path(), "readings are named by device and tag")
	}
	if tags := q.get("tags"); tags != nil {
		tags.take()
		m.lost(tags.at(), tags.path(), "readings carry no further labels")
	}
}

func (m *telegrafModbus) fields(d *Device, q *node, order string, table func(*node) (modbus.Table, bool)) {
	for _, f := range q.get("fields").items() {
		if !f.isTable() {
			m.lost(f.at(), f.path(), "is not a table")
			continue
		}
		if m.boolean(f.get("omit"), false) {
			f.take() // the file says itself that it is not wanted
			continue
		}
		which, ok := table(f)
		value := field{table: which, item: m.integer(f.get("address"), -1, 0, 65535), bit: -1, order: order}
		length := m.integer(f.get("length"), 0, 0, 65535)
		bit := f.get("bit")
		if ok && !which.Bits() {
			value.typ, ok = requestType(m.text(f.get("type"), ""), length)
			if value.typ == "bit" {
				value.bit = m.integer(bit, 0, 0, 15)
			}
		}
		if !ok || value.item < 0 {
			m.lost(f.at(), f.path(), "register, address or type %q is not known", m.text(f.peek("type"), ""))
			f.take()
			continue
		}
		m.finish(d, f, value)
	}
}

// finish makes the tag of a field.
func (m *telegrafModbus) finish(d *Device, f *node, value field) {
	given := m.text(f.get("name"), "")
	better := ""
	if n := f.get("measurement"); n != nil {
		better = m.text(n, "") + "_" + given
		m.changed(n.at(), n.path(), "readings are named by device and tag")
	}
	var t point.Tag
	if err := value.address(&t); err != nil {
		m.lost(f.at(), f.path(), "%v", err)
		f.take()
		return
	}
	scale := f.get("scale")
	if by := m.number(scale, 0); strings.HasPrefix(value.typ, "string") || value.table.Bits() || value.bit >= 0 {
		if scale != nil && by != 1 {
			m.lost(scale.at(), scale.path(), "texts and bits have no scale")
		}
	} else {
		factor(&t, by, 0)
	}
	if n := f.get("output"); n != nil && m.text(n, "") != "BOOL" {
		m.changed(n.at(), n.path(), "a scaled value is a floating-point number, any other stays as it is")
	}
	if value.table.Bits() {
		silently(f, "type", "byte_order", "data_type") // Telegraf does not look at them either
	}
	t.Name = m.named(d.names, f.at(), "tag", given, tagName, better)
	d.add(t, f.at())
}

// scalar returns the text of a node.
func (n *node) scalar() (string, bool) {
	if n == nil {
		return "", false
	}
	s, ok := n.value.(string)
	return s, ok
}
