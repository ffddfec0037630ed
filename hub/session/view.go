package session

import (
	"bytes"
	"encoding/binary"
	"strings"

	"holdfast/hub"
	"holdfast/hub/route"
)

// router evaluates routes for one goroutine.
type router struct {
	scratch route.Scratch
	view    view
	encoded hub.Targets
}

// fieldSender is the principal of the gateway's own field daemon, by itself or
// before a slash and a client identifier; what it publishes on field/<device>/readings counts as output <device> of the module
// "field".
const fieldSender = "field"

// targets sets r.Targets and returns the journal class: the best priority among
// them.
func (rt *router) targets(t *route.Table, r *hub.Record) (class uint8) {
	if t == nil || t.Len() == 0 {
		return hub.DefaultPriority
	}
	rt.view.set(r)
	list := t.Match(&rt.view, &rt.scratch)
	if len(list) == 0 {
		return hub.DefaultPriority
	}
	class = hub.LowestPriority
	rt.encoded = rt.encoded[:0]
	for _, to := range list {
		var expires int64
		if to.TTL > 0 {
			expires = r.Received + to.TTL.Microseconds()
		}
		if len(rt.encoded)+10+len(to.Endpoint) > hub.MaxTargets {
			break
		}
		rt.encoded = rt.encoded.Append(to.Endpoint, to.Priority, expires)
		class = min(class, to.Priority)
	}
	r.Targets = rt.encoded
	return class
}

// view shows a record to the routes.
type view struct {
	r      *hub.Record
	device []byte // the field device, or nil
	source []byte
}

func (v *view) set(r *hub.Record) {
	v.r, v.device = r, nil
	v.source = v.source[:0]
	if name, _, _ := bytes.Cut(r.Sender, []byte("/")); string(name) == fieldSender {
		if rest, ok := bytes.CutPrefix(r.Topic, []byte("field/")); ok {
			if device, ok := bytes.CutSuffix(rest, []byte("/readings")); ok && len(device) > 0 && bytes.IndexByte(device, '/') < 0 {
				v.device = device
			}
		}
	}
}

// Source implements [route.Message].
func (v *view) Source() []byte {
	if len(v.source) > 0 {
		return v.source
	}
	if v.device != nil {
		v.source = append(v.source, "/messages/modules/field/outputs/"...)
		v.source = append(v.source, v.device...)
	} else {
		v.source = append(v.source, "/messages/topics/"...)
		v.source = append(v.source, v.r.Topic...)
	}
	v.source = append(v.source, '/')
	return v.source
}

// Property implements [route.Message]: MQTT 5 user properties are application
// properties. Of several with the same name the last one counts.
func (v *view) Property(name string) (value []byte, ok bool) {
	exact := false
	eachProperty(v.r.Props, func(id byte, key, val []byte) {
		if id != propUser {
			return
		}
		if string(key) == name {
			value, ok, exact = val, true, true
		} else if !exact && len(key) == len(name) && strings.EqualFold(name, string(key)) {
			value, ok = val, true
		}
	})
	return value, ok
}

// System implements [route.Message].
func (v *view) System(name string) (value []byte, ok bool) {
	var want byte
	switch name {
	case "topic":
		return v.r.Topic, true
	case "userId":
		return v.r.Sender, true
	case "connectionModuleId":
		return []byte(fieldSender), v.device != nil
	case "outputName":
		return v.device, v.device != nil
	case "contentType":
		want = propContentType
	case "correlationId", "cid":
		want = propCorrelation
	case "contentEncoding":
		return v.encoding()
	default:
		return nil, false
	}
	eachProperty(v.r.Props, func(id byte, _, val []byte) {
		if id == want {
			value, ok = val, true
		}
	})
	return value, ok
}

var utf8Name = []byte("utf-8")

// encoding is UTF-8 when the payload format indicator says so, and for JSON,
// which has no other (RFC 8259, 8.1).
func (v *view) encoding() (value []byte, ok bool) {
	eachProperty(v.r.Props, func(id byte, _, val []byte) {
		if id == propPayloadFormat && len(val) == 1 && val[0] == 1 {
			value, ok = utf8Name, true
		}
		if id == propContentType && bytes.EqualFold(val, []byte("application/json")) {
			value, ok = utf8Name, true
		}
	})
	return value, ok
}

// Body implements [route.Message].
func (v *view) Body() []byte { return v.r.Payload }

// Identifiers of the MQTT 5 properties of a publication (2.2.2.2).
const (
	propPayloadFormat = 0x01
	propContentType   = 0x03
	propResponseTopic = 0x08
	propCorrelation   = 0x09
	propUser          = 0x26
)

// eachProperty calls f for each property of a publication. What does not parse
// ends the list; the engine has checked it.
func eachProperty(p []byte, f func(id byte, key, val []byte)) {
	str := func() ([]byte, bool) {
		if len(p) < 2 {
			return nil, false
		}
		n := 2 + int(binary.BigEndian.Uint16(p))
		if len(p) < n {
			return nil, false
		}
		s := p[2:n]
		p = p[n:]
		return s, true
	}
	for len(p) > 1 {
		id := p[0]
		p = p[1:]
		var key, val []byte
		ok := true
		switch id {
		case propPayloadFormat:
			val, p = p[:1], p[1:]
		case propContentType, propResponseTopic, propCorrelation:
			val, ok = str()
		case propUser:
			if key, ok = str(); ok {
				val, ok = str()
			}
		default:
			return
		}
		if !ok {
			return
		}
		f(id, key, val)
	}
}
