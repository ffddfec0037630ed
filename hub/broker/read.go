package broker

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
)

// recvState is what the reading callback of a plain socket leaves behind.
type recvState struct {
	call   func(fd uintptr) bool // made once: a closure per read would be garbage
	n      int
	err    error
	waited bool
}

// fill reads what is there, at least one byte, behind what is left. While it
// waits without anything left, the connection holds no buffer.
func (c *conn) fill() error {
	read := c.fillStream
	if c.sock != nil {
		read = c.fillSocket
	}
	n, err := read()
	if err != nil {
		return err
	}
	c.adapt(n)
	c.tally.bytes += uint64(n)
	return nil
}

// fillSocket reads a plain socket: the buffer is taken after the socket has
// become readable and given back when it turns out that it is not.
func (c *conn) fillSocket() (int, error) {
	r := &c.recv
	if r.call == nil {
		r.call = c.receive
	}
	r.n, r.err = 0, nil
	err := c.sock.Read(r.call)
	if r.waited {
		r.waited = false
		c.idleSince.Store(0)
	}
	if err == nil {
		err = r.err
	}
	if err == nil && r.n == 0 {
		err = io.EOF
	}
	if err != nil {
		return 0, err
	}
	c.end += r.n
	return r.n, nil
}

// receive is one attempt to read. It returns false to be called again when
// there is something.
func (c *conn) receive(fd uintptr) bool {
	r := &c.recv
	c.makeRoom()
	for {
		r.n, r.err = syscall.Read(int(fd), c.in.b[c.end:])
		switch r.err {
		case syscall.EINTR:
			continue
		case syscall.EAGAIN:
			if c.off == c.end {
				c.s.buffers.release(c.in)
				c.in, c.off, c.end = nil, 0, 0
			}
			r.waited = true
			c.idleSince.Store(c.s.now.Load())
			return false
		}
		return true
	}
}

// fillStream reads a connection that has buffers of its own, TLS or WebSocket.
// It waits with one byte; no packet is that short, so nothing waits for the
// second read.
func (c *conn) fillStream() (int, error) {
	c.idleSince.Store(c.s.now.Load())
	defer c.idleSince.Store(0)
	first := 0
	if c.off == c.end {
		if c.in != nil {
			c.s.buffers.release(c.in)
			c.in = nil
		}
		var one [1]byte
		if n, err := c.nc.Read(one[:]); n == 0 {
			return 0, errOrEOF(err)
		}
		c.makeRoom()
		c.in.b[0] = one[0]
		c.end, first = 1, 1
	}
	c.makeRoom()
	n, err := c.nc.Read(c.in.b[c.end:])
	if n == 0 {
		return 0, errOrEOF(err)
	}
	c.end += n
	return first + n, nil
}

func errOrEOF(err error) error {
	if err == nil {
		return io.ErrNoProgress
	}
	return err
}

// makeRoom makes sure that something can be read behind c.end. A packet that is
// said to be large gets its room as it comes, not as it is announced.
func (c *conn) makeRoom() {
	switch {
	case c.in == nil:
		c.in, c.off, c.end = c.s.buffers.get(bufferSizes[c.class]), 0, 0
	case c.end == len(c.in.b):
		c.moveTo(max(bufferSizes[c.class], min(c.need, 2*len(c.in.b))))
	}
}

// moveTo moves what is left of in to the front of a buffer of the given size,
// which is in itself if that is large enough and nobody else reads it.
func (c *conn) moveTo(size int) {
	left := c.in.b[c.off:c.end]
	if len(c.in.b) >= size && len(left) < len(c.in.b) && c.in.refs.Load() == 1 {
		c.off, c.end = 0, copy(c.in.b, left)
		return
	}
	b := c.s.buffers.get(max(size, len(left)+1))
	n := copy(b.b, left)
	c.s.buffers.release(c.in)
	c.in, c.off, c.end = b, 0, n
}

// keepRest lets go of the packets that were handled.
func (c *conn) keepRest() {
	switch {
	case c.in == nil:
	case c.off == c.end:
		if c.in.refs.Load() > 1 {
			c.s.buffers.release(c.in)
			c.in = nil
		}
		c.off, c.end = 0, 0
	case c.off > 0 || c.in.refs.Load() > 1:
		c.moveTo(max(bufferSizes[c.class], min(c.need, len(c.in.b))))
	}
}

// adapt chooses the size of the next buffer after a read of n bytes.
func (c *conn) adapt(n int) {
	switch {
	case c.end == len(c.in.b):
		c.small = 0
		c.class = min(c.class+1, len(bufferSizes)-1)
	case c.class == 0 || n > bufferSizes[c.class-1]:
		c.small = 0
	default:
		if c.small++; c.small == 8 {
			c.small = 0
			c.class--
		}
	}
}

// lost ends the connection after a read has failed.
func (c *conn) lost(err error) {
	reason := "the client closed the connection without DISCONNECT"
	if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrDeadlineExceeded) {
		reason = "the connection was lost: " + err.Error()
	}
	c.shut(ending{Detachment: Detachment{Reason: reason}})
}

// sayNoMore ends the stream to the client, which has been told everything.
func (c *conn) sayNoMore() {
	if t, ok := c.nc.(*tls.Conn); ok {
		t.CloseWrite()
	}
	if w, ok := c.raw.(interface{ CloseWrite() error }); ok {
		w.CloseWrite()
	}
}

// linger reads until the client has gone, so that it can read what it was told:
// closing a socket with unread input makes the kernel throw the output away. The
// sweep bounds it.
func (c *conn) linger() {
	c.raw.SetReadDeadline(time.Time{})
	b := c.s.buffers.get(bufferSizes[0])
	defer c.s.buffers.release(b)
	for {
		if _, err := c.raw.Read(b.b); err != nil {
			return
		}
	}
}
