package poll

import (
	"time"

	"holdfast/protocols/point"
)

// told accounts for what the reducer of a tag has appended to out, for each of
// which it appends the id, and which no longer counts as held back.
func (d *deviceTable) told(st *tagState, out []point.Reading, ids []uint32, elapsed time.Duration) ([]point.Reading, []uint32) {
	n := len(out) - len(ids)
	if n == 0 {
		return out, ids
	}
	for range n {
		ids = append(ids, st.id)
	}
	st.published += uint64(n)
	st.publishedAt = elapsed
	d.held -= uint64(n)
	return out, ids
}

// flush appends the readings that reducers hold for the line to be drawn, of all
// tags: nothing will continue them.
func (d *deviceTable) flush(elapsed time.Duration) (out []point.Reading, ids []uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, st := range d.tags {
		out, ids = d.flushTag(st, out, ids, elapsed)
	}
	d.published += uint64(len(out))
	return out, ids
}

func (d *deviceTable) flushTag(st *tagState, out []point.Reading, ids []uint32, elapsed time.Duration) ([]point.Reading, []uint32) {
	if st.reduce == nil {
		return out, ids
	}
	return d.told(st, st.reduce.Flush(out), ids, elapsed)
}
