package opcua

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/channel"
	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// limits are how many operations a server takes in one request (OPC 10000-5,
// 6.3.11). What it does not say, or says as 0, is unknown, and usual is assumed.
type limits struct {
	read, write, call, browse, translate, items, history int
}

const usual = 1000

// A conn is an activated session on an open channel. What it has learnt of the
// server's nodes is good for as long as it lives.
type conn struct {
	carrier
	link      *link
	ticket    *ticket
	kept      bool // the session is older than this channel
	publisher *publisher
	started   time.Time // of the server; zero = unknown
	limits    limits

	mu     sync.Mutex
	ns     namespaces
	nodes  map[string]lookup // by address
	shapes map[wire.NodeID]shape
	types  *dictionary
}

// A lookup is the outcome of resolving an address.
type lookup struct {
	id  wire.NodeID
	err error // nil, or why there is no such node: a *badNode
}

// A badNode says why an address leads nowhere on this server.
type badNode struct {
	quality point.Quality
	text    string
}

func (b *badNode) Error() string { return b.text }

// call sends one request in the session.
func (c *conn) call(ctx context.Context, req ua.Request, res wire.Response) error {
	c.link.requests.Add(1)
	err := c.Call(ctx, req, c.ticket.token, res)
	if err != nil {
		c.link.errors.Add(1)
		var status ua.StatusCode
		if errors.As(err, &status) && sessionGone(status) {
			c.link.forget(c.ticket)
			c.Close()
		}
	}
	return err
}

// sessionGone reports whether a status says that the server does not have our
// session any more.
func sessionGone(s ua.StatusCode) bool {
	switch s {
	case ua.StatusBadSessionIDInvalid, ua.StatusBadSessionClosed, ua.StatusBadSessionNotActivated,
		ua.StatusBadSecureChannelIDInvalid:
		return true
	}
	return false
}

// chunks calls f for consecutive ranges of n operations, most at a time.
func chunks(n, most int, f func(from, to int) error) error {
	for from := 0; from < n; from += most {
		if err := f(from, min(from+most, n)); err != nil {
			return err
		}
	}
	return nil
}

// errCount says that a server answered another number of operations than asked.
var errCount = errors.New("the server answers another number of operations than it was asked for")

// readNodes reads attributes, as many at a time as the server takes.
func (c *conn) readNodes(ctx context.Context, nodes []*ua.ReadValueID, stamps ua.TimestampsToReturn) ([]wire.DataValue, error) {
	out := make([]wire.DataValue, 0, len(nodes))
	err := chunks(len(nodes), c.limits.read, func(from, to int) error {
		var res wire.Read
		if err := c.call(ctx, &ua.ReadRequest{TimestampsToReturn: stamps, NodesToRead: nodes[from:to]}, &res); err != nil {
			return err
		}
		if len(res.Results) != to-from {
			return errCount
		}
		out = append(out, res.Results...)
		return nil
	})
	return out, err
}

// attribute returns the request to read one attribute.
func attribute(n wire.NodeID, a ua.AttributeID) *ua.ReadValueID {
	return &ua.ReadValueID{NodeID: n.UA(), AttributeID: a, DataEncoding: &ua.QualifiedName{}}
}

