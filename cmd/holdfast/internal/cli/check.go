package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/commission"
	"holdfast/cmd/holdfast/internal/config"
	"holdfast/protocols/modbus"
)

const usageConfigCheck = `
Usage:
    holdfast config check [-c FILE] [--load] [--latency D] [--turnaround D]

Reads the configuration and its tag tables and tells every mistake, with file,
line and the known key that is nearest. It is the same check that the daemons
make when they start. Exits with 2 when there is a mistake. Warns of serial
lines on which reading alone takes more than 80 % of the time.

Options:
        --load           print what each scan class costs its Modbus link:
                         requests, bytes, milliseconds, part of the period
        --latency D      assumed time from a request over TCP to its answer
                         (default 5ms)
        --turnaround D   assumed time that a device on a serial line takes
                         before it answers (default 10ms)

Examples:
    $ holdfast config check -c new.toml && systemctl reload holdfast-field
    $ holdfast config check --load --turnaround 25ms
`

// configCheckCommand checks the configuration and predicts what reading costs.
func (a *app) configCheckCommand() *cobra.Command {
	var load bool
	var latency, turnaround time.Duration
	c := verb("check", "tell every mistake, with file and line", usageConfigCheck, cobra.NoArgs, func(cmd *cobra.Command, _ []string) error {
		for name, d := range map[string]time.Duration{"latency": latency, "turnaround": turnaround} {
			if d <= 0 || d > time.Minute {
				return usage(fmt.Errorf("--%s %s is not between 0 and 1m", name, d))
			}
		}
		conf, err := a.load()
		if err != nil {
			return err
		}
		links, err := commission.PredictLoad(&conf.Field, modbus.LoadOptions{Answer: turnaround, RoundTrip: latency})
		if err != nil {
			return err
		}
		warnings := commission.Warnings(links, load || cmd.Flags().Changed("latency"))
		if a.json {
			return a.printJSON(checkJSON(conf, links, warnings, load))
		}
		a.printf("%s is correct: %s with %s, %s, %s\n", conf.File,
			plural(len(conf.Field.Devices), "field device", "field devices"), plural(tagsOf(conf), "tag", "tags"),
			plural(len(conf.Hub.Routes), "route", "routes"), plural(len(conf.Hub.Upstreams), "upstream", "upstreams"))
		if load && len(links) == 0 {
			a.printf("\nno Modbus links\n")
		} else if load {
			a.printf("\n")
			commission.WriteLoad(a.Out, a.Width(), links)
		}
		for _, w := range warnings {
			fmt.Fprintf(a.Err, "holdfast: warning: %s\n", w)
		}
		return nil
	})
	c.Flags().BoolVar(&load, "load", false, "print what reading costs each Modbus link")
	c.Flags().DurationVar(&latency, "latency", 5*time.Millisecond, "assumed round trip over TCP")
	c.Flags().DurationVar(&turnaround, "turnaround", 10*time.Millisecond, "assumed time before an answer on a line")
	return c
}

func tagsOf(c *config.Config) int {
	n := 0
	for i := range c.Field.Devices {
		n += len(c.Field.Devices[i].Tags)
	}
	return n
}

func checkJSON(c *config.Config, links []modbus.LinkLoad, warnings []string, load bool) map[string]any {
	out := map[string]any{"file": c.File, "devices": len(c.Field.Devices), "tags": tagsOf(c),
		"routes": len(c.Hub.Routes), "upstreams": len(c.Hub.Upstreams)}
	if len(warnings) > 0 {
		out["warnings"] = warnings
	}
	if !load {
		return out
	}
	list := []any{}
	for i := range links {
		l := &links[i]
		classes := []any{}
		for k := range l.Groups {
			g := &l.Groups[k]
			classes = append(classes, map[string]any{"device": g.Device, "class": g.Class, "period_seconds": g.Period.Seconds(), "tags": g.Tags,
				"requests": g.Requests, "items": g.Items, "bytes": g.Bytes, "seconds": g.Time.Seconds(), "share": g.Share()})
		}
		list = append(list, map[string]any{"link": l.Link, "share": l.Share(), "classes": classes})
	}
	out["load"] = list
	return out
}
