package serial

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Parity is the parity of a character.
type Parity byte

// The parities. The values are the letters of notations such as 8E1.
const (
	ParityNone  Parity = 'N'
	ParityEven  Parity = 'E'
	ParityOdd   Parity = 'O'
	ParityMark  Parity = 'M'
	ParitySpace Parity = 'S'
)

// Config says how the bits are on the line. The zero value means 19200 8E1, the
// default of Modbus over Serial Line V1.02 (2.5.1, "the default parity mode must
// be even parity").
type Config struct {
	Baud     int    // bits per second, 50 to 4,000,000; 0 means 19200
	DataBits int    // 5 to 8; 0 means 8
	Parity   Parity // 0 means even
	StopBits int    // 1 or 2; 0 means 1
	RTSCTS   bool   // hardware flow control
	RS485    RS485
}

// RS485 says how the driver switches the direction of a two-wire line.
type RS485 struct {
	// Enabled makes the kernel drive the transmitter with RTS. Adapters that
	// switch by themselves do not need it.
	Enabled bool
	// RTSLowOnSend inverts RTS: low while sending.
	RTSLowOnSend bool
	// DelayBefore and DelayAfter keep the transmitter on before the first and
	// after the last bit. They are rounded up to 1 ms; 0 means none.
	DelayBefore, DelayAfter time.Duration
	// ReceiveOwn leaves the receiver on while sending, so that what is sent is
	// also received.
	ReceiveOwn bool
}

// WithDefaults returns the configuration with its zero fields filled in.
func (c Config) WithDefaults() Config {
	if c.Baud == 0 {
		c.Baud = 19200
	}
	if c.DataBits == 0 {
		c.DataBits = 8
	}
	if c.Parity == 0 {
		c.Parity = ParityEven
	}
	if c.StopBits == 0 {
		c.StopBits = 1
	}
	return c
}

// Check returns an error that names the first field that is out of range.
func (c Config) Check() error {
	c = c.WithDefaults()
	const longest = 100 * time.Millisecond // the kernel's limit of an RTS delay
	switch {
	case c.Baud < 50 || c.Baud > 4_000_000:
		return fmt.Errorf("baud %d: want 50 to 4000000", c.Baud)
	case c.DataBits < 5 || c.DataBits > 8:
		return fmt.Errorf("data bits %d: want 5 to 8", c.DataBits)
	case !strings.ContainsRune("NEOMS", rune(c.Parity)):
		return fmt.Errorf("parity %q: want N, E, O, M or S", string(rune(c.Parity)))
	case c.StopBits != 1 && c.StopBits != 2:
		return fmt.Errorf("stop bits %d: want 1 or 2", c.StopBits)
	case c.RS485.DelayBefore < 0 || c.RS485.DelayBefore > longest || c.RS485.DelayAfter < 0 || c.RS485.DelayAfter > longest:
		return fmt.Errorf("rs-485 delays %v, %v: want 0 to %v", c.RS485.DelayBefore, c.RS485.DelayAfter, longest)
	case c.RS485.Enabled && c.RTSCTS:
		return fmt.Errorf("rs-485 direction and hardware flow control both need RTS")
	}
	return nil
}

// String returns the usual notation, such as "19200 8E1".
func (c Config) String() string {
	c = c.WithDefaults()
	return fmt.Sprintf("%d %d%c%d", c.Baud, c.DataBits, c.Parity, c.StopBits)
}

// ParseConfig reads the notation of String. The part after the speed may be left
// out ("9600") and means 8E1.
func ParseConfig(text string) (Config, error) {
	bad := func() (Config, error) {
		return Config{}, fmt.Errorf("serial setting %q: want a form like 19200 8E1", text)
	}
	words := strings.Fields(text)
	if len(words) == 0 || len(words) > 2 {
		return bad()
	}
	var c Config
	var err error
	if c.Baud, err = strconv.Atoi(words[0]); err != nil || c.Baud == 0 {
		return bad()
	}
	if len(words) == 2 {
		frame := strings.ToUpper(words[1])
		if len(frame) != 3 || frame[0] < '1' || frame[0] > '9' || frame[2] < '1' || frame[2] > '9' {
			return bad()
		}
		c.DataBits, c.Parity, c.StopBits = int(frame[0]-'0'), Parity(frame[1]), int(frame[2]-'0')
	}
	c = c.WithDefaults()
	if err := c.Check(); err != nil {
		return Config{}, fmt.Errorf("serial setting %q: %w", text, err)
	}
	return c, nil
}

// CharBits returns how many bits a character takes on the line: start, data,
// parity, stop.
func (c Config) CharBits() int {
	c = c.WithDefaults()
	n := 1 + c.DataBits + c.StopBits
	if c.Parity != ParityNone {
		n++
	}
	return n
}

// CharTime returns how long one character is on the line.
func (c Config) CharTime() time.Duration { return c.Duration(1) }

// Duration returns how long n characters are on the line without a pause, rounded
// up.
func (c Config) Duration(n int) time.Duration {
	c = c.WithDefaults()
	bits := time.Duration(n) * time.Duration(c.CharBits())
	return (bits*time.Second + time.Duration(c.Baud) - 1) / time.Duration(c.Baud)
}

// fastest is the speed up to which Modbus counts gaps in characters.
const fastest = 19200

// T15 returns the longest pause within a Modbus RTU frame, 1.5 characters, and
// 750 us above 19200 bits per second (Modbus over Serial Line V1.02, 2.5.1.1).
func (c Config) T15() time.Duration {
	c = c.WithDefaults()
	if c.Baud > fastest {
		return 750 * time.Microsecond
	}
	return (c.Duration(3) + 1) / 2
}

// T35 returns the shortest pause between Modbus RTU frames, 3.5 characters, and
// 1.75 ms above 19200 bits per second (Modbus over Serial Line V1.02, 2.5.1.1).
func (c Config) T35() time.Duration {
	c = c.WithDefaults()
	if c.Baud > fastest {
		return 1750 * time.Microsecond
	}
	return (c.Duration(7) + 1) / 2
}
