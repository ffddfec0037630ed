package route

import (
	"math"
	"strconv"
	"strings"
)

// maxDepth bounds the nesting of a condition, and so the stack that parsing and
// matching it takes.
const maxDepth = 100

type parser struct {
	lex   lexer
	tok   token // the current one
	depth int
	err   *Error
}

// fail remembers the first error; parsing goes on harmlessly after it.
func (p *parser) fail(pos int, near, format string, args ...any) {
	if p.err == nil {
		p.err = errorAt(p.lex.text, pos, near, format, args...)
	}
}

func (p *parser) advance() { p.tok = p.lex.next() }

// keyword reports whether the current token is word, and passes it if so.
func (p *parser) keyword(word string) bool {
	if p.tok.kind != tokName || !strings.EqualFold(p.tok.text, word) {
		return false
	}
	p.advance()
	return true
}

// operator passes the current token if it is op.
func (p *parser) operator(op string) bool {
	if p.tok.kind != tokOp || p.tok.text != op {
		return false
	}
	p.advance()
	return true
}

// expected records that something else than the current token was expected.
// Words that could stand here make the nearest one known.
func (p *parser) expected(what string, words ...string) {
	found := strconv.Quote(p.tok.text)
	switch {
	case p.tok.kind == tokEnd:
		found = "the end"
	case p.tok.kind == tokBad && strings.ContainsAny(p.tok.text[:1], `"'`):
		p.fail(p.tok.pos, "", "this string has no end or a wrong escape")
		return
	}
	p.fail(p.tok.pos, nearest(p.tok.text, words...), "expected %s, found %s", what, found)
}

func (p *parser) parse() (*Route, error) {
	r := &Route{dialect: p.lex.dialect}
	p.advance()
	if p.keyword("SELECT") {
		r.all = true
		if !p.operator("*") {
			p.expected("* after SELECT")
		}
	}
	if p.tok.kind != tokName || !strings.EqualFold(p.tok.text, "FROM") {
		p.expected("FROM", "FROM", "SELECT")
		return nil, p.err
	}
	p.source(r)
	if p.err == nil && p.keyword("WHERE") {
		at := p.tok.pos
		r.where = p.boolean(p.expression(levelCoalesce), at, "the condition")
	}
	if p.err == nil {
		if p.keyword("INTO") {
			p.sink(r)
		} else if r.where == nil {
			p.expected("WHERE or INTO", "WHERE", "INTO")
		} else {
			p.expected("an operator or INTO", "INTO", "AND", "OR")
		}
	}
	if p.err == nil && p.tok.kind != tokEnd {
		p.expected("nothing more")
	}
	if p.err != nil {
		return nil, p.err
	}
	return r, nil
}

// source reads the path after FROM, and the token after it.
func (p *parser) source(r *Route) {
	for {
		before := p.lex.pos
		t := p.lex.item()
		if t.kind != tokOp {
			p.lex.pos = before
			p.advance()
			if len(r.source) == 0 {
				p.expected("a source such as /messages/*")
			}
			break
		}
		t = p.lex.item()
		if t.kind != tokName {
			p.tok = t
			p.expected("a name or * after /")
			return
		}
		r.source = append(r.source, t.text)
	}
	segments := r.source
	if n := len(segments); n > 0 && segments[n-1] == "*" {
		segments = segments[:n-1]
	}
	r.prefix = "/"
	for _, s := range segments {
		r.prefix += lowerASCII(s) + "/"
	}
}

func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			b[i] = c | 0x20
		}
	}
	return string(b)
}

