package importer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols/point"
	"holdfast/protocols/tagfile"
)

// A File is what becomes of one file.
type File struct {
	Path     string
	Old, New []byte // Old is nil when there was no such file
}

// Same reports whether the file stays as it is.
func (f *File) Same() bool { return f.Old != nil && bytes.Equal(f.Old, f.New) }

// An ExistsError says that a device is there already and is not the same.
type ExistsError struct{ Device, File string }

// Error names the device.
func (e *ExistsError) Error() string {
	return fmt.Sprintf("%s has field device %q already, and it is not the same", e.File, e.Device)
}

// Plan returns the files that a configuration consists of when the result is in
// it: the configuration at path, which may not exist yet, and a tag table for each
// device in the folder tags beside it. A device of the same name, or its tag table,
// that is not the same is replaced only if replace says so. Scan classes whose name has another meaning there are given
// another name. Nothing is written.
func (r *Result) Plan(path string, replace bool, read config.Files) ([]File, error) {
	old, err := readOld(read, path)
	if err != nil {
		return nil, err
	}
	doc, err := strict.Parse(path, old)
	if err != nil {
		return nil, err
	}
	classes, fresh, err := r.mergeClasses(doc)
	if err != nil {
		return nil, err
	}
	text := addClasses(string(old), fresh)
	var tables []File
	for i := range r.Devices {
		d := r.Devices[i]
		d.rename(classes)
		fragment, table, err := d.fragment()
		if err != nil {
			return nil, fmt.Errorf("device %q: %w", d.Name, err)
		}
		if table.New != nil {
			table.Path = filepath.Join(filepath.Dir(path), table.Path)
			if table.Old, err = readOld(read, table.Path); err != nil {
				return nil, err
			}
			if table.Old != nil && !table.Same() && !replace {
				return nil, &ExistsError{d.Name, table.Path}
			}
			tables = append(tables, table)
		}
		if text, err = putDevice(path, text, d.Name, fragment, replace); err != nil {
			return nil, err
		}
	}
	return append(tables, File{Path: path, Old: old, New: []byte(text)}), nil
}

