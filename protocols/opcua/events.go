package opcua

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// goodNoData is OPC UA's GoodNoData: all is well and there is no value.
const goodNoData point.Quality = 0x00A50000

// listening is the sample of an event tag that waits for an event.
var listening = point.Sample{Quality: goodNoData, Detail: "no event yet"}

// An eventField is one field that is asked for with every event.
type eventField struct {
	key  string // in the JSON text
	typ  uint32 // event type that has it
	path []wire.Name
	attr ua.AttributeID // NodeId for the condition itself, else Value
}

func std(key string, typ uint32, path ...string) eventField {
	f := eventField{key: key, typ: typ, attr: ua.AttributeIDValue}
	for _, p := range path {
		f.path = append(f.path, wire.Name{Name: p})
	}
	return f
}

// eventFields are the fields of every event (OPC 10000-5, 6.4.2).
func eventFields() []eventField {
	const t = id.BaseEventType
	return []eventField{
		std("event_id", t, "EventId"), std("event_type", t, "EventType"), std("source", t, "SourceNode"),
		std("source_name", t, "SourceName"), std("time", t, "Time"), std("message", t, "Message"),
		std("severity", t, "Severity"),
	}
}

// The places of the fields that are looked at here.
const (
	fieldID = iota
	fieldType
	fieldSource
	fieldSourceName
	fieldTime
	fieldMessage
	fieldSeverity
	fieldCondition // of alarms
)

// alarmFields are those of conditions besides (OPC 10000-9, 5.5 to 5.8).
func alarmFields() []eventField {
	const (
		c = id.ConditionType
		a = id.AcknowledgeableConditionType
		l = id.AlarmConditionType
	)
	return []eventField{
		{key: "condition", typ: c, attr: ua.AttributeIDNodeID},
		std("condition_name", c, "ConditionName"), std("branch", c, "BranchId"), std("retain", c, "Retain"),
		std("enabled", c, "EnabledState", "Id"), std("comment", c, "Comment"),
		std("acked", a, "AckedState", "Id"), std("confirmed", a, "ConfirmedState", "Id"),
		std("active", l, "ActiveState", "Id"), std("state", l, "ActiveState"), std("suppressed", l, "SuppressedState", "Id"),
	}
}

// fieldsOf returns all fields of a tag.
func fieldsOf(s *spec) []eventField {
	out := eventFields()
	if s.kind == alarms {
		out = append(out, alarmFields()...)
	}
	for _, path := range s.fields {
		var key []string
		for _, n := range path {
			key = append(key, n.Name)
		}
		out = append(out, eventField{key: strings.Join(key, "/"), typ: id.BaseEventType, path: path, attr: ua.AttributeIDValue})
	}
	return out
}

func selectField(typ wire.NodeID, path ...wire.Name) *ua.SimpleAttributeOperand {
	o := &ua.SimpleAttributeOperand{TypeDefinitionID: typ.UA(), AttributeID: ua.AttributeIDValue}
	for _, n := range path {
		o.BrowsePath = append(o.BrowsePath, &ua.QualifiedName{NamespaceIndex: n.NS, Name: n.Name})
	}
	return o
}

func ofType(typ wire.NodeID) *ua.ContentFilterElement {
	return &ua.ContentFilterElement{
		FilterOperator: ua.FilterOperatorOfType,
		FilterOperands: []*ua.ExtensionObject{ua.NewExtensionObject(&ua.LiteralOperand{Value: ua.MustVariant(typ.UA())})},
	}
}

func where(elements ...*ua.ContentFilterElement) *ua.ContentFilter {
	return &ua.ContentFilter{Elements: elements}
}

// eventFilter describes what a tag wants to hear of. The least severity is
// looked at here, since not every server compares.
func eventFilter(s *spec, ns namespaces) (*ua.EventFilter, error) {
	f := &ua.EventFilter{WhereClause: where()}
	for _, field := range fieldsOf(s) {
		o := selectField(wire.Num(0, field.typ), field.path...)
		o.AttributeID = field.attr
		f.SelectClauses = append(f.SelectClauses, o)
	}
	typ := wire.Num(0, id.BaseEventType)
	if s.kind == alarms {
		typ = wire.Num(0, id.ConditionType)
	}
	if s.event != nil {
		known := fixedNode(s.event, ns)
		if known.err != nil {
			return nil, known.err
		}
		typ = known.id
	}
	if !typ.Std(id.BaseEventType) {
		f.WhereClause = where(ofType(typ))
	}
	return f, nil
}

