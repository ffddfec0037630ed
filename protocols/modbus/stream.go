package modbus

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"holdfast/drivers/serial"
)

// A stream is an open connection or line.
type stream interface {
	io.ReadWriteCloser
	// SetDeadline bounds reads and, where that is possible, writes.
	SetDeadline(t time.Time) error
	// check reports whether the peer has ended the connection, without waiting
	// and without taking anything that has been received.
	check() error
	// discard throws away what has been received; an error as check.
	discard() error
}

// past is a deadline that has passed on any clock.
var past = time.Unix(1, 0)

// tcpStream is a stream on a TCP connection.
type tcpStream struct {
	net.Conn
	raw syscall.RawConn // nil when the connection is not a socket
}

func newTCPStream(c net.Conn) *tcpStream {
	s := &tcpStream{Conn: c}
	if sc, ok := c.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			s.raw = raw
		}
	}
	return s
}

// peek receives without waiting, with the flags given besides.
func (s *tcpStream) peek(b []byte, flags int) (n int, err error) {
	if s.raw == nil {
		return 0, syscall.EAGAIN
	}
	controlErr := s.raw.Control(func(fd uintptr) {
		n, _, err = syscall.Recvfrom(int(fd), b, flags|syscall.MSG_DONTWAIT)
	})
	if controlErr != nil {
		return 0, controlErr
	}
	return n, err
}

func (s *tcpStream) check() error {
	var b [1]byte
	return peekError(s.peek(b[:], syscall.MSG_PEEK))
}

// peekError turns the outcome of a receive that did not wait into that of check.
func peekError(n int, err error) error {
	switch {
	case errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EINTR):
		return nil
	case err != nil:
		return os.NewSyscallError("recv", err)
	case n == 0:
		return io.EOF
	}
	return nil
}

func (s *tcpStream) discard() error {
	var b [512]byte
	for range 1024 { // a peer that never stops is found out by the silence that RTU asks for
		n, err := s.peek(b[:], 0)
		if err != nil || n == 0 {
			return peekError(n, err)
		}
	}
	return errors.New("the peer sends without end")
}

// lineStream is a stream on a serial line.
type lineStream struct{ serial.Port }

func (s lineStream) SetDeadline(t time.Time) error {
	return errors.Join(s.SetReadDeadline(t), s.SetWriteDeadline(t))
}
func (s lineStream) check() error   { return nil }
func (s lineStream) discard() error { return s.Discard() }

// isTimeout reports whether a read ended by its deadline.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// lost describes the end of a connection for people.
func lost(err error) string {
	switch {
	case errors.Is(err, io.EOF):
		return "connection closed by the field device"
	case errors.Is(err, serial.ErrGone):
		return "the serial adapter is gone"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset by the field device"
	}
	return fmt.Sprintf("link failed: %v", err)
}
