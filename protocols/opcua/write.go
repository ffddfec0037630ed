package opcua

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols"
	"holdfast/protocols/opcua/channel"
	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// Write implements [protocols.Writer]: values are written to their nodes, methods
// are called, and conditions acknowledged, in the order given. Only the value is
// written, since servers refuse a status or a time with it.
func (s *session) Write(ctx context.Context, writes []protocols.Write) []error {
	ctx, release := s.link.bind(ctx)
	defer release()
	out := make([]error, len(writes))
	for from := 0; from < len(writes); {
		to := from + 1
		sp, err := parseTag(&writes[from].Tag)
		if err != nil {
			out[from] = writeError(wrong(point.BadConfigurationError, "%v", err))
			from = to
			continue
		}
		if sp.kind != aValue {
			out[from] = s.act(ctx, sp, writes[from].Value)
			from = to
			continue
		}
		specs := []*spec{sp}
		for to < len(writes) {
			next, err := parseTag(&writes[to].Tag)
			if err != nil || next.kind != aValue {
				break
			}
			specs = append(specs, next)
			to++
		}
		s.writeValues(ctx, specs, writes[from:to], out[from:to])
		from = to
	}
	return out
}

// writeError explains an error of a write. What was sent and not answered may
// have happened.
func writeError(err error) error {
	if err == nil {
		return nil
	}
	q, text := qualityOf(err)
	if !q.Bad() {
		q = point.BadUnexpectedError
	}
	_, lost := errors.AsType[*channel.Lost](err)
	return &protocols.WriteError{Quality: q, Maybe: lost, Err: &said{text, err}}
}

// said is an error in words for people that keeps its cause.
type said struct {
	text  string
	cause error
}

func (s *said) Error() string { return s.text }
func (s *said) Unwrap() error { return s.cause }

// writeValues writes consecutive values in as few requests as the server takes.
func (s *session) writeValues(ctx context.Context, specs []*spec, writes []protocols.Write, out []error) {
	c, err := s.link.get(ctx)
	var reqs []*ua.WriteValue
	var places []int
	if err == nil {
		reqs, places, err = c.writeRequests(ctx, specs, writes, out)
	}
	if err != nil {
		err = unsent(err)
		for i := range out {
			if out[i] == nil {
				out[i] = writeError(err)
			}
		}
		return
	}
	failed := false
	_ = chunks(len(reqs), c.limits.write, func(from, to int) error {
		if failed { // an earlier one has no answer: what follows was not sent
			for _, at := range places[from:to] {
				out[at] = writeError(wrong(point.BadNoCommunication, "not sent: a write before it has no answer"))
			}
			return nil
		}
		res := wire.Statuses{Type: id.WriteResponse_Encoding_DefaultBinary}
		err := c.call(ctx, &ua.WriteRequest{NodesToWrite: reqs[from:to]}, &res)
		if err == nil && len(res.Results) != to-from {
			err = &channel.Lost{Err: errCount}
		}
		for k, at := range places[from:to] {
			switch {
			case err != nil:
				out[at] = writeError(err)
			case res.Results[k]>>30 == 2:
				out[at] = writeError(res.Results[k])
			}
		}
		failed = err != nil
		return nil
	})
}

// unsent drops the mark of a lost answer: the request that got none was not the
// write itself.
func unsent(err error) error {
	if lost, ok := errors.AsType[*channel.Lost](err); ok {
		return fmt.Errorf("not sent: %w", lost.Err)
	}
	return err
}

