package cli

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// TestUsageIsComplete holds the usage texts, which are written by hand, against
// the commands and flags that exist.
func TestUsageIsComplete(t *testing.T) {
	sys := system("", io.Discard, io.Discard, nil)
	var visit func(c *cobra.Command)
	visit = func(c *cobra.Command) {
		if c.Name() == "help" {
			return
		}
		if !strings.HasPrefix(c.Long, "\nUsage:\n    "+c.CommandPath()) {
			t.Errorf("the usage of %q does not begin with how it is called", c.CommandPath())
		}
		if c.HasParent() && !strings.Contains(c.Parent().Long, c.Name()) {
			t.Errorf("the usage of %q does not name %q", c.Parent().CommandPath(), c.Name())
		}
		c.LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Name == "help" {
				return
			}
			if !strings.Contains(c.Long, "--"+f.Name) {
				t.Errorf("the usage of %q does not name --%s", c.CommandPath(), f.Name)
			}
			if f.Shorthand != "" && !strings.Contains(c.Long, "-"+f.Shorthand+",") {
				t.Errorf("the usage of %q does not name -%s", c.CommandPath(), f.Shorthand)
			}
		})
		for _, l := range strings.Split(c.Long, "\n") {
			if len(l) > 80 {
				t.Errorf("the usage of %q has a line of %d characters: %s", c.CommandPath(), len(l), l)
			}
		}
		for _, sub := range c.Commands() {
			visit(sub)
		}
	}
	root := (&app{System: &sys}).root()
	visit(root)
	root.PersistentFlags().VisitAll(func(f *pflag.Flag) {
		if !strings.Contains(usageRoot, "--"+f.Name) {
			t.Errorf("the usage of holdfast does not name --%s", f.Name)
		}
	})
}
