package bench

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// clockRegisters hold the time of the answer, big-endian microseconds since
// 1970, so that whoever sees the value knows how old it is.
const clockRegisters = 4

// writableRegister keeps what was written to it, beyond the polled ones.
const writableRegister = 2000

// tagsPerDevice are polled every plantPeriod.
const (
	tagsPerDevice = 1000
	plantPeriod   = 100 * time.Millisecond
)

// A plant is a number of Modbus TCP devices of the plainest kind, each on a
// port of its own: they answer at once, and their registers change with every
// read. It shares no code with any client that is measured.
type plant struct {
	addrs     []string
	listeners []net.Listener
	wg        sync.WaitGroup
	reads     atomic.Int64
	written   atomic.Uint32 // last value of writableRegister
	mu        sync.Mutex
	conns     map[net.Conn]struct{}
}

func startPlant(devices int) (*plant, error) {
	p := &plant{conns: map[net.Conn]struct{}{}}
	for range devices {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			p.Close()
			return nil, err
		}
		p.listeners = append(p.listeners, l)
		p.addrs = append(p.addrs, l.Addr().String())
		p.wg.Add(1)
		go p.serve(l)
	}
	return p, nil
}

// Close ends the devices and their connections.
func (p *plant) Close() error {
	for _, l := range p.listeners {
		l.Close()
	}
	p.mu.Lock()
	for c := range p.conns {
		c.Close()
	}
	p.mu.Unlock()
	p.wg.Wait()
	return nil
}

func (p *plant) serve(l net.Listener) {
	defer p.wg.Done()
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.conns[c] = struct{}{}
		p.mu.Unlock()
		p.wg.Add(1)
		go func() {
			defer p.wg.Done()
			p.answer(c)
			c.Close()
			p.mu.Lock()
			delete(p.conns, c)
			p.mu.Unlock()
		}()
	}
}

// answer serves one connection until it ends: function codes 3, 6 and 16.
func (p *plant) answer(c net.Conn) {
	r := bufio.NewReader(c)
	var head [7]byte
	body := make([]byte, 260)
	out := make([]byte, 0, 260)
	for {
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(head[4:])) - 1
		if n < 5 || n > len(body) {
			return
		}
		if _, err := io.ReadFull(r, body[:n]); err != nil {
			return
		}
		first, count := int(binary.BigEndian.Uint16(body[1:])), int(binary.BigEndian.Uint16(body[3:]))
		out = append(out[:0], head[:]...)
		switch body[0] {
		case 3:
			if count == 0 || count > 125 {
				return
			}
			out = append(out, 3, byte(2*count))
			out = p.registers(out, first, count)
		case 6:
			p.written.Store(uint32(count))
			out = append(out, body[:5]...)
		case 16:
			if n >= 8 {
				p.written.Store(uint32(binary.BigEndian.Uint16(body[6:])))
			}
			out = append(out, body[:5]...)
		default:
			out = append(out, body[0]|0x80, 1)
		}
		binary.BigEndian.PutUint16(out[4:], uint16(len(out)-6))
		if _, err := c.Write(out); err != nil {
			return
		}
	}
}

func (p *plant) registers(out []byte, first, count int) []byte {
	turn := uint16(p.reads.Add(1))
	var clock [2 * clockRegisters]byte
	binary.BigEndian.PutUint64(clock[:], uint64(time.Now().UnixMicro()))
	for a := first; a < first+count; a++ {
		switch {
		case a < clockRegisters:
			out = append(out, clock[2*a], clock[2*a+1])
		case a == writableRegister:
			out = binary.BigEndian.AppendUint16(out, uint16(p.written.Load()))
		default:
			out = binary.BigEndian.AppendUint16(out, (turn+uint16(a))&0x7fff)
		}
	}
	return out
}

// plantTags is the tag table of one device in CSV: the clock, 999 registers
// and one that is only written.
func plantTags() string {
	var b strings.Builder
	b.WriteString("name,address,type,access\nclock,holding:0,uint64,r\n")
	for r := clockRegisters; r < clockRegisters+tagsPerDevice-1; r++ {
		fmt.Fprintf(&b, "r%04d,holding:%d,int16,r\n", r, r)
	}
	fmt.Fprintf(&b, "setpoint,holding:%d,uint16,w\n", writableRegister)
	return b.String()
}
