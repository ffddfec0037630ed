package broker_test

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// patience bounds every wait of a test that is expected to end at once.
const patience = 20 * time.Second

// A house is a server under test with a listener.
type house struct {
	t       testing.TB
	backend *brokertest.Memory
	server  *broker.Server
	clock   *clocktest.Fake // nil: the machine's
	stuck   int             // clients that take nothing
	addr    net.Addr
	stop    context.CancelFunc
	stopped chan error
}

// open starts a server on a unix socket and stops it, checking that it can be
// stopped, when the test is over.
func open(t testing.TB, m *brokertest.Memory, o broker.Options) *house {
	t.Helper()
	return openOn(t, m, o, listen(t), broker.ListenerOptions{Name: "test"})
}

func openOn(t testing.TB, m *brokertest.Memory, o broker.Options, l net.Listener, lo broker.ListenerOptions) *house {
	t.Helper()
	return start(t, m, o).listen(l, lo)
}

// listen makes h take connections from l.
func (h *house) listen(l net.Listener, lo broker.ListenerOptions) *house {
	h.addr = l.Addr()
	go h.server.Serve(context.Background(), l, lo)
	return h
}

// start starts a server without listeners.
func start(t testing.TB, m *brokertest.Memory, o broker.Options) *house {
	return startWith(t, m, m, o)
}

// startWith starts a server with a backend that stands before m.
func startWith(t testing.TB, b broker.Backend, m *brokertest.Memory, o broker.Options) *house {
	h := &house{t: t, backend: m, server: broker.New(b, o), stopped: make(chan error, 1)}
	h.clock, _ = o.Clock.(*clocktest.Fake)
	ctx, cancel := context.WithCancel(context.Background())
	h.stop = cancel
	go func() { h.stopped <- h.server.Run(ctx) }()
	t.Cleanup(func() {
		if err := h.shutdown(); err != nil {
			t.Error("Run:", err)
		}
	})
	return h
}

// shutdown stops the server and returns what Run said. A fake clock is moved
// until it says it.
func (h *house) shutdown() error {
	h.stop()
	end := time.After(patience)
	for {
		select {
		case err := <-h.stopped:
			h.stopped <- err
			return err
		case <-time.After(time.Millisecond):
			if h.clock != nil {
				h.clock.Advance(500 * time.Millisecond)
			}
		case <-end:
			return errors.New("it does not end")
		}
	}
}

// pass lets d pass on the fake clock, in steps that the sweep can follow. It
// begins when the server has done all that it had to do.
func (h *house) pass(d time.Duration) {
	h.t.Helper()
	before, same := uint64(0), 0
	eventually(h.t, "rest", func() bool {
		k := h.server.Counters()
		if n := k.BytesOut.Load() + k.BytesIn.Load(); n != before || !h.server.Resting(h.stuck) {
			before, same = n, 0
			return false
		}
		same++
		return h.stuck == 0 || same > 50 // a stuck client's buffers may not be full yet
	})
	const step = 500 * time.Millisecond
	for ; d > 0; d -= step {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		if err := h.clock.WaitArmed(ctx, 1); err != nil {
			h.t.Fatal(err)
		}
		cancel()
		h.clock.Advance(min(d, step))
	}
}

// eventually waits for a condition that other goroutines bring about.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

// A client is the other end of a connection, byte by byte.
type client struct {
	t  testing.TB
	nc net.Conn
	r  *bufio.Reader
	v  byte
}

func (h *house) dial() *client {
	h.t.Helper()
	nc, err := net.Dial(h.addr.Network(), h.addr.String())
	if err != nil {
		h.t.Fatal(err)
	}
	return newClient(h.t, nc)
}

func newClient(t testing.TB, nc net.Conn) *client {
	t.Cleanup(func() { nc.Close() })
	return &client{t: t, nc: nc, r: bufio.NewReaderSize(nc, 64<<10)}
}

