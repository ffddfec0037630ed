package modbus

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols"
)

// ScanOptions say how politely a Scanner asks. The zero value works.
type ScanOptions struct {
	Timeout  time.Duration // for the start of each answer; 0 = 300 ms
	Pause    time.Duration // between an answer and the next request; 0 = none besides the line's silence
	Requests int           // most requests of one call of Registers; 0 = 5000
}

// A Scanner finds out what is on a link: which units answer and which items of
// their tables exist. It sends one request at a time, reads only, and has a link of
// its own, so it must not be used on a serial line that a gateway is polling.
type Scanner struct {
	adapter  *Adapter
	settings map[string]any
	clk      clock.Clock
	opts     ScanOptions
	keeper   *session // keeps the link open between two units
}

// NewScanner makes a scanner for the link that settings describe: the keys of a
// field device that belong to its transport. It touches nothing before the first
// question.
func NewScanner(env protocols.Env, o Options, settings map[string]any, so ScanOptions) (*Scanner, error) {
	if so.Timeout <= 0 {
		so.Timeout = 300 * time.Millisecond
	}
	if so.Requests <= 0 {
		so.Requests = 5000
	}
	s := &Scanner{adapter: New(env, o).(*Adapter), settings: maps.Clone(settings), clk: env.Clock, opts: so}
	var err error
	s.keeper, err = s.open(1, so.Timeout)
	if err != nil {
		return nil, errors.Join(err, s.adapter.Close())
	}
	return s, nil
}

// Close ends the link.
func (s *Scanner) Close() error { return errors.Join(s.keeper.Close(), s.adapter.Close()) }

// Link names what is scanned, as in protocols.Status.
func (s *Scanner) Link() string { return s.keeper.link.name }

// open makes a session with a unit. worst is as in the settings.
func (s *Scanner) open(unit byte, worst time.Duration) (*session, error) {
	m := maps.Clone(s.settings)
	m["unit"] = int64(unit)
	m["timeout"], m["worst_answer"] = s.opts.Timeout, worst
	m["request_pause"] = s.opts.Pause
	// Units that are silent are the ordinary case here, not one to be wary of.
	m["demote_after"] = int64(100)
	m["reconnect_min"], m["reconnect_max"] = time.Millisecond, 2*time.Millisecond
	opened, err := s.adapter.Open(protocols.Device{Name: fmt.Sprintf("unit %d", unit), Protocol: "modbus", Settings: m})
	if err != nil {
		return nil, err
	}
	return opened.(*session), nil
}

// A FoundUnit is a unit that has answered.
type FoundUnit struct {
	Unit   byte
	Answer string        // "holding:0 = 17", or the exception that it answered with
	Took   time.Duration // from the request to the answer
}