// writeRequests resolves nodes and converts values. What cannot be written has its
// error in out.
func (c *conn) writeRequests(ctx context.Context, specs []*spec, writes []protocols.Write, out []error) (reqs []*ua.WriteValue, places []int, err error) {
	addrs := make([]*address, len(specs))
	for i, sp := range specs {
		addrs[i] = &sp.addr
	}
	found, err := c.resolve(ctx, addrs)
	if err != nil {
		return nil, nil, err
	}
	var ask []wire.NodeID
	for i, f := range found {
		if f.err == nil && !slices.Contains(ask, f.id) && (specs[i].builtin == 0 || !oneElement(specs[i].index)) {
			ask = append(ask, f.id)
		}
	}
	types, err := c.typesOf(ctx, ask)
	if err != nil {
		return nil, nil, err
	}
	for i, sp := range specs {
		if found[i].err != nil {
			out[i] = writeError(found[i].err)
			continue
		}
		var sh shape
		if k := slices.Index(ask, found[i].id); k >= 0 {
			sh = types[k]
		}
		v, err := c.variantFor(ctx, sp, found[i].id, sh, writes[i].Value)
		if err != nil {
			if _, lost := errors.AsType[*channel.Lost](err); lost {
				return nil, nil, err
			}
			out[i] = writeError(err)
			continue
		}
		reqs = append(reqs, &ua.WriteValue{
			NodeID: found[i].id.UA(), AttributeID: ua.AttributeIDValue, IndexRange: sp.index,
			Value: &ua.DataValue{EncodingMask: ua.DataValueValue, Value: v},
		})
		places = append(places, i)
	}
	return reqs, places, nil
}

// variantFor converts a value for a node.
func (c *conn) variantFor(ctx context.Context, sp *spec, n wire.NodeID, sh shape, v point.Value) (*ua.Variant, error) {
	t, rank := sp.builtin, sh.rank
	if t == 0 {
		t = sh.builtin
	}
	if t == 0 || t == wire.VariantType { // any type: take that of the value that is there
		now, err := c.readNodes(ctx, []*ua.ReadValueID{attribute(n, ua.AttributeIDValue)}, ua.TimestampsToReturnNeither)
		if err != nil {
			return nil, err
		}
		if now[0].Status>>30 == 2 {
			return nil, now[0].Status
		}
		if t = now[0].Value.Type; t == wire.Null {
			return nil, wrong(point.BadTypeMismatch, "the server does not say of which type the node is; the tag's type can")
		}
		if rank < 1 && now[0].Value.Array {
			rank = 1
		}
	}
	if sp.index != "" {
		// A range of an array is written as an array (OPC 10000-4, 5.11.4).
		if oneElement(sp.index) && v.Kind() != point.String || !strings.HasPrefix(v.Text(), "[") {
			if v.Kind() == point.String {
				v = point.StringValue("[" + string(wire.AppendText(nil, v.Text())) + "]")
			} else {
				v = point.StringValue("[" + v.String() + "]")
			}
		}
		if strings.Contains(sp.index, ",") {
			return nil, wrong(point.BadNotSupported, "elements of matrices cannot be written")
		}
		rank = 1
	}
	return toVariant(v, t, rank)
}

// act calls a method or acts on a condition.
func (s *session) act(ctx context.Context, sp *spec, v point.Value) error {
	c, err := s.link.get(ctx)
	if err != nil {
		return writeError(err)
	}
	if sp.kind == aMethod {
		return writeError(s.callMethod(ctx, c, sp, v))
	}
	if sp.kind == alarms {
		return writeError(s.actOnAlarm(ctx, c, sp, v))
	}
	return writeError(wrong(point.BadNotWritable, "events cannot be written"))
}

// callMethod calls a method with one argument, or with those of a JSON array.
// Null and an empty text are no arguments.
func (s *session) callMethod(ctx context.Context, c *conn, sp *spec, v point.Value) error {
	method, object, err := c.method(ctx, sp)
	if err != nil {
		return unsent(err)
	}
	types, err := c.arguments(ctx, method)
	if err != nil {
		return unsent(err)
	}
	args, err := argumentsOf(v, types)
	if err != nil {
		return err
	}
	res, err := c.invoke(ctx, object, method, args)
	if err != nil {
		return err
	}
	p := &wire.Printer{Limit: s.settings.maxText, Struct: c.dictionary().printer(ctx, c)}
	text := []byte{'['}
	for i := range res.Output {
		if i > 0 {
			text = append(text, ',')
		}
		if text, err = p.Append(text, &res.Output[i]); err != nil {
			s.keep(sp.tag.Name, point.Sample{Quality: point.BadDecodingError, Detail: err.Error()})
			return nil // it was called all the same
		}
	}
	s.keep(sp.tag.Name, point.Sample{Value: point.StringValue(string(append(text, ']'))), Source: s.link.clk.Now().UTC()})
	return nil
}

