package local

import (
	"context"
	"errors"
	"time"

	"holdfast/drivers/gpio"
)

// errNoEdges: nothing is known of the edges of a line yet.
var errNoEdges = errors.New("not enough edges yet")

const (
	// edgeQueue is how many edges may wait between two reads. Beyond it the oldest
	// are dropped, but counted, so that a frequency stays exact.
	edgeQueue = 256
	// mostMarks bounds what is kept of the past: beyond it the window is shorter.
	mostMarks = 1024
)

// A meter tells the frequency of edges: how many there were between two of them,
// by the time between their stamps. So it is exact for any reader's period.
type meter struct {
	opening uint64        // of the line; another one counts anew
	taken   uint64        // edges accounted for since
	marks   []mark        // edges of the window, at least the last two
	seen    time.Duration // elapsed time when a read found an edge last or, before it, began
	stopped bool          // no edge came for the time-out
}

// A mark is an edge: when, and how many there have been with it.
type mark struct {
	stamp time.Duration
	n     uint64
}

// read takes the edges that have come and returns their frequency in Hz. It fails
// with errNoEdges before the second edge, unless the time-out has passed.
func (m *meter) read(ctx context.Context, e gpio.EdgeInput, opening uint64, now, window, idle time.Duration) (float64, error) {
	if opening != m.opening {
		*m = meter{opening: opening, seen: now}
	}
	c, err := e.Counts()
	if err != nil {
		return 0, err
	}
	for m.taken < c.Total() { // these are there: Next does not wait
		ev, err := e.Next(ctx)
		if err != nil {
			return 0, err
		}
		m.taken += 1 + ev.Lost
		m.marks = append(m.marks, mark{ev.Stamp, m.taken})
		m.seen = now
	}
	m.trim(window)
	if now-m.seen >= idle {
		m.stopped, m.marks = true, m.marks[:0]
	}
	if len(m.marks) < 2 {
		if m.stopped {
			return 0, nil
		}
		return 0, errNoEdges
	}
	m.stopped = false
	first, last := m.marks[0], m.marks[len(m.marks)-1]
	f := float64(last.n-first.n) / (last.stamp - first.stamp).Seconds()
	// The next edge has not come for so long: it is this slow at least.
	if quiet := (now - m.seen).Seconds(); quiet*f > 1 {
		f = 1 / quiet
	}
	return f, nil
}

// trim forgets edges before the window, but not the last two, and none of which
// the clock says that they came together.
func (m *meter) trim(window time.Duration) {
	n := len(m.marks)
	if n < 2 {
		return
	}
	last, keep := m.marks[n-1], 0
	for keep < n-2 && (last.stamp-m.marks[keep].stamp > window || n-keep > mostMarks) && last.stamp > m.marks[keep+1].stamp {
		keep++
	}
	m.marks = append(m.marks[:0], m.marks[keep:]...)
	if m.marks[0].stamp >= last.stamp { // a clock without resolution; nothing can be told
		m.marks = m.marks[len(m.marks)-1:]
	}
}
