package route

// Type rules. A value of the body has the type kindBody until a message is
// there, and is allowed wherever some value is.

// boolean makes n the operand of something that wants a truth value.
func (p *parser) boolean(n node, at int, what string) node {
	switch n.static() {
	case kindBool, kindUndefined, kindBody:
		return n
	case kindNull:
		return nullAsFalse
	}
	p.fail(at, "", "%s must be true or false, but is a %s", what, n.static())
	return n
}

// nullAsFalse is the word null where a truth value is wanted.
var nullAsFalse = &literal{v: boolean(false), t: kindNull, text: "null"}

func (p *parser) minus(x node, at int) node {
	switch x.static() {
	case kindNumber, kindBody, kindUndefined:
		return &unary{op: "-", x: x, t: kindNumber}
	}
	p.fail(at, "", "only a number has a negative, not a %s", x.static())
	return x
}

// binary checks an operator's operands and makes its node. The positions are
// those of the left operand, the operator and the right operand.
func (p *parser) binary(op string, l, r node, lAt, opAt, rAt int) node {
	n := &binary{op: op, code: codeOf(op), l: l, r: r, t: kindBool}
	lt, rt := l.static(), r.static()
	body := lt == kindBody || rt == kindBody
	switch binaryLevel(op) {
	case levelAnd, levelOr:
		if p.lex.dialect == Compat && rt == kindBody && lt != kindBody {
			p.fail(rAt, "", "a body value cannot stand on the right of %s unless one stands on the left (compatibility)", op)
		}
		n.l, n.r = p.boolean(l, lAt, "the left operand of "+op), p.boolean(r, rAt, "the right operand of "+op)
	case levelEqual:
		switch {
		case lt == kindNull && rt == kindBool:
			n.l = nullAsFalse
		case lt == kindBool && rt == kindNull:
			n.r = nullAsFalse
		case lt != rt && !body:
			p.mismatch(op, lt, rt, opAt)
		}
	case levelOrder:
		if lt != rt && !body {
			p.mismatch(op, lt, rt, opAt)
		}
		for _, t := range []kind{lt, rt} {
			if t == kindBool || t == kindNull {
				p.fail(opAt, "", "%s does not order a %s", op, t)
			}
		}
	case levelCoalesce:
		if lt != rt && !body {
			p.mismatch(op, lt, rt, opAt)
		}
		n.t = lt
		if body {
			n.t = kindBody
		}
	case levelSum, levelProduct:
		n.t = kindNumber
		if op == "||" {
			n.t = kindString
		}
		p.want(l, n.t, op, lAt)
		p.want(r, n.t, op, rAt)
	}
	return n
}

func (p *parser) want(n node, t kind, op string, at int) {
	if n.static() != t && n.static() != kindBody {
		p.fail(at, "", "%s wants a %s, but this is a %s%s", op, t, n.static(), hintNumber(n, t))
	}
}

func (p *parser) mismatch(op string, l, r kind, at int) {
	hint := ""
	if l == kindNumber && r == kindString || l == kindString && r == kindNumber {
		hint = "; as_number(...) makes a number of a string"
	}
	p.fail(at, "", "%s cannot compare a %s with a %s%s", op, l, r, hint)
}

func hintNumber(n node, t kind) string {
	if t == kindNumber && n.static() == kindString {
		return "; as_number(...) makes a number of a string"
	}
	return ""
}

// checkCall checks the number and types of a call's arguments.
func (p *parser) checkCall(n *call, at int, args []int) {
	if p.err != nil {
		return
	}
	f := n.f
	if f.refused != "" {
		p.fail(at, "", "%s %s", f.name, f.refused)
		return
	}
	if len(n.args) < f.least || len(n.args) > f.most {
		p.fail(at, "", "%s wants %s, found %d", f.name, f.arity(), len(n.args))
		return
	}
	for i, a := range n.args {
		want, got := f.arg(i), a.static()
		switch {
		case want == kindAny || got == want || got == kindBody:
		case f.name == "as_number" && got == kindNumber:
		default:
			p.fail(args[i], "", "argument %d of %s must be a %s, but is a %s%s", i+1, f.name, want, got, hintNumber(a, want))
		}
	}
}