func (p *parser) sink(r *Route) {
	at := p.tok
	switch {
	case at.kind == tokSys && strings.EqualFold(at.text, "$upstream"):
		p.advance()
		r.sink, r.endpoint = sink{kind: sinkFirst}, "$upstream"
		return
	case at.kind == tokName && strings.EqualFold(at.text, "BrokeredEndpoint"):
		r.sink.kind = sinkModule
	case at.kind == tokName && strings.EqualFold(at.text, "Upstream"):
		r.sink.kind = sinkNamed
	default:
		p.expected("$upstream, BrokeredEndpoint(...) or Upstream(...)", "$upstream", "BrokeredEndpoint", "Upstream")
		return
	}
	p.advance()
	if !p.operator("(") {
		p.expected("( after " + at.text)
		return
	}
	arg := p.tok
	if arg.kind != tokString {
		p.expected("a string with the endpoint")
		return
	}
	p.advance()
	if !p.operator(")") {
		p.expected(")")
		return
	}
	r.sink.text = arg.value
	if r.sink.kind == sinkModule {
		r.endpoint = p.moduleInput(arg)
	} else {
		r.endpoint = p.upstreamName(arg)
	}
}

// moduleInput reads "/modules/<module>/inputs/<input>". As in the original, the
// words modules and inputs are not checked in Compat.
func (p *parser) moduleInput(arg token) string {
	s := strings.Split(strings.Trim(arg.value, "/"), "/")
	ok := len(s) == 4 && s[1] != "" && s[3] != "" && strings.HasPrefix(arg.value, "/")
	if ok && p.lex.dialect == Fixed {
		ok = strings.EqualFold(s[0], "modules") && strings.EqualFold(s[2], "inputs")
	}
	if !ok {
		p.fail(arg.pos, "", `expected "/modules/<module>/inputs/<input>", found %s`, arg.text)
		return ""
	}
	return p.endpoint(arg, s[1]+"/"+s[3])
}

func (p *parser) upstreamName(arg token) string {
	for _, c := range []byte(arg.value) {
		if !isDigit(c) && (c|0x20 < 'a' || c|0x20 > 'z') && c != '-' && c != '_' {
			p.fail(arg.pos, "", "the name of an upstream has only letters, digits, - and _, found %s", arg.text)
		}
	}
	return p.endpoint(arg, arg.value)
}

func (p *parser) endpoint(arg token, name string) string {
	if name == "" || len(name) > math.MaxUint8 {
		p.fail(arg.pos, "", "an endpoint's name has 1 to %d bytes", math.MaxUint8)
	}
	return name
}

// expression reads operators that bind at least as tightly as level.
func (p *parser) expression(level int) node {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.tok.pos, "", "condition is nested more than %d deep", maxDepth)
		return undefinedNode()
	}
	defer func() { p.depth-- }()
	at := p.tok.pos
	left := p.operand()
	// The limit on the chain keeps the tree, which leans to the left, shallow
	// enough for recursion.
	for n := 0; p.err == nil; n++ {
		op := p.tok.text
		if p.tok.kind == tokName {
			op = strings.ToUpper(op)
		} else if p.tok.kind != tokOp {
			break
		}
		if l := binaryLevel(op); l == 0 || l < level {
			break
		}
		if n > 1000 {
			p.fail(p.tok.pos, "", "condition has more than 1000 operators in a row")
			break
		}
		opAt := p.tok.pos
		p.advance()
		rightAt := p.tok.pos
		right := p.expression(binaryLevel(op) + 1)
		left = p.binary(op, left, right, at, opAt, rightAt)
	}
	return left
}

func (p *parser) operand() node {
	t := p.tok
	switch {
	case p.operator("-"):
		return p.minus(p.deeper(levelMinus), t.pos)
	case p.keyword("NOT"):
		x := p.boolean(p.deeper(levelNot), t.pos, "the operand of NOT")
		return &unary{op: "NOT", x: x, t: kindBool}
	case p.operator("("):
		n := p.expression(levelCoalesce)
		if !p.operator(")") {
			p.expected("an operator or )", "AND", "OR")
		}
		return n
	case p.operator("{"):
		return p.braced()
	case t.kind == tokNumber:
		p.advance()
		return &literal{v: number(parseNumber(t.text)), t: kindNumber, text: t.text}
	case t.kind == tokString:
		p.advance()
		return &literal{v: value{k: kindString, s: []byte(t.value)}, t: kindString}
	case t.kind == tokSys:
		p.advance()
		return p.dollar(t)
	case t.kind == tokName:
		return p.named()
	}
	p.expected("a value")
	return undefinedNode()
}

