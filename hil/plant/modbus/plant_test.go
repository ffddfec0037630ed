package modbus

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/goburrow/modbus"
)

// serve serves a plant on TCP until the test ends.
func serve(t *testing.T, f func(context.Context, net.Listener) error) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return ln.Addr().String()
}

// client is one that we did not write.
func client(t *testing.T, addr string, unit byte) modbus.Client {
	h := modbus.NewTCPClientHandler(addr)
	h.SlaveId = unit
	h.Timeout = 20 * time.Second
	t.Cleanup(func() { h.Close() })
	return modbus.NewClient(h)
}

func TestFunctions(t *testing.T) {
	p := New(1)
	d := p.Add(1, NewDevice(100))
	d.Set(Holding, 10, 0x1234, 0x5678)
	d.Set(Input, 10, 7)
	d.Set(Coil, 3, 1, 0, 1)
	d.Set(Discrete, 9, 1)
	d.Source(Input, 20, 2, func(w []uint16) { w[0]++; w[1] = w[0] })
	c := client(t, serve(t, p.ServeTCP), 1)
	steps := []struct {
		name string
		do   func() ([]byte, error)
		want string
	}{
		{"holding", func() ([]byte, error) { return c.ReadHoldingRegisters(10, 2) }, "12345678"},
		{"input", func() ([]byte, error) { return c.ReadInputRegisters(10, 1) }, "0007"},
		{"coils", func() ([]byte, error) { return c.ReadCoils(3, 3) }, "05"},
		{"discretes", func() ([]byte, error) { return c.ReadDiscreteInputs(0, 10) }, "0002"},
		{"source", func() ([]byte, error) { return c.ReadInputRegisters(20, 2) }, "00010001"},
		{"source, in part", func() ([]byte, error) { return c.ReadInputRegisters(21, 1) }, "0002"},
		{"coil", func() ([]byte, error) { return c.WriteSingleCoil(4, 0xff00) }, "ff00"},
		{"coils written", func() ([]byte, error) { return c.WriteMultipleCoils(0, 3, []byte{7}) }, "0003"},
		{"coils after", func() ([]byte, error) { return c.ReadCoils(0, 6) }, "3f"},
		{"register", func() ([]byte, error) { return c.WriteSingleRegister(10, 5) }, "0005"},
		{"registers", func() ([]byte, error) { return c.WriteMultipleRegisters(11, 2, []byte{0, 6, 0, 7}) }, "0002"},
		{"mask, as in AP 6.16", func() ([]byte, error) {
			d.Set(Holding, 4, 0x12)
			return c.MaskWriteRegister(4, 0xf2, 0x25)
		}, "00f20025"},
		{"masked", func() ([]byte, error) { return c.ReadHoldingRegisters(4, 1) }, "0017"},
		{"write and read", func() ([]byte, error) { return c.ReadWriteMultipleRegisters(10, 3, 12, 1, []byte{0, 9}) }, "000500060009"},
	}
	for _, s := range steps {
		if got, err := s.do(); err != nil || hex.EncodeToString(got) != s.want {
			t.Errorf("%s: %x, %v, want %s", s.name, got, err, s.want)
		}
	}
}

func TestRefusals(t *testing.T) {
	p := New(1)
	d := p.Add(1, NewDevice(100))
	d.Deny(Holding, 50, 52)
	d.LimitRead(20)
	d.DenyFunction(2)
	addr := serve(t, p.ServeTCP)
	c := client(t, addr, 1)
	for _, tt := range []struct {
		name string
		do   func() ([]byte, error)
		want byte
	}{
		{"denied function", func() ([]byte, error) { return c.ReadDiscreteInputs(0, 1) }, 1},
		{"beyond the end", func() ([]byte, error) { return c.ReadHoldingRegisters(99, 2) }, 2},
		{"over a denied one", func() ([]byte, error) { return c.ReadHoldingRegisters(45, 10) }, 2},
		{"write a denied one", func() ([]byte, error) { return c.WriteSingleRegister(51, 1) }, 2},
		{"too many", func() ([]byte, error) { return c.ReadHoldingRegisters(0, 21) }, 3},
		{"no such unit", func() ([]byte, error) { return client(t, addr, 9).ReadCoils(0, 1) }, 11},
	} {
		_, err := tt.do()
		var x *modbus.ModbusError
		if !errors.As(err, &x) || x.ExceptionCode != tt.want {
			t.Errorf("%s: %v, want exception %d", tt.name, err, tt.want)
		}
	}
	if _, err := c.ReadHoldingRegisters(48, 2); err != nil {
		t.Errorf("beside the denied ones: %v", err)
	}
}

// exchange sends a frame and returns what comes back until the peer is quiet.
func exchange(t *testing.T, rw net.Conn, frame []byte) []byte {
	t.Helper()
	if _, err := rw.Write(frame); err != nil {
		t.Fatal(err)
	}
	var got []byte
	buf := make([]byte, 512)
	for {
		rw.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		n, err := rw.Read(buf)
		got = append(got, buf[:n]...)
		if err != nil {
			return got
		}
	}
}

