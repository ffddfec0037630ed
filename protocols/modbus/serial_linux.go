package modbus

import (
	"context"

	"holdfast/drivers/serial"
	"holdfast/drivers/serial/tty"
)

// openTTY opens a terminal device, the system's serial port.
func openTTY(ctx context.Context, path string, c serial.Config) (serial.Port, error) {
	return tty.Device{Path: path, Config: c}.Open(ctx)
}
