package config

import (
	"errors"
	"maps"
	"strings"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols/library"
)

// product takes over what the library knows about a device, and returns its tag
// tables: those of the product with the device's own over them.
func (k *checker) product(path string, d *Device) (tables []library.Table, sound bool) {
	d.Own = maps.Clone(d.Settings)
	if d.Product == "" {
		if len(d.Only) > 0 {
			k.doc.Add(path+".product_tags", "belongs to a product")
		}
		for i, t := range d.TagTables {
			tables = append(tables, library.Table{Keys: t, Own: i})
		}
		return tables, true
	}
	p, err := library.Find(d.Product)
	if err != nil {
		known := library.Names()
		switch near := strict.Nearest(d.Product, known); {
		case !errors.Is(err, library.ErrUnknown):
			k.doc.Add(path+".product", "%v", err)
		case near != "":
			k.doc.Add(path+".product", "%q %v; did you mean %q?", d.Product, library.ErrUnknown, near)
		default:
			k.doc.Add(path+".product", "%q %v\nthere are: %s", d.Product, library.ErrUnknown, strings.Join(known, ", "))
		}
		return nil, false
	}
	if d.Protocol == "" {
		d.Protocol = p.Protocol
	} else if d.Protocol != p.Protocol {
		k.doc.Add(path+".protocol", "%q: product %q speaks %s", d.Protocol, d.Product, p.Protocol)
		return nil, false
	}
	d.Settings = p.DeviceSettings(d.Settings)
	if tables, err = p.DeviceTags(d.TagTables, d.Only); err != nil {
		k.doc.Add(path+".product_tags", "%v", err)
		return nil, false
	}
	return tables, true
}
