package cli

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/cmd/internal/table"
	"holdfast/protocols/library"
)

const usageLibrary = `
Usage:
    holdfast library [PRODUCT]

Lists the products that the device library knows, or shows one: its tags, its
settings, what to know about it, and the documents that say so. In the
configuration, product = "PRODUCT" gives a field device all of that.

Examples:
    $ holdfast library
    $ holdfast library eastron-sdm630
`

func (a *app) libraryCommand() *cobra.Command {
	c := verb("library [PRODUCT]", "products that are known", usageLibrary, cobra.MaximumNArgs(1), func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return a.listLibrary()
		}
		p, err := library.Find(args[0])
		if err != nil {
			if near := strict.Nearest(args[0], library.Names()); near != "" {
				return usage(err, fmt.Sprintf("did you mean %q?", near))
			}
			return usage(err, "see \"holdfast library\"")
		}
		return a.showProduct(p)
	})
	c.ValidArgsFunction = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return library.Names(), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

func (a *app) listLibrary() error {
	var rows [][]string
	list := []any{}
	for _, name := range library.Names() {
		p, err := library.Find(name)
		if err != nil {
			return err
		}
		rows = append(rows, []string{name, p.Maker, p.Model, p.Protocol, strconv.Itoa(len(p.Tags))})
		list = append(list, map[string]any{"product": name, "maker": p.Maker, "model": p.Model, "protocol": p.Protocol, "tags": len(p.Tags)})
	}
	if a.json {
		return a.printJSON(list)
	}
	table.Write(a.Out, a.Width(), []table.Column{{Title: "PRODUCT"}, {Title: "MAKER", Give: true}, {Title: "MODEL", Give: true}, {Title: "PROTOCOL"},
		{Title: "TAGS", Right: true}}, rows)
	return nil
}

func (a *app) showProduct(p *library.Product) error {
	if a.json {
		return a.printJSON(map[string]any{"product": p.Name, "maker": p.Maker, "model": p.Model, "protocol": p.Protocol, "notes": p.Notes,
			"sources": p.Sources, "settings": p.Settings, "serial": p.Serial, "tags": p.Tables})
	}
	a.printf("%s %s, protocol %s\n\n", p.Maker, p.Model, p.Protocol)
	for _, n := range p.Notes {
		a.printf("- %s\n", n)
	}
	for _, part := range []struct {
		title string
		keys  map[string]any
	}{{"settings", p.Settings}, {"on a serial line", p.Serial}} {
		if len(part.keys) > 0 {
			a.printf("\n%s:", part.title)
			for _, key := range sortedKeys(part.keys) {
				a.printf(" %s = %v", key, part.keys[key])
			}
			a.printf("\n")
		}
	}
	a.printf("\n")
	var rows [][]string
	for i := range p.Tags {
		t := &p.Tags[i]
		scale := ""
		if f := t.Scale.Factor; f != 0 && f != 1 {
			scale = "× " + strconv.FormatFloat(f, 'g', -1, 64)
		}
		rows = append(rows, []string{t.Name, t.Address, t.Type, scale, t.Unit, t.Access.String(), t.Comment})
	}
	table.Write(a.Out, a.Width(), []table.Column{{Title: "TAG"}, {Title: "ADDRESS"}, {Title: "TYPE"}, {Title: "SCALE"}, {Title: "UNIT"}, {Title: "ACCESS"},
		{Title: "COMMENT", Give: true}}, rows)
	a.printf("\nfrom:\n")
	for _, s := range p.Sources {
		a.printf("  %s\n    %s\n", s.Title, s.URL)
	}
	return nil
}

func sortedKeys(m map[string]any) []string { return slices.Sorted(maps.Keys(m)) }
