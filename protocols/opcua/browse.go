package opcua

import (
	"context"
	"errors"
	"fmt"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols"
	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// maxReferences bounds the references of one node: what a server adds beyond
// it is not there for us.
const maxReferences = 100_000

// referencePage is how many references one answer may have.
const referencePage = 1000

// browseUp asks for what points to a node by a kind of reference.
func browseUp(n wire.NodeID, reference uint32) *ua.BrowseDescription {
	return &ua.BrowseDescription{
		NodeID: n.UA(), BrowseDirection: ua.BrowseDirectionInverse, ReferenceTypeID: ua.NewNumericNodeID(0, reference),
		ResultMask: uint32(ua.BrowseResultMaskAll),
	}
}

// browseDown asks for the children of a node.
func browseDown(n wire.NodeID) *ua.BrowseDescription {
	return &ua.BrowseDescription{
		NodeID: n.UA(), BrowseDirection: ua.BrowseDirectionForward, IncludeSubtypes: true,
		ReferenceTypeID: ua.NewNumericNodeID(0, id.HierarchicalReferences), ResultMask: uint32(ua.BrowseResultMaskAll),
	}
}

// errTooMany says that a node has more references than anybody can look at.
var errTooMany = fmt.Errorf("the node has more than %d references", maxReferences)

// browse returns all references, following continuation points, which are given
// back to the server when there are too many.
func (c *conn) browse(ctx context.Context, d *ua.BrowseDescription) ([]wire.Reference, error) {
	return c.browseIn(ctx, wire.NodeID{}, d)
}

func (c *conn) browseIn(ctx context.Context, view wire.NodeID, d *ua.BrowseDescription) (out []wire.Reference, err error) {
	var res wire.Browsed
	err = c.call(ctx, &ua.BrowseRequest{
		View: &ua.ViewDescription{ViewID: view.UA()}, RequestedMaxReferencesPerNode: referencePage,
		NodesToBrowse: []*ua.BrowseDescription{d},
	}, &res)
	seen := 0
	for ; ; seen++ {
		if err != nil {
			return nil, err
		}
		if len(res.Results) != 1 {
			return nil, errCount
		}
		r := &res.Results[0]
		if r.Status>>30 == 2 {
			return nil, r.Status
		}
		out = append(out, r.References...)
		if len(r.More) == 0 {
			return out, nil
		}
		// A server may give pages without end, or empty ones without end.
		stop := len(out) > maxReferences || seen > maxReferences/10
		req := &ua.BrowseNextRequest{ReleaseContinuationPoints: stop, ContinuationPoints: [][]byte{r.More}}
		res = wire.Browsed{Next: true}
		if err = c.call(ctx, req, &res); stop {
			return nil, errTooMany
		}
	}
}

// Browse implements [protocols.Browser]. The root's children are the objects, the
// types and the views of the server. Below a view only what is in it is listed.
// Addresses are by namespace URI. A node that several paths lead to is listed
// under each of them; [Walk] visits it once.
func (s *session) Browse(ctx context.Context, at string) ([]protocols.Node, error) {
	ctx, release := s.link.bind(ctx)
	defer release()
	c, err := s.link.get(ctx)
	if err != nil {
		return nil, err
	}
	start, view := wire.Num(0, rootFolder), wire.NodeID{}
	if at != "" {
		a, err := parseAddress(at)
		if err != nil {
			return nil, err
		}
		found, err := c.resolve(ctx, []*address{&a})
		if err == nil {
			err = found[0].err
		}
		if err != nil {
			return nil, fmt.Errorf("browse %q: %w", at, err)
		}
		start = found[0].id
		if class, err := c.classOf(ctx, start); err == nil && class == ua.NodeClassView {
			view = start
		}
	}
	refs, err := c.browseIn(ctx, view, browseDown(start))
	if err != nil {
		return nil, fmt.Errorf("browse %q: %w", at, err)
	}
	return c.listing(ctx, refs)
}

func (c *conn) classOf(ctx context.Context, n wire.NodeID) (ua.NodeClass, error) {
	v, err := c.readNodes(ctx, []*ua.ReadValueID{attribute(n, ua.AttributeIDNodeClass)}, ua.TimestampsToReturnNeither)
	if err != nil {
		return 0, err
	}
	return ua.NodeClass(v[0].Value.Num), nil
}

// listing turns references into nodes, each once, and asks for the types of
// variables.
func (c *conn) listing(ctx context.Context, refs []wire.Reference) ([]protocols.Node, error) {
	ns := c.namespaces()
	seen := map[wire.NodeID]bool{}
	var out []protocols.Node
	var variables []wire.NodeID
	var places []int
	for _, r := range refs {
		n, ok := c.local(r.Target)
		if !ok || !r.Forward || seen[n] {
			continue
		}
		seen[n] = true
		node := protocols.Node{Address: ns.text(n), Name: r.Display}
		if node.Name == "" {
			node.Name = r.BrowseName.Name
		}
		switch r.Class {
		case ua.NodeClassVariable:
			variables, places = append(variables, n), append(places, len(out))
		case ua.NodeClassMethod:
			node.Type, node.Access = "method", point.WriteOnly
		default:
			node.Folder = true
		}
		out = append(out, node)
	}
	shapes, err := c.typesOf(ctx, variables)
	if err != nil {
		return nil, err
	}
	for i, at := range places {
		out[at].Type, out[at].Access = shapes[i].typeName(), shapes[i].accessOf()
	}
	return out, nil
}

// Walk visits the node at an address and what is below it, each node once, to a
// depth and a number of nodes. It goes on where a part of the tree cannot be read,
// and returns those errors joined.
func (s *session) Walk(ctx context.Context, at string, depth, nodes int, visit func(level int, n protocols.Node) error) error {
	seen := map[string]bool{at: true}
	var errs []error
	left := nodes
	var down func(at string, level int) error
	down = func(at string, level int) error {
		children, err := s.Browse(ctx, at)
		if err != nil {
			if ctx.Err() != nil || len(errs) >= 100 {
				return err
			}
			errs = append(errs, err)
			return nil
		}
		for _, n := range children {
			if seen[n.Address] {
				continue
			}
			seen[n.Address] = true
			if left--; left < 0 {
				return fmt.Errorf("stopped after %d nodes", nodes)
			}
			if err := visit(level, n); err != nil {
				return err
			}
			if n.Type != "method" && level+1 < depth {
				if err := down(n.Address, level+1); err != nil {
					return err
				}
			}
		}
		return nil
	}
	if err := down(at, 0); err != nil {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
