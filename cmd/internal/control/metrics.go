package control

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics returns a handler that answers with Prometheus text: what c collects,
// and the process's own figures.
func Metrics(c prometheus.Collector) http.Handler {
	r := prometheus.NewRegistry()
	r.MustRegister(c, collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collectors.NewGoCollector())
	return promhttp.HandlerFor(r, promhttp.HandlerOpts{MaxRequestsInFlight: 4, EnableOpenMetrics: true})
}

// OneIf returns 1 for true and 0 for false, as metrics have it.
func OneIf(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
