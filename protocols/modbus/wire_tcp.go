package modbus

import (
	"errors"
	"fmt"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// A wire frames requests and finds their answers on a stream. It is used by one
// caller at a time.
type wire interface {
	// exchange sends requests, all to one unit, and fills in the outcome of each.
	// It reports whether the stream can be used again.
	exchange(c *call, s stream, reqs []*request) (usable bool)
	// settle brings a line back into step after an answer that did not come in
	// time. It returns the unit that is to blame and how long that took.
	settle(c *call, s stream) (unit byte, took time.Duration, err error)
	// fresh forgets what was received on an earlier stream.
	fresh()
}

// tcpWire is Modbus TCP. Requests of one exchange are pipelined.
type tcpWire struct {
	clk  clock.Clock
	last uint16 // transaction id of the last request
	in   [4 * maxTCP]byte
	r, w int // what has been received and not used is in[r:w]
	out  []byte
}

func (t *tcpWire) fresh()                                            { t.r, t.w = 0, 0 }
func (t *tcpWire) settle(*call, stream) (byte, time.Duration, error) { return 0, 0, nil }

func (t *tcpWire) exchange(c *call, s stream, reqs []*request) bool {
	first := t.last + 1
	t.out = t.out[:0]
	for _, r := range reqs {
		t.last++
		t.out = appendTCP(t.out, tcpFrame{transaction: t.last, unit: r.unit, pdu: r.pdu})
	}
	start := t.clk.Elapsed()
	if err := c.arm(reqs[0].wait); err != nil {
		for _, r := range reqs {
			r.err = ended(err, "asking")
		}
		return true
	}
	_, err := s.Write(t.out)
	if err != nil {
		err = &ioError{err}
	}
	for left := len(reqs); err == nil && left > 0; {
		var f tcpFrame
		if f, err = t.next(s); err != nil {
			break
		}
		i := int(f.transaction - first)
		if i >= len(reqs) || reqs[i].answer != nil || reqs[i].err != nil {
			continue // the answer to a request that was given up
		}
		if err = reqs[i].take(f.unit, f.pdu); err != nil {
			break
		}
		if left--; left > 0 {
			start = t.clk.Elapsed()
			err = c.arm(reqs[0].wait)
		}
	}
	if err == nil {
		return true
	}
	t.giveUp(c, reqs, err, t.clk.Elapsed()-start)
	return false
}

// next returns the next frame, which is valid until the next call.
func (t *tcpWire) next(s stream) (tcpFrame, error) {
	for {
		f, n, err := parseTCP(t.in[t.r:t.w])
		if err != nil || n > 0 {
			t.r += n
			return f, err
		}
		if t.r > 0 {
			t.w = copy(t.in[:], t.in[t.r:t.w])
			t.r = 0
		}
		n, err = s.Read(t.in[t.w:])
		if t.w += n; n == 0 && err != nil {
			return f, &ioError{err}
		}
	}
}

// ioError marks an error of the stream itself.
type ioError struct{ error }

func (e *ioError) Unwrap() error { return e.error }

// giveUp fails the requests that have no answer. Only the first is to blame for
// the time that the link waited.
func (t *tcpWire) giveUp(c *call, reqs []*request, err error, waited time.Duration) {
	for _, r := range reqs {
		if r.answer != nil || r.err != nil {
			continue
		}
		f := describe(c, r, err)
		f.sent, f.blame = true, waited
		r.err, waited = f, 0
	}
}

// describe turns the error that ended an exchange into a failure.
func describe(c *call, r *request, err error) *failure {
	var io *ioError
	switch {
	case isTimeout(err):
		if cause := c.ctx.Err(); cause != nil {
			return ended(cause, fmt.Sprintf("unit %d: waiting for its answer", r.unit))
		}
		return failed(point.BadTimeout, "unit %d: no answer within %v", r.unit, r.wait)
	case errors.As(err, &io) && c.ctx.Err() == nil:
		f := failed(point.BadConnectionClosed, "unit %d: %s", r.unit, lost(io.error))
		f.closed = true
		return f
	case c.ctx.Err() != nil:
		return ended(c.ctx.Err(), "asking")
	}
	return failed(point.BadCommunicationError, "unit %d: %w", r.unit, err)
}