// method finds a tag's method and the object to call it on.
func (c *conn) method(ctx context.Context, sp *spec) (method, object wire.NodeID, err error) {
	addrs := []*address{&sp.addr}
	if sp.object != nil {
		addrs = append(addrs, sp.object)
	}
	found, err := c.resolve(ctx, addrs)
	if err != nil {
		return method, object, err
	}
	for _, f := range found {
		if f.err != nil {
			return method, object, f.err
		}
	}
	method = found[0].id
	if sp.object != nil {
		return method, found[1].id, nil
	}
	up, err := c.browse(ctx, browseUp(method, id.HasComponent))
	if err != nil {
		return method, object, err
	}
	for _, r := range up {
		if n, ok := c.local(r.Target); ok && r.Class == ua.NodeClassObject {
			if !object.IsNull() {
				return method, object, wrong(point.BadConfigurationError, "several objects have the method: say which with the key \"object\"")
			}
			object = n
		}
	}
	if object.IsNull() {
		return method, object, wrong(point.BadConfigurationError, "no object has the method: say which with the key \"object\"")
	}
	return method, object, nil
}

// An argument is one input of a method.
type argument struct {
	name    string
	builtin uint8
	rank    int32
}

// arguments reads the InputArguments of a method; a method without has none.
func (c *conn) arguments(ctx context.Context, method wire.NodeID) ([]argument, error) {
	found, err := c.translate(ctx, []*ua.BrowsePath{
		browsePath(method, wire.Num(0, id.HasProperty), []wire.Name{{Name: "InputArguments"}}),
	})
	if err != nil || found[0].err != nil {
		return nil, err
	}
	values, err := c.readNodes(ctx, []*ua.ReadValueID{attribute(found[0].id, ua.AttributeIDValue)}, ua.TimestampsToReturnNeither)
	if err != nil {
		return nil, err
	}
	v := &values[0].Value
	if values[0].Status>>30 != 0 || v.Type != wire.ExtensionObject || !v.Array {
		return nil, nil
	}
	types := c.dictionary()
	r := v.Reader()
	var out []argument
	for range v.Len {
		body := wire.NewReader(r.Extension().Body)
		a := argument{name: body.Text()}
		typ := body.ID()
		a.rank = body.I32()
		if err := errors.Join(r.Err(), body.Err()); err != nil {
			return nil, err
		}
		types.mu.Lock()
		a.builtin, err = types.builtinOf(ctx, c, typ)
		types.mu.Unlock()
		if err != nil {
			return nil, wrong(point.BadNotSupported, "argument %q: %v", a.name, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// argumentsOf converts what was written to the arguments of a method.
func argumentsOf(v point.Value, types []argument) ([]*ua.Variant, error) {
	var given []point.Value
	switch text := strings.TrimSpace(v.Text()); {
	case v.Kind() == point.Null, v.Kind() == point.String && text == "" && len(types) == 0:
	case v.Kind() == point.String && strings.HasPrefix(text, "["):
		var err error
		if given, err = jsonArray(text); err != nil {
			return nil, err
		}
	default:
		given = []point.Value{v}
	}
	if len(given) != len(types) {
		var names []string
		for _, a := range types {
			names = append(names, a.name+" "+wire.TypeName(a.builtin))
		}
		return nil, wrong(point.BadInvalidArgument, "%d arguments are given; the method takes %d: (%s)", len(given), len(types), strings.Join(names, ", "))
	}
	var out []*ua.Variant
	for i, a := range types {
		x, err := toVariant(given[i], a.builtin, a.rank)
		if err != nil {
			return nil, fmt.Errorf("argument %q: %w", a.name, err)
		}
		out = append(out, x)
	}
	return out, nil
}

// invoke calls one method.
func (c *conn) invoke(ctx context.Context, object, method wire.NodeID, args []*ua.Variant) (*wire.CallResult, error) {
	var res wire.Called
	err := c.call(ctx, &ua.CallRequest{MethodsToCall: []*ua.CallMethodRequest{{
		ObjectID: object.UA(), MethodID: method.UA(), InputArguments: args,
	}}}, &res)
	if err != nil {
		return nil, err
	}
	if len(res.Results) != 1 {
		return nil, &channel.Lost{Err: errCount}
	}
	r := &res.Results[0]
	if r.Status>>30 == 2 {
		for i, in := range r.Inputs {
			if in>>30 == 2 {
				return nil, wrong(point.Quality(r.Status), "the server answers %s: argument %d: %s", wire.StatusText(r.Status), i, wire.StatusText(in))
			}
		}
		return nil, r.Status
	}
	return r, nil
}

// An order is what is written to a tag of type alarms, as JSON. One of the verbs
// is given, with the address of a condition as it stands in the alarm's text.
type order struct {
	Acknowledge string `json:"acknowledge"`
	Confirm     string `json:"confirm"`
	AddComment  string `json:"add_comment"`
	Enable      string `json:"enable"`
	Disable     string `json:"disable"`
	Comment     string `json:"comment"`
	EventID     string `json:"event_id"` // "" = the last event of the condition
}

// actOnAlarm acknowledges, confirms or comments on a condition (OPC 10000-9,
// 5.5.6 and 5.7.3).
func (s *session) actOnAlarm(ctx context.Context, c *conn, sp *spec, v point.Value) error {
	var o order
	d := json.NewDecoder(strings.NewReader(v.Text()))
	d.DisallowUnknownFields()
	if err := d.Decode(&o); err != nil {
		return wrong(point.BadInvalidArgument, "want JSON such as {\"acknowledge\":\"<condition>\",\"comment\":\"...\"}: %v", err)
	}
	verbs := []struct {
		condition string
		method    uint32
		bare      bool // no event, no comment
	}{
		{o.Acknowledge, id.AcknowledgeableConditionType_Acknowledge, false}, {o.Confirm, id.AcknowledgeableConditionType_Confirm, false},
		{o.AddComment, id.ConditionType_AddComment, false}, {o.Enable, id.ConditionType_Enable, true}, {o.Disable, id.ConditionType_Disable, true},
	}
	verbs = slices.DeleteFunc(verbs, func(v struct {
		condition string
		method    uint32
		bare      bool
	}) bool {
		return v.condition == ""
	})
	if len(verbs) != 1 {
		return wrong(point.BadInvalidArgument, "want exactly one of acknowledge, confirm, add_comment, enable and disable")
	}
	verb := verbs[0]
	cond, err := c.condition(ctx, verb.condition)
	if err != nil {
		return unsent(err)
	}
	var args []*ua.Variant
	if !verb.bare {
		event, err := s.eventFor(sp, verb.condition, o.EventID)
		if err != nil {
			return err
		}
		args = []*ua.Variant{ua.MustVariant(event), ua.MustVariant(ua.NewLocalizedText(o.Comment))}
	}
	_, err = c.invoke(ctx, cond, wire.Num(0, verb.method), args)
	return err
}

func (c *conn) condition(ctx context.Context, text string) (wire.NodeID, error) {
	a, err := parseAddress(text)
	if err != nil {
		return wire.NodeID{}, wrong(point.BadInvalidArgument, "condition: %v", err)
	}
	found, err := c.resolve(ctx, []*address{&a})
	if err == nil {
		err = found[0].err
	}
	if err != nil {
		return wire.NodeID{}, err
	}
	return found[0].id, nil
}

// eventFor returns the id of the event to act on.
func (s *session) eventFor(sp *spec, condition, given string) ([]byte, error) {
	if given != "" {
		return eventID(given)
	}
	note, ok := s.link.alarms.find(sp.tag.Name, condition)
	if !ok {
		return nil, wrong(point.BadInvalidArgument, "no event of condition %q has come; give its event_id", condition)
	}
	return note.event, nil
}
