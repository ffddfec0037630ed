package i2cdev

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctl numbers and structures of include/uapi/linux/i2c-dev.h and i2c.h.
const (
	ioctlRetries = 0x0701 // I2C_RETRIES
	ioctlTimeout = 0x0702 // I2C_TIMEOUT, in units of 10 ms
	ioctlFuncs   = 0x0705 // I2C_FUNCS
	ioctlRdwr    = 0x0707 // I2C_RDWR

	funcI2C    = 0x00000001 // I2C_FUNC_I2C
	flagRead   = 0x0001     // I2C_M_RD
	mostAtOnce = 2          // messages of one of our transactions; the kernel takes 42
)

// kernelMsg is struct i2c_msg. The pointer keeps the buffer alive and gives the
// structure the padding that the C compiler gives it, on 32 and 64 bit.
type kernelMsg struct {
	addr  uint16
	flags uint16
	len   uint16
	buf   unsafe.Pointer
}

// kernelRdwr is struct i2c_rdwr_ioctl_data.
type kernelRdwr struct {
	msgs  unsafe.Pointer
	nmsgs uint32
}

// message is one direction of a transaction, in memory that belongs to it alone.
type message struct {
	addr uint16
	read bool
	buf  []byte
}

// kernel returns the message as the kernel has it. Its buffer is not empty.
func (m message) kernel() kernelMsg {
	k := kernelMsg{addr: m.addr, len: uint16(len(m.buf)), buf: unsafe.Pointer(&m.buf[0])}
	if m.read {
		k.flags = flagRead
	}
	return k
}

// adapter is what a Bus needs of the kernel. Tests put a scripted one here.
type adapter interface {
	// functions returns the I2C_FUNCS mask.
	functions() (uint64, error)
	// set performs one of the ioctls that take a plain number.
	set(request uint, value int) error
	// transfer performs I2C_RDWR and returns the number of messages that the
	// adapter says were transferred. It may never return.
	transfer(msgs []message) (int, error)
	close() error
}

// device is an adapter on an open /dev/i2c-N.
type device struct{ f *os.File }

func openDevice(path string) (adapter, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return device{f}, nil
}

func (d device) functions() (uint64, error) {
	// The kernel writes an unsigned long: half of this variable on 32-bit
	// machines, the low half, since all of ours are little-endian.
	var mask uint64
	_, err := d.ioctl(ioctlFuncs, uintptr(unsafe.Pointer(&mask)))
	runtime.KeepAlive(&mask)
	return mask, err
}

func (d device) set(request uint, value int) error {
	_, err := d.ioctl(request, uintptr(value))
	return err
}

func (d device) transfer(msgs []message) (int, error) {
	if len(msgs) > mostAtOnce {
		return 0, fmt.Errorf("%d messages in one transaction, at most %d", len(msgs), mostAtOnce)
	}
	// The buffers are pinned because a hung ioctl goes on using them after
	// everybody else has left.
	var pin runtime.Pinner
	defer pin.Unpin()
	raw := new([mostAtOnce]kernelMsg)
	for i, m := range msgs {
		pin.Pin(&m.buf[0])
		raw[i] = m.kernel()
	}
	pin.Pin(raw)
	arg := &kernelRdwr{msgs: unsafe.Pointer(raw), nmsgs: uint32(len(msgs))}
	pin.Pin(arg)
	return d.ioctl(ioctlRdwr, uintptr(unsafe.Pointer(arg)))
}

func (d device) close() error { return d.f.Close() }

// ioctl holds a reference to the descriptor while the call runs: Close during a
// hung ioctl returns, and the descriptor is given back when the ioctl does.
func (d device) ioctl(request uint, arg uintptr) (int, error) {
	conn, err := d.f.SyscallConn()
	if err != nil {
		return 0, err
	}
	var n uintptr
	var errno unix.Errno
	if err := conn.Control(func(fd uintptr) {
		for {
			n, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), arg)
			// A signal to the process, of which the Go runtime sends many, must
			// not fail a setting. A transfer is repeated only by its caller.
			if errno != unix.EINTR || request == ioctlRdwr {
				return
			}
		}
	}); err != nil {
		return 0, os.ErrClosed // the only reason, for which the runtime has an error of its own
	}
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
