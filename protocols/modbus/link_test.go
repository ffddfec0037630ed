package modbus

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

func TestWriteOutcomes(t *testing.T) {
	p := sim.New(1)
	dev := p.Add(1, ramp(100))
	s := open(t, newAdapter(t), map[string]any{
		"address": serveTCP(t, p), "timeout": "30ms", "demote_after": int64(100), "reconnect_min": "1ms", "reconnect_max": "1ms",
	})
	tests := []struct {
		name    string
		fault   *sim.Fault
		tag     point.Tag
		value   point.Value
		quality point.Quality
		maybe   bool
		done    bool // the device has it
	}{
		{"answer lost", &sim.Fault{Kind: sim.Deaf}, tag("a", "holding:1", ""), point.IntValue(501), point.BadTimeout, true, true},
		{"request lost", &sim.Fault{Kind: sim.Silence}, tag("a", "holding:2", ""), point.IntValue(502), point.BadTimeout, true, false},
		{"reset", &sim.Fault{Kind: sim.Reset}, tag("a", "holding:3", ""), point.IntValue(503), point.BadConnectionClosed, true, false},
		{"answer to another value", &sim.Fault{Kind: sim.WrongFunction}, tag("a", "holding:4", ""), point.IntValue(504), point.BadCommunicationError, true, true},
		{"no value to start from", &sim.Fault{Kind: sim.Silence, Function: 3}, tag("a", "holding:5.1", ""), point.BoolValue(true), point.BadTimeout, false, false},
		{"out of range", nil, tag("a", "holding:6", "int16"), point.IntValue(40000), point.BadOutOfRange, false, false},
		{"wrong kind", nil, tag("a", "holding:6", "int16"), point.StringValue("x"), point.BadTypeMismatch, false, false},
		{"read only", nil, point.Tag{Name: "a", Address: "holding:6"}, point.IntValue(1), point.BadNotWritable, false, false},
		{"no such address", nil, tag("a", "holding:100", ""), point.IntValue(1), point.BadConfigurationError, false, false},
	}
	for i, tt := range tests {
		eventually(t, func() bool { return read(t, s, registers(50, 1))[0].Quality == point.Good })
		remove := func() {}
		if tt.fault != nil {
			remove = p.Inject(*tt.fault)
		}
		err := write(t, s, tt.tag, tt.value)
		remove()
		we, ok := err.(*protocols.WriteError)
		if !ok || we.Quality != tt.quality || we.Maybe != tt.maybe {
			t.Errorf("%s: %#v, want %v, maybe %v", tt.name, err, tt.quality, tt.maybe)
		}
		if i < 4 {
			if got := dev.Get(sim.Holding, i+1, 1)[0] == uint16(501+i); got != tt.done {
				t.Errorf("%s: the device has it: %v", tt.name, got)
			}
		}
	}
	closed := open(t, newAdapter(t), map[string]any{"address": "127.0.0.1:" + freePort(t)})
	if we, ok := write(t, closed, tag("a", "holding:1", ""), point.IntValue(1)).(*protocols.WriteError); !ok || we.Quality != point.BadNotConnected || we.Maybe {
		t.Errorf("nobody there: %+v", we)
	}
}

// TestReconnect stops and starts a server under a session.
func TestReconnect(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	serve := func(ln net.Listener) (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error)
		go func() { done <- p.ServeTCP(ctx, ln) }()
		return func() { cancel(); <-done }
	}
	stop := serve(ln)
	s := open(t, newAdapter(t), map[string]any{"address": addr, "reconnect_min": "5ms", "reconnect_max": "20ms"})
	g, err := s.Group(registers(5, 1))
	if err != nil {
		t.Fatal(err)
	}
	if st := s.Status(); st.Connected || st.Reason != "not used yet" {
		t.Errorf("at first: %+v", st)
	}
	for range 3 {
		if got := again(g, 1, 20*time.Second)[0]; got.Quality != point.Good {
			t.Fatal(got.Detail)
		}
		if st := s.Status(); !st.Connected || st.Reason != "" {
			t.Errorf("connected: %+v", st)
		}
		stop()
		eventually(t, func() bool {
			got := again(g, 1, 20*time.Second)[0]
			return got.Quality == point.BadNotConnected && containsText(got.Detail, "refused")
		})
		if st := s.Status(); st.Connected || !containsText(st.Reason, "refused") {
			t.Errorf("refused: %+v", st)
		}
		if ln, err = net.Listen("tcp", addr); err != nil {
			t.Fatal(err)
		}
		stop = serve(ln)
		eventually(t, func() bool { return again(g, 1, 20*time.Second)[0].Quality == point.Good })
	}
	stop()
}

