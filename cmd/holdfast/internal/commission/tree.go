package commission

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// Bounds are how far a tree is followed. What is beyond is told, not shown.
type Bounds struct {
	Depth int // levels below the start
	Nodes int // in all
}

// A Tree is a part of what a field device offers.
type Tree struct {
	protocols.Node
	Children []*Tree
	More     string // why there is no more below; "" when that is all
}

// Why a tree does not go on.
const (
	deeper = "deeper than asked for"
	full   = "more nodes than asked for"
	above  = "shown above"
)

// Browse follows a device's nodes from an address, "" for the root, level by level,
// so that the bound on nodes does not hide the neighbours of a large folder.
// Nodes that were seen are not followed again: address spaces have circles. An error
// is one of the start itself; trouble further down stands in the tree.
func Browse(ctx context.Context, b protocols.Browser, from string, bounds Bounds) (*Tree, error) {
	root := &Tree{Node: protocols.Node{Address: from, Folder: true}}
	w := walker{b: b, bounds: bounds, seen: map[string]bool{from: true}, level: []*Tree{root}}
	for depth := 0; len(w.level) > 0; depth++ {
		level := w.level
		w.level = nil
		for _, t := range level {
			if depth >= bounds.Depth {
				t.More = deeper
				continue
			}
			if err := w.open(ctx, t); err != nil {
				if t == root || ctx.Err() != nil {
					return root, err
				}
				t.More = err.Error()
			}
		}
	}
	return root, nil
}

type walker struct {
	b      protocols.Browser
	bounds Bounds
	seen   map[string]bool
	nodes  int
	level  []*Tree // folders to open next
}

// open asks for the children of a node.
func (w *walker) open(ctx context.Context, t *Tree) error {
	if w.nodes >= w.bounds.Nodes {
		t.More = full
		return nil
	}
	children, err := w.b.Browse(ctx, t.Address)
	if err != nil {
		return err
	}
	for _, n := range children {
		if w.nodes >= w.bounds.Nodes {
			t.More = full
			return nil
		}
		w.nodes++
		c := &Tree{Node: n}
		t.Children = append(t.Children, c)
		switch {
		case w.seen[n.Address] && n.Folder:
			c.More = above
		case n.Folder:
			w.level = append(w.level, c)
		}
		w.seen[n.Address] = true
	}
	return nil
}

// Lines renders a tree, one node on a line: name, type and access, address, and
// why there is no more below it.
func (t *Tree) Lines() []string {
	var out []string
	var visit func(t *Tree, prefix string)
	visit = func(t *Tree, prefix string) {
		for i, c := range t.Children {
			branch, next := "├─ ", "│  "
			if i == len(t.Children)-1 && t.More == "" {
				branch, next = "└─ ", "   "
			}
			line := prefix + branch + clean(c.Name)
			if c.Type != "" {
				line += "  " + c.Type + " " + c.Access.String()
			}
			line += "  " + clean(c.Address)
			switch {
			case c.More == deeper:
				line += "  …"
			case c.More != "" && len(c.Children) == 0:
				line += "  … " + clean(c.More)
			}
			out = append(out, line)
			visit(c, prefix+next)
		}
		if t.More != "" && len(t.Children) > 0 {
			out = append(out, prefix+"└─ … "+clean(t.More))
		}
	}
	visit(t, "")
	return out
}

// Count returns the number of nodes and of those that can be tags.
func (t *Tree) Count() (nodes, values int) {
	for _, c := range t.Children {
		n, v := c.Count()
		nodes, values = nodes+n+1, values+v
		if c.isValue() {
			values++
		}
	}
	return nodes, values
}

// isValue reports whether a node can be a tag as it is. Methods are called, not
// read.
func (t *Tree) isValue() bool { return !t.Folder && t.Type != "" && t.Type != "method" }

// Tags returns a tag for each value of a tree, in its order. Names are those of the
// nodes, with the folders around them where they would be there twice.
func (t *Tree) Tags() []point.Tag {
	type leaf struct {
		t    *Tree
		path []string
	}
	var leaves []leaf
	count := map[string]int{}
	var visit func(t *Tree, path []string)
	visit = func(t *Tree, path []string) {
		for _, c := range t.Children {
			here := append(append([]string(nil), path...), tagName(c.Name))
			if c.isValue() {
				leaves = append(leaves, leaf{c, here})
				count[here[len(here)-1]]++
			}
			visit(c, here)
		}
	}
	visit(t, nil)
	used, addresses := map[string]bool{}, map[string]bool{}
	var out []point.Tag
	for _, l := range leaves {
		if addresses[l.t.Address] {
			continue
		}
		addresses[l.t.Address] = true
		name := l.path[len(l.path)-1]
		for k := len(l.path) - 2; k >= 0 && (count[l.path[len(l.path)-1]] > 1 && k == len(l.path)-2 || used[name]); k-- {
			name = l.path[k] + "." + name
		}
		for n, free := 2, name; used[name]; n++ {
			name = fmt.Sprintf("%s_%d", free, n)
		}
		used[name] = true
		out = append(out, point.Tag{Name: name, Address: l.t.Address, Access: l.t.Access})
	}
	return out
}

func tagName(s string) string {
	s = strings.TrimLeft(strings.TrimSpace(strings.Map(func(c rune) rune {
		if strings.ContainsRune("/+#", c) || unicode.IsControl(c) || c == unicode.ReplacementChar {
			return '-'
		}
		return c
	}, strings.ToValidUTF8(s, "-"))), "$")
	if len(s) > 60 {
		s = strings.ToValidUTF8(s[:60], "")
	}
	if s == "" {
		return "node"
	}
	return s
}
