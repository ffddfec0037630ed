// Package i2ctest has I2C buses for tests and for the bench.
//
//   - [Bus] is a bus in memory with emulated chips on it: [BME280], [ADS1115],
//     [INA226], [LM75], [MCP23017], [MCP9808], [SHT4x], or any [Chip].
//   - [Recorder] wraps a bus and keeps its traffic; [Playback] gives recorded
//     traffic back and fails when the traffic differs or is left over.
//   - [Faulty] wraps a bus and injects faults, seeded.
//
// None of it needs the testing package, so that a simulated plant can use it.
package i2ctest

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"holdfast/drivers/i2c"
)

// An Op is one recorded transaction.
type Op struct {
	Addr uint16
	W, R []byte
	// Err is the transaction's error, nil if it went well. R is empty then.
	Err error
}

// String returns the line that [ReadOps] understands: the address, the bytes
// written, the bytes read, the error, such as "76 w f7 r 65 5a c0" or
// "76 w f4 25 err not acknowledged".
func (o Op) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%02x", o.Addr)
	if len(o.W) > 0 {
		fmt.Fprintf(&b, " w % x", o.W)
	}
	if len(o.R) > 0 {
		fmt.Fprintf(&b, " r % x", o.R)
	}
	if o.Err != nil {
		fmt.Fprintf(&b, " err %s", strings.Join(strings.Fields(o.Err.Error()), " "))
	}
	return b.String()
}

// recordedErrors are the errors that a recording can name; any other text
// becomes an error of its own.
func recordedErrors() []error {
	return []error{i2c.ErrNACK, i2c.ErrTimeout, i2c.ErrStuck, i2c.ErrArbitration, i2c.ErrGone}
}

// WriteOps writes a recording, one line a transaction.
func WriteOps(w io.Writer, ops []Op) error {
	for _, o := range ops {
		if _, err := fmt.Fprintln(w, o); err != nil {
			return err
		}
	}
	return nil
}

// ReadOps reads a recording. Empty lines and lines that begin with # are
// skipped. Errors name the line.
func ReadOps(r io.Reader) ([]Op, error) {
	var ops []Op
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		o, err := parseOp(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		ops = append(ops, o)
	}
	return ops, lines.Err()
}

func parseOp(line string) (Op, error) {
	line, text, failed := strings.Cut(line, " err ")
	words := strings.Fields(line)
	if len(words) == 0 {
		return Op{}, errors.New("no address")
	}
	addr, err := strconv.ParseUint(words[0], 16, 7)
	if err != nil {
		return Op{}, fmt.Errorf("address %q: want 00 to 7f", words[0])
	}
	o := Op{Addr: uint16(addr)}
	rest := words[1:]
	if o.W, rest, err = direction("w", rest); err != nil {
		return Op{}, err
	}
	if o.R, rest, err = direction("r", rest); err != nil {
		return Op{}, err
	}
	switch {
	case len(rest) > 0:
		return Op{}, fmt.Errorf("unexpected %q", rest[0])
	case failed:
		o.Err = recordedError(text)
	}
	if failed && len(o.R) > 0 {
		return Op{}, errors.New("bytes read and an error in one transaction")
	}
	if !failed && len(o.W) == 0 && len(o.R) == 0 {
		return Op{}, errors.New("empty transaction")
	}
	return o, nil
}

func recordedError(text string) error {
	text = strings.Join(strings.Fields(text), " ")
	for _, e := range recordedErrors() {
		if strings.Contains(text, e.Error()) {
			return e
		}
	}
	return errors.New(text)
}

// direction takes the keyword and the bytes after it from the front of words.
func direction(keyword string, words []string) (bytes []byte, rest []string, err error) {
	if len(words) == 0 || words[0] != keyword {
		return nil, words, nil
	}
	words = words[1:]
	for len(words) > 0 && len(words[0]) == 2 {
		b, err := hex.DecodeString(words[0])
		if err != nil {
			return nil, nil, fmt.Errorf("byte %q: %w", words[0], err)
		}
		bytes = append(bytes, b...)
		words = words[1:]
	}
	if len(bytes) == 0 {
		return nil, nil, fmt.Errorf("no bytes after %q", keyword)
	}
	return bytes, words, nil
}

func (o Op) clone() Op {
	o.W, o.R = slices.Clone(o.W), slices.Clone(o.R)
	return o
}
