package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// A Plant is a set of units with the faults in force.
type Plant struct {
	mu          sync.Mutex
	units       map[byte]*Device
	faults      []*injected
	rng         *rand.Rand
	requests    map[byte]int
	acted       int
	connections int
	acceptDelay time.Duration
}

// New returns an empty plant whose random choices follow seed.
func New(seed uint64) *Plant {
	return &Plant{
		units: map[byte]*Device{}, requests: map[byte]int{},
		rng: rand.New(rand.NewPCG(seed, 0x6d6f64627573)),
	}
}

// Add puts a device into the plant under a unit id and returns it. On TCP a
// request for a unit that is not there is answered with exception 11, as a
// gateway does, on a line not at all.
func (p *Plant) Add(unit byte, d *Device) *Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.units[unit] = d
	return d
}

// SlowAccept makes the plant wait before it serves a new connection.
func (p *Plant) SlowAccept(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.acceptDelay = d
}

// Requests returns how many requests for a unit have come.
func (p *Plant) Requests(unit byte) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests[unit]
}

// Faults returns how many faults have acted.
func (p *Plant) Faults() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.acted
}

// Connections returns how many connections have been accepted.
func (p *Plant) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connections
}

func (p *Plant) device(unit byte) *Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.units[unit]
}

// all returns every device, for broadcasts.
func (p *Plant) all() []*Device {
	p.mu.Lock()
	defer p.mu.Unlock()
	all := make([]*Device, 0, len(p.units))
	for _, d := range p.units {
		all = append(all, d)
	}
	return all
}

// ServeTCP serves Modbus TCP on ln until ctx ends or ln fails. It closes ln.
func (p *Plant) ServeTCP(ctx context.Context, ln net.Listener) error {
	return p.serve(ctx, ln, func(ctx context.Context, c net.Conn) { p.tcpConn(ctx, c) })
}

// ServeRTUOverTCP serves RTU frames on TCP connections.
func (p *Plant) ServeRTUOverTCP(ctx context.Context, ln net.Listener, line Line) error {
	return p.serve(ctx, ln, func(ctx context.Context, c net.Conn) { _ = p.ServeLine(ctx, c, line) })
}

func (p *Plant) serve(ctx context.Context, ln net.Listener, handle func(context.Context, net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	for {
		c, err := ln.Accept()
		if err != nil {
			_ = ln.Close()
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Go(func() {
			defer c.Close()
			hangUp := context.AfterFunc(ctx, func() { _ = c.Close() })
			defer hangUp()
			p.mu.Lock()
			p.connections++
			delay := p.acceptDelay
			p.mu.Unlock()
			if wait(ctx, delay) == nil {
				handle(ctx, c)
			}
		})
	}
}

func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tcpConn serves one connection. Late answers do not hold up the ones behind
// them, as in a gateway that asks several lines at once.
func (p *Plant) tcpConn(ctx context.Context, c net.Conn) {
	var late sync.WaitGroup
	defer late.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var writing sync.Mutex
	send := func(frame []byte) {
		writing.Lock()
		defer writing.Unlock()
		_, _ = c.Write(frame)
	}
	for hole := false; ; {
		id, unit, pdu, err := readTCP(c)
		if err != nil {
			return
		}
		f := p.pick(unit, pdu)
		if hole || f != nil && f.Kind == BlackHole {
			hole = true
			continue
		}
		if f == nil {
			send(frameTCP(id, unit, p.execute(unit, pdu)))
			continue
		}
		switch f.Kind {
		case Silence:
		case Deaf:
			p.execute(unit, pdu)
		case Close:
			return
		case Reset:
			if t, ok := c.(*net.TCPConn); ok {
				_ = t.SetLinger(0)
			}
			return
		default:
			answer := pdu
			if f.Kind != Exception {
				answer = p.execute(unit, pdu)
			}
			u, answer := f.distort(unit, answer)
			frame := p.damage(f, frameTCP(id, u, answer))
			if f.Delay == 0 {
				send(frame)
				continue
			}
			late.Go(func() {
				if wait(ctx, f.Delay) == nil {
					send(frame)
				}
			})
		}
	}
}

// execute has a unit's device answer a request.
func (p *Plant) execute(unit byte, pdu []byte) []byte {
	d := p.device(unit)
	if d == nil {
		return []byte{pdu[0] | 0x80, 11}
	}
	return d.answer(pdu)
}

func readTCP(r io.Reader) (id uint16, unit byte, pdu []byte, err error) {
	var head [7]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, 0, nil, err
	}
	n := int(binary.BigEndian.Uint16(head[4:]))
	if binary.BigEndian.Uint16(head[2:]) != 0 || n < 2 || n > 254 {
		return 0, 0, nil, errors.New("not Modbus TCP")
	}
	pdu = make([]byte, n-1)
	_, err = io.ReadFull(r, pdu)
	return binary.BigEndian.Uint16(head[:]), head[6], pdu, err
}

func frameTCP(id uint16, unit byte, pdu []byte) []byte {
	b := binary.BigEndian.AppendUint16(make([]byte, 0, 7+len(pdu)), id)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(len(pdu)+1))
	return append(append(b, unit), pdu...)
}
