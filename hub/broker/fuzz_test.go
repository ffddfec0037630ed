package broker_test

import (
	"context"
	"net"
	"runtime"
	"testing"
	"time"

	"holdfast/hub/broker"
	"holdfast/hub/broker/brokertest"
)

// FuzzConnection feeds a connection anything, before and after a welcome, over
// a plain socket and over a byte stream. It must end when the client goes, and
// must not have taken more memory than what was sent can justify.
func FuzzConnection(f *testing.F) {
	for _, v := range []byte{4, 5} {
		f.Add(byte(0), join(hello{version: v, id: "x", clean: true}.packet(), subscribe(v, 1, "#", 1), publish(v, "t", 1, 1, "p")))
		f.Add(v, join(publish(v, "t", 2, 1, "p"), acknowledge(6, 1), subscribe(v, 1, "$share/g/+/#", 2)))
		f.Add(v, join(subscribe(v, 1, "#", 2), publish(v, "t", 2, 9, "p"), acknowledge(5, 1), acknowledge(7, 1), []byte{0xe0, 0}))
		f.Add(v|0x80, join([]byte{0x30, 0xff, 0xff, 0x03}, make([]byte, 100)))
	}
	f.Add(byte(5), publishWith(5, 0x32, "t", 3, []byte{35, 0, 1, 2, 0, 0, 0, 9, 38, 0, 1, 'a', 0, 1, 'b', 8, 0, 1, 'r'}, "p"))
	f.Add(byte(5), pack(0x82, join([]byte{0, 1, 2, 11, 5}, text("a"), []byte{0x2e}, text("b"), []byte{1})))
	f.Add(byte(5), []byte{0xe0, 7, 4, 5, 17, 0, 0, 0, 1})
	f.Add(byte(5), []byte{0xf0, 2, 0x18, 0})
	h := open(f, &brokertest.Memory{}, broker.Options{MaxPacketSize: 1 << 20})
	pipes := pipeListener{make(chan net.Conn)}
	ctx, cancel := context.WithCancel(context.Background())
	f.Cleanup(cancel)
	go h.server.Serve(ctx, pipes, broker.ListenerOptions{})
	var before, after runtime.MemStats
	f.Fuzz(func(t *testing.T, mode byte, data []byte) {
		runtime.ReadMemStats(&before)
		var nc net.Conn
		if mode&0x80 != 0 {
			var server net.Conn
			nc, server = net.Pipe()
			pipes.ch <- server
		} else {
			var err error
			if nc, err = net.Dial(h.addr.Network(), h.addr.String()); err != nil {
				t.Fatal(err)
			}
		}
		c := newClient(t, nc)
		if v := mode & 7; v == 4 || v == 5 {
			c.connect(hello{version: v, id: "fuzz", clean: true}.packet())
		}
		go func() {
			nc.SetWriteDeadline(time.Now().Add(patience))
			nc.Write(data)
			if w, ok := nc.(*net.UnixConn); ok {
				w.CloseWrite()
			} else {
				nc.Close()
			}
		}()
		for {
			if _, _, err := c.read(); err != nil {
				break
			}
		}
		nc.Close()
		eventually(t, "leaving", func() bool { return h.server.Counters().Connections.Load() == 0 })
		runtime.ReadMemStats(&after)
		if got, most := after.TotalAlloc-before.TotalAlloc, uint64(4<<20+64*len(data)); got > most {
			t.Errorf("%d bytes of input made it allocate %d", len(data), got)
		}
	})
}

// pipeListener accepts what is put into it.
type pipeListener struct{ ch chan net.Conn }

func (l pipeListener) Accept() (net.Conn, error) {
	nc, ok := <-l.ch
	if !ok {
		return nil, net.ErrClosed
	}
	return nc, nil
}
func (l pipeListener) Close() error {
	defer func() { recover() }()
	close(l.ch)
	return nil
}
func (l pipeListener) Addr() net.Addr { return &net.UnixAddr{Name: "pipe", Net: "unix"} }

// A packet that is announced as large and does not come costs no memory.
func TestAnnouncedPacketsCostNothing(t *testing.T) {
	h := open(t, &brokertest.Memory{}, broker.Options{MaxPacketSize: 64 << 20})
	const n = 50
	var clients []*client
	for range n {
		clients = append(clients, h.join(5, "", true))
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for _, c := range clients {
		c.send([]byte{0x30, 0x80, 0x80, 0x80, 0x1f, 0, 1, 't', 0}, make([]byte, 9000)) // 64 MiB to come
	}
	eventually(t, "reading", func() bool { return h.server.Counters().BytesIn.Load() >= n*9000 && h.server.Resting(0) })
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > n*64<<10 {
		t.Errorf("%d bytes for each connection", got/n)
	}
}
