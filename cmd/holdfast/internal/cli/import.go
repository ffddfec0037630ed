package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/importer"
	"holdfast/cmd/holdfast/internal/strict"
)

const usageConfigImport = `
Usage:
    holdfast config import KIND FILE... [--into PATH] [--dry-run] [--replace]
                           [--device NAME] [--set KEY=VALUE]...

Takes field devices and tags over from another program's configuration. Devices
and scan classes go into the configuration, the tags of each device into
tags/DEVICE.csv beside it. What cannot be taken over is told line by line. The
whole result is checked before anything is written.

KIND is one of
    telegraf        TOML: inputs.modbus, inputs.opcua, inputs.opcua_listener
    edgex           YAML: device profiles and device lists, all files at once
    opc-publisher   JSON: published nodes, comments allowed
    kepware         CSV: tag list of a device with a Modbus driver
    neuron          CSV: tag list with addresses such as 1!400001#BL
    holdfast        a configuration of ours, or what "config export" printed

Options:
        --into PATH      a configuration, or a folder for one (default: that of
                         --config)
        --dry-run        print what would change in which file, write nothing
        --replace        replace field devices of the same name
        --device NAME    name of the field device, for lists that have none
        --set KEY=VALUE  a key of every imported device that the file does not
                         have, such as address=10.0.0.7; may be repeated

Examples:
    $ holdfast config import telegraf /etc/telegraf/telegraf.conf --dry-run
    $ holdfast config import edgex profile.yml devices.yml --into new/
    $ holdfast config import kepware press.csv --set address=10.0.0.7
`

const usageConfigExport = `
Usage:
    holdfast config export [DEVICE...] [-c FILE]

Prints field devices with their scan classes and all their tags as one document,
which is a configuration by itself and which "config import holdfast" takes.
Passwords are in it.

Examples:
    $ holdfast config export > plant.toml
    $ holdfast config export press7 | ssh l8 holdfast config import holdfast -
`

func (a *app) configImportCommand() *cobra.Command {
	var into, device string
	var dry, replace bool
	var set []string
	c := verb("import KIND FILE...", "take over another program's configuration", usageConfigImport, cobra.MinimumNArgs(2), func(_ *cobra.Command, args []string) error {
		settings, err := keyValues(set)
		if err != nil {
			return err
		}
		target := into
		if target == "" {
			target = a.config
		}
		if info, err := os.Stat(target); err == nil && info.IsDir() || err != nil && !strings.EqualFold(filepath.Ext(target), ".toml") {
			target = filepath.Join(target, "config.toml")
		}
		result, err := a.readForeign(args[0], args[1:], importer.Options{Device: device, Settings: settings})
		if err != nil {
			return err
		}
		return a.importInto(target, result, dry, replace)
	})
	c.Flags().StringVar(&into, "into", "", "configuration or folder to write to")
	c.Flags().BoolVar(&dry, "dry-run", false, "print what would change")
	c.Flags().BoolVar(&replace, "replace", false, "replace devices of the same name")
	c.Flags().StringVar(&device, "device", "", "name of the device")
	c.Flags().StringArrayVar(&set, "set", nil, "a key of every imported device")
	c.ValidArgsFunction = func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return kindNames(), cobra.ShellCompDirectiveNoFileComp
	}
	return c
}

func kindNames() []string {
	var out []string
	for _, k := range importer.Kinds() {
		out = append(out, k.Name)
	}
	return out
}

// keyValues reads KEY=VALUE; values are numbers and truth values where they look
// like it, else texts.
func keyValues(set []string) (map[string]any, error) {
	out := map[string]any{}
	for _, s := range set {
		key, text, ok := strings.Cut(s, "=")
		if !ok || key == "" {
			return nil, usage(fmt.Errorf("--set %q is not KEY=VALUE", s))
		}
		out[key] = text
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			out[key] = n
		} else if b, err := strconv.ParseBool(text); err == nil {
			out[key] = b
		}
	}
	return out, nil
}

// readForeign reads files of a kind and leaves out what our adapters refuse.
func (a *app) readForeign(kind string, files []string, o importer.Options) (*importer.Result, error) {
	if !slices.Contains(kindNames(), kind) {
		if near := strict.Nearest(kind, kindNames()); near != "" {
			return nil, usage(fmt.Errorf("%q %w", kind, importer.ErrKind), fmt.Sprintf("did you mean %q?", near))
		}
		return nil, usage(fmt.Errorf("%q %w", kind, importer.ErrKind), "one of "+strings.Join(kindNames(), ", "))
	}
	var in []importer.Input
	for _, name := range files {
		data, err := a.readInput(name)
		if err != nil {
			return nil, usage(err)
		}
		in = append(in, importer.Input{Name: name, Data: data})
	}
	known := kinds()
	o.Load = func(f importer.Input) (*config.Config, error) {
		return config.Load(f.Name, func(name string) ([]byte, error) {
			if name == f.Name {
				return f.Data, nil
			}
			return os.ReadFile(name)
		}, known)
	}
	result, err := importer.Read(kind, in, o)
	var mistakes strict.Mistakes
	if errors.As(err, &mistakes) {
		return nil, err
	}
	if err != nil {
		return nil, usage(err)
	}
	result.Check(files[0], known.Protocol)
	return result, nil
}