// TestPeerClosesIdleConnection checks that not a single request is lost to a
// device that closes connections which it finds idle.
func TestPeerClosesIdleConnection(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	var mu sync.Mutex
	var conns []net.Conn
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go p.ServeTCP(ctx, recorder{ln, func(c net.Conn) { mu.Lock(); conns = append(conns, c); mu.Unlock() }})
	s := open(t, newAdapter(t), map[string]any{"address": ln.Addr().String()})
	g, err := s.Group(registers(5, 1))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		if got := again(g, 1, 20*time.Second)[0]; got.Quality != point.Good {
			t.Fatalf("read %d: %s", i, got.Detail)
		}
		if err := write(t, s, tag("a", "holding:9", ""), point.IntValue(int64(i))); err != nil {
			t.Fatalf("write %d: %v", i, err)
		}
		mu.Lock()
		conns[len(conns)-1].Close()
		mu.Unlock()
		time.Sleep(2 * idleCheck)
	}
	if n := p.Connections(); n != 5 {
		t.Errorf("%d connections, want 5", n)
	}
}

// recorder shows the connections that a listener accepts.
type recorder struct {
	net.Listener
	saw func(net.Conn)
}

func (r recorder) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err == nil {
		r.saw(c)
	}
	return c, err
}

func TestClosingOptions(t *testing.T) {
	t.Run("after read", func(t *testing.T) {
		p := sim.New(1)
		p.Add(1, ramp(100))
		s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p), "close_after_read": true})
		for range 3 {
			if got := read(t, s, registers(5, 1))[0]; got.Quality != point.Good {
				t.Fatal(got.Detail)
			}
		}
		if n := p.Connections(); n != 3 {
			t.Errorf("%d connections, want 3", n)
		}
	})
	t.Run("idle", func(t *testing.T) {
		p := sim.New(1)
		p.Add(1, ramp(100))
		s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p), "idle_close": "20ms"})
		if got := read(t, s, registers(5, 1))[0]; got.Quality != point.Good {
			t.Fatal(got.Detail)
		}
		eventually(t, func() bool { st := s.Status(); return !st.Connected && st.Reason == "idle" })
		if got := read(t, s, registers(5, 1))[0]; got.Quality != point.Good {
			t.Fatal(got.Detail)
		}
	})
}

// TestSlowConnectDoesNotHoldReads has a peer that takes longer to connect than a
// read may last: reads return in time, and the connection is used once it is there.
func TestSlowConnectDoesNotHoldReads(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p), "connect_delay": "200ms"})
	g, err := s.Group(registers(5, 1))
	if err != nil {
		t.Fatal(err)
	}
	got := again(g, 1, 20*time.Millisecond)[0]
	if got.Quality != point.BadNotConnected || !containsText(got.Detail, "still connecting") {
		t.Errorf("%v %s", got.Quality, got.Detail)
	}
	eventually(t, func() bool { return again(g, 1, 20*time.Millisecond)[0].Quality == point.Good })
	if n := p.Connections(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

// TestReadEndsWithItsContext cuts a read short, by its deadline and by closing
// the session.
func TestReadEndsWithItsContext(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	p.Inject(sim.Fault{Kind: sim.Silence})
	overEach(t, p, func(t *testing.T, set map[string]any) {
		s := open(t, newAdapter(t), withSettings(set, "timeout", "60s"))
		g, err := s.Group(registers(5, 1))
		if err != nil {
			t.Fatal(err)
		}
		if got := again(g, 1, 50*time.Millisecond)[0]; got.Quality != point.BadTimeout || !containsText(got.Detail, "no time left") {
			t.Errorf("%v %s", got.Quality, got.Detail)
		}
		done := make(chan []point.Sample)
		before := p.Requests(1)
		go func() { done <- again(g, 1, 50*time.Second) }()
		if set["transport"] == nil { // a line still waits for the answer owed
			eventually(t, func() bool { return p.Requests(1) > before })
		} else {
			eventually(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.cancels) == 1 })
		}
		s.Close()
		if got := (<-done)[0]; got.Quality != point.BadShutdown {
			t.Errorf("%v %s", got.Quality, got.Detail)
		}
		if got := again(g, 1, time.Second)[0]; got.Quality != point.BadShutdown {
			t.Errorf("after close: %v %s", got.Quality, got.Detail)
		}
	})
}

