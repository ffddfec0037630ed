package route

import "math"

func (n *literal) eval(*Scratch) value { return n.v }

func (n *property) eval(s *Scratch) value { return text(s.m.Property(n.name)) }

func (n *system) eval(s *Scratch) value {
	if !n.only {
		if v, ok := s.m.Property(n.full); ok {
			return text(v, ok)
		}
	}
	return text(s.m.System(n.name))
}

func text(b []byte, ok bool) value {
	if !ok {
		return undefined
	}
	return value{k: kindString, s: b}
}

func (n *unary) eval(s *Scratch) value {
	v := n.x.eval(s)
	if n.op == "-" {
		if v.k != kindNumber {
			return undefined
		}
		return number(-v.n)
	}
	switch truth(v) {
	case yes:
		return boolean(false)
	case no:
		return boolean(true)
	}
	return undefined
}

func (n *binary) eval(s *Scratch) value {
	switch n.code {
	case opAnd:
		return n.both(s, no)
	case opOr:
		return n.both(s, yes)
	case opCoalesce:
		if v := n.l.eval(s); v.k != kindUndefined {
			return v
		}
		return n.r.eval(s)
	}
	l, r := n.l.eval(s), n.r.eval(s)
	switch n.code {
	case opConcat:
		if l.k != kindString || r.k != kindString {
			return undefined
		}
		return s.join(l.s, r.s)
	case opAdd, opSubtract, opMultiply, opDivide, opModulo:
		if l.k != kindNumber || r.k != kindNumber {
			return undefined
		}
		return number(arithmetic(n.code, l.n, r.n))
	}
	return compare(n.code, &l, &r, s.dialect)
}

// both evaluates AND and OR: one operand that decides is enough, even when the
// other is undefined.
func (n *binary) both(s *Scratch, decides logic) value {
	l := truth(n.l.eval(s))
	if l == decides {
		return boolean(decides == yes)
	}
	switch r := truth(n.r.eval(s)); {
	case r == decides:
		return boolean(decides == yes)
	case l == unknown || r == unknown:
		return undefined
	}
	return boolean(decides == no)
}

// arithmetic follows IEEE 754: division by zero is infinite.
func arithmetic(op opCode, l, r float64) float64 {
	switch op {
	case opAdd:
		return l + r
	case opSubtract:
		return l - r
	case opMultiply:
		return l * r
	case opDivide:
		return l / r
	}
	return math.Mod(l, r)
}

func (n *call) eval(s *Scratch) value {
	// Arguments lie on a stack in the scratch memory: calls nest.
	base := len(s.args)
	defer func() { s.args = s.args[:base] }()
	for _, a := range n.args {
		v := a.eval(s)
		s.args = append(s.args, v)
	}
	args := s.args[base:]
	if n.f.name == "is_null" && s.dialect == Compat && n.args[0].static() == kindBody {
		return boolean(s.present(n.args[0]))
	}
	for i := range args {
		if want := n.f.arg(i); want != kindAny && want != args[i].k && !(n.f.name == "as_number" && args[i].k == kindNumber) {
			return undefined
		}
	}
	return n.f.do(s, args)
}

// present reports whether a body value is there at all.
func (s *Scratch) present(n node) bool {
	if p, ok := n.(*bodyPath); ok {
		_, found := s.find(p.steps)
		return found
	}
	return n.eval(s).k != kindNull
}

// join puts strings together in the scratch memory.
func (s *Scratch) join(parts ...[]byte) value {
	from := len(s.text)
	for _, p := range parts {
		s.text = append(s.text, p...)
	}
	return value{k: kindString, s: s.text[from:len(s.text):len(s.text)]}
}
