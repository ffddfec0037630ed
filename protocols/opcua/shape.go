package opcua

import (
	"context"
	"errors"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// A shape is what a session knows of a variable.
type shape struct {
	dataType wire.NodeID
	builtin  uint8 // 0 = unknown
	rank     int32 // OPC 10000-3, 5.6.2: -1 scalar, n dimensions, 0 and below any
	access   uint8 // AccessLevel bits for our user
	ranged   bool  // span and unit were asked for
	span     *Range
	unit     string
}

// A Range is an EURange: what a variable may be in normal work.
type Range struct{ Low, High float64 }

// typeName returns the type as it may stand in a tag.
func (s *shape) typeName() string {
	if s.builtin == 0 {
		return ""
	}
	return wire.TypeName(s.builtin)
}

func (s *shape) accessOf() point.Access {
	switch read, write := s.access&1 != 0, s.access&2 != 0; {
	case read && write:
		return point.ReadWrite
	case write:
		return point.WriteOnly
	}
	return point.ReadOnly
}

// typesOf returns the types of variables, from memory where it can.
func (c *conn) typesOf(ctx context.Context, nodes []wire.NodeID) ([]shape, error) {
	var ask []wire.NodeID
	c.mu.Lock()
	for _, n := range nodes {
		if _, ok := c.shapes[n]; !ok {
			ask = append(ask, n)
		}
	}
	c.mu.Unlock()
	var reqs []*ua.ReadValueID
	for _, n := range ask {
		reqs = append(reqs, attribute(n, ua.AttributeIDDataType), attribute(n, ua.AttributeIDValueRank), attribute(n, ua.AttributeIDUserAccessLevel))
	}
	values, err := c.readNodes(ctx, reqs, ua.TimestampsToReturnNeither)
	if err != nil {
		return nil, err
	}
	fresh := make(map[wire.NodeID]shape, len(ask))
	types := c.dictionary()
	for i, n := range ask {
		v := values[3*i : 3*i+3]
		s := shape{rank: int32(v[1].Value.Num), access: uint8(v[2].Value.Num)}
		if v[1].Status>>30 != 0 {
			s.rank = -2
		}
		if typ, ok := nodeOf(&v[0].Value); ok && v[0].Status>>30 == 0 {
			s.dataType = typ
			types.mu.Lock()
			s.builtin, err = types.builtinOf(ctx, c, typ)
			types.mu.Unlock()
			var status ua.StatusCode
			if err != nil && !errors.Is(err, errLayout) && !errors.As(err, &status) {
				return nil, err
			}
		}
		fresh[n] = s
	}
	out := make([]shape, len(nodes))
	c.mu.Lock()
	defer c.mu.Unlock()
	for n, s := range fresh {
		c.shapes[n] = s
	}
	for i, n := range nodes {
		out[i] = c.shapes[n]
	}
	return out, nil
}

// shapesOf also reads EURange and EngineeringUnits, once for each node and
// session (OPC 10000-8, 5.3.2.3).
func (c *conn) shapesOf(ctx context.Context, nodes []wire.NodeID) ([]shape, error) {
	out, err := c.typesOf(ctx, nodes)
	if err != nil {
		return nil, err
	}
	var paths []*ua.BrowsePath
	var places []int
	for i, n := range nodes {
		if out[i].ranged {
			continue
		}
		places = append(places, i)
		for _, name := range []string{"EURange", "EngineeringUnits"} {
			paths = append(paths, browsePath(n, wire.Num(0, id.HasProperty), []wire.Name{{Name: name}}))
		}
	}
	found, err := c.translate(ctx, paths)
	if err != nil {
		return nil, err
	}
	var reqs []*ua.ReadValueID
	for _, f := range found {
		if f.err == nil {
			reqs = append(reqs, attribute(f.id, ua.AttributeIDValue))
		}
	}
	values, err := c.readNodes(ctx, reqs, ua.TimestampsToReturnNeither)
	if err != nil {
		return nil, err
	}
	next := 0
	for k, i := range places {
		out[i].ranged = true
		for half := range 2 {
			if found[2*k+half].err != nil {
				continue
			}
			out[i].describe(&values[next])
			next++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, i := range places {
		c.shapes[nodes[i]] = out[i]
	}
	return out, nil
}

// describe takes the value of one of the two properties.
func (s *shape) describe(v *wire.DataValue) {
	if v.Status>>30 != 0 || v.Value.Array || v.Value.Type != wire.ExtensionObject {
		return
	}
	ext := v.Value.Reader().Extension()
	r := wire.NewReader(ext.Body)
	switch {
	case ext.Type.Std(id.Range_Encoding_DefaultBinary):
		span := Range{r.F64(), r.F64()}
		if r.Err() == nil && span.High > span.Low {
			s.span = &span
		}
	case ext.Type.Std(id.EUInformation_Encoding_DefaultBinary):
		r.Text()
		r.I32()
		if text := r.Localized(); r.Err() == nil {
			s.unit = text
		}
	}
}

// A Description is what a server says of a tag's variable.
type Description struct {
	Err   error  // why nothing is known; nil = the rest is good
	Node  string // address by namespace URI
	Type  string // built-in type; "" = unknown
	Rank  int    // -1 scalar, 1 array, 2 and more matrix, -2, -3 and 0 any
	Unit  string // EngineeringUnits' display name; "" = none
	Range *Range // EURange; nil = none
	Keeps bool   // its history can be read
}

// Describe asks the server about tags, for people who map them.
func (s *session) Describe(ctx context.Context, tags []point.Tag) ([]Description, error) {
	ctx, release := s.link.bind(ctx)
	defer release()
	c, err := s.link.get(ctx)
	if err != nil {
		return nil, err
	}
	specs, err := parseTags(tags)
	if err != nil {
		return nil, err
	}
	addrs := make([]*address, len(specs))
	for i, sp := range specs {
		addrs[i] = &sp.addr
	}
	found, err := c.resolve(ctx, addrs)
	if err != nil {
		return nil, err
	}
	out := make([]Description, len(tags))
	var nodes []wire.NodeID
	var places []int
	for i, f := range found {
		if out[i].Err = f.err; f.err == nil {
			nodes, places = append(nodes, f.id), append(places, i)
		}
	}
	shapes, err := c.shapesOf(ctx, nodes)
	if err != nil {
		return nil, err
	}
	ns := c.namespaces()
	for k, i := range places {
		sh := &shapes[k]
		out[i] = Description{
			Node: ns.text(nodes[k]), Type: sh.typeName(), Rank: int(sh.rank), Unit: sh.unit, Range: sh.span, Keeps: sh.access&4 != 0,
		}
	}
	return out, nil
}
