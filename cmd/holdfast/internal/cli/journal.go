package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/hubdaemon"
	"holdfast/cmd/internal/table"
	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/journal"
)

func (a *app) journalCommand() *cobra.Command {
	return group("journal", "look at the hub's log on disk", usageJournal, a.inspectCommand(), a.verifyCommand())
}

// segmentJSON is one file of a journal as inspect and verify print it.
type segmentJSON struct {
	Name    string    `json:"name"`
	State   string    `json:"state"`
	Epoch   uint64    `json:"epoch,string"`
	Bytes   int64     `json:"bytes"`
	Used    int64     `json:"used_bytes"`
	First   uint64    `json:"first"`
	Last    uint64    `json:"last"`
	Records uint64    `json:"records"`
	Missing uint64    `json:"missing"`
	Begins  time.Time `json:"begins,omitzero"`
	Ends    time.Time `json:"ends,omitzero"`
	Damage  []string  `json:"damage,omitempty"`
}

func segmentsJSON(infos []journal.SegmentInfo) []segmentJSON {
	out := make([]segmentJSON, len(infos))
	for i, s := range infos {
		out[i] = segmentJSON{Name: s.Name, State: s.State, Epoch: s.Epoch, Bytes: s.Bytes, Used: s.Used, First: uint64(s.First), Last: uint64(s.Last),
			Missing: s.Gaps, Damage: s.Damage}
		for _, n := range s.Records {
			out[i].Records += n
		}
		if s.FirstTime != 0 {
			out[i].Begins, out[i].Ends = time.UnixMicro(s.FirstTime).UTC(), time.UnixMicro(s.LastTime).UTC()
		}
	}
	return out
}

// openJournal opens the directory of the journal that a command names, or the
// configured one.
func (a *app) openJournal(args []string) (disk.FS, string, error) {
	dir := ""
	if len(args) == 1 {
		dir = args[0]
	} else {
		data, err := config.DataDir(a.config, os.ReadFile)
		if err != nil {
			return nil, "", err
		}
		dir = hubdaemon.JournalDir(data)
	}
	// OpenHost makes what is not there, and looking must not.
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil, dir, failed(fmt.Errorf("there is no journal in %q", dir), "the hub makes it when it starts for the first time")
	}
	d, err := disk.OpenHost(dir)
	return d, dir, err
}

func (a *app) verifyCommand() *cobra.Command {
	return verb("verify [DIR]", "check every checksum", usageJournalVerify, cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		d, dir, err := a.openJournal(args)
		if err != nil {
			return err
		}
		infos, err := journal.Verify(c.Context(), d)
		if err != nil {
			return fmt.Errorf("journal %q: %w", dir, err)
		}
		list := segmentsJSON(infos)
		damage := 0
		for _, s := range list {
			damage += len(s.Damage)
		}
		if a.json {
			err = a.printJSON(list)
		} else {
			a.printSegments(list)
			for _, s := range list {
				for _, text := range s.Damage {
					a.printf("%s: %s\n", s.Name, text)
				}
			}
		}
		if damage > 0 {
			return a.quiet(failed(fmt.Errorf("journal %q: %s", dir, plural(damage, "place is damaged", "places are damaged")),
				"the hub sets damaged files aside by itself and goes on; what they held is counted as lost"))
		}
		return err
	})
}

func (a *app) printSegments(list []segmentJSON) {
	rows := make([][]string, len(list))
	var records, missing uint64
	for i, s := range list {
		span := "-"
		if s.First > 0 {
			span = fmt.Sprintf("%d to %d", s.First, s.Last)
		}
		when := "-"
		if !s.Begins.IsZero() {
			when = s.Begins.Format("2006-01-02 15:04:05") + " to " + s.Ends.Format("15:04:05")
		}
		rows[i] = []string{s.Name, s.State, bytesText(s.Bytes), bytesText(s.Used), span, fmt.Sprint(s.Records), fmt.Sprint(s.Missing), when}
		records += s.Records
		missing += s.Missing
	}
	table.Write(a.Out, a.Width(), []table.Column{{Title: "FILE", Give: true}, {Title: "STATE"}, {Title: "SIZE", Right: true}, {Title: "USED", Right: true},
		{Title: "OFFSETS", Right: true}, {Title: "RECORDS", Right: true}, {Title: "MISSING", Right: true}, {Title: "TIME (UTC)"}}, rows)
	a.printf("\n%s in %s, %d missing\n", plural(int(records), "record", "records"), plural(len(list), "file", "files"), missing)
}

