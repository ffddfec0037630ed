// Package sysfile reads the files in which a kernel driver tells what it
// measures. Such a file may take its time, or hang with the bus behind it, and a
// read cannot be cancelled: a reader that hangs is left behind, holds one
// goroutine, and makes all others fail at once until it returns.
package sysfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"holdfast/drivers/internal/lane"
	"holdfast/drivers/sensor"
)

// Most is how long a file may be: a page of memory is what sysfs gives.
const Most = 4096

// A Dir is a directory of such files. It may be used from many goroutines; reads
// are made one at a time.
type Dir struct {
	fsys fs.FS
	lane lane.Lane
}

// New returns a reader of a file system.
func New(fsys fs.FS) *Dir { return &Dir{fsys: fsys} }

// Read returns the content of a file without the space around it. It returns
// when ctx ends. Errors that wrap fs.ErrNotExist mean that the device is gone.
func (d *Dir) Read(ctx context.Context, name string) (string, error) {
	var text string
	err := d.do(ctx, func() error {
		f, err := d.fsys.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, Most+1))
		if len(b) > Most {
			return fmt.Errorf("read %s: longer than %d bytes", name, Most)
		}
		text = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		return "", err
	}
	return text, nil
}

// List returns the names in a directory, sorted.
func (d *Dir) List(ctx context.Context, dir string) ([]string, error) {
	var names []string
	err := d.do(ctx, func() error {
		entries, err := fs.ReadDir(d.fsys, path.Clean(dir))
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	return names, nil
}

func (d *Dir) do(ctx context.Context, f func() error) error {
	done, err := d.lane.Do(ctx, f)
	if !done && errors.Is(err, lane.ErrStuck) {
		return fmt.Errorf("%w: %w", sensor.ErrStuck, err)
	}
	return err
}
