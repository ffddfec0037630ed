package config

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"

	"holdfast/cmd/holdfast/internal/strict"
)

// Files is how Load reads: os.ReadFile, or a map in tests.
type Files func(name string) ([]byte, error)

// Kinds are the implementations that a configuration may name. They are asked
// about their own keys.
type Kinds struct {
	// Protocol returns the check of a field protocol, or nil.
	Protocol  func(name string) DeviceCheck
	Protocols []string // all names, sorted
	// Upstream looks at the keys of an upstream of a known type.
	Upstream  UpstreamCheck
	Upstreams []string // all types, sorted
}

// Load reads the file at path and the tag tables that it names, and checks all
// of it. An error is [strict.Mistakes] with every mistake, unless the file
// itself cannot be read.
func Load(path string, read Files, kinds Kinds) (*Config, error) {
	data, err := read(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil, &NoFileError{Path: path}
		}
		return nil, fmt.Errorf("configuration: %w", err)
	}
	doc, err := strict.Parse(path, data)
	if err != nil {
		return nil, err
	}
	c := Default()
	c.File = path
	doc.Decode(&c)
	k := checker{doc: doc, c: &c, read: read, kinds: kinds, dir: filepath.Dir(path)}
	k.all()
	if err := k.err(); err != nil {
		return nil, err
	}
	return &c, nil
}

// A NoFileError says that there is no configuration.
type NoFileError struct{ Path string }

// Error names the file.
func (e *NoFileError) Error() string { return fmt.Sprintf("there is no configuration %q", e.Path) }
