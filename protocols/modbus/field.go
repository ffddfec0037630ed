package modbus

import (
	"errors"
	"fmt"

	"holdfast/protocols/point"
)

// A field is a tag as compiled: where its value lies and how it is encoded.
type field struct {
	addr  Address
	typ   dataType
	order order
}

// span returns the first item and the one after the last.
func (f *field) span() (from, to int) {
	if f.addr.Table.Bits() {
		return int(f.addr.Item), int(f.addr.Item) + 1
	}
	return int(f.addr.Item), int(f.addr.Item) + f.typ.words
}

// partial reports whether the field is part of one register, so that a write
// has to leave the other bits alone.
func (f *field) partial() bool {
	return !f.addr.Table.Bits() && f.typ.kind <= kindUint8Low
}

// mask returns the bits of the register that a partial field owns, as they
// stand on the wire, and how far to the left its value stands.
func (f *field) mask() (mask uint16, shift uint) {
	switch f.typ.kind {
	case kindBool:
		mask, shift = 1<<uint(f.addr.Bit), uint(f.addr.Bit)
	case kindInt8High, kindUint8High:
		mask, shift = 0xff00, 8
	default:
		mask, shift = 0x00ff, 0
	}
	return mask, shift
}

// compile reads a tag's address, type and parameters. It returns all mistakes.
func compile(t point.Tag, s *settings) (field, error) {
	var errs []error
	a, err := ParseAddress(t.Address)
	if err != nil {
		return field{}, err // the rest depends on it
	}
	f := field{addr: a}
	if f.typ, err = parseType(t.Type, a); err != nil {
		errs = append(errs, err)
	}
	text := f.typ.kind == kindString || f.typ.kind == kindBytes
	if !text {
		f.order = s.order
	}
	for key, value := range t.Params {
		if key != "order" {
			errs = append(errs, fmt.Errorf("unknown key %q%s", key, didYouMean(key, []string{"order"})))
			continue
		}
		if f.order, err = parseOrder(value); err != nil {
			errs = append(errs, err)
		} else if text && f.order.words {
			errs = append(errs, fmt.Errorf("order %q: text takes AB or BA", value))
		}
	}
	if t.Access.Writable() && !a.Table.Writable() {
		errs = append(errs, fmt.Errorf("address %q: a %s cannot be written", t.Address, a.Table))
	}
	if t.Access.Readable() && s.broadcast() {
		errs = append(errs, errors.New("unit 0 of a serial line is the broadcast address: its tags can only be written (access \"w\")"))
	}
	if from, to := f.span(); !a.Table.Bits() && t.Access.Readable() && to-from > s.maxRegisters {
		errs = append(errs, fmt.Errorf("type %q: %d registers are more than max_registers = %d", t.Type, to-from, s.maxRegisters))
	} else if !a.Table.Bits() && t.Access.Writable() && to-from > s.maxWriteRegisters() {
		errs = append(errs, fmt.Errorf("type %q: %d registers are more than can be written at once (%d)", t.Type, to-from, s.maxWriteRegisters()))
	}
	if t.Access.Writable() && s.broadcast() && f.partial() && !s.maskWrite {
		errs = append(errs, errors.New("part of a register can only be broadcast with mask_write = true: nothing can be read before"))
	}
	return f, errors.Join(errs...)
}
