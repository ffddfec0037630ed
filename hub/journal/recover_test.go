package journal

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
)

// These are the narrow cases that the sweep found once, or finds too rarely.

// mustSurvive cuts the power now, in many ways, and wants the same records and
// the same cursor each time, and no talk of damage.
func mustSurvive(t *testing.T, clone func(seed uint64) *disktest.FS, records []string, cursor Offset) {
	t.Helper()
	for seed := range uint64(300) {
		var told []Condition
		j := open(t, clone(seed), Options{OnCondition: func(c Condition) { told = append(told, c) }})
		if got := all(t, j.NewReader(0)); !slices.Equal(got, records) {
			t.Fatalf("seed %d: read %.300q", seed, got)
		}
		if c, _ := j.Cursor("c"); c.Offset() != cursor {
			t.Fatalf("seed %d: cursor at %d, want %d", seed, c.Offset(), cursor)
		}
		if len(told) > 0 {
			t.Fatalf("seed %d: %+v", seed, told)
		}
		j.Close()
	}
}

func save(t *testing.T, j *Journal, low Offset) {
	t.Helper()
	c, err := j.Cursor("c")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Save(low, nil); err != nil {
		t.Fatal(err)
	}
	j.cursors.flush = true
	j.step(false)
	if c.synced != c.version {
		t.Fatal("cursor not flushed")
	}
}

// Frames of a torn group that lie behind its first, missing one must never be
// reached by what is appended in its place.
func TestTornFramesAreWiped(t *testing.T) {
	d := disktest.New()
	o := Options{SegmentBytes: 1 << 20, Fill: FillNever}
	j := open(t, d, o)
	put(t, j, 0, "first")
	pos := j.active.end.Load()
	// Two frames, the first of which ends with a page: otherwise the zeroes
	// behind what takes its place would wipe the second one by themselves.
	size := alignUp(pos+frameBody, pageSize) + pageSize - pos - frameLen
	big := strings.Repeat("b", int(size)-5)
	put(t, j, 0, big, "never confirmed")
	if f := j.frames[0]; len(j.frames) != 2 || f.next()%pageSize != 0 {
		t.Fatalf("%d frames, the first ends at %d", len(j.frames), f.next())
	}
	name := j.active.name
	j.Close()
	flip(t, d, name, pos+8) // the cut took the first frame

	j = open(t, d, o)
	if j.Committed() != 1 {
		t.Fatalf("committed %d", j.Committed())
	}
	put(t, j, 0, big) // just as long as the frame that was torn
	j.Close()
	j = open(t, d, o)
	if j.Committed() != 2 {
		got := all(t, j.NewReader(3))
		t.Errorf("committed %d: %.100q came back", j.Committed(), got)
	}
}

// A new segment that could not be named for certain may turn up as the last
// one. The old one must not have gone on meanwhile.
func TestFailedRollEndsTheOldSegment(t *testing.T) {
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart=%v", restart), func(t *testing.T) {
			d := disktest.New()
			fake := clocktest.New(time.Time{})
			j := open(t, d, Options{Clock: fake})
			var want []string
			add := func(n int, body string) {
				t.Helper()
				for range n {
					off := put(t, j, 0, body)
					want = append(want, fmt.Sprintf("%d %s", off, body))
				}
			}
			add(45, filler)
			save(t, j, 3)
			d.Fail(disktest.OpSyncDir, 1, 1, syscall.EIO)
			d.Fail(disktest.OpRemove, 1, 1, syscall.EIO)
			if _, err := tryPut(j, 0, strings.Repeat("r", 14_000)); err == nil {
				t.Fatal("there was room: the test is wrong")
			}
			if off, err := tryPut(j, 0, "small enough for the old segment"); err == nil {
				want = append(want, fmt.Sprintf("%d small enough for the old segment", off))
			}
			mustSurvive(t, d.CrashClone, want, 3)
			if restart {
				j.Close()
				d.Heal()
				d.EachChange(func(clone func(uint64) *disktest.FS) { mustSurvive(t, clone, want, 3) })
				j = open(t, d, Options{Clock: fake})
				d.EachChange(nil)
			}
			fake.Advance(retryAfter)
			add(1, "goes on")
			save(t, j, 5)
			mustSurvive(t, d.CrashClone, want, 5)
		})
	}
}

// A failed segment without records still holds the cursors.
func TestFailedSegmentKeepsCursors(t *testing.T) {
	d := disktest.New()
	fake := clocktest.New(time.Time{})
	j := open(t, d, Options{Clock: fake})
	save(t, j, 0)
	save(t, j, 0) // and now there is something to look after
	d.Fail(disktest.OpSync, 1, 1, syscall.EIO)
	if _, err := tryPut(j, 0, "x"); err == nil {
		t.Fatal("no error")
	}
	d.Fail(disktest.OpCreate, 1, -1, syscall.EIO)
	for range 5 {
		fake.Advance(2 * keepAfter)
		j.step(false)
	}
	if names, _ := d.List("."); !slices.Contains(names, "0000000000000001.seg") {
		t.Fatalf("the only segment is gone: %q", names)
	}
}

