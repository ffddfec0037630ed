package sparkplug

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"

	"holdfast/drivers/disk"
)

// A Ledger keeps bdSeq, the number that tells births and deaths of one edge node
// apart, across restarts.
type Ledger interface {
	// Last returns the number of the last CONNECT; ok is false when there was none.
	Last() (n uint8, ok bool, err error)
	// Keep keeps the number of the CONNECT that is about to be sent.
	Keep(n uint8) error
}

// A FileLedger is a file of one line, the number in decimal. Each Keep replaces
// it by a new file, moved over it: a crash leaves the old or the new number.
type FileLedger struct {
	FS   disk.FS
	Name string
}

// Last implements Ledger.
func (l FileLedger) Last() (n uint8, ok bool, err error) {
	f, err := l.FS.Open(l.Name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("birth number: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return 0, false, fmt.Errorf("birth number: %w", err)
	}
	b := make([]byte, min(size, 8))
	if _, err := f.ReadAt(b, 0); err != nil {
		return 0, false, fmt.Errorf("birth number: %w", err)
	}
	v, err := strconv.ParseUint(strings.TrimSuffix(string(b), "\n"), 10, 8)
	if err != nil {
		return 0, false, fmt.Errorf("birth number in %q: %w", l.Name, err)
	}
	return uint8(v), true, nil
}

// Keep implements Ledger.
func (l FileLedger) Keep(n uint8) error {
	if err := l.replace(strconv.Itoa(int(n)) + "\n"); err != nil {
		return fmt.Errorf("birth number: %w", err)
	}
	return nil
}

func (l FileLedger) replace(text string) error {
	temporary := l.Name + ".new"
	if err := l.FS.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := l.FS.Create(temporary)
	if err != nil {
		return err
	}
	_, err = f.WriteAt([]byte(text), 0)
	if err == nil {
		err = f.Sync()
	}
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = l.FS.Rename(temporary, l.Name)
	}
	if err == nil {
		err = l.FS.SyncDir(path.Dir(l.Name))
	}
	return err
}

// births counts CONNECTs: from zero, by one, and from 255 to zero
// (tck-id-topics-nbirth-bdseq-increment,
// tck-id-message-flow-edge-node-birth-publish-will-message-payload-bdSeq).
type births struct {
	ledger Ledger // nil: not kept
	last   uint8
	loaded bool
	any    bool // last was used
}

// next returns the number of the next CONNECT. An error says that it may be used
// again after a crash; the number is good all the same.
func (b *births) next() (uint8, error) {
	var err error
	if !b.loaded && b.ledger != nil {
		b.last, b.any, err = b.ledger.Last()
	}
	b.loaded = true
	if b.any {
		b.last++
	}
	b.any = true
	if b.ledger != nil {
		err = errors.Join(err, b.ledger.Keep(b.last))
	}
	return b.last, err
}
