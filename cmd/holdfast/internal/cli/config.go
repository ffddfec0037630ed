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
		a.configCheckCommand(),
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
		a.configImportCommand(), a.configExportCommand(),
	)
}
