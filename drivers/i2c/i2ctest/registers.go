package i2ctest

import (
	"fmt"
	"sync"
)

// Registers is a chip that is nothing but 8-bit registers: a write sets the
// pointer and stores pairs of register and value, a read returns consecutive
// registers. It serves to give a driver exactly the bytes that a real chip once
// sent.
type Registers struct {
	mu      sync.Mutex
	reg     [256]byte
	pointer byte
}

// Store puts bytes into consecutive registers.
func (c *Registers) Store(reg byte, b ...byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, v := range b {
		c.reg[reg+byte(i)] = v
	}
}

// StoreOps puts what a recording read from a chip into the registers it was read
// from. A register that was read twice keeps the last value. Reads without a
// register before them are an error.
func (c *Registers) StoreOps(ops []Op) error {
	for _, o := range ops {
		switch {
		case len(o.R) == 0:
		case len(o.W) != 1:
			return fmt.Errorf("recording: %s: want one byte written before a read", o)
		default:
			c.Store(o.W[0], o.R...)
		}
	}
	return nil
}

// Write satisfies [Chip].
func (c *Registers) Write(b []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for ; len(b) >= 2; b = b[2:] {
		c.reg[b[0]] = b[1]
	}
	if len(b) == 1 {
		c.pointer = b[0]
	}
	return nil
}

// Read satisfies [Chip].
func (c *Registers) Read(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range b {
		b[i] = c.reg[c.pointer+byte(i)]
	}
	c.pointer += byte(len(b))
}

var _ Chip = (*Registers)(nil)
