package spiperiph

import (
	"bytes"
	"testing"

	"periph.io/x/conn/v3/physic"
	pspi "periph.io/x/conn/v3/spi"
	"periph.io/x/devices/v3/bmxx80"

	"holdfast/drivers/spi"
	"holdfast/drivers/spi/spitest"
)

// periph.io's own driver reads a recorded BME280 through our contract. The traffic
// and the results are those of periph.io/x/devices/v3 v3.7.4,
// bmxx80/bmx280_test.go, TestSPISenseBME280_success (whose author says of the
// values that the chip had been damaged: it is the traffic that counts).
func TestPeriphDriver(t *testing.T) {
	zeros := func(reg byte, n int) []byte { return append([]byte{reg}, make([]byte, n)...) }
	p := spitest.NewPlayback([]spitest.Op{
		{W: zeros(0xD0, 1), R: []byte{0x00, 0x60}},
		{W: zeros(0x88, 26), R: []byte{0x00, 0xC9, 0x6C, 0x63, 0x65, 0x32, 0x00, 0x77, 0x93, 0x98, 0xD5, 0xD0, 0x0B, 0x67, 0x23, 0xBA, 0x00, 0xF9, 0xFF, 0xAC, 0x26, 0x0A, 0xD8, 0xBD, 0x10, 0x00, 0x4B}},
		{W: zeros(0xE1, 7), R: []byte{0x00, 0x5C, 0x01, 0x00, 0x15, 0x0F, 0x00, 0x1E}},
		{W: []byte{0x74, 0xB4, 0x72, 0x05, 0x75, 0xA0, 0x74, 0xB4}},
		{W: []byte{0x74, 0xB5}},
		{W: zeros(0xF3, 1), R: []byte{0, 0}},
		{W: zeros(0xF7, 8), R: []byte{0x00, 0x51, 0x9F, 0xC0, 0x9E, 0x3A, 0x50, 0x5E, 0x5B}},
	})
	d, err := bmxx80.NewSPI(ToPeriph(t.Context(), p, spi.Config{Mode: 3, Hertz: 10_000_000}), &bmxx80.Opts{
		Temperature: bmxx80.O16x, Pressure: bmxx80.O16x, Humidity: bmxx80.O16x,
	})
	if err != nil {
		t.Fatal(err)
	}
	var env physic.Env
	if err := d.Sense(&env); err != nil {
		t.Fatal(err)
	}
	if env.Temperature != 62680*physic.MilliCelsius+physic.ZeroCelsius || env.Pressure != 99575933593750*physic.NanoPascal || env.Humidity != 995010*physic.TenthMicroRH {
		t.Errorf("measured %v", env)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

func TestConnectRefuses(t *testing.T) {
	p := ToPeriph(t.Context(), spitest.NewPlayback(nil), spi.Config{Mode: 1})
	for name, connect := range map[string]func() (pspi.Conn, error){
		"another mode": func() (pspi.Conn, error) { return p.Connect(physic.MegaHertz, pspi.Mode0, 8) },
		"another word": func() (pspi.Conn, error) { return p.Connect(physic.MegaHertz, pspi.Mode1, 16) },
		"slower clock": func() (pspi.Conn, error) { return p.Connect(100*physic.KiloHertz, pspi.Mode1, 8) },
	} {
		if _, err := connect(); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if _, err := p.Connect(0, pspi.Mode1, 8); err != nil {
		t.Errorf("the same settings: %v", err)
	}
}

func TestPackets(t *testing.T) {
	play := spitest.NewPlayback([]spitest.Op{{W: []byte{1, 2, 0, 0, 5}, R: []byte{9, 8, 7, 6, 5}}})
	c, err := ToPeriph(t.Context(), play, spi.Config{}).Connect(0, pspi.Mode0, 8)
	if err != nil {
		t.Fatal(err)
	}
	both, in := make([]byte, 1), make([]byte, 2)
	err = c.TxPackets([]pspi.Packet{{W: []byte{1, 2}, KeepCS: true}, {R: in, KeepCS: true}, {W: []byte{5}, R: both}})
	if err != nil || !bytes.Equal(in, []byte{7, 6}) || !bytes.Equal(both, []byte{5}) {
		t.Errorf("packets: % x, % x, %v", in, both, err)
	}
	for name, packets := range map[string][]pspi.Packet{
		"select twice":   {{W: []byte{1}}, {W: []byte{2}}},
		"never released": {{W: []byte{1}, KeepCS: true}},
		"9 bits":         {{W: []byte{1}, BitsPerWord: 9}},
		"lengths":        {{W: []byte{1, 2}, R: in[:1]}},
	} {
		if err := c.TxPackets(packets); err == nil {
			t.Errorf("%s was accepted", name)
		}
	}
	if err := play.Close(); err != nil {
		t.Error(err)
	}
}
