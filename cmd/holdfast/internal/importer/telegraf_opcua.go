package importer

import (
	"net/url"
	"strconv"
	"time"

	"holdfast/protocols/point"
)

// opcua reads one [[inputs.opcua]] or [[inputs.opcua_listener]].
func (t *telegraf) opcua(p *node, listener bool) {
	endpoint := p.get("endpoint")
	t.variables(endpoint)
	text := t.text(endpoint, "opc.tcp://localhost:4840")
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "" {
		t.lost(max(endpoint.at(), p.line), "inputs.opcua", "endpoint %q is not opc.tcp://host:port", text)
		p.take()
		return
	}
	d := &Device{Protocol: "opcua", Subscribe: listener, line: p.line, names: names{}, Settings: map[string]any{"endpoint": text}}
	given := t.text(p.get("name"), "")
	if alias := t.text(p.get("alias"), ""); given == "" {
		given = alias
	}
	if given == "" {
		given = u.Hostname()
	}
	d.Name = t.named(t.devices, p.line, "device", given, deviceName, "")
	t.setDuration(d.Settings, "connect_timeout", p.get("connect_timeout"), time.Second)
	t.setDuration(d.Settings, "timeout", p.get("request_timeout"), time.Second)
	t.setDuration(d.Settings, "session_timeout", p.get("session_timeout"), time.Second)
	t.security(d.Settings, p.get("security_policy"), p.get("security_mode"))
	t.opcuaUser(p, d.Settings)
	if listener {
		interval := t.duration(p.get("subscription_interval"), time.Second)
		if interval == 0 {
			interval = 100 * time.Millisecond // Telegraf's default
		}
		d.Class = t.result.class(interval)
		t.drop(p, "interval", "what is subscribed comes when it changes")
	} else {
		d.Class = t.class(p)
	}
	silently(p, "client_trace", "timestamp_format")
	if n := p.get("timestamp"); n != nil && t.text(n, "") != "source" {
		t.changed(n.at(), n.path(), "a reading carries the source's time and the gateway's")
	}
	t.drop(p, "optional_fields", "every value carries its type")
	t.opcuaNodes(d, p, telegrafGroup{kind: "", index: 0})
	for _, g := range p.get("group").items() {
		t.opcuaGroup(d, g)
	}
	for _, key := range []string{"events", "event_group", "events_group"} {
		t.drop(p, key, "events are configured as a tag of type \"events\" or \"alarms\"")
	}
	t.indexed(d)
	t.result.Devices = append(t.result.Devices, *d)
}

func (t *telegraf) opcuaUser(p *node, settings map[string]any) {
	method := p.get("auth_method")
	user, password := p.get("username"), p.get("password")
	switch t.text(method, "Anonymous") {
	case "UserName":
		t.variables(user)
		t.variables(password)
		settings["user"] = t.text(user, "")
		if s := t.text(password, ""); s != "" {
			settings["password"] = s
		}
	case "Certificate":
		t.lost(method.at(), method.path(), "set user_certificate and user_key of the device")
	}
	t.drop(p, "certificate", "the gateway has a certificate of its own")
	t.drop(p, "private_key", "the gateway has a key of its own")
}

// telegrafGroup holds what a group says for its nodes.
type telegrafGroup struct {
	uri      string
	index    int
	kind     string
	sampling *node
}

func (t *telegraf) opcuaGroup(d *Device, g *node) {
	if !g.isTable() {
		t.lost(g.at(), g.path(), "is not a table")
		return
	}
	group := telegrafGroup{
		uri: t.text(g.get("namespace_uri"), ""), index: t.integer(g.get("namespace"), 0, 0, 65535),
		kind: t.text(g.get("identifier_type"), ""), sampling: g.get("sampling_interval"),
	}
	if n := g.get("name"); n != nil {
		t.changed(n.at(), n.path(), "readings are named by device and tag")
	}
	t.drop(g, "default_tags", "readings carry no further labels")
	t.drop(g, "tags", "readings carry no further labels")
	t.opcuaNodes(d, g, group)
}

func (t *telegraf) opcuaNodes(d *Device, p *node, g telegrafGroup) {
	for _, n := range p.get("nodes").items() {
		if !n.isTable() {
			t.lost(n.at(), n.path(), "is not a table")
			continue
		}
		t.opcuaNode(d, n, g)
	}
}

func (t *telegraf) opcuaNode(d *Device, n *node, g telegrafGroup) {
	var tag point.Tag
	address := t.text(n.get("id"), "")
	if address == "" {
		uri, kind := t.text(n.get("namespace_uri"), g.uri), t.text(n.get("identifier_type"), g.kind)
		index := g.index
		if own := n.get("namespace"); t.text(own, "") != "" {
			index = t.integer(own, 0, 0, 65535)
			if n.peek("namespace_uri") == nil {
				uri = ""
			}
		}
		identifier := t.text(n.get("identifier"), "")
		if identifier == "" || kind == "" {
			t.lost(n.at(), n.path(), "identifier or identifier_type is missing")
			n.take()
			return
		}
		address = nodeAddress(uri, index, kind, identifier)
	}
	tag.Address = address
	t.monitoring(&tag, n.get("monitoring_params"), g)
	t.drop(n, "tags", "readings carry no further labels")
	t.drop(n, "default_tags", "readings carry no further labels")
	tag.Name = t.named(d.names, n.at(), "tag", t.text(n.get("name"), ""), tagName, "")
	d.add(tag, n.at())
}

func (t *telegraf) monitoring(tag *point.Tag, m *node, g telegrafGroup) {
	sampling := m.get("sampling_interval")
	if sampling == nil {
		sampling = g.sampling
	}
	if sampling != nil {
		param(tag, "sampling", t.duration(sampling, time.Second).String())
	}
	if q := t.integer(m.get("queue_size"), 0, 0, 1_000_000); q > 0 {
		param(tag, "queue", strconv.Itoa(q))
	}
	if n := m.get("discard_oldest"); !t.boolean(n, true) {
		t.lost(n.at(), n.path(), "of a full queue the oldest value goes")
	}
	filter := m.get("data_change_filter")
	if filter == nil {
		return
	}
	if filter.peek("trigger") == nil {
		param(tag, "trigger", "status") // Telegraf's default
	}
	t.trigger(tag, filter.get("trigger"))
	t.deadband(tag, filter.get("deadband_type"), filter.get("deadband_value"))
}
