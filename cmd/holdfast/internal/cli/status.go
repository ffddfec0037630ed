package cli

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/internal/control"
	"holdfast/cmd/internal/table"
)

// bothStatus is what status --json prints. A daemon that does not answer is
// null.
type bothStatus struct {
	Hub   *control.HubStatus   `json:"hub"`
	Field *control.FieldStatus `json:"field"`
}

func (a *app) statusCommand() *cobra.Command {
	return verb("status", "what runs, and what troubles it", usageStatus, cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		run, err := a.runDir()
		if err != nil {
			return err
		}
		var s bothStatus
		var hub control.HubStatus
		var field control.FieldStatus
		hubErr := control.NewClient(filepath.Join(run, control.HubSocket)).Get(c.Context(), "status", &hub)
		fieldErr := control.NewClient(filepath.Join(run, control.FieldSocket)).Get(c.Context(), "status", &field)
		if hubErr != nil && fieldErr != nil {
			return errors.Join(hubErr, fieldErr)
		}
		troubles := 0
		if hubErr == nil {
			s.Hub = &hub
			troubles += len(hub.Conditions)
		}
		if fieldErr == nil {
			s.Field = &field
			troubles += len(field.Conditions)
		}
		if a.json {
			err = a.printJSON(s)
		} else {
			a.printStatus(s, hubErr, fieldErr)
		}
		if err == nil && troubles > 0 {
			return failed(fmt.Errorf("%s", plural(troubles, "condition is raised", "conditions are raised")))
		}
		return err
	})
}

func (a *app) printStatus(s bothStatus, hubErr, fieldErr error) {
	now := time.Now()
	if s.Hub != nil {
		printHub(a.Out, a.Width(), now, s.Hub)
	} else {
		a.printf("hub    %v\n", hubErr)
	}
	a.printf("\n")
	if s.Field != nil {
		printField(a.Out, a.Width(), now, s.Field)
	} else {
		a.printf("field  %v\n", fieldErr)
	}
	var all []control.Condition
	if s.Hub != nil {
		all = append(all, s.Hub.Conditions...)
	}
	if s.Field != nil {
		all = append(all, s.Field.Conditions...)
	}
	if len(all) == 0 {
		return
	}
	a.printf("\n")
	var rows [][]string
	for _, c := range all {
		rows = append(rows, []string{c.Subject, c.Trouble, ago(now, c.Since), c.Reason})
	}
	table.Write(a.Out, a.Width(), []table.Column{{Title: "CONDITION"}, {Title: "TROUBLE"}, {Title: "SINCE", Right: true}, {Title: "REASON", Give: true}}, rows)
}

func printHub(w io.Writer, width int, now time.Time, h *control.HubStatus) {
	fmt.Fprintf(w, "hub    %s, up %s, pid %d, %s resident\n", h.Version, ago(now, h.Started), h.PID, bytesText(h.Resident))
	var doors []string
	for _, l := range h.Listeners {
		doors = append(doors, l.Type+" "+l.Address)
	}
	fmt.Fprintf(w, "  listens on  %s\n", strings.Join(doors, ", "))
	fmt.Fprintf(w, "  clients     %d connected, %s kept\n", h.Clients, plural(h.Sessions, "session", "sessions"))
	fmt.Fprintf(w, "  messages    %d received, %d sent, %d dropped\n", h.Received, h.Sent, h.Dropped)
	j := h.Journal
	budget := "no budget"
	if j.Budget > 0 {
		budget = fmt.Sprintf("%.0f %% of %s", 100*float64(j.Bytes)/float64(j.Budget), bytesText(j.Budget))
	}
	fmt.Fprintf(w, "  journal     offsets %d to %d, %s, %s\n", j.First, j.Committed, bytesText(j.Bytes), budget)
	if len(h.Endpoints) == 0 {
		return
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, e := range h.Endpoints {
		rows = append(rows, []string{"  " + e.Name, linkText(e.Connected), ago(now, e.Since), fmt.Sprint(e.Waiting), fmt.Sprint(e.InFlight),
			fmt.Sprint(e.Confirmed), fmt.Sprint(e.Expired), fmt.Sprint(e.Rejected), fmt.Sprint(e.Lost), e.Reason})
	}
	table.Write(w, width, []table.Column{{Title: "  UPSTREAM"}, {Title: "LINK"}, {Title: "SINCE", Right: true}, {Title: "WAITING", Right: true},
		{Title: "IN FLIGHT", Right: true}, {Title: "CONFIRMED", Right: true}, {Title: "EXPIRED", Right: true}, {Title: "REJECTED", Right: true},
		{Title: "LOST", Right: true}, {Title: "REASON", Give: true}}, rows)
}

func printField(w io.Writer, width int, now time.Time, f *control.FieldStatus) {
	fmt.Fprintf(w, "field  %s, up %s, pid %d, %s resident\n", f.Version, ago(now, f.Started), f.PID, bytesText(f.Resident))
	fmt.Fprintf(w, "  hub         %s for %s", linkText(f.Hub.Connected), ago(now, f.Hub.Since))
	if f.Hub.Reason != "" {
		fmt.Fprintf(w, ": %s", f.Hub.Reason)
	}
	fmt.Fprintf(w, "\n  outbox      %s, %d batches confirmed, %d readings dropped\n",
		plural(f.Outbox.Readings, "reading waits", "readings wait"), f.Outbox.Published, f.Outbox.Dropped)
	if len(f.Devices) == 0 {
		return
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, d := range f.Devices {
		rows = append(rows, []string{"  " + d.Name, d.Protocol, linkText(d.Link.Connected), ago(now, d.Link.Since), fmt.Sprint(d.Tags),
			fmt.Sprint(d.Good), fmt.Sprint(d.Bad), fmt.Sprint(d.Requests), fmt.Sprint(d.Errors), d.Link.Reason})
	}
	table.Write(w, width, []table.Column{{Title: "  DEVICE"}, {Title: "PROTOCOL"}, {Title: "LINK"}, {Title: "SINCE", Right: true}, {Title: "TAGS", Right: true},
		{Title: "GOOD", Right: true}, {Title: "BAD", Right: true}, {Title: "REQUESTS", Right: true}, {Title: "ERRORS", Right: true},
		{Title: "REASON", Give: true}}, rows)
}

func linkText(up bool) string {
	if up {
		return "up"
	}
	return "down"
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// ago tells how long ago t was, in the two largest units that matter.
func ago(now, t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return spanText(now.Sub(t))
}

func spanText(d time.Duration) string {
	switch {
	case d < 0:
		return "in future"
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}

func bytesText(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 || f >= 100 {
		return fmt.Sprintf("%.0f %s", f, units[i])
	}
	return fmt.Sprintf("%.1f %s", f, units[i])
}
