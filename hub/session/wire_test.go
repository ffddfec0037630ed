package session

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
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/drivers/disk/disktest"
	"holdfast/hub/broker"
)

// These tests put the engine in front, and speak MQTT over real sockets byte by
// byte, because the probes are about packet identifiers that a client library
// would hide.

// serve puts a broker in front of the hub and returns its address. It is also
// how a program wires the two: the hub runs until the broker has ended.
func (w *house) serve() string {
	w.t.Helper()
	dir, err := os.MkdirTemp("", "hf") // short: a socket's path has 107 bytes
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		w.t.Fatal(err)
	}
	server := broker.New(w.hub, broker.Options{})
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go server.Serve(ctx, l, broker.ListenerOptions{Name: "test"})
	go func() {
		defer close(ended)
		if err := server.Run(ctx); err != nil {
			w.t.Error("broker:", err)
		}
	}()
	w.t.Cleanup(func() {
		stop()
		<-ended
	})
	return l.Addr().String()
}

// wire is a raw MQTT connection. Its methods end the test when something else
// comes than they wait for.
type wire struct {
	t       testing.TB
	c       net.Conn
	r       *bufio.Reader
	version byte
	queued  []packet // PUBLISH that came while something else was awaited
}

type packet struct {
	kind, flags byte
	body        []byte
}