// connect dials and connects with the given CONNECT; it requires a welcome.
func (h *house) connect(p []byte) *client {
	h.t.Helper()
	c := h.dial()
	c.connect(p)
	return c
}

// join is connect with the plainest CONNECT.
func (h *house) join(version byte, id string, clean bool) *client {
	h.t.Helper()
	o := hello{version: version, id: id, clean: clean}
	if version == 5 && !clean {
		o.props = []byte{17, 0xff, 0xff, 0xff, 0xff}
	}
	return h.connect(o.packet())
}

// connect sends a CONNECT and returns the CONNACK's body, which must be a
// welcome.
func (c *client) connect(p []byte) []byte {
	c.t.Helper()
	c.send(p)
	first, body := c.packet()
	if first != 0x20 || len(body) < 2 || body[1] != 0 {
		c.t.Fatalf("CONNACK is %x % x", first, body)
	}
	n := 0
	if _, n = binary.Uvarint(p[1:]); p[1+n+6] == 5 {
		c.v = 5
	} else {
		c.v = 4
	}
	return body
}

func (c *client) send(packets ...[]byte) {
	c.t.Helper()
	var all []byte
	for _, p := range packets {
		all = append(all, p...)
	}
	c.nc.SetWriteDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write(all); err != nil {
		c.t.Fatalf("sending % x: %v", all, err)
	}
}

// read returns the next packet.
func (c *client) read() (first byte, body []byte, err error) {
	c.nc.SetReadDeadline(time.Now().Add(patience))
	if first, err = c.r.ReadByte(); err != nil {
		return 0, nil, err
	}
	n, err := binary.ReadUvarint(c.r)
	if err != nil {
		return 0, nil, err
	}
	body = make([]byte, n)
	_, err = io.ReadFull(c.r, body)
	return first, body, err
}

func (c *client) packet() (first byte, body []byte) {
	c.t.Helper()
	first, body, err := c.read()
	if err != nil {
		c.t.Fatalf("waiting for a packet: %v", err)
	}
	return first, body
}

// expect requires exactly these bytes next.
func (c *client) expect(what string, want ...byte) {
	c.t.Helper()
	first, body, err := c.read()
	if err != nil {
		c.t.Fatalf("%s: waiting for % x: %v", what, want, err)
	}
	if got := pack(first, body); string(got) != string(want) {
		c.t.Fatalf("%s: got % x, want % x", what, got, want)
	}
}

// expectPublish requires a PUBLISH next and returns its packet identifier.
func (c *client) expectPublish(qos byte, dup bool, payload string) (id uint16) {
	c.t.Helper()
	p := c.published()
	if p.qos != qos || p.dup != dup || p.payload != payload {
		c.t.Fatalf("got PUBLISH qos %d dup %v %q, want qos %d dup %v %q", p.qos, p.dup, p.payload, qos, dup, payload)
	}
	return p.id
}

type published struct {
	topic, payload string
	qos            byte
	dup, retain    bool
	id             uint16
	props          []byte
}

// published requires a PUBLISH next.
func (c *client) published() (p published) {
	c.t.Helper()
	first, body := c.packet()
	if first>>4 != 3 {
		c.t.Fatalf("got packet %x % x, want PUBLISH", first, body)
	}
	p.qos, p.dup, p.retain = first>>1&3, first&8 != 0, first&1 != 0
	n := int(binary.BigEndian.Uint16(body))
	p.topic, body = string(body[2:2+n]), body[2+n:]
	if p.qos > 0 {
		p.id, body = binary.BigEndian.Uint16(body), body[2:]
	}
	if c.v == 5 {
		n, used := binary.Uvarint(body)
		p.props, body = body[used:used+int(n)], body[used+int(n):]
	}
	p.payload = string(body)
	return p
}

