package broker

import (
	"net"
	"syscall"
)

// plainSocket returns the raw side of a TCP or unix socket, or nil.
func plainSocket(nc net.Conn) syscall.RawConn {
	switch s := nc.(type) {
	case *net.TCPConn:
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	case *net.UnixConn:
		if raw, err := s.SyscallConn(); err == nil {
			return raw
		}
	}
	return nil
}

// peerCredentials asks the kernel who is at the other end of a unix socket.
func peerCredentials(nc net.Conn) *PeerCredentials {
	u, ok := nc.(*net.UnixConn)
	if !ok {
		return nil
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return nil
	}
	var cred *syscall.Ucred
	if raw.Control(func(fd uintptr) {
		cred, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}) != nil || err != nil {
		return nil
	}
	return &PeerCredentials{PID: int(cred.Pid), UID: int(cred.Uid), GID: int(cred.Gid)}
}
