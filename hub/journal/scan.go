package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"holdfast/drivers/disk"
)

// Scan calls f with every record and gap of a journal from an offset on, in
// their order, as its files have them. It changes nothing and may be used on a
// live journal, whose newest records it may then miss. Damaged bytes are a gap
// with reason Damaged; what lies between two files is one without a reason,
// because only the journal's state knows it. A record's body is valid until f
// returns. Scan ends with f's first error, which it returns.
func Scan(ctx context.Context, d disk.FS, from Offset, f func(Record) error) error {
	names, err := d.List(".")
	if err != nil {
		return err
	}
	var list []*segment
	defer func() {
		for _, s := range list {
			s.file.Close()
		}
	}()
	for _, name := range names {
		if _, suffix, ok := parseName(name); !ok || suffix == spareSuffix {
			continue
		}
		file, err := d.Open(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // recycled while we looked
		} else if err != nil {
			return err
		}
		s, err := readSegment(file, name)
		if err != nil {
			file.Close() // Verify tells what is wrong with it
			continue
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b *segment) int { return int(int64(a.base) - int64(b.base)) })
	sc := scan{next: from, f: f}
	for i, s := range list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if s.sealed.Load() && s.after <= sc.next {
			continue
		}
		limit := Offset(0)
		if i+1 < len(list) {
			limit = list[i+1].base // behind it a group that failed may stand
		}
		if err := sc.segment(s, limit); err != nil {
			return fmt.Errorf("segment %q: %w", s.name, err)
		}
	}
	return nil
}

// scan is one Scan.
type scan struct {
	next Offset // of the next record; 0 before the first, when nothing is missed
	f    func(Record) error
}

// segment scans one file up to the limit, 0 for none.
func (sc *scan) segment(s *segment, limit Offset) error {
	sealed := s.sealed.Load()
	if sealed {
		limit = s.after
	}
	k := walk{w: window{r: s.file}, salt: s.salt, size: s.size}
	if sealed {
		k.size = s.seal.stop
	}
	k.onDamage = func(_, _ int64, next Offset) error { return sc.gap(next, Damaged) }
	k.onFrame = func(f frame, body []byte) error {
		if f.kind != frameData || limit != 0 && f.first >= limit || f.first+Offset(f.count) <= sc.next {
			return nil
		}
		if err := sc.gap(f.first, 0); err != nil {
			return err
		}
		return sc.items(f, body)
	}
	if err := k.run(dataPos); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if sealed {
		return sc.gap(s.after, Damaged) // a sealed file that ends early
	}
	return nil
}

// gap tells that everything before to is missing.
func (sc *scan) gap(to Offset, why Reason) error {
	from := sc.next
	if from == 0 || to <= from {
		return nil
	}
	sc.next = to
	return sc.f(Record{Offset: from, Gap: &Gap{From: from, To: to - 1, Reason: why}})
}

// items tells the records of one frame.
func (sc *scan) items(f frame, body []byte) error {
	at := f.first
	for len(body) > 0 {
		it, rest, err := cutItem(body, f.time)
		if err != nil {
			return err
		}
		body = rest
		off := at
		at += Offset(max(it.gap, 1))
		if at <= sc.next {
			continue
		}
		sc.next = at
		rec := Record{Offset: off, Class: it.class, Time: it.time, Body: it.body}
		if it.gap > 0 {
			rec = Record{Offset: off, Gap: &Gap{From: off, To: at - 1, Reason: it.reason, Classes: it.classes}}
		}
		if err := sc.f(rec); err != nil {
			return err
		}
	}
	return nil
}
