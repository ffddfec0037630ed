package modbus

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// mbapSize is the length of the header on TCP: transaction, protocol, length, unit (TCP 3.1.3).
const mbapSize = 7

// maxTCP is the longest frame on TCP (TCP 3.1).
const maxTCP = mbapSize + maxPDU

// A tcpFrame is one message on TCP.
type tcpFrame struct {
	transaction uint16
	unit        byte
	pdu         []byte // at least a function code and one byte
}

var errFrame = errors.New("not a Modbus TCP frame")

// appendTCP appends a frame to b.
func appendTCP(b []byte, f tcpFrame) []byte {
	b = binary.BigEndian.AppendUint16(b, f.transaction)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(1+len(f.pdu)))
	b = append(b, f.unit)
	return append(b, f.pdu...)
}

// parseTCP reads the frame at the start of b and returns its length, 0 when b
// ends before it does. The PDU is part of b. After an error there is no telling
// where the next frame begins.
func parseTCP(b []byte) (tcpFrame, int, error) {
	if len(b) < 4 {
		return tcpFrame{}, 0, nil
	}
	if p := binary.BigEndian.Uint16(b[2:]); p != 0 {
		return tcpFrame{}, 0, fmt.Errorf("protocol %d: %w", p, errFrame)
	}
	if len(b) < mbapSize {
		return tcpFrame{}, 0, nil
	}
	length := int(binary.BigEndian.Uint16(b[4:]))
	if length < 3 || length > 1+maxPDU {
		return tcpFrame{}, 0, fmt.Errorf("length %d: %w", length, errFrame)
	}
	end := mbapSize - 1 + length
	if len(b) < end {
		return tcpFrame{}, 0, nil
	}
	return tcpFrame{transaction: binary.BigEndian.Uint16(b), unit: b[6], pdu: b[mbapSize:end]}, end, nil
}

// maxRTU is the longest frame on a serial line (SL 2.5.1).
const maxRTU = 256

// appendRTU appends a frame to b: unit, PDU, CRC (SL 2.5.1.2).
func appendRTU(b []byte, unit byte, pdu []byte) []byte {
	start := len(b)
	b = append(b, unit)
	b = append(b, pdu...)
	return binary.LittleEndian.AppendUint16(b, crc16(b[start:]))
}

// findRTU looks in the bytes received for the answer to a request. It returns
// the PDU and the length of b up to the end of the frame; end is 0 when the
// answer is not there yet.
//
// Bytes before the frame are skipped: drivers of two-wire lines often make some
// when they switch. But once a start of b looks like the answer, nothing later
// is looked at until it is complete, because an answer's data may look like a
// frame.
func findRTU(b []byte, r *request) (unit byte, pdu []byte, end int) {
	for i := range b {
		rest := b[i:]
		size := rtuSize(rest, r)
		if size == 0 {
			continue
		}
		if len(rest) < size {
			return 0, nil, 0
		}
		body := rest[:size-2]
		if crc16(body) == binary.LittleEndian.Uint16(rest[size-2:]) {
			return body[0], body[1:], i + size
		}
	}
	return 0, nil, 0
}

// rtuSize returns the length of the frame that answers r if b, which may end
// early, can be the start of it, else 0.
func rtuSize(b []byte, r *request) int {
	if b[0] != r.unit && !r.anyUnit {
		return 0
	}
	if len(b) < 2 {
		return 1 + r.want + 2
	}
	switch b[1] {
	case r.pdu[0] | exceptionBit:
		return 5
	case r.pdu[0]:
		if startsLike(r.pdu, b[2:]) {
			return 1 + r.want + 2
		}
	}
	return 0
}

// crc16 is the CRC of SL 6.2.2: polynomial 0xA001, start 0xFFFF.
func crc16(b []byte) uint16 {
	crc := uint16(0xffff)
	for _, c := range b {
		crc = crc>>8 ^ crcTable[byte(crc)^c]
	}
	return crc
}

var crcTable = makeCRCTable()

func makeCRCTable() (t [256]uint16) {
	for i := range t {
		crc := uint16(i)
		for range 8 {
			if crc&1 != 0 {
				crc = crc>>1 ^ 0xa001
			} else {
				crc >>= 1
			}
		}
		t[i] = crc
	}
	return t
}
