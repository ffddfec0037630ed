package plant

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"time"

	"holdfast/drivers/i2c/i2csock"
	"holdfast/hil/plant/modbus"
)

// RTUBaud is the speed of the factory's serial line.
const RTUBaud = 38400

// refresh is how often the process moves on and the sensors see it.
const refresh = 50 * time.Millisecond

// A Factory is a process with its field devices, open for a gateway: a PLC on
// Modbus TCP, a drive on a serial line, and sensors on an I2C bus.
type Factory struct {
	Process *Process
	TCP     string // host:port of the PLC
	Serial  string // device file of the drive's line
	I2C     string // path of the socket behind which the sensors' bus is (drivers/i2c/i2csock)

	plc, drive *modbus.Plant
	sensors    *Sensors
	tcp, bus   net.Listener
	pty        *Pty
}

// OpenFactory opens a factory whose socket is made in dir; the same seed gives
// the same noise. Its devices answer while Run runs.
func OpenFactory(dir string, seed uint64) (*Factory, error) {
	f := &Factory{Process: NewProcess(seed), plc: modbus.New(seed), drive: modbus.New(seed + 1), sensors: NewSensors()}
	f.plc.Add(PLCUnit, PLC(f.Process))
	f.drive.Add(DriveUnit, Drive(f.Process))
	var err error
	if f.tcp, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		return nil, fmt.Errorf("plant: %w", err)
	}
	f.I2C = filepath.Join(dir, "i2c.sock")
	if f.bus, err = net.Listen("unix", f.I2C); err != nil {
		f.tcp.Close()
		return nil, fmt.Errorf("plant: %w", err)
	}
	if f.pty, err = OpenPty(); err != nil {
		f.tcp.Close()
		f.bus.Close()
		return nil, fmt.Errorf("plant: %w", err)
	}
	f.TCP, f.Serial = f.tcp.Addr().String(), f.pty.Path
	return f, nil
}

// Run runs the factory in real time until ctx ends, then closes everything.
func (f *Factory) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer f.pty.hold.Close()
	errs := make(chan error, 3)
	var all sync.WaitGroup
	serve := func(run func() error) {
		all.Go(func() {
			errs <- run()
			cancel() // a factory with half of its devices is none
		})
	}
	serve(func() error { return f.plc.ServeTCP(ctx, f.tcp) })
	serve(func() error {
		return f.drive.ServeLine(ctx, f.pty.Line, modbus.Line{Baud: RTUBaud, Turnaround: 2 * time.Millisecond})
	})
	serve(func() error { return i2csock.Serve(ctx, f.bus, f.sensors.Bus) })
	f.live(ctx)
	all.Wait()
	close(errs)
	for err := range errs {
		if err != nil {
			return fmt.Errorf("plant: %w", err)
		}
	}
	return nil
}

// live lets time pass in the process.
func (f *Factory) live(ctx context.Context) {
	tick := time.NewTicker(refresh)
	defer tick.Stop()
	for last := time.Now(); ; {
		s, _ := f.Process.Read()
		f.sensors.Show(s)
		select {
		case now := <-tick.C:
			f.Process.Advance(now.Sub(last))
			last = now
		case <-ctx.Done():
			return
		}
	}
}
