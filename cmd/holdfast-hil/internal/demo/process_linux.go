package demo

import "syscall"

// dieWithParent makes the kernel end a child when the demo itself is killed.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM, Setpgid: true}
}
