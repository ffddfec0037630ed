// Package ds18b20 reads Maxim's DS18B20, a thermometer on 1-Wire, and its kin
// DS1822 and DS28EA00, through the kernel's driver w1_therm.
//
// Data sheet: 19-7487, Rev 6 (July 2019); table and figure numbers are its. The
// kernel's side is Documentation/w1/slaves/w1_therm.rst: reading the file w1_slave
// makes a conversion, which takes up to 0.75 s, and shows the scratchpad.
package ds18b20

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/drivers/sensor"
	"holdfast/drivers/sensor/internal/sysfile"
)

// Options of a thermometer. The zero value works where there is only one.
type Options struct {
	// ID is the thermometer's number as the kernel writes it: "28-0000054b2b1c".
	// Empty means the only one there is.
	ID string

	// Timeout limits one Sense. 0 means 5 s: the kernel reads one thermometer of
	// a line after the other.
	Timeout time.Duration
}

// ParseOptions reads the options "id" and "timeout" from text.
func ParseOptions(text map[string]string) (Options, error) {
	s := sensor.NewSettings(text)
	o := Options{ID: strings.ToLower(s.Text("id")), Timeout: s.Duration("timeout", 5*time.Second)}
	if o.ID != "" && !valid(o.ID) {
		return o, errors.Join(s.Err(), fmt.Errorf("option \"id\": %q: want the number of a DS18B20, such as 28-0000054b2b1c", o.ID))
	}
	return o, s.Err()
}

// valid reports whether a name of the kernel's is that of a thermometer whose
// scratchpad reads as the DS18B20's: family code and 48 bits.
func valid(id string) bool {
	family, number, ok := strings.Cut(id, "-")
	return ok && slices.Contains([]string{"28", "22", "42"}, family) && len(number) == 12 && strings.Trim(number, "0123456789abcdef") == ""
}

// Dev is a thermometer. It satisfies [sensor.Sensor].
type Dev struct {
	dir      *sysfile.Dir
	id       string
	timeout  time.Duration
	channels []sensor.Channel

	mu     sync.Mutex
	closed bool
}

// Open finds a thermometer among the kernel's 1-Wire devices, which are in root
// (/sys/bus/w1/devices).
func Open(ctx context.Context, root fs.FS, o Options) (*Dev, error) {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	d := &Dev{dir: sysfile.New(root), id: o.ID, timeout: o.Timeout, channels: []sensor.Channel{
		{Name: "temperature", Unit: "Cel", Min: -55, Max: 125, Resolution: 0.0625},
	}}
	names, err := d.dir.List(ctx, ".")
	if err != nil {
		return nil, fmt.Errorf("ds18b20: 1-wire devices: %w", err)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !valid(n) })
	switch {
	case o.ID != "" && !slices.Contains(names, o.ID):
		return nil, fmt.Errorf("ds18b20 %s: %w: there are %q", o.ID, fs.ErrNotExist, names)
	case o.ID == "" && len(names) == 0:
		return nil, fmt.Errorf("ds18b20: %w: no thermometer on 1-wire", fs.ErrNotExist)
	case o.ID == "" && len(names) > 1:
		return nil, fmt.Errorf("ds18b20: several thermometers on 1-wire, give the id of one: %s", strings.Join(names, ", "))
	case o.ID == "":
		d.id = names[0]
	}
	return d, nil
}

// Channels satisfies [sensor.Sensor]: temperature in Cel.
func (d *Dev) Channels() []sensor.Channel { return d.channels }

// String names the thermometer in messages.
func (d *Dev) String() string { return "ds18b20 " + d.id }

// Sense satisfies [sensor.Sensor].
func (d *Dev) Sense(ctx context.Context) []sensor.Value {
	d.mu.Lock()
	closed := d.closed
	d.mu.Unlock()
	if closed {
		return sensor.Failed(1, fmt.Errorf("%s: %w", d, sensor.ErrClosed))
	}
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	text, err := d.dir.Read(ctx, d.id+"/w1_slave")
	var v sensor.Value
	if err == nil {
		v.Value, err = parse(text)
	}
	if err == nil {
		v = d.channels[0].Check(v.Value)
		err = v.Err
	}
	if err != nil {
		v.Err = fmt.Errorf("%s: %w", d, err)
	}
	return []sensor.Value{v}
}

// parse reads the first line of w1_slave,
//
//	72 01 4b 46 7f ff 0e 10 57 : crc=57 YES
//
// which is the scratchpad (figure 8) and what the kernel thinks of its checksum.
func parse(text string) (float64, error) {
	line, _, _ := strings.Cut(text, "\n")
	bytes, verdict, ok := strings.Cut(line, ":")
	raw, err := hex.DecodeString(strings.ReplaceAll(strings.TrimSpace(bytes), " ", ""))
	if !ok || err != nil || len(raw) != 9 {
		return 0, fmt.Errorf("%w: %.80q is not a scratchpad", sensor.ErrImplausible, line)
	}
	pad := [9]byte(raw)
	switch {
	case !strings.HasSuffix(strings.TrimSpace(verdict), "YES") || checksum(pad[:8]) != pad[8]:
		return 0, fmt.Errorf("%w: checksum of % x", sensor.ErrImplausible, pad)
	case pad == [9]byte{}:
		// The checksum of nothing is nothing: a data line that is held low.
		return 0, fmt.Errorf("%w: the scratchpad is empty; is the data line shorted?", sensor.ErrImplausible)
	case pad[4]&0x9F != 0x1F:
		return 0, fmt.Errorf("%w: configuration register 0x%02x", sensor.ErrImplausible, pad[4])
	}
	code := int16(uint16(pad[0]) | uint16(pad[1])<<8)
	if code == powerOn && pad[6] != afterConversion {
		return 0, fmt.Errorf("%w: 85 Cel is what a chip shows that has not converted since it got its supply; is the supply too weak?", sensor.ErrNotReady)
	}
	// With less than 12 bits the lowest ones are undefined (figures 4 and 10).
	code &^= 1<<(3-pad[4]>>5&3) - 1
	return float64(code) / 16, nil
}

const (
	// powerOn is the temperature register before the first conversion: +85 Cel
	// (table 1, note).
	powerOn = 0x0550

	// afterConversion is byte 6 of the scratchpad, reserved and 0x0C before the
	// first conversion (figure 8), as chips of Maxim's show it after one of
	// exactly 85 Cel. With copies of the chip, which do not, that very reading of
	// a true 85 Cel is refused.
	afterConversion = 0x10
)

// checksum is the CRC of 1-Wire, polynomial x^8 + x^5 + x^4 + 1, low bit first
// (figure 11).
func checksum(b []byte) byte {
	crc := byte(0)
	for _, v := range b {
		crc ^= v
		for range 8 {
			low := crc & 1
			crc >>= 1
			if low != 0 {
				crc ^= 0x8C
			}
		}
	}
	return crc
}

// Close satisfies [sensor.Sensor]. The chip sleeps between conversions.
func (d *Dev) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	return nil
}

var _ sensor.Sensor = (*Dev)(nil)
