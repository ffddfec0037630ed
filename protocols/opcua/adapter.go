package opcua

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/disk"
	"holdfast/protocols"
	"holdfast/protocols/opcua/trust"
	"holdfast/protocols/point"
)

// Options change how an adapter works. With the zero value it speaks to servers
// without security only.
type Options struct {
	// OpenFS returns where certificates are kept. It is called when the first
	// session that needs them connects. nil = nowhere, and security is refused.
	OpenFS func() (disk.FS, error)
	Dir    string // folder there; "" = "opcua"

	URI      string   // our ApplicationUri; "" = urn:<first host>:holdfast
	Hosts    []string // names and addresses of this machine, for our certificate
	Life     time.Duration
	ReadFile func(name string) ([]byte, error) // for passwords and user certificates; nil = there are none
	Getenv   func(name string) string          // for passwords; nil = there is none
	Dial     func(ctx context.Context, network, address string) (net.Conn, error)
}

func (o *Options) uri() string {
	switch {
	case o.URI != "":
		return o.URI
	case len(o.Hosts) > 0:
		return "urn:" + o.Hosts[0] + ":holdfast"
	}
	return "urn:holdfast"
}

func (o *Options) identity() trust.Identity {
	return trust.Identity{URI: o.uri(), Hosts: o.Hosts, Life: o.Life}
}

// Adapter is an OPC UA client.
type Adapter struct {
	env protocols.Env
	o   Options

	mu     sync.Mutex
	opened *trust.Store
}

// New returns an adapter. It touches nothing before a session is used.
func New(env protocols.Env, o Options) *Adapter {
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if o.Dir == "" {
		o.Dir = "opcua"
	}
	if o.ReadFile == nil {
		o.ReadFile = func(name string) ([]byte, error) { return nil, fmt.Errorf("%q: %w", name, fs.ErrNotExist) }
	}
	if o.Getenv == nil {
		o.Getenv = func(string) string { return "" }
	}
	return &Adapter{env: env, o: o}
}

// store opens the certificate store, the first time. It is nil where there is no
// place for one.
func (a *Adapter) store() (*trust.Store, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.opened != nil || a.o.OpenFS == nil {
		return a.opened, nil
	}
	fs, err := a.o.OpenFS()
	if err != nil {
		return nil, fmt.Errorf("certificate store: %w", err)
	}
	s, err := trust.Open(fs, a.o.Dir, a.env.Clock)
	if err != nil {
		return nil, err
	}
	a.opened = s
	return s, nil
}

// Check implements [protocols.Adapter].
func (a *Adapter) Check(d protocols.Device) error {
	s, err := parseSettings(d.Settings)
	errs := []error{err}
	if a.o.OpenFS == nil && s.secured() && err == nil {
		errs = append(errs, errors.New(`key "security_policy": there is no data directory for certificates here, so only "None" works`))
	}
	_, err = parseTags(d.Tags)
	return errors.Join(append(errs, err)...)
}

func parseTags(tags []point.Tag) ([]*spec, error) {
	var errs []error
	out := make([]*spec, 0, len(tags))
	for i := range tags {
		s, err := parseTag(&tags[i])
		if err != nil {
			errs = append(errs, err)
		}
		out = append(out, s)
	}
	return out, errors.Join(errs...)
}

// Open implements [protocols.Adapter].
func (a *Adapter) Open(d protocols.Device) (protocols.Session, error) {
	if err := a.Check(d); err != nil {
		return nil, err
	}
	set, err := parseSettings(d.Settings)
	if err != nil {
		return nil, err
	}
	u := &user{s: set, readFile: a.o.ReadFile, getenv: a.o.Getenv}
	return newSession(d, set, newLink(set, a.env.Clock, a.env.Log.With("device", d.Name), &netDialer{a: a, s: set}, u)), nil
}

// Close implements [protocols.Adapter]. Nothing is left when sessions are closed.
func (a *Adapter) Close() error { return nil }

// An Explorer is a session as commissioning tools use it.
type Explorer interface {
	protocols.Browser
	// Walk visits the nodes below an address, each once.
	Walk(ctx context.Context, at string, depth, nodes int, visit func(level int, n protocols.Node) error) error
	// Describe tells what the server says of tags.
	Describe(ctx context.Context, tags []point.Tag) ([]Description, error)
}

// A session is one configured server.
type session struct {
	settings *settings
	link     *link
	classes  map[string]time.Duration

	mu      sync.Mutex
	results map[string]point.Sample // of methods, by tag
}

func newSession(d protocols.Device, set *settings, l *link) *session {
	return &session{settings: set, link: l, classes: d.Classes, results: map[string]point.Sample{}}
}

