package modbus

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// relearn is how long learned borders hold: a device that was being loaded while
// it was asked may offer more afterwards.
const relearn = time.Hour

// Refused blocks are asked again after a pause that doubles.
const (
	refusedMin = 5 * time.Second
	refusedMax = 5 * time.Minute
)

// maxDivisions bounds how many blocks one Read may divide, so that learning does
// not hold up a cycle.
const maxDivisions = 16

// A group is a set of tags with the requests that read them.
type group struct {
	s       *session
	call    *call
	fields  []field
	blocks  []*block
	version int         // of the unit's cuts that the blocks respect
	texts   []textCache // by tag, for strings and bytes

	// Of the Read under way.
	todo      []*block
	reqs      []*request
	divisions int
}

// A textCache keeps the last text of a tag, so that one that does not change is
// not made anew in every cycle.
type textCache struct {
	raw   []byte
	value point.Value
}

// A block is one request with the tags that it reads.
type block struct {
	table Table
	span  span
	items []item // of this block, sorted
	req   *request
	tries int // answered busy, in this Read

	retryAt time.Duration // refused as configured: not asked before
	backoff time.Duration
	quality point.Quality
	detail  string
}

// Group plans the requests for tags.
func (s *session) Group(tags []point.Tag) (protocols.Group, error) {
	g := &group{s: s, call: s.newCall(), fields: make([]field, len(tags)), texts: make([]textCache, len(tags))}
	for i, t := range tags {
		f, err := compile(t, s.set)
		if err != nil {
			return nil, fmt.Errorf("tag %q: %w", t.Name, err)
		}
		g.fields[i] = f
	}
	s.link.mu.Lock()
	defer s.link.mu.Unlock()
	g.version = s.unit.version
	return g, g.plan()
}

// plan makes the blocks for all tags. The link's mutex is held: it guards cuts.
func (g *group) plan() error {
	var items [4][]item
	for i := range g.fields {
		f := &g.fields[i]
		from, to := f.span()
		items[f.addr.Table] = append(items[f.addr.Table], item{tag: i, from: from, to: to})
	}
	g.blocks = g.blocks[:0]
	for t := Coil; t <= Holding; t++ {
		blocks, err := g.planTable(t, items[t])
		if err != nil {
			return err
		}
		g.blocks = append(g.blocks, blocks...)
	}
	return nil
}

func (g *group) planTable(t Table, items []item) ([]*block, error) {
	var blocks []*block
	for _, sp := range planSpans(items, g.s.set.limitsOf(t), g.s.unit.cuts[t]) {
		pdu, err := encodeRead(t, sp.from, sp.to-sp.from)
		if err != nil {
			return nil, fmt.Errorf("%s %d to %d: %w", t, sp.from, sp.to-1, err)
		}
		b := &block{table: t, span: sp, items: items[sp.first:sp.last:sp.last], req: g.s.newRequest()}
		b.req.set(pdu)
		blocks = append(blocks, b)
	}
	return blocks, nil
}

// Read asks for all blocks in turn and fills out.
func (g *group) Read(ctx context.Context, out []point.Sample) {
	end := g.s.begin(ctx, g.call)
	if end == nil {
		g.fill(g.blocks, out, errClosed())
		return
	}
	defer end()
	g.refresh()
	g.divisions = 0
	g.todo = append(g.todo[:0], g.blocks...)
	for next := 0; next < len(g.todo); {
		n := g.window(next, out)
		if n == 0 {
			next++ // refused lately, filled from memory
			continue
		}
		window := g.todo[next : next+n]
		next += n
		if f := g.exchange(window); f != nil {
			g.fill(window, out, f)
			g.fill(g.todo[next:], out, f)
			break
		}
		pause := false
		for _, b := range window {
			pause = g.digest(b, out) || pause
		}
		if pause && clock.Sleep(g.call.ctx, g.s.link.clk, g.s.set.busyPause) != nil {
			g.fill(g.todo[next:], out, ended(g.call.ctx.Err(), "waiting for a busy field device"))
			break
		}
	}
	if g.s.link.set.closeAfterRead {
		g.s.link.closeUnused(g.call)
	}
}

// refresh plans anew when the unit's borders have changed since.
func (g *group) refresh() {
	l, u := g.s.link, g.s.unit
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.learned > 0 && l.clk.Elapsed()-u.learned >= relearn {
		u.cuts, u.learned = [4]cuts{}, 0
		u.version++
	}
	if g.version != u.version {
		g.version = u.version
		_ = g.plan() // cannot fail: the same fields were planned before
	}
}

// window returns how many blocks from next on go out together, after filling
// and skipping (0) one that the device has refused lately.
func (g *group) window(next int, out []point.Sample) int {
	now := g.s.link.clk.Elapsed()
	n, most := 0, max(1, g.s.link.set.pipeline)
	for _, b := range g.todo[next:] {
		if n == most || now < b.retryAt {
			break
		}
		n++
	}
	if n == 0 {
		b := g.todo[next]
		for _, it := range b.items {
			out[it.tag] = point.Sample{Quality: b.quality, Detail: b.detail}
		}
	}
	return n
}

