// Package commission is what a controls engineer does before a field device is
// configured: look at what is there, guess what it means, and see what reading it
// will cost the line. It prints tables and makes tags; what it looks at is handed
// to it.
package commission

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/cmd/internal/table"
	"holdfast/protocols/modbus"
	"holdfast/protocols/point"
)

// Crowded is the share of its time beyond which a link is warned about: what is
// left is for commands, repeated requests and time-outs.
const Crowded = 0.8

// PredictLoad returns what reading all Modbus devices of a configuration costs
// their links. The configuration has passed its check.
func PredictLoad(f *config.Field, o modbus.LoadOptions) ([]modbus.LinkLoad, error) {
	var groups []modbus.LoadGroup
	for i := range f.Devices {
		if d := &f.Devices[i]; d.Protocol == "modbus" {
			groups = append(groups, loadGroups(f, d)...)
		}
	}
	return modbus.PredictLoad(groups, o)
}

// loadGroups sorts the readable tags of a device into its scan classes.
func loadGroups(f *config.Field, d *config.Device) []modbus.LoadGroup {
	usual := d.Class
	if usual == "" {
		usual = f.Class
	}
	byClass := map[string][]point.Tag{}
	for _, t := range d.Tags {
		if !t.Access.Readable() {
			continue
		}
		class := t.Class
		if class == "" {
			class = usual
		}
		byClass[class] = append(byClass[class], t)
	}
	var out []modbus.LoadGroup
	for _, class := range slices.Sorted(maps.Keys(byClass)) {
		out = append(out, modbus.LoadGroup{Device: d.Name, Class: class, Period: f.Classes[class].Period.Std(), Settings: d.Settings, Tags: byClass[class]})
	}
	return out
}

// Warnings returns a sentence for each link that is too busy. Links over TCP are
// warned about only when assumed says that their round trip was given: without it
// nothing certain is known.
func Warnings(links []modbus.LinkLoad, assumed bool) []string {
	var out []string
	for i := range links {
		l := &links[i]
		share := l.Share()
		if share <= Crowded || !l.Serial && !assumed {
			continue
		}
		end := "little is left for commands and repeated requests"
		if share > 1 {
			end = "scan classes will not keep their periods"
		}
		out = append(out, fmt.Sprintf("%s is busy %s of the time: %s", l.Link, percent(share), end))
	}
	return out
}

func percent(share float64) string {
	if share < 0.1 {
		return strconv.FormatFloat(100*share, 'f', 1, 64) + " %"
	}
	return strconv.FormatFloat(100*share, 'f', 0, 64) + " %"
}

var loadColumns = []table.Column{{Title: "LINK", Give: true}, {Title: "DEVICE", Give: true}, {Title: "CLASS"}, {Title: "PERIOD", Right: true},
	{Title: "TAGS", Right: true}, {Title: "REQUESTS", Right: true}, {Title: "ITEMS", Right: true}, {Title: "BYTES", Right: true},
	{Title: "TIME", Right: true}, {Title: "OF PERIOD", Right: true}}

// WriteLoad prints what each scan class costs, and the sum for each link.
func WriteLoad(w io.Writer, width int, links []modbus.LinkLoad) {
	var rows [][]string
	for i := range links {
		l := &links[i]
		for k := range l.Groups {
			g := &l.Groups[k]
			link := ""
			if k == 0 {
				link = l.Link
			}
			rows = append(rows, []string{link, g.Device, g.Class, strict.Duration(g.Period).String(), strconv.Itoa(g.Tags), strconv.Itoa(g.Requests),
				strconv.Itoa(g.Items), strconv.Itoa(g.Bytes), milliseconds(g.Time), percent(g.Share())})
		}
		if len(l.Groups) > 1 {
			rows = append(rows, []string{"", "all", "", "", "", "", "", "", "", percent(l.Share())})
		}
	}
	table.Write(w, width, loadColumns, rows)
}

func milliseconds(d time.Duration) string {
	return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'f', 1, 64) + "ms"
}
