package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/config"
)

// load reads and checks the configuration, as every verb that needs it does.
func (a *app) load() (*config.Config, error) {
	c, err := config.Load(a.config, os.ReadFile, kinds())
	var none *config.NoFileError
	if errors.As(err, &none) {
		return nil, usage(err, "write one, or name it with --config or $HOLDFAST_CONFIG")
	}
	return c, err
}

// runDir returns where the daemons' sockets are. A configuration that does not
// exist, or has mistakes elsewhere, must not keep an operator from looking.
func (a *app) runDir() (string, error) {
	return config.RunDir(a.config, os.ReadFile)
}

func (a *app) configCommand() *cobra.Command {
	return group("config", "look at the configuration", usageConfig,
		verb("check", "tell every mistake, with file and line", usageConfigCheck, cobra.NoArgs, func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			tags := 0
			for _, d := range c.Field.Devices {
				tags += len(d.Tags)
			}
			if a.json {
				return a.printJSON(map[string]any{"file": c.File, "devices": len(c.Field.Devices), "tags": tags,
					"routes": len(c.Hub.Routes), "upstreams": len(c.Hub.Upstreams)})
			}
			a.printf("%s is correct: %s with %s, %s, %s\n", c.File,
				plural(len(c.Field.Devices), "field device", "field devices"), plural(tags, "tag", "tags"),
				plural(len(c.Hub.Routes), "route", "routes"), plural(len(c.Hub.Upstreams), "upstream", "upstreams"))
			return nil
		}),
		verb("show", "print what is in force, defaults included", usageConfigShow, cobra.NoArgs, func(*cobra.Command, []string) error {
			c, err := a.load()
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(c.Show())
			}
			text, err := c.Text()
			if err != nil {
				return fmt.Errorf("show the configuration: %w", err)
			}
			a.printf("%s", text)
			return nil
		}),
	)
}
