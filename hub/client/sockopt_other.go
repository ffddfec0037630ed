//go:build !linux

package client

import (
	"net"
	"time"
)

// setUserTimeout has no portable form; the bound is kept without it.
func setUserTimeout(net.Conn, time.Duration) {}
