package cli

import (
	"io"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
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
		for _, f := range flags(c.LocalNonPersistentFlags().FlagUsages()) {
			if f != "--help" && !strings.Contains(c.Long, f) {
				t.Errorf("the usage of %q does not name %s", c.CommandPath(), f)
			}
		}
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
	for _, f := range flags(root.PersistentFlags().FlagUsages()) {
		if !strings.Contains(usageRoot, f) {
			t.Errorf("the usage of holdfast does not name %s", f)
		}
	}
}

// flags returns the flags in the list that cobra itself would print.
func flags(list string) []string {
	found := regexp.MustCompile(`(?m)^ *-\w,| --[\w-]+`).FindAllString(list, -1)
	for i := range found {
		found[i] = strings.TrimSpace(found[i])
	}
	return found
}
