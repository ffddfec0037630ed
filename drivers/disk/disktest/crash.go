package disktest

import (
	"math/rand/v2"
	"slices"
)

// CutAfter plans a power cut: n more calls that can change the medium succeed,
// and from the next one on every call fails with ErrPowerOff. CrashClone then
// starts from the moment of the cut.
func (f *FS) CutAfter(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.cutAfter = n
}

// EachChange has do called before every call that can change the medium, while
// nothing else can get in between. clone is CrashClone at that moment; do must
// not call anything else of f.
func (f *FS) EachChange(do func(clone func(seed uint64) *FS)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.each = do
}

// CrashClone returns a file system as it could be found after a power cut now,
// or at the cut that CutAfter planned: all that was synced, plus a random
// subset of what was not, torn at any byte and in any order; and of the
// unsynced changes of names, a random subset. Equal seeds give equal clones.
// Faults, capacity and delay are not carried over.
func (f *FS) CrashClone(seed uint64) *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.crash(seed)
}

func (f *FS) crash(seed uint64) *FS {
	from := f
	if f.cut != nil {
		from = f.cut
	}
	c := from.copy()
	rng := rand.New(rand.NewPCG(seed, 0x686f6c6466617374))
	keep := rng.Float64()
	lost := map[any]bool{} // files and names with a change that was lost: later ones build on it
	for _, op := range c.renames {
		if rng.Float64() < keep && !lost[op.node] && !lost[op.from] && !lost[op.to] {
			op.apply(c.durable)
			continue
		}
		lost[op.node] = true
		for _, name := range []string{op.from, op.to} {
			if name != "" {
				lost[name] = true
			}
		}
	}
	c.renames = nil
	c.live = c.durable
	c.durable = map[string]*inode{}
	c.used = 0
	done := map[*inode]bool{}
	for _, name := range sortedNames(c.live) { // in order, so that the seed decides all
		n := c.live[name]
		c.durable[name] = n
		if done[n] {
			continue
		}
		done[n] = true
		n.survive(rng)
		n.data = slices.Clone(n.durable)
		c.used += int64(len(n.data))
	}
	return c
}

// Clone returns an independent copy as a process restart without a power cut
// would find it: nothing is lost. Faults, capacity and delay are not carried
// over.
func (f *FS) Clone() *FS {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.copy()
}

// copy duplicates names and contents. The caller holds mu.
func (f *FS) copy() *FS {
	c := New()
	c.used = f.used
	nodes := map[*inode]*inode{}
	dup := func(n *inode) *inode {
		if nodes[n] == nil {
			nodes[n] = &inode{data: slices.Clone(n.data), durable: slices.Clone(n.durable), writes: slices.Clone(n.writes)}
		}
		return nodes[n]
	}
	for name, n := range f.live {
		c.live[name] = dup(n)
	}
	for name, n := range f.durable {
		c.durable[name] = dup(n)
	}
	for _, op := range f.renames {
		op.node = dup(op.node)
		c.renames = append(c.renames, op)
	}
	for d := range f.dirs {
		c.dirs[d] = true
	}
	return c
}

func sortedNames(m map[string]*inode) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
