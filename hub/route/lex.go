package route

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

type tokenKind uint8

const (
	tokEnd    tokenKind = iota
	tokName             // a name or a keyword
	tokSys              // $ and what follows
	tokString           // a quoted string; value is its content
	tokNumber           // a number as written
	tokOp               // an operator or a bracket
	tokBad              // a character that begins nothing, or a string without end
)

type token struct {
	kind  tokenKind
	pos   int
	text  string // as written
	value string // of a string: without quotes and escapes
}

// lexer cuts a route into tokens, one at a time, because inside a source
// other rules hold and only the parser knows.
type lexer struct {
	text    string
	dialect Dialect
	pos     int
}

// Characters that never stand in a name.
const notName = "()<>@,;:\\\"/[]?={} \t\n\r"

// Characters that Compat takes as part of a name and Fixed as operators or
// quotes.
const operatorInName = "+*%|!'-"

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\n' || c == '\r' }

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || c|0x20 >= 'a' && c|0x20 <= 'f'
}

// skip passes white space and comments.
func (l *lexer) skip(comments bool) {
	for l.pos < len(l.text) {
		if isSpace(l.text[l.pos]) {
			l.pos++
			continue
		}
		if !comments || !strings.HasPrefix(l.text[l.pos:], "/*") {
			return
		}
		end := strings.Index(l.text[l.pos+2:], "*/")
		if end < 0 {
			return // not a comment: an unfinished one is two operators
		}
		l.pos += 2 + end + 2
	}
}

// next returns the next token of a condition or a sink.
func (l *lexer) next() token {
	l.skip(true)
	if l.pos >= len(l.text) {
		return token{kind: tokEnd, pos: l.pos}
	}
	t := l.fixedToken()
	if l.dialect == Compat {
		t = l.compatToken(t)
	}
	l.pos += len(t.text)
	return t
}

// fixedToken returns the token at the current position by the rules of Fixed.
func (l *lexer) fixedToken() token {
	rest := l.text[l.pos:]
	c := rest[0]
	switch {
	case c == '"' || c == '\'':
		return l.quoted(rest)
	case c == '$':
		if n := nameRun(rest[1:], "[]"); n > 0 {
			return token{kind: tokSys, pos: l.pos, text: rest[:1+n]}
		}
		return token{kind: tokBad, pos: l.pos, text: "$"}
	}
	if n := numberRun(rest); n > 0 && (n == len(rest) || !nameByte(rest[n])) {
		return token{kind: tokNumber, pos: l.pos, text: rest[:n]}
	}
	if n := nameRun(rest, ""); n > 0 {
		return token{kind: tokName, pos: l.pos, text: rest[:n]}
	}
	if n := operatorRun(rest); n > 0 {
		return token{kind: tokOp, pos: l.pos, text: rest[:n]}
	}
	_, n := utf8.DecodeRuneInString(rest)
	return token{kind: tokBad, pos: l.pos, text: rest[:n]}
}

// compatToken replaces t by the longest of all tokens that could begin here;
// of equally long ones a name is the last choice.
func (l *lexer) compatToken(t token) token {
	rest := l.text[l.pos:]
	if t.kind == tokName {
		t = token{kind: tokBad, pos: l.pos}
	}
	if n := signedNumberRun(rest); n > len(t.text) || t.kind == tokNumber {
		t = token{kind: tokNumber, pos: l.pos, text: rest[:n]}
	}
	if n := operatorRun(rest); n > len(t.text) {
		t = token{kind: tokOp, pos: l.pos, text: rest[:n]}
	}
	name, path := wideRun(rest, notName), wideRun(rest, strings.NewReplacer("[", "", "]", "").Replace(notName))
	switch {
	case rest[0] == '$' && path > 1 && path >= len(t.text):
		t = token{kind: tokSys, pos: l.pos, text: rest[:path]}
	case path > len(t.text) && path > name:
		t = token{kind: tokBad, pos: l.pos, text: rest[:path]}
	case name > len(t.text):
		t = token{kind: tokName, pos: l.pos, text: rest[:name]}
	}
	if t.text == "" {
		_, n := utf8.DecodeRuneInString(rest)
		t = token{kind: tokBad, pos: l.pos, text: rest[:n]}
	}
	return t
}

