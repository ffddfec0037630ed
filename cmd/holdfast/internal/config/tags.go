package config

import (
	"errors"
	"io/fs"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols/tagfile"
)

// tags reads the tags of one device, from its table and from the configuration,
// and reports whether they are sound.
func (k *checker) tags(path string, d *Device) bool {
	sound := true
	if d.TagFile != "" {
		d.TagFile = k.relative(d.TagFile)
		data, err := k.read(d.TagFile)
		if err == nil {
			d.Tags, err = tagfile.Decode(data, d.TagFile)
		} else if errors.Is(err, fs.ErrNotExist) {
			k.doc.Add(path+".tags", "there is no tag table %q", d.TagFile)
			return false
		}
		for _, e := range flatten(err) {
			sound = false
			var m *tagfile.Mistake
			if errors.As(e, &m) {
				k.more = append(k.more, strict.Mistake{File: m.File, Line: m.Line, Key: m.Key, Text: m.Text, Hint: m.Hint})
				continue
			}
			k.doc.Add(path+".tags", "%v", e)
		}
	}
	for i, table := range d.TagTables {
		at := strict.At(path+".tag", i)
		tag, err := tagfile.FromTable(table)
		for _, e := range flatten(err) {
			sound = false
			var m *tagfile.Mistake
			if errors.As(e, &m) {
				place := at
				if m.Key != "" {
					place = strict.Join(at, m.Key)
				}
				k.doc.Add(place, "%s\n%s", m.Text, m.Hint)
				continue
			}
			k.doc.Add(at, "%v", e)
		}
		d.Tags = append(d.Tags, tag)
	}
	if sound && len(d.Tags) == 0 {
		k.doc.Add(path, "there are no tags\nname a table with tags = \"file.csv\", or write [[field.device.tag]] tables")
		sound = false
	}
	return sound
}
