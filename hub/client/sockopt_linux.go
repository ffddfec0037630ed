package client

import (
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout makes the kernel give up on bytes that nobody acknowledges
// for d (tcp(7), TCP_USER_TIMEOUT), so that a dead link's socket does not
// linger. It is an aid: the bound is kept without it, so errors do not matter.
func setUserTimeout(nc net.Conn, d time.Duration) {
	t, ok := nc.(*net.TCPConn)
	if !ok {
		return
	}
	if raw, err := t.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d.Milliseconds()))
		})
	}
}
