package modbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"holdfast/drivers/serial"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// Options are for tests and for platforms; the zero value works.
type Options struct {
	// Dial connects to a TCP address, nil for the system's.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// OpenSerial opens a serial port; nil for the terminal devices of the system.
	OpenSerial func(ctx context.Context, path string, c serial.Config) (serial.Port, error)
}

// An Adapter speaks Modbus. It holds the links that its sessions share.
type Adapter struct {
	env  protocols.Env
	opts Options

	mu     sync.Mutex
	links  map[string]*link
	closed bool
}

// New returns an adapter. It has no goroutines and no links before Open.
func New(env protocols.Env, o Options) protocols.Adapter {
	if env.Log == nil {
		env.Log = slog.New(slog.DiscardHandler)
	}
	if o.OpenSerial == nil {
		o.OpenSerial = openTTY
	}
	return &Adapter{env: env, opts: o, links: map[string]*link{}}
}

// Check finds every mistake in the settings and tags of a device.
func (a *Adapter) Check(d protocols.Device) error {
	s, err := parseSettings(d.Settings)
	errs := []error{err}
	for _, t := range d.Tags {
		if _, err := compile(t, s); err != nil {
			errs = append(errs, fmt.Errorf("tag %q: %w", t.Name, err))
		}
	}
	return errors.Join(errs...)
}

// Open makes a session. Devices with the same host:port or serial line share a
// link, whose own settings are those of the device that was opened first.
func (a *Adapter) Open(d protocols.Device) (protocols.Session, error) {
	set, err := parseSettings(d.Settings)
	if err != nil {
		return nil, fmt.Errorf("device %q: %w", d.Name, err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return nil, fmt.Errorf("device %q: the adapter is closed", d.Name)
	}
	key := transportNames[set.transport] + " " + set.address
	l := a.links[key]
	if l == nil {
		l = a.newLink(key, set)
		a.links[key] = l
		l.start()
	} else if l.set != set.link || l.line != set.line {
		a.env.Log.Warn("devices disagree about the link they share; the settings of the first one hold", "device", d.Name, "link", key)
	}
	return newSession(a, l, set, d.Name), nil
}

func (a *Adapter) newLink(name string, set *settings) *link {
	l := &link{
		name: name, set: set.link, line: set.line, clk: a.env.Clock, log: a.env.Log,
		units: map[byte]*unit{},
	}
	rtu := &rtuWire{clk: a.env.Clock, turn: set.link.turnaround, echo: set.link.echo}
	switch set.transport {
	case transportRTU:
		rtu.character, rtu.silence = set.line.CharTime(), set.line.T35()
		l.wire = rtu
		l.open = func(ctx context.Context) (stream, error) {
			p, err := a.opts.OpenSerial(ctx, set.address, set.line)
			if err != nil {
				return nil, err
			}
			return lineStream{p}, nil
		}
		return l
	case transportRTUOverTCP:
		rtu.impatient = true
		l.wire = rtu
	default:
		l.wire = &tcpWire{clk: a.env.Clock}
	}
	l.open = func(ctx context.Context) (stream, error) { return a.dial(ctx, set) }
	return l
}

func (a *Adapter) dial(ctx context.Context, set *settings) (stream, error) {
	ctx, cancel := context.WithTimeout(ctx, set.link.connectTimeout)
	defer cancel()
	dial := a.opts.Dial
	if dial == nil {
		d := net.Dialer{KeepAlive: -1}
		if k := set.link.keepAlive; k > 0 {
			d.KeepAliveConfig = net.KeepAliveConfig{Enable: true, Idle: k, Interval: max(k/3, time.Second), Count: 3}
		}
		dial = d.DialContext
	}
	c, err := dial(ctx, "tcp", set.address)
	if err != nil {
		return nil, err
	}
	return newTCPStream(c), nil
}

// leave gives up a session's part of its link and ends the link with the last.
func (a *Adapter) leave(s *session) {
	a.mu.Lock()
	l := s.link
	l.mu.Lock()
	s.unit.sessions--
	l.sessions--
	last := l.sessions == 0
	l.mu.Unlock()
	if last {
		delete(a.links, l.name)
	}
	a.mu.Unlock()
	if last {
		l.close()
	}
}

// Close refuses further sessions and ends the links that are left.
func (a *Adapter) Close() error {
	a.mu.Lock()
	a.closed = true
	links := a.links
	a.links = map[string]*link{}
	a.mu.Unlock()
	for _, l := range links {
		l.close()
	}
	return nil
}

// session is a logical connection to one unit.
type session struct {
	adapter *Adapter
	link    *link
	set     *settings
	unit    *unit
	name    string
	ask     patience

	mu      sync.Mutex
	closed  bool
	cancels map[*call]context.CancelFunc // of what is under way
	active  sync.WaitGroup
}

var (
	_ protocols.Session  = (*session)(nil)
	_ protocols.Writer   = (*session)(nil)
	_ protocols.Reporter = (*session)(nil)
)

func newSession(a *Adapter, l *link, set *settings, name string) *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sessions++
	u := l.units[set.unit]
	if u == nil {
		u = &unit{id: set.unit, leaked: l.clk.Elapsed(), since: l.clk.Now()}
		l.units[set.unit] = u
	}
	u.sessions++
	return &session{
		adapter: a, link: l, set: set, unit: u, name: name,
		ask: patience{
			timeout: set.timeout, worst: set.worstAnswer,
			demoteAfter: set.demoteAfter, probeMax: set.probeMax,
		},
		cancels: map[*call]context.CancelFunc{},
	}
}

// begin registers a use of the session, which ends early when the session is
// closed. It returns nil when it is closed already.
func (s *session) begin(ctx context.Context, c *call) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		cancel()
		return nil
	}
	s.cancels[c] = cancel
	s.active.Add(1)
	s.mu.Unlock()
	stop := c.begin(ctx)
	return func() {
		stop()
		cancel()
		s.mu.Lock()
		delete(s.cancels, c)
		s.mu.Unlock()
		s.active.Done()
	}
}

func (s *session) newCall() *call { return &call{link: s.link, ticket: newTicket()} }

// newRequest returns a request to the session's unit.
func (s *session) newRequest() *request {
	return &request{unit: s.set.unit, anyUnit: s.set.ignoreUnit, patience: s.ask}
}

// Close ends reads and writes under way and waits for them.
func (s *session) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	for _, cancel := range s.cancels {
		cancel()
	}
	s.mu.Unlock()
	s.active.Wait()
	s.adapter.leave(s)
	return nil
}

// Status tells the state of the link, and of the unit when it is the trouble.
func (s *session) Status() protocols.Status {
	l, u := s.link, s.unit
	l.mu.Lock()
	defer l.mu.Unlock()
	st := protocols.Status{
		Link: l.name, Connected: l.conn != nil, Since: l.since, Reason: l.reason,
		Requests: u.requests, Errors: u.errors,
	}
	switch {
	case st.Connected && u.reason != "":
		st.Connected, st.Since, st.Reason = false, u.since, u.reason
	case !st.Connected && st.Reason == "":
		st.Reason = "not used yet"
	}
	return st
}

// errClosed is the outcome of using a session that is closed.
func errClosed() *failure { return failed(point.BadShutdown, "the session is closed") }
