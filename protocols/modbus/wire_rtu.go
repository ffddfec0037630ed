package modbus

import (
	"fmt"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols/point"
)

// rtuWire is RTU framing, on a line or over TCP.
//
// RTU answers carry no transaction id, so a late answer to one request looks
// like the prompt answer to the next one of the same length. After a request
// that was not answered properly the wire is therefore in debt: before it sends
// again it reads and drops until the answer owed has come, whole and valid, or
// until the latest moment at which the unit can still give it has passed and the
// line is silent.
type rtuWire struct {
	clk       clock.Clock
	character time.Duration // 0 over TCP: the device server paces
	silence   time.Duration // between frames
	turn      time.Duration // pause after a broadcast (SL 2.4.1)
	echo      bool          // what is sent is received too
	impatient bool          // the connection is made anew after a time-out

	in    [2 * maxRTU]byte
	n     int
	out   []byte
	quiet time.Duration // when the last character that we know of ended

	owes bool
	debt request // whose answer is owed
	due  time.Duration
	pdu  [maxPDU]byte // of debt
}

func (w *rtuWire) fresh() { w.n = 0 }

// travel is the time that n characters take on the line.
func (w *rtuWire) travel(n int) time.Duration { return time.Duration(n) * w.character }

func (w *rtuWire) exchange(c *call, s stream, reqs []*request) bool {
	usable := true
	for _, r := range reqs {
		if !usable {
			r.err = failed(point.BadCommunicationError, "unit %d: not asked, the request before had no answer", r.unit)
			continue
		}
		usable = w.one(c, s, r)
	}
	return usable
}

func (w *rtuWire) one(c *call, s stream, r *request) bool {
	if err := clock.Sleep(c.ctx, w.clk, w.quiet+w.silence-w.clk.Elapsed()); err != nil {
		r.err = ended(err, "waiting for silence on the line")
		return true
	}
	w.n = 0
	if err := s.discard(); err != nil {
		r.err = describe(c, r, &ioError{err})
		return false
	}
	w.out = appendRTU(w.out[:0], r.unit, r.pdu)
	start := w.clk.Elapsed()
	tx := w.travel(len(w.out))
	wait := tx + r.wait + w.travel(1+r.want+2)
	if err := c.arm(wait); err != nil {
		r.err = ended(err, "asking")
		return true
	}
	if !r.silent {
		w.owe(r, start+tx+max(r.worst, r.timeout)+w.travel(1+r.want+2))
	}
	w.quiet = start + tx
	if _, err := s.Write(w.out); err != nil {
		r.err = w.giveUp(c, r, &ioError{err}, start)
		return false
	}
	if w.echo {
		if err := w.dropEcho(s); err != nil {
			r.err = w.giveUp(c, r, err, start)
			return isTimeout(err) && !w.impatient
		}
	}
	if r.silent {
		if err := clock.Sleep(c.ctx, w.clk, tx+w.turn); err != nil {
			w.quiet = start + tx + w.turn // the line still gets its pause
		}
		return true
	}
	return w.await(c, s, r, start)
}

// await reads until the answer has come or the deadline that is armed passes. It
// may have come together with the echo.
func (w *rtuWire) await(c *call, s stream, r *request, start time.Duration) bool {
	for {
		unit, pdu, end := findRTU(w.in[:w.n], r)
		if end == 0 {
			if err := w.fill(s); err != nil {
				r.err = w.giveUp(c, r, err, start)
				return isTimeout(err) && !w.impatient
			}
			continue
		}
		w.owes = false
		w.quiet = w.clk.Elapsed()
		if err := r.take(unit, pdu); err != nil { // findRTU has made the same checks
			r.err = failed(point.BadCommunicationError, "unit %d: %w", r.unit, err)
		}
		return true
	}
}

// fill reads what has come. Of a flood only the newest is kept.
func (w *rtuWire) fill(s stream) error {
	if w.n == len(w.in) {
		w.n = copy(w.in[:], w.in[maxRTU:])
	}
	n, err := s.Read(w.in[w.n:])
	w.n += n
	if n > 0 {
		return nil
	}
	if err == nil {
		return nil
	}
	return &ioError{err}
}

// dropEcho takes our own frame off the line. Other bytes in its place mean that
// somebody else was sending at the same time.
func (w *rtuWire) dropEcho(s stream) error {
	for w.n < len(w.out) {
		if err := w.fill(s); err != nil {
			return err
		}
	}
	if string(w.in[:len(w.out)]) != string(w.out) {
		return fmt.Errorf("echo differs from what was sent: collision on the line, or no echo there")
	}
	w.n = copy(w.in[:], w.in[len(w.out):w.n])
	return nil
}

func (w *rtuWire) owe(r *request, due time.Duration) {
	w.owes, w.due = true, due
	w.debt.unit, w.debt.anyUnit = r.unit, r.anyUnit
	w.debt.set(w.pdu[:copy(w.pdu[:], r.pdu)])
}

// giveUp describes why there is no answer, and keeps what did come in the text.
func (w *rtuWire) giveUp(c *call, r *request, err error, start time.Duration) *failure {
	var f *failure
	if isTimeout(err) && w.n > 0 && c.ctx.Err() == nil {
		f = failed(point.BadCommunicationError, "unit %d: %d bytes came that are no valid answer: % x", r.unit, w.n, w.in[:min(w.n, 8)])
	} else {
		f = describe(c, r, err)
	}
	f.sent, f.blame = true, w.clk.Elapsed()-start
	return f
}

// settle pays the debt. The bytes of an answer that was cut short by the
// deadline are still in the buffer, so that its rest completes it.
func (w *rtuWire) settle(c *call, s stream) (byte, time.Duration, error) {
	if !w.owes {
		return 0, 0, nil
	}
	start := w.clk.Elapsed()
	for now := start; now < w.due; now = w.clk.Elapsed() {
		if err := c.arm(w.due - now); err != nil {
			return w.debt.unit, now - start, ended(err, "waiting for a late answer to pass")
		}
		if err := w.fill(s); err != nil {
			if c.ctx.Err() != nil {
				return w.debt.unit, w.clk.Elapsed() - start, ended(c.ctx.Err(), "waiting for a late answer to pass")
			}
			if !isTimeout(err) {
				return w.debt.unit, w.clk.Elapsed() - start, err
			}
			continue // the deadline may be early by a hair: the loop decides
		}
		if _, _, end := findRTU(w.in[:w.n], &w.debt); end > 0 {
			w.owes = false
			break
		}
	}
	err := w.hush(c, s)
	if err == nil {
		w.owes = false
	}
	return w.debt.unit, w.clk.Elapsed() - start, err
}

// hush reads until the line has been silent for the pause between frames. A
// line that is never silent carries something else than our answers.
func (w *rtuWire) hush(c *call, s stream) error {
	const most = 4 * maxRTU
	for got := 0; got < most; {
		if err := c.arm(max(w.silence, time.Millisecond)); err != nil {
			return ended(err, "waiting for silence on the line")
		}
		w.n = 0
		err := w.fill(s)
		if isTimeout(err) && c.ctx.Err() == nil {
			w.quiet = w.clk.Elapsed() - w.silence
			return nil
		}
		if err != nil {
			return err
		}
		got += w.n
	}
	return failed(point.BadCommunicationError, "the line is never silent: %d bytes that nobody asked for", most)
}
