package config

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/hub"
	"holdfast/hub/route"
)

// checker holds one file and what is found in it. It looks at values only: the
// kinds of value were checked while decoding.
type checker struct {
	doc   *strict.Document
	c     *Config
	read  Files
	kinds Kinds
	dir   string // of the configuration, for relative names
	more  strict.Mistakes

	classless bool  // the scan classes have mistakes: what hangs on them is not told again
	reduced   []int // how many tags each rule of field.reduce has matched
}

func (k *checker) err() error {
	var all strict.Mistakes
	errors.As(k.doc.Err(), &all)
	if all = append(all, k.more...); len(all) > 0 {
		return all
	}
	return nil
}

func (k *checker) all() {
	c := k.c
	if err := checkName(c.Name); err != nil {
		k.doc.Add("name", "%v", err)
	}
	k.absolute("data", c.Data)
	k.absolute("run", c.Run)
	k.choice("log.level", c.Log.Level, "debug", "info", "warn", "error")
	k.choice("log.format", c.Log.Format, "text", "json")
	k.address("metrics.hub_listen", c.Metrics.HubListen, true)
	k.address("metrics.field_listen", c.Metrics.FieldListen, true)
	k.listeners()
	k.users()
	k.limits()
	k.routes()
	k.upstreams()
	k.field()
}

// checkName holds for everything that turns up in a topic or a file name.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > 100:
		return errors.New("is longer than 100 bytes")
	}
	if i := strings.IndexFunc(s, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/+#\\\"'*$", r) }); i >= 0 {
		return fmt.Errorf("%q has %q in it, which a name cannot have", s, s[i:i+1])
	}
	return nil
}

func (k *checker) absolute(path, dir string) {
	if !filepath.IsAbs(dir) {
		k.doc.Add(path, "%q is not an absolute path", dir)
	}
}

func (k *checker) choice(path, got string, known ...string) {
	if slices.Contains(known, got) {
		return
	}
	if near := strict.Nearest(got, known); near != "" {
		k.doc.Add(path, "%q is not one of %s; did you mean %q?", got, strings.Join(known, ", "), near)
		return
	}
	k.doc.Add(path, "%q is not one of %s", got, strings.Join(known, ", "))
}

// address checks host:port without asking anybody about the host.
func (k *checker) address(path, s string, optional bool) {
	if s == "" && optional {
		return
	}
	_, port, err := net.SplitHostPort(s)
	if err != nil {
		k.doc.Add(path, "%q is not host:port\nwrite \":1883\" for every interface, or \"127.0.0.1:1883\" for this machine only", s)
		return
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		k.doc.Add(path, "%q: port %q is not a number from 0 to 65535", s, port)
	}
}

func (k *checker) listeners() {
	names := map[string]bool{"local": true}
	for i := range k.c.Hub.Listeners {
		l := &k.c.Hub.Listeners[i]
		path := strict.At("hub.listener", i)
		if l.Name == "" {
			l.Name = l.Type
		}
		k.unique(path, "listener", l.Name, names)
		k.choice(path+".type", l.Type, "tcp", "tls", "ws", "wss", "unix")
		if l.Type == "unix" {
			k.absolute(path+".address", l.Address)
		} else {
			k.address(path+".address", l.Address, false)
		}
		secure := l.Type == "tls" || l.Type == "wss"
		switch {
		case secure && l.Certificate == "":
			k.doc.Add(path+".certificate", "is missing: a %s listener needs certificate and key", l.Type)
		case secure && l.Key == "":
			k.doc.Add(path+".key", "is missing: a %s listener needs certificate and key", l.Type)
		case !secure && (l.Certificate != "" || l.Key != "" || l.ClientCA != ""):
			k.doc.Add(path+".type", "%q uses no certificates\nwrite type = \"tls\" or \"wss\"", l.Type)
		}
		if web := l.Type == "ws" || l.Type == "wss"; l.Path != "" && (!web || !strings.HasPrefix(l.Path, "/")) {
			k.doc.Add(path+".path", "%q: a path begins with / and belongs to ws and wss listeners", l.Path)
		}
		l.Certificate, l.Key, l.ClientCA = k.relative(l.Certificate), k.relative(l.Key), k.relative(l.ClientCA)
	}
}

