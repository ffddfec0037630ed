package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"
)

// A Line is how a serial line behaves. A pseudo terminal carries any number of
// bytes at once; the line's pace is therefore kept by the plant.
type Line struct {
	Baud       int           // 0: as fast as it goes
	Bits       int           // bits of one character, 0 as 11
	Turnaround time.Duration // from the end of a request to the start of its answer
	Echo       bool          // what the client sends comes back to it
}

func (l Line) travel(n int) time.Duration {
	if l.Baud <= 0 {
		return 0
	}
	bits := l.Bits
	if bits == 0 {
		bits = 11
	}
	return time.Duration(n*bits) * time.Second / time.Duration(l.Baud)
}

// ServeLine serves RTU frames on rw, one request after the other, until ctx ends,
// when it closes rw if that can be closed, or rw fails.
func (p *Plant) ServeLine(ctx context.Context, rw io.ReadWriter, line Line) error {
	if c, ok := rw.(io.Closer); ok {
		stop := context.AfterFunc(ctx, func() { _ = c.Close() })
		defer stop()
	}
	var in []byte
	buf := make([]byte, 512)
	for hole := false; ; {
		n, err := rw.Read(buf)
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
				return nil
			}
			return err
		}
		arrived := time.Now()
		if line.Echo {
			if _, err := rw.Write(buf[:n]); err != nil {
				return err
			}
		}
		in = append(in, buf[:n]...)
		for {
			frame, rest, whole := cutRTU(in)
			in = rest
			if !whole {
				break
			}
			end := arrived.Add(line.travel(len(frame)))
			quit, err := p.lineRequest(ctx, rw, line, frame[0], frame[1:len(frame)-2], end, &hole)
			if quit || ctx.Err() != nil {
				return nil
			}
			if err != nil {
				return err
			}
		}
	}
}

// cutRTU takes the first whole request off the bytes received. Bytes that no
// request starts with are dropped.
func cutRTU(in []byte) (frame, rest []byte, whole bool) {
	for len(in) >= 2 {
		n := requestSize(in)
		if n > 0 && len(in) < n {
			return nil, in, false
		}
		if n > 0 && sum(in[:n-2]) == binary.LittleEndian.Uint16(in[n-2:]) {
			return in[:n:n], in[n:], true
		}
		in = in[1:]
	}
	return nil, in, false
}

// requestSize returns the length of the request frame that in starts with, 0 for
// none.
func requestSize(in []byte) int {
	fixed := map[byte]int{1: 8, 2: 8, 3: 8, 4: 8, 5: 8, 6: 8, 22: 10}
	if n := fixed[in[1]]; n > 0 {
		return n
	}
	at := map[byte]int{15: 6, 16: 6, 23: 10}[in[1]] // of the byte count
	switch {
	case at == 0:
		return 0
	case len(in) <= at:
		return at + 4
	}
	return at + 1 + int(in[at]) + 2
}

// lineRequest executes one request and sends the answer at the line's pace.
func (p *Plant) lineRequest(ctx context.Context, w io.Writer, line Line, unit byte, pdu []byte, end time.Time, hole *bool) (quit bool, err error) {
	f := p.pick(unit, pdu)
	if unit == 0 {
		for _, d := range p.all() {
			d.answer(pdu)
		}
		return false, nil
	}
	d := p.device(unit)
	if d == nil || *hole || f != nil && f.Kind == Silence {
		return false, nil
	}
	if f == nil {
		return false, pace(ctx, w, line, frameRTU(unit, d.answer(pdu)), end.Add(line.Turnaround))
	}
	switch f.Kind {
	case BlackHole:
		*hole = true
		return false, nil
	case Close, Reset:
		return true, nil
	case Deaf:
		d.answer(pdu)
		return false, nil
	}
	answer := pdu
	if f.Kind != Exception {
		answer = d.answer(pdu)
	}
	u, answer := f.distort(unit, answer)
	frame := p.damage(f, frameRTU(u, answer))
	return false, pace(ctx, w, line, frame, end.Add(line.Turnaround+f.Delay))
}

func frameRTU(unit byte, pdu []byte) []byte {
	b := append(append(make([]byte, 0, len(pdu)+3), unit), pdu...)
	return binary.LittleEndian.AppendUint16(b, sum(b))
}

// pace writes a frame from start on so that no byte is there earlier than the
// line would have brought it.
func pace(ctx context.Context, w io.Writer, line Line, frame []byte, start time.Time) error {
	for sent := 0; sent < len(frame); {
		due := len(frame)
		if one := line.travel(1); one > 0 {
			due = min(due, int(time.Since(start)/one))
		} else if time.Until(start) > 0 {
			due = 0
		}
		if due > sent {
			n, err := w.Write(frame[sent:due])
			if sent += n; err != nil {
				return err
			}
			continue
		}
		next := time.Until(start.Add(line.travel(min(sent+16, len(frame)))))
		if err := wait(ctx, max(next, 50*time.Microsecond)); err != nil {
			return err
		}
	}
	return nil
}

// sum is the CRC of Modbus RTU, bit by bit as in the specification's appendix.
func sum(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, c := range b {
		crc ^= uint16(c)
		for range 8 {
			odd := crc & 1
			crc >>= 1
			if odd == 1 {
				crc ^= 0xa001
			}
		}
	}
	return crc
}
