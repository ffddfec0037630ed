package route

import (
	"bytes"
	"cmp"
	"math"
)

// kind is the type of a value. The order of the first ones is the rank by which
// Compat orders body values of different types.
type kind uint8

const (
	kindUndefined kind = iota
	kindBool
	kindNumber
	kindString
	kindNull
	kindBody // static only: whatever the body holds
	kindAny  // static only: argument of any type
)

func (k kind) String() string {
	return [...]string{"undefined", "truth value", "number", "string", "null", "body value", "value"}[k]
}

// A value is what an expression comes to.
type value struct {
	k kind
	b bool
	n float64
	s []byte
}

var undefined = value{}

func boolean(b bool) value { return value{k: kindBool, b: b} }

// number returns f, or undefined when it is not a number.
func number(f float64) value {
	if math.IsNaN(f) {
		return undefined
	}
	return value{k: kindNumber, n: f}
}

// logic is three-valued.
type logic uint8

const (
	unknown logic = iota
	no
	yes
)

// truth is what v says as a condition. Only a truth value says anything.
func truth(v value) logic {
	switch {
	case v.k != kindBool:
		return unknown
	case v.b:
		return yes
	}
	return no
}

// compare applies a comparison operator.
func compare(op opCode, l, r *value, d Dialect) value {
	if l.k == kindUndefined || r.k == kindUndefined {
		return undefined
	}
	switch op {
	case opEqual:
		return boolean(equal(l, r))
	case opNotEqual:
		return boolean(!equal(l, r))
	}
	c, ok := order(l, r, d)
	if !ok {
		return undefined
	}
	switch op {
	case opLess:
		return boolean(c < 0)
	case opLessEqual:
		return boolean(c <= 0)
	case opGreater:
		return boolean(c > 0)
	}
	return boolean(c >= 0)
}

func equal(l, r *value) bool {
	if l.k != r.k {
		return false
	}
	switch l.k {
	case kindBool:
		return l.b == r.b
	case kindNumber:
		return l.n == r.n
	case kindString:
		return bytes.Equal(l.s, r.s)
	}
	return true // both null
}

// order compares two defined values; ok is false when they have no order.
func order(l, r *value, d Dialect) (c int, ok bool) {
	if l.k != r.k {
		return cmp.Compare(l.k, r.k), d == Compat
	}
	switch l.k {
	case kindNumber:
		return cmp.Compare(l.n, r.n), true
	case kindString:
		return bytes.Compare(l.s, r.s), true
	case kindBool:
		if l.b == r.b {
			return 0, d == Compat
		} else if r.b {
			return -1, d == Compat
		}
		return 1, d == Compat
	}
	return 0, d == Compat
}
