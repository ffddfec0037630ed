package journal

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
)

var filler = strings.Repeat("f", 900)

// Over the budget the highest class goes first, oldest first; the others stay,
// and gaps say what is gone.
func TestBudgetDropsLowestPriorityFirst(t *testing.T) {
	for _, keeper := range []bool{false, true} {
		t.Run(fmt.Sprintf("keeper=%v", keeper), func(t *testing.T) {
			d := disktest.New()
			fake := clocktest.New(time.Time{})
			var told []Condition
			o := Options{MaxBytes: 6 * minSegmentBytes, Clock: fake, OnCondition: func(c Condition) { told = append(told, c) }}
			j := open(t, d, o)
			if keeper { // as Run does it, but in step
				j.jobs = make(chan *job, 1)
			}
			important := 0
			for i := range 1000 {
				class := uint8(9)
				if i%20 == 0 {
					class, important = 1, important+1
				}
				put(t, j, class, filler)
				if keeper {
					fake.Advance(keepAfter)
					j.step(false)
					select {
					case jb := <-j.jobs:
						jb.run(j)
						j.results <- jb
					default:
					}
				}
				if got := j.footprint(); got > o.MaxBytes {
					t.Fatalf("record %d: %d bytes held, budget %d", i, got, o.MaxBytes)
				}
			}
			check := func(j *Journal) {
				t.Helper()
				r := j.NewReader(0)
				next, kept, low, gaps := Offset(1), 0, 0, 0
				for {
					rec, err := r.Next()
					if err != nil {
						break
					}
					if rec.Offset != next {
						t.Fatalf("offset %d, want %d", rec.Offset, next)
					}
					next++
					switch {
					case rec.Gap != nil:
						next = rec.Gap.To + 1
						gaps++
						if rec.Gap.Reason != Budget || rec.Gap.Classes != ClassSet(9) {
							t.Fatalf("gap %+v", *rec.Gap)
						}
						for off := rec.Gap.From; off <= rec.Gap.To; off++ {
							if off%20 == 1 {
								t.Fatalf("record %d of class 1 is in %+v", off, *rec.Gap)
							}
						}
					case rec.Class == 1:
						kept++
					default:
						low++
					}
				}
				if next != 1001 || kept != important || gaps == 0 || low == 0 {
					t.Errorf("read up to %d: %d of %d important, %d others, %d gaps", next-1, kept, important, low, gaps)
				}
			}
			check(j)
			if len(told) == 0 || told[0].Trouble != OverBudget || !told[0].On {
				t.Errorf("conditions %+v", told)
			}
			r := j.NewReader(0) // gaps that cannot hold a wanted class are not told
			r.Classes = ClassSet(1)
			if got := all(t, r); len(got) != important {
				t.Errorf("filtered: %d records, want %d", len(got), important)
			}
			j.jobs = nil
			j.Close()
			infos, err := Verify(context.Background(), d)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range infos {
				if s.Damage != nil {
					t.Errorf("%s: %q", s.Name, s.Damage)
				}
			}
			told = nil
			check(open(t, d, o))
			if len(told) > 0 {
				t.Errorf("conditions at reopen: %+v", told)
			}
		})
	}
}

// When only one class is left, whole segments go, oldest first.
func TestBudgetDropsOldest(t *testing.T) {
	d := disktest.New()
	o := Options{MaxBytes: 4 * minSegmentBytes}
	j := open(t, d, o)
	for range 600 {
		put(t, j, 0, filler)
	}
	got := all(t, j.NewReader(0))
	var from, to Offset
	if _, err := fmt.Sscanf(got[0], "gap %d-%d budget", &from, &to); err != nil || from != 1 || int(to)+len(got)-1 != 600 {
		t.Fatalf("first %s, then %d records", got[0], len(got)-1)
	}
	if n := d.Count(disktest.OpCreate); n > 5 {
		t.Errorf("%d files were created: segments are not recycled", n)
	}
}