// learn reads what a session needs to know of its server: namespaces and limits.
func (c *conn) learn(ctx context.Context) error {
	c.limits = limits{1, 1, 1, 1, 1, 1, 1} // until the server has said more
	ids := []uint32{
		id.Server_NamespaceArray,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerRead,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerWrite,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerMethodCall,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerBrowse,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerTranslateBrowsePathsToNodeIDs,
		id.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall,
		id.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData,
		id.Server_ServerStatus_StartTime,
	}
	c.limits.read = 4 // hardly any server takes fewer
	nodes := make([]*ua.ReadValueID, len(ids))
	for i, n := range ids {
		nodes[i] = attribute(wire.Num(0, n), ua.AttributeIDValue)
	}
	values, err := c.readNodes(ctx, nodes, ua.TimestampsToReturnNeither)
	if err != nil {
		return fmt.Errorf("read the server's limits: %w", err)
	}
	ns, ok := namespaceArray(&values[0])
	if !ok {
		return errors.New("the server does not tell its namespaces")
	}
	c.ns = ns
	to := []*int{&c.limits.read, &c.limits.write, &c.limits.call, &c.limits.browse, &c.limits.translate, &c.limits.items, &c.limits.history}
	for i, p := range to {
		*p = usual
		if v := &values[i+1]; v.Status == 0 && !v.Value.Array && v.Value.Type == wire.UInt32 && v.Value.Num > 0 {
			*p = int(min(v.Value.Num, 10*usual))
		}
	}
	if v := &values[len(ids)-1]; v.Status>>30 == 0 && v.Value.Type == wire.DateTime {
		c.started = wire.TimeOf(int64(v.Value.Num))
	}
	return nil
}

// namespaceArray decodes the value of the NamespaceArray.
func namespaceArray(v *wire.DataValue) (namespaces, bool) {
	if v.Status>>30 != 0 || v.Value.Type != wire.String || !v.Value.Array || v.Value.Len == 0 || v.Value.Len > math.MaxUint16 {
		return nil, false
	}
	r := v.Value.Reader()
	out := make(namespaces, v.Value.Len)
	for i := range out {
		out[i] = r.Text()
	}
	return out, r.Err() == nil
}

func (c *conn) namespaces() namespaces {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.ns
}

// renamed takes a NamespaceArray that was read again, and forgets what it knew of
// nodes if it changed.
func (c *conn) renamed(ns namespaces) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(ns, c.ns) {
		return false
	}
	c.ns = ns
	c.forgetNodes()
	return true
}

// forgetNodes drops what was learnt of nodes. The caller holds mu.
func (c *conn) forgetNodes() {
	c.nodes, c.shapes, c.types = map[string]lookup{}, map[wire.NodeID]shape{}, nil
}

// resolve returns the node of each address. An address that leads nowhere has an
// error of its own; the error returned is of the link.
func (c *conn) resolve(ctx context.Context, addrs []*address) ([]lookup, error) {
	out := make([]lookup, len(addrs))
	var paths []int
	c.mu.Lock()
	ns := c.ns
	for i, a := range addrs {
		if a.path != nil {
			if known, ok := c.nodes[a.String()]; ok {
				out[i] = known
			} else {
				paths = append(paths, i)
			}
			continue
		}
		out[i] = fixedNode(a, ns)
	}
	c.mu.Unlock()
	if len(paths) == 0 {
		return out, nil
	}
	return out, c.resolvePaths(ctx, ns, addrs, paths, out)
}

func fixedNode(a *address, ns namespaces) lookup {
	id, ok := a.fixed(ns)
	if !ok {
		return lookup{err: &badNode{point.BadNodeIdUnknown, fmt.Sprintf("the server has no namespace %q", a.uri)}}
	}
	return lookup{id: id}
}

// resolvePaths translates the addresses with these indices.
func (c *conn) resolvePaths(ctx context.Context, ns namespaces, addrs []*address, which []int, out []lookup) error {
	var ask []int
	var reqs []*ua.BrowsePath
	for _, i := range which {
		names, ok := addrs[i].names(ns)
		if !ok {
			out[i] = lookup{err: &badNode{point.BadNodeIdUnknown, fmt.Sprintf("the server has no namespace %q", addrs[i].uri)}}
			continue
		}
		ask = append(ask, i)
		reqs = append(reqs, browsePath(addrs[i].id, wire.Num(0, id.HierarchicalReferences), names))
	}
	found, err := c.translate(ctx, reqs)
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, i := range ask {
		out[i] = found[k]
		c.nodes[addrs[i].String()] = found[k]
	}
	return nil
}

