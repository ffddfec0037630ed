// Package importer turns what other programs have as configuration of field
// devices into ours, and writes ours back out.
//
// Nothing is dropped in silence: whatever a file says and ours cannot say becomes
// a [Note] with its line and the reason. It reads no files but those it is handed,
// and opens nothing.
package importer

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/protocols/point"
)

// maxFile bounds a file that is imported. Ten thousand tags are a few megabytes.
const maxFile = 64 << 20

// A Result is what a file became.
type Result struct {
	Classes map[string]config.Class // scan classes that devices and tags name
	Devices []Device
	Notes   []Note // in the order of files and lines

	files []string // names, in the order in which they were given
}

// Tags returns the number of tags of all devices.
func (r *Result) Tags() int {
	n := 0
	for i := range r.Devices {
		n += len(r.Devices[i].Tags) + len(r.Devices[i].Tables)
	}
	return n
}

// A Device is one field device with its tags.
type Device struct {
	Name      string
	Protocol  string
	Product   string // from the library, with Only; then Tags and Tables are the device's own
	Only      []string
	Class     string
	KeepLast  bool
	Subscribe bool
	Settings  map[string]any
	Tags      []point.Tag
	Tables    []map[string]any // tags that stand in the configuration as tables and are not whole by themselves

	line  int            // where it stands in the file
	lines map[string]int // of its tags, by name
	names names          // of its tags
}

// add gives a device a tag whose name is unique.
func (d *Device) add(t point.Tag, line int) {
	if d.lines == nil {
		d.lines = map[string]int{}
	}
	d.lines[t.Name] = line
	d.Tags = append(d.Tags, t)
}

// A Note is something that a file says and that is not in the result, or is
// there in another form.
type Note struct {
	File  string `json:"file"`
	Line  int    `json:"line"` // 0 when it is about the file
	What  string `json:"what"` // the key, column or thing
	Why   string `json:"why"`
	Level Level  `json:"level"`
}

// Level says how much a note matters.
type Level string

// The levels.
const (
	Lost    Level = "left out" // is not in the result
	Changed Level = "changed"  // is in the result in another form: a name, a default made explicit
)

// newNote makes a note; texts of the file are kept on one line.
func newNote(file string, line int, what, why string, level Level) Note {
	return Note{file, line, clearText(what), clearText(why), level}
}

// String returns the note as file:line: what: why.
func (n Note) String() string {
	place := n.File
	if n.Line > 0 {
		place = fmt.Sprintf("%s:%d", n.File, n.Line)
	}
	return fmt.Sprintf("%s: %s: %s", place, n.What, n.Why)
}

// An Input is one file with its name for notes.
type Input struct {
	Name string
	Data []byte
}

// Options are what formats leave open. The zero value works.
type Options struct {
	// Device is the name of the device, for formats that are a list of tags; "" = the
	// file's name without its ending.
	Device string
	// Settings are keys of every imported device, such as its address, that the
	// format does not hold. They go over what it does.
	Settings map[string]any
	// Load reads a configuration of ours, for the kind "holdfast".
	Load func(Input) (*config.Config, error)
}

// A Kind is a format.
type Kind struct {
	Name string
	Text string // what it is, for people
	read func(in []Input, o Options) (*Result, error)
	many bool // takes several files
}

// Kinds returns all formats, in the order in which they are listed.
func Kinds() []Kind {
	return []Kind{
		{"telegraf", "Telegraf TOML: inputs.modbus, inputs.opcua, inputs.opcua_listener", one(readTelegraf), false},
		{"edgex", "EdgeX YAML: device profiles and device lists, all files together", readEdgeX, true},
		{"opc-publisher", "OPC Publisher published nodes, JSON with comments", one(readPublisher), false},
		{"kepware", "Kepware tag list, CSV", one(readKepware), false},
		{"neuron", "Neuron tag list, CSV", one(readNeuron), false},
		{"holdfast", "a configuration of ours, or what \"config export\" wrote", one(readHoldfast), false},
	}
}

func one(read func(Input, Options) (*Result, error)) func([]Input, Options) (*Result, error) {
	return func(in []Input, o Options) (*Result, error) { return read(in[0], o) }
}

// ErrKind is the error of Read for a format that is not known.
var ErrKind = errors.New("is no known format")

// Read reads files of a format. An error means that nothing could be made of
// them; what could only in part is told by the notes.
func Read(kind string, in []Input, o Options) (*Result, error) {
	kinds := Kinds()
	at := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == kind })
	if at < 0 {
		return nil, fmt.Errorf("%q %w", kind, ErrKind)
	}
	if len(in) == 0 || len(in) > 1 && !kinds[at].many {
		return nil, fmt.Errorf("%s takes one file, not %d", kind, len(in))
	}
	for _, f := range in {
		if len(f.Data) > maxFile {
			return nil, fmt.Errorf("%s: the file has more than %d bytes", f.Name, maxFile)
		}
	}
	r, err := kinds[at].read(in, o)
	if err != nil {
		return nil, err
	}
	r.finish(in, o)
	return r, nil
}

// finish brings a result into order.
func (r *Result) finish(in []Input, o Options) {
	for i := range r.Devices {
		d := &r.Devices[i]
		for key, v := range o.Settings {
			if d.Settings == nil {
				d.Settings = map[string]any{}
			}
			d.Settings[key] = v
		}
	}
	r.dropEmpty(in[0].Name)
	for _, f := range in {
		r.files = append(r.files, f.Name)
	}
	r.order()
}

// order sorts notes as they stand in the files. What several devices share is told
// once.
func (r *Result) order() {
	slices.SortStableFunc(r.Notes, func(a, b Note) int {
		return cmp.Or(cmp.Compare(slices.Index(r.files, a.File), slices.Index(r.files, b.File)), cmp.Compare(a.Line, b.Line))
	})
	told := map[Note]bool{}
	r.Notes = slices.DeleteFunc(r.Notes, func(n Note) bool {
		again := told[n]
		told[n] = true
		return again
	})
}

// dropEmpty leaves out devices without tags, which ours cannot have.
func (r *Result) dropEmpty(file string) {
	r.Devices = slices.DeleteFunc(r.Devices, func(d Device) bool {
		if len(d.Tags) > 0 || len(d.Tables) > 0 || d.Product != "" {
			return false
		}
		r.Notes = append(r.Notes, newNote(file, d.line, "device "+d.Name, "it has no tags that could be taken over", Lost))
		return true
	})
}

// A reader gathers notes about one file while it is read.
type reader struct {
	file  string
	notes []Note
}

// lost notes what is left out.
func (r *reader) lost(line int, what, why string, args ...any) {
	r.notes = append(r.notes, newNote(r.file, line, what, fmt.Sprintf(why, args...), Lost))
}

// changed notes what is there in another form.
func (r *reader) changed(line int, what, why string, args ...any) {
	r.notes = append(r.notes, newNote(r.file, line, what, fmt.Sprintf(why, args...), Changed))
}

// baseName is a file's name without folder and ending.
func baseName(file string) string {
	name := file[strings.LastIndexAny(file, `/\`)+1:]
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		name = name[:i]
	}
	return name
}
