package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
)

func TestCursorIsLazyAndFlushIsNot(t *testing.T) {
	d := disktest.New()
	fake := clocktest.New(time.Time{})
	j := open(t, d, Options{Clock: fake, CursorDelay: 5 * time.Second})
	c, err := j.Cursor("c")
	if err != nil || c.Saved() || c.Offset() != 0 || c.Name() != "c" {
		t.Fatalf("%+v, %v", c, err)
	}
	found := func() Offset {
		t.Helper()
		k := open(t, d.Clone(), Options{})
		cur, err := k.Cursor("c")
		if err != nil {
			t.Fatal(err)
		}
		return cur.Offset()
	}
	put(t, j, 0, "a", "b", "c", "d")
	syncs := d.Count(disktest.OpSync)
	if err := c.Save(1, []byte("s")); err != nil || c.Offset() != 1 || string(c.State()) != "s" || !c.Saved() {
		t.Fatal(err)
	}
	fake.Advance(4 * time.Second)
	j.step(false)
	if d.Count(disktest.OpSync) != syncs || found() != 0 {
		t.Error("the cursor was written before its delay")
	}
	fake.Advance(time.Second)
	j.step(false)
	if d.Count(disktest.OpSync) != syncs+1 || found() != 1 {
		t.Errorf("after the delay: %d syncs, at %d", d.Count(disktest.OpSync)-syncs, found())
	}
	c.Save(2, nil)
	syncs = d.Count(disktest.OpSync)
	put(t, j, 0, "e") // carries the cursor
	if d.Count(disktest.OpSync) != syncs+1 || found() != 2 {
		t.Errorf("with an append: %d syncs, at %d", d.Count(disktest.OpSync)-syncs, found())
	}
	c.Save(3, nil)
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	flushed := make(chan error)
	go func() { flushed <- c.Flush(ctx) }()
	<-j.queue.urgent
	j.step(false)
	if err := <-flushed; err != nil || found() != 3 {
		t.Errorf("flushed: %v, at %d", err, found())
	}
	if err := c.Flush(ctx); err != nil {
		t.Error(err)
	}
	c.Save(4, nil)
	j.step(true) // closing is a flush
	if found() != 4 {
		t.Errorf("closed at %d", found())
	}
}

func TestCursorsSurviveRollsAndDelete(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{})
	for i := range 50 {
		c, _ := j.Cursor(fmt.Sprint("c", i))
		if err := c.Save(Offset(i), []byte(strings.Repeat("s", i))); err != nil {
			t.Fatal(err)
		}
	}
	gone, _ := j.Cursor("c7")
	for range 200 {
		put(t, j, 0, filler)
	}
	gone.Delete()
	never, _ := j.Cursor("never saved")
	put(t, j, 0, "x")
	if n := len(j.segments()); n < 3 {
		t.Fatalf("%d segments", n)
	}
	j.Close()
	j = open(t, d, Options{})
	names := j.Cursors()
	if len(names) != 49 || slices.Contains(names, "c7") || slices.Contains(names, never.Name()) {
		t.Errorf("%d cursors: %q", len(names), names)
	}
	for i := range 50 {
		c, _ := j.Cursor(fmt.Sprint("c", i))
		if i != 7 && (c.Offset() != Offset(i) || len(c.State()) != i) {
			t.Errorf("cursor %d at %d with %d bytes", i, c.Offset(), len(c.State()))
		}
	}
}

func TestCursorLimits(t *testing.T) {
	j := open(t, disktest.New(), Options{SegmentBytes: 1 << 20})
	for _, name := range []string{"", strings.Repeat("n", 256)} {
		if _, err := j.Cursor(name); !errors.Is(err, ErrInvalid) {
			t.Errorf("name of %d bytes: %v", len(name), err)
		}
	}
	c, _ := j.Cursor("c")
	if err := c.Save(1, make([]byte, MaxState+1)); !errors.Is(err, ErrTooLarge) || c.Saved() {
		t.Error(err)
	}
	if err := c.Save(1, make([]byte, MaxState)); err != nil {
		t.Error(err)
	}
	e, _ := j.Cursor("e")
	if err := e.Save(1, make([]byte, MaxState)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("all cursors beyond an eighth of a segment: %v", err)
	}
	c.Save(2, nil)
	if err := e.Save(1, make([]byte, MaxState)); err != nil {
		t.Error(err)
	}
	put(t, j, 0, "x")
	c.Delete()
	put(t, j, 0, "y")
	if err := c.Save(9, nil); err != nil { // nobody took the name: it lives again
		t.Error(err)
	}
	c.Delete()
	put(t, j, 0, "z")
	other, _ := j.Cursor("c")
	if err := c.Save(9, nil); !errors.Is(err, ErrClosed) || other.Saved() {
		t.Errorf("a deleted cursor was saved over its successor: %v", err)
	}
}

func TestCursorStaysDirtyWhenTheCommitFails(t *testing.T) {
	d := disktest.New()
	fake := clocktest.New(time.Time{})
	j := open(t, d, Options{Clock: fake})
	put(t, j, 0, "x")
	c, _ := j.Cursor("c")
	c.Save(1, nil)
	d.Fail(disktest.OpSync, 1, 1, syscall.EIO)
	if _, err := tryPut(j, 0, "y"); err == nil {
		t.Fatal("no error")
	}
	fake.Advance(time.Minute)
	j.step(false)
	for seed := range uint64(20) {
		k := open(t, d.CrashClone(seed), Options{})
		if cur, _ := k.Cursor("c"); cur.Offset() != 1 {
			t.Fatalf("seed %d: cursor at %d", seed, cur.Offset())
		}
	}
}
