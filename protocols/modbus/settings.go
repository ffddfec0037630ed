package modbus

import (
	"errors"
	"fmt"
	"math"
	"net"
	"sort"
	"strconv"
	"time"

	"holdfast/drivers/serial"
)

// transport is the way frames travel.
type transport uint8

const (
	transportTCP        transport = iota // MBAP framing over TCP
	transportRTU                         // RTU framing on a serial line
	transportRTUOverTCP                  // RTU framing over TCP
)

var transportNames = []string{"tcp", "rtu", "rtu-over-tcp"}

// writeMode selects the function that writes registers and coils.
type writeMode uint8

const (
	writeAuto      writeMode = iota // one item by functions 5 and 6, more by 15 and 16
	writeMultiple                   // always 15 and 16
	writeReadWrite                  // registers by 23, which reads them back in the same request
)

var writeModeNames = []string{"auto", "multiple", "read_write"}

// parityNames has the default of SL 2.5.1 first.
var parityNames = []string{"even", "none", "odd"}

// settings is a device's part of the configuration, as checked.
type settings struct {
	transport transport
	address   string // host:port, or the path of the serial device
	line      serial.Config

	unit         byte
	ignoreUnit   bool
	order        order
	writeMode    writeMode
	maskWrite    bool
	maxRegisters int
	maxBits      int
	maxWriteRegs int
	maxGap       int // registers
	maxGapBits   int
	timeout      time.Duration
	worstAnswer  time.Duration
	demoteAfter  int
	probeMax     time.Duration
	busyRetries  int
	busyPause    time.Duration

	link linkSettings
}

// linkSettings belong to the link, which devices may share.
type linkSettings struct {
	connectTimeout time.Duration
	connectDelay   time.Duration
	requestPause   time.Duration
	turnaround     time.Duration
	idleClose      time.Duration
	closeAfterRead bool
	keepAlive      time.Duration
	reconnectMin   time.Duration
	reconnectMax   time.Duration
	pipeline       int
	echo           bool
}

// broadcast reports whether requests go to all units of a line and are not
// answered (SL 2.1, 2.2). On TCP unit 0 is the device itself (TCP 4.4.1.2).
func (s *settings) broadcast() bool { return s.unit == 0 && s.transport != transportTCP }

// maxWriteRegisters is the most registers that one write may carry: 121 for
// function 23 (AP 6.17), 123 for function 16 (AP 6.12).
func (s *settings) maxWriteRegisters() int {
	if s.writeMode == writeReadWrite {
		return min(s.maxWriteRegs, 121)
	}
	return s.maxWriteRegs
}

// parseSettings reads all keys and returns every mistake.
func parseSettings(m map[string]any) (*settings, error) {
	r := reader{m: m, known: map[string]bool{}}
	s := &settings{}
	s.transport = transport(r.choice("transport", transportNames))
	s.readTarget(&r)
	s.readDevice(&r)
	s.readLink(&r)
	r.unknown()
	return s, errors.Join(r.errs...)
}

func (s *settings) readTarget(r *reader) {
	if s.transport != transportRTU {
		s.address = r.text("address", "")
		if s.address == "" {
			r.fail("address", "is missing: host or host:port")
		} else if host, port, err := net.SplitHostPort(s.address); err != nil {
			s.address = net.JoinHostPort(s.address, "502") // the port that IANA assigned (TCP 4.3.1.1)
		} else if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || host == "" {
			r.fail("address", "%q is not host:port", s.address)
		}
		r.refuse("settings of a serial line need transport = \"rtu\"", "port", "baud", "parity", "stop_bits", "rs485", "rts_before", "rts_after")
		// Serial device servers keep their own line; nothing is known of its speed.
		return
	}
	r.refuse("a serial line has a port, such as port = \"/dev/serial/by-id/…\"", "address")
	s.address = r.text("port", "")
	if s.address == "" {
		r.fail("port", "is missing: the path of the serial device")
	}
	s.line.Baud = r.integer("baud", 19200, 50, 4_000_000)
	s.line.Parity = []serial.Parity{serial.ParityEven, serial.ParityNone, serial.ParityOdd}[r.choice("parity", parityNames)]
	stop := 1
	if s.line.Parity == serial.ParityNone {
		stop = 2 // eleven bits in every character (SL 2.5.1)
	}
	s.line.StopBits = r.integer("stop_bits", stop, 1, 2)
	s.line.DataBits = 8 // SL 2.5.1
	s.line.RS485.Enabled = r.boolean("rs485", false)
	s.line.RS485.DelayBefore = r.duration("rts_before", 0, 0, 100*time.Millisecond)
	s.line.RS485.DelayAfter = r.duration("rts_after", 0, 0, 100*time.Millisecond)
}