// relative makes a name that is relative to the configuration absolute.
func (k *checker) relative(name string) string {
	if name == "" || filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(k.dir, name)
}

func (k *checker) unique(path, what, name string, seen map[string]bool) {
	if err := checkName(name); err != nil {
		k.doc.Add(path+".name", "%v", err)
		return
	}
	if seen[name] {
		k.doc.Add(path+".name", "there is another %s %q", what, name)
	}
	seen[name] = true
}

func (k *checker) limits() {
	l, j := &k.c.Hub.Limits, &k.c.Hub.Journal
	for _, n := range []struct {
		path      string
		n         int64
		low, high int64
	}{
		{"hub.limits.clients", int64(l.Clients), 1, 1_000_000},
		{"hub.limits.sessions", int64(l.Sessions), 1, 1_000_000},
		{"hub.limits.inflight", int64(l.Inflight), 1, 65_535},
		{"hub.limits.messages_per_second", int64(l.MessagesPerSecond), 0, 1_000_000_000},
		{"hub.limits.connects_per_second", int64(l.ConnectsPerSecond), 0, 1_000_000},
		{"field.outbox", int64(k.c.Field.Outbox), 1, 10_000_000},
	} {
		if n.n < n.low || n.n > n.high {
			k.doc.Add(n.path, "%d is not between %d and %d", n.n, n.low, n.high)
		}
	}
	for _, s := range []struct {
		path      string
		n         strict.Size
		low, high strict.Size
	}{
		{"hub.limits.message_size", l.MessageSize, 1 << 10, 256 << 20},
		{"hub.journal.segment", j.Segment, 64 << 10, 1 << 30},
	} {
		if s.n < s.low || s.n > s.high {
			k.doc.Add(s.path, "%s is not between %s and %s", s.n, s.low, s.high)
		}
	}
	if j.Segment%4096 != 0 {
		k.doc.Add("hub.journal.segment", "%s is not a multiple of 4KiB", j.Segment)
	}
	if j.Budget != 0 && j.Budget < 4*j.Segment {
		k.doc.Add("hub.journal.budget", "%s is less than four segments of %s", j.Budget, j.Segment)
	}
	if l.MessageSize > j.Segment/4 {
		k.doc.Add("hub.limits.message_size", "%s is more than a quarter of a segment of %s", l.MessageSize, j.Segment)
	}
}

// DecodeTOML takes a route's text, or a table of route, priority and
// time_to_live.
func (r *Route) DecodeTOML(v any) error {
	r.Priority = hub.DefaultPriority
	if s, ok := v.(string); ok {
		r.Text = s
		return nil
	}
	t, ok := v.(map[string]any)
	if !ok {
		return fmt.Errorf("%s is neither a route nor a table of route, priority, time_to_live", strict.Show(v))
	}
	known := []string{"route", "priority", "time_to_live"}
	for _, key := range sorted(t) {
		value := t[key]
		switch key {
		case "route":
			if r.Text, ok = value.(string); !ok {
				return fmt.Errorf("route: %s is not text in quotes", strict.Show(value))
			}
		case "priority":
			n, ok := value.(int64)
			if !ok || n < hub.HighestPriority || n > hub.LowestPriority {
				return fmt.Errorf("priority: %s is not a whole number from %d (sent first) to %d", strict.Show(value), hub.HighestPriority, hub.LowestPriority)
			}
			r.Priority = uint8(n)
		case "time_to_live":
			if err := r.TimeToLive.DecodeTOML(value); err != nil {
				return fmt.Errorf("time_to_live: %w", err)
			}
		default:
			if near := strict.Nearest(key, known); near != "" {
				return fmt.Errorf("unknown key %q; did you mean %q?", key, near)
			}
			return fmt.Errorf("unknown key %q\nknown here: %s", key, strings.Join(known, ", "))
		}
	}
	if r.Text == "" {
		return errors.New("route is missing")
	}
	return nil
}

