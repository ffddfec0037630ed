package route

import (
	"strings"
)

// A node is a part of a condition, already checked.
type node interface {
	eval(s *Scratch) value
	static() kind // the type known when parsing; kindBody when only the message tells
	print(b *strings.Builder)
	level() int // how tightly it binds, for printing
}

// Binding strength, weakest first.
const (
	levelCoalesce = iota + 1
	levelOr
	levelAnd
	levelEqual
	levelOrder
	levelSum
	levelProduct
	levelNot
	levelMinus
	levelAtom
)

type literal struct {
	v    value
	t    kind
	text string
}

type property struct{ name string }

type system struct {
	name string // without $
	only bool   // written in braces: never an application property
	full string // with $: the application property of that name comes first
}

type bodyPath struct {
	steps []step
	text  string // after "$body"
}

// step is one part of a path into the body: a key, or an index when key is
// empty.
type step struct {
	key   string
	index int
}

type unary struct {
	op string // "-" or "NOT"
	x  node
	t  kind
}

type binary struct {
	op   string
	code opCode // the same
	l, r node
	t    kind
}

// opCode is a binary operator.
type opCode uint8

const (
	opAnd opCode = iota
	opOr
	opCoalesce
	opConcat
	opAdd
	opSubtract
	opMultiply
	opDivide
	opModulo
	opEqual
	opNotEqual
	opLess
	opLessEqual
	opGreater
	opGreaterEqual
)

func codeOf(op string) opCode {
	switch op {
	case "AND":
		return opAnd
	case "OR":
		return opOr
	case "??":
		return opCoalesce
	case "||":
		return opConcat
	case "+":
		return opAdd
	case "-":
		return opSubtract
	case "*":
		return opMultiply
	case "/":
		return opDivide
	case "%":
		return opModulo
	case "=":
		return opEqual
	case "!=", "<>":
		return opNotEqual
	case "<":
		return opLess
	case "<=":
		return opLessEqual
	case ">":
		return opGreater
	}
	return opGreaterEqual
}

type call struct {
	f    *function
	args []node
}

type sinkKind uint8

const (
	sinkFirst sinkKind = iota // $upstream
	sinkModule
	sinkNamed
)

type sink struct {
	kind sinkKind
	text string // the argument
}

func (n *literal) level() int  { return levelAtom }
func (n *property) level() int { return levelAtom }
func (n *system) level() int   { return levelAtom }
func (n *bodyPath) level() int { return levelAtom }
func (n *call) level() int     { return levelAtom }
func (n *unary) level() int {
	if n.op == "-" {
		return levelMinus
	}
	return levelNot
}
func (n *binary) level() int { return binaryLevel(n.op) }

func (n *literal) static() kind  { return n.t }
func (n *property) static() kind { return kindString }
func (n *system) static() kind   { return kindString }
func (n *bodyPath) static() kind { return kindBody }
func (n *unary) static() kind    { return n.t }
func (n *binary) static() kind   { return n.t }
func (n *call) static() kind     { return n.f.result }

func binaryLevel(op string) int {
	switch op {
	case "??":
		return levelCoalesce
	case "OR":
		return levelOr
	case "AND":
		return levelAnd
	case "=", "!=", "<>":
		return levelEqual
	case "<", "<=", ">", ">=":
		return levelOrder
	case "+", "-", "||":
		return levelSum
	case "*", "/", "%":
		return levelProduct
	}
	return 0
}

// String returns the route in its canonical form, which parses to the same
// route in the same dialect.
func (r *Route) String() string {
	var b strings.Builder
	if r.all {
		b.WriteString("SELECT * ")
	}
	b.WriteString("FROM ")
	for _, item := range r.source {
		b.WriteString("/" + item)
	}
	if r.where != nil {
		b.WriteString(" WHERE ")
		r.where.print(&b)
	}
	b.WriteString(" INTO ")
	switch r.sink.kind {
	case sinkFirst:
		b.WriteString("$upstream")
	case sinkModule:
		b.WriteString("BrokeredEndpoint(")
		quote(&b, r.sink.text)
		b.WriteString(")")
	case sinkNamed:
		b.WriteString("Upstream(")
		quote(&b, r.sink.text)
		b.WriteString(")")
	}
	return b.String()
}

func (n *literal) print(b *strings.Builder) {
	if n.t == kindString {
		quote(b, string(n.v.s))
		return
	}
	b.WriteString(n.text)
}

func (n *property) print(b *strings.Builder) { b.WriteString(n.name) }

func (n *system) print(b *strings.Builder) {
	if n.only {
		b.WriteString("{" + n.full + "}")
		return
	}
	b.WriteString(n.full)
}

func (n *bodyPath) print(b *strings.Builder) { b.WriteString("$body" + n.text) }

func (n *unary) print(b *strings.Builder) {
	if n.op == "-" {
		// Always in parentheses: "-5" is a sign in one dialect and an operator in
		// the other.
		b.WriteString("-(")
		n.x.print(b)
		b.WriteString(")")
		return
	}
	b.WriteString("NOT ")
	printIn(b, n.x, levelNot)
}

func (n *binary) print(b *strings.Builder) {
	printIn(b, n.l, n.level())
	b.WriteString(" " + n.op + " ")
	printIn(b, n.r, n.level()+1)
}

func (n *call) print(b *strings.Builder) {
	b.WriteString(n.f.name + "(")
	for i, a := range n.args {
		if i > 0 {
			b.WriteString(", ")
		}
		a.print(b)
	}
	b.WriteString(")")
}

// printIn prints n, in parentheses when it binds less tightly than level.
func printIn(b *strings.Builder, n node, level int) {
	if n.level() >= level {
		n.print(b)
		return
	}
	b.WriteString("(")
	n.print(b)
	b.WriteString(")")
}

func quote(b *strings.Builder, s string) {
	b.WriteByte('\'')
	for i := range len(s) {
		if s[i] == '\'' || s[i] == '\\' {
			b.WriteByte('\\')
		}
		b.WriteByte(s[i])
	}
	b.WriteByte('\'')
}