func readOld(read config.Files, path string) ([]byte, error) {
	data, err := read(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// mergeClasses compares the scan classes with those of a configuration. It returns
// what each is called there, and those that have to be added, under their new
// names.
func (r *Result) mergeClasses(doc *strict.Document) (names map[string]string, fresh map[string]config.Class, err error) {
	known := config.Default().Field.Classes
	var c struct {
		Field struct {
			Classes map[string]config.Class `toml:"classes"`
			Rest    map[string]any          `toml:",rest"`
		} `toml:"field"`
		Rest map[string]any `toml:",rest"`
	}
	doc.Decode(&c)
	if err := doc.Err(); err != nil {
		return nil, nil, err
	}
	maps.Copy(known, c.Field.Classes)
	names, fresh = map[string]string{}, map[string]config.Class{}
	for _, name := range slices.Sorted(maps.Keys(r.Classes)) {
		class, to := r.Classes[name], name
		for n := 2; ; n++ {
			have, ok := known[to]
			if !ok {
				fresh[to], known[to] = class, class
			}
			if !ok || have == class {
				break
			}
			to = fmt.Sprintf("%s-%d", name, n)
		}
		names[name] = to
	}
	return names, fresh, nil
}

// rename gives scan classes their new names.
func (d *Device) rename(classes map[string]string) {
	if to, ok := classes[d.Class]; ok {
		d.Class = to
	}
	d.Tags = slices.Clone(d.Tags)
	for i := range d.Tags {
		if to, ok := classes[d.Tags[i].Class]; ok {
			d.Tags[i].Class = to
		}
	}
	d.Tables = slices.Clone(d.Tables)
	for i, t := range d.Tables {
		name, _ := t["class"].(string)
		if to, ok := classes[name]; ok {
			d.Tables[i] = maps.Clone(t)
			d.Tables[i]["class"] = to
		}
	}
}

// fragment returns the device as it stands in a configuration, and its tag table
// with a path relative to it.
func (d *Device) fragment() (text string, table File, err error) {
	file := ""
	if len(d.Tags) > 0 {
		file = "tags/" + d.Name + ".csv"
		if table.New, err = tagfile.Encode(d.Tags, file); err != nil {
			return "", table, err
		}
		table.Path = filepath.FromSlash(file)
	}
	return d.head(file) + d.tables(), table, nil
}

// head writes what a device is besides its tags.
func (d *Device) head(tags string) string {
	var b strings.Builder
	b.WriteString("[[field.device]]\n")
	put := func(key string, v any) {
		b.WriteString(tomlKey(key) + " = " + tomlValue(v) + "\n")
	}
	put("name", d.Name)
	if d.Product != "" {
		put("product", d.Product)
	} else {
		put("protocol", d.Protocol)
	}
	if len(d.Only) > 0 {
		put("product_tags", d.Only)
	}
	if d.Class != "" {
		put("class", d.Class)
	}
	if d.KeepLast {
		put("keep_last", true)
	}
	if d.Subscribe {
		put("subscribe", true)
	}
	for _, key := range slices.Sorted(maps.Keys(d.Settings)) {
		put(key, d.Settings[key])
	}
	if tags != "" {
		put("tags", tags)
	}
	return b.String()
}

// tables writes the tags that are tables of the configuration.
func (d *Device) tables() string {
	var b strings.Builder
	for _, t := range d.Tables {
		b.WriteString("\n[[field.device.tag]]\n")
		for _, key := range slices.Sorted(maps.Keys(t)) {
			b.WriteString(tomlKey(key) + " = " + tomlValue(t[key]) + "\n")
		}
	}
	return b.String()
}

// addClasses puts scan classes into the text of a configuration.
func addClasses(text string, classes map[string]config.Class) string {
	if len(classes) == 0 {
		return text
	}
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(classes)) {
		b.WriteString(tomlKey(name) + " = " + classText(classes[name]) + "\n")
	}
	for _, h := range headers(text) {
		if h.key == "field.classes" && !h.array {
			at := lineStart(text, h.line+1)
			if at == len(text) {
				text = ended(text)
				at = len(text)
			}
			return text[:at] + b.String() + text[at:]
		}
	}
	return paragraph(text) + "[field.classes]\n" + b.String()
}

func classText(c config.Class) string {
	if c.Timeout == 0 && c.Heartbeat == 0 {
		return tomlValue(c.Period.String())
	}
	parts := []string{"period = " + tomlValue(c.Period.String())}
	if c.Timeout != 0 {
		parts = append(parts, "timeout = "+tomlValue(c.Timeout.String()))
	}
	if c.Heartbeat != 0 {
		parts = append(parts, "heartbeat = "+tomlValue(c.Heartbeat.String()))
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// ended returns text with a line's end at its end, if there is any text.
func ended(text string) string {
	if text != "" && !strings.HasSuffix(text, "\n") {
		return text + "\n"
	}
	return text
}

// paragraph returns text so that something new can follow after an empty line.
func paragraph(text string) string {
	text = ended(text)
	if text != "" && !strings.HasSuffix(text, "\n\n") {
		text += "\n"
	}
	return text
}

// putDevice puts a device into the text of a configuration: in the place of the
// one of the same name, or at the end.
func putDevice(path, text, name, fragment string, replace bool) (string, error) {
	all := headers(text)
	for i, h := range all {
		if h.key != "field.device" || !h.array {
			continue
		}
		end := len(text)
		for _, next := range all[i+1:] {
			if !strings.HasPrefix(next.key, "field.device.") {
				end = lineStart(text, next.line)
				break
			}
		}
		start := lineStart(text, h.line)
		block := text[start:end]
		block = block[:len(block)-len(trailing(block))]
		if deviceIn(block) != name {
			continue
		}
		if ended(block) != fragment && !replace {
			return "", &ExistsError{name, path}
		}
		return text[:start] + fragment + text[start+len(block):], nil
	}
	return paragraph(text) + fragment, nil
}

// trailing returns the empty lines and comments at the end of a block, which
// belong to what follows.
func trailing(block string) string {
	end := len(block)
	for end > 0 {
		start := strings.LastIndexByte(strings.TrimSuffix(block[:end], "\n"), '\n') + 1
		line := strings.TrimSpace(block[start:end])
		if line != "" && line[0] != '#' {
			break
		}
		end = start
	}
	return block[end:]
}

// deviceIn returns the name of the device in a block.
func deviceIn(block string) string {
	doc, err := strict.Parse("", []byte(block))
	if err != nil {
		return ""
	}
	field, _ := doc.Tree()["field"].(map[string]any)
	list, _ := field["device"].([]any)
	if len(list) != 1 {
		return ""
	}
	d, _ := list[0].(map[string]any)
	name, _ := d["name"].(string)
	return name
}

// A header is a line that begins a table.
type header struct {
	key   string
	array bool
	line  int // from 1
}

// headers returns the headers of a text that parses.
func headers(text string) []header {
	var out []header
	var p unstable.Parser
	p.Reset([]byte(text))
	at, line := 0, 1
	for p.NextExpression() {
		n := p.Expression()
		if n.Kind != unstable.Table && n.Kind != unstable.ArrayTable {
			continue
		}
		h := header{array: n.Kind == unstable.ArrayTable}
		for it := n.Key(); it.Next(); {
			if h.line == 0 {
				offset := int(it.Node().Raw.Offset)
				line += strings.Count(text[at:offset], "\n")
				at, h.line = offset, line
			}
			if h.key != "" {
				h.key += "."
			}
			h.key += string(it.Node().Data)
		}
		out = append(out, h)
	}
	return out
}

// lineStart returns where a line begins, the end of the text for one that is not
// there.
func lineStart(text string, line int) int {
	at := 0
	for ; line > 1; line-- {
		i := strings.IndexByte(text[at:], '\n')
		if i < 0 {
			return len(text)
		}
		at += i + 1
	}
	return at
}

// Export writes devices as one document that is a configuration by itself: scan
// classes, then each device with its tags.
func (r *Result) Export() ([]byte, error) {
	text := addClasses("", r.Classes)
	for i := range r.Devices {
		d := &r.Devices[i]
		tags, err := exportTags(d.Tags)
		if err != nil {
			return nil, fmt.Errorf("device %q: %w", d.Name, err)
		}
		text = paragraph(text) + d.head("") + tags + d.tables()
	}
	return []byte(text), nil
}

func exportTags(tags []point.Tag) (string, error) {
	if len(tags) == 0 {
		return "", nil
	}
	data, err := tagfile.Encode(tags, "x.toml")
	if err != nil {
		return "", err
	}
	var b strings.Builder
	b.WriteByte('\n')
	for line := range strings.Lines(string(data)) {
		if line == "[[tag]]\n" { // no text has a line break
			line = "[[field.device.tag]]\n"
		}
		b.WriteString(line)
	}
	return b.String(), nil
}
