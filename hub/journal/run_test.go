package journal

import (
	"context"
	"errors"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
)

// With a linger, what comes within it is one group and one sync; a full group
// does not wait for it.
func TestLinger(t *testing.T) {
	d := disktest.New()
	fake := clocktest.New(time.Time{})
	done := make(chan Offset, 1000)
	submit := func(j *Journal, size int) {
		t.Helper()
		b := &Batch{Entries: []Entry{{Body: make([]byte, size)}}, Done: func(first Offset, err error) {
			if err != nil {
				t.Error(err)
			}
			done <- first
		}}
		if err := j.Submit(b); err != nil {
			t.Fatal(err)
		}
	}
	j := open(t, d, Options{Clock: fake, Linger: 100 * time.Millisecond})
	put(t, j, 0, "makes the first segment")
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	defer cancel()
	runCtx, stop := context.WithCancel(ctx)
	stopped := make(chan error)
	go func() { stopped <- j.Run(runCtx) }()
	syncs := d.Count(disktest.OpSync)
	lingers := func() {
		t.Helper()
		for { // idle it sleeps for seconds, lingering for 100 ms
			if err := fake.WaitArmed(ctx, 1); err != nil {
				t.Fatal(err)
			}
			if left, ok := fake.Next(); ok && left <= 100*time.Millisecond {
				return
			}
			time.Sleep(time.Millisecond)
		}
	}
	submit(j, 10)
	lingers()
	fake.Advance(99 * time.Millisecond)
	submit(j, 10)
	submit(j, 10)
	select {
	case off := <-done:
		t.Fatalf("record %d did not linger", off)
	case <-time.After(20 * time.Millisecond):
	}
	fake.Advance(time.Millisecond)
	for want := Offset(2); want <= 4; want++ {
		if got := <-done; got != want {
			t.Fatalf("offset %d, want %d", got, want)
		}
	}
	if n := d.Count(disktest.OpSync) - syncs; n != 1 {
		t.Errorf("%d syncs for one group", n)
	}
	submit(j, 10)
	lingers()
	for range 3 {
		submit(j, 8000) // more than a group holds
	}
	for range 4 {
		<-done // without the clock moving
	}
	stop()
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
}

func TestSubmitRefuses(t *testing.T) {
	j := open(t, disktest.New(), Options{QueueBytes: 20_000})
	batch := func(n int) *Batch { return &Batch{Entries: []Entry{{Body: make([]byte, n)}}} }
	if err := j.Submit(batch(minSegmentBytes / 4)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a batch beyond a quarter of a segment: %v", err)
	}
	if err := j.Submit(&Batch{Entries: []Entry{{Class: MaxClass + 1}}}); !errors.Is(err, ErrInvalid) {
		t.Errorf("class 10: %v", err)
	}
	n := 0
	for ; n < 100; n++ {
		if err := j.Submit(batch(4000)); err != nil {
			if !errors.Is(err, ErrFull) {
				t.Fatal(err)
			}
			break
		}
	}
	if n != 4 || j.Stats().Queued == 0 {
		t.Errorf("%d batches of 4,000 bytes in a queue of 20,000", n)
	}
	j.step(false)
	if s := j.Stats(); s.Queued != 0 || s.Groups == 0 || s.Syncs == 0 || s.Segments != 1 || s.Footprint != minSegmentBytes {
		t.Errorf("%+v", s)
	}
	if err := j.Submit(batch(4000)); err != nil {
		t.Error(err)
	}
	var got error
	j.Submit(&Batch{Done: func(_ Offset, err error) { got = err }})
	j.Close()
	if !errors.Is(got, ErrClosed) {
		t.Errorf("a batch that never ran: %v", got)
	}
}

// Whatever fits the queue fits a segment: the largest batch with the most
// cursors that are allowed, in the smallest segment.
func TestLargestEverything(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{GroupBytes: minSegmentBytes / 4})
	for i := 0; ; i++ {
		c, _ := j.Cursor(string(rune('a' + i)))
		if err := c.Save(0, make([]byte, 500)); err != nil {
			break
		}
	}
	largest := minSegmentBytes/4 - 64 - entryBound(0)
	for i := range 12 {
		put(t, j, 0, string(make([]byte, largest)))
		for _, name := range j.Cursors() {
			c, _ := j.Cursor(name)
			if err := c.Save(Offset(i), make([]byte, 500)); err != nil {
				t.Fatal(err)
			}
		}
	}
	j.step(true)
	j.Close()
	j = open(t, d, Options{OnCondition: func(c Condition) { t.Errorf("%+v", c) }})
	if j.Committed() != 12 || len(j.Cursors()) < 10 {
		t.Errorf("committed %d, %d cursors", j.Committed(), len(j.Cursors()))
	}
}

func TestSecondRun(t *testing.T) {
	j := run(t, disktest.New(), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	if _, err := j.Append(ctx, Entry{}); err != nil { // Run has begun
		t.Fatal(err)
	}
	if err := j.Run(ctx); !errors.Is(err, ErrInvalid) {
		t.Errorf("a second Run: %v", err)
	}
}
