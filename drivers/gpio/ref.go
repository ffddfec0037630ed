package gpio

import (
	"fmt"
	"strconv"
	"strings"
)

// A Ref says which line is meant: by the name that the board's device tree gives
// it, or by chip and offset.
type Ref struct {
	Name   string // "DOOR"; empty if the line is meant by chip and offset
	Chip   string // "gpiochip0"
	Offset int
}

// ParseRef reads the name of a line: "gpiochip0:17", "/dev/gpiochip0:17" or a
// line name such as "DOOR". Line names may contain anything but a gpiochip before
// a colon.
func ParseRef(text string) (Ref, error) {
	if text == "" || text != strings.TrimSpace(text) {
		return Ref{}, fmt.Errorf("gpio line %q: want a line name or gpiochipN:offset", text)
	}
	chip, offset, ok := strings.Cut(strings.TrimPrefix(text, "/dev/"), ":")
	number, isChip := strings.CutPrefix(chip, "gpiochip")
	if !ok || !isChip {
		if strings.HasPrefix(text, "/dev/") || isChip && number != "" && isNumber(number) {
			return Ref{}, fmt.Errorf("gpio line %q: offset missing, want gpiochipN:offset", text)
		}
		return Ref{Name: text}, nil
	}
	n, err := strconv.ParseUint(offset, 10, 16)
	if err != nil || !isNumber(offset) || !isNumber(number) {
		return Ref{}, fmt.Errorf("gpio line %q: want gpiochipN:offset", text)
	}
	return Ref{Chip: chip, Offset: int(n)}, nil
}

func isNumber(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// String returns the form that ParseRef reads.
func (r Ref) String() string {
	if r.Name != "" {
		return r.Name
	}
	return fmt.Sprintf("%s:%d", r.Chip, r.Offset)
}