// importInto puts a result into a configuration, or shows what that would change.
func (a *app) importInto(target string, result *importer.Result, dry, replace bool) error {
	files, err := result.Plan(target, replace, os.ReadFile)
	var exists *importer.ExistsError
	if errors.As(err, &exists) {
		return usage(err, "give --replace, or rename the one that is there")
	}
	if err != nil {
		return err
	}
	files = slices.DeleteFunc(files, func(f importer.File) bool { return f.Same() })
	if err := checkPlanned(target, files); err != nil {
		var mistakes strict.Mistakes
		if errors.As(err, &mistakes) && slices.ContainsFunc(mistakes, func(m strict.Mistake) bool {
			return strings.Contains(m.Text, "is missing: host") || strings.Contains(m.Text, "is missing: the path")
		}) {
			return usage(err, "the file does not say where the device is: add --set address=HOST, or --set transport=rtu --set port=DEVICE")
		}
		return err
	}
	if !dry {
		for _, f := range files {
			if err := writeFile(f.Path, f.New); err != nil {
				return err
			}
		}
	}
	if a.json {
		return a.printJSON(importJSON(target, result, files, dry))
	}
	if dry {
		for _, f := range files {
			a.printf("%s", f.Diff())
		}
		if len(files) > 0 {
			a.printf("\n")
		}
	}
	a.importReport(target, result, files, dry)
	return nil
}

// checkPlanned loads the configuration as it would be.
func checkPlanned(target string, files []importer.File) error {
	_, err := config.Load(target, func(name string) ([]byte, error) {
		for _, f := range files {
			if f.Path == name {
				return f.New, nil
			}
		}
		return os.ReadFile(name)
	}, kinds())
	return err
}

func importJSON(target string, result *importer.Result, files []importer.File, dry bool) map[string]any {
	paths := []string{}
	for _, f := range files {
		paths = append(paths, f.Path)
	}
	notes := result.Notes
	if notes == nil {
		notes = []importer.Note{}
	}
	return map[string]any{"into": target, "devices": len(result.Devices), "tags": result.Tags(), "files": paths, "written": !dry, "notes": notes}
}

func (a *app) importReport(target string, result *importer.Result, files []importer.File, dry bool) {
	count := map[importer.Level]int{}
	for _, level := range []importer.Level{importer.Lost, importer.Changed} {
		for _, n := range result.Notes {
			if n.Level == level {
				if count[level]++; count[level] == 1 {
					a.printf("%s:\n", level)
				}
				a.printf("  %s\n", n)
			}
		}
	}
	if len(result.Notes) > 0 {
		a.printf("\n")
	}
	what := fmt.Sprintf("%s with %s", plural(len(result.Devices), "field device", "field devices"), plural(result.Tags(), "tag", "tags"))
	changed := plural(len(files), "file changed", "files changed")
	switch {
	case len(files) == 0:
		a.printf("%s: all in %s already", what, target)
	case dry:
		a.printf("%s would go into %s, %s", what, target, strings.Replace(changed, " changed", " would change", 1))
	default:
		a.printf("%s went into %s, %s", what, target, changed)
	}
	if n := count[importer.Lost]; n > 0 {
		a.printf("; %s left out", plural(n, "thing is", "things are"))
	}
	a.printf("\n")
}

// writeFile replaces a file whole or not at all.
func writeFile(path string, data []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	mode := fs.FileMode(0o640) // passwords may be in it
	if info, err := os.Stat(path); err == nil {
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(data)
	err = errors.Join(err, tmp.Chmod(mode), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %q: %w", path, err), os.Remove(tmp.Name()))
	}
	return nil
}

func (a *app) configExportCommand() *cobra.Command {
	return verb("export [DEVICE...]", "print field devices and tags as one document", usageConfigExport, cobra.ArbitraryArgs, func(_ *cobra.Command, args []string) error {
		c, err := a.load()
		if err != nil {
			return err
		}
		var names []string
		for i := range c.Field.Devices {
			names = append(names, c.Field.Devices[i].Name)
		}
		for _, want := range args {
			if !slices.Contains(names, want) {
				return usage(fmt.Errorf("there is no field device %q", want), "there are: "+strings.Join(names, ", "))
			}
		}
		if len(args) > 0 {
			c.Field.Devices = slices.DeleteFunc(c.Field.Devices, func(d config.Device) bool { return !slices.Contains(args, d.Name) })
		}
		text, err := importer.FromConfig(c).Export()
		if err != nil {
			return err
		}
		a.printf("%s", text)
		return nil
	})
}

// readInput reads a file, or standard input for "-".
func (a *app) readInput(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(a.In)
	}
	return os.ReadFile(name)
}
