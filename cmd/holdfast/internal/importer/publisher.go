package importer

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"holdfast/protocols/point"
)

// publisher reads a file of published nodes.
type publisher struct {
	reader
	result  Result
	names   names
	devices map[string]*Device // by what makes a session
	order   []*Device
}

func readPublisher(in Input, _ Options) (*Result, error) {
	root, err := parseJSON(in)
	if err != nil {
		return nil, err
	}
	p := &publisher{reader: reader{file: in.Name}, names: names{}, devices: map[string]*Device{}}
	entries := root
	if root.isTable() && root.peek("PublishedNodes") != nil {
		entries = root.get("PublishedNodes")
	}
	found := false
	for _, e := range entries.items() {
		if e.isTable() && e.peek("EndpointUrl") != nil {
			found = true
			p.entry(e)
			continue
		}
		p.lost(e.at(), e.path(), "is no entry with an EndpointUrl")
	}
	if !found {
		return nil, fmt.Errorf("%s: there is no entry with an EndpointUrl", in.Name)
	}
	for _, d := range p.order {
		p.indexed(d)
		p.result.Devices = append(p.result.Devices, *d)
	}
	p.leftovers(root)
	p.result.Notes = p.notes
	return &p.result, nil
}

// target is what an entry says about its session.
type target struct {
	name     string
	settings map[string]any
	line     int
	key      string
}

// entry reads one entry: nodes of one endpoint.
func (p *publisher) entry(e *node) {
	endpoint := p.text(e.get("EndpointUrl"), "")
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "" {
		p.lost(e.peek("EndpointUrl").at(), "EndpointUrl", "%q is not opc.tcp://host:port", endpoint)
		e.take()
		return
	}
	t := target{settings: map[string]any{"endpoint": endpoint}, line: e.at()}
	p.entrySecurity(e, t.settings)
	t.name = p.text(e.get("DataSetWriterGroup"), "")
	if t.name == "" {
		t.name = u.Hostname()
	}
	t.key = fmt.Sprint(t.name, t.settings)
	publishing := p.interval(e, "DataSetPublishingInterval", time.Millisecond)
	silently(e, "DataSetWriterId", "Version", "LastChangeTimespan", "LastChangeDateTime", "LastChange", "DataSetName")
	p.drop(e, "NodeId", "an entry with one NodeId is of an old form: write OpcNodes")
	for _, n := range e.get("OpcNodes").items() {
		if !n.isTable() {
			p.lost(n.at(), n.path(), "is not a table")
			continue
		}
		p.node(t, n, publishing)
	}
}

func (p *publisher) entrySecurity(e *node, settings map[string]any) {
	secure := e.get("UseSecurity")
	policy, mode := e.get("EndpointSecurityPolicy"), e.get("EndpointSecurityMode")
	if !p.boolean(secure, false) && policy == nil && mode == nil {
		settings["security_policy"] = "None"
	} else {
		p.security(settings, policy, mode)
	}
	method := e.get("OpcAuthenticationMode")
	user, password := e.get("OpcAuthenticationUsername"), e.get("OpcAuthenticationPassword")
	switch strings.ToLower(p.text(method, "Anonymous")) {
	case "anonymous":
	case "usernamepassword":
		settings["user"] = p.text(user, "")
		if s := p.text(password, ""); s != "" {
			settings["password"] = s
		}
	default:
		p.lost(method.at(), method.path(), "set user_certificate and user_key of the device")
	}
	p.drop(e, "EncryptedAuthUsername", "it cannot be read: set user")
	p.drop(e, "EncryptedAuthPassword", "it cannot be read: set password")
}

// interval reads a time that is given in a unit, or as a time span, which goes first.
func (p *publisher) interval(n *node, key string, unit time.Duration) time.Duration {
	number, span := n.get(key), n.get(key+"Timespan")
	if span == nil {
		return p.duration(number, unit)
	}
	d, err := parseTimespan(p.text(span, ""))
	if err != nil {
		p.lost(span.at(), span.path(), "%v", err)
	}
	return d
}

