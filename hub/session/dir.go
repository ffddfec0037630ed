package session

import (
	"fmt"
	"path"

	"holdfast/drivers/disk"
)

// folder returns the folder of that name in fs as a file system of its own,
// and makes it if it is missing.
func folder(fs disk.FS, name string) (disk.FS, error) {
	if err := fs.MkdirAll(name); err != nil {
		return nil, fmt.Errorf("make folder %q: %w", name, err)
	}
	if err := fs.SyncDir("."); err != nil {
		return nil, fmt.Errorf("sync folder: %w", err)
	}
	return &subFolder{fs: fs, name: name}, nil
}

type subFolder struct {
	fs   disk.FS
	name string
}

func (d *subFolder) in(name string) string { return path.Join(d.name, name) }

func (d *subFolder) Create(name string) (disk.File, error) { return d.fs.Create(d.in(name)) }
func (d *subFolder) Open(name string) (disk.File, error)   { return d.fs.Open(d.in(name)) }
func (d *subFolder) Rename(from, to string) error          { return d.fs.Rename(d.in(from), d.in(to)) }
func (d *subFolder) Remove(name string) error              { return d.fs.Remove(d.in(name)) }
func (d *subFolder) List(dir string) ([]string, error)     { return d.fs.List(d.in(dir)) }
func (d *subFolder) MkdirAll(dir string) error             { return d.fs.MkdirAll(d.in(dir)) }
func (d *subFolder) SyncDir(dir string) error              { return d.fs.SyncDir(d.in(dir)) }
func (d *subFolder) Free() (int64, error)                  { return d.fs.Free() }
