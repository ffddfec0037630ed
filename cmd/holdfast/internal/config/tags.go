package config

import (
	"errors"
	"io/fs"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols/library"
	"holdfast/protocols/point"
	"holdfast/protocols/tagfile"
)

// tags reads the tags of one device, from its product, its table and the
// configuration, and reports whether they are sound.
func (k *checker) tags(path string, d *Device) bool {
	tables, sound := k.product(path, d)
	if d.TagFile != "" {
		if found, ok := k.tagFile(path, d); !found {
			return false
		} else if !ok {
			sound = false
		}
	}
	for _, table := range tables {
		tag, ok := k.tagTable(path, table)
		sound = sound && ok
		if table.Own < 0 && replaced(d, tag.Name) {
			continue // a whole tag of the table stands for the product's
		}
		d.Tags = append(d.Tags, tag)
	}
	if sound && len(d.Tags) == 0 {
		k.doc.Add(path, "there are no tags\nname a table with tags = \"file.csv\", or write [[field.device.tag]] tables")
		sound = false
	}
	return sound
}

func replaced(d *Device, name string) bool {
	for i := range d.FileTags {
		if d.FileTags[i].Name == name {
			return true
		}
	}
	return false
}

// tagFile reads the tag table of a device. It reports whether it is there, and
// whether it is sound.
func (k *checker) tagFile(path string, d *Device) (found, sound bool) {
	d.TagFile = k.relative(d.TagFile)
	data, err := k.read(d.TagFile)
	if errors.Is(err, fs.ErrNotExist) {
		k.doc.Add(path+".tags", "there is no tag table %q", d.TagFile)
		return false, false
	}
	if err == nil {
		d.FileTags, err = tagfile.Decode(data, d.TagFile)
	}
	d.Tags = append(d.Tags, d.FileTags...)
	for _, e := range flatten(err) {
		var m *tagfile.Mistake
		if errors.As(e, &m) {
			k.more = append(k.more, strict.Mistake{File: m.File, Line: m.Line, Key: m.Key, Text: m.Text, Hint: m.Hint})
			continue
		}
		k.doc.Add(path+".tags", "%v", e)
	}
	return true, err == nil
}

// tagTable reads one tag. What is wrong in a table that the configuration has a
// part in is told there.
func (k *checker) tagTable(path string, table library.Table) (tag point.Tag, sound bool) {
	at := path + ".product"
	if table.Own >= 0 {
		at = strict.At(path+".tag", table.Own)
	}
	tag, err := tagfile.FromTable(table.Keys)
	k.tableMistakes(at, err)
	return tag, err == nil
}

// tableMistakes tells what is wrong in a table of the configuration that
// package tagfile reads.
func (k *checker) tableMistakes(at string, err error) {
	for _, e := range flatten(err) {
		var m *tagfile.Mistake
		if !errors.As(e, &m) {
			k.doc.Add(at, "%v", e)
			continue
		}
		place := at
		if m.Key != "" {
			place = strict.Join(at, m.Key)
		}
		k.doc.Add(place, "%s\n%s", m.Text, m.Hint)
	}
}
