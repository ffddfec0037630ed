package tagfile

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
	"github.com/pelletier/go-toml/v2/unstable"

	"holdfast/protocols/point"
)

// decodeTOML reads [[tag]] tables.
func decodeTOML(data []byte, name string) ([]point.Tag, error) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		m := &Mistake{File: name, Text: err.Error()}
		if d, ok := errors.AsType[*toml.DecodeError](err); ok {
			m.Line, _ = d.Position()
			m.Text = strings.TrimPrefix(d.Error(), "toml: ")
		}
		return nil, m
	}
	lines := findLines(data)
	var mistakes []*Mistake
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		if key != "tag" {
			mistakes = append(mistakes, &Mistake{
				Line: lines.top[key], Key: key, Text: "unknown key", Hint: "a tag table has only [[tag]]",
			})
		}
	}
	list, ok := tree["tag"].([]any)
	if !ok && tree["tag"] != nil {
		mistakes = append(mistakes, &Mistake{Line: lines.top["tag"], Key: "tag", Text: "want [[tag]], a list of tables"})
	}
	tags, at := make([]point.Tag, 0, len(list)), make([]int, 0, len(list))
	for i, element := range list {
		table, ok := element.(map[string]any)
		if !ok {
			mistakes = append(mistakes, &Mistake{Line: lines.top["tag"], Key: "tag", Text: fmt.Sprintf("want a table, not %v", element)})
			continue
		}
		b := builder{}
		b.table(table, func(key string) int { return lines.of(i, key) })
		tag, wrong := b.finish(lines.of(i, ""))
		mistakes = append(mistakes, wrong...)
		tags, at = append(tags, tag), append(at, lines.of(i, ""))
	}
	mistakes = append(mistakes, checkUnique(tags, at)...)
	if len(mistakes) > 0 {
		slices.SortStableFunc(mistakes, func(a, b *Mistake) int { return a.Line - b.Line })
		return nil, join(name, mistakes)
	}
	return tags, nil
}

// lineIndex knows where the keys of a TOML file stand.
type lineIndex struct {
	top  map[string]int
	tags []map[string]int // of each [[tag]]: key to line; "" is the header's
}

// of returns the line of a key of the ith tag, or of the tag.
func (x *lineIndex) of(i int, key string) int {
	if i >= len(x.tags) {
		return x.top["tag"]
	}
	if line := x.tags[i][key]; line > 0 {
		return line
	}
	return x.tags[i][""]
}

// findLines walks a file that is known to parse.
func findLines(data []byte) *lineIndex {
	x := &lineIndex{top: map[string]int{}}
	var p unstable.Parser
	p.Reset(data)
	offset, line := 0, 1
	lineOf := func(n *unstable.Node) int {
		at := int(n.Raw.Offset)
		if at >= offset { // keys come in the order of the file
			line += bytes.Count(data[offset:at], []byte{'\n'})
			offset = at
		}
		return line
	}
	here := ""
	for p.NextExpression() {
		n := p.Expression()
		if n.Kind != unstable.Table && n.Kind != unstable.ArrayTable && n.Kind != unstable.KeyValue {
			continue
		}
		var parts []string
		first := 0
		for it := n.Key(); it.Next(); {
			parts = append(parts, string(it.Node().Data))
			if first == 0 {
				first = lineOf(it.Node())
			}
		}
		key := strings.Join(parts, ".")
		if n.Kind == unstable.KeyValue {
			x.pair(here, key, first)
			if v := n.Value(); v.Kind == unstable.InlineTable {
				for it := v.Children(); it.Next(); {
					if c := it.Node(); c.Kind == unstable.KeyValue {
						for k := c.Key(); k.Next(); {
							x.pair(here, key+"."+string(k.Node().Data), lineOf(k.Node()))
						}
					}
				}
			}
			continue
		}
		here = key
		if n.Kind == unstable.ArrayTable && key == "tag" {
			x.tags = append(x.tags, map[string]int{"": first})
		} else if x.top[parts[0]] == 0 {
			x.top[parts[0]] = first
		}
	}
	return x
}

// pair notes a key below the table here.
func (x *lineIndex) pair(here, key string, line int) {
	below, inTag := strings.CutPrefix(here+".", "tag.")
	switch {
	case inTag && len(x.tags) > 0:
		x.tags[len(x.tags)-1][below+key] = line
	case here == "" && x.top[key] == 0:
		x.top[key] = line
	}
}

// encodeTOML writes one [[tag]] table for each tag.
func encodeTOML(tags []point.Tag) []byte {
	var out bytes.Buffer
	for i := range tags {
		if i > 0 {
			out.WriteByte('\n')
		}
		out.WriteString("[[tag]]\n")
		for _, f := range fieldsOf(&tags[i]) {
			out.WriteString(f.key) // params.x is a dotted key; the names need no quotes
			out.WriteString(" = ")
			switch v := f.value.(type) {
			case string:
				quoteTOML(&out, v)
			case float64:
				out.WriteString(formatFloat(v))
			case bool:
				fmt.Fprint(&out, v)
			}
			out.WriteByte('\n')
		}
	}
	return out.Bytes()
}

// quoteTOML writes a basic string. Texts have no control characters.
func quoteTOML(out *bytes.Buffer, s string) {
	out.WriteByte('"')
	for _, r := range s {
		if r == '"' || r == '\\' {
			out.WriteByte('\\')
		}
		out.WriteRune(r)
	}
	out.WriteByte('"')
}
