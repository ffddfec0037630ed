package disktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"syscall"
	"testing"
)

// put writes data at off of a file that it creates if needed.
func put(t *testing.T, d *FS, name string, off int64, data []byte, sync bool) {
	t.Helper()
	f, err := d.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		f, err = d.Create(name)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(data, off); err != nil {
		t.Fatal(err)
	}
	if sync {
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if err := d.SyncDir("."); err != nil {
			t.Fatal(err)
		}
	}
}

func content(t *testing.T, d *FS, name string) []byte {
	t.Helper()
	n := d.live[name]
	if n == nil {
		return nil
	}
	return n.data
}

// What was synced survives every crash; what was not survives in some, is lost
// in some, and is torn or reordered in some; equal seeds agree.
func TestCrashKeepsSyncedAndTearsTheRest(t *testing.T) {
	d := New()
	old := bytes.Repeat([]byte{1}, 8*Sector)
	put(t, d, "f", 0, old, true)
	put(t, d, "f", 100, bytes.Repeat([]byte{2}, 6*Sector), false)
	put(t, d, "f", 2*Sector, bytes.Repeat([]byte{3}, 4*Sector), false)
	var whole, none, torn, reordered int
	for seed := range uint64(400) {
		c := d.CrashClone(seed)
		got := content(t, c, "f")
		if !bytes.Equal(got, content(t, d.CrashClone(seed), "f")) {
			t.Fatalf("seed %d: two clones differ", seed)
		}
		if len(got) != len(old) || !bytes.Equal(got[:100], old[:100]) || !bytes.Equal(got[100+6*Sector:], old[100+6*Sector:]) {
			t.Fatalf("seed %d: bytes beside the writes were harmed", seed)
		}
		switch {
		case bytes.Equal(got, content(t, d, "f")):
			whole++
		case bytes.Equal(got, old):
			none++
		default:
			torn++
		}
		if bytes.IndexByte(got[2*Sector:6*Sector], 3) >= 0 && bytes.IndexByte(got[2*Sector:6*Sector], 2) >= 0 {
			reordered++
		}
	}
	if none == 0 || torn == 0 || reordered == 0 {
		t.Errorf("of 400 crashes: %d whole, %d none, %d torn, %d reordered", whole, none, torn, reordered)
	}
}

func TestCrashForgetsNames(t *testing.T) {
	d := New()
	put(t, d, "old", 0, []byte("old"), true)
	put(t, d, "tmp", 0, []byte("new"), false)
	f, _ := d.Open("tmp")
	f.Sync() // the content is durable, the name is not
	if err := d.Rename("tmp", "old"); err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for seed := range uint64(200) {
		c := d.CrashClone(seed)
		seen[fmt.Sprintf("old=%s tmp=%s", content(t, c, "old"), content(t, c, "tmp"))]++
	}
	for _, want := range []string{"old=old tmp=", "old=old tmp=new", "old=new tmp="} {
		if seen[want] == 0 {
			t.Errorf("never saw %q in %v", want, seen)
		}
	}
	if len(seen) != 3 {
		t.Errorf("impossible states in %v", seen)
	}
	if err := d.SyncDir("."); err != nil {
		t.Fatal(err)
	}
	for seed := range uint64(50) {
		if got := content(t, d.CrashClone(seed), "old"); string(got) != "new" {
			t.Fatalf("seed %d: synced rename lost: %q", seed, got)
		}
	}
}

func TestCutAfter(t *testing.T) {
	d := New()
	put(t, d, "f", 0, []byte("a"), true) // create, write, sync, syncdir
	d.CutAfter(1)
	put(t, d, "f", 1, []byte("b"), false)
	f, err := d.Open("f")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); !errors.Is(err, ErrPowerOff) {
		t.Fatalf("Sync after the cut: %v", err)
	}
	if _, err := d.Open("f"); !errors.Is(err, ErrPowerOff) {
		t.Fatalf("Open after the cut: %v", err)
	}
	sizes := map[int]int{}
	for seed := range uint64(100) {
		sizes[len(content(t, d.CrashClone(seed), "f"))]++
	}
	if sizes[1] == 0 || sizes[2] == 0 || len(sizes) != 2 {
		t.Errorf("sizes after the cut: %v", sizes)
	}
}

// After a failed sync the bytes stay readable, a second sync succeeds, and a
// power cut still loses them.
func TestFailedSyncIsNotRepairedByTheNext(t *testing.T) {
	lost := 0
	for i := range 50 {
		d := New()
		name := fmt.Sprintf("f%d", i)
		put(t, d, name, 0, make([]byte, 4*Sector), true)
		put(t, d, name, 0, bytes.Repeat([]byte{7}, 4*Sector), false)
		d.Fail(OpSync, 1, 1, syscall.EIO)
		f, _ := d.Open(name)
		if err := f.Sync(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
		if err := f.Sync(); err != nil {
			t.Fatal(err)
		}
		if content(t, d, name)[0] != 7 {
			t.Fatal("the page cache forgot")
		}
		if !bytes.Equal(content(t, d.CrashClone(1), name), content(t, d, name)) {
			lost++
		}
	}
	if lost == 0 {
		t.Error("a sync after a failed one made all 50 files durable")
	}
}

func TestFaultsAndCounts(t *testing.T) {
	d := New()
	f, err := d.Create("f")
	if err != nil {
		t.Fatal(err)
	}
	d.Fail(OpWrite, 2, 2, syscall.EIO)
	for i, want := range []error{nil, syscall.EIO, syscall.EIO, nil} {
		if _, err := f.WriteAt([]byte("x"), 0); !errors.Is(err, want) {
			t.Errorf("write %d: %v, want %v", i, err, want)
		}
	}
	d.Fail(OpAny, 1, -1, syscall.EROFS)
	if err := d.Rename("f", "g"); !errors.Is(err, syscall.EROFS) {
		t.Error(err)
	}
	if _, err := f.ReadAt(make([]byte, 1), 0); err != nil {
		t.Errorf("OpAny must leave reads alone: %v", err)
	}
	d.Heal()
	d.SetCapacity(4096)
	if err := f.Allocate(4097); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if err := f.Allocate(4096); err != nil {
		t.Error(err)
	}
	if _, err := f.WriteAt([]byte("x"), 4096); !errors.Is(err, syscall.ENOSPC) {
		t.Error(err)
	}
	if free, _ := d.Free(); free != 0 || d.Used() != 4096 {
		t.Errorf("free %d, used %d", free, d.Used())
	}
	if err := d.Remove("f"); err != nil || d.Used() != 0 {
		t.Errorf("used %d after Remove, %v", d.Used(), err)
	}
	if d.Count(OpWrite) != 5 || d.Count(OpRename) != 1 {
		t.Errorf("counts: %d writes, %d renames", d.Count(OpWrite), d.Count(OpRename))
	}
}
