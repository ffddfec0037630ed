package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/cmd/internal/control"
)

// The exit statuses.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitRefused     = 3
	exitUnreachable = 4
)

// failure is an error with the status to exit with and what to do about it.
type failure struct {
	Code  int
	Err   error
	Hints []string
	told  bool // it was printed already
}

func (f *failure) Error() string { return f.Err.Error() }
func (f *failure) Unwrap() error { return f.Err }

func usage(err error, hints ...string) error {
	return &failure{Code: exitUsage, Err: err, Hints: hints}
}
func refused(err error, hints ...string) error {
	return &failure{Code: exitRefused, Err: err, Hints: hints}
}
func unreachable(err error, hints ...string) error {
	return &failure{Code: exitUnreachable, Err: err, Hints: hints}
}
func failed(err error, hints ...string) error {
	return &failure{Code: exitFailure, Err: err, Hints: hints}
}

// failureOf finds out the status of any error.
func failureOf(err error) *failure {
	var f *failure
	var m strict.Mistakes
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &m):
		return &failure{Code: exitUsage, Err: err}
	case errors.Is(err, control.ErrUnreachable):
		return &failure{Code: exitUnreachable, Err: err, Hints: []string{"start it with \"holdfast run\", or look at \"systemctl status holdfast-hub holdfast-field\""}}
	case errors.Is(err, context.DeadlineExceeded):
		return &failure{Code: exitUnreachable, Err: errors.New("no answer in time")}
	}
	return &failure{Code: exitFailure, Err: err}
}

// report prints a failure for people, or as JSON.
func (a *app) report(f *failure) {
	if f.told {
		return
	}
	var ms strict.Mistakes
	if a.json {
		out := struct {
			Error    string          `json:"error"`
			Hints    []string        `json:"hints,omitempty"`
			Mistakes strict.Mistakes `json:"mistakes,omitempty"`
			Status   int             `json:"status"`
		}{Error: f.Error(), Hints: f.Hints, Status: f.Code}
		if errors.As(f.Err, &ms) {
			out.Mistakes, out.Error = ms, mistakesTitle(ms)
		}
		_ = a.printJSON(out)
		return
	}
	if errors.As(f.Err, &ms) {
		for _, m := range ms {
			fmt.Fprintf(a.Err, "holdfast: %s\n", m.Error())
			if m.Hint != "" {
				fmt.Fprintf(a.Err, "hint: %s\n", m.Hint)
			}
		}
	} else {
		fmt.Fprintf(a.Err, "holdfast: %s\n", strings.ReplaceAll(f.Error(), "\n", "\nholdfast: "))
	}
	for _, h := range f.Hints {
		fmt.Fprintf(a.Err, "hint: %s\n", h)
	}
}

func mistakesTitle(ms strict.Mistakes) string {
	if len(ms) == 1 {
		return "the configuration has a mistake"
	}
	return fmt.Sprintf("the configuration has %d mistakes", len(ms))
}

func unknownVerb(c *cobra.Command, word string) error {
	var known []string
	for _, sub := range c.Commands() {
		known = append(known, sub.Name())
	}
	err := fmt.Errorf("unknown verb %q", strings.TrimSpace(strings.TrimPrefix(c.CommandPath()+" "+word, "holdfast ")))
	if near := strict.Nearest(word, known); near != "" {
		return usage(err, fmt.Sprintf("did you mean %q?", strings.TrimPrefix(c.CommandPath()+" "+near, "holdfast ")))
	}
	return usage(err, fmt.Sprintf("see %q", c.CommandPath()+" --help"))
}

func (a *app) printf(format string, args ...any) { fmt.Fprintf(a.Out, format, args...) }

func (a *app) printJSON(v any) error {
	e := json.NewEncoder(a.Out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// printLine prints one value on one line, for streams.
func (a *app) printLine(v any) error {
	e := json.NewEncoder(a.Out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// ask prints a question where people see it.
func (a *app) ask(text string) { io.WriteString(a.Err, text) }
