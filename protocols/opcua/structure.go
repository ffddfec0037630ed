package opcua

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/wire"
)

// A dictionary holds what a session has learnt of the server's data types. Types
// are asked for when a value of them comes for the first time.
type dictionary struct {
	mu      sync.Mutex
	byCode  map[wire.NodeID]*structure // by the encoding that stands in values; nil = unknown
	byType  map[wire.NodeID]*structure // by data type
	builtin map[wire.NodeID]uint8      // built-in type under a data type
}

// Bounds of what a server can make us ask and remember.
const (
	maxTypes  = 1000
	maxLevels = 20 // of structures in structures, and of types above a type
)

// A structure is the layout of one data type (OPC 10000-3, 8.48).
type structure struct {
	union    bool
	optional bool // some fields may be left out: a mask comes first
	fields   []structField
}

type structField struct {
	name     string
	builtin  uint8
	inner    *structure // of a structure that stands in line; nil = builtin
	rank     int32
	optional bool
}

func (c *conn) dictionary() *dictionary {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.types == nil {
		c.types = &dictionary{
			byCode: map[wire.NodeID]*structure{}, byType: map[wire.NodeID]*structure{}, builtin: map[wire.NodeID]uint8{},
		}
	}
	return c.types
}

// knows reports whether structures of an encoding can be read, and asks the
// server the first time.
func (d *dictionary) knows(ctx context.Context, c *conn, code wire.NodeID) bool {
	return d.lookup(ctx, c, code) != nil
}

func (d *dictionary) lookup(ctx context.Context, c *conn, code wire.NodeID) *structure {
	d.mu.Lock()
	defer d.mu.Unlock()
	if s, ok := d.byCode[code]; ok {
		return s
	}
	if len(d.byCode) >= maxTypes {
		return nil
	}
	types, err := c.browse(ctx, browseUp(code, id.HasEncoding))
	var s *structure
	if err == nil && len(types) == 1 {
		if typ, ok := c.local(types[0].Target); ok {
			s, err = d.load(ctx, c, typ, 0)
		}
	}
	if err != nil {
		var status ua.StatusCode
		if !errors.As(err, &status) && !errors.Is(err, errLayout) {
			return nil // of the link: ask again next time
		}
		c.link.log.Debug("a structure cannot be read", "type", code, "reason", err)
	}
	d.byCode[code] = s
	return s
}

// errLayout says that a layout is not one that can be read.
var errLayout = errors.New("no layout that can be read")

// load reads the definition of a data type. The caller holds mu.
func (d *dictionary) load(ctx context.Context, c *conn, typ wire.NodeID, level int) (*structure, error) {
	if s, ok := d.byType[typ]; ok {
		if s == nil {
			return nil, errLayout // unknown, or it contains itself
		}
		return s, nil
	}
	if level >= maxLevels || len(d.byType) >= maxTypes {
		return nil, fmt.Errorf("%w: too many types", errLayout)
	}
	d.byType[typ] = nil
	values, err := c.readNodes(ctx, []*ua.ReadValueID{attribute(typ, ua.AttributeIDDataTypeDefinition)}, ua.TimestampsToReturnNeither)
	if err != nil {
		delete(d.byType, typ)
		return nil, err
	}
	v := &values[0]
	if v.Status>>30 != 0 {
		return nil, v.Status
	}
	if v.Value.Array || v.Value.Type != wire.ExtensionObject {
		return nil, fmt.Errorf("%w: data type %s has no definition", errLayout, typ)
	}
	ext := v.Value.Reader().Extension()
	if !ext.Type.Std(id.StructureDefinition_Encoding_DefaultBinary) {
		return nil, fmt.Errorf("%w: data type %s is defined by %s", errLayout, typ, ext.Type)
	}
	s, err := d.parse(ctx, c, wire.NewReader(ext.Body), level)
	if err == nil {
		d.byType[typ] = s
	}
	return s, err
}

// parse reads a StructureDefinition and looks up the types of its fields.
func (d *dictionary) parse(ctx context.Context, c *conn, r *wire.Reader, level int) (*structure, error) {
	r.ID()
	r.ID()
	s := &structure{}
	switch kind := r.U32(); kind {
	case 0:
	case 1:
		s.optional = true
	case 2:
		s.union = true
	default:
		return nil, fmt.Errorf("%w: structures of kind %d", errLayout, kind)
	}
	for range r.Count(20) {
		f := structField{name: r.Text()}
		r.Localized()
		typ := r.ID()
		f.rank = r.I32()
		for range r.Count(4) {
			r.U32()
		}
		r.U32()
		f.optional = r.U8() != 0
		if r.Err() != nil {
			return nil, r.Err()
		}
		var err error
		if f.builtin, err = d.builtinOf(ctx, c, typ); err != nil {
			return nil, err
		}
		if f.builtin == wire.ExtensionObject && !typ.Std(wire.ExtensionObject) {
			if f.inner, err = d.load(ctx, c, typ, level+1); err != nil {
				return nil, err
			}
		}
		s.fields = append(s.fields, f)
	}
	return s, r.Err()
}

