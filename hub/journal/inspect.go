package journal

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"

	"holdfast/drivers/disk"
)

// The states of a segment file.
const (
	StateOpen        = "open"        // not sealed: appended to, or left so by a crash
	StateSealed      = "sealed"      // full and summed up
	StateSpare       = "spare"       // holds nothing; will be used again
	StateQuarantined = "quarantined" // set aside because it was damaged
	StateUnreadable  = "unreadable"  // no valid header
)

// A SegmentInfo sums up one file of a journal.
type SegmentInfo struct {
	Name      string
	State     string // one of the State constants
	Epoch     uint64
	Bytes     int64  // size of the file
	Used      int64  // bytes up to the end of the records
	First     Offset // of the first record or gap; 0 when there is none
	Last      Offset
	FirstTime int64                // least time of a record, microseconds since 1970
	LastTime  int64                // greatest
	Records   [MaxClass + 1]uint64 // by class
	Gaps      uint64               // offsets inside that are known to be missing
	Damage    []string             // what is wrong; empty when nothing was found
}

// Inspect sums up every file of a journal from its header and seal; only
// segments without a seal are read whole. It changes nothing and may be used on
// a live journal, whose newest records it may then miss.
func Inspect(d disk.FS) ([]SegmentInfo, error) {
	return inspect(context.Background(), d, false)
}

// Verify is Inspect with every segment read and every checksum checked.
func Verify(ctx context.Context, d disk.FS) ([]SegmentInfo, error) {
	return inspect(ctx, d, true)
}

func inspect(ctx context.Context, d disk.FS, whole bool) ([]SegmentInfo, error) {
	names, err := d.List(".")
	if err != nil {
		return nil, err
	}
	var out []SegmentInfo
	for _, name := range names {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if _, suffix, ok := parseName(name); ok {
			info, err := inspectFile(d, name, suffix, whole)
			if errors.Is(err, fs.ErrNotExist) {
				continue // recycled while we looked
			}
			if err != nil {
				return nil, err
			}
			out = append(out, info)
		}
	}
	held, err := d.List(quarantineDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, name := range held {
		info := SegmentInfo{Name: path.Join(quarantineDir, name), State: StateQuarantined}
		if f, err := d.Open(info.Name); err == nil {
			info.Bytes, _ = f.Size()
			f.Close()
		}
		out = append(out, info)
	}
	return out, nil
}

func inspectFile(d disk.FS, name, suffix string, whole bool) (SegmentInfo, error) {
	info := SegmentInfo{Name: name}
	f, err := d.Open(name)
	if err != nil {
		return info, err
	}
	defer f.Close()
	if info.Bytes, err = f.Size(); err != nil {
		return info, err
	}
	if suffix == spareSuffix {
		info.State = StateSpare
		return info, nil
	}
	id, _, _ := parseName(name)
	s, err := readSegment(f, segName(id))
	if err != nil {
		info.State, info.Damage = StateUnreadable, []string{err.Error()}
		return info, nil
	}
	info.Epoch = s.epoch
	info.State = StateOpen
	if s.sealed.Load() {
		info.State = StateSealed
		if !whole {
			info.sum(s, s.after, s.seal.stop, &s.stats)
			info.Gaps = uint64(s.after-s.base) - s.records()
			return info, nil
		}
	}
	err = info.walk(s)
	// A file that was recycled while it was read has another salt now.
	if again, aerr := readSegment(f, name); aerr == nil && again.salt != s.salt {
		return info, fs.ErrNotExist
	}
	return info, err
}

func (i *SegmentInfo) sum(s *segment, next Offset, used int64, st *stats) {
	i.Used, i.Records = used, st.count
	if next > s.base {
		i.First, i.Last = s.base, next-1
	}
	if st.records() > 0 {
		i.FirstTime, i.LastTime = st.firstTime, st.lastTime
	}
}

// walk reads the whole segment.
func (i *SegmentInfo) walk(s *segment) error {
	var st stats
	next := s.base
	k := walk{w: window{r: s.file}, salt: s.salt, size: s.size}
	sealed := s.sealed.Load()
	if sealed {
		k.size = s.seal.stop
	}
	k.onFrame = func(f frame, body []byte) error {
		if f.kind != frameData || sealed && f.first >= s.after {
			return nil
		}
		if f.first != next {
			i.Damage = append(i.Damage, fmt.Sprintf("offset %d at byte %d where %d was expected", f.first, f.pos, next))
		}
		next = f.first + Offset(f.count)
		records := st.records()
		addStats(&st, f, body)
		i.Gaps += uint64(f.count) - (st.records() - records)
		return nil
	}
	k.onDamage = func(from, to int64, after Offset) error {
		i.Damage = append(i.Damage, fmt.Sprintf("bytes %d to %d do not validate: records %d to %d", from, to-1, next, after-1))
		next = max(next, after)
		return nil
	}
	if err := k.run(dataPos); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if sealed {
		if k.end != s.seal.stop || next != s.after {
			i.Damage = append(i.Damage, fmt.Sprintf("bytes %d to %d do not validate: records %d to %d", k.end, s.seal.stop-1, next, s.after-1))
		}
		i.checkIndex(s)
		next = s.after
	}
	if k.w.unreadable > 0 {
		i.Damage = append(i.Damage, fmt.Sprintf("%d pages cannot be read", k.w.unreadable))
	}
	i.sum(s, next, k.end, &st)
	return nil
}

func (i *SegmentInfo) checkIndex(s *segment) {
	k := walk{w: window{r: s.file}, salt: s.salt, size: s.size}
	k.w.size = s.size
	if f, _, err := k.frame(s.indexPos); err != nil || f.kind != frameIndex {
		i.Damage = append(i.Damage, "the index does not validate")
	}
}
