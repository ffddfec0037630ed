package commission

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"holdfast/drivers/serial"
	"holdfast/protocols/modbus"
)

// ParseTarget reads where to scan for Modbus devices, and returns the settings of
// a field device there:
//
//	tcp://host[:port]                Modbus TCP
//	rtu-over-tcp://host:port         a serial device server
//	/dev/ttyUSB0                     a serial line at 19200 8E1
//	rtu:///dev/ttyUSB0?line=9600+8N1 a serial line
func ParseTarget(text string) (map[string]any, error) {
	if strings.HasPrefix(text, "/") {
		text = "rtu://" + text
	}
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%q is no address: %w", text, errors.Unwrap(err))
	}
	line := u.Query().Get("line")
	for key := range u.Query() {
		if key != "line" || u.Scheme != "rtu" {
			return nil, fmt.Errorf("%q: unknown option %q", text, key)
		}
	}
	switch u.Scheme {
	case "tcp", "rtu-over-tcp":
		if u.Hostname() == "" {
			return nil, fmt.Errorf("%q has no host", text)
		}
		return map[string]any{"transport": u.Scheme, "address": u.Host}, nil
	case "rtu":
		settings := map[string]any{"transport": "rtu", "port": u.Path}
		if u.Path == "" {
			return nil, fmt.Errorf("%q has no serial port", text)
		}
		return settings, setLine(settings, line)
	}
	return nil, fmt.Errorf("%q is none of tcp://host:port, rtu-over-tcp://host:port, /dev/tty…, rtu:///dev/tty…?line=9600+8N1", text)
}

// setLine sets speed and character of a line, such as "9600 8N1".
func setLine(settings map[string]any, line string) error {
	if line == "" {
		return nil
	}
	c, err := serial.ParseConfig(line)
	if err != nil {
		return err
	}
	parity := map[serial.Parity]string{serial.ParityNone: "none", serial.ParityEven: "even", serial.ParityOdd: "odd"}[c.Parity]
	if parity == "" || c.DataBits != 8 {
		return fmt.Errorf("line %q: Modbus RTU has 8 data bits and parity N, E or O", line)
	}
	settings["baud"], settings["parity"], settings["stop_bits"] = int64(c.Baud), parity, int64(c.StopBits)
	return nil
}

// ParseUnits reads unit ids: "1-247" or "1,3,10-20".
func ParseUnits(text string) ([]byte, error) {
	var out []byte
	seen := map[int]bool{}
	for _, part := range strings.Split(text, ",") {
		low, high, err := span(part, 0, 255)
		if err != nil {
			return nil, fmt.Errorf("units %q: %w", text, err)
		}
		for n := low; n <= high; n++ {
			if !seen[n] {
				seen[n] = true
				out = append(out, byte(n))
			}
		}
	}
	return out, nil
}

// span reads "5" or "5-9".
func span(text string, least, most int) (low, high int, err error) {
	from, to, isRange := strings.Cut(strings.TrimSpace(text), "-")
	if !isRange {
		to = from
	}
	low, err = strconv.Atoi(strings.TrimSpace(from))
	if err == nil {
		high, err = strconv.Atoi(strings.TrimSpace(to))
	}
	if err != nil || low < least || high > most || low > high {
		return 0, 0, fmt.Errorf("%q is not a number or range from %d to %d", text, least, most)
	}
	return low, high, nil
}

// A Range is a part of a table.
type Range struct {
	Table    modbus.Table
	From, To int // To is excluded
}

// ParseRange reads "holding:0-999".
func ParseRange(text string) (Range, error) {
	name, items, ok := strings.Cut(text, ":")
	if !ok {
		return Range{}, fmt.Errorf("registers %q: want table:first-last, such as holding:0-99", text)
	}
	a, err := modbus.ParseAddress(name + ":0")
	if err != nil {
		return Range{}, fmt.Errorf("registers %q: %w", text, errors.Unwrap(err))
	}
	low, high, err := span(items, 0, 65535)
	if err != nil {
		return Range{}, fmt.Errorf("registers %q: %w", text, err)
	}
	return Range{a.Table, low, high + 1}, nil
}
