package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/goburrow/modbus"
)

// A request is one question to one unit and, after the exchange, its outcome.
// The first part is set by the asker, the second by the link.
type request struct {
	unit    byte
	anyUnit bool   // take the answer whatever unit it says it is from
	silent  bool   // broadcast: nobody answers
	pdu     []byte // function code and data (AP 4.1)
	want    int    // length of a normal answer's PDU
	patience

	wait   time.Duration // longest wait for this answer: the timeout, or a probe's part of it
	sentAt time.Duration
	answer []byte // PDU of the answer, in buf
	err    error  // nil, *modbus.ModbusError or *failure
	buf    [maxPDU]byte
}

// maxPDU is the longest protocol data unit (AP 4.1).
const maxPDU = 253

// exceptionBit marks the function code of an exception answer (AP 4.1).
const exceptionBit = 0x80

// set prepares the request for the PDU given.
func (r *request) set(pdu []byte) {
	r.pdu, r.want = pdu, answerLength(pdu)
	r.answer, r.err = nil, nil
}

// take checks an answer and keeps it. An exception is an answer.
func (r *request) take(unit byte, pdu []byte) error {
	if unit != r.unit && !r.anyUnit {
		return fmt.Errorf("answer is from unit %d, not from %d (see ignore_unit_id)", unit, r.unit)
	}
	if len(pdu) == 2 && pdu[0] == r.pdu[0]|exceptionBit {
		r.err = &modbus.ModbusError{FunctionCode: pdu[0], ExceptionCode: pdu[1]}
		return nil
	}
	if pdu[0] != r.pdu[0] {
		return fmt.Errorf("answer is to function %d, not to %d", pdu[0], r.pdu[0])
	}
	if len(pdu) != r.want || !startsLike(r.pdu, pdu[1:]) {
		return fmt.Errorf("answer of %d bytes does not fit the request, %d are due", len(pdu), r.want)
	}
	r.answer = r.buf[:copy(r.buf[:], pdu)]
	return nil
}

// answerLength returns the length of a normal answer to a request (AP 6).
func answerLength(pdu []byte) int {
	switch pdu[0] {
	case modbus.FuncCodeReadCoils, modbus.FuncCodeReadDiscreteInputs:
		return 2 + (int(binary.BigEndian.Uint16(pdu[3:]))+7)/8
	case modbus.FuncCodeReadHoldingRegisters, modbus.FuncCodeReadInputRegisters, modbus.FuncCodeReadWriteMultipleRegisters:
		return 2 + 2*int(binary.BigEndian.Uint16(pdu[3:]))
	case modbus.FuncCodeMaskWriteRegister:
		return 7
	}
	return 5 // functions 5, 6, 15 and 16
}

// startsLike reports whether the data of an answer, or as much of it as has come,
// can belong to a normal answer to the request: reads tell the number of bytes
// that were asked for, writes repeat the start of the request.
func startsLike(request, data []byte) bool {
	if len(data) == 0 {
		return true
	}
	switch request[0] {
	case modbus.FuncCodeReadCoils, modbus.FuncCodeReadDiscreteInputs, modbus.FuncCodeReadHoldingRegisters,
		modbus.FuncCodeReadInputRegisters, modbus.FuncCodeReadWriteMultipleRegisters:
		return int(data[0]) == answerLength(request)-2
	}
	n := min(len(data), answerLength(request)-1)
	return string(data[:n]) == string(request[1:1+n])
}

// pdus is a packager that adds no frame, so that goburrow's client encodes and
// checks protocol data units, and the link's wire does the framing.
type pdus struct {
	send func(pdu []byte) ([]byte, error)
}

// Encode returns function code and data.
func (p *pdus) Encode(u *modbus.ProtocolDataUnit) ([]byte, error) {
	if len(u.Data) >= maxPDU {
		return nil, fmt.Errorf("request of %d bytes is longer than %d", len(u.Data)+1, maxPDU)
	}
	return append([]byte{u.FunctionCode}, u.Data...), nil
}

// Decode is the inverse of Encode.
func (p *pdus) Decode(adu []byte) (*modbus.ProtocolDataUnit, error) {
	if len(adu) < 2 {
		return nil, errors.New("answer is empty")
	}
	return &modbus.ProtocolDataUnit{FunctionCode: adu[0], Data: adu[1:]}, nil
}

// Verify leaves the checks to request.take, which has made them.
func (p *pdus) Verify(_, _ []byte) error { return nil }

// Send hands the request on.
func (p *pdus) Send(adu []byte) ([]byte, error) { return p.send(adu) }

// errEncoded ends a call of goburrow's client once the request is encoded.
var errEncoded = errors.New("encoded")

// encodeRead returns the PDU that reads count items of a table.
func encodeRead(t Table, from, count int) ([]byte, error) {
	var pdu []byte
	p := &pdus{send: func(b []byte) ([]byte, error) { pdu = b; return nil, errEncoded }}
	c := modbus.NewClient2(p, p)
	read := [...]func(address, quantity uint16) ([]byte, error){
		Coil: c.ReadCoils, Discrete: c.ReadDiscreteInputs, Input: c.ReadInputRegisters, Holding: c.ReadHoldingRegisters,
	}[t]
	if _, err := read(uint16(from), uint16(count)); !errors.Is(err, errEncoded) {
		return nil, err
	}
	return pdu, nil
}
