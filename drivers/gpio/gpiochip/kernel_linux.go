package gpiochip

import (
	"fmt"
	"os"

	"github.com/warthog618/go-gpiocdev"
	"github.com/warthog618/go-gpiocdev/uapi"
	"golang.org/x/sys/unix"

	"holdfast/drivers/gpio"
)

// kernel is what a Host needs of Linux. Tests put a scripted one here.
type kernel interface {
	chips() ([]chip, error)
	// request takes a line. The file it returns is non-blocking.
	request(chip string, r *uapi.LineRequest) (*os.File, error)
	values(f *os.File) (gpio.Level, error)
	set(f *os.File, l gpio.Level) error
}

// chip is one GPIO chip and its lines, or the reason why they are not known.
type chip struct {
	name  string
	lines []lineInfo
	err   error
}

type lineInfo struct{ name, consumer string }

// check returns an error if the chip has no such line.
func (c chip) check(ref gpio.Ref) error {
	switch {
	case c.err != nil:
		return permissionHint(c.err)
	case ref.Offset >= len(c.lines):
		return fmt.Errorf("%w: %s has lines 0 to %d", gpio.ErrNoLine, c.name, len(c.lines)-1)
	}
	return nil
}

// device is the kernel itself.
type device struct{}

func (device) chips() ([]chip, error) {
	var chips []chip
	for _, name := range gpiocdev.Chips() {
		chips = append(chips, readChip(name))
	}
	return chips, nil
}

func readChip(name string) chip {
	c := chip{name: name}
	g, err := gpiocdev.NewChip(name)
	if err != nil {
		c.err = err
		return c
	}
	defer g.Close()
	for offset := range g.Lines() {
		info, err := g.LineInfo(offset)
		if err != nil {
			c.err = fmt.Errorf("line %d: %w", offset, err)
			return c
		}
		c.lines = append(c.lines, lineInfo{info.Name, info.Consumer})
	}
	return c
}

func (device) request(chip string, r *uapi.LineRequest) (*os.File, error) {
	c, err := os.OpenFile("/dev/"+chip, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	if err := control(c, func(fd uintptr) error { return uapi.GetLine(fd, r) }); err != nil {
		return nil, err
	}
	// Non-blocking, so that the runtime can wait for edges with deadlines.
	if err := unix.SetNonblock(int(r.Fd), true); err != nil {
		unix.Close(int(r.Fd))
		return nil, err
	}
	return os.NewFile(uintptr(r.Fd), fmt.Sprintf("%s:%d", chip, r.Offsets[0])), nil
}

func (device) values(f *os.File) (gpio.Level, error) {
	v := uapi.LineValues{Mask: 1}
	err := control(f, func(fd uintptr) error { return uapi.GetLineValuesV2(fd, &v) })
	return v.Get(0) != 0, err
}

func (device) set(f *os.File, l gpio.Level) error {
	v := uapi.LineValues{Mask: 1}
	if l {
		v.Bits = 1
	}
	return control(f, func(fd uintptr) error { return uapi.SetLineValuesV2(fd, v) })
}

// control runs an access on the descriptor, which stays open meanwhile. Accesses
// that a signal interrupted are repeated: they set or read a state.
func control(f *os.File, access func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) {
		for {
			if inner = access(fd); inner != unix.EINTR {
				return
			}
		}
	}); err != nil {
		return os.ErrClosed // the only reason, for which the runtime has an error of its own
	}
	return inner
}
