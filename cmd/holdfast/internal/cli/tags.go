package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/internal/control"
	"holdfast/cmd/internal/table"
)

func (a *app) tagsCommand() *cobra.Command {
	var watch, bad bool
	c := verb("tags [PATTERN...]", "newest value, quality and age of tags", usageTags, cobra.ArbitraryArgs, func(c *cobra.Command, args []string) error {
		pick, err := patterns(args, bad)
		if err != nil {
			return err
		}
		run, err := a.runDir()
		if err != nil {
			return err
		}
		field := control.NewClient(filepath.Join(run, control.FieldSocket))
		if watch {
			return a.watchTags(c.Context(), field, pick)
		}
		var all []control.Tag
		if err := field.Get(c.Context(), "tags", &all); err != nil {
			return err
		}
		all = slices.DeleteFunc(all, func(t control.Tag) bool { return !pick(&t) })
		if a.json {
			if all == nil {
				all = []control.Tag{}
			}
			return a.printJSON(all)
		}
		if len(all) == 0 && len(args) > 0 {
			return failed(fmt.Errorf("no tag matches %s", strings.Join(args, " ")), "patterns are DEVICE/TAG with * for any letters")
		}
		writeTags(a.Out, a.Width(), all)
		return nil
	})
	c.Flags().BoolVarP(&watch, "watch", "w", false, "keep the table up to date")
	c.Flags().BoolVar(&bad, "bad", false, "only tags whose quality is not good")
	return c
}

// patterns returns what decides whether a tag is wanted.
func patterns(args []string, bad bool) (func(*control.Tag) bool, error) {
	for _, p := range args {
		if _, err := path.Match(p, ""); err != nil {
			return nil, usage(fmt.Errorf("pattern %q: %w", p, err))
		}
		if !strings.Contains(p, "/") {
			return nil, usage(fmt.Errorf("pattern %q has no device", p), fmt.Sprintf("write %q for all tags of a device, %q for a tag of any", p+"/*", "*/"+p))
		}
	}
	return func(t *control.Tag) bool {
		if bad && t.Level == "good" {
			return false
		}
		return len(args) == 0 || slices.ContainsFunc(args, func(p string) bool {
			ok, _ := path.Match(p, t.Device+"/"+t.Tag)
			return ok
		})
	}, nil
}

var tagColumns = []table.Column{{Title: "TAG", Give: true}, {Title: "VALUE", Right: true, Give: true}, {Title: "UNIT"}, {Title: "QUALITY"},
	{Title: "AGE", Right: true}, {Title: "DETAIL", Give: true}}

func writeTags(w interface{ Write([]byte) (int, error) }, width int, tags []control.Tag) {
	rows := make([][]string, len(tags))
	for i, t := range tags {
		age := "never"
		if t.Age >= 0 {
			age = spanText(time.Duration(t.Age * float64(time.Second)))
		}
		rows[i] = []string{t.Device + "/" + t.Tag, table.Number(t.Text), t.Unit, t.Quality, age, t.Detail}
	}
	table.Write(w, width, tagColumns, rows)
}

// repaint is how often a live table is painted at most.
const repaint = 250 * time.Millisecond

// watchTags follows the changes: as a table in a terminal, as lines elsewhere.
func (a *app) watchTags(ctx context.Context, field *control.Client, pick func(*control.Tag) bool) error {
	live := !a.json && a.Width() > 0
	view := tagView{rows: map[string]control.Tag{}}
	screen := table.Screen{W: a.Out, Height: a.Height}
	var painted time.Time
	err := field.Watch(ctx, "tags?watch=1", func(line []byte) error {
		var u control.Update
		if err := json.Unmarshal(line, &u); err != nil {
			return fmt.Errorf("answer of the field daemon: %w", err)
		}
		if u.Fresh {
			clear(view.rows)
		}
		for i := range u.Tags {
			t := &u.Tags[i]
			switch {
			case !pick(t):
				delete(view.rows, t.Device+"/"+t.Tag) // it may have become good
			case live:
				view.rows[t.Device+"/"+t.Tag] = *t
			case a.json:
				if err := a.printLine(t); err != nil {
					return err
				}
			default:
				a.printf("%s  %s/%s  %s%s  %s%s\n", t.Receive.Format("15:04:05.000"), t.Device, t.Tag, t.Text, space(t.Unit), t.Quality, space(t.Detail))
			}
		}
		if now := time.Now(); live && now.Sub(painted) >= repaint {
			painted = now
			screen.Paint(view.frame(now, a.Width()))
		}
		return nil
	})
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

func space(s string) string {
	if s == "" {
		return ""
	}
	return " " + s
}

// tagView is what a live table shows.
type tagView struct{ rows map[string]control.Tag }

func (v *tagView) frame(now time.Time, width int) string {
	tags := make([]control.Tag, 0, len(v.rows))
	counts := map[string]int{}
	for _, t := range v.rows {
		if !t.Receive.IsZero() {
			t.Age = max(0, now.Sub(t.Receive).Seconds())
		}
		counts[t.Level]++
		tags = append(tags, t)
	}
	slices.SortFunc(tags, func(x, y control.Tag) int { return strings.Compare(x.Device+"/"+x.Tag, y.Device+"/"+y.Tag) })
	var b strings.Builder
	fmt.Fprintf(&b, "%s  %s: %d good, %d uncertain, %d bad\n\n", now.Format("15:04:05"), plural(len(tags), "tag", "tags"),
		counts["good"], counts["uncertain"], counts["bad"])
	writeTags(&b, width, tags)
	return b.String()
}
