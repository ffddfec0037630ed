// Package all is the table of field protocols: every adapter, one line each.
package all

import (
	"context"
	"io/fs"
	"maps"
	"slices"

	"holdfast/drivers/gpio"
	"holdfast/drivers/i2c"
	"holdfast/drivers/sensor"
	"holdfast/drivers/spi"
	"holdfast/protocols"
	"holdfast/protocols/local"
	"holdfast/protocols/modbus"
	"holdfast/protocols/opcua"
	"holdfast/protocols/sim"
)

// Host is the part of the machine that adapters use and that is not theirs to
// open. What is nil is not there: a configuration that needs it does not pass Check.
// Its functions are called from many goroutines.
type Host struct {
	Lines       gpio.Lines
	OpenI2C     func(ctx context.Context, name string) (i2c.BusCloser, error)
	OpenSPI     func(ctx context.Context, name string, c spi.Config) (spi.ConnCloser, error)
	Files       func(dir string) fs.FS                                                                                     // below a directory of the machine, as os.DirFS
	CheckSensor func(chip string, on sensor.Kind, address uint16, options map[string]string) (outputs []string, err error) // of drivers/sensor/all
	OpenSensor  func(ctx context.Context, chip string, on sensor.Bus, address uint16, options map[string]string) (sensor.Sensor, error)
	ReadFile    func(name string) ([]byte, error) // for recorded traces
	Modbus      modbus.Options                    // zero: the system's sockets and serial ports
	OPCUA       opcua.Options                     // zero: servers without security only; ReadFile is that above
}

// table is the list. A new protocol is one line here.
func table() map[string]func(protocols.Env, Host) protocols.Adapter {
	return map[string]func(protocols.Env, Host) protocols.Adapter{
		"local":  func(e protocols.Env, h Host) protocols.Adapter { return local.New(e, h.local()) },
		"modbus": func(e protocols.Env, h Host) protocols.Adapter { return modbus.New(e, h.Modbus) },
		"opcua":  func(e protocols.Env, h Host) protocols.Adapter { return opcua.New(e, h.opcua()) },
		"sim":    func(e protocols.Env, h Host) protocols.Adapter { return sim.New(e, sim.Options{ReadFile: h.ReadFile}) },
	}
}

func (h Host) local() local.Options {
	return local.Options{
		Lines: h.Lines, OpenI2C: h.OpenI2C, OpenSPI: h.OpenSPI, Files: h.Files,
		CheckSensor: h.CheckSensor, OpenSensor: h.OpenSensor,
	}
}

func (h Host) opcua() opcua.Options {
	o := h.OPCUA
	if o.ReadFile == nil {
		o.ReadFile = h.ReadFile
	}
	return o
}

// Names returns the names of the protocols, sorted.
func Names() []string { return slices.Sorted(maps.Keys(table())) }

// New returns an adapter for each protocol, by name. They touch nothing until
// one of their devices is read, and are the caller's to close.
func New(env protocols.Env, host Host) map[string]protocols.Adapter {
	adapters := map[string]protocols.Adapter{}
	for name, construct := range table() {
		adapters[name] = construct(env, host)
	}
	return adapters
}