// TestFaultsOnTCP checks each kind byte by byte: a request for register 1 of a
// device that holds 0x1234 there.
func TestFaultsOnTCP(t *testing.T) {
	const ask = "00070000000601030001" + "0001"
	const answer = "000700000005010302" + "1234"
	for _, tt := range []struct {
		name  string
		fault Fault
		want  string
	}{
		{"none", Fault{Times: 1, Skip: 5}, answer},
		{"other unit", Fault{Kind: Silence, Units: []byte{2}}, answer},
		{"other function", Fault{Kind: Silence, Function: 4}, answer},
		{"other address", Fault{Kind: Silence, From: 2, To: 9}, answer},
		{"this address", Fault{Kind: Silence, From: 1, To: 2}, ""},
		{"deaf", Fault{Kind: Deaf}, ""},
		{"exception", Fault{Kind: Exception, Code: 4}, "0007000000030183" + "04"},
		{"short", Fault{Kind: Short, N: 3}, answer[:len(answer)-6]},
		{"unit", Fault{Kind: WrongUnit}, "000700000005020302" + "1234"},
		{"transaction", Fault{Kind: WrongTransaction}, "008700000005010302" + "1234"},
		{"function", Fault{Kind: WrongFunction}, "000700000005010402" + "1234"},
		{"twice", Fault{Kind: Twice}, answer + answer},
		{"late", Fault{Kind: Late, Delay: time.Millisecond}, answer},
		{"closed", Fault{Kind: Close}, ""},
		{"hole", Fault{Kind: BlackHole}, ""},
	} {
		p := New(1)
		p.Add(1, NewDevice(10)).Set(Holding, 1, 0x1234)
		addr := serve(t, p.ServeTCP)
		p.Inject(tt.fault)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		frame, _ := hex.DecodeString(ask)
		if got := hex.EncodeToString(exchange(t, c, frame)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if tt.fault.Kind == Close {
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("closed: %v", err)
			}
		}
		c.Close()
	}
}

func TestEverySkipTimesAndChance(t *testing.T) {
	count := func(f Fault, n int) (pattern string) {
		p := New(7)
		remove := p.Inject(f)
		for range n {
			if p.pick(1, []byte{3, 0, 0, 0, 1}) != nil {
				pattern += "x"
			} else {
				pattern += "."
			}
		}
		remove()
		if p.pick(1, []byte{3, 0, 0, 0, 1}) != nil {
			t.Error("a fault that was taken back acts")
		}
		return pattern
	}
	for _, tt := range []struct {
		fault Fault
		want  string
	}{
		{Fault{}, "xxxxxxxx"},
		{Fault{Every: 3}, "..x..x.."},
		{Fault{Skip: 2, Every: 2}, "...x.x.x"},
		{Fault{Every: 2, Times: 2}, ".x.x...."},
	} {
		if got := count(tt.fault, 8); got != tt.want {
			t.Errorf("%+v: %s, want %s", tt.fault, got, tt.want)
		}
	}
	a, b := count(Fault{Chance: 0.3}, 200), count(Fault{Chance: 0.3}, 200)
	if a != b {
		t.Error("the same seed gives different faults")
	}
	if n := bytes.Count([]byte(a), []byte("x")); n < 35 || n > 85 {
		t.Errorf("%d of 200 with a chance of 0.3", n)
	}
}

// TestLinePace checks that no byte comes earlier than the line allows.
func TestLinePace(t *testing.T) {
	p := New(1)
	p.Add(1, NewDevice(100))
	line := Line{Baud: 9600, Bits: 11, Turnaround: 20 * time.Millisecond}
	addr := serve(t, func(ctx context.Context, ln net.Listener) error { return p.ServeRTUOverTCP(ctx, ln, line) })
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	request := frameRTU(1, []byte{3, 0, 0, 0, 50})
	start := time.Now()
	if _, err := c.Write(request); err != nil {
		t.Fatal(err)
	}
	c.SetReadDeadline(start.Add(20 * time.Second))
	one := 11 * time.Second / 9600
	answer := make([]byte, 0, 105)
	buf := make([]byte, 256)
	for len(answer) < 105 {
		n, err := c.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		answer = append(answer, buf[:n]...)
		least := time.Duration(len(request)+len(answer))*one + line.Turnaround
		if at := time.Since(start); at < least-time.Millisecond {
			t.Fatalf("%d bytes after %v, the line needs %v", len(answer), at, least)
		}
	}
	if crc := sum(answer[:103]); answer[103] != byte(crc) || answer[104] != byte(crc>>8) {
		t.Errorf("crc: % x", answer)
	}
}

// FuzzLine feeds bytes to the line's parser: it ends, keeps nothing that cannot
// become a request, and every frame it finds has a valid sum.
func FuzzLine(f *testing.F) {
	f.Add(frameRTU(1, []byte{3, 0, 0, 0, 1}))
	f.Add(append([]byte{0, 0xff}, frameRTU(1, []byte{16, 0, 0, 0, 1, 2, 0, 5})...))
	f.Fuzz(func(t *testing.T, in []byte) {
		d := NewDevice(20)
		for rest := in; ; {
			frame, after, whole := cutRTU(rest)
			if !whole {
				if len(after) > 300 {
					t.Fatalf("keeps %d bytes", len(after))
				}
				return
			}
			if sum(frame) != 0 {
				t.Fatalf("% x has a wrong sum", frame)
			}
			d.answer(frame[1 : len(frame)-2])
			rest = after
		}
	})
}