// deeper reads the operand of a prefix operator, which may be another one.
func (p *parser) deeper(level int) node { return p.expression(level) }

func (p *parser) braced() node {
	t := p.tok
	if t.kind != tokSys {
		p.expected("a system property such as $contentType")
		return undefinedNode()
	}
	p.advance()
	if !p.operator("}") {
		p.expected("}")
	}
	return &system{name: t.text[1:], full: t.text, only: true}
}

var reserved = []string{"SELECT", "FROM", "WHERE", "INTO", "AND", "OR", "NOT"}

// named reads a literal word, a function call or an application property.
func (p *parser) named() node {
	t := p.tok
	for _, w := range reserved {
		if strings.EqualFold(t.text, w) {
			p.expected("a value")
			return undefinedNode()
		}
	}
	p.advance()
	switch t.text {
	case "true", "false":
		return &literal{v: boolean(t.text == "true"), t: kindBool, text: t.text}
	case "null":
		return &literal{v: value{k: kindNull}, t: kindNull, text: t.text}
	case "undefined":
		return undefinedNode()
	}
	if p.operator("(") {
		return p.call(t)
	}
	return &property{name: t.text}
}

func undefinedNode() node { return &literal{t: kindUndefined, text: "undefined"} }

// dollar reads what a name with $ stands for.
func (p *parser) dollar(t token) node {
	const prefix = "$body"
	if len(t.text) >= len(prefix) && strings.EqualFold(t.text[:len(prefix)], prefix) {
		rest := t.text[len(prefix):]
		if rest == "" || rest[0] == '.' || rest[0] == '[' {
			return p.bodyPath(t, rest)
		}
	}
	if i := strings.IndexAny(t.text, "[]"); i >= 0 {
		p.fail(t.pos+i, "", "only a path into $body has an index")
	}
	return &system{name: t.text[1:], full: t.text}
}

// bodyPath reads .key and [index] steps.
func (p *parser) bodyPath(t token, rest string) node {
	n := &bodyPath{text: rest}
	at := t.pos + len(t.text) - len(rest)
	for i := 0; i < len(rest); {
		if rest[i] == '.' {
			end := i + 1
			for end < len(rest) && strings.IndexByte(".[]", rest[end]) < 0 {
				end++
			}
			if end == i+1 {
				p.fail(at+end, "", "expected a name in the path into the body")
				return n
			}
			n.steps = append(n.steps, step{key: rest[i+1 : end]})
			i = end
			continue
		}
		d := 0
		if rest[i] == '[' {
			d = digits(rest[i+1:])
		}
		if d == 0 || d > 9 || i+1+d >= len(rest) || rest[i+1+d] != ']' {
			p.fail(at+i, "", "expected . and a name, or an index such as [0], in the path into the body")
			return n
		}
		index, _ := strconv.Atoi(rest[i+1 : i+1+d])
		n.steps = append(n.steps, step{index: index})
		i += d + 2
	}
	return n
}

// call reads the arguments of a function after its parenthesis.
func (p *parser) call(name token) node {
	f := functionNamed(name.text)
	if f == nil {
		p.fail(name.pos, nearest(name.text, functionNames()...), "there is no function %q", name.text)
		return undefinedNode()
	}
	n := &call{f: f}
	var at []int
	for p.err == nil && !p.operator(")") {
		if len(n.args) > 0 && !p.operator(",") {
			p.expected(", or )")
			break
		}
		at = append(at, p.tok.pos)
		n.args = append(n.args, p.expression(levelCoalesce))
	}
	p.checkCall(n, name.pos, at)
	return n
}

// parseNumber reads a number that the lexer has cut out; one beyond the range
// of a double is infinite.
func parseNumber(s string) float64 {
	if len(s) > 2 && s[1]|0x20 == 'x' {
		var f float64
		for _, c := range []byte(s[2:]) {
			d, _ := strconv.ParseUint(string(c), 16, 8)
			f = f*16 + float64(d)
		}
		return f
	}
	f, _ := strconv.ParseFloat(s, 64)
	return f
}
