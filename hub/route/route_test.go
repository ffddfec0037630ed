package route

import (
	bin "encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf16"

	"holdfast/hub"
)

func TestErrors(t *testing.T) {
	tests := []struct {
		text      string
		line, col int
		says      string // part of the message
		near      string
	}{
		{"", 1, 1, "expected FROM, found the end", ""},
		{"FORM /* INTO $upstream", 1, 1, `expected FROM, found "FORM"`, "FROM"},
		{"SELECT FROM /* INTO $upstream", 1, 8, "expected * after SELECT", ""},
		{"FROM messages INTO $upstream", 1, 6, "expected a source", ""},
		{"FROM /messages/ INTO $upstream", 1, 22, "expected WHERE or INTO", ""},
		{"FROM /messages/( INTO $upstream", 1, 16, "expected a name or * after /", ""},
		{"FROM / INTO", 1, 12, "expected WHERE or INTO", ""},
		{"FROM /* WHERE true", 1, 19, "expected an operator or INTO, found the end", ""},
		{"FROM /* WHER true INTO $upstream", 1, 9, "expected WHERE or INTO", "WHERE"},
		{"FROM /* WHERE true INOT $upstream", 1, 20, "expected an operator or INTO", "INTO"},
		{"FROM /* INTO $upstrem", 1, 14, "expected $upstream, BrokeredEndpoint(...)", "$upstream"},
		{"FROM /* INTO BrokerdEndpoint('/modules/a/inputs/b')", 1, 14, "expected $upstream", "BrokeredEndpoint"},
		{"FROM /* INTO BrokeredEndpoint('/modules/a')", 1, 31, `expected "/modules/<module>/inputs/<input>"`, ""},
		{"FROM /* INTO BrokeredEndpoint('/modul/a/inputs/b')", 1, 31, `expected "/modules/<module>/inputs/<input>"`, ""},
		{"FROM /* INTO BrokeredEndpoint(a)", 1, 31, "expected a string", ""},
		{"FROM /* INTO BrokeredEndpoint('/modules/a/inputs/b'", 1, 52, "expected )", ""},
		{"FROM /* INTO Upstream('a/b')", 1, 23, "only letters, digits", ""},
		{"FROM /* INTO Upstream('')", 1, 23, "1 to 255 bytes", ""},
		{"FROM /* INTO $upstream x", 1, 24, "expected nothing more", ""},
		{"FROM /*\nWHERE\n  temp > 20\nINTO $upstream", 3, 8, "cannot compare a string with a number; as_number", ""},
		{"FROM /* WHERE ä = 1 INTO $upstream", 1, 17, "cannot compare", ""},
		{"FROM /* WHERE starts_wiht(a, 'b') INTO $upstream", 1, 15, `no function "starts_wiht"`, "starts_with"},
		{"FROM /* WHERE starts_with(a) INTO $upstream", 1, 15, "wants 2 arguments, found 1", ""},
		{"FROM /* WHERE concat('a') = 'a' INTO $upstream", 1, 15, "at least 2", ""},
		{"FROM /* WHERE substring('a') = 'a' INTO $upstream", 1, 15, "2 or 3 arguments", ""},
		{"FROM /* WHERE length(5) = 1 INTO $upstream", 1, 22, "must be a string, but is a number", ""},
		{"FROM /* WHERE abs(rpm) = 1 INTO $upstream", 1, 19, "must be a number, but is a string; as_number", ""},
		{"FROM /* WHERE line INTO $upstream", 1, 15, "the condition must be true or false, but is a string", ""},
		{"FROM /* WHERE true AND line INTO $upstream", 1, 24, "the right operand of AND", ""},
		{"FROM /* WHERE line OR true INTO $upstream", 1, 15, "the left operand of OR", ""},
		{"FROM /* WHERE NOT line INTO $upstream", 1, 15, "the operand of NOT", ""},
		{"FROM /* WHERE -line = 1 INTO $upstream", 1, 15, "only a number has a negative", ""},
		{"FROM /* WHERE 'a' + 'b' = 'ab' INTO $upstream", 1, 15, "+ wants a number", ""},
		{"FROM /* WHERE 3 + undefined = 1 INTO $upstream", 1, 19, "+ wants a number, but this is a undefined", ""},
		{"FROM /* WHERE 3 || 'a' = 'a' INTO $upstream", 1, 15, "|| wants a string", ""},
		{"FROM /* WHERE a -5 = 1 INTO $upstream", 1, 15, "- wants a number, but this is a string", ""},
		{"FROM /* WHERE (line ?? 5) = 5 INTO $upstream", 1, 21, "cannot compare a string with a number", ""},
		{"FROM /* WHERE true < false INTO $upstream", 1, 20, "does not order a truth value", ""},
		{"FROM /* WHERE line = null INTO $upstream", 1, 20, "cannot compare a string with a null", ""},
		{"FROM /* WHERE line == 'a' INTO $upstream", 1, 21, "expected a value", ""},
		{"FROM /* WHERE (true INTO $upstream", 1, 21, "expected an operator or )", ""},
		{"FROM /* WHERE 'abc INTO $upstream", 1, 15, "no end or a wrong escape", ""},
		{`FROM /* WHERE line = 'a\n' INTO $upstream`, 1, 22, "no end or a wrong escape", ""},
		{"FROM /* WHERE ; INTO $upstream", 1, 15, `found ";"`, ""},
		{"FROM /* WHERE {line} = 'a' INTO $upstream", 1, 16, "expected a system property", ""},
		{"FROM /* WHERE $body.list[] = 1 INTO $upstream", 1, 25, "an index such as [0]", ""},
		{"FROM /* WHERE $body.list[1:2] = 1 INTO $upstream", 1, 25, "an index such as [0]", ""},
		{"FROM /* WHERE $body..a = 1 INTO $upstream", 1, 21, "expected a name in the path", ""},
		{"FROM /* WHERE $a[0] = 'x' INTO $upstream", 1, 17, "only a path into $body has an index", ""},
		{"FROM /* WHERE twin_change_includes('a') INTO $upstream", 1, 15, "cannot be used", ""},
		{"FROM /* WHERE " + strings.Repeat("(", 200) + "true" + strings.Repeat(")", 200) + " INTO $upstream", 1, 115, "nested more than 100 deep", ""},
		{"FROM /* WHERE " + strings.Repeat("NOT ", 200) + "true INTO $upstream", 1, 415, "nested more than 100 deep", ""},
		{strings.Repeat("x", MaxText+1), 1, 1, "longer than 16384 bytes", ""},
	}
	for _, tt := range tests {
		_, err := Parse(tt.text, Fixed)
		var e *Error
		if !errors.As(err, &e) {
			t.Errorf("%.60s: got %v", tt.text, err)
			continue
		}
		if e.Line != tt.line || e.Col != tt.col || !strings.Contains(e.Problem, tt.says) || e.Nearest != tt.near {
			t.Errorf("%.60s:\n got %v (nearest %q)\nwant line %d, column %d: %s (nearest %q)", tt.text, err, e.Nearest, tt.line, tt.col, tt.says, tt.near)
		}
	}
}

