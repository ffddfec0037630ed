package command

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"path"
	"strconv"
	"time"

	"holdfast/drivers/disk"
)

// A FileStore keeps used ids in one small file: a line for each, with a
// checksum. A line that was torn by a power cut does not count: its Add had not
// returned.
type FileStore struct {
	fs   disk.FS
	name string
	file disk.File // nil until loaded, and after an error that leaves its content in doubt
	size int64
}

var _ Store = (*FileStore)(nil)

// maxStore bounds what is read of the file, in bytes.
const maxStore = 64 << 20

// NewFileStore returns a store in the file of that name. It touches nothing before Load.
func NewFileStore(fs disk.FS, name string) *FileStore { return &FileStore{fs: fs, name: name} }

// Load implements [Store]. A file that is not there yet is made.
func (s *FileStore) Load() ([]Used, error) {
	f, err := s.fs.Open(s.name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, s.Replace(nil)
	}
	if err != nil {
		return nil, fmt.Errorf("open %q: %w", s.name, err)
	}
	size, err := f.Size()
	if err == nil && size > maxStore {
		err = fmt.Errorf("%d bytes are more than %d", size, maxStore)
	}
	data := make([]byte, max(0, min(size, maxStore)))
	if err == nil && len(data) > 0 {
		_, err = f.ReadAt(data, 0)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("read %q: %w", s.name, err)
	}
	used, whole := parseLines(data)
	s.file, s.size = f, int64(len(data))
	if !whole {
		// Written anew rather than on: the next line must not become the end of a
		// torn one.
		if err := s.Replace(used); err != nil {
			return nil, err
		}
	}
	return used, nil
}

// Add implements [Store].
func (s *FileStore) Add(u Used) error {
	if s.file == nil {
		return fmt.Errorf("%q is in doubt", s.name)
	}
	line := appendLine(nil, u)
	_, err := s.file.WriteAt(line, s.size)
	if err == nil {
		err = s.file.Sync()
	}
	if err != nil {
		_ = s.file.Close()
		s.file = nil
		return fmt.Errorf("write %q: %w", s.name, err)
	}
	s.size += int64(len(line))
	return nil
}

// Replace implements [Store].
func (s *FileStore) Replace(all []Used) error {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
	var data []byte
	for _, u := range all {
		data = appendLine(data, u)
	}
	f, err := s.write(s.name+".new", data)
	if err != nil {
		return fmt.Errorf("replace %q: %w", s.name, err)
	}
	s.file, s.size = f, int64(len(data))
	return nil
}

// write writes a new file beside the old one and moves it over it.
func (s *FileStore) write(temporary string, data []byte) (disk.File, error) {
	if err := s.fs.Remove(temporary); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := s.fs.Create(temporary)
	if err != nil {
		return nil, err
	}
	if len(data) > 0 {
		_, err = f.WriteAt(data, 0)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = s.fs.Rename(temporary, s.name)
	}
	if err == nil {
		err = s.fs.SyncDir(path.Dir(s.name))
	}
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

// Close closes the file. The store can be loaded again.
func (s *FileStore) Close() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// appendLine appends: checksum of the rest in 8 hexadecimal digits, expiry in microseconds since
// 1970, the id as a Go string literal.
func appendLine(dst []byte, u Used) []byte {
	rest := strconv.AppendInt(nil, u.Expires.UnixMicro(), 10)
	rest = append(rest, ' ')
	rest = strconv.AppendQuote(rest, u.ID)
	return fmt.Appendf(dst, "%08x %s\n", crc32.ChecksumIEEE(rest), rest)
}

// parseLines reads the lines that are whole, and reports whether all are.
func parseLines(data []byte) (used []Used, whole bool) {
	whole = true
	for line := range bytes.Lines(data) {
		text, ended := bytes.CutSuffix(line, []byte{'\n'})
		u, ok := parseLine(text)
		if ok && ended {
			used = append(used, u)
		} else {
			whole = false
		}
	}
	return used, whole
}

func parseLine(line []byte) (Used, bool) {
	sum, rest, ok := bytes.Cut(line, []byte{' '})
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.ChecksumIEEE(rest)) {
		return Used{}, false
	}
	at, quoted, _ := bytes.Cut(rest, []byte{' '})
	us, err1 := strconv.ParseInt(string(at), 10, 64)
	id, err2 := strconv.Unquote(string(quoted))
	return Used{ID: id, Expires: time.UnixMicro(us).UTC()}, err1 == nil && err2 == nil
}