func TestConsumedSegmentsAreReclaimed(t *testing.T) {
	for _, c := range []struct {
		keep int64
		want int // segments left
	}{{0, 1}, {2 * minSegmentBytes, 3}} {
		d := disktest.New()
		fake := clocktest.New(time.Time{})
		j := open(t, d, Options{Clock: fake, KeepConsumed: c.keep})
		fast, _ := j.Cursor("fast")
		slow, _ := j.Cursor("slow")
		slow.Save(100, nil)
		for range 400 {
			put(t, j, 0, filler)
		}
		before := len(j.segments())
		step := func() {
			fake.Advance(2 * keepAfter)
			j.step(false)
			fake.Advance(2 * keepAfter)
			j.step(false)
		}
		fast.Save(400, nil)
		step()
		if off := j.First(); off > 101 {
			t.Fatalf("first is %d although a cursor is at 100", off)
		}
		slow.Save(400, nil)
		step()
		if got := len(j.segments()); got != c.want {
			t.Errorf("keep %d: %d of %d segments left, want %d", c.keep, got, before, c.want)
		}
		got := all(t, j.NewReader(1))
		if want := fmt.Sprintf("gap 1-%d consumed", j.First()-1); got[0] != want {
			t.Errorf("first %s, want %s", got[0], want)
		}
		j.Close()
		j = open(t, d, Options{})
		if got := all(t, j.NewReader(1)); got[0] != fmt.Sprintf("gap 1-%d consumed", j.First()-1) {
			t.Errorf("after reopen: first %s", got[0])
		}
	}
}

func TestAge(t *testing.T) {
	d := disktest.New()
	fake := clocktest.New(time.Time{})
	j := open(t, d, Options{Clock: fake, MaxAge: 24 * time.Hour})
	for range 300 {
		b := &Batch{Entries: []Entry{{Time: fake.Now().UnixMicro(), Body: []byte(filler)}}}
		if err := j.Submit(b); err != nil {
			t.Fatal(err)
		}
		j.step(false)
	}
	before := len(j.segments())
	age := func() int {
		fake.Advance(2 * keepAfter)
		j.step(false)
		return len(j.segments())
	}
	fake.Jump(365 * 24 * time.Hour)
	fake.SetQuality(clock.Stepped)
	if age() != before {
		t.Error("a clock that has jumped made records old")
	}
	fake.Jump(-365 * 24 * time.Hour)
	fake.SetQuality(clock.Synced)
	if age() != before {
		t.Error("young records were dropped")
	}
	fake.Advance(25 * time.Hour)
	if got := age(); got != 1 {
		t.Errorf("%d segments are left of %d", got, before)
	}
	if got := all(t, j.NewReader(1)); !strings.HasSuffix(got[0], "aged") {
		t.Errorf("first %s", got[0])
	}
}

// A full disk refuses, tells, still takes cursors, and recovers by itself when
// the cursors have freed something, or space returns.
func TestFullDisk(t *testing.T) {
	for _, way := range []string{"cursor moves", "space returns"} {
		t.Run(way, func(t *testing.T) {
			d := disktest.New()
			fake := clocktest.New(time.Time{})
			var told []Condition
			j := open(t, d, Options{Clock: fake, KeepConsumed: 1 << 30, OnCondition: func(c Condition) { told = append(told, c) }})
			c, _ := j.Cursor("reader")
			c.Save(0, nil)
			put(t, j, 0, filler)
			d.SetCapacity(4 * minSegmentBytes)
			n := 1
			var err error
			for ; err == nil && n < 1000; n++ {
				_, err = tryPut(j, 0, filler)
			}
			if err == nil || !strings.Contains(err.Error(), ErrNoSpace.Error()) || !strings.Contains(err.Error(), syscall.ENOSPC.Error()) {
				t.Fatalf("after %d records: %v", n, err)
			}
			if len(told) != 1 || told[0].Trouble != DiskFull || !told[0].On {
				t.Fatalf("conditions %+v", told)
			}
			last := j.Committed()
			fake.Advance(retryAfter)
			if _, err := tryPut(j, 0, filler); err == nil || j.Committed() != last {
				t.Fatalf("appended to a full disk: %v", err)
			}
			if way == "cursor moves" {
				c.Save(last, []byte("done"))
				fake.Advance(time.Hour)
				j.step(false)
			} else {
				d.SetCapacity(0)
			}
			fake.Advance(2 * retryAfter)
			j.step(false)
			if len(told) != 2 || told[1].On {
				t.Fatalf("conditions %+v", told)
			}
			if off := put(t, j, 0, "again"); off != last+1 {
				t.Errorf("offset %d after %d", off, last)
			}
		})
	}
}