// TestDialects has, for each quirk of the original, what the two dialects say: T,
// F and U as in the corpus, X for an error.
func TestDialects(t *testing.T) {
	for _, tt := range []struct{ cond, fixed, compat string }{
		{"is_null($body.alarm.level)", "F", "T"},
		{"is_null($body.alarm.none)", "T", "T"},
		{"is_null($body.nothing)", "T", "F"},
		{"is_null(line)", "F", "F"},
		{"is_null(null)", "T", "T"},
		{"10-5 = 5", "T", "X"},
		{"10 - 5 = 5", "T", "T"},
		{"10 -5 = 5", "T", "X"},
		{"$body.neg -5 = -7.5", "T", "X"},
		{"2*3 = 6", "T", "X"},
		{"2 * 3 = 6", "T", "T"},
		{"line!='x'", "T", "U"},
		{"line != 'x'", "T", "T"},
		{"'a'||'b' = 'ab'", "T", "U"},
		{"site-name = 'north'", "T", "T"},
		{"-5 < 0", "T", "T"},
		{"- 5 < 0", "T", "T"},
		{"6/3 = 2", "T", "T"},
		{"line = 'L2' AND $body.alarm.on", "T", "X"},
		{"$body.alarm.on AND line = 'L2'", "T", "T"},
		{"$body.alarm.on AND $body.alarm.on", "T", "T"},
		{"false OR $body.alarm.on", "T", "X"},
		{"$body.alarm.on < $body.alarm.level", "U", "T"},
		{"$body.alarm.level < $body.alarm.text", "U", "T"},
		{"$body.alarm.text < $body.alarm.none", "U", "T"},
		{"$body.alarm.none <= $body.alarm.level", "U", "F"},
		{"$body.alarm.off < $body.alarm.on", "U", "T"},
		{"$body.alarm.level = $body.alarm.text", "F", "F"},
	} {
		for d, want := range map[Dialect]string{Fixed: tt.fixed, Compat: tt.compat} {
			if got := decide(t, tt.cond, d); got != want {
				t.Errorf("dialect %d: %s: got %s, want %s", d, tt.cond, got, want)
			}
		}
	}
}