// TestWritePriority writes while many groups read: a write waits for one request
// at most.
func TestWritePriority(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(1000))
	p.Inject(sim.Fault{Kind: sim.Late, Delay: 2 * time.Millisecond, Function: 3})
	a := newAdapter(t)
	set := map[string]any{"address": serveTCP(t, p), "timeout": "10s", "max_registers": int64(10)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for range 8 {
		s := open(t, a, set)
		g, err := s.Group(registers(0, 100))
		if err != nil {
			t.Fatal(err)
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				again(g, 100, 20*time.Second)
			}
		})
	}
	s := open(t, a, set)
	worst := 0
	for i := range 30 {
		eventually(t, func() bool { return s.link.turn.length() >= 6 })
		before := p.Requests(1)
		if err := write(t, s, tag("a", "holding:900", ""), point.IntValue(int64(i))); err != nil {
			t.Fatal(err)
		}
		// Until the write is answered one read may have ended and one more begun.
		worst = max(worst, p.Requests(1)-before)
	}
	cancel()
	wg.Wait()
	t.Logf("at most %d requests during a write", worst)
	if worst > 4 {
		t.Errorf("%d requests went by during a write", worst)
	}
}

func TestPipelining(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(1000))
	s := open(t, newAdapter(t), map[string]any{"address": serveTCP(t, p), "pipeline": int64(8), "max_registers": int64(10), "timeout": "100ms"})
	g, err := s.Group(registers(0, 300))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []*sim.Fault{
		nil,
		{Kind: sim.Late, Delay: 10 * time.Millisecond, Every: 3, Times: 10}, // answers out of order
		{Kind: sim.Twice, Every: 4, Times: 8},
	} {
		remove := func() {}
		if f != nil {
			remove = p.Inject(*f)
		}
		for range 3 {
			for i, smp := range again(g, 300, 20*time.Second) {
				if smp.Value.Int() != int64(i) {
					t.Fatalf("%+v: register %d: %v %s", f, i, smp.Value, smp.Detail)
				}
			}
		}
		remove()
	}
	p.Inject(sim.Fault{Kind: sim.Silence, From: 100, To: 105, Times: 1})
	bad := 0
	for i, smp := range again(g, 300, 20*time.Second) {
		if smp.Quality != point.Good {
			bad++
		} else if smp.Value.Int() != int64(i) {
			t.Errorf("register %d: %v", i, smp.Value)
		}
	}
	if bad != 10 {
		t.Errorf("%d bad registers, want the 10 of the block that was not answered", bad)
	}
}

// TestLinksAreShared counts connections.
func TestLinksAreShared(t *testing.T) {
	p := sim.New(1)
	a := newAdapter(t)
	addr := serveTCP(t, p)
	var all []*session
	for unit := range 5 {
		p.Add(byte(unit), ramp(100))
		all = append(all, open(t, a, map[string]any{"address": addr, "unit": int64(unit)}))
	}
	for range 2 {
		for _, s := range all {
			if got := read(t, s, registers(5, 1))[0]; got.Quality != point.Good {
				t.Fatal(got.Detail)
			}
		}
	}
	if n := p.Connections(); n != 1 {
		t.Errorf("%d connections for five units, want 1", n)
	}
	for _, s := range all {
		s.Close()
	}
	if n := len(a.(*Adapter).links); n != 0 {
		t.Errorf("%d links are left", n)
	}
}

func TestIgnoreUnitID(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(100))
	p.Inject(sim.Fault{Kind: sim.WrongUnit, N: 254})
	addr := serveTCP(t, p)
	s := open(t, newAdapter(t), map[string]any{"address": addr})
	if got := read(t, s, registers(5, 1))[0]; got.Quality != point.BadCommunicationError || !containsText(got.Detail, "ignore_unit_id") {
		t.Errorf("%v %s", got.Quality, got.Detail)
	}
	s = open(t, newAdapter(t), map[string]any{"address": addr, "ignore_unit_id": true})
	if got := read(t, s, registers(5, 1))[0]; got.Value.Int() != 5 {
		t.Errorf("%v %s", got.Value, got.Detail)
	}
}
