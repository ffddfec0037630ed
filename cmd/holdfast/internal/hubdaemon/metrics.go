package hubdaemon

import (
	"fmt"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"holdfast/cmd/internal/control"
	"holdfast/hub/broker"
	"holdfast/hub/forward"
)

// collector turns the hub's counters into metrics when somebody asks.
type collector struct{ d *Daemon }

// Names that begin with edgehub_ are those of Azure IoT Edge and mean the same,
// so that its dashboards and alerts go on working.
var (
	descReceived    = prometheus.NewDesc("edgehub_messages_received_total", "Publications taken from clients.", nil, nil)
	descSize        = prometheus.NewDesc("edgehub_message_size_bytes", "Payload of the publications taken.", nil, nil)
	descSent        = prometheus.NewDesc("edgehub_messages_sent_total", "Messages sent: to clients, or to an upstream, repetitions included.", []string{"to"}, nil)
	descQueue       = prometheus.NewDesc("edgehub_queue_length", "Messages that wait for an endpoint, at most.", []string{"endpoint", "priority"}, nil)
	descDropped     = prometheus.NewDesc("edgehub_messages_dropped_total", "Messages that nobody will get, by reason.", []string{"reason", "to"}, nil)
	descUnacked     = prometheus.NewDesc("edgehub_messages_unack_total", "Batches of publications that could not be stored and were not acknowledged.", []string{"reason"}, nil)
	descClients     = prometheus.NewDesc("edgehub_connected_clients", "Clients that are connected.", nil, nil)
	descConnected   = prometheus.NewDesc("edgehub_client_connect_success_total", "Connections that were let in.", nil, nil)
	descRefused     = prometheus.NewDesc("edgehub_client_connect_failed_total", "Connections that were refused, by MQTT 5 reason code.", []string{"reason"}, nil)
	descRetried     = prometheus.NewDesc("edgehub_operation_retry_total", "Messages sent to an upstream again.", []string{"id", "operation"}, nil)
	descSessions    = prometheus.NewDesc("holdfast_hub_sessions", "Sessions, connected or not.", nil, nil)
	descDenied      = prometheus.NewDesc("holdfast_hub_denied_total", "Publications that no rule allows.", nil, nil)
	descCommitted   = prometheus.NewDesc("holdfast_hub_journal_committed_offset", "Offset of the newest durable record.", nil, nil)
	descFirst       = prometheus.NewDesc("holdfast_hub_journal_first_offset", "Offset of the oldest record kept.", nil, nil)
	descBytes       = prometheus.NewDesc("holdfast_hub_journal_bytes", "Size of the journal on the medium.", nil, nil)
	descUp          = prometheus.NewDesc("holdfast_hub_upstream_up", "Whether the link to an upstream confirms: 1 or 0.", []string{"upstream"}, nil)
	descConfirmed   = prometheus.NewDesc("holdfast_hub_upstream_confirmed_total", "Messages that an upstream has confirmed.", []string{"upstream"}, nil)
	descInFlight    = prometheus.NewDesc("holdfast_hub_upstream_in_flight", "Messages sent to an upstream and not confirmed.", []string{"upstream"}, nil)
	descOldest      = prometheus.NewDesc("holdfast_hub_upstream_oldest_seconds", "Age of the oldest message that waits for an upstream.", []string{"upstream"}, nil)
	descDeadLetters = prometheus.NewDesc("holdfast_hub_dead_letters_total", "Messages that an upstream refused for good.", []string{"upstream"}, nil)
	descCondition   = prometheus.NewDesc("holdfast_hub_condition", "Troubles that last: 1 for each.", []string{"subject", "trouble"}, nil)
)

// Describe sends nothing: the set of series depends on the configuration.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// sink sends figures to a scrape.
type sink chan<- prometheus.Metric

func (s sink) gauge(d *prometheus.Desc, v float64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
}

func (s sink) counter(d *prometheus.Desc, v uint64, labels ...string) {
	s <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
}

// Collect sends the current figures.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s, h, b := sink(out), c.d.hub.Status(), c.d.server.Counters()
	s.counter(descReceived, h.Counters.Received)
	out <- prometheus.MustNewConstSummary(descSize, h.Counters.Received, float64(h.Counters.ReceivedBytes), nil)
	s.counter(descSent, h.Counters.Delivered, "clients")
	s.counter(descDropped, h.Counters.Dropped+b.DroppedSlow.Load(), "slow_client", "clients")
	s.counter(descDropped, h.Counters.Expired, "ttl_expiry", "clients")
	s.counter(descDropped, h.Counters.Lost, "budget", "clients")
	s.counter(descUnacked, h.Counters.Failed, "storage_failure")
	s.gauge(descClients, float64(b.Clients.Load()))
	s.counter(descConnected, h.Counters.Connects)
	refused(s, b)
	s.gauge(descSessions, float64(len(h.Sessions)))
	s.counter(descDenied, b.Rejected[broker.NotAuthorized].Load())
	s.gauge(descCommitted, float64(h.Committed))
	s.gauge(descFirst, float64(h.First))
	s.gauge(descBytes, float64(c.d.journalBytes()))
	for _, u := range c.d.upstreams {
		upstreamFigures(s, u)
	}
	for _, cond := range c.d.conditions(&h) {
		s.gauge(descCondition, 1, cond.Subject, cond.Trouble)
	}
}

func refused(s sink, b *broker.Counters) {
	for code := range b.Refused {
		if n := b.Refused[code].Load(); n > 0 {
			s.counter(descRefused, n, fmt.Sprintf("0x%02x", code))
		}
	}
}

func upstreamFigures(s sink, u *upstream) {
	f := u.forwarder.Stats()
	s.gauge(descUp, control.OneIf(f.Link.Phase == forward.Up), u.name)
	s.counter(descSent, f.Sent, u.name)
	s.counter(descRetried, f.Retried, u.name, "send")
	s.counter(descConfirmed, f.Confirmed, u.name)
	s.gauge(descInFlight, float64(f.InFlight), u.name)
	s.gauge(descOldest, f.Oldest.Seconds(), u.name)
	s.counter(descDropped, f.Expired, "ttl_expiry", u.name)
	s.counter(descDropped, f.Lost, "budget", u.name)
	s.counter(descDeadLetters, f.Rejected, u.name)
	for _, p := range u.priorities {
		s.gauge(descQueue, float64(f.Queued[p]), u.name, fmt.Sprint(p))
	}
}

func (d *Daemon) metrics() http.Handler { return control.Metrics(collector{d}) }
