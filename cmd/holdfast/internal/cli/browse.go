package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/commission"
	"holdfast/cmd/holdfast/internal/config"
	"holdfast/drivers/clock"
	"holdfast/protocols"
	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
	"holdfast/protocols/tagfile"
)

const usageBrowse = `
Usage:
    holdfast browse DEVICE [ADDRESS] [--depth N] [--nodes N] [--tags FILE]
    holdfast browse modbus TARGET [--units LIST] [--registers RANGE]
                    [--unit N] [--pause D] [--timeout D] [--all] [--tags FILE]

Looks at what a field device offers. DEVICE is one of the configuration; its
nodes are shown as a tree from ADDRESS on, as its protocol lists them.

"browse modbus" needs no configuration. TARGET is tcp://host:port,
rtu-over-tcp://host:port, /dev/ttyUSB0, or rtu:///dev/ttyUSB0?line=9600+8N1. It
asks which units there are, or with --registers what a table holds, read in all
common ways side by side with the most likely one. It sends one request at a
time and writes nothing. Not for a serial line that a gateway is polling.

Options:
        --depth N           levels of the tree (default 5)
        --nodes N           most nodes to show (default 1000)
        --tags FILE         write a tag table, .csv or .toml, of what was found
        --units LIST        unit ids to ask, such as 1-20,42 (default 1-247)
        --registers RANGE   such as holding:0-99; also input, coil, discrete
        --unit N            unit to read registers of (default 1)
        --pause D           pause between two requests (default 0s)
        --timeout D         for each answer (default 300ms)
        --all               all twelve ways to read two registers

Exits with 4 when nothing answers.

Examples:
    $ holdfast browse robot 'nsu=http://acme.com/robot;s=Axes' --tags axes.csv
    $ holdfast browse modbus tcp://10.0.0.7 --units 1-10
    $ holdfast browse modbus /dev/ttyUSB0 --unit 3 --registers holding:0-99
`

// browseOptions are the flags of browse.
type browseOptions struct {
	bounds         commission.Bounds
	tags           string
	units          string
	registers      string
	unit           int
	pause, timeout time.Duration
	all            bool
}

func (a *app) browseCommand() *cobra.Command {
	var o browseOptions
	c := verb("browse DEVICE [ADDRESS]", "look at what a field device offers", usageBrowse, cobra.RangeArgs(1, 2), func(c *cobra.Command, args []string) error {
		if o.tags != "" {
			if _, err := tagfile.Encode(nil, o.tags); err != nil {
				return usage(err)
			}
		}
		if args[0] == "modbus" && len(args) == 2 && strings.Contains(args[1], "/") {
			return a.browseModbus(c.Context(), args[1], &o)
		}
		address := ""
		if len(args) == 2 {
			address = args[1]
		}
		return a.browseDevice(c.Context(), args[0], address, &o)
	})
	f := c.Flags()
	f.IntVar(&o.bounds.Depth, "depth", 5, "levels of the tree")
	f.IntVar(&o.bounds.Nodes, "nodes", 1000, "most nodes to show")
	f.StringVar(&o.tags, "tags", "", "write a tag table")
	f.StringVar(&o.units, "units", "1-247", "unit ids to ask")
	f.StringVar(&o.registers, "registers", "", "registers to read")
	f.IntVar(&o.unit, "unit", 1, "unit to read registers of")
	f.DurationVar(&o.pause, "pause", 0, "pause between two requests")
	f.DurationVar(&o.timeout, "timeout", 300*time.Millisecond, "for each answer")
	f.BoolVar(&o.all, "all", false, "all ways to read two registers")
	return c
}