func decide(t *testing.T, cond string, d Dialect) string {
	t.Helper()
	r, err := Parse("FROM /messages/* WHERE "+cond+" INTO $upstream", d)
	if err != nil {
		return "X"
	}
	roundTrip(t, cond, r)
	n, err := Parse("FROM /messages/* WHERE NOT ( "+cond+" ) INTO $upstream", d)
	if err != nil {
		t.Fatal(err)
	}
	var s Scratch
	switch {
	case r.Matches(newSample(), &s):
		return "T"
	case n.Matches(newSample(), &s):
		return "F"
	}
	return "U"
}

func TestBodyEncodings(t *testing.T) {
	const doc = `{"x":"ä😀"}`
	var utf16le, utf16be, utf32le []byte
	for _, u := range utf16.Encode([]rune(doc)) {
		utf16le = bin.LittleEndian.AppendUint16(utf16le, u)
		utf16be = bin.BigEndian.AppendUint16(utf16be, u)
	}
	for _, r := range doc {
		utf32le = bin.LittleEndian.AppendUint32(utf32le, uint32(r))
	}
	r, err := Parse("FROM /* WHERE $body.x = 'ä😀' INTO $upstream", Fixed)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		contentType, encoding, body string
		want                        bool
	}{
		{"application/json", "utf-8", doc, true},
		{"Application/JSON", "UTF-8", doc, true},
		{"application/json", "utf-8", "\xef\xbb\xbf" + doc, true},
		{"application/json", "utf-16", string(utf16le), true},
		{"application/json", "utf-16", "\xfe\xff" + string(utf16be), true},
		{"application/json", "utf-16", string(utf16le[1:]), false},
		{"application/json", "utf-32", string(utf32le), true},
		{"application/json", "utf-32", string(utf32le[1:]), false},
		{"application/json", "", doc, false},
		{"application/json", "latin-1", doc, false},
		{"text/json", "utf-8", doc, false},
		{"application/json", "utf-8", doc + "}", false},
		{"application/json", "utf-8", "[" + doc + "]", false},
		{"application/json", "utf-8", "", false},
	} {
		m := newSample()
		m.sys = map[string]string{"contentType": tt.contentType, "contentEncoding": tt.encoding}
		m.body = tt.body
		var s Scratch
		if got := r.Matches(m, &s); got != tt.want {
			t.Errorf("%s %s %q: %v", tt.contentType, tt.encoding, tt.body, got)
		}
	}
}