// event hands on one event. The caller holds mu.
func (s *subscription) event(ctx context.Context, c *conn, it *item, fields []wire.Variant) {
	if len(fields) <= fieldSeverity {
		return
	}
	if typ, ok := nodeOf(&fields[fieldType]); ok {
		switch {
		case typ.Std(id.RefreshStartEventType), typ.Std(id.RefreshEndEventType):
			return
		case typ.Std(id.RefreshRequiredEventType):
			if it.kind == alarms {
				s.refresh(ctx, c)
			}
			return
		}
	}
	if fields[fieldSeverity].Num < uint64(it.severity) {
		return
	}
	if it.kind == alarms && len(fields) > fieldCondition && !s.l.alarms.note(it.tag.Name, c, fields) {
		return // a refresh repeats what is known
	}
	sample := point.Sample{Source: timeOf(&fields[fieldTime])}
	text, err := eventText(ctx, c, it.spec, fields)
	if err != nil {
		sample.Quality, sample.Detail = point.BadDecodingError, err.Error()
	} else {
		sample.Value = point.StringValue(text)
	}
	it.gap = ""
	s.emit(it, sample)
}

// eventText returns the JSON of an event: its fields in their order, without
// those that are null.
func eventText(ctx context.Context, c *conn, s *spec, fields []wire.Variant) (string, error) {
	p := &wire.Printer{Limit: c.link.s.maxText, Struct: c.dictionary().printer(ctx, c)}
	ns := c.namespaces()
	out := []byte{'{'}
	for i, f := range fieldsOf(s) {
		if i >= len(fields) || fields[i].IsNull() {
			continue
		}
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(wire.AppendText(out, f.key), ':')
		if node, ok := nodeOf(&fields[i]); ok {
			if node.IsNull() {
				out = append(out, "null"...)
			} else {
				out = wire.AppendText(out, ns.text(node))
			}
			continue
		}
		var err error
		if out, err = p.Append(out, &fields[i]); err != nil {
			return "", err
		}
	}
	return string(append(out, '}')), nil
}

func nodeOf(v *wire.Variant) (wire.NodeID, bool) {
	if v.Array || v.Type != wire.NodeIDType || v.Err != nil {
		return wire.NodeID{}, false
	}
	return v.Reader().ID(), true
}

func timeOf(v *wire.Variant) time.Time {
	if v.Array || v.Type != wire.DateTime {
		return time.Time{}
	}
	return wire.TimeOf(int64(v.Num))
}

// refresh asks the server to tell the state of all conditions again
// (OPC 10000-9, 5.5.7). Servers without conditions refuse, and that is all.
func (s *subscription) refresh(ctx context.Context, c *conn) {
	var res wire.Called
	_ = c.call(ctx, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{
		ObjectID: ua.NewNumericNodeID(0, id.ConditionType), MethodID: ua.NewNumericNodeID(0, id.ConditionType_ConditionRefresh),
		InputArguments: []*ua.Variant{ua.MustVariant(s.number())},
	}}}, &res)
}

// missedEvents tells that events may be missing. The caller holds mu.
func (s *subscription) missedEvents(ctx context.Context, c *conn, it *item) {
	s.out.Lock()
	last := it.last.Source
	s.out.Unlock()
	s.tell(it, gapSample(last, s.l.clk.Now(), it.gap))
	s.tell(it, listening)
	it.gap = ""
	if it.kind == alarms {
		s.refresh(ctx, c)
	}
}

// An alarmBook remembers the last event of each condition, by tag: acknowledging
// needs its id.
type alarmBook struct {
	mu   sync.Mutex
	tags map[string]map[string]alarmNote
}

type alarmNote struct {
	condition wire.NodeID
	event     []byte
}

// maxConditions bounds what is remembered for one tag; conditions beyond it can
// be acknowledged by giving the id of the event.
const maxConditions = 10_000

// note remembers an event. It reports whether it is a new one.
func (a *alarmBook) note(tag string, c *conn, fields []wire.Variant) bool {
	cond, ok := nodeOf(&fields[fieldCondition])
	if !ok || fields[fieldID].Type != wire.ByteString {
		return true
	}
	event := fields[fieldID].Reader().Bytes()
	key := c.namespaces().text(cond)
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tags == nil {
		a.tags = map[string]map[string]alarmNote{}
	}
	book := a.tags[tag]
	if book == nil {
		book = map[string]alarmNote{}
		a.tags[tag] = book
	}
	old, known := book[key]
	if known && string(old.event) == string(event) {
		return false
	}
	if known || len(book) < maxConditions {
		book[key] = alarmNote{cond, append([]byte(nil), event...)}
	}
	return true
}

// find returns the last event of a condition.
func (a *alarmBook) find(tag, condition string) (alarmNote, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	n, ok := a.tags[tag][condition]
	return n, ok
}
