// Package sim is a field device that exists only in memory: waveforms, counters,
// recorded traces, and registers that keep what is written to them. It is for
// demonstrations, for trying out a configuration before the machine is there, and for
// tests, which can also make it fail ([Adapter.Inject]).
//
// # Settings
//
//	delay = "5ms"   each read and write takes this long; default 0
//	seed = 7        makes random walks and random faults repeat; default 1
//
// # Tags
//
// The address names the shape; its keys are the tag's params:
//
//	sine, triangle, ramp, square   low, high (0, 1), period ("10s"), phase (0 to 1), duty (square only, 0.5)
//	walk                           low, high, step (largest move per second, a tenth of the range), start
//	counter                        step per period (1, "1s"), start; wraps at high if that is given
//	constant                       value (0); may be written
//	text                           value (""); may be written
//	trace                          file, column, speed (1), loop (true)
//
// All of them take bad, the part of reads that fail (0 to 1), and quality, the
// name of how they fail (BadSensorFailure). The type is float (the default), int, bool or
// string; counter is int and text is string unless told otherwise.
package sim

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"holdfast/protocols"
	"holdfast/protocols/point"
)

// Options change how an adapter works. The zero value works.
type Options struct {
	// ReadFile returns the content of a trace file; nil = there are none.
	ReadFile func(name string) ([]byte, error)
}

// A Fault is what is wrong with a device at the moment.
type Fault uint8

// The faults that can be injected.
const (
	None   Fault = iota
	Gone         // nothing answers: reads and writes fail at once
	Silent       // connected, but no answer ever comes
)

// Adapter makes simulated devices.
type Adapter struct {
	env   protocols.Env
	o     Options
	start time.Duration

	mu     sync.Mutex
	faults map[string]Fault
	change chan struct{} // closed when faults changes
}

// New returns an adapter. Waveforms begin at phase 0 now.
func New(env protocols.Env, o Options) *Adapter {
	if o.ReadFile == nil {
		o.ReadFile = func(name string) ([]byte, error) {
			return nil, fmt.Errorf("read trace %q: %w", name, fs.ErrNotExist)
		}
	}
	return &Adapter{
		env: env, o: o, start: env.Clock.Elapsed(),
		faults: map[string]Fault{}, change: make(chan struct{}),
	}
}

// Inject makes a device fail, or work again with None, at once and until further
// notice. The device need not exist yet.
func (a *Adapter) Inject(device string, f Fault) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.faults[device] = f
	close(a.change)
	a.change = make(chan struct{})
}

func (a *Adapter) fault(device string) (Fault, <-chan struct{}) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.faults[device], a.change
}