// builtinOf returns the built-in type under a data type: the first one on the way
// up (OPC 10000-6, 5.1.2). Abstract numbers are [wire.VariantType].
func (d *dictionary) builtinOf(ctx context.Context, c *conn, typ wire.NodeID) (uint8, error) {
	at := typ
	for range maxLevels {
		if at.NS == 0 && at.Kind == wire.Numeric {
			switch {
			case at.Num > 0 && at.Num <= wire.DiagnosticInfo:
				d.remember(typ, uint8(at.Num))
				return uint8(at.Num), nil
			case at.Num == id.Enumeration:
				d.remember(typ, wire.Int32)
				return wire.Int32, nil
			case at.Num >= id.Number && at.Num <= id.UInteger:
				return wire.VariantType, nil
			}
		}
		if known, ok := d.builtin[at]; ok {
			return known, nil
		}
		up, err := c.browse(ctx, browseUp(at, id.HasSubtype))
		if err != nil {
			return 0, err
		}
		if len(up) != 1 {
			break
		}
		next, ok := c.local(up[0].Target)
		if !ok {
			break
		}
		at = next
	}
	return 0, fmt.Errorf("%w: data type %s is no built-in type's", errLayout, typ)
}

func (d *dictionary) remember(typ wire.NodeID, t uint8) {
	if len(d.builtin) < maxTypes {
		d.builtin[typ] = t
	}
}

// printer returns what turns structures into JSON objects.
func (d *dictionary) printer(ctx context.Context, c *conn) func(*wire.Printer, []byte, wire.Ext) ([]byte, bool, error) {
	return func(p *wire.Printer, dst []byte, e wire.Ext) ([]byte, bool, error) {
		if e.Body == nil {
			return dst, false, nil
		}
		s := d.lookup(ctx, c, e.Type)
		if s == nil {
			return dst, false, nil
		}
		out, err := s.print(p, dst, wire.NewReader(e.Body))
		return out, true, err
	}
}

func (s *structure) print(p *wire.Printer, dst []byte, r *wire.Reader) ([]byte, error) {
	if err := p.Nest(); err != nil {
		return dst, err
	}
	defer p.Unnest()
	dst = append(dst, '{')
	mask, first := ^uint32(0), true
	if s.optional {
		mask = r.U32()
	}
	chosen := uint32(0)
	if s.union {
		if chosen = r.U32(); chosen > uint32(len(s.fields)) {
			return dst, fmt.Errorf("field %d of a union of %d", chosen, len(s.fields))
		}
	}
	bit := 0
	var err error
	for i := range s.fields {
		f := &s.fields[i]
		if s.union && chosen != uint32(i+1) {
			continue
		}
		if s.optional && f.optional {
			there := mask>>bit&1 != 0
			if bit++; !there {
				continue
			}
		}
		if !first {
			dst = append(dst, ',')
		}
		first = false
		dst = append(wire.AppendText(dst, f.name), ':')
		if dst, err = f.print(p, dst, r); err != nil {
			return dst, fmt.Errorf("field %q: %w", f.name, err)
		}
	}
	return append(dst, '}'), r.Err()
}

func (f *structField) print(p *wire.Printer, dst []byte, r *wire.Reader) ([]byte, error) {
	if f.rank < 1 {
		return f.one(p, dst, r)
	}
	n := r.Count(1)
	if f.rank > 1 { // dimensions, then all elements (OPC 10000-6, 5.2.5)
		total := uint64(1)
		for range n {
			total = min(total*uint64(r.U32()), uint64(r.Left())+1)
		}
		n = int(total)
	}
	dst = append(dst, '[')
	var err error
	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}
		if dst, err = f.one(p, dst, r); err == nil {
			err = p.Grown(dst)
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, ']'), r.Err()
}

func (f *structField) one(p *wire.Printer, dst []byte, r *wire.Reader) ([]byte, error) {
	if f.inner != nil {
		return f.inner.print(p, dst, r)
	}
	return p.Element(dst, r, f.builtin)
}
