// Package spiperiph lets a chip driver written for periph.io run on an SPI
// connection of ours, and so under its deadlines.
package spiperiph

import (
	"context"
	"errors"
	"fmt"

	"periph.io/x/conn/v3"
	"periph.io/x/conn/v3/physic"
	pspi "periph.io/x/conn/v3/spi"

	"holdfast/drivers/spi"
)

// ToPeriph presents a connection, opened with config, as a port of periph.io.
// periph.io has no contexts: each transfer runs under ctx.
//
// The settings were made when the connection was opened. Connect refuses a driver
// that wants others: another mode or word, or a clock slower than the one set.
func ToPeriph(ctx context.Context, c spi.Conn, config spi.Config) pspi.Port {
	return &port{ctx, c, config.WithDefaults()}
}

type port struct {
	ctx    context.Context
	conn   spi.Conn
	config spi.Config
}

func (p *port) String() string { return p.conn.String() }

func (p *port) Connect(f physic.Frequency, mode pspi.Mode, bits int) (pspi.Conn, error) {
	have := pspi.Mode(p.config.Mode)
	if p.config.LSBFirst {
		have |= pspi.LSBFirst
	}
	if p.config.HalfDuplex {
		have |= pspi.HalfDuplex
	}
	if p.config.NoSelect {
		have |= pspi.NoCS
	}
	speed := physic.Frequency(p.config.Hertz) * physic.Hertz
	switch {
	case mode != have || bits != p.config.Bits:
		return nil, fmt.Errorf("spi %s: driver wants %v, %d bits; opened with %v, %d bits", p.conn, mode, bits, have, p.config.Bits)
	case f != 0 && speed > f:
		return nil, fmt.Errorf("spi %s: driver wants at most %v; opened with %v", p.conn, f, speed)
	}
	return p, nil
}

func (p *port) Tx(w, r []byte) error { return p.conn.Tx(p.ctx, w, r) }

func (p *port) Duplex() conn.Duplex {
	if p.config.HalfDuplex {
		return conn.Half
	}
	return conn.Full
}

// TxPackets joins packets between which the chip stays selected into one
// transfer. Anything else that packets can say is refused.
func (p *port) TxPackets(packets []pspi.Packet) error {
	if p.config.HalfDuplex {
		return errors.New("spi packets on a half-duplex connection: not supported")
	}
	var w []byte
	for i, k := range packets {
		n := max(len(k.W), len(k.R))
		switch {
		case k.BitsPerWord != 0 && int(k.BitsPerWord) != p.config.Bits:
			return fmt.Errorf("spi packet %d: %d bits, opened with %d", i, k.BitsPerWord, p.config.Bits)
		case k.KeepCS != (i < len(packets)-1):
			return fmt.Errorf("spi packet %d: selecting the chip more than once or for ever is not supported", i)
		case len(k.W) > 0 && len(k.R) > 0 && len(k.W) != len(k.R):
			return fmt.Errorf("spi packet %d: %d bytes to send and %d to receive", i, len(k.W), len(k.R))
		}
		w = append(w, k.W...)
		w = append(w, make([]byte, n-len(k.W))...)
	}
	r := make([]byte, len(w))
	if err := p.conn.Tx(p.ctx, w, r); err != nil {
		return err
	}
	for _, k := range packets {
		copy(k.R, r)
		r = r[max(len(k.W), len(k.R)):]
	}
	return nil
}

var (
	_ pspi.Port = (*port)(nil)
	_ pspi.Conn = (*port)(nil)
)
