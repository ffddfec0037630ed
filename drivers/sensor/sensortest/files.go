package sensortest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/sensor"
)

// A FileChip is a driver of a chip that a kernel driver shows as files, and what
// to test it on. Its fields are as those of [Chip].
type FileChip struct {
	Open            func(ctx context.Context, root fs.FS, timeout time.Duration, c clock.Clock) (sensor.Sensor, error)
	New             func() fstest.MapFS
	Want, Tolerance []float64
	// Beyond returns the files of a chip all of whose channels are outside their
	// range. Nil if it cannot be.
	Beyond func() fstest.MapFS
	// AfterPower returns the files as the first read after an interruption of the
	// supply finds them. Nil if that is the kernel's to notice.
	AfterPower func() fstest.MapFS
	Transfers  int
}

// RunFiles runs the suite.
func RunFiles(t *testing.T, c FileChip) {
	s := &suite{want: c.Want, tolerance: c.Tolerance, transfers: c.Transfers, missing: fs.ErrNotExist}
	s.set = func(t *testing.T) *bench {
		clk := &Clock{}
		w := &fileWire{files: c.New(), rand: rand.New(rand.NewPCG(1, 0xF11E)), cleared: make(chan struct{})}
		return &bench{t: t, suite: s, clock: clk, wire: w, start: func(ctx context.Context, timeout time.Duration) (sensor.Sensor, error) {
			return c.Open(ctx, w, timeout, clk)
		}}
	}
	if c.Beyond != nil {
		s.beyond = func(b *bench) { b.wire.(*fileWire).put(c.Beyond()) }
	}
	if c.AfterPower != nil {
		s.supply = func(b *bench) {
			w := b.wire.(*fileWire)
			w.mu.Lock()
			defer w.mu.Unlock()
			w.once = c.AfterPower()
		}
	}
	s.run(t)
}

// fileWire is a tree of files whose reads can fail. It satisfies fs.FS. An access
// is the opening of a file or directory.
type fileWire struct {
	mu      sync.Mutex
	files   fstest.MapFS
	once    fstest.MapFS // read once in place of files
	rand    *rand.Rand
	n, left int
	done    bool
	all     bool
	kind    string
	every   int
	since   int // accesses since there is noise
	hung    bool
	cleared chan struct{} // closed when what hangs goes on
}

var errFile = errors.New("input/output error")

func (w *fileWire) Open(name string) (fs.File, error) {
	w.mu.Lock()
	w.n++
	for w.hung {
		cleared := w.cleared
		w.mu.Unlock()
		<-cleared
		w.mu.Lock()
	}
	defer w.mu.Unlock()
	if w.left > 0 {
		if w.left--; w.left == 0 {
			w.done = true
			return nil, fmt.Errorf("open %s: %w", name, errFile)
		}
	}
	if w.all {
		return nil, fmt.Errorf("open %s: %w", name, errFile)
	}
	if f := w.once[name]; f != nil {
		delete(w.once, name)
		return fstest.MapFS{name: f}.Open(name)
	}
	f := w.files[name]
	w.since++
	if w.kind == "" || f == nil || w.since%w.every != 0 {
		return w.files.Open(name)
	}
	return fstest.MapFS{name: {Data: w.spoil(f.Data), Mode: f.Mode}}.Open(name)
}

// spoil returns content with noise in it.
func (w *fileWire) spoil(data []byte) []byte {
	data = append([]byte(nil), data...)
	switch {
	case len(data) == 0:
	case w.kind == "flip":
		bit := w.rand.IntN(8 * len(data))
		data[bit/8] ^= 1 << (bit % 8)
	case w.kind == "garbage":
		for i := range data {
			data[i] = byte(w.rand.Uint32())
		}
	case w.kind == "short":
		data = data[:w.rand.IntN(len(data))]
	case w.kind == "long":
		for len(data) < 1<<16 {
			data = append(data, data...)
		}
	}
	return data
}

// put exchanges the files.
func (w *fileWire) put(files fstest.MapFS) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.files = files
}

func (w *fileWire) accesses() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *fileWire) reached() int { return w.accesses() }

func (w *fileWire) failNth(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.left, w.done = n, false
}

func (w *fileWire) failed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.done
}

func (w *fileWire) failAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = true
}

func (w *fileWire) lost() error     { return errFile }
func (w *fileWire) remove()         { w.put(fstest.MapFS{}) }
func (w *fileWire) stick(byte) bool { return false }

func (w *fileWire) noises() []string { return []string{"flip", "garbage", "short", "long"} }

func (w *fileWire) noise(kind string, every int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.kind, w.every, w.since = kind, every, 0
}

func (w *fileWire) hang() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hung = true
}

func (w *fileWire) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hung {
		w.hung = false
		close(w.cleared)
		w.cleared = make(chan struct{})
	}
	w.all, w.kind = false, ""
}
