package journal

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/drivers/disk/disktest"
)

// Volatile entries travel in order with the others, through OnCommit and the
// tail cache, and cost no write of their own.
func TestVolatile(t *testing.T) {
	d := disktest.New()
	var groups []string
	j := open(t, d, Options{OnCommit: func(group []*Batch) {
		for _, b := range group {
			for _, e := range b.Entries {
				groups = append(groups, fmt.Sprintf("%d %s", b.First, e.Body))
			}
		}
	}})
	live, plain := j.NewReader(1), j.NewReader(1)
	live.Volatile = true
	send := func(text string) (first Offset) {
		t.Helper()
		b := &Batch{Done: func(f Offset, err error) {
			if first = f; err != nil {
				t.Error(err)
			}
		}}
		for _, w := range strings.Fields(text) {
			b.Entries = append(b.Entries, Entry{Body: []byte(w), Volatile: w[0] == 'v'})
		}
		if err := j.Submit(b); err != nil {
			t.Fatal(err)
		}
		j.step(false)
		return first
	}
	if off := send("a v1 v2 b"); off != 1 {
		t.Errorf("first %d", off)
	}
	syncs := d.Count(disktest.OpSync)
	if off := send("v3"); off != 0 {
		t.Errorf("first %d of a volatile batch", off)
	}
	if d.Count(disktest.OpSync) != syncs {
		t.Error("a volatile batch was synced")
	}
	want := []string{"1 a", "volatile v1", "volatile v2", "2 b", "volatile v3"}
	if got := all(t, live); !slices.Equal(got, want) {
		t.Errorf("read %q", got)
	}
	if got := all(t, plain); !slices.Equal(got, []string{"1 a", "2 b"}) {
		t.Errorf("without volatile: %q", got)
	}
	if off := send("v4 c"); off != 3 {
		t.Errorf("first %d", off)
	}
	send("v5")
	if got := all(t, live); !slices.Equal(got, []string{"volatile v4", "3 c", "volatile v5"}) {
		t.Errorf("read on: %q", got)
	}
	if want := []string{"1 a", "1 v1", "1 v2", "1 b", "0 v3", "3 v4", "3 c", "0 v5"}; !slices.Equal(groups, want) {
		t.Errorf("OnCommit saw %q", groups)
	}
	late := j.NewReader(2)
	late.Volatile = true
	if got := all(t, late); got[0] != "2 b" {
		t.Errorf("a reader from 2 begins with %q", got)
	}
	j.Close()
	j = open(t, d, Options{})
	if got := all(t, j.NewReader(0)); !slices.Equal(got, []string{"1 a", "2 b", "3 c"}) {
		t.Errorf("after a restart: %q", got)
	}
}

// A reader that keeps up reads no file; one that fell behind goes through the
// files and back into the cache, and misses no record on the way.
func TestReaderBetweenCacheAndFiles(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{TailBytes: 64 << 10})
	near, far := j.NewReader(1), j.NewReader(1)
	next := 1
	for i := range 1000 {
		put(t, j, 0, filler)
		if got := all(t, near); len(got) != 1 || !strings.HasPrefix(got[0], fmt.Sprintf("%d f", i+1)) {
			t.Fatalf("near reader: %.50q", got)
		}
		if i%7 == 0 && i > 500 {
			for range 20 {
				rec, err := far.Next()
				if errors.Is(err, ErrEnd) {
					break
				}
				if err != nil || rec.Offset != Offset(next) {
					t.Fatalf("far reader: offset %d, want %d, %v", rec.Offset, next, err)
				}
				next++
			}
			far.Release()
		}
	}
	if n := d.Count(disktest.OpRead); n == 0 || n > 700 {
		t.Errorf("%d reads of files", n)
	}
	for _, got := range all(t, far) {
		if !strings.HasPrefix(got, fmt.Sprintf("%d f", next)) {
			t.Fatalf("far reader: %.20s, want %d", got, next)
		}
		next++
	}
	if next != 1001 {
		t.Errorf("far reader ended at %d", next-1)
	}
}