// browseDevice shows the tree of a configured device.
func (a *app) browseDevice(ctx context.Context, name, address string, o *browseOptions) error {
	if o.bounds.Depth < 1 || o.bounds.Nodes < 1 {
		return usage(errors.New("--depth and --nodes are at least 1"))
	}
	c, err := a.load()
	if err != nil {
		return err
	}
	device, err := findDevice(c, name)
	if err != nil {
		return err
	}
	log := slog.New(slog.DiscardHandler)
	adapter := adapters(protocols.Env{Clock: clock.NewReal(), Log: log}, certificates(c.Data))[device.Protocol]
	defer adapter.Close()
	pd := c.Field.Device(device)
	session, err := adapter.Open(pd.Field())
	if err != nil {
		return err
	}
	defer session.Close()
	browser, ok := session.(protocols.Browser)
	if !ok {
		hint := "protocol " + device.Protocol + " has no list of what a device offers"
		if device.Protocol == "modbus" {
			hint = fmt.Sprintf("scan it: holdfast browse modbus tcp://%v --registers holding:0-99", device.Settings["address"])
		}
		return usage(fmt.Errorf("device %q cannot be browsed", name), hint)
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	tree, err := commission.Browse(ctx, browser, address, o.bounds)
	if err != nil {
		return unreachable(fmt.Errorf("browse %q: %w", name, err))
	}
	if err := a.writeTags(o.tags, tree.Tags()); err != nil {
		return err
	}
	nodes, values := tree.Count()
	if a.json {
		return a.printJSON(treeJSON(tree))
	}
	for _, l := range tree.Lines() {
		a.printf("%s\n", l)
	}
	a.printf("\n%s, %s\n", plural(nodes, "node", "nodes"), plural(values, "of them a value", "of them values"))
	return nil
}

func findDevice(c *config.Config, name string) (*config.Device, error) {
	var names []string
	for i := range c.Field.Devices {
		if c.Field.Devices[i].Name == name {
			return &c.Field.Devices[i], nil
		}
		names = append(names, c.Field.Devices[i].Name)
	}
	return nil, usage(fmt.Errorf("there is no field device %q", name), "there are: "+strings.Join(names, ", "))
}

type nodeJSON struct {
	Name     string     `json:"name"`
	Address  string     `json:"address"`
	Type     string     `json:"type,omitempty"`
	Access   string     `json:"access,omitempty"`
	More     string     `json:"more,omitempty"`
	Children []nodeJSON `json:"children,omitempty"`
}

func treeJSON(t *commission.Tree) nodeJSON {
	n := nodeJSON{Name: t.Name, Address: t.Address, Type: t.Type, More: t.More}
	if t.Type != "" {
		n.Access = t.Access.String()
	}
	for _, c := range t.Children {
		n.Children = append(n.Children, treeJSON(c))
	}
	return n
}

// writeTags writes a tag table, if one is asked for.
func (a *app) writeTags(file string, tags []point.Tag) error {
	if file == "" {
		return nil
	}
	if len(tags) == 0 {
		return failed(errors.New("nothing was found that can be a tag"))
	}
	data, err := tagfile.Encode(tags, file)
	if err != nil {
		return err
	}
	if _, err := os.Stat(file); err == nil {
		return refused(fmt.Errorf("there is a file %q already", file), "name another one, or remove it")
	}
	if err := writeFile(file, data); err != nil {
		return err
	}
	fmt.Fprintf(a.Err, "%s written to %s\n", plural(len(tags), "tag", "tags"), file)
	return nil
}

// browseModbus scans a link for units, or a unit for registers.
func (a *app) browseModbus(ctx context.Context, where string, o *browseOptions) error {
	settings, err := commission.ParseTarget(where)
	if err != nil {
		return usage(err)
	}
	if o.timeout < time.Millisecond || o.timeout > time.Minute || o.pause < 0 || o.pause > time.Minute {
		return usage(errors.New("--timeout is from 1ms to 1m, --pause from 0s to 1m"))
	}
	if o.unit < 0 || o.unit > 255 {
		return usage(fmt.Errorf("--unit %d is not in 0 to 255", o.unit))
	}
	scanner, err := modbus.NewScanner(protocols.Env{Clock: clock.NewReal(), Log: slog.New(slog.DiscardHandler)}, modbus.Options{}, settings,
		modbus.ScanOptions{Timeout: o.timeout, Pause: o.pause})
	if err != nil {
		return usage(err)
	}
	defer scanner.Close()
	if o.registers == "" {
		return a.scanUnits(ctx, scanner, o)
	}
	return a.scanRegisters(ctx, scanner, o)
}

// progress shows on a terminal how far something is.
func (a *app) progress(format string, args ...any) {
	if a.Width() > 0 && !a.json {
		fmt.Fprintf(a.Err, "\r\x1b[K"+format, args...)
	}
}

func (a *app) scanUnits(ctx context.Context, s *modbus.Scanner, o *browseOptions) error {
	units, err := commission.ParseUnits(o.units)
	if err != nil {
		return usage(err)
	}
	if o.tags != "" {
		return usage(errors.New("--tags needs --registers"))
	}
	var found []modbus.FoundUnit
	n := 0
	err = s.Units(ctx, units, func(byte) {
		n++
		a.progress("%d of %d asked, %d answered", n, len(units), len(found))
	}, func(f modbus.FoundUnit) { found = append(found, f) })
	a.progress("")
	if err != nil {
		return unreachable(err)
	}
	if a.json {
		list := []any{}
		for _, f := range found {
			list = append(list, map[string]any{"unit": f.Unit, "answer": f.Answer, "seconds": f.Took.Seconds()})
		}
		return a.printJSON(map[string]any{"link": s.Link(), "asked": len(units), "units": list})
	}
	if len(found) == 0 {
		return unreachable(fmt.Errorf("%s: none of %d units answers", s.Link(), len(units)), "is the line set right? try --timeout 1s")
	}
	commission.WriteUnits(a.Out, a.Width(), found)
	if len(found) == len(units) && len(units) > 5 {
		a.printf("\nall units answer: the device most likely ignores the unit id\n")
	}
	return nil
}

func (a *app) scanRegisters(ctx context.Context, s *modbus.Scanner, o *browseOptions) error {
	r, err := commission.ParseRange(o.registers)
	if err != nil {
		return usage(err)
	}
	items, err := s.Registers(ctx, byte(o.unit), r.Table, r.From, r.To, func(next int) {
		a.progress("%d of %d", next-r.From, r.To-r.From)
	})
	a.progress("")
	there := 0
	if items != nil {
		for _, t := range items.There {
			if t {
				there++
			}
		}
	}
	if err != nil && there == 0 {
		return unreachable(fmt.Errorf("unit %d: %w", o.unit, err))
	}
	var guesses []modbus.Guess
	tags := commission.BitTags(items)
	if !r.Table.Bits() {
		guesses = modbus.Interpret(items)
		tags = commission.Tags(r.Table, guesses)
	}
	if o.tags != "" {
		if err := a.writeTags(o.tags, tags); err != nil {
			return err
		}
	}
	why := items.Reason
	if err != nil {
		why = err.Error()
	}
	if a.json {
		return a.printJSON(registersJSON(s.Link(), o.unit, r, items, guesses, why))
	}
	switch {
	case there == 0 && why == "":
		why = "nothing is there"
	case r.Table.Bits():
		commission.WriteBits(a.Out, a.Width(), items)
	case o.all:
		commission.WriteDoubles(a.Out, a.Width(), r.Table, guesses)
	case there > 0:
		commission.WriteRegisters(a.Out, a.Width(), r.Table, guesses)
	}
	if why != "" {
		return failed(fmt.Errorf("%s, unit %d: %s", s.Link(), o.unit, why))
	}
	a.printf("\n%d of %d %s are there, found with %s\n", there, r.To-r.From, map[bool]string{true: "bits", false: "registers"}[r.Table.Bits()],
		plural(items.Asked, "request", "requests"))
	return nil
}

func registersJSON(link string, unit int, r commission.Range, items *modbus.Items, guesses []modbus.Guess, why string) map[string]any {
	out := map[string]any{"link": link, "unit": unit, "table": r.Table.String(), "requests": items.Asked}
	if why != "" {
		out["ended"] = why
	}
	if !r.Table.Bits() {
		out["registers"] = guesses
		return out
	}
	bits := map[string]bool{}
	for i, there := range items.There {
		if there {
			bits[fmt.Sprint(items.From+i)] = items.Words[i] == 1
		}
	}
	out["bits"] = bits
	return out
}
