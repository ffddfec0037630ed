// Package gpio is the contract between those who use single lines and the
// hardware that has them.
//
// It exists beside periph.io's interface of the same purpose because there a read
// has no error, and an edge has neither a direction nor a time.
//
//   - Package gpiochip is the implementation on Linux's /dev/gpiochipN.
//   - Package gpiotest has fakes: a board in memory, recorder, playback, faults.
package gpio

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// A Level is the logical state of a line: high is active. On a line that is
// active low, a low voltage is High.
type Level bool

// The levels.
const (
	Low  Level = false
	High Level = true
)

// String returns low or high.
func (l Level) String() string {
	if l {
		return "high"
	}
	return "low"
}

// An Edge is a change of level, or a set of changes to watch for.
type Edge uint8

// The edges.
const (
	Rising  Edge = 1 << iota // from Low to High
	Falling                  // from High to Low
	Both    = Rising | Falling
)

// String returns rising, falling or both.
func (e Edge) String() string {
	switch e {
	case Rising:
		return "rising"
	case Falling:
		return "falling"
	case Both:
		return "both"
	}
	return fmt.Sprintf("Edge(%d)", uint8(e))
}

// Lines opens lines. A line is named as in [ParseRef]. A line that is open cannot
// be opened again.
type Lines interface {
	// Input opens a line for reading its level.
	Input(ctx context.Context, line string, c InputConfig) (Input, error)
	// Edges opens a line for reading its level, its edges and their number.
	Edges(ctx context.Context, line string, c EdgeConfig) (EdgeInput, error)
	// Output opens a line for driving it.
	Output(ctx context.Context, line string, c OutputConfig) (Output, error)
}

// Input is a line that is read. Its methods may be called from many goroutines.
type Input interface {
	// Read returns the present level. It returns when ctx ends, whatever the
	// hardware does.
	Read(ctx context.Context) (Level, error)
	// Close gives the line back.
	Close() error
	// String names the line in messages.
	String() string
}

// EdgeInput is an input whose edges are counted and stamped by the kernel.
type EdgeInput interface {
	Input
	// Next returns the next edge, waiting for one until ctx ends. Edges wait in a
	// queue of bounded length that drops the oldest; see Event.Lost. Only one
	// call at a time gets an edge.
	Next(ctx context.Context) (Event, error)
	// Counts returns how many edges there have been since the line was opened. It
	// is exact also when edges were lost before anyone read them, and does not
	// take anything from Next.
	Counts() (Counts, error)
}

// Output is a line that is driven. Its methods may be called from many
// goroutines.
type Output interface {
	// Set drives the line. When it returns nil the level is at the pin.
	Set(ctx context.Context, l Level) error
	// Read returns the level at the pin, which on an open-drain line need not be
	// the one set.
	Read(ctx context.Context) (Level, error)
	// Close gives the line back. What the pin does then is up to the hardware:
	// many keep the last level.
	Close() error
	// String names the line in messages.
	String() string
}

// An Event is one edge.
type Event struct {
	Edge Edge
	// Stamp is when the kernel saw the edge, on its monotonic clock: only
	// differences between stamps of one machine's run mean anything.
	Stamp time.Duration
	// Time is the same moment on the wall, as well as the wall was known when the
	// event was read.
	Time time.Time
	// Lost is how many edges directly before this one are missing, because the
	// queue was full.
	Lost uint64
}

// Counts are numbers of edges.
type Counts struct {
	Rising, Falling uint64
	// Lost edges were seen by the kernel and dropped before their direction was
	// known. It stays 0 on lines that watch one direction.
	Lost uint64
}

// Total returns all edges.
func (c Counts) Total() uint64 { return c.Rising + c.Falling + c.Lost }

// Bias is the resistor that the hardware connects to a line.
type Bias uint8

// The biases.
const (
	BiasAsIs Bias = iota // leave it as the firmware set it
	BiasOff
	BiasPullUp
	BiasPullDown
)

// InputConfig configures an input. The zero value works.
type InputConfig struct {
	ActiveLow bool
	Bias      Bias
	// Debounce is how long a level must last to count, 0 to 1 minute; 0 means
	// that every change counts. It is done by the hardware or the kernel.
	Debounce time.Duration
}

// EdgeConfig configures an input with edges. The zero value works.
type EdgeConfig struct {
	InputConfig
	Edges Edge // 0 means Both
	// Queue is how many edges may wait; 0 means 256, the most is 1024.
	Queue int
}

// Drive is how an output drives its line.
type Drive uint8

// The drives.
const (
	PushPull   Drive = iota
	OpenDrain        // drives low only
	OpenSource       // drives high only
)

// OutputConfig configures an output. The zero value works.
type OutputConfig struct {
	ActiveLow bool
	Drive     Drive
	Bias      Bias
	Initial   Level // driven from the moment the line is opened
}

// Errors that callers tell apart with errors.Is.
var (
	// ErrNoLine: there is no such line.
	ErrNoLine = errors.New("no such line")
	// ErrBusy: another program or driver has the line.
	ErrBusy = errors.New("line in use")
	// ErrGone: the chip has been removed. Only opening the line anew helps.
	ErrGone = errors.New("gpio chip gone")
	// ErrStuck: an earlier access has not come back yet.
	ErrStuck = errors.New("line stuck")
	// ErrClosed: the line has been closed.
	ErrClosed = errors.New("line closed")
)

// Limits of the configurations.
const (
	mostDebounce = time.Minute
	mostQueue    = 1024
)

// Check returns an error that names the first field that is out of range.
func (c InputConfig) Check() error {
	if c.Debounce < 0 || c.Debounce > mostDebounce {
		return fmt.Errorf("debounce %v: want 0 to %v", c.Debounce, mostDebounce)
	}
	if c.Bias > BiasPullDown {
		return fmt.Errorf("bias %d: unknown", c.Bias)
	}
	return nil
}

// WithDefaults returns the configuration with its zero fields filled in.
func (c EdgeConfig) WithDefaults() EdgeConfig {
	if c.Edges == 0 {
		c.Edges = Both
	}
	if c.Queue == 0 {
		c.Queue = 256
	}
	return c
}

// Check returns an error that names the first field that is out of range.
func (c EdgeConfig) Check() error {
	c = c.WithDefaults()
	if c.Edges > Both {
		return fmt.Errorf("edges %v: unknown", c.Edges)
	}
	if c.Queue < 1 || c.Queue > mostQueue {
		return fmt.Errorf("queue %d: want 1 to %d", c.Queue, mostQueue)
	}
	return c.InputConfig.Check()
}

// Check returns an error that names the first field that is out of range.
func (c OutputConfig) Check() error {
	if c.Drive > OpenSource {
		return fmt.Errorf("drive %d: unknown", c.Drive)
	}
	return InputConfig{Bias: c.Bias}.Check()
}
