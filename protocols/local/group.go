package local

import (
	"context"
	"time"

	"holdfast/protocols/point"
)

// A source is what can be read on its own.
type source interface {
	// read reads once and returns a sample for each entry.
	read(ctx context.Context, entries []entry) []point.Sample
}

// An entry is one tag of a source.
type entry struct {
	index   int    // place in the group
	channel string // of a sensor
	use     use    // of a line
	typ     string // of the tag
}

// A job is a source and what a group wants of it. Its fields are used by one
// Read at a time.
type job struct {
	source  source
	entries []entry
	result  chan []point.Sample // has room for one
	busy    bool                // a read is under way
	late    bool                // the last one did not end in time: do not wait for the next
	last    []point.Sample      // of it
}

func newJob(s source, e entry) *job {
	return &job{source: s, entries: []entry{e}, result: make(chan []point.Sample, 1)}
}

type group struct {
	s    *session
	jobs []*job
}

// Read implements [protocols.Group]: all sources at once.
func (g *group) Read(ctx context.Context, out []point.Sample) {
	ctx, done, ok := g.s.begin(ctx)
	if ok {
		defer done()
	}
	why := errClosed
	if ok {
		why = ctx.Err()
	}
	if why != nil { // nothing was asked, so nothing is late
		for i := range out {
			out[i] = failure(why)
		}
		return
	}
	for _, j := range g.jobs {
		g.start(ctx, j)
	}
	for _, j := range g.jobs {
		if j.busy && !j.late {
			j.took(<-j.result) // a source ends when ctx does
		}
		for i, e := range j.entries {
			out[e.index] = j.last[i]
		}
	}
}

// start starts a read of the job unless one is under way still. One that was late
// is only asked whether it is there again: what it answers may be old by the time
// of the next Read, so it is not used.
func (g *group) start(ctx context.Context, j *job) {
	if j.busy {
		select {
		case samples := <-j.result:
			j.took(samples)
		default:
			return
		}
	}
	j.busy = true
	if !j.late {
		go func() { j.result <- j.source.read(ctx, j.entries) }()
		return
	}
	const patience = 5 * time.Second // it is not waited for, so it may take longer than a read
	probe, done, ok := g.s.begin(context.Background())
	if !ok {
		j.busy = false
		return
	}
	probe, cancel := context.WithTimeout(probe, patience)
	go func() {
		defer done()
		defer cancel()
		j.result <- j.source.read(probe, j.entries)
	}()
}

// took takes the result of a read that has ended.
func (j *job) took(samples []point.Sample) {
	j.busy, j.late, j.last = false, false, samples
	for _, s := range samples {
		j.late = j.late || s.Quality == point.BadTimeout
	}
}
