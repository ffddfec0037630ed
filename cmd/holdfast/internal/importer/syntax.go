package importer

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"holdfast/cmd/holdfast/internal/strict"
)

// trim strips a byte order mark and refuses what is not UTF-8.
func trim(in Input) ([]byte, error) {
	data := bytes.TrimPrefix(in.Data, []byte("\xef\xbb\xbf"))
	if bytes.HasPrefix(data, []byte("\xff\xfe")) || bytes.HasPrefix(data, []byte("\xfe\xff")) || !utf8.Valid(data) {
		return nil, fmt.Errorf("%s: the text is not UTF-8", in.Name)
	}
	return data, nil
}

// parseTOML reads a TOML document.
func parseTOML(in Input) (*node, error) {
	data, err := trim(in)
	if err != nil {
		return nil, err
	}
	doc, err := strict.Parse(in.Name, data)
	if err != nil {
		return nil, err
	}
	root := &node{used: true}
	return root, fromTOML(root, doc.Tree(), "", doc, 0)
}

func fromTOML(n *node, v any, path string, doc *strict.Document, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("line %d: the document is nested too deeply", n.line)
	}
	n.line = doc.Line(path)
	switch x := v.(type) {
	case map[string]any:
		n.table = make(map[string]*node, len(x))
		for key, below := range x {
			c := &node{parent: n, key: key}
			if err := fromTOML(c, below, strict.Join(path, key), doc, depth+1); err != nil {
				return err
			}
			n.table[key] = c
			n.keys = append(n.keys, key)
		}
		slices.SortFunc(n.keys, func(a, b string) int {
			if d := n.table[a].line - n.table[b].line; d != 0 {
				return d
			}
			return strings.Compare(a, b)
		})
	case []any:
		n.list = make([]*node, len(x))
		for i, below := range x {
			n.list[i] = &node{parent: n, index: i}
			if err := fromTOML(n.list[i], below, strict.At(path, i), doc, depth+1); err != nil {
				return err
			}
		}
	case string, int64, float64, bool:
		n.value = x
	case time.Time:
		n.value = x.Format(time.RFC3339)
	default:
		n.value = fmt.Sprint(x)
	}
	return nil
}

// parseYAML reads the documents of a YAML file.
func parseYAML(in Input) ([]*node, error) {
	data, err := trim(in)
	if err != nil {
		return nil, err
	}
	var roots []*node
	d := yaml.NewDecoder(bytes.NewReader(data))
	for {
		var doc yaml.Node
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return roots, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %s", in.Name, strings.TrimPrefix(err.Error(), "yaml: "))
		}
		budget := 4_000_000 // values, so that aliases cannot make the document explode
		root := &node{used: true}
		if err := fromYAML(root, &doc, 0, &budget); err != nil {
			return nil, fmt.Errorf("%s: %w", in.Name, err)
		}
		roots = append(roots, root)
	}
}

func fromYAML(n *node, y *yaml.Node, depth int, budget *int) error {
	if *budget--; *budget < 0 {
		return errors.New("the document has too many values")
	}
	if depth > maxDepth {
		return fmt.Errorf("line %d: the document is nested too deeply", y.Line)
	}
	n.line = y.Line
	switch y.Kind {
	case yaml.DocumentNode:
		if len(y.Content) > 0 {
			return fromYAML(n, y.Content[0], depth, budget)
		}
	case yaml.AliasNode:
		line := n.line
		err := fromYAML(n, y.Alias, depth+1, budget)
		n.line = line
		return err
	case yaml.MappingNode:
		n.table = map[string]*node{}
		for i := 0; i+1 < len(y.Content); i += 2 {
			c := &node{parent: n, key: y.Content[i].Value}
			if err := fromYAML(c, y.Content[i+1], depth+1, budget); err != nil {
				return err
			}
			c.line = y.Content[i].Line
			if _, twice := n.table[c.key]; !twice {
				n.keys = append(n.keys, c.key)
			}
			n.table[c.key] = c
		}
	case yaml.SequenceNode:
		n.list = make([]*node, len(y.Content))
		for i, below := range y.Content {
			n.list[i] = &node{parent: n, index: i}
			if err := fromYAML(n.list[i], below, depth+1, budget); err != nil {
				return err
			}
		}
	case yaml.ScalarNode:
		n.value = yamlScalar(y)
	}
	return nil
}

