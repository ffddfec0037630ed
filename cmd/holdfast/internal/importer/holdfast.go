package importer

import (
	"errors"

	"holdfast/cmd/holdfast/internal/config"
)

// readHoldfast takes the field devices of a configuration of ours.
func readHoldfast(in Input, o Options) (*Result, error) {
	if o.Load == nil {
		return nil, errors.New("there is nothing to read configurations with")
	}
	c, err := o.Load(in)
	if err != nil {
		return nil, err
	}
	return FromConfig(c), nil
}

// FromConfig returns the field devices of a configuration with the scan classes
// that they use.
func FromConfig(c *config.Config) *Result {
	r := &Result{Classes: map[string]config.Class{}}
	use := func(name string) {
		if name != "" {
			r.Classes[name] = c.Field.Classes[name]
		}
	}
	for i := range c.Field.Devices {
		d := &c.Field.Devices[i]
		out := Device{
			Name: d.Name, Protocol: d.Protocol, Class: d.Class, KeepLast: d.KeepLast, Subscribe: d.Subscribe,
			Settings: d.Own, Tags: d.Tags,
		}
		if usual := config.Default().Field; d.Class == "" && (c.Field.Class != usual.Class || c.Field.Classes[usual.Class] != usual.Classes[usual.Class]) {
			out.Class = c.Field.Class // it may be another where this goes to
		}
		use(out.Class)
		for j := range d.Tags {
			use(d.Tags[j].Class)
		}
		if d.Product != "" {
			// The product's tags stay the product's.
			out.Product, out.Only, out.Tags, out.Tables = d.Product, d.Only, d.FileTags, d.TagTables
		}
		r.Devices = append(r.Devices, out)
	}
	return r
}
