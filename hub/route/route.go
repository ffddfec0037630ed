// Package route is the language in which a deployment says where messages go:
//
//	FROM /messages/modules/press7/outputs/* WHERE $body.alarm.level >= 3 INTO $upstream
//
// It is the routing language of Azure IoT Edge, so that a deployment written
// for that product means the same here. A route is parsed and type-checked
// once; matching it against a message allocates nothing unless it asks for the
// message's JSON body.
//
//	route     = [ "SELECT" "*" ] "FROM" source [ "WHERE" condition ] "INTO" sink
//	source    = "/" item { "/" item }          item = name | "*"
//	sink      = "$upstream"
//	          | "BrokeredEndpoint" "(" "/modules/<module>/inputs/<input>" ")"
//	          | "Upstream" "(" "<name>" ")"     an upstream other than the first one; our addition
//
// Operators of a condition, the tightest first: unary -; NOT; * / %; + - ||;
// < <= > >=; = != <>; AND; OR; ??. Keywords and function names may be written
// in any case. There are no implicit conversions: an application property is a
// string, and comparing it with a number is an error when the route is parsed.
//
// A source matches by whole path segments, without regard to case, and a
// trailing "*" adds nothing. What the hub calls its messages:
//
//	/messages/                          telemetry of a leaf device
//	/messages/modules/<m>/outputs/<o>/  output o of module m
//	/messages/modules/field/outputs/<device>/   readings of the gateway's own field daemon
//	/messages/topics/<topic>/           any other MQTT message
//	/twinChangeNotifications/           a reported property changed
//
// # Dialects
//
// [Fixed] is the language as its documentation has it. [Compat] behaves as the
// original implementation does where that differs:
//
//  1. is_null of a body value: Fixed tells whether it is null or missing;
//     Compat says true for every leaf that is present and false for a missing
//     one.
//  2. Operator characters in names: in Compat + - * % | and others are part of
//     a name, so that operators need white space, and "a -5" is an error. In
//     Fixed they end a name, except for a hyphen with a name's character on
//     both sides: property names with hyphens are common, and properties are
//     strings, which cannot be subtracted.
//  3. A body value as the right operand of AND and OR: Compat refuses it unless
//     the left operand is a body value too.
//  4. < <= > >= between body values of different types: undefined in Fixed, by
//     rank of the type in Compat.
//
// Compat also begins a comment at the "/*" that ends a source when "*/" follows
// anywhere later; Fixed does not look for comments inside a source.
package route

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/hub"
)

// Dialect chooses between the language as documented and as first implemented.
type Dialect uint8

// The dialects.
const (
	Fixed  Dialect = iota // the documented meaning
	Compat                // the quirks of the original; see the package's comment
)

// MaxText is the longest text of a route, in bytes.
const MaxText = 16 << 10

// A Route is one parsed route. It is immutable.
type Route struct {
	dialect  Dialect
	all      bool // written with SELECT *
	source   []string
	prefix   string // of source, lower case, with a slash at the end
	where    node   // nil when there is no condition
	sink     sink
	endpoint string
}

// Parse reads a route. Its error is an [*Error] and tells the position.
func Parse(text string, d Dialect) (*Route, error) {
	if len(text) > MaxText {
		return nil, &Error{Line: 1, Col: 1, Problem: fmt.Sprintf("route is longer than %d bytes", MaxText)}
	}
	p := parser{lex: lexer{text: text, dialect: d}}
	return p.parse()
}

// Endpoint returns where the route leads, as in [hub.Target].
func (r *Route) Endpoint() string { return r.endpoint }

// Matches reports whether the route applies to m. A condition that is
// undefined does not match.
func (r *Route) Matches(m Message, s *Scratch) bool {
	s.reset(m, r.dialect)
	return r.matches(m.Source(), s)
}

func (r *Route) matches(source []byte, s *Scratch) bool {
	if !hasPrefixFold(source, r.prefix) {
		return false
	}
	return r.where == nil || truth(r.where.eval(s)) == yes
}

// hasPrefixFold reports whether s begins with prefix, which is lower case,
// ignoring the case of ASCII letters.
func hasPrefixFold(s []byte, prefix string) bool {
	if len(s) < len(prefix) {
		return false
	}
	if string(s[:len(prefix)]) == prefix {
		return true
	}
	for i := range len(prefix) {
		c := s[i]
		if c != prefix[i] && (c < 'A' || c > 'Z' || c|0x20 != prefix[i]) {
			return false
		}
	}
	return true
}

// Spec is a route as a configuration gives it.
type Spec struct {
	Name     string
	Text     string
	Priority uint8         // hub.HighestPriority (0, also the zero value) to hub.LowestPriority
	TTL      time.Duration // how long its messages are kept; 0 = as Options.TTL
}

// Options are those of a whole table.
type Options struct {
	Dialect Dialect
	TTL     time.Duration // for routes without one; 0 = for ever
}

// A Table is a set of routes. It is immutable and safe for concurrent use with
// one Scratch for each goroutine.
type Table struct {
	rows      []row // best priority first, then in the order given
	endpoints []string
}

type row struct {
	route    *Route
	name     string
	endpoint int // index into Table.endpoints
	target   hub.Target
}

// NewTable parses all routes. One bad route refuses the table: a deployment is
// taken whole or not at all. The error joins those of all bad routes.
func NewTable(specs []Spec, o Options) (*Table, error) {
	t := &Table{}
	var errs []error
	for _, s := range specs {
		r, err := Parse(s.Text, o.Dialect)
		if err == nil && s.Priority > hub.LowestPriority {
			err = fmt.Errorf("priority %d is not one of %d to %d", s.Priority, hub.HighestPriority, hub.LowestPriority)
		}
		if err == nil && (s.TTL < 0 || o.TTL < 0) {
			err = errors.New("time to live is negative")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("route %q: %w", s.Name, err))
			continue
		}
		ttl := s.TTL
		if ttl == 0 {
			ttl = o.TTL
		}
		i := slices.Index(t.endpoints, r.endpoint)
		if i < 0 {
			i = len(t.endpoints)
			t.endpoints = append(t.endpoints, r.endpoint)
		}
		t.rows = append(t.rows, row{r, s.Name, i, hub.Target{Endpoint: r.endpoint, Priority: s.Priority, TTL: ttl}})
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	slices.SortStableFunc(t.rows, func(a, b row) int { return int(a.target.Priority) - int(b.target.Priority) })
	return t, nil
}

// Endpoints returns the endpoints that the table's routes lead to, in the order
// in which they were first named.
func (t *Table) Endpoints() []string { return slices.Clone(t.endpoints) }

// Len returns the number of routes.
func (t *Table) Len() int { return len(t.rows) }

// Match returns the targets of m: one for each endpoint that a matching route
// leads to, with the best priority among these routes and the time to live of
// the route that has it. The result is valid until s is used again.
func (t *Table) Match(m Message, s *Scratch) []hub.Target {
	s.targets = s.targets[:0]
	if len(t.rows) == 0 {
		return nil
	}
	s.reset(m, t.rows[0].route.dialect)
	if cap(s.seen) < len(t.endpoints) {
		s.seen = make([]bool, len(t.endpoints))
	}
	s.seen = s.seen[:len(t.endpoints)]
	clear(s.seen)
	source := m.Source()
	for i := range t.rows {
		r := &t.rows[i]
		// Rows are sorted, so the first match of an endpoint is its best.
		if !s.seen[r.endpoint] && r.route.matches(source, s) {
			s.seen[r.endpoint] = true
			s.targets = append(s.targets, r.target)
		}
	}
	return s.targets
}
