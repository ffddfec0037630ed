package strict

import (
	"bytes"

	"github.com/pelletier/go-toml/v2/unstable"
)

// indexer walks the syntax tree of a file that is known to parse and notes the
// line of every key.
type indexer struct {
	parser unstable.Parser
	data   []byte
	places map[string]int
	counts map[string]int // arrays of tables: path to number of elements so far
	offset int            // where line was counted to: keys come in the order of the file
	line   int
}

func index(data []byte) map[string]int {
	x := &indexer{data: data, places: map[string]int{}, counts: map[string]int{}, line: 1}
	x.parser.Reset(data)
	table := ""
	for x.parser.NextExpression() {
		switch n := x.parser.Expression(); n.Kind {
		case unstable.Table, unstable.ArrayTable:
			table = x.header(n)
		case unstable.KeyValue:
			x.pair(table, n)
		}
	}
	return x.places
}

// header notes the keys of a table header and returns the table's path, in
// which a key that names an array of tables means its last element.
func (x *indexer) header(n *unstable.Node) string {
	path := ""
	it := n.Key()
	for it.Next() {
		path = Join(path, string(it.Node().Data))
		x.note(path, it.Node())
		switch {
		case n.Kind == unstable.ArrayTable && it.IsLast():
			path = At(path, x.counts[path])
			x.counts[parent(path)]++
			x.note(path, it.Node())
		case x.counts[path] > 0:
			path = At(path, x.counts[path]-1)
		}
	}
	return path
}

func (x *indexer) pair(table string, n *unstable.Node) {
	path := table
	it := n.Key()
	var last *unstable.Node
	for it.Next() {
		path = Join(path, string(it.Node().Data))
		last = it.Node()
		x.note(path, last)
	}
	x.value(path, last, n.Value())
}

// value notes what is inside an inline table or an array. Scalars in an array
// have no key of their own, they are noted at the array's key.
func (x *indexer) value(path string, key, n *unstable.Node) {
	switch n.Kind {
	case unstable.InlineTable:
		it := n.Children()
		for it.Next() {
			x.pair(path, it.Node())
		}
	case unstable.Array:
		it := n.Children()
		for i := 0; it.Next(); i++ {
			if it.Node().Kind == unstable.Comment {
				i--
				continue
			}
			element := At(path, i)
			x.note(element, at(it.Node(), key))
			x.value(element, at(it.Node(), key), it.Node())
		}
	}
}

// at returns the first of two nodes that knows where it is.
func at(n, fallback *unstable.Node) *unstable.Node {
	if n.Raw.Length > 0 {
		return n
	}
	return fallback
}

func (x *indexer) note(path string, n *unstable.Node) {
	if _, ok := x.places[path]; ok {
		return
	}
	at := int(n.Raw.Offset)
	if at < x.offset {
		x.offset, x.line = 0, 1
	}
	x.line += bytes.Count(x.data[x.offset:at], []byte{'\n'})
	x.offset = at
	x.places[path] = x.line
}