func TestSeekAndWait(t *testing.T) {
	j := run(t, disktest.New(), Options{})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	r := j.NewReader(1)
	r.Volatile = true
	if _, err := r.Next(); !errors.Is(err, ErrEnd) {
		t.Fatal(err)
	}
	got := make(chan error, 2)
	go func() { got <- r.Wait(ctx) }()
	go func() { got <- j.Wait(ctx, 0) }()
	if _, err := j.Append(ctx, Entry{Body: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-got; err != nil {
			t.Fatal(err)
		}
	}
	if all(t, r)[0] != "1 one" {
		t.Error("wrong record")
	}
	go func() { got <- r.Wait(ctx) }()
	if _, err := j.Append(ctx, Entry{Volatile: true, Body: []byte("v")}); err != nil {
		t.Fatal(err)
	}
	if err := <-got; err != nil {
		t.Fatal(err)
	}
	if all(t, r)[0] != "volatile v" {
		t.Error("wrong volatile record")
	}
	r.Seek(1)
	if all(t, r)[0] != "1 one" {
		t.Error("Seek went elsewhere")
	}
	dead, kill := context.WithCancel(ctx)
	kill()
	if err := r.Wait(dead); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := j.Wait(dead, 5); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// Readers, cursors, retention and the committer at once, on the real file
// system: every reader sees every offset once, in order, as record or gap.
func TestConcurrent(t *testing.T) {
	host, err := disk.OpenHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	j := run(t, host, Options{Clock: clock.NewReal(), MaxBytes: 6 * minSegmentBytes, CursorDelay: time.Millisecond})
	ctx, cancel := context.WithTimeout(t.Context(), testTimeout)
	defer cancel()
	const producers, each = 4, 400
	var wg sync.WaitGroup
	for p := range producers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range each {
				class := uint8(9)
				if i%4 == 0 {
					class = uint8(p)
				}
				body := fmt.Sprintf("%d %d %s", p, i, filler)
				if _, err := j.Append(ctx, Entry{Class: class, Body: []byte(body)}); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	for n := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			readAll(ctx, t, j, n, producers*each)
		}()
	}
	wg.Wait()
}

func readAll(ctx context.Context, t *testing.T, j *Journal, n int, total Offset) {
	c, err := j.Cursor(fmt.Sprint("reader ", n))
	if err != nil {
		t.Error(err)
		return
	}
	rng := rand.New(rand.NewPCG(uint64(n), 1))
	r := j.NewReader(1)
	defer r.Release()
	last := map[int]int{}
	for next := Offset(1); next <= total; {
		rec, err := r.Next()
		if errors.Is(err, ErrEnd) {
			if err := r.Wait(ctx); err != nil {
				t.Error(err)
				return
			}
			continue
		}
		if err != nil || rec.Offset != next {
			t.Errorf("reader %d: offset %d, want %d, %v", n, rec.Offset, next, err)
			return
		}
		next++
		if rec.Gap != nil {
			next = rec.Gap.To + 1
			if rec.Gap.Reason != Budget && rec.Gap.Reason != Consumed {
				t.Errorf("reader %d: %+v", n, *rec.Gap)
			}
		} else {
			var p, i int
			if _, err := fmt.Sscanf(string(rec.Body), "%d %d ", &p, &i); err != nil || i < last[p] {
				t.Errorf("reader %d: %.20q after %d: %v", n, rec.Body, last[p], err)
			}
			last[p] = i
		}
		switch rng.IntN(40) {
		case 0:
			r.Release()
		case 1:
			if err := c.Save(next-1, []byte("x")); err != nil {
				t.Error(err)
			}
		case 2:
			time.Sleep(time.Duration(rng.IntN(3)) * time.Millisecond) // fall behind
		}
	}
	if err := c.Save(total, nil); err != nil {
		t.Error(err)
	}
	if err := c.Flush(ctx); err != nil {
		t.Error(err)
	}
}
