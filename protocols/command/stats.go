package command

import "sync/atomic"

type counters struct{ done, refused, failed, unknown atomic.Uint64 }

func (c *counters) count(s Status) {
	switch s {
	case Done:
		c.done.Add(1)
	case Refused:
		c.refused.Add(1)
	case Failed:
		c.failed.Add(1)
	case Unknown:
		c.unknown.Add(1)
	}
}

// Stats returns the outcomes so far.
func (h *Handler) Stats() Stats {
	return Stats{
		Done: h.stats.done.Load(), Refused: h.stats.refused.Load(),
		Failed: h.stats.failed.Load(), Unknown: h.stats.unknown.Load(),
	}
}
