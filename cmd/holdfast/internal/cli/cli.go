// Package cli is the command line of holdfast: verbs, their usage, what they
// print and the status they exit with.
//
// Rules for what is printed:
//
//   - answers go to standard output, everything else to standard error;
//   - an error is "holdfast: " and one sentence without a capital or a full
//     stop, then "hint: " lines that say what to do;
//   - --json gives the same facts to programs, on standard output, errors too;
//   - the exit status is 0, or 1 failure, 2 wrong usage or configuration,
//     3 refused, 4 the daemon or the device cannot be reached.
package cli

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// DefaultConfig is where the configuration is unless a flag or the environment
// says otherwise.
const DefaultConfig = "/etc/holdfast/config.toml"

// System is what a program has around it.
type System struct {
	In       io.Reader
	Out, Err io.Writer
	Getenv   func(string) string
	Version  string
	// Width is the width of the terminal at Out in columns, 0 when it is none.
	Width func() int
	// Height is its height in lines, 0 when it is none.
	Height func() int
	// Hangup delivers SIGHUP, on which daemons read their configuration again.
	Hangup <-chan os.Signal
}

// app is one invocation.
type app struct {
	*System
	config string
	json   bool
}

// Main runs one command line and returns the exit status. When ctx ends,
// daemons and live views stop.
func Main(ctx context.Context, args []string, sys System) int {
	a := &app{System: &sys}
	root := a.root()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil || errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return 0
	}
	f := failureOf(err)
	a.report(f)
	return f.Code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "holdfast",
		Long:          usageRoot,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return unknownVerb(c, args[0])
			}
			return c.Help()
		},
	}
	root.SetIn(a.In)
	root.SetOut(a.Out)
	root.SetErr(a.Err)
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { io.WriteString(a.Out, strings.TrimPrefix(c.Long, "\n")) })
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage(err, "see \""+c.CommandPath()+" --help\"")
	})
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(a.helpCommand())
	config := a.Getenv("HOLDFAST_CONFIG")
	if config == "" {
		config = DefaultConfig
	}
	root.PersistentFlags().StringVarP(&a.config, "config", "c", config, "configuration file")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print JSON")
	_ = root.MarkPersistentFlagFilename("config", "toml")
	root.AddCommand(
		a.runCommand(), a.hubCommand(), a.fieldCommand(),
		a.statusCommand(), a.tagsCommand(), a.writeCommand(),
		a.configCommand(), a.journalCommand(), a.passwdCommand(), a.browseCommand(), a.libraryCommand(), a.trustCommand(),
		a.completionCommand(root), a.versionCommand(),
	)
	return root
}

// verb makes a command whose usage text is written by hand.
func verb(use, short, long string, args cobra.PositionalArgs, run func(c *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{
		Use:   use,
		Short: short,
		Long:  long,
		Args: func(c *cobra.Command, got []string) error {
			if err := args(c, got); err != nil {
				return usage(err, "see \""+c.CommandPath()+" --help\"")
			}
			return nil
		},
		RunE: run,
	}
}

// group makes a command that only holds others.
func group(use, short, long string, subs ...*cobra.Command) *cobra.Command {
	c := verb(use, short, long, cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(errors.New("\""+c.CommandPath()+"\" needs one of its verbs"), "see \""+c.CommandPath()+" --help\"")
		}
		return unknownVerb(c, args[0])
	})
	c.AddCommand(subs...)
	return c
}

func (a *app) helpCommand() *cobra.Command {
	return verb("help [verb]", "show how a verb is used", usageRoot, cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		target, rest, err := c.Root().Find(args)
		if err != nil || len(rest) > 0 {
			return unknownVerb(c.Root(), strings.Join(args, " "))
		}
		return target.Help()
	})
}

func (a *app) versionCommand() *cobra.Command {
	return verb("version", "print the version", usageVersion, cobra.NoArgs, func(*cobra.Command, []string) error {
		if a.json {
			return a.printJSON(map[string]string{"version": a.Version})
		}
		a.printf("holdfast %s\n", a.Version)
		return nil
	})
}

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	c := verb("completion SHELL", "print a completion script", usageCompletion, cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		switch args[0] {
		case "bash":
			return root.GenBashCompletionV2(a.Out, true)
		case "zsh":
			return root.GenZshCompletion(a.Out)
		case "fish":
			return root.GenFishCompletion(a.Out, true)
		}
		return usage(errors.New("no completion for shell \""+args[0]+"\""), "one of bash, zsh, fish")
	})
	c.ValidArgs = []string{"bash", "zsh", "fish"}
	return c
}