func (k *checker) routes() {
	k.choice("hub.route_dialect", k.c.Hub.RouteDialect, "fixed", "compat")
	ends := k.endpoints()
	for _, name := range sorted(k.c.Hub.Routes) {
		r := k.c.Hub.Routes[name]
		path := strict.Join("hub.routes", name)
		if r.Text == "" {
			continue // was told while decoding
		}
		parsed, err := route.Parse(r.Text, k.c.Hub.Dialect())
		if err != nil {
			k.doc.Add(path, "%v", err)
			continue
		}
		// A module reads its input as a client of the hub; an upstream has to exist.
		if end := parsed.Endpoint(); !strings.Contains(end, "/") && !slices.Contains(ends, end) {
			k.doc.Add(path, "leads to %q, and there is no such [[hub.upstream]]", end)
		}
	}
}

// Dialect returns the dialect in which routes are read.
func (h *Hub) Dialect() route.Dialect {
	if h.RouteDialect == "compat" {
		return route.Compat
	}
	return route.Fixed
}

// RouteSpecs returns the routes sorted by name.
func (h *Hub) RouteSpecs() []route.Spec {
	var specs []route.Spec
	for _, name := range sorted(h.Routes) {
		r := h.Routes[name]
		specs = append(specs, route.Spec{Name: name, Text: r.Text, Priority: r.Priority, TTL: r.TimeToLive.Std()})
	}
	return specs
}

// FirstUpstream is the endpoint of the first upstream in the file.
const FirstUpstream = "$upstream"

// Endpoint returns what routes call the upstream at index i of the file.
func (h *Hub) Endpoint(i int) string {
	if i == 0 {
		return FirstUpstream
	}
	return h.Upstreams[i].Name
}

func (k *checker) endpoints() []string {
	var ends []string
	for i, u := range k.c.Hub.Upstreams {
		ends = append(ends, k.c.Hub.Endpoint(i), u.Name)
	}
	return ends
}

// UpstreamCheck looks at an upstream's own keys without any I/O and returns
// every mistake, joined, each naming its key.
type UpstreamCheck func(kind, name string, settings map[string]any) error

// fileKeys are the keys of upstreams that name files, relative to the
// configuration.
var fileKeys = []string{"ca", "certificate", "key", "password_file"}

func (k *checker) upstreams() {
	names := map[string]bool{}
	for i, u := range k.c.Hub.Upstreams {
		path := strict.At("hub.upstream", i)
		k.unique(path, "upstream", u.Name, names)
		if !slices.Contains(k.kinds.Upstreams, u.Type) {
			k.choice(path+".type", u.Type, k.kinds.Upstreams...)
			continue
		}
		k.foreign(path, k.kinds.Upstream(u.Type, u.Name, u.Settings))
		for _, key := range fileKeys {
			if name, ok := u.Settings[key].(string); ok {
				u.Settings[key] = k.relative(name)
			}
		}
	}
}

// foreign records the joined mistakes of somebody who knows keys but not
// lines: a mistake that names one of the table's keys is put on that key's
// line.
func (k *checker) foreign(path string, err error) {
	for _, e := range flatten(err) {
		text, at := e.Error(), path
		if m := quotedKey.FindStringSubmatch(text); m != nil {
			if place := strict.Join(path, m[3]); k.doc.Has(place) {
				at = place
				text = m[1] + m[4]
			}
		}
		k.doc.Add(at, "%s", text)
	}
}

// quotedKey takes apart what protocols and upstreams say about a key:
//
//	"window": must be ...      key "baud": 17 is not ...      unknown key "buad"; did you mean ...
var quotedKey = regexp.MustCompile(`^(unknown key)? ?(key )?"([^"]+)"(?:: )?(.*)$`)

// flatten takes joined errors apart. Those that were joined below a wrapper keep
// what the wrapper says before them.
func flatten(err error) []error {
	for e := err; e != nil; {
		switch u := e.(type) {
		case interface{ Unwrap() []error }:
			prefix := strings.TrimSuffix(err.Error(), e.Error())
			var all []error
			for _, one := range u.Unwrap() {
				for _, part := range flatten(one) {
					if prefix != "" {
						part = fmt.Errorf("%s%w", prefix, part)
					}
					all = append(all, part)
				}
			}
			return all
		case interface{ Unwrap() error }:
			e = u.Unwrap()
		default:
			return []error{err}
		}
	}
	if err == nil {
		return nil
	}
	return []error{err}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