func dial(t testing.TB, addr string, version byte, id string, persistent bool, props ...byte) (w *wire, present bool) {
	t.Helper()
	c, err := net.Dial("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	w = &wire{t: t, c: c, r: bufio.NewReader(c), version: version}
	flags := byte(2)
	if persistent {
		flags = 0
	}
	b := append(text("MQTT"), version, flags, 0, 0)
	if version == 5 {
		if persistent {
			props = append(props, 0x11, 0xff, 0xff, 0xff, 0xff)
		}
		b = append(append(b, byte(len(props))), props...)
	}
	w.write(0x10, append(b, text(id)...))
	p := w.await(2)
	if p.body[1] != 0 {
		t.Fatalf("connect %q refused with %#x", id, p.body[1])
	}
	return w, p.body[0]&1 != 0
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

func (w *wire) write(first byte, body []byte) {
	w.t.Helper()
	b := []byte{first}
	for n := len(body); ; {
		d := byte(n & 127)
		if n >>= 7; n > 0 {
			b = append(b, d|128)
			continue
		}
		b = append(b, d)
		break
	}
	if _, err := w.c.Write(append(b, body...)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *wire) read() (packet, error) {
	first, err := w.r.ReadByte()
	if err != nil {
		return packet{}, err
	}
	n, err := binary.ReadUvarint(w.r)
	if err != nil {
		return packet{}, err
	}
	p := packet{first >> 4, first & 15, make([]byte, n)}
	_, err = io.ReadFull(w.r, p.body)
	return p, err
}

// await returns the next packet of a kind and keeps publications for later.
func (w *wire) await(kind byte) packet {
	w.t.Helper()
	for {
		w.c.SetReadDeadline(time.Now().Add(patience))
		p, err := w.read()
		if err != nil {
			w.t.Fatalf("waiting for a packet of kind %d: %v", kind, err)
		}
		if p.kind == kind {
			return p
		}
		if p.kind != 3 {
			w.t.Fatalf("got a packet of kind %d, want %d", p.kind, kind)
		}
		w.queued = append(w.queued, p)
	}
}

func (w *wire) subscribe(filter string, qos byte) {
	w.t.Helper()
	b := []byte{0, 1}
	if w.version == 5 {
		b = append(b, 0)
	}
	w.write(0x82, append(append(b, text(filter)...), qos))
	if p := w.await(9); p.body[len(p.body)-1] != qos {
		w.t.Fatalf("subscription answered with %#x", p.body[len(p.body)-1])
	}
}

func (w *wire) publish(topic, payload string, id uint16) {
	w.t.Helper()
	b := binary.BigEndian.AppendUint16(text(topic), id)
	if w.version == 5 {
		b = append(b, 0)
	}
	w.write(0x32, append(b, payload...))
}

func (w *wire) puback(id uint16) { w.write(0x40, []byte{byte(id >> 8), byte(id)}) }

// came is a PUBLISH of QoS 1.
type came struct {
	id      uint16
	payload string
	dup     bool
}

// receive returns the next publication.
func (w *wire) receive() came {
	w.t.Helper()
	var p packet
	if len(w.queued) > 0 {
		p, w.queued = w.queued[0], w.queued[1:]
	} else {
		p = w.await(3)
	}
	n := 2 + int(binary.BigEndian.Uint16(p.body))
	d := came{dup: p.flags&8 != 0}
	if p.flags&6 != 0 {
		d.id = binary.BigEndian.Uint16(p.body[n:])
		n += 2
	}
	if w.version == 5 {
		n += 1 + int(p.body[n])
	}
	d.payload = string(p.body[n:])
	return d
}

// silent checks that nothing comes for a while.
func (w *wire) silent() {
	w.t.Helper()
	w.c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if p, err := w.read(); !errors.Is(err, os.ErrDeadlineExceeded) {
		w.t.Fatalf("unexpected packet %+v %v", p, err)
	}
}

// publishAll publishes with a window and waits for every PUBACK.
func (w *wire) publishAll(topic string, list []string) {
	w.t.Helper()
	acked, next := 0, 0
	for acked < len(list) {
		for next < len(list) && next-acked < 100 {
			w.publish(topic, list[next], uint16(next%65000+1))
			next++
		}
		w.await(4)
		acked++
	}
}

// The four probes: each is a clean rule of QoS 1 that brokers break.

func TestProbeSamePacketIdentifiersBothWays(t *testing.T) {
	for _, version := range []byte{4, 5} {
		w := open(t, disktest.New(), Options{})
		addr := w.serve()
		c, _ := dial(t, addr, version, "c", true)
		c.subscribe("in", 1)
		p, _ := dial(t, addr, version, "p", false)
		p.publishAll("in", numbers("", 0, 5))
		var ids []uint16
		for range 5 {
			ids = append(ids, c.receive().id)
		}
		for _, id := range ids {
			c.publish("out", "x", id)
			c.await(4)
		}
		c.c.Close()
		c, present := dial(t, addr, version, "c", true)
		if !present {
			t.Error("the session is gone")
		}
		for i := range 5 {
			if d := c.receive(); d.payload != fmt.Sprint(i) || !d.dup || d.id != ids[i] {
				t.Errorf("version %d: message %d came again as %+v", version, i, d)
			}
			c.puback(ids[i])
		}
		c.silent()
	}
}

func TestProbeOfflineOrder(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	addr := w.serve()
	c, _ := dial(t, addr, 4, "c", true)
	c.subscribe("in", 1)
	c.c.Close()
	p, _ := dial(t, addr, 4, "p", false)
	p.publishAll("in", numbers("", 0, 200))
	c, _ = dial(t, addr, 4, "c", true)
	for i := range 200 {
		d := c.receive()
		if d.payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %+v", i, d)
		}
		c.puback(d.id)
	}
}

func TestProbeReceiveMaximum(t *testing.T) {
	w := open(t, disktest.New(), Options{})
	addr := w.serve()
	limit := []byte{0x21, 0, 2}
	c, _ := dial(t, addr, 5, "c", true, limit...)
	c.subscribe("in", 1)
	p, _ := dial(t, addr, 4, "p", false)
	p.publishAll("in", numbers("", 0, 6))
	first := c.receive()
	c.receive()
	c.silent()
	c.puback(first.id)
	if d := c.receive(); d.payload != "2" {
		t.Fatalf("after the first acknowledgement came %+v", d)
	}
	c.silent()
	c.c.Close()
	c, _ = dial(t, addr, 5, "c", true, limit...)
	for i := 1; i < 6; i++ {
		d := c.receive()
		if d.payload != fmt.Sprint(i) || d.dup != (i < 3) {
			t.Errorf("message %d is %+v", i, d)
		}
		c.puback(d.id)
	}
	c.silent()
}

func TestProbeTwentyThousandOffline(t *testing.T) {
	const n = 20_000
	w := open(t, disktest.New(), Options{})
	addr := w.serve()
	c, _ := dial(t, addr, 4, "c", true)
	c.subscribe("in/#", 1)
	c.c.Close()
	p, _ := dial(t, addr, 4, "p", false)
	p.publishAll("in/x", numbers("", 0, n))
	c, _ = dial(t, addr, 4, "c", true)
	for i := range n {
		d := c.receive()
		if d.payload != fmt.Sprint(i) {
			t.Fatalf("message %d is %+v", i, d)
		}
		c.puback(d.id)
	}
	c.silent()
}

// TestSlowReaderDoesNotHoldUpOthers has one subscriber that never reads.
func TestSlowReaderDoesNotHoldUpOthers(t *testing.T) {
	const n = 5000
	w := open(t, disktest.New(), Options{RingBytes: 256 << 10, MaxPending: 500})
	addr := w.serve()
	stuck, _ := dial(t, addr, 4, "stuck", true)
	stuck.subscribe("in", 1)
	quick, _ := dial(t, addr, 4, "quick", false)
	quick.subscribe("in", 1)
	var bad atomic.Pointer[string]
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range n {
			quick.c.SetReadDeadline(time.Now().Add(patience))
			p, err := quick.read()
			if err != nil || !strings.HasSuffix(string(p.body), fmt.Sprintf("#%d", i)) {
				s := fmt.Sprintf("message %d: %v", i, err)
				bad.Store(&s)
				return
			}
			id := p.body[4:6]
			quick.c.Write([]byte{0x40, 2, id[0], id[1]})
		}
	}()
	p, _ := dial(t, addr, 4, "p", false)
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("%1000s#%d", "", i))
	}
	p.publishAll("in", list)
	<-done
	if s := bad.Load(); s != nil {
		t.Fatal(*s)
	}
	st := w.hub.Status().Sessions
	if i := slices.IndexFunc(st, func(s SessionStatus) bool { return s.Client == "stuck" }); !st[i].Behind {
		t.Errorf("the stuck session: %+v", st[i])
	}
}
