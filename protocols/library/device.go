package library

import (
	"fmt"
	"maps"
	"path"
	"slices"
)

// DeviceSettings returns the settings of a field device of this product: its own
// keys, and for those that it does not give the product's.
func (p *Product) DeviceSettings(own map[string]any) map[string]any {
	out := maps.Clone(p.Settings)
	if out == nil {
		out = map[string]any{}
	}
	maps.Copy(out, own)
	if out["transport"] == "rtu" {
		for key, v := range p.Serial {
			if _, given := out[key]; !given {
				out[key] = v
			}
		}
	}
	return out
}

// A Table is one tag of a field device of a product, as keys of a tag table.
type Table struct {
	Keys map[string]any
	Own  int // index of the device's own table that is in it, -1 if none
}

// DeviceTags returns the tags of a field device of this product: the product's, in
// their order, with the keys of the device's own table of the same name over
// them, and then the device's own. With only, of the product's tags those come that
// match one of its patterns, where * stands for any characters and ? for one, and
// those of which the device has an own table. A pattern that is malformed or
// matches nothing is an error.
func (p *Product) DeviceTags(own []map[string]any, only []string) ([]Table, error) {
	for _, pattern := range only {
		used := false
		for _, t := range p.Tags {
			ok, err := path.Match(pattern, t.Name)
			if err != nil {
				return nil, fmt.Errorf("pattern %q: %w", pattern, err)
			}
			used = used || ok
		}
		if !used {
			return nil, fmt.Errorf("no tag of product %q matches %q", p.Name, pattern)
		}
	}
	var out []Table
	taken := make([]bool, len(own))
	for i, keys := range p.Tables {
		name := p.Tags[i].Name
		at := slices.IndexFunc(own, func(t map[string]any) bool { return t["name"] == name })
		wanted := at >= 0 || len(only) == 0 || slices.ContainsFunc(only, func(pattern string) bool {
			ok, _ := path.Match(pattern, name)
			return ok
		})
		switch {
		case !wanted:
		case at < 0:
			out = append(out, Table{Keys: keys, Own: -1})
		default:
			taken[at] = true
			out = append(out, Table{Keys: over(keys, own[at]), Own: at})
		}
	}
	for i, keys := range own {
		if !taken[i] {
			out = append(out, Table{Keys: keys, Own: i})
		}
	}
	return out, nil
}

// over returns the keys of a tag with others over them. Those of the protocol
// are put over each other one by one. A scale is one thing: whoever gives a part
// of one gives all of it.
func over(keys, own map[string]any) map[string]any {
	out := maps.Clone(keys)
	scale := []string{"factor", "offset", "raw_low", "raw_high", "eng_low", "eng_high", "clamp"}
	if slices.ContainsFunc(scale, func(key string) bool { _, ok := own[key]; return ok }) {
		for _, key := range scale {
			delete(out, key)
		}
	}
	maps.Copy(out, own)
	params, had := keys["params"].(map[string]any)
	more, gives := own["params"].(map[string]any)
	if had && gives {
		merged := maps.Clone(params)
		maps.Copy(merged, more)
		out["params"] = merged
	}
	return out
}