// After a failed write or sync the segment is never written again, nothing of
// the group is confirmed, and the journal goes on in a new segment.
func TestMediumError(t *testing.T) {
	for _, op := range []disktest.Op{disktest.OpWrite, disktest.OpSync} {
		t.Run(string(op), func(t *testing.T) {
			d := disktest.New()
			fake := clocktest.New(time.Time{})
			var told []Condition
			j := open(t, d, Options{Clock: fake, OnCondition: func(c Condition) { told = append(told, c) }})
			put(t, j, 0, "one")
			failed := j.active
			d.Fail(op, 1, 1, syscall.EIO)
			if _, err := tryPut(j, 0, "two"); err == nil || !strings.Contains(err.Error(), ErrFailed.Error()) {
				t.Fatal(err)
			}
			if j.Committed() != 1 || len(told) != 1 || told[0].Trouble != MediumFailed {
				t.Fatalf("committed %d, conditions %+v", j.Committed(), told)
			}
			if _, err := tryPut(j, 0, "too early"); err == nil {
				t.Fatal("no pause after a failure")
			}
			fake.Advance(retryAfter)
			if off := put(t, j, 0, "three"); off != 2 {
				t.Errorf("offset %d, want 2: nothing failed may keep a number", off)
			}
			if j.active == failed || len(told) != 2 || told[1].On {
				t.Errorf("same segment %v, conditions %+v", j.active == failed, told)
			}
			want := []string{"1 one", "2 three"}
			if got := all(t, j.NewReader(0)); !slices.Equal(got, want) {
				t.Errorf("read %q", got)
			}
			var scanned []string
			err := Scan(t.Context(), d, 1, func(r Record) error {
				scanned = append(scanned, fmt.Sprintf("%d %s", r.Offset, r.Body))
				return nil
			})
			if err != nil || !slices.Equal(scanned, want) {
				t.Errorf("scanned %q, %v", scanned, err)
			}
			for seed := range uint64(20) {
				k := open(t, d.CrashClone(seed), Options{})
				if got := all(t, k.NewReader(0)); !slices.Equal(got, want) {
					t.Errorf("seed %d: read %q after a cut", seed, got)
				}
			}
		})
	}
}

func TestLostRanges(t *testing.T) {
	var l lostRanges
	add := func(from, to Offset, r Reason) { l = l.add(Gap{From: from, To: to, Reason: r, Classes: 1}) }
	want := func(text string) {
		t.Helper()
		var parts []string
		for _, g := range l {
			parts = append(parts, fmt.Sprintf("%d-%d %v", g.From, g.To, g.Reason))
		}
		if got := strings.Join(parts, ", "); got != text {
			t.Errorf("got %s, want %s", got, text)
		}
	}
	add(11, 20, Budget)
	add(1, 5, Budget)
	want("1-5 budget, 11-20 budget")
	add(6, 10, Budget)
	want("1-20 budget")
	add(15, 40, Aged) // the first word counts
	want("1-20 budget, 21-40 aged")
	add(1, 60, Missing)
	want("1-20 budget, 21-40 aged, 41-60 missing")
	add(70, 80, Budget)
	l = l.forget(45)
	want("1-40 consumed, 41-60 missing, 70-80 budget")
	if g := l.at(30, 50); g.From != 30 || g.To != 40 || g.Reason != Consumed {
		t.Errorf("%+v", g)
	}
	if g := l.at(61, 75); g.To != 69 || g.Reason != Missing {
		t.Errorf("%+v", g)
	}
	l = nil
	for i := range Offset(3 * maxLost) {
		add(1+3*i, 2+3*i, Budget)
	}
	if len(l) != maxLost || l[0].From != 1 || l[len(l)-1].To != 2+3*(3*maxLost-1) {
		t.Errorf("%d ranges, first %+v", len(l), l[0])
	}
}