// item returns the next part of a source: a slash, a name or a star.
func (l *lexer) item() token {
	l.skip(l.dialect == Compat)
	rest := l.text[l.pos:]
	t := token{kind: tokEnd, pos: l.pos}
	switch n := wideRun(rest, notName); {
	case rest == "":
	case rest[0] == '/':
		t = token{kind: tokOp, pos: l.pos, text: "/"}
	case n > 0:
		t = token{kind: tokName, pos: l.pos, text: rest[:n]}
	default:
		_, n := utf8.DecodeRuneInString(rest)
		t = token{kind: tokBad, pos: l.pos, text: rest[:n]}
	}
	l.pos += len(t.text)
	return t
}

func nameByte(c byte) bool {
	return strings.IndexByte(notName, c) < 0 && strings.IndexByte(operatorInName, c) < 0 && c >= 0x20 && c != 0x7f
}

// nameRun returns the length of the name at the start of s. A hyphen belongs to
// it between two of its characters.
func nameRun(s, also string) int {
	n := 0
	for n < len(s) {
		c := s[n]
		hyphen := c == '-' && n > 0 && n+1 < len(s) && nameByte(s[n+1]) && s[n-1] != ']'
		if !nameByte(c) && !hyphen && strings.IndexByte(also, c) < 0 {
			break
		}
		n++
	}
	return n
}

func wideRun(s, without string) int {
	n := 0
	for n < len(s) && s[n] >= 0x20 && strings.IndexByte(without, s[n]) < 0 {
		n++
	}
	return n
}

// numberRun returns the length of the unsigned number at the start of s.
func numberRun(s string) int {
	if len(s) > 2 && s[0] == '0' && s[1]|0x20 == 'x' {
		n := 2
		for n < len(s) && isHex(s[n]) {
			n++
		}
		if n > 2 {
			return n
		}
	}
	n := digits(s)
	whole := n
	if n < len(s) && s[n] == '.' {
		if f := digits(s[n+1:]); f > 0 {
			n += 1 + f
		}
	}
	if n > 0 && n < len(s) && s[n]|0x20 == 'e' {
		e := n + 1
		if e < len(s) && (s[e] == '+' || s[e] == '-') {
			e++
		}
		if d := digits(s[e:]); d > 0 {
			return e + d
		}
	}
	if n == 0 {
		return whole
	}
	return n
}

func signedNumberRun(s string) int {
	if s[0] == '-' && len(s) > 1 {
		if n := numberRun(s[1:]); n > 0 && !(len(s) > 2 && s[1] == '0' && s[2]|0x20 == 'x') {
			return 1 + n
		}
		return 0
	}
	return numberRun(s)
}

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

var operators = [...]string{"!=", "<>", "<=", ">=", "||", "??", "(", ")", ",", "+", "-", "*", "/", "%", "=", ">", "<", "{", "}"}

func operatorRun(s string) int {
	for _, o := range operators {
		if strings.HasPrefix(s, o) {
			return len(o)
		}
	}
	return 0
}

// quoted reads a string. Escapes are \" \' \\ and \uXXXX.
func (l *lexer) quoted(s string) token {
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == s[0]:
			return token{kind: tokString, pos: l.pos, text: s[:i+1], value: b.String()}
		case c != '\\':
			b.WriteByte(c)
		case i+1 < len(s) && strings.IndexByte(`"'\`, s[i+1]) >= 0:
			b.WriteByte(s[i+1])
			i++
		default:
			r, n := unicodeEscape(s[i:])
			if n == 0 {
				return token{kind: tokBad, pos: l.pos, text: s}
			}
			b.WriteRune(r)
			i += n - 1
		}
	}
	return token{kind: tokBad, pos: l.pos, text: s}
}

// unicodeEscape reads \uXXXX, or two of them that are a surrogate pair.
func unicodeEscape(s string) (rune, int) {
	r, ok := hex4(s)
	if !ok {
		return 0, 0
	}
	if utf16.IsSurrogate(r) {
		if low, ok := hex4(s[6:]); ok {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				return pair, 12
			}
		}
		return utf8.RuneError, 6
	}
	return r, 6
}

func hex4(s string) (rune, bool) {
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	var r rune
	for _, c := range []byte(s[2:6]) {
		switch {
		case isDigit(c):
			r = r<<4 | rune(c-'0')
		case isHex(c):
			r = r<<4 | rune(c|0x20-'a'+10)
		default:
			return 0, false
		}
	}
	return r, true
}