// yamlScalar keeps a number as it is written where a float would lose digits that
// matter: 10.10 is register 10, bit 10.
func yamlScalar(y *yaml.Node) any {
	switch y.ShortTag() {
	case "!!int":
		if v, err := strconv.ParseInt(strings.ReplaceAll(y.Value, "_", ""), 0, 64); err == nil {
			return v
		}
	case "!!bool":
		if v, err := strconv.ParseBool(strings.ToLower(y.Value)); err == nil {
			return v
		}
	case "!!null":
		return nil
	}
	return y.Value
}

// parseJSON reads JSON in which comments and commas too many are allowed.
func parseJSON(in Input) (*node, error) {
	data, err := trim(in)
	if err != nil {
		return nil, err
	}
	data = plainJSON(data)
	j := jsonReader{data: data, line: 1, d: json.NewDecoder(bytes.NewReader(data))}
	j.d.UseNumber()
	root := &node{used: true}
	if err := j.value(root, 0); err != nil {
		return nil, fmt.Errorf("%s:%d: %w", in.Name, j.here(), err)
	}
	if _, err := j.d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s:%d: there is something after the end", in.Name, j.here())
	}
	return root, nil
}

// plainJSON puts spaces in the place of comments and of commas before a closing
// bracket, so that every byte stays on its line.
func plainJSON(data []byte) []byte {
	out := bytes.Clone(data)
	comma := -1 // a comma after which nothing has come yet
	for i := 0; i < len(out); i++ {
		switch c := out[i]; {
		case c == '"':
			comma = -1
			for i++; i < len(out) && out[i] != '"' && out[i] != '\n'; i++ {
				if out[i] == '\\' {
					i++
				}
			}
		case c == '/' && i+1 < len(out) && out[i+1] == '/':
			for ; i < len(out) && out[i] != '\n'; i++ {
				out[i] = ' '
			}
		case c == '/' && i+1 < len(out) && out[i+1] == '*':
			end := bytes.Index(out[i+2:], []byte("*/"))
			if end < 0 {
				return out // an error of the decoder's
			}
			for stop := i + 2 + end + 2; i < stop; i++ {
				if out[i] != '\n' {
					out[i] = ' '
				}
			}
			i--
		case c == ',':
			comma = i
		case c == ']' || c == '}':
			if comma >= 0 {
				out[comma] = ' '
			}
			comma = -1
		case c > ' ':
			comma = -1
		}
	}
	return out
}

type jsonReader struct {
	data   []byte
	d      *json.Decoder
	offset int
	line   int
}

// here returns the line that the decoder has come to.
func (j *jsonReader) here() int {
	at := min(int(j.d.InputOffset()), len(j.data))
	if at > j.offset {
		j.line += bytes.Count(j.data[j.offset:at], []byte{'\n'})
		j.offset = at
	}
	return j.line
}

func (j *jsonReader) value(n *node, depth int) error {
	if depth > maxDepth {
		return errors.New("the document is nested too deeply")
	}
	t, err := j.d.Token()
	if err != nil {
		return err
	}
	if n.line == 0 {
		n.line = j.here()
	}
	switch x := t.(type) {
	case json.Delim:
		if x == '{' {
			return j.object(n, depth)
		}
		n.list = []*node{}
		for j.d.More() {
			c := &node{parent: n, index: len(n.list)}
			if err := j.value(c, depth+1); err != nil {
				return err
			}
			n.list = append(n.list, c)
		}
		_, err = j.d.Token()
		return err
	case json.Number:
		n.value = jsonNumber(x)
	default:
		n.value = x // string, bool, nil
	}
	return nil
}

func (j *jsonReader) object(n *node, depth int) error {
	n.table = map[string]*node{}
	for j.d.More() {
		t, err := j.d.Token()
		if err != nil {
			return err
		}
		key, ok := t.(string)
		if !ok {
			return errors.New("a key is not a text")
		}
		c := &node{parent: n, key: key, line: j.here()}
		if err := j.value(c, depth+1); err != nil {
			return err
		}
		if _, twice := n.table[key]; !twice {
			n.keys = append(n.keys, key)
		}
		n.table[key] = c
	}
	_, err := j.d.Token()
	return err
}

func jsonNumber(x json.Number) any {
	if v, err := x.Int64(); err == nil {
		return v
	}
	if f, err := x.Float64(); err == nil && !math.IsInf(f, 0) {
		return f
	}
	return string(x)
}