// Units asks each unit for one register and calls found for those that answer, also
// with an exception, and asked after each. An error means that the link itself
// cannot be used; units that are silent, or that a gateway says it cannot reach,
// are left out.
func (s *Scanner) Units(ctx context.Context, units []byte, asked func(unit byte), found func(FoundUnit)) error {
	pdu, err := encodeRead(Holding, 0, 1)
	if err != nil {
		return err
	}
	for _, unit := range units {
		// An answer that comes after the time-out names its unit, which is not asked
		// again: there is no need to wait for it.
		session, err := s.open(unit, s.opts.Timeout)
		if err != nil {
			return err
		}
		start := s.clk.Elapsed()
		answer, err := session.once(ctx, pdu)
		took := s.clk.Elapsed() - start
		closed := session.Close()
		switch code := exceptionOf(err); {
		case err == nil:
			found(FoundUnit{Unit: unit, Answer: fmt.Sprintf("holding:0 = %d", binary.BigEndian.Uint16(answer[2:])), Took: took})
		case code == 10 || code == 11: // a gateway speaks for it
		case code != 0:
			found(FoundUnit{Unit: unit, Answer: exceptionText(code), Took: took})
		case !silent(err):
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if closed != nil {
			return closed
		}
		asked(unit)
	}
	return nil
}

// silent reports whether an error means that a unit did not answer properly, and
// not that the link cannot be used.
func silent(err error) bool {
	var f *failure
	return errors.As(err, &f) && f.sent
}

// once asks one question of its own.
func (s *session) once(ctx context.Context, pdu []byte) ([]byte, error) {
	c := s.newCall()
	end := s.begin(ctx, c)
	if end == nil {
		return nil, errClosed()
	}
	defer end()
	r := s.newRequest()
	r.set(pdu)
	for try := 0; ; try++ {
		f := s.link.acquire(c, s.unit, &s.ask, forRead)
		if f == nil {
			break
		}
		// The pause after connections that brought no answer is over soon.
		if s.link.backoff == 0 || try == 3 {
			return nil, f
		}
		if err := clock.Sleep(c.ctx, s.link.clk, 5*time.Millisecond); err != nil {
			return nil, err
		}
	}
	s.link.run(c, s.unit, []*request{r})
	s.link.release(c)
	return r.answer, r.err
}

// Items are the contents of a part of a table.
type Items struct {
	Table  Table
	From   int
	Words  []uint16 // bits as 0 and 1
	There  []bool   // whether the item exists; what does not has the word 0
	Asked  int      // requests sent
	Reason string   // why the rest was not asked; "" when all was
}

// scanBlock is how many registers are asked for at first. It is less than a
// device may give, so that one that is slow is not held up for long.
const scanBlock = 64

// mostSilent is how many requests may stay without an answer before a scan of
// registers ends.
const mostSilent = 4

// Registers reads the items of a table from from to to, excluded. Where the unit
// refuses a block, the block is halved until what exists is known item by item.
// progress, which may be nil, is called with the first item that is not yet known.
// What was read before an error is returned with it.
func (s *Scanner) Registers(ctx context.Context, unit byte, t Table, from, to int, progress func(next int)) (*Items, error) {
	if from < 0 || to > 65536 || from >= to {
		return nil, fmt.Errorf("items %d to %d: there are 0 to 65535", from, to-1)
	}
	session, err := s.open(unit, 2*s.opts.Timeout)
	if err != nil {
		return nil, err
	}
	defer session.Close()
	block := scanBlock
	if t.Bits() {
		block *= 16
	}
	r := rangeScan{s: session, opts: s.opts, items: &Items{Table: t, From: from, Words: make([]uint16, to-from), There: make([]bool, to-from)}}
	for at := from; at < to && r.items.Reason == ""; at += block {
		if err := r.read(ctx, at, min(at+block, to)); err != nil {
			return r.items, err
		}
		if progress != nil {
			progress(min(at+block, to))
		}
	}
	return r.items, nil
}

// rangeScan is one call of Registers.
type rangeScan struct {
	s      *session
	opts   ScanOptions
	items  *Items
	silent int // requests in all that had no answer
}

// read finds out about the items from from to to, excluded.
func (r *rangeScan) read(ctx context.Context, from, to int) error {
	if r.items.Asked >= r.opts.Requests {
		r.items.Reason = fmt.Sprintf("%d requests were sent, which is the limit", r.items.Asked)
	}
	if r.items.Reason != "" {
		return nil
	}
	pdu, err := encodeRead(r.items.Table, from, to-from)
	if err != nil {
		return err
	}
	answer, err := r.ask(ctx, pdu)
	switch code := exceptionOf(err); {
	case err == nil:
		r.keep(from, to, answer[2:])
		return nil
	case code == 1:
		r.items.Reason = fmt.Sprintf("the unit has no table of this kind: %s", exceptionText(code))
		return nil
	case code == 2 || code == 3 || code == 4: // not there, too many, or what some answer in their place
		if to-from == 1 {
			return nil
		}
		middle := from + (to-from+1)/2
		if to-from > 2 && (middle-from)%2 == 1 {
			middle++ // values of two registers mostly begin at even distances
		}
		if err := r.read(ctx, from, middle); err != nil {
			return err
		}
		return r.read(ctx, middle, to)
	case code != 0:
		return errors.New(exceptionText(code))
	case ctx.Err() != nil || !silent(err):
		return err
	}
	if r.silent++; r.silent >= mostSilent {
		return fmt.Errorf("after %d requests without an answer: %w", r.silent, err)
	}
	return nil
}

// ask asks again when the unit is busy, and once when nothing came.
func (r *rangeScan) ask(ctx context.Context, pdu []byte) (answer []byte, err error) {
	for try := 0; ; try++ {
		r.items.Asked++
		answer, err = r.s.once(ctx, pdu)
		code := exceptionOf(err)
		busy := code == 5 || code == 6
		if again := busy && try < 3 || err != nil && silent(err) && try == 0; !again || ctx.Err() != nil {
			return answer, err
		}
		if busy {
			if err := clock.Sleep(ctx, r.s.link.clk, 100*time.Millisecond); err != nil {
				return nil, err
			}
		}
	}
}

func (r *rangeScan) keep(from, to int, data []byte) {
	for i := range to - from {
		at := from + i - r.items.From
		r.items.There[at] = true
		if r.items.Table.Bits() {
			r.items.Words[at] = uint16(data[i/8] >> (i % 8) & 1)
		} else {
			r.items.Words[at] = binary.BigEndian.Uint16(data[2*i:])
		}
	}
}
