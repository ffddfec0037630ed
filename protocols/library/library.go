// Package library knows products: which tags a field device of a make and model
// has, where they are, in what unit and order, what it cannot take, and which
// public document says so. FORMAT.md beside this file describes the files in
// products; each is one product.
//
// It is pure: the files are part of the program, and nothing is opened.
package library

import (
	"embed"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"holdfast/protocols/point"
	"holdfast/protocols/tagfile"
)

//go:embed products/*.toml
var files embed.FS

// A Product is one make and model of field device.
type Product struct {
	Name     string           // as in products, such as "eastron-sdm630"
	Maker    string           // such as "Eastron"
	Model    string           // such as "SDM630-Modbus"
	Protocol string           // name in protocols/all
	Notes    []string         // what somebody who uses it should know
	Sources  []Source         // at least one
	Settings map[string]any   // keys of the device that the protocol defines: limits, order, pauses
	Serial   map[string]any   // more of them, for a device on a serial line (transport = "rtu")
	Tags     []point.Tag      // at least one
	Tables   []map[string]any // of Tags, as they are written
}

// A Source is a public document from which facts were taken.
type Source struct {
	Title string
	URL   string
}

// Names returns the names of all products, sorted.
func Names() []string {
	entries, err := files.ReadDir("products")
	if err != nil {
		panic(err) // embedded: it is there
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = strings.TrimSuffix(e.Name(), ".toml")
	}
	return names
}

// ErrUnknown is the error of Find for a name that the library does not have.
var ErrUnknown = errors.New("is not in the library")

// Find returns a product by its name.
func Find(name string) (*Product, error) {
	if !slices.Contains(Names(), name) {
		return nil, fmt.Errorf("product %q %w", name, ErrUnknown)
	}
	file := path.Join("products", name+".toml")
	data, err := files.ReadFile(file)
	if err != nil {
		return nil, err
	}
	p, err := Parse(data, file)
	if err == nil && p.Name != name {
		err = fmt.Errorf("%s: the product calls itself %q", file, p.Name)
	}
	return p, err
}

// Parse reads the text of one product. file is its name for messages. An error
// holds every mistake, joined. Settings and the protocol's part of tags are for
// the protocol's adapter to check.
func Parse(data []byte, file string) (*Product, error) {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return nil, fmt.Errorf("%s: %s", file, strings.TrimPrefix(err.Error(), "toml: "))
	}
	r := reader{file: file, tree: tree}
	p := &Product{
		Name: r.text("product"), Maker: r.text("maker"), Model: r.text("model"), Protocol: r.text("protocol"),
		Notes: r.notes(), Sources: r.sources(), Settings: r.table("settings"), Serial: r.table("serial"),
	}
	p.Tables, p.Tags = r.tags()
	for key := range p.Serial {
		if _, twice := p.Settings[key]; twice {
			r.fail("serial: %q is in settings too", key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(tree)) {
		r.fail("unknown key %q", key)
	}
	if err := errors.Join(r.errs...); err != nil {
		return nil, err
	}
	return p, nil
}

// reader takes the known keys out of a file and gathers mistakes.
type reader struct {
	file string
	tree map[string]any
	errs []error
}

func (r *reader) fail(format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("%s: %w", r.file, fmt.Errorf(format, args...)))
}

func (r *reader) take(key string) (any, bool) {
	v, ok := r.tree[key]
	delete(r.tree, key)
	return v, ok
}

func (r *reader) text(key string) string {
	v, _ := r.take(key)
	s, ok := v.(string)
	if !ok || s == "" {
		r.fail("%s: want a text in quotes", key)
	}
	return s
}

func (r *reader) table(key string) map[string]any {
	v, given := r.take(key)
	t, ok := v.(map[string]any)
	if given && !ok {
		r.fail("%s: want a table", key)
	}
	return t
}

func (r *reader) list(key string) []any {
	v, given := r.take(key)
	l, ok := v.([]any)
	if given && !ok {
		r.fail("%s: want a list", key)
	}
	return l
}

func (r *reader) notes() (out []string) {
	for _, v := range r.list("notes") {
		s, ok := v.(string)
		if !ok {
			r.fail("notes: want texts in quotes")
		}
		out = append(out, s)
	}
	return out
}

func (r *reader) sources() (out []Source) {
	for i, v := range r.list("source") {
		t, _ := v.(map[string]any)
		title, _ := t["title"].(string)
		url, _ := t["url"].(string)
		if title == "" || !strings.HasPrefix(url, "http") || len(t) != 2 {
			r.fail("source %d: want a title and the url of a public document, and nothing else", i+1)
		}
		out = append(out, Source{title, url})
	}
	if len(out) == 0 {
		r.fail("there is no [[source]]: say which public document the facts are from")
	}
	return out
}

func (r *reader) tags() (tables []map[string]any, tags []point.Tag) {
	seen := map[string]bool{}
	for i, v := range r.list("tag") {
		t, ok := v.(map[string]any)
		if !ok {
			r.fail("tag %d: want a table", i+1)
			continue
		}
		tag, err := tagfile.FromTable(t)
		if err != nil {
			r.fail("tag %d %v: %w", i+1, t["name"], err)
			continue
		}
		if seen[tag.Name] {
			r.fail("tag %q is there twice", tag.Name)
		}
		seen[tag.Name] = true
		tables, tags = append(tables, t), append(tags, tag)
	}
	if len(tags) == 0 && len(r.errs) == 0 {
		r.fail("there are no tags")
	}
	return tables, tags
}