// exchange asks for the blocks in one turn.
func (g *group) exchange(window []*block) *failure {
	l, u := g.s.link, g.s.unit
	g.reqs = g.reqs[:0]
	for _, b := range window {
		b.req.set(b.req.pdu)
		g.reqs = append(g.reqs, b.req)
	}
	if f := l.acquire(g.call, u, &g.s.ask, forRead); f != nil {
		return f
	}
	l.run(g.call, u, g.reqs)
	l.release(g.call)
	return nil
}

// digest uses the outcome of a block. It reports whether the device was busy, in
// which case the block is asked again after the others.
func (g *group) digest(b *block, out []point.Sample) (pause bool) {
	err := b.req.err
	if err == nil {
		b.tries, b.backoff = 0, 0
		g.decode(b, out)
		return false
	}
	switch code := exceptionOf(err); code {
	case 5, 6:
		if b.tries++; b.tries <= g.s.set.busyRetries {
			g.todo = append(g.todo, b)
			return true
		}
		b.tries = 0
	case 2, 3:
		if g.divisions < maxDivisions && g.divide(b) {
			g.divisions++
			return false
		}
		g.refused(b, err)
	case 1:
		g.refused(b, err)
	}
	g.fill([]*block{b}, out, err)
	return false
}

// refused remembers that the device does not know what the block asks for. That
// is a matter of configuration: asking every cycle would only load the link.
func (g *group) refused(b *block, err error) {
	if g.divisions >= maxDivisions && divide(b.items, b.local()) != nil {
		return // to be divided in the next cycle
	}
	b.backoff = min(max(2*b.backoff, refusedMin), refusedMax)
	b.retryAt = g.s.link.clk.Elapsed() + b.backoff
	b.quality, b.detail = explain(err, false)
	b.detail = g.detail(b, b.detail)
}

// local is the block's span over its own items.
func (b *block) local() span {
	return span{first: 0, last: len(b.items), from: b.span.from, to: b.span.to}
}

// divide replaces a block by parts that the device may accept, asks for them
// next, and remembers the borders for all groups of the unit.
func (g *group) divide(b *block) bool {
	borders := divide(b.items, b.local())
	if borders == nil {
		return false
	}
	l, u := g.s.link, g.s.unit
	l.mu.Lock()
	defer l.mu.Unlock()
	if u.cuts[b.table] == nil {
		u.cuts[b.table] = cuts{}
	}
	for _, at := range borders {
		u.cuts[b.table][at] = struct{}{}
	}
	current := g.version == u.version
	u.version++
	u.learned = l.clk.Elapsed()
	parts, err := g.planTable(b.table, b.items)
	if err != nil {
		return false
	}
	if current {
		g.version = u.version
	}
	i := slices.Index(g.blocks, b)
	g.blocks = slices.Replace(g.blocks, i, i+1, parts...)
	g.todo = append(g.todo, parts...)
	l.log.Info("request divided, the field device refused it", "link", l.name, "unit", u.id,
		"request", b.text(), "reason", b.req.err, "parts", len(parts))
	return true
}

// text names the block for people.
func (b *block) text() string {
	if b.span.to == b.span.from+1 {
		return fmt.Sprintf("%s:%d", b.table, b.span.from)
	}
	return fmt.Sprintf("%s:%d to %d", b.table, b.span.from, b.span.to-1)
}

func (g *group) detail(b *block, reason string) string {
	return fmt.Sprintf("unit %d, %s: %s", g.s.set.unit, b.text(), reason)
}

// fill gives all tags of the blocks the quality of an error.
func (g *group) fill(blocks []*block, out []point.Sample, err error) {
	quality, detail := explain(err, false)
	for _, b := range blocks {
		text := detail
		if exceptionOf(err) != 0 {
			text = g.detail(b, detail)
		}
		for _, it := range b.items {
			out[it.tag] = point.Sample{Quality: quality, Detail: text}
		}
	}
}

// decode fills in the values that an answer brought.
func (g *group) decode(b *block, out []point.Sample) {
	data := b.req.answer[2:]
	if b.table.Bits() {
		for _, it := range b.items {
			at := it.from - b.span.from // packed from the least significant bit (AP 6.1)
			out[it.tag] = point.Sample{Value: point.BoolValue(data[at/8]>>(at%8)&1 == 1)}
		}
		return
	}
	for _, it := range b.items {
		f := &g.fields[it.tag]
		raw := data[2*(it.from-b.span.from):]
		if f.typ.kind >= kindString {
			out[it.tag] = point.Sample{Value: g.text(it.tag, f, raw[:2*f.typ.words])}
			continue
		}
		v, err := f.decodeNumber(raw)
		if err != nil {
			out[it.tag] = point.Sample{Quality: point.BadDecodingError, Detail: err.Error()}
			continue
		}
		out[it.tag] = point.Sample{Value: v}
	}
}

// text returns the value of a text, the one from before when it is the same.
func (g *group) text(tag int, f *field, raw []byte) point.Value {
	c := &g.texts[tag]
	if c.raw == nil || !bytes.Equal(c.raw, raw) {
		c.raw = append(c.raw[:0], raw...)
		c.value = f.decodeText(raw)
	}
	return c.value
}