func (s *settings) readDevice(r *reader) {
	low, high := 0, 255
	if s.transport != transportTCP {
		high = 247 // 248 to 255 are reserved (SL 2.2)
	}
	s.unit = byte(r.integer("unit", 1, low, high))
	s.ignoreUnit = r.boolean("ignore_unit_id", false)
	if text := r.text("order", "ABCD"); text != "" {
		o, err := parseOrder(text)
		if err != nil {
			r.errs = append(r.errs, err)
		}
		s.order = o
	}
	s.writeMode = writeMode(r.choice("write_function", writeModeNames))
	s.maskWrite = r.boolean("mask_write", false)
	// The most that one request carries: AP 6.1, 6.3, 6.12.
	s.maxRegisters = r.integer("max_registers", 125, 1, 125)
	s.maxBits = r.integer("max_bits", 2000, 1, 2000)
	s.maxWriteRegs = r.integer("max_write_registers", 123, 1, 123)
	gap := 32 // a register nobody asked for costs nothing on TCP, and two characters on a line
	timeout := time.Second
	if s.transport == transportRTU {
		gap, timeout = 8, 500*time.Millisecond
	}
	s.maxGap = r.integer("max_gap", gap, 0, 125)
	s.maxGapBits = r.integer("max_gap_bits", 16*s.maxGap, 0, 2000)
	s.timeout = r.duration("timeout", timeout, time.Millisecond, 5*time.Minute)
	s.worstAnswer = r.duration("worst_answer", 2*s.timeout, time.Millisecond, 10*time.Minute)
	if s.worstAnswer < s.timeout {
		r.fail("worst_answer", "%v is less than the timeout, %v", s.worstAnswer, s.timeout)
	}
	s.demoteAfter = r.integer("demote_after", 2, 1, 100)
	s.probeMax = r.duration("probe_max", 30*time.Second, 10*time.Millisecond, time.Hour)
	s.busyRetries = r.integer("busy_retries", 3, 0, 100)
	s.busyPause = r.duration("busy_pause", 100*time.Millisecond, time.Millisecond, time.Minute)
}

func (s *settings) readLink(r *reader) {
	l := &s.link
	l.requestPause = r.duration("request_pause", 0, 0, time.Minute)
	l.reconnectMin = r.duration("reconnect_min", 250*time.Millisecond, time.Millisecond, time.Minute)
	l.reconnectMax = r.duration("reconnect_max", 30*time.Second, l.reconnectMin, time.Hour)
	l.idleClose = r.duration("idle_close", 0, 0, 24*time.Hour)
	l.closeAfterRead = r.boolean("close_after_read", false)
	if s.transport != transportTCP {
		// 100 to 200 ms are usual at 9600 baud (SL 2.4.1).
		l.turnaround = r.duration("turnaround", 150*time.Millisecond, 0, time.Minute)
		l.echo = r.boolean("echo", false)
		r.refuse("RTU has no transaction id to tell answers apart: pipeline needs transport = \"tcp\"", "pipeline")
	} else {
		l.pipeline = r.integer("pipeline", 1, 1, 16) // TCP 4.2 tells servers to take 1 to 16
		r.refuse("belongs to RTU framing", "turnaround", "echo")
	}
	if s.transport != transportRTU {
		l.connectTimeout = r.duration("connect_timeout", 3*time.Second, time.Millisecond, 5*time.Minute)
		l.keepAlive = r.duration("keep_alive", 15*time.Second, 0, time.Hour)
	} else {
		r.refuse("belongs to TCP", "connect_timeout", "keep_alive")
	}
	l.connectDelay = r.duration("connect_delay", 0, 0, time.Minute)
}

// reader takes typed values out of a decoded TOML table and gathers mistakes.
type reader struct {
	m     map[string]any
	known map[string]bool
	errs  []error
}

func (r *reader) fail(key, format string, args ...any) {
	r.errs = append(r.errs, fmt.Errorf("key %q: "+format, append([]any{key}, args...)...))
}

func (r *reader) take(key string) (any, bool) {
	r.known[key] = true
	v, ok := r.m[key]
	return v, ok
}

func (r *reader) text(key, def string) string {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	s, ok := v.(string)
	if !ok {
		r.fail(key, "%v is not a text", v)
		return def
	}
	return s
}

// choice returns the index of the name given; the first is the default.
func (r *reader) choice(key string, names []string) int {
	got := r.text(key, names[0])
	for i, n := range names {
		if n == got {
			return i
		}
	}
	r.fail(key, "%q is none of %q%s", got, names, didYouMean(got, names))
	return 0
}

func (r *reader) boolean(key string, def bool) bool {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	b, ok := v.(bool)
	if !ok {
		r.fail(key, "%v is neither true nor false", v)
		return def
	}
	return b
}

func (r *reader) integer(key string, def, low, high int) int {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	var n int64
	switch x := v.(type) {
	case int64:
		n = x
	case int:
		n = int64(x)
	default:
		r.fail(key, "%v is not a whole number", v)
		return def
	}
	if n < int64(low) || n > int64(high) {
		r.fail(key, "%d is not in %d to %d", n, low, high)
		return def
	}
	return int(n)
}

// duration reads a text with a unit, such as "500ms".
func (r *reader) duration(key string, def, low, high time.Duration) time.Duration {
	v, ok := r.take(key)
	if !ok {
		return def
	}
	var d time.Duration
	switch x := v.(type) {
	case string:
		var err error
		if d, err = time.ParseDuration(x); err != nil {
			r.fail(key, "%q is not a duration with a unit, such as \"500ms\"", x)
			return def
		}
	case time.Duration:
		d = x
	default:
		r.fail(key, "%v is not a duration with a unit, such as \"500ms\"", v)
		return def
	}
	if d < low || d > high || d > math.MaxInt64/64 {
		r.fail(key, "%v is not in %v to %v", d, low, high)
		return def
	}
	return d
}

// refuse reports keys that are known but have no place here.
func (r *reader) refuse(why string, keys ...string) {
	for _, key := range keys {
		if _, ok := r.take(key); ok {
			r.fail(key, "%s", why)
		}
	}
}

// unknown reports keys that nothing has asked for.
func (r *reader) unknown() {
	names := make([]string, 0, len(r.known))
	for k := range r.known {
		names = append(names, k)
	}
	sort.Strings(names)
	var bad []string
	for k := range r.m {
		if !r.known[k] {
			bad = append(bad, k)
		}
	}
	sort.Strings(bad)
	for _, k := range bad {
		r.errs = append(r.errs, fmt.Errorf("unknown key %q%s", k, didYouMean(k, names)))
	}
}