// Check implements [protocols.Adapter].
func (a *Adapter) Check(d protocols.Device) error {
	_, err := parseSettings(d.Settings)
	errs := []error{err}
	for i := range d.Tags {
		if _, err := parseShape(&d.Tags[i]); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Open implements [protocols.Adapter].
func (a *Adapter) Open(d protocols.Device) (protocols.Session, error) {
	if err := a.Check(d); err != nil {
		return nil, err
	}
	s := &session{a: a, device: d.Name, signals: map[string]*signal{}, closed: make(chan struct{})}
	s.settings, _ = parseSettings(d.Settings)
	return s, nil
}

// Close implements [protocols.Adapter]. Nothing is left when sessions are closed.
func (a *Adapter) Close() error { return nil }

// A session is one simulated device. Groups share its signals by tag name, so
// that a tag that moves to another class goes on where it was.
type session struct {
	a        *Adapter
	device   string
	settings settings
	closed   chan struct{}
	closing  sync.Once

	mu      sync.Mutex
	signals map[string]*signal
}

// Close implements [protocols.Session].
func (s *session) Close() error {
	s.closing.Do(func() { close(s.closed) })
	return nil
}

// Group implements [protocols.Session].
func (s *session) Group(tags []point.Tag) (protocols.Group, error) {
	g := &group{s: s}
	for i := range tags {
		sig, err := s.signal(&tags[i])
		if err != nil {
			return nil, err
		}
		g.signals = append(g.signals, sig)
	}
	return g, nil
}

// signal returns the state behind a tag, made anew when the tag is another one.
func (s *session) signal(t *point.Tag) (*signal, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := s.signals[t.Name]; old != nil && old.tag.Address == t.Address && old.tag.Type == t.Type &&
		sameParams(old.tag.Params, t.Params) {
		return old, nil
	}
	shape, err := parseShape(t)
	if err != nil {
		return nil, err
	}
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s", s.device, t.Name)
	sig := &signal{tag: *t, shape: shape, rng: rand.New(rand.NewPCG(s.settings.seed, h.Sum64()))}
	s.signals[t.Name] = sig
	return sig, nil
}

func sameParams(a, b point.Params) bool {
	x, y := point.Tag{Params: a}, point.Tag{Params: b}
	return x.Equal(&y)
}

// reach waits as long as the device takes to answer, or returns why it does not.
func (s *session) reach(ctx context.Context) (point.Quality, error) {
	for {
		fault, changed := s.a.fault(s.device)
		switch fault {
		case Gone:
			return point.BadNoCommunication, errors.New("simulated: the device is gone")
		case None:
			return s.wait(ctx)
		}
		select {
		case <-s.closed:
			return point.BadConnectionClosed, errors.New("session closed")
		case <-ctx.Done():
			return point.BadTimeout, errors.New("simulated: the device does not answer")
		case <-changed:
		}
	}
}

// wait lets the configured delay pass.
func (s *session) wait(ctx context.Context) (point.Quality, error) {
	select {
	case <-s.closed:
		return point.BadConnectionClosed, errors.New("session closed")
	default:
	}
	if ctx.Err() == nil && s.settings.delay > 0 {
		timer := s.a.env.Clock.NewTimer(s.settings.delay)
		defer timer.Stop()
		select {
		case <-timer.C():
		case <-ctx.Done():
		case <-s.closed:
			return point.BadConnectionClosed, errors.New("session closed")
		}
	}
	if ctx.Err() != nil {
		return point.BadTimeout, errors.New("no time left for the read")
	}
	return point.Good, nil
}

// A group is some of a device's signals.
type group struct {
	s       *session
	signals []*signal
}

// Read implements [protocols.Group].
func (g *group) Read(ctx context.Context, out []point.Sample) {
	if q, err := g.s.reach(ctx); err != nil {
		for i := range out {
			out[i] = point.Sample{Quality: q, Detail: err.Error()}
		}
		return
	}
	at := g.s.a.env.Clock.Elapsed() - g.s.a.start
	g.s.mu.Lock()
	defer g.s.mu.Unlock()
	for i, sig := range g.signals {
		out[i] = sig.sample(at, g.s.a.o.ReadFile)
	}
}

// Write implements [protocols.Writer]: constants and texts keep what is written
// until the session ends.
func (s *session) Write(ctx context.Context, writes []protocols.Write) []error {
	out := make([]error, len(writes))
	q, err := s.reach(ctx)
	for i := range writes {
		if err != nil {
			out[i] = &protocols.WriteError{Quality: q, Maybe: q == point.BadTimeout, Err: err}
			continue
		}
		out[i] = s.write(&writes[i])
	}
	return out
}

func (s *session) write(w *protocols.Write) error {
	refuse := func(q point.Quality, format string, args ...any) error {
		return &protocols.WriteError{Quality: q, Err: fmt.Errorf("tag %q: "+format, append([]any{w.Tag.Name}, args...)...)}
	}
	sig, err := s.signal(&w.Tag)
	if err != nil {
		return refuse(point.BadConfigurationError, "%w", err)
	}
	if !sig.shape.writable() {
		return refuse(point.BadNotWritable, "a %s cannot be written", sig.shape.kind)
	}
	v, ok := sig.shape.typed(w.Value)
	if !ok {
		return refuse(point.BadTypeMismatch, "want %s, not %s", sig.shape.typ, w.Value.Kind())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	sig.held, sig.holds = v, true
	return nil
}

// Status implements [protocols.Reporter].
func (s *session) Status() protocols.Status {
	fault, _ := s.a.fault(s.device)
	st := protocols.Status{Link: "sim " + s.device, Connected: fault != Gone}
	if fault == Gone {
		st.Reason = "simulated: the device is gone"
	}
	return st
}

var (
	_ protocols.Writer   = (*session)(nil)
	_ protocols.Reporter = (*session)(nil)
)
