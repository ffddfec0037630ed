package serialtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/drivers/serial"
)

// An Op is what went over a line in one direction without the other between.
type Op struct {
	Sent bool // written by this end, else received by it
	Data []byte
}

// String returns "> 01 03" for what was sent and "< 01 83" for what was received.
func (o Op) String() string {
	if o.Sent {
		return fmt.Sprintf("> % x", o.Data)
	}
	return fmt.Sprintf("< % x", o.Data)
}

// mostBytes is how much a recorder keeps.
const mostBytes = 1 << 20

// A Recorder passes everything on to a port and keeps it: the first mebibyte; it
// counts the rest, because a recording is good only from its beginning.
type Recorder struct {
	serial.Port

	mu     sync.Mutex
	ops    []Op
	bytes  int
	missed int
}

// NewRecorder returns a recorder in front of port.
func NewRecorder(port serial.Port) *Recorder { return &Recorder{Port: port} }

// Read satisfies [serial.Port].
func (r *Recorder) Read(b []byte) (int, error) {
	n, err := r.Port.Read(b)
	r.keep(false, b[:n])
	return n, err
}

// Write satisfies [serial.Port].
func (r *Recorder) Write(b []byte) (int, error) {
	n, err := r.Port.Write(b)
	r.keep(true, b[:n])
	return n, err
}

func (r *Recorder) keep(sent bool, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	room := min(len(b), mostBytes-r.bytes)
	r.bytes += room
	r.missed += len(b) - room
	if b = b[:room]; room == 0 {
		return
	}
	if n := len(r.ops); n > 0 && r.ops[n-1].Sent == sent {
		r.ops[n-1].Data = append(r.ops[n-1].Data, b...)
		return
	}
	r.ops = append(r.ops, Op{Sent: sent, Data: slices.Clone(b)})
}

// Ops returns what has been recorded, and how many later bytes there was no room
// for.
func (r *Recorder) Ops() (ops []Op, missed int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, o := range r.ops {
		ops = append(ops, Op{Sent: o.Sent, Data: slices.Clone(o.Data)})
	}
	return ops, r.missed
}

// A Playback is a port that answers from a recording. What is written must be
// what was sent, in any portions; what was received is read when its turn has
// come. A Read out of turn waits for its deadline, as on a silent line.
type Playback struct {
	mu     sync.Mutex
	ops    []Op
	errs   []string
	read   time.Time
	closed bool
	change chan struct{}
}

// NewPlayback returns a port that plays ops.
func NewPlayback(ops []Op) *Playback {
	p := &Playback{change: make(chan struct{})}
	for _, o := range ops {
		p.ops = append(p.ops, Op{Sent: o.Sent, Data: slices.Clone(o.Data)})
	}
	return p
}

// String returns "playback".
func (p *Playback) String() string { return "playback" }

// announce wakes a waiting Read. p.mu is held.
func (p *Playback) announce() {
	close(p.change)
	p.change = make(chan struct{})
}

// take removes n bytes from the front of the recording. p.mu is held.
func (p *Playback) take(n int) {
	if p.ops[0].Data = p.ops[0].Data[n:]; len(p.ops[0].Data) == 0 {
		p.ops = p.ops[1:]
	}
	p.announce()
}

// Write satisfies [serial.Port]. What was not recorded at this place is an error,
// here and in Close.
func (p *Playback) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, fmt.Errorf("serial playback: write: %w", os.ErrClosed)
	}
	for total := 0; ; {
		if total == len(b) {
			return total, nil
		}
		rest := b[total:]
		if len(p.ops) == 0 || !p.ops[0].Sent || !bytes.HasPrefix(p.ops[0].Data, rest[:min(len(rest), len(p.ops[0].Data))]) {
			return total, p.fail("got > % x, recorded %s", rest, p.next())
		}
		n := min(len(rest), len(p.ops[0].Data))
		total += n
		p.take(n)
	}
}

// next names the next of the recording. p.mu is held.
func (p *Playback) next() string {
	if len(p.ops) == 0 {
		return "nothing more"
	}
	return p.ops[0].String()
}

func (p *Playback) fail(format string, args ...any) error {
	text := fmt.Sprintf(format, args...)
	if len(p.errs) < 10 { // the first ones tell the story
		p.errs = append(p.errs, text)
	}
	return fmt.Errorf("serial playback: %s", text)
}

// Read satisfies [serial.Port].
func (p *Playback) Read(b []byte) (int, error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return 0, fmt.Errorf("serial playback: read: %w", os.ErrClosed)
		}
		if len(b) == 0 || len(p.ops) > 0 && !p.ops[0].Sent {
			n := 0
			if len(b) > 0 {
				n = copy(b, p.ops[0].Data)
				p.take(n)
			}
			p.mu.Unlock()
			return n, nil
		}
		change, deadline := p.change, p.read
		p.mu.Unlock()
		if err := wait(change, deadline); err != nil {
			return 0, fmt.Errorf("serial playback: read: %w", err)
		}
	}
}

// SetReadDeadline satisfies [serial.Port].
func (p *Playback) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.read = t
	p.announce()
	return nil
}

// SetWriteDeadline has nothing to bound.
func (p *Playback) SetWriteDeadline(time.Time) error { return nil }

// Discard does nothing: what was thrown away was not recorded as received.
func (p *Playback) Discard() error { return nil }

// WaitSent returns at once.
func (p *Playback) WaitSent(ctx context.Context) error { return ctx.Err() }

// Close returns an error if something that was written differed from the
// recording, or if some of the recording is left over.
func (p *Playback) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		p.announce()
	}
	if len(p.errs) > 0 {
		return fmt.Errorf("serial playback: %s", strings.Join(p.errs, "; "))
	}
	if len(p.ops) > 0 {
		return fmt.Errorf("serial playback: left over, the next is %s", p.next())
	}
	return nil
}

var (
	_ serial.Port = (*Recorder)(nil)
	_ serial.Port = (*Playback)(nil)
)