func browsePath(start, reference wire.NodeID, names []wire.Name) *ua.BrowsePath {
	p := &ua.BrowsePath{StartingNode: start.UA(), RelativePath: &ua.RelativePath{}}
	for _, n := range names {
		p.RelativePath.Elements = append(p.RelativePath.Elements, &ua.RelativePathElement{
			ReferenceTypeID: reference.UA(), IncludeSubtypes: true,
			TargetName: &ua.QualifiedName{NamespaceIndex: n.NS, Name: n.Name},
		})
	}
	return p
}

// translate asks where browse paths lead.
func (c *conn) translate(ctx context.Context, paths []*ua.BrowsePath) ([]lookup, error) {
	out := make([]lookup, 0, len(paths))
	err := chunks(len(paths), c.limits.translate, func(from, to int) error {
		var res wire.Translated
		if err := c.call(ctx, &ua.TranslateBrowsePathsToNodeIDsRequest{BrowsePaths: paths[from:to]}, &res); err != nil {
			return err
		}
		if len(res.Results) != to-from {
			return errCount
		}
		for _, p := range res.Results {
			out = append(out, c.target(p))
		}
		return nil
	})
	return out, err
}

func (c *conn) target(p wire.Path) lookup {
	switch {
	case p.Status>>30 != 0:
		return lookup{err: &badNode{point.Quality(p.Status), "the browse path leads nowhere: " + wire.StatusText(p.Status)}}
	case len(p.Targets) == 0:
		return lookup{err: &badNode{point.BadNodeIdUnknown, "the browse path leads nowhere"}}
	case len(p.Targets) > 1:
		return lookup{err: &badNode{point.BadConfigurationError, fmt.Sprintf("the browse path leads to %d nodes", len(p.Targets))}}
	}
	n, ok := c.local(p.Targets[0])
	if !ok {
		return lookup{err: &badNode{point.BadNodeIdUnknown, "the browse path leads to another server"}}
	}
	return lookup{id: n}
}

// local turns an expanded id into one of this server.
func (c *conn) local(e wire.ExpandedID) (wire.NodeID, bool) {
	if e.Server != 0 {
		return wire.NodeID{}, false
	}
	if e.URI != "" {
		ns, ok := c.namespaces().index(e.URI)
		if !ok {
			return wire.NodeID{}, false
		}
		e.NodeID.NS = ns
	}
	return e.NodeID, true
}

// qualityOf returns the quality and the words for an error of a request.
func qualityOf(err error) (point.Quality, string) {
	var bad *badNode
	var lost *channel.Lost
	var status ua.StatusCode
	switch {
	case errors.As(err, &bad):
		return bad.quality, err.Error()
	case errors.As(err, &status):
		return point.Quality(status), "the server answers " + wire.StatusText(status)
	case errors.Is(err, context.DeadlineExceeded):
		return point.BadTimeout, "no answer in time"
	case errors.Is(err, context.Canceled):
		return point.BadShutdown, "cancelled"
	case errors.Is(err, errClosed):
		return point.BadConnectionClosed, errClosed.Error()
	case errors.As(err, &lost):
		text := err.Error()
		if strings.HasPrefix(text, "no answer") {
			return point.BadTimeout, text
		}
		return point.BadNoCommunication, text
	case errors.Is(err, wire.ErrShort), errors.Is(err, errCount):
		return point.BadDecodingError, err.Error()
	}
	return point.BadNoCommunication, err.Error()
}

// bad returns a Bad sample for an error.
func bad(err error) point.Sample {
	q, text := qualityOf(err)
	if !q.Bad() {
		q = point.BadUnexpectedError // an error is never Good
	}
	return point.Sample{Quality: q, Detail: text}
}

// minHeartbeat is how often a server is asked for its state at the most.
const minHeartbeat = 500 * time.Millisecond