func TestTable(t *testing.T) {
	table, err := NewTable([]Spec{
		{Name: "all", Text: "FROM /* INTO $upstream", Priority: 7},
		{Name: "alarms", Text: "FROM /* WHERE $body.alarm.level > 3 INTO $upstream", Priority: 1, TTL: time.Minute},
		{Name: "none", Text: "FROM /* WHERE false INTO $upstream", Priority: 0},
		{Name: "same", Text: "FROM /* INTO $upstream", Priority: 1, TTL: time.Hour},
		{Name: "fft", Text: "FROM /messages/modules/* INTO BrokeredEndpoint('/modules/fft/inputs/raw')", Priority: 9},
		{Name: "second", Text: "FROM /messages/* INTO Upstream('plant-2')", Priority: 5},
	}, Options{TTL: 2 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	want := []hub.Target{
		{Endpoint: "$upstream", Priority: 1, TTL: time.Minute},
		{Endpoint: "plant-2", Priority: 5, TTL: 2 * time.Hour},
		{Endpoint: "fft/raw", Priority: 9, TTL: 2 * time.Hour},
	}
	var s Scratch
	m := newSample()
	for range 2 {
		if got := table.Match(m, &s); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v", got)
		}
	}
	if m.asked != 2 {
		t.Errorf("the body was parsed %d times for two messages", m.asked)
	}
	if got := table.Endpoints(); !reflect.DeepEqual(got, []string{"$upstream", "fft/raw", "plant-2"}) {
		t.Errorf("endpoints %v", got)
	}
	m.body = `{"alarm":{"level":1}}`
	if got := table.Match(m, &s); got[0] != (hub.Target{Endpoint: "$upstream", Priority: 1, TTL: time.Hour}) {
		t.Errorf("without alarm: %+v", got[0])
	}
}

func TestTableIsTakenWholeOrNotAtAll(t *testing.T) {
	_, err := NewTable([]Spec{
		{Name: "good", Text: "FROM /* INTO $upstream"},
		{Name: "bad", Text: "FROM /* INTO nowhere"},
		{Name: "low", Text: "FROM /* INTO $upstream", Priority: 10},
		{Name: "past", Text: "FROM /* INTO $upstream", TTL: -1},
	}, Options{})
	for _, part := range []string{`route "bad": line 1, column 14`, `route "low": priority 10`, `route "past": time to live`} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("%q is not in %v", part, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, l := range lines(conditions) {
		f.Add("FROM /messages/* WHERE "+l[2:]+" INTO $upstream", false)
	}
	f.Add(`SELECT * FROM /a/*/b INTO BrokeredEndpoint("/modules/\u0041/inputs/b\\")`, true)
	f.Add("FROM /* WHERE {$a} = 'x'||y INTO Upstream('n')", true)
	f.Fuzz(func(t *testing.T, text string, compat bool) {
		d := Fixed
		if compat {
			d = Compat
		}
		r, err := Parse(text, d)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Line < 1 || e.Col < 1 {
				t.Fatalf("%q: error %#v", text, err)
			}
			return
		}
		printed := r.String()
		again, err := Parse(printed, d)
		if err != nil {
			t.Fatalf("%q prints as %q: %v", text, printed, err)
		}
		if again.String() != printed || again.endpoint != r.endpoint || again.prefix != r.prefix {
			t.Fatalf("%q prints as %q and then as %q", text, printed, again)
		}
		var s Scratch
		m := newSample()
		if r.Matches(m, &s) != again.Matches(m, &s) {
			t.Fatalf("%q and %q do not mean the same", text, printed)
		}
	})
}

// fixed is a message that costs nothing to look at.
type fixedMessage struct{ source, property []byte }

func (m *fixedMessage) Source() []byte                 { return m.source }
func (m *fixedMessage) Property(string) ([]byte, bool) { return m.property, true }
func (m *fixedMessage) System(string) ([]byte, bool)   { return nil, false }
func (m *fixedMessage) Body() []byte                   { return nil }

func BenchmarkMatch(b *testing.B) {
	m := &fixedMessage{[]byte("/messages/modules/press7/outputs/vib/"), []byte("L2")}
	for name, text := range map[string]string{
		"source":    "FROM /messages/modules/press7/outputs/* INTO $upstream",
		"condition": "FROM /messages/modules/press7/outputs/* WHERE line = 'L2' INTO $upstream",
		"function":  "FROM /messages/* WHERE starts_with(line, 'L') AND length(line) = 2 INTO $upstream",
	} {
		b.Run(name, func(b *testing.B) {
			t, err := NewTable([]Spec{{Text: text}}, Options{})
			if err != nil {
				b.Fatal(err)
			}
			var s Scratch
			b.ReportAllocs()
			for b.Loop() {
				if len(t.Match(m, &s)) != 1 {
					b.Fatal("no match")
				}
			}
		})
	}
}