// Sealing a failed segment at the next start leaves alone what was synced
// behind its last record.
func TestSealingAFailedSegment(t *testing.T) {
	d := disktest.New()
	fake := clocktest.New(time.Time{})
	o := Options{Clock: fake, KeepConsumed: 1 << 30}
	j := open(t, d, o)
	put(t, j, 0, "one")
	for range 3 { // each a witness for the one before
		save(t, j, 1)
	}
	d.Fail(disktest.OpSync, 1, 1, syscall.EIO)
	if _, err := tryPut(j, 0, "failed"); err == nil {
		t.Fatal("no error")
	}
	fake.Advance(retryAfter)
	put(t, j, 0, "two")
	j.Close()
	want := []string{"1 one", "2 two"}
	d.EachChange(func(clone func(uint64) *disktest.FS) { mustSurvive(t, clone, want, 1) })
	j = open(t, d, o)
	j.Close()
	d.EachChange(nil)
	mustSurvive(t, d.CrashClone, want, 1)
}

// What a crash left half made is finished or cleaned away.
func TestLeftovers(t *testing.T) {
	p := newPatient(t)
	for _, name := range []string{"0000000000000009.seg.tmp", "0000000000000002.rewrite.tmp", "0000000000000003.salvage"} {
		if _, err := p.disk.Create(name); err != nil {
			t.Fatal(err)
		}
	}
	j := open(t, p.disk, Options{})
	if got := all(t, j.NewReader(0)); !slices.Equal(got, p.records) {
		t.Errorf("%d records", len(got))
	}
	names, _ := p.disk.List(".")
	for _, n := range names {
		if !strings.HasSuffix(n, segSuffix) {
			t.Errorf("%s is still there", n)
		}
	}
	j.Close()
	// Salvaged, and cut before the last rename: the copy takes the name.
	if err := p.disk.Rename("0000000000000003.seg", "0000000000000003.salvage"); err != nil {
		t.Fatal(err)
	}
	j = open(t, p.disk, Options{})
	if got := all(t, j.NewReader(0)); !slices.Equal(got, p.records) {
		t.Errorf("%d records after the salvage", len(got))
	}
}

// A cut at any moment of a salvage loses no more than the damage did.
func TestSalvageSurvivesCuts(t *testing.T) {
	p := newPatient(t)
	flip(t, p.disk, "0000000000000005.seg", 20_000)
	cuts := 0
	p.disk.EachChange(func(clone func(uint64) *disktest.FS) {
		cuts++
		for seed := range uint64(10) {
			j := open(t, clone(seed), Options{})
			checkPatient(t, p, all(t, j.NewReader(0)), p.base[4], p.last+1, Damaged, 1)
			if j.Epoch() == p.epoch {
				t.Errorf("cut %d, seed %d: the epoch is the same", cuts, seed)
			}
			if c, _ := j.Cursor("keeper"); c.Offset() != 7 {
				t.Errorf("cut %d, seed %d: cursor at %d", cuts, seed, c.Offset())
			}
			j.Close()
		}
	})
	open(t, p.disk, Options{})
	if cuts < 10 {
		t.Errorf("only %d cuts", cuts)
	}
}

func TestLock(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{})
	if _, err := Open(d, small(Options{})); err == nil {
		t.Error("opened twice")
	}
	j.Close()
	open(t, d, Options{})
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{
		{SegmentBytes: 1000}, {SegmentBytes: minSegmentBytes + 1}, {SegmentBytes: 2 << 30}, {MaxBytes: 1 << 20},
		{GroupBytes: 1 << 30}, {Linger: -1}, {QueueBytes: -1}, {KeepConsumed: -1},
	} {
		if j, err := Open(disktest.New(), o); err == nil {
			j.Close()
			t.Errorf("%+v was accepted", o)
		}
	}
	j, err := Open(disktest.New(), Options{})
	if err != nil {
		t.Fatal(err)
	}
	j.Close()
}

// Another segment size applies to new segments; the old ones are not harmed.
func TestSegmentSizeChanges(t *testing.T) {
	d := disktest.New()
	var want []string
	var epoch uint64
	for i, size := range []int64{minSegmentBytes, 4 * minSegmentBytes, 2 * minSegmentBytes, 2 * minSegmentBytes} {
		for range 2 { // the second time without an append in between
			j := open(t, d, Options{SegmentBytes: size, OnCondition: func(c Condition) { t.Errorf("%+v", c) }})
			if j.Epoch() != epoch && i > 0 {
				t.Errorf("size %d: the epoch has changed", size)
			}
			if got := all(t, j.NewReader(0)); !slices.Equal(got, want) {
				t.Fatalf("size %d: %d records, want %d", size, len(got), len(want))
			}
			j.Close()
		}
		j := open(t, d, Options{SegmentBytes: size})
		for range 100 {
			want = append(want, fmt.Sprintf("%d %s", put(t, j, 0, filler), filler))
		}
		epoch = j.Epoch()
		j.Close()
	}
}