// keep remembers what a method returned.
func (s *session) keep(tag string, result point.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.results[tag] = result
}

// Close implements [protocols.Session].
func (s *session) Close() error {
	s.link.close()
	return nil
}

// Status implements [protocols.Reporter].
func (s *session) Status() protocols.Status { return s.link.status() }

// Subscribe implements [protocols.Subscriber]. It survives whatever happens to the
// connection, and returns when ctx or the session ends.
func (s *session) Subscribe(ctx context.Context, tags []point.Tag, sink func(tag int, sample point.Sample)) error {
	specs, err := parseTags(tags)
	if err != nil {
		return err
	}
	ctx, release := s.link.bind(ctx)
	defer release()
	err = newSubscription(s.link, specs, s.interval(tags), sink).run(ctx)
	if s.link.ctx.Err() != nil {
		return errClosed
	}
	return err
}

// interval returns the publishing interval for tags: that of the settings, else
// the period of their scan class, else one second.
func (s *session) interval(tags []point.Tag) time.Duration {
	if s.settings.publishing > 0 {
		return s.settings.publishing
	}
	for i := range tags {
		if d := s.classes[tags[i].Class]; d > 0 {
			return d
		}
	}
	if len(s.classes) == 1 {
		for _, d := range s.classes {
			return d
		}
	}
	return time.Second
}

// Group implements [protocols.Session].
func (s *session) Group(tags []point.Tag) (protocols.Group, error) {
	specs, err := parseTags(tags)
	if err != nil {
		return nil, err
	}
	g := &group{s: s, specs: specs}
	for _, sp := range specs {
		g.addrs = append(g.addrs, &sp.addr)
	}
	return g, nil
}

// A group reads tags in as few requests as the server takes.
type group struct {
	s     *session
	specs []*spec
	addrs []*address

	conn  *conn // for which the rest is good
	ns    namespaces
	reqs  []*ua.ReadValueID
	place []int // of each request among the tags
	fixed []point.Sample
}

// Read implements [protocols.Group].
func (g *group) Read(ctx context.Context, out []point.Sample) {
	if len(g.specs) == 0 {
		return
	}
	ctx, release := g.s.link.bind(ctx)
	defer release()
	if err := g.read(ctx, out); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		sample := bad(err)
		for i := range out {
			out[i] = sample
		}
	}
}

func (g *group) read(ctx context.Context, out []point.Sample) error {
	c, err := g.s.link.get(ctx)
	if err != nil {
		return err
	}
	if ns := c.namespaces(); g.conn != c || !slices.Equal(ns, g.ns) {
		g.conn = nil
		if err := g.plan(ctx, c); err != nil {
			return err
		}
		g.conn, g.ns = c, ns
	}
	values, err := c.readNodes(ctx, g.reqs, ua.TimestampsToReturnBoth)
	if err != nil {
		return err
	}
	copy(out, g.fixed)
	for i, at := range g.place {
		out[at] = c.sample(ctx, g.specs[at], &values[i])
		if out[at].Quality == point.BadNodeIdUnknown {
			g.conn = nil // it may have moved
		}
	}
	g.results(out)
	return nil
}

// plan resolves the addresses and makes the requests.
func (g *group) plan(ctx context.Context, c *conn) error {
	found, err := c.resolve(ctx, g.addrs)
	if err != nil {
		return err
	}
	g.reqs, g.place = nil, nil
	g.fixed = make([]point.Sample, len(g.specs))
	for i, f := range found {
		switch sp := g.specs[i]; {
		case sp.kind == events || sp.kind == alarms:
			g.fixed[i] = point.Sample{Quality: point.BadNotSupported, Detail: "events come by subscription: the device needs subscribe = true"}
		case sp.kind == aMethod:
			g.fixed[i] = point.Sample{Quality: point.BadWaitingForInitialData, Detail: "the method was not called yet"}
		case f.err != nil:
			g.fixed[i] = bad(f.err)
		default:
			r := attribute(f.id, ua.AttributeIDValue)
			r.IndexRange = sp.index
			g.reqs, g.place = append(g.reqs, r), append(g.place, i)
		}
	}
	return nil
}

// results fills in what methods returned.
func (g *group) results(out []point.Sample) {
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	for i, sp := range g.specs {
		if r, ok := g.s.results[sp.tag.Name]; ok && sp.kind == aMethod {
			out[i] = r
		}
	}
}

var (
	_ protocols.Writer     = (*session)(nil)
	_ protocols.Subscriber = (*session)(nil)
	_ protocols.Reporter   = (*session)(nil)
	_ Explorer             = (*session)(nil)
)