// parseTimespan reads d.hh:mm:ss.fff as .NET writes it.
func parseTimespan(s string) (time.Duration, error) {
	bad := fmt.Errorf("%q is not a time span such as 00:00:01.5", s)
	days := 0.0
	rest := s
	if head, tail, ok := strings.Cut(s, "."); ok && strings.Contains(tail, ":") {
		d, err := strconv.ParseUint(head, 10, 16)
		if err != nil {
			return 0, bad
		}
		days, rest = float64(d), tail
	}
	parts := strings.Split(rest, ":")
	if len(parts) != 3 {
		return 0, bad
	}
	seconds := days * 86400
	for i, scale := range []float64{3600, 60, 1} {
		f, err := strconv.ParseFloat(parts[i], 64)
		if err != nil || !(f >= 0) || f > 1e6 {
			return 0, bad
		}
		seconds += f * scale
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

// device returns the device of a target. Nodes that are read cyclically are in
// one of their own: a device is subscribed or polled.
func (p *publisher) device(t target, cyclic bool) *Device {
	key := fmt.Sprint(cyclic, t.key)
	if d := p.devices[key]; d != nil {
		return d
	}
	name := t.name
	if cyclic {
		name += "-cyclic"
	}
	d := &Device{Protocol: "opcua", Subscribe: !cyclic, Settings: t.settings, line: t.line, names: names{}}
	d.Name = p.named(p.names, t.line, "group", name, deviceName, "")
	p.devices[key] = d
	p.order = append(p.order, d)
	return d
}

// node reads one node.
func (p *publisher) node(target target, n *node, publishing time.Duration) {
	id := p.text(n.get("Id"), "")
	if expanded := p.text(n.get("ExpandedNodeId"), ""); id == "" {
		id = expanded
	}
	address, err := publisherAddress(id)
	what := "node " + id
	switch {
	case err != nil:
		p.lost(n.at(), what, "%v", err)
		n.take()
		return
	case n.peek("EventFilter") != nil || n.peek("ConditionHandling") != nil:
		p.lost(n.at(), what, "events are configured as a tag of type \"events\" or \"alarms\"")
		n.take()
		return
	case !strings.EqualFold(p.text(n.get("AttributeId"), "Value"), "Value"):
		p.lost(n.at(), what, "only the attribute Value can be a tag")
		n.take()
		return
	}
	t := point.Tag{Address: address}
	if list := n.get("BrowsePath"); list != nil {
		list.take()
		if len(list.items()) > 0 {
			p.lost(n.at(), what, "BrowsePath: write the address as path=… below the node")
			n.take()
			return
		}
	}
	p.timing(&t, n, publishing)
	if index := p.text(n.get("IndexRange"), ""); index != "" {
		param(&t, "index", index)
	}
	if q := p.integer(n.get("QueueSize"), 0, 0, 1_000_000); q > 0 {
		param(&t, "queue", strconv.Itoa(q))
	}
	if c := n.get("DiscardNew"); p.boolean(c, false) {
		p.lost(c.at(), c.path(), "of a full queue the oldest value goes")
	}
	p.trigger(&t, n.get("DataChangeTrigger"))
	p.deadband(&t, n.get("DeadbandType"), n.get("DeadbandValue"))
	t.Reduce.SkipFirst = p.boolean(n.get("SkipFirst"), false)
	cyclic := p.boolean(n.get("UseCyclicRead"), false)
	if c := n.get("RegisterNode"); p.boolean(c, false) {
		p.lost(c.at(), c.path(), "nodes are not registered")
	}
	silently(n, "FetchDisplayName", "DataSetClassFieldId")
	d := p.device(target, cyclic)
	t.Name = p.named(d.names, n.at(), "node", p.nodeName(n, id), tagName, "")
	d.add(t, n.at())
}

// timing sets when a node is sampled, published and told of again.
func (p *publisher) timing(t *point.Tag, n *node, publishing time.Duration) {
	if own := p.interval(n, "OpcPublishingInterval", time.Millisecond); own > 0 {
		publishing = own
	}
	t.Class = p.result.class(publishing)
	sampled := n.peek("OpcSamplingInterval") != nil || n.peek("OpcSamplingIntervalTimespan") != nil
	if sampling := p.interval(n, "OpcSamplingInterval", time.Millisecond); sampled {
		param(t, "sampling", sampling.String())
	}
	t.Reduce.Heartbeat = p.interval(n, "HeartbeatInterval", time.Second)
}

// nodeName is what the publisher calls a node, or what its id ends with.
func (p *publisher) nodeName(n *node, id string) string {
	name, field := p.text(n.get("DisplayName"), ""), p.text(n.get("DataSetFieldId"), "")
	switch {
	case name != "":
		return name
	case field != "":
		return field
	}
	return id[strings.LastIndexAny(id, "=#;")+1:]
}

// publisherAddress reads a node id in one of the forms that the publisher takes:
// i=1, ns=2;s=x, nsu=uri;s=x, uri#s=x.
func publisherAddress(id string) (string, error) {
	bad := fmt.Errorf("%q is not a node id", id)
	uri, rest := "", id
	if before, after, ok := strings.Cut(id, "#"); ok && !strings.HasPrefix(id, "ns") && strings.Contains(before, ":") {
		uri, rest = before, after
	}
	if after, ok := strings.CutPrefix(rest, "nsu="); ok {
		at := -1
		for _, kind := range []string{";i=", ";s=", ";g=", ";b="} {
			if i := strings.Index(after, kind); i > 0 && (at < 0 || i < at) {
				at = i
			}
		}
		if at < 0 {
			return "", bad
		}
		uri, rest = strings.NewReplacer("%3B", ";", "%3b", ";", "%25", "%").Replace(after[:at]), after[at+1:]
	}
	index := 0
	if after, ok := strings.CutPrefix(rest, "ns="); ok {
		number, tail, ok := strings.Cut(after, ";")
		n, err := strconv.ParseUint(number, 10, 16)
		if !ok || err != nil || uri != "" {
			return "", bad
		}
		index, rest = int(n), tail
	}
	kind, identifier, ok := strings.Cut(rest, "=")
	if !ok || identifier == "" || !strings.Contains("isgb", kind) || len(kind) != 1 {
		return "", bad
	}
	if _, err := strconv.ParseUint(identifier, 10, 32); kind == "i" && err != nil {
		return "", bad
	}
	return nodeAddress(uri, index, kind, identifier), nil
}
