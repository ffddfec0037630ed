// Command holdfast-hil is the bench: the whole system on one workstation, a
// plant to try a gateway on, and measurements.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"holdfast/cmd/holdfast-hil/internal/demo"
	"holdfast/hil/bench"
	"holdfast/hil/plant"
)

// version is set by the linker.
var version = "unreleased"

const usage = `
Usage:
    holdfast-hil demo [--cut] [--duration TIME] [--json]
    holdfast-hil plant [--dir DIR]
    holdfast-hil bench [--only PATTERN] [--rounds N] [--write FILE] [--json]
    holdfast-hil version

    demo    a simulated plant, a gateway and an upstream broker on this machine,
            with a table of what each sees; proves at the end that nothing that
            was acknowledged is missing, and exits with 1 if something is
    plant   only the simulated plant, until it is interrupted; prints where its
            devices are, to try a gateway on
    bench   measurements against the peers that are installed

Options:
        --cut             cut the link and the power of the gateway (kill -9)
                          while it works
        --duration TIME   how long the demo works before the proof (default 20s)
        --holdfast FILE   the program to run (default: beside this one, else in
                          the PATH)
        --dir DIR         where sockets and scratch files go
        --only PATTERN    measurements whose name matches
        --rounds N        rounds of paired measurements (default 5)
        --write FILE      put the table into FILE, between its marks
        --json            print JSON

Examples:
    $ holdfast-hil demo --cut
    $ holdfast-hil bench --only hub
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	root := commands()
	err := root.ExecuteContext(ctx)
	stop()
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled):
		os.Exit(1)
	default:
		fmt.Fprintf(os.Stderr, "holdfast-hil: %s\n", strings.ReplaceAll(err.Error(), "\n", "\nholdfast-hil: "))
		if _, ok := err.(wrongUsage); ok {
			fmt.Fprintln(os.Stderr, `hint: see "holdfast-hil --help"`)
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// wrongUsage is an error of the command line.
type wrongUsage struct{ error }

// none refuses arguments.
func none(c *cobra.Command, args []string) error {
	if len(args) > 0 {
		return wrongUsage{fmt.Errorf("%q is not known here", args[0])}
	}
	return nil
}

func commands() *cobra.Command {
	root := &cobra.Command{Use: "holdfast-hil", SilenceErrors: true, SilenceUsage: true, Args: none,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	root.SetHelpFunc(func(c *cobra.Command, _ []string) {
		fmt.Fprint(c.OutOrStdout(), strings.TrimPrefix(usage, "\n"))
	})
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return wrongUsage{err} })
	root.CompletionOptions.DisableDefaultCmd = true
	root.AddCommand(demoCommand(), plantCommand(), benchCommand(), &cobra.Command{
		Use: "version", Args: none, Run: func(*cobra.Command, []string) { fmt.Println("holdfast-hil", version) },
	})
	return root
}

func demoCommand() *cobra.Command {
	o := demo.Options{Out: os.Stdout, Width: func() int { w, _ := terminal(); return w }, Height: func() int { _, h := terminal(); return h }}
	c := &cobra.Command{Use: "demo", Args: none, RunE: func(c *cobra.Command, _ []string) error {
		if o.Duration < time.Second {
			return wrongUsage{fmt.Errorf("--duration %s is shorter than a second", o.Duration)}
		}
		program, err := findHoldfast(o.Program)
		if err != nil {
			return err
		}
		o.Program = program
		return demo.Run(c.Context(), o)
	}}
	c.Flags().StringVar(&o.Program, "holdfast", "", "the program to run")
	c.Flags().DurationVar(&o.Duration, "duration", 20*time.Second, "how long the demo works before the proof")
	c.Flags().BoolVar(&o.Cut, "cut", false, "cut the link and the power")
	c.Flags().BoolVar(&o.JSON, "json", false, "print JSON")
	return c
}

func plantCommand() *cobra.Command {
	var dir string
	c := &cobra.Command{Use: "plant", Args: none, RunE: func(c *cobra.Command, _ []string) error {
		if dir == "" {
			var err error
			if dir, err = os.MkdirTemp("", "holdfast-plant"); err != nil {
				return err
			}
			defer os.RemoveAll(dir)
		}
		f, err := plant.OpenFactory(dir, 1)
		if err != nil {
			return err
		}
		fmt.Printf("tank   modbus tcp, unit %d   address = %q\n", plant.PLCUnit, f.TCP)
		fmt.Printf("drive  modbus rtu, unit %d   port = %q, baud = %d\n", plant.DriveUnit, f.Serial, plant.RTUBaud)
		fmt.Printf("room   i2c sensors          bus = %q\n", "unix:"+f.I2C)
		return f.Run(c.Context())
	}}
	c.Flags().StringVar(&dir, "dir", "", "where the sockets go")
	return c
}

func benchCommand() *cobra.Command {
	o := bench.Options{Out: os.Stderr}
	var only, write, program string
	var asJSON bool
	c := &cobra.Command{Use: "bench", Args: none, RunE: func(c *cobra.Command, _ []string) error {
		if only != "" {
			re, err := regexp.Compile(only)
			if err != nil {
				return wrongUsage{err}
			}
			o.Only = re
		}
		program, err := findHoldfast(program)
		if err != nil {
			return err
		}
		o.Bin = filepath.Dir(program)
		if o.Dir == "" {
			if o.Dir, err = os.MkdirTemp("", "holdfast-bench"); err != nil {
				return err
			}
			defer os.RemoveAll(o.Dir)
		}
		rows, err := bench.Run(c.Context(), o)
		if err != nil {
			return err
		}
		switch {
		case asJSON:
			e := json.NewEncoder(os.Stdout)
			e.SetIndent("", "  ")
			if err := e.Encode(rows); err != nil {
				return err
			}
		default:
			fmt.Print(bench.Table(rows))
		}
		if write != "" {
			return bench.WriteTable(write, rows, machine(), only == "")
		}
		return nil
	}}
	c.Flags().StringVar(&only, "only", "", "measurements whose name matches")
	c.Flags().IntVar(&o.Rounds, "rounds", 0, "rounds of paired measurements")
	c.Flags().StringVar(&o.Dir, "dir", "", "scratch directory on the disk to be measured")
	c.Flags().StringVar(&write, "write", "", "file to put the table into")
	c.Flags().StringVar(&program, "holdfast", "", "the program to measure")
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// machine says when and on what figures were made.
func machine() string {
	var u unix.Utsname
	kernel := "unknown kernel"
	if unix.Uname(&u) == nil {
		kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	return fmt.Sprintf("%s, %s/%s, %d CPUs, %s, %s", time.Now().UTC().Format("2006-01-02"), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), kernel, version)
}

// findHoldfast returns the path of the gateway's program.
func findHoldfast(named string) (string, error) {
	if named != "" {
		return filepath.Abs(named)
	}
	if self, err := os.Executable(); err == nil {
		beside := filepath.Join(filepath.Dir(self), "holdfast")
		if _, err := os.Stat(beside); err == nil {
			return beside, nil
		}
	}
	path, err := exec.LookPath("holdfast")
	if err != nil {
		return "", errors.New("there is no holdfast program beside this one or in the PATH: build both with \"make build\", or name it with --holdfast")
	}
	return filepath.Abs(path)
}

// terminal returns the size of the terminal at standard output, zeroes when it
// is none.
func terminal() (width, height int) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}