func (a *app) inspectCommand() *cobra.Command {
	var count int
	var from uint64
	c := verb("inspect [DIR]", "show segments and messages", usageJournalInspect, cobra.MaximumNArgs(1), func(c *cobra.Command, args []string) error {
		d, dir, err := a.openJournal(args)
		if err != nil {
			return err
		}
		infos, err := journal.Inspect(d)
		if err != nil {
			return fmt.Errorf("journal %q: %w", dir, err)
		}
		list := segmentsJSON(infos)
		if a.json && count == 0 {
			return a.printJSON(list)
		}
		if !a.json {
			a.printSegments(list)
		}
		if count == 0 {
			return nil
		}
		if err := a.printMessages(c.Context(), d, journal.Offset(from), count); err != nil {
			return fmt.Errorf("journal %q: %w", dir, err)
		}
		return nil
	})
	c.Flags().IntVarP(&count, "messages", "n", 10, "how many messages to show")
	c.Flags().Uint64Var(&from, "from", 0, "the first message to show")
	return c
}

// messageJSON is one record as inspect --json prints it, a line each.
type messageJSON struct {
	Offset  uint64          `json:"offset"`
	Time    time.Time       `json:"time"`
	Class   uint8           `json:"class"`
	Sender  string          `json:"sender,omitempty"`
	Topic   string          `json:"topic,omitempty"`
	QoS     byte            `json:"qos"`
	Retain  bool            `json:"retain,omitempty"`
	Targets []string        `json:"targets,omitempty"`
	Bytes   int             `json:"bytes"`
	Payload json.RawMessage `json:"payload,omitempty"` // as it is when it is JSON, else as text, else base64
	Kind    int             `json:"kind,omitempty"`    // of a record that is no message
	Missing uint64          `json:"missing,omitempty"` // a gap: how many records from offset on
	Reason  string          `json:"reason,omitempty"`  // of a gap
}

func (a *app) printMessages(ctx context.Context, d disk.FS, from journal.Offset, count int) error {
	last := from == 0 && count > 0
	var tail []messageJSON // the last count ones; bounded by it
	n := 0
	err := journal.Scan(ctx, d, from, func(r journal.Record) error {
		m := message(r)
		if last {
			if tail = append(tail, m); len(tail) > count {
				tail = slices.Delete(tail, 0, 1)
			}
			return nil
		}
		if n++; count > 0 && n > count {
			return errEnough
		}
		return a.printMessage(m)
	})
	if err != nil && !errors.Is(err, errEnough) {
		return err
	}
	if len(tail) > 0 && !a.json {
		a.printf("\n")
	}
	for _, m := range tail {
		if err := a.printMessage(m); err != nil {
			return err
		}
	}
	return nil
}

var errEnough = errors.New("enough")

func message(r journal.Record) messageJSON {
	m := messageJSON{Offset: uint64(r.Offset), Class: r.Class, Time: time.UnixMicro(r.Time).UTC()}
	if r.Gap != nil {
		m.Offset, m.Missing, m.Reason, m.Time = uint64(r.Gap.From), r.Gap.Count(), r.Gap.Reason.String(), time.Time{}
		return m
	}
	var rec hub.Record
	if err := rec.Parse(r.Body); err != nil {
		m.Bytes = len(r.Body)
		if len(r.Body) > 0 {
			m.Kind = int(r.Body[0])
		}
		return m
	}
	m.Sender, m.Topic, m.QoS, m.Retain, m.Bytes = string(rec.Sender), string(rec.Topic), rec.QoS, rec.Retain, len(rec.Payload)
	rec.Targets.Each(func(endpoint []byte, priority uint8, _ int64) bool {
		m.Targets = append(m.Targets, string(endpoint))
		return true
	})
	m.Payload = payloadJSON(rec.Payload)
	return m
}

func payloadJSON(p []byte) json.RawMessage {
	var v any = p // base64
	switch {
	case json.Valid(p):
		return append(json.RawMessage(nil), p...)
	case utf8.Valid(p):
		v = string(p)
	}
	out, err := json.Marshal(v)
	if err != nil {
		return nil
	}
	return out
}

func (a *app) printMessage(m messageJSON) error {
	if a.json {
		return a.printLine(m)
	}
	switch {
	case m.Missing > 0:
		a.printf("%10d  %s missing: %s\n", m.Offset, plural(int(m.Missing), "record", "records"), m.Reason)
	case m.Topic == "":
		a.printf("%10d  %s  session record of kind %d, %d bytes\n", m.Offset, m.Time.Format("15:04:05.000"), m.Kind, m.Bytes)
	default:
		to := ""
		if len(m.Targets) > 0 {
			to = " -> " + strings.Join(m.Targets, ", ")
		}
		line := fmt.Sprintf("%10d  %s  %s  %s%s  %s", m.Offset, m.Time.Format("15:04:05.000"), m.Sender, m.Topic, to, m.Payload)
		width := a.Width()
		if width <= 0 {
			width = 200
		}
		a.printf("%s\n", table.Cut(line, width))
	}
	return nil
}
