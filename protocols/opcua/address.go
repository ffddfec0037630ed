package opcua

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"holdfast/protocols/opcua/wire"
)

// An address names a node as the configuration writes it; which node of a server
// that is, is found out anew on every session.
type address struct {
	uri  string      // namespace by URI; "" = the index in id
	id   wire.NodeID // what is named, or with a path where it starts
	path []step      // browse path from id, nil = id itself
}

// A step is one element of a browse path.
type step struct {
	own  bool // in the address's namespace
	ns   uint16
	name string
}

// rootFolder and objectsFolder are where paths start (OPC 10000-5, 8.2).
const (
	rootFolder    = 84
	objectsFolder = 85
)

// maxAddress bounds the text of an address. Identifiers have at most 4096
// characters (OPC 10000-3, 8.2.4).
const maxAddress = 8192

// parseAddress reads the forms that the package comment lists.
func parseAddress(text string) (address, error) {
	var a address
	fail := func(err error) (address, error) { return address{}, fmt.Errorf("address %q: %w", text, err) }
	if len(text) > maxAddress {
		return address{}, fmt.Errorf("address %.40q... is longer than %d bytes", text, maxAddress)
	}
	rest := text
	var ns uint64
	named := false
	if uri, ok := strings.CutPrefix(rest, "nsu="); ok {
		a.uri, rest, ok = cutNamespace(uri)
		if !ok || a.uri == "" {
			return fail(errors.New(`want "nsu=<uri>;" before the identifier`))
		}
		named = true
	} else if index, ok := strings.CutPrefix(rest, "ns="); ok {
		var number string
		var err error
		number, rest, ok = strings.Cut(index, ";")
		if ns, err = strconv.ParseUint(number, 10, 16); err != nil || !ok {
			return fail(errors.New(`want "ns=<0 to 65535>;" before the identifier`))
		}
		named = true
	}
	if path, ok := strings.CutPrefix(rest, "path="); ok {
		a.id = wire.Num(0, objectsFolder)
		if after, ok := strings.CutPrefix(path, "/"); ok {
			a.id, path = wire.Num(0, rootFolder), after
		}
		var err error
		if a.path, err = parsePath(path, named, a.uri, uint16(ns)); err != nil {
			return fail(err)
		}
		return a, nil
	}
	id, err := wire.ParseIdentifier(rest)
	if err != nil {
		return fail(err)
	}
	id.NS = uint16(ns)
	a.id = id
	return a, nil
}

// cutNamespace ends a URI at the last ';' that an identifier or a path follows,
// since URIs may hold ';' themselves.
func cutNamespace(s string) (uri, rest string, ok bool) {
	for i := 0; i < len(s); i++ {
		if s[i] != ';' {
			continue
		}
		after := s[i+1:]
		for _, start := range []string{"i=", "s=", "g=", "b=", "path="} {
			if strings.HasPrefix(after, start) {
				return unescapeURI(s[:i]), after, true
			}
		}
	}
	return "", "", false
}

// unescapeURI undoes the escapes of ';' and '%' (OPC 10000-6, 5.3.1.11).
func unescapeURI(s string) string {
	return strings.NewReplacer("%3B", ";", "%3b", ";", "%25", "%").Replace(s)
}

func escapeURI(s string) string { return strings.NewReplacer("%", "%25", ";", "%3B").Replace(s) }

// parsePath reads elements separated by '/'. '&' makes the next character an
// ordinary one, as in the text format of relative paths (OPC 10000-4, A.2).
func parsePath(s string, named bool, uri string, ns uint16) ([]step, error) {
	var out []step
	var name strings.Builder
	st := step{own: named && uri != "", ns: ns}
	fresh := st
	end := func() error {
		if name.Len() == 0 {
			return errors.New("an element of the path is empty")
		}
		st.name = name.String()
		out = append(out, st)
		st = fresh
		name.Reset()
		return nil
	}
	plain, prefixed := true, false
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '&':
			if i++; i == len(s) {
				return nil, errors.New("the path ends in '&'")
			}
			plain = false
			name.WriteByte(s[i])
		case c == '/':
			if err := end(); err != nil {
				return nil, err
			}
			plain, prefixed = true, false
		case c == ':' && plain && !prefixed:
			if n, err := strconv.ParseUint(name.String(), 10, 16); err == nil {
				st = step{ns: uint16(n)}
				name.Reset()
				prefixed = true
				continue
			}
			name.WriteByte(c)
		default:
			name.WriteByte(c)
		}
	}
	if err := end(); err != nil {
		return nil, err
	}
	return out, nil
}

// String returns the address in the form that parseAddress reads.
func (a address) String() string {
	var b strings.Builder
	if a.uri != "" {
		b.WriteString("nsu=" + escapeURI(a.uri) + ";")
	} else if a.path == nil && a.id.NS > 0 {
		fmt.Fprintf(&b, "ns=%d;", a.id.NS)
	}
	if a.path == nil {
		b.WriteString(a.id.Identifier())
		return b.String()
	}
	b.WriteString("path=")
	if a.id.Std(rootFolder) {
		b.WriteByte('/')
	}
	for i, s := range a.path {
		if i > 0 {
			b.WriteByte('/')
		}
		if !s.own {
			fmt.Fprintf(&b, "%d:", s.ns)
		}
		b.WriteString(strings.NewReplacer("&", "&&", "/", "&/", ":", "&:").Replace(s.name))
	}
	return b.String()
}

// A namespaces table holds a server's namespace URIs by index.
type namespaces []string

// index returns the index of a URI.
func (n namespaces) index(uri string) (uint16, bool) {
	for i, u := range n {
		if u == uri {
			return uint16(i), true
		}
	}
	return 0, false
}

// text returns the stable form of a node's address: by URI where there is one.
func (n namespaces) text(id wire.NodeID) string {
	a := address{id: id}
	if id.NS > 0 && int(id.NS) < len(n) && n[id.NS] != "" {
		a.uri = n[id.NS]
	}
	return a.String()
}

// fixed returns the node id of an address without a path, or where its path
// starts; ok is false when the server has no such namespace.
func (a *address) fixed(n namespaces) (id wire.NodeID, ok bool) {
	id = a.id
	if a.uri != "" && a.path == nil {
		id.NS, ok = n.index(a.uri)
		return id, ok
	}
	return id, true
}

// names returns the browse names of the path's elements.
func (a *address) names(n namespaces) (out []wire.Name, ok bool) {
	for _, s := range a.path {
		ns := s.ns
		if s.own {
			if ns, ok = n.index(a.uri); !ok {
				return nil, false
			}
		}
		out = append(out, wire.Name{NS: ns, Name: s.name})
	}
	return out, true
}
