package journal

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk"
	"holdfast/drivers/disk/disktest"
)

const testTimeout = 30 * time.Second

// small is the smallest journal there can be, on a clock that stands still.
func small(o Options) Options {
	if o.SegmentBytes == 0 {
		o.SegmentBytes = minSegmentBytes
	}
	if o.TailBytes == 0 {
		o.TailBytes = 16 << 10 // or the tests would never read a file
	}
	if o.Clock == nil {
		o.Clock = clocktest.New(time.Time{})
	}
	return o
}

// open opens a journal that the test steps by hand.
func open(t *testing.T, d disk.FS, o Options) *Journal {
	t.Helper()
	j, err := Open(d, small(o))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { j.Close() })
	return j
}

// run opens a journal and lets its committer run until the test ends.
func run(t *testing.T, d disk.FS, o Options) *Journal {
	t.Helper()
	j := open(t, d, o)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- j.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return j
}

// put appends entries of one class in one batch and steps the committer.
func put(t *testing.T, j *Journal, class uint8, bodies ...string) Offset {
	t.Helper()
	first, err := tryPut(j, class, bodies...)
	if err != nil {
		t.Fatal(err)
	}
	return first
}

func tryPut(j *Journal, class uint8, bodies ...string) (first Offset, err error) {
	b := &Batch{}
	for i, body := range bodies {
		b.Entries = append(b.Entries, Entry{Class: class, Time: int64(1000 + i), Body: []byte(body)})
	}
	called := 0
	b.Done = func(f Offset, e error) { first, err, called = f, e, called+1 }
	if err := j.Submit(b); err != nil {
		return 0, err
	}
	j.step(false)
	if called != 1 {
		return 0, fmt.Errorf("Done was called %d times", called)
	}
	return first, err
}

// all reads to the end and returns what came, as short text.
func all(t *testing.T, r *Reader) (got []string) {
	t.Helper()
	for {
		rec, err := r.Next()
		if errors.Is(err, ErrEnd) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case rec.Gap != nil:
			got = append(got, fmt.Sprintf("gap %d-%d %v", rec.Gap.From, rec.Gap.To, rec.Gap.Reason))
		case rec.Offset == 0:
			got = append(got, fmt.Sprintf("volatile %s", rec.Body))
		default:
			got = append(got, fmt.Sprintf("%d %s", rec.Offset, rec.Body))
		}
	}
}

func TestAppendReadReopen(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{})
	want := []string{}
	for i := range 5000 {
		body := fmt.Sprintf("record %d", i+1)
		if off := put(t, j, uint8(i%10), body); off != Offset(i+1) {
			t.Fatalf("offset %d, want %d", off, i+1)
		}
		want = append(want, fmt.Sprintf("%d %s", i+1, body))
	}
	check := func(j *Journal) {
		t.Helper()
		if got := fmt.Sprint(all(t, j.NewReader(0))); got != fmt.Sprint(want) {
			t.Fatalf("read %.200s...", got)
		}
		if len(j.segments()) < 3 {
			t.Fatalf("only %d segments: the test is too small", len(j.segments()))
		}
		for _, from := range []Offset{1, 2, 777, 4999, 5000} {
			rec, err := j.NewReader(from).Next()
			if err != nil || rec.Offset != from || rec.Class != uint8((from-1)%10) || rec.Time != 1000 {
				t.Fatalf("from %d: %+v, %v", from, rec, err)
			}
			if rec, err = j.ReadAt(from); err != nil || string(rec.Body) != fmt.Sprintf("record %d", from) {
				t.Fatalf("at %d: %+v, %v", from, rec, err)
			}
		}
		if _, err := j.ReadAt(5001); !errors.Is(err, ErrNotFound) {
			t.Fatal(err)
		}
		r := j.NewReader(1)
		r.Classes = ClassSet(3)
		if got := all(t, r); len(got) != 500 || got[0] != "4 record 4" {
			t.Fatalf("class 3: %d records, first %s", len(got), got[0])
		}
		if j.Committed() != 5000 || j.First() != 1 {
			t.Fatalf("committed %d, first %d", j.Committed(), j.First())
		}
	}
	check(j)
	epoch := j.Epoch()
	j.Close()
	j = open(t, d, Options{})
	if j.Epoch() != epoch {
		t.Error("epoch changed over a sound reopen")
	}
	check(j)
	if off := put(t, j, 0, "more"); off != 5001 {
		t.Errorf("offset %d after reopen", off)
	}
}

func TestRunAppendsAndCloses(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	runCtx, stop := context.WithCancel(ctx)
	done := make(chan error)
	go func() { done <- j.Run(runCtx) }()
	for i := range 100 {
		first, err := j.Append(ctx, Entry{Body: []byte("a")}, Entry{Body: []byte("b")})
		if err != nil || first != Offset(2*i+1) {
			t.Fatalf("append %d: %d, %v", i, first, err)
		}
	}
	if err := j.Wait(ctx, 199); err != nil {
		t.Fatal(err)
	}
	pending := make(chan error, 1)
	if err := j.Submit(&Batch{Entries: []Entry{{Body: []byte("last")}}, Done: func(_ Offset, err error) { pending <- err }}); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if err := <-pending; err != nil {
		t.Errorf("the last commit: %v", err)
	}
	if err := j.Submit(&Batch{}); !errors.Is(err, ErrClosed) {
		t.Errorf("Submit after Run: %v", err)
	}
}
