package sensor

import (
	"context"
	"io/fs"

	"holdfast/drivers/i2c"
	"holdfast/drivers/spi"
)

// A Kind is a way in which chips are attached.
type Kind string

// The kinds.
const (
	I2C     Kind = "i2c"
	SPI     Kind = "spi"
	OneWire Kind = "w1"    // through the kernel's driver for 1-Wire
	Sysfs   Kind = "sysfs" // through a kernel driver for the chip itself
)

// A Bus is what a chip is attached to: the one field that is not nil.
type Bus struct {
	I2C i2c.Bus

	// SPI opens the connection to the chip, whose settings only its driver knows.
	// Whoever opens the chip closes it.
	SPI func(ctx context.Context, c spi.Config) (spi.ConnCloser, error)

	// OneWire has the kernel's 1-Wire devices: /sys/bus/w1/devices.
	OneWire fs.FS

	// Sysfs is /sys.
	Sysfs fs.FS
}

// Kind returns which field is set, "" if none is.
func (b Bus) Kind() Kind {
	switch {
	case b.I2C != nil:
		return I2C
	case b.SPI != nil:
		return SPI
	case b.OneWire != nil:
		return OneWire
	case b.Sysfs != nil:
		return Sysfs
	}
	return ""
}
