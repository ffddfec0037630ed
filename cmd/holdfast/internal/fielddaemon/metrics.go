package fielddaemon

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/cmd/internal/control"
)

// collector turns a status into metrics when somebody asks, so that metrics
// cost nothing between two scrapes.
type collector struct{ d *Daemon }

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("holdfast_field_"+name, help, labels, nil)
}

var (
	descHubConnected = desc("hub_connected", "Whether the hub is connected: 1 or 0.")
	descPublished    = desc("batches_confirmed_total", "Batches of readings that the hub has confirmed.")
	descWaiting      = desc("outbox_readings", "Readings that wait for the hub.")
	descConnected    = desc("device_connected", "Whether a field device answers: 1 or 0.", "device", "protocol")
	descTags         = desc("device_tags", "Tags by the quality of their newest value.", "device", "quality")
	descReadings     = desc("readings_total", "Samples taken.", "device")
	descHeld         = desc("readings_held_total", "Readings held back by dead-bands.", "device")
	descDropped      = desc("readings_dropped_total", "Readings replaced by newer ones because the hub did not take them.", "device")
	descRequests     = desc("requests_total", "Requests sent to the link of a device.", "device")
	descErrors       = desc("request_errors_total", "Requests that were not answered, or late, or wrongly.", "device")
	descSkipped      = desc("scans_skipped_total", "Reads left out because the one before was still under way.", "device")
	descCommands     = desc("commands_total", "Commands by what came of them.", "result")
)

// Describe sends nothing: the set of series depends on the configuration.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect sends the current figures.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.d.status()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descHubConnected, control.OneIf(s.Hub.Connected))
	counter(descPublished, s.Outbox.Published)
	gauge(descWaiting, float64(s.Outbox.Readings))
	for i := range s.Devices {
		d := &s.Devices[i]
		gauge(descConnected, control.OneIf(d.Link.Connected), d.Name, d.Protocol)
		gauge(descTags, float64(d.Good), d.Name, "good")
		gauge(descTags, float64(d.Uncertain), d.Name, "uncertain")
		gauge(descTags, float64(d.Bad), d.Name, "bad")
		counter(descReadings, d.Readings, d.Name)
		counter(descHeld, d.Held, d.Name)
		counter(descDropped, d.Dropped, d.Name)
		counter(descRequests, d.Requests, d.Name)
		counter(descErrors, d.Errors, d.Name)
		counter(descSkipped, d.Skipped, d.Name)
	}
	for result, n := range c.d.commands.counts() {
		counter(descCommands, n, result)
	}
}

func (d *Daemon) metrics() http.Handler { return control.Metrics(collector{d}) }
