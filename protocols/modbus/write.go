package modbus

import (
	"context"
	"errors"
	"fmt"
	"math/bits"

	"github.com/goburrow/modbus"

	"holdfast/drivers/clock"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// errBroadcast ends a call of goburrow's client after a request that nobody
// answers. It means success.
var errBroadcast = errors.New("broadcast")

// writer writes values in one call of Write.
type writer struct {
	s    *session
	call *call
	req  *request
	c    modbus.Client
	sent bool // the value itself, not a read before it, may have reached the unit
	prep bool // the request is a read before the write
}

// Write writes values one after the other. A value that spans registers goes in
// one request. A bit or byte of a register is written with the mask function
// when the device has it (mask_write), else by reading and writing the register
// in one turn on the link, which nothing else of ours can get in between.
func (s *session) Write(ctx context.Context, w []protocols.Write) []error {
	out := make([]error, len(w))
	wr := &writer{s: s, call: s.newCall(), req: s.newRequest()}
	end := s.begin(ctx, wr.call)
	if end == nil {
		for i := range out {
			out[i] = &protocols.WriteError{Quality: point.BadShutdown, Err: errClosed()}
		}
		return out
	}
	defer end()
	wr.req.silent = s.set.broadcast()
	p := &pdus{send: wr.send}
	wr.c = modbus.NewClient2(p, p)
	for i := range w {
		if err := wr.write(&w[i]); err != nil {
			out[i] = err
		}
	}
	return out
}

// write writes one value, again if the device is busy. The result is nil, not a
// nil *WriteError.
func (w *writer) write(one *protocols.Write) error {
	w.sent = false
	f, err := compile(one.Tag, w.s.set)
	switch {
	case err != nil:
		return &protocols.WriteError{Quality: point.BadConfigurationError, Err: err}
	case !one.Tag.Access.Writable():
		return &protocols.WriteError{Quality: point.BadNotWritable, Err: fmt.Errorf("tag %q is read only", one.Tag.Name)}
	}
	raw := f.nearest(one.Value, one.Tag.Scale)
	for try := 0; ; try++ {
		err = w.attempt(&f, raw)
		if exceptionOf(err) != modbus.ExceptionCodeServerDeviceBusy || try >= w.s.set.busyRetries ||
			clock.Sleep(w.call.ctx, w.s.link.clk, w.s.set.busyPause) != nil {
			break
		}
	}
	if err == nil || errors.Is(err, errBroadcast) {
		return nil
	}
	return w.refuse(err)
}

// refuse turns the error of an attempt into the outcome.
func (w *writer) refuse(err error) *protocols.WriteError {
	we := &protocols.WriteError{Maybe: w.sent, Err: err}
	switch code := exceptionOf(err); {
	case code == modbus.ExceptionCodeAcknowledge:
		// Accepted, but it takes long: whether it succeeds is not told (AP 7).
		we.Quality = exceptionQuality(code, true)
	case code != 0:
		// Refused; a gateway whose unit did not answer does not know (AP 7, code 11).
		we.Maybe = w.sent && code == modbus.ExceptionCodeGatewayTargetDeviceFailedToRespond
		we.Quality = exceptionQuality(code, true)
	case errors.Is(err, errType):
		we.Quality = point.BadTypeMismatch
	case errors.Is(err, errRange):
		we.Quality = point.BadOutOfRange
	default:
		we.Quality, _ = explain(err, true)
	}
	if code := exceptionOf(err); code != 0 {
		we.Err = fmt.Errorf("unit %d: %s: %w", w.s.set.unit, exceptionText(code), err)
	}
	return we
}

// attempt takes a turn on the link and writes once.
func (w *writer) attempt(f *field, v point.Value) error {
	var raw [maxPDU]byte
	into := raw[:2*f.typ.words]
	if err := f.encode(v, into); err != nil {
		return err
	}
	l := w.s.link
	if fail := l.acquire(w.call, w.s.unit, &w.s.ask, forWrite); fail != nil {
		return fail
	}
	defer l.release(w.call)
	if f.addr.Table == Coil {
		return w.coil(f, v)
	}
	if f.partial() {
		return w.part(f, v)
	}
	return w.registers(f, into)
}

func (w *writer) coil(f *field, v point.Value) error {
	on, _ := v.Float() // encode has checked that it is 0 or 1
	var err error
	if w.s.set.writeMode == writeMultiple {
		_, err = w.c.WriteMultipleCoils(f.addr.Item, 1, []byte{byte(on)})
	} else {
		_, err = w.c.WriteSingleCoil(f.addr.Item, uint16(on)*0xff00)
	}
	return err
}

func (w *writer) registers(f *field, data []byte) error {
	words := uint16(f.typ.words)
	var err error
	switch {
	case w.s.set.writeMode == writeReadWrite:
		_, err = w.c.ReadWriteMultipleRegisters(f.addr.Item, words, f.addr.Item, words, data)
	case words == 1 && w.s.set.writeMode == writeAuto:
		_, err = w.c.WriteSingleRegister(f.addr.Item, uint16(data[0])<<8|uint16(data[1]))
	default:
		_, err = w.c.WriteMultipleRegisters(f.addr.Item, words, data)
	}
	return err
}

// part writes a bit or a byte of a register.
func (w *writer) part(f *field, v point.Value) error {
	n, err := asInt(v)
	if err != nil {
		return err
	}
	mask, shift := f.mask()
	set := uint16(n) << shift & mask
	if f.order.bytes {
		mask, set = bits.ReverseBytes16(mask), bits.ReverseBytes16(set)
	}
	if w.s.set.maskWrite {
		// Result = (register AND and) OR (or AND NOT and) (AP 6.16).
		_, err = w.c.MaskWriteRegister(f.addr.Item, ^mask, set)
		return err
	}
	w.prep = true
	now, err := w.c.ReadHoldingRegisters(f.addr.Item, 1)
	w.prep = false
	if err != nil {
		return err
	}
	reg := (uint16(now[0])<<8|uint16(now[1]))&^mask | set
	whole := field{addr: f.addr, typ: dataType{kind: kindUint16, words: 1}}
	return w.registers(&whole, []byte{byte(reg >> 8), byte(reg)})
}

// send exchanges one request of goburrow's client. The caller holds the turn.
func (w *writer) send(pdu []byte) ([]byte, error) {
	w.req.set(pdu)
	w.s.link.run(w.call, w.s.unit, []*request{w.req})
	if f, ok := w.req.err.(*failure); !w.prep {
		w.sent = !ok || f.sent
	}
	switch {
	case w.req.err != nil:
		return nil, w.req.err
	case w.req.silent:
		return nil, errBroadcast
	}
	return w.req.answer, nil
}
