package importer

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A node is one value of a foreign document, whatever its syntax, with the line
// it stands on. Reading it marks it as used, so that what nobody has read can be
// told in the end.
type node struct {
	line   int
	parent *node
	key    string // in the parent, "" in a list
	index  int    // in the parent, when that is a list

	keys  []string // of a table, in the order of the file as far as it is known
	table map[string]*node
	list  []*node
	value any // string, int64, float64, bool or nil; for scalars

	used bool
}

// maxDepth bounds how deep documents may be.
const maxDepth = 64

func (n *node) isTable() bool { return n != nil && n.table != nil }
func (n *node) isList() bool  { return n != nil && n.list != nil }

// path names the node as people know it: inputs.modbus[0].name.
func (n *node) path() string {
	if n == nil || n.parent == nil {
		return ""
	}
	above := n.parent.path()
	if n.key == "" {
		return fmt.Sprintf("%s[%d]", above, n.index)
	}
	if above == "" {
		return n.key
	}
	return above + "." + n.key
}

// peek returns a child without marking it.
func (n *node) peek(key string) *node {
	if n == nil || n.table == nil {
		return nil
	}
	return n.table[key]
}

// get returns a child, nil if there is none, and marks it as used.
func (n *node) get(key string) *node {
	c := n.peek(key)
	if c != nil {
		c.used = true
	}
	return c
}

// items returns the elements of a list, marked as used. A single value counts as
// a list of one.
func (n *node) items() []*node {
	switch {
	case n == nil:
		return nil
	case n.list == nil:
		n.used = true
		return []*node{n}
	}
	for _, c := range n.list {
		c.used = true
	}
	return n.list
}

// take marks a node and all below it as used.
func (n *node) take() {
	if n == nil {
		return
	}
	n.used = true
	for _, c := range n.table {
		c.take()
	}
	for _, c := range n.list {
		c.take()
	}
}

// at returns the line of a node, or of the one around it.
func (n *node) at() int {
	for n != nil && n.line == 0 {
		n = n.parent
	}
	if n == nil {
		return 0
	}
	return n.line
}

// text returns a scalar as text.
func (r *reader) text(n *node, otherwise string) string {
	if n == nil || n.value == nil && n.table == nil && n.list == nil {
		return otherwise
	}
	switch v := n.value.(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return strconv.FormatBool(v)
	}
	r.lost(n.at(), n.path(), "is not a text")
	return otherwise
}

// number returns a scalar as a number; texts that are one count.
func (r *reader) number(n *node, otherwise float64) float64 {
	if n == nil || n.value == nil && n.table == nil && n.list == nil {
		return otherwise
	}
	f := math.NaN()
	switch v := n.value.(type) {
	case int64:
		f = float64(v)
	case float64:
		f = v
	case string:
		if x, err := strconv.ParseFloat(strings.TrimSpace(v), 64); err == nil {
			f = x
		}
	}
	if math.IsNaN(f) || math.IsInf(f, 0) {
		r.lost(n.at(), n.path(), "is not a number")
		return otherwise
	}
	return f
}

// integer returns a scalar as a whole number from low to high.
func (r *reader) integer(n *node, otherwise, low, high int) int {
	if n == nil {
		return otherwise
	}
	f := r.number(n, float64(otherwise))
	if f != math.Trunc(f) || f < float64(low) || f > float64(high) {
		r.lost(n.at(), n.path(), "%v is not a whole number from %d to %d", n.value, low, high)
		return otherwise
	}
	return int(f)
}

// boolean returns a scalar as a truth value; the texts true and false count.
func (r *reader) boolean(n *node, otherwise bool) bool {
	if n == nil || n.value == nil && n.table == nil && n.list == nil {
		return otherwise
	}
	switch v := n.value.(type) {
	case bool:
		return v
	case string:
		if b, err := strconv.ParseBool(v); err == nil {
			return b
		}
	}
	r.lost(n.at(), n.path(), "is neither true nor false")
	return otherwise
}

// duration returns a text such as "10s" or, in the unit given, a number. 0 with
// a note when it is neither.
func (r *reader) duration(n *node, unit time.Duration) time.Duration {
	if n == nil {
		return 0
	}
	if s, ok := n.value.(string); ok {
		if d, err := time.ParseDuration(strings.TrimSpace(s)); err == nil && d >= 0 {
			return d
		}
	}
	f := r.number(n, -1)
	if f < 0 || f*float64(unit) > math.MaxInt64/2 {
		if f >= 0 || n.value != nil {
			r.lost(n.at(), n.path(), "is not a time")
		}
		return 0
	}
	return time.Duration(f * float64(unit))
}

// drop leaves a child out, with the reason.
func (r *reader) drop(n *node, key, why string, args ...any) {
	if c := n.get(key); c != nil {
		c.take()
		r.lost(c.at(), c.path(), why, args...)
	}
}

// silently marks children whose absence changes nothing: what they say is the
// same without them.
func silently(n *node, keys ...string) {
	for _, key := range keys {
		n.get(key).take()
	}
}

// leftovers notes everything below a node that nobody has read.
func (r *reader) leftovers(n *node) {
	if n == nil {
		return
	}
	for _, key := range n.keys {
		c := n.table[key]
		if !c.used {
			r.lost(c.at(), c.path(), "has no counterpart")
			continue
		}
		r.leftovers(c)
	}
	for _, c := range n.list {
		if !c.used {
			r.lost(c.at(), c.path(), "has no counterpart")
			continue
		}
		r.leftovers(c)
	}
}