// ping requires that the connection lives and that nothing but the answer
// comes.
func (c *client) ping() {
	c.t.Helper()
	c.send([]byte{0xc0, 0})
	c.expect("PINGRESP", 0xd0, 0)
}

// closed requires that the server closes the connection without a word.
func (c *client) closed() {
	c.t.Helper()
	if first, body, err := c.read(); err == nil {
		c.t.Fatalf("got %x % x, want the end of the connection", first, body)
	} else if errors.Is(err, os.ErrDeadlineExceeded) {
		c.t.Fatal("the connection does not end")
	}
}

// disconnected requires a DISCONNECT with the code, and the end.
func (c *client) disconnected(code byte) {
	c.t.Helper()
	if c.v == 5 {
		first, body := c.packet()
		if first != 0xe0 || len(body) == 0 || body[0] != code {
			c.t.Fatalf("got %x % x, want DISCONNECT with %#x", first, body, code)
		}
	}
	c.closed()
}

func (c *client) subscribe(filter string, qos byte) {
	c.t.Helper()
	c.send(subscribe(c.v, 1, filter, qos))
	if c.v == 5 {
		c.expect("SUBACK", 0x90, 4, 0, 1, 0, qos)
	} else {
		c.expect("SUBACK", 0x90, 3, 0, 1, qos)
	}
}

// Packets of a client.

func pack(first byte, body []byte) []byte {
	return append(binary.AppendUvarint([]byte{first}, uint64(len(body))), body...)
}

func text(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func join(parts ...[]byte) (all []byte) {
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

func u16(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }

// hello is a CONNECT.
type hello struct {
	version   byte
	id        string
	clean     bool
	keepAlive uint16
	flags     byte   // more flags
	props     []byte // MQTT 5
	rest      []byte // after the client identifier
}

func (h hello) packet() []byte {
	flags := h.flags
	if h.clean {
		flags |= 2
	}
	b := append(text("MQTT"), h.version, flags)
	b = append(b, u16(h.keepAlive)...)
	if h.version == 5 {
		b = append(b, byte(len(h.props)))
		b = append(b, h.props...)
	}
	return pack(0x10, join(b, text(h.id), h.rest))
}

// publish is a PUBLISH without properties.
func publish(version byte, topic string, qos byte, id uint16, payload string) []byte {
	return publishWith(version, 0x30|qos<<1, topic, id, nil, payload)
}

func publishWith(version, first byte, topic string, id uint16, props []byte, payload string) []byte {
	b := text(topic)
	if first&6 != 0 {
		b = append(b, u16(id)...)
	}
	if version == 5 {
		b = append(b, byte(len(props)))
		b = append(b, props...)
	}
	return pack(first, append(b, payload...))
}

func subscribe(version byte, id uint16, filter string, options byte) []byte {
	b := u16(id)
	if version == 5 {
		b = append(b, 0)
	}
	return pack(0x82, join(b, text(filter), []byte{options}))
}

// acknowledge is a PUBACK, PUBREC, PUBREL or PUBCOMP.
func acknowledge(kind byte, id uint16) []byte {
	first := kind << 4
	if kind == 6 {
		first |= 2
	}
	return pack(first, u16(id))
}

// versions runs a test with both protocol versions.
func versions(t *testing.T, f func(t *testing.T, v byte)) {
	for _, v := range []byte{4, 5} {
		t.Run(fmt.Sprintf("v%d", v), func(t *testing.T) { f(t, v) })
	}
}

// nowhere is a listener that nobody reaches.
type nowhere struct{}

func (nowhere) Accept() (net.Conn, error) { return nil, net.ErrClosed }
func (nowhere) Close() error              { return nil }
func (nowhere) Addr() net.Addr            { return &net.UnixAddr{Name: "nowhere", Net: "unix"} }

// listen opens a unix socket with a short name.
func listen(t testing.TB) net.Listener {
	t.Helper()
	dir, err := os.MkdirTemp("", "hf") // short: a socket's path has 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	return l
}
