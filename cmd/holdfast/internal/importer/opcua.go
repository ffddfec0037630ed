package importer

import (
	"fmt"
	"strings"

	"holdfast/protocols/point"
)

// nodeAddress writes an OPC UA node as our adapter reads it: by namespace URI
// where one is known, else by index.
func nodeAddress(uri string, index int, kind, identifier string) string {
	id := kind + "=" + identifier
	switch {
	case uri != "":
		return "nsu=" + strings.NewReplacer("%", "%25", ";", "%3B").Replace(uri) + ";" + id
	case index > 0:
		return fmt.Sprintf("ns=%d;%s", index, id)
	}
	return id
}

// policies are the security policies that our adapter has, by their names and
// the ends of their URIs.
var policies = []string{"None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"}

// security sets policy and mode of an OPC UA device. What a server has to be asked
// for is left to the adapter, which takes the best.
func (r *reader) security(settings map[string]any, policy, mode *node) {
	p := r.text(policy, "")
	p = p[strings.LastIndexByte(p, '#')+1:]
	m := r.text(mode, "")
	known := ""
	for _, name := range policies {
		if strings.EqualFold(p, name) {
			known = name
		}
	}
	switch {
	case strings.EqualFold(m, "none") || known == "None":
		settings["security_policy"] = "None"
		return
	case known != "":
		settings["security_policy"] = known
	case p != "" && !strings.EqualFold(p, "auto"):
		r.changed(policy.at(), policy.path(), "policy %q is not used any more: the best that the server has is taken", p)
	}
	switch {
	case m == "" || strings.EqualFold(m, "auto") || strings.EqualFold(m, "best") || strings.EqualFold(m, "NotNone"):
	case strings.EqualFold(m, "sign"):
		settings["security_mode"] = "Sign"
	case strings.EqualFold(m, "signandencrypt"):
		settings["security_mode"] = "SignAndEncrypt"
	default:
		r.lost(mode.at(), mode.path(), "security mode %q is not known", m)
	}
}

// trigger sets when a server tells of a value.
func (r *reader) trigger(t *point.Tag, n *node) {
	switch text := r.text(n, ""); strings.ToLower(text) {
	case "", "statusvalue":
	case "status":
		param(t, "trigger", "status")
	case "statusvaluetimestamp":
		param(t, "trigger", "timestamp")
	default:
		r.lost(n.at(), n.path(), "trigger %q is not known", text)
	}
}

// deadband sets the dead-band that a server is asked for.
func (r *reader) deadband(t *point.Tag, kind, value *node) {
	v := r.number(value, 0)
	switch text := r.text(kind, ""); strings.ToLower(text) {
	case "", "none":
		if v > 0 && kind == nil {
			r.lost(value.at(), value.path(), "a dead-band needs its type")
		}
	case "absolute":
		if v > 0 {
			t.Dead = point.Deadband{Kind: point.Absolute, Value: v}
		}
	case "percent":
		if v > 0 && v <= 100 {
			param(t, "deadband_percent", fmt.Sprint(v))
		} else if v != 0 {
			r.lost(value.at(), value.path(), "%v is not between 0 and 100 percent", v)
		}
	default:
		r.lost(kind.at(), kind.path(), "dead-band %q is not known", text)
	}
}

// indexed notes once for a device that its nodes are named by index.
func (r *reader) indexed(d *Device) {
	for i := range d.Tags {
		if strings.HasPrefix(d.Tags[i].Address, "ns=") {
			r.changed(d.lines[d.Tags[i].Name], "device "+d.Name,
				"nodes are named by namespace index, which a server may change; \"holdfast browse\" writes them by URI")
			return
		}
	}
}
