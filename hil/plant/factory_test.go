package plant

import (
	"context"
	"encoding/binary"
	"io"
	"math"
	"net"
	"testing"
	"time"

	"holdfast/drivers/i2c/i2csock"
	"holdfast/hil/plant/modbus"
)

func TestPLCObeys(t *testing.T) {
	p := NewProcess(1)
	write := setpointWriter(p)
	var both [2]uint16
	putFloats(both[:], 25)
	write(modbus.Holding, 2, both[:]) // valve, at once
	putFloats(both[:], 900)
	write(modbus.Holding, 0, both[:1]) // speed, word by word
	write(modbus.Holding, 1, both[1:])
	write(modbus.Coil, 0, []uint16{0})
	if _, set := p.Read(); set.Valve != 25 || set.Speed != 900 || set.Run || set.Heater != 30 {
		t.Errorf("set points %+v", set)
	}
}

func TestFactoryAnswers(t *testing.T) {
	f, err := OpenFactory(t.TempDir(), 1)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	bus := i2csock.New("unix", f.I2C)
	defer bus.Close()
	id := make([]byte, 1)
	if err := bus.Tx(ctx, AmbientAddr, []byte{0xD0}, id); err != nil || id[0] != 0x60 {
		t.Errorf("chip id of the BME280: %#x, %v", id[0], err)
	}

	conn, err := net.Dial("tcp", f.TCP)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	// Function 4, twelve registers from 0 (MODBUS Application Protocol 6.4).
	if _, err := conn.Write([]byte{0, 1, 0, 0, 0, 6, PLCUnit, 4, 0, 0, 0, 12}); err != nil {
		t.Fatal(err)
	}
	answer := make([]byte, 9+24)
	if _, err := io.ReadFull(conn, answer); err != nil || answer[7] != 4 || answer[8] != 24 {
		t.Fatalf("answer of the PLC: % x, %v", answer, err)
	}
	s, _ := f.Process.Read()
	if got := float(binary.BigEndian.Uint16(answer[9:]), binary.BigEndian.Uint16(answer[11:])); math.Abs(got-s.Level) > 0.01 {
		t.Errorf("level %v shown as %v", s.Level, got)
	}
	cancel()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the factory does not stop")
	}
}
