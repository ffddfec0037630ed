package journal

import (
	"errors"
	"fmt"
	"io/fs"

	"holdfast/drivers/disk"
)

// rewrite copies a segment into a new, sealed and synced file of that name,
// leaving out the classes in drop, for which gaps remain, and turning what is
// damaged into gaps; it counts the latter. The source must not change
// meanwhile.
func rewrite(d disk.FS, src *segment, drop Classes, reason Reason, name string) (_ *segment, damaged uint64, err error) {
	if err := d.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, 0, err
	}
	file, err := d.Create(name)
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			file.Close()
		}
	}()
	out := &segment{segHeader: src.segHeader, name: name, file: file}
	out.salt = random64()
	c := copier{out: out, drop: drop, reason: reason, next: src.base, stop: src.next()}
	c.w = frameWriter{salt: out.salt, pos: dataPos}
	k := walk{w: window{r: src.file}, salt: src.salt, size: min(src.size, src.end.Load()), onFrame: c.frame, onDamage: c.damage}
	if err := k.run(dataPos); err != nil {
		return nil, 0, err
	}
	if err := c.finish(); err != nil {
		return nil, 0, err
	}
	return out, c.damaged, nil
}

// A copier builds the new segment of a rewrite.
type copier struct {
	out    *segment
	w      frameWriter
	drop   Classes
	reason Reason
	next   Offset // of the next record to be copied
	stop   Offset // the segment ends before it

	gap     item // not yet written
	damaged uint64
}

// copyBytes is how much a copier collects before it writes.
const copyBytes = 1 << 20

func (c *copier) frame(f frame, body []byte) error {
	if f.kind != frameData {
		return nil
	}
	if f.first > c.next { // cannot be in a sound file
		c.addGap(uint64(f.first-c.next), Damaged, 0)
	}
	off := f.first
	for len(body) > 0 {
		it, rest, err := cutItem(body, f.time)
		if err != nil {
			break // the checksum was right, so this was written by something else: a gap follows
		}
		body = rest
		n := Offset(max(it.gap, 1))
		if off >= c.next && off+n <= c.stop {
			c.item(off, it)
		}
		off += n
	}
	if len(c.w.buf) >= copyBytes {
		return c.write()
	}
	return nil
}

func (c *copier) item(off Offset, it item) {
	switch {
	case it.gap > 0:
		found := c.damaged // what an earlier rewrite found is not news
		c.addGap(it.gap, it.reason, it.classes)
		c.damaged = found
	case c.drop != 0 && c.drop.Has(it.class):
		c.addGap(1, c.reason, ClassSet(it.class))
	default:
		c.putGap()
		c.w.entry(off, it.class, it.time, it.body)
		c.out.stats.add(it.class, it.time, len(it.body))
		c.next = off + 1
	}
}

// addGap counts missing records; neighbours of one reason become one gap.
func (c *copier) addGap(n uint64, r Reason, classes Classes) {
	if r == Damaged {
		c.damaged += n
	}
	if c.gap.gap > 0 && c.gap.reason != r {
		c.putGap()
	}
	if c.gap.gap == 0 {
		c.gap = item{reason: r, classes: classes}
	}
	c.gap.gap += n
	if classes == 0 || c.gap.classes == 0 {
		c.gap.classes = 0
	} else {
		c.gap.classes |= classes
	}
	c.next += Offset(n)
}

func (c *copier) putGap() {
	if c.gap.gap == 0 {
		return
	}
	c.w.gap(c.next-Offset(c.gap.gap), c.gap.gap, c.gap.reason, c.gap.classes)
	if c.gap.classes == 0 {
		c.gap.classes = allClasses
	}
	c.out.gapClasses |= c.gap.classes
	c.gap = item{}
}

func (c *copier) damage(_, _ int64, next Offset) error {
	if next > c.next {
		c.addGap(uint64(min(next, c.stop)-c.next), Damaged, 0)
	}
	return nil
}

// write puts the finished frames into the file and notes them in the index.
func (c *copier) write() error {
	c.w.close()
	for _, f := range c.w.frames {
		c.out.addIndex(f)
	}
	if _, err := c.out.file.WriteAt(c.w.buf, c.w.pos); err != nil {
		return err
	}
	c.w = frameWriter{buf: c.w.buf[:0], frames: c.w.frames[:0], salt: c.w.salt, pos: c.w.pos + int64(len(c.w.buf))}
	c.w.durable = c.w.pos
	return nil
}

// finish seals and syncs the file.
func (c *copier) finish() error {
	if c.next < c.stop {
		c.addGap(uint64(c.stop-c.next), Damaged, 0)
	}
	c.putGap()
	if err := c.write(); err != nil {
		return err
	}
	s := c.out
	s.nextOf.Store(uint64(c.stop))
	s.end.Store(c.w.pos)
	var index []indexEntry
	if p := s.index.Load(); p != nil {
		index = *p
	}
	s.segHeader.size = alignUp(c.w.pos+frameLen+int64(len(index)+1)*indexLen, pageSize)
	s.size = s.segHeader.size
	if err := s.file.Allocate(s.size); err != nil {
		return err
	}
	if _, err := s.file.WriteAt(s.segHeader.append(nil), headerPos); err != nil {
		return err
	}
	if err := writeSeal(s); err != nil {
		return err
	}
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	s.markSealed()
	return nil
}
