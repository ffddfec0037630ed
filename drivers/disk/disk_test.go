package disk_test

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"slices"
	"testing"

	"holdfast/drivers/disk"
	"holdfast/drivers/disk/disktest"
)

var (
	_ disk.Locker = (*disk.Host)(nil)
	_ disk.Locker = (*disktest.FS)(nil)
)

// The real file system and the lying one must agree as long as nothing fails.
func TestConformance(t *testing.T) {
	host, err := disk.OpenHost(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	for _, c := range []struct {
		name string
		fs   disk.FS
	}{{"host", host}, {"fake", disktest.New()}} {
		t.Run(c.name, func(t *testing.T) { conform(t, c.fs) })
	}
}

func conform(t *testing.T, d disk.FS) {
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := func(err, target error) {
		t.Helper()
		if !errors.Is(err, target) {
			t.Fatalf("error %v, want %v", err, target)
		}
	}
	must(d.MkdirAll("a/b"))
	must(d.MkdirAll("a/b"))
	f, err := d.Create("a/one")
	must(err)
	_, err = d.Create("a/one")
	want(err, fs.ErrExist)
	_, err = d.Create("none/one")
	want(err, fs.ErrNotExist)
	_, err = d.Open("a/none")
	want(err, fs.ErrNotExist)
	_, err = d.Open("../escape")
	if err == nil {
		t.Fatal("a name left the root")
	}

	must(f.Allocate(8192))
	size, err := f.Size()
	must(err)
	if size != 8192 {
		t.Fatalf("size %d after Allocate", size)
	}
	must(f.Allocate(4096)) // never shrinks
	_, err = f.WriteAt([]byte("holdfast"), 8188)
	must(err)
	must(f.Sync())
	buf := make([]byte, 12)
	n, err := f.ReadAt(buf, 8184)
	if n != 12 || (err != nil && err != io.EOF) || !bytes.Equal(buf, []byte("\x00\x00\x00\x00holdfast")) {
		t.Fatalf("read %d %q %v", n, buf, err)
	}
	if n, err := f.ReadAt(buf, 8190); n != 6 || err != io.EOF {
		t.Fatalf("read across the end: %d %v", n, err)
	}
	must(f.Truncate(10))
	must(f.Truncate(8200))
	if n, err := f.ReadAt(buf, 8188); n != 12 || !bytes.Equal(buf, make([]byte, 12)) {
		t.Fatalf("bytes came back after Truncate: %d %q %v", n, buf, err)
	}

	g, err := d.Create("a/two")
	must(err)
	must(g.Close())
	must(d.Rename("a/one", "a/two"))
	want(d.Rename("a/one", "a/two"), fs.ErrNotExist)
	must(d.SyncDir("a"))
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		t.Fatalf("an open file must survive its rename: %v", err)
	}
	must(f.Close())
	names, err := d.List("a")
	must(err)
	if !slices.Equal(names, []string{"b", "two"}) {
		t.Fatalf("List = %q", names)
	}
	if err := d.Remove("a"); err == nil {
		t.Fatal("removed a directory that is not empty")
	}
	must(d.Remove("a/two"))
	must(d.Remove("a/b"))
	must(d.Remove("a"))
	want(d.Remove("a"), fs.ErrNotExist)
	if free, err := d.Free(); err != nil || free <= 0 {
		t.Fatalf("Free = %d, %v", free, err)
	}

	l, err := d.(disk.Locker).Lock("lock")
	must(err)
	_, err = d.(disk.Locker).Lock("lock")
	want(err, disk.ErrLocked)
	must(l.Close())
	l, err = d.(disk.Locker).Lock("lock")
	must(err)
	must(l.Close())
}
