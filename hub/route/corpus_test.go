package route

import (
	"strings"
	"testing"
)

// sample is a message for tests.
type sample struct {
	source string
	app    map[string]string
	sys    map[string]string
	body   string
	asked  int // times that the body was asked for
}

func (m *sample) Source() []byte { return []byte(m.source) }

func (m *sample) Property(name string) ([]byte, bool) {
	if v, ok := m.app[name]; ok {
		return []byte(v), true
	}
	for k, v := range m.app {
		if strings.EqualFold(k, name) {
			return []byte(v), true
		}
	}
	return nil, false
}

func (m *sample) System(name string) ([]byte, bool) {
	v, ok := m.sys[name]
	return []byte(v), ok
}

func (m *sample) Body() []byte {
	m.asked++
	return []byte(m.body)
}

func newSample() *sample {
	return &sample{
		source: "/messages/modules/press7/outputs/vib/",
		app: map[string]string{
			"line": "L2", "rpm": "1800", "word": "Lager", "empty": "", "site-name": "north", "flag": "true",
			"$special": "own", "spaced": " 12.5 ", "hex": "0x10", "big": "1e400", "umlaut": "Größe", "pair": "a😀b", "a.b": "dot",
		},
		sys: map[string]string{
			"contentType": "application/json", "contentEncoding": "utf-8", "connectionModuleId": "press7", "outputName": "vib",
			"special": "system", "messageId": "m-1", "dt-subject": "s",
		},
		body: `{"alarm":{"level":4,"text":"hot","on":true,"off":false,"none":null,"at":"2026-01-01T00:00:00Z"},
			"list":[10,20,{"x":30}],"neg":-2.5,"my-key":"k","big":1e308,"deep":{"a":{"b":{"c":1}}},"s":"10","":1}`,
	}
}

// conditions: T matches, F does not, U is undefined, and so does not match
// either, but NOT of it does not match as well.
const conditions = `
T true
F false
U undefined
F null
T not false
F NOT true
T NOT null
U not undefined
T not not true
T true and true
F true AND false
F false and true
F false and false
T true or false
T False_ = 'x' or true
F false or false
U undefined and true
F undefined and false
F false and undefined
T undefined or true
T true or undefined
U undefined or false
U false or undefined
U undefined and undefined
U undefined or undefined
F null and true
T null or true
T (null and true) = null
T (null or false) = null
T null = null
F null != null
T null = false
F true = null
T true or false and false
F (true or false) and false
T not false and true
F not (false or true)
T true = true
F true = false
T true != false
T true <> false
T 1 = 1
F 1 = 2
T 1 != 2
T 1 <> 2
T 1 < 2
F 2 < 2
T 2 <= 2
T 3 > 2
F 2 > 2
T 2 >= 2
F 1 >= 2
T -1 < 0
T - 1 < 0
T -(1 + 2) = -3
T --1 = 1
T 1 + 2 * 3 = 7
T (1 + 2) * 3 = 9
T 10 - 2 - 3 = 5
T 8 / 2 / 2 = 2
T 7 % 4 = 3
T -7 % 4 = -3
T 7.5 % 2 = 1.5
T 1-1 = 0
T 10-5 = 5
T 2*3 = 6
T 6/4 = 1.5
T 1 / 0 > 1e308
T -1 / 0 < 0
T is_number(1)
F is_number(1 / 0)
F is_defined(0 / 0)
F is_defined(5 % 0)
T (5 % 0 ?? 3) = 3
T .5 = 0.5
T 1e3 = 1000
T 1.5E-1 = 0.15
T 0x1F = 31
T 0XfF = 255
T 1e999 = 1/0
T 1 + 1 = 2 and 2 + 2 = 4
T 'a' = 'a'
T 'a' = "a"
F 'a' = 'A'
T 'a' < 'b'
F 'b' < 'a'
T 'a' <= 'a'
T 'B' < 'a'
T 'ab' > 'a'
T '' < 'a'
T 'a\'b' = "a'b"
T "a\"b" = 'a"b'
T 'a\\b' = "a\\b"
T '\u0041' = 'A'
T '\ud83d\ude00' = '😀'
T 'a' || 'b' = 'ab'
T 'a' || 'b' || 'c' = 'abc'
T line = 'L2'
F line = 'L1'
T line != 'L1'
T line < 'L3'
T LINE = 'L2'
U missing = 'L2'
U missing != 'L2'
U not (missing = 'x')
T line = 'L2' and word = 'Lager'
T line = 'L1' or word = 'Lager'
T missing = 'x' or line = 'L2'
U missing = 'x' and line = 'L2'
F missing = 'x' and line = 'L1'
T site-name = 'north'
T a.b = 'dot'
T empty = ''
T length(empty) = 0
T is_defined(line)
F is_defined(missing)
T not is_defined(missing)
F is_null(line)
F is_null(missing)
T is_null(null)
F is_null(false)
T is_string(line)
F is_string(missing)
F is_string(1)
T is_bool(true)
T is_bool(false)
F is_bool(line)
F is_bool(missing)
F is_number(rpm)
T is_number(as_number(rpm))
T as_number(rpm) = 1800
T as_number(rpm) > 1500
F as_number(rpm) < 1500
U as_number(line) > 0
U as_number(missing) > 0
T as_number(spaced) = 12.5
U as_number(hex) = 16
T as_number(big) = 1 / 0
U as_number('') = 0
U as_number('inf') > 0
U as_number('nan') > 0
U as_number('1_000') > 0
T as_number('-3') = -3
T as_number('1e2') = 100
T as_number(as_number('4')) = 4
T as_number(5) = 5
T as_number(rpm) / 2 = 900
T as_number(rpm) -5 = 1795
T (missing ?? 'none') = 'none'
T (missing ?? line) = 'L2'
T (line ?? 'none') = 'L2'
T (missing ?? missing ?? 'z') = 'z'
U (missing ?? missing) = 'z'
U undefined ?? undefined
T (as_number(line) ?? 7) = 7
T $special = 'own'
T {$special} = 'system'
T { $special } = 'system'
T $contentType = 'application/json'
T {$contentType} = 'application/json'
T $connectionModuleId = 'press7'
T $outputName = 'vib'
T $messageId = 'm-1'
T $dt-subject = 's'
F is_defined($nothing)
F is_defined({$nothing})
U $nothing = 'x'
T $body.alarm.level >= 3
T $body.alarm.level = 4
F $body.alarm.level > 4
T 3 < $body.alarm.level
T $BODY.alarm.level = 4
T $Body.alarm.text = 'hot'
F $body.alarm.text = 'cold'
T $body.alarm.text != 'cold'
T $body.alarm.on
F $body.alarm.off
T not $body.alarm.off
F not $body.alarm.on
T $body.alarm.on = true
T $body.alarm.off = false
T $body.alarm.off != true
U $body.alarm.level
U $body.alarm.text
U $body.alarm.none
U $body.nothing
U $body
U $body.alarm
U $body.list
U not $body.alarm
T $body.alarm.none = null
T $body.nothing = null
T $body.alarm.nothing = null
T $body.alarm.level.deeper = null
T $body.alarm.level != null
F $body.alarm.level = null
U $body.alarm = null
U $body.alarm != null
F $body.alarm.level = '4'
T $body.alarm.level != '4'
F $body.s = 10
T $body.s = '10'
T as_number($body.s) = 10
T as_number($body.alarm.level) = 4
U as_number($body.alarm.on) = 1
U $body.alarm.level < 'z'
U $body.alarm.on < 5
U $body.alarm.none < 5
T $body.list[0] = 10
T $body.list[1] + $body.list[0] = 30
T $body.list[2].x = 30
T $body.list[9] = null
T $body.alarm[0] = null
T $body.list.x = null
T $body.neg = -2.5
T -($body.neg) = 2.5
T $body.my-key = 'k'
T $body.deep.a.b.c = 1
T $body.big * 10 > $body.big
T $body.alarm.text || '!' = 'hot!'
U $body.alarm.level || '!' = '4!'
U $body.alarm.text + 1 = 2
F is_defined($body.alarm.text * 2) and undefined
F is_defined($body.alarm.text * 2)
T is_defined($body.alarm.none)
T is_defined($body.nothing)
F is_defined($body.alarm)
T is_null($body.alarm.none)
T is_null($body.nothing)
F is_null($body.alarm.level)
F is_null($body.alarm)
T is_number($body.alarm.level)
F is_number($body.alarm.text)
T is_string($body.alarm.text)
T is_string($body.alarm.at)
T is_bool($body.alarm.on)
F is_bool($body.alarm.none)
T $body.alarm.on and line = 'L2'
T line = 'L2' and $body.alarm.on
T line = 'L1' or $body.alarm.on
U line = 'L2' and $body.alarm.level
T ($body.alarm ?? 5) = 5
T ($body.alarm.level ?? 5) = 4
T line < $body.s or $body.alarm.text > line
T $body.alarm.level >= 3 AND line = 'L2'
T abs(-3) = 3
T ABS(3) = 3
T abs($body.neg) = 2.5
F is_defined(abs($body.alarm.text))
T exp(0) = 1
T exp(1) > 2.718 and exp(1) < 2.719
T power(2, 10) = 1024
T power(as_number(rpm), 0) = 1
T power(10, 400) = 1/0
F is_defined(power(-1, 0.5))
T square(3) = 9
T ceiling(1.1) = 2
T ceiling(-1.1) = -1
T floor(1.9) = 1
T floor(-1.1) = -2
T sign(-7) = -1
T sign(0) = 0
T sign(1 / 0) = 1
T sqrt(16) = 4
U sqrt(-1) = 1
F is_defined(sqrt(as_number(line)))
T concat('a', line) = 'aL2'
T concat('a', 'b', 'c', 'd') = 'abcd'
F is_defined(concat('a', missing))
T concat($body.alarm.text, '-', line) = 'hot-L2'
T length('hello') = 5
T length(word) = 5
T length(umlaut) = 5
T length(pair) = 4
U length(missing) = 0
T lower(word) = 'lager'
T Upper(word) = 'LAGER'
T upper(umlaut) = 'GRÖSSE' or upper(umlaut) = 'GRÖßE'
U lower(missing) = ''
T substring(word, 1) = 'ager'
T substring(word, 5) = ''
U substring(word, 6) = ''
U substring(word, -1) = ''
T substring(word, 0, 2) = 'La'
T substring(word, 1, 0) = ''
T substring(word, 0, 5) = 'Lager'
U substring(word, 0, 6) = ''
U substring(word, 1, -1) = ''
U substring(missing, 0) = ''
T substring(umlaut, 2, 1) = 'ö'
T substring(pair, 3) = 'b'
U substring(pair, 2) = 'b'
T substring(word, length(word) - 2) = 'er'
T index_of(word, 'g') = 2
T index_of(word, 'x') = -1
T index_of(pair, 'b') = 3
T index_of(word, '') = 0
U index_of(missing, 'a') = 0
T starts_with(word, 'La')
F starts_with(word, 'la')
T starts_with(lower(word), 'la')
U starts_with(missing, 'a')
T ends_with(word, 'er')
F ends_with(word, 'x')
T contains(word, 'ag')
F contains(word, 'AG')
U contains(missing, 'a')
U contains($body.alarm.level, '4')
T contains($body.alarm.text, 'o') /* comment */
T /* a */ true /* b */ or /* c */ false
T true
or false
`

// decisions is the table of pairs of a source and a route.
const decisions = `
T /messages/ /*
T /twinChangeNotifications/ /*
T /messages/ /messages/*
T /messages/ /messages
T /messages/ /MESSAGES/*
F /messages/ /message/*
F /messages/ /messages/modules/*
F /twinChangeNotifications/ /messages/*
T /twinChangeNotifications/ /twinchangenotifications
T /messages/modules/m/ /messages/*
T /messages/modules/m/ /messages/modules/*
T /messages/modules/m/ /messages/modules/m/*
T /messages/modules/m/ /messages/modules/m
F /messages/modules/m/ /messages/modules/m/outputs/*
F /messages/modules/mm/ /messages/modules/m/*
F /messages/modules/m/ /messages/modules/mm/*
T /messages/modules/m/outputs/o/ /messages/modules/m/*
T /messages/modules/m/outputs/o/ /messages/modules/m/outputs/*
T /messages/modules/m/outputs/o/ /messages/modules/m/outputs/o
T /messages/modules/m/outputs/o/ /messages/modules/M/outputs/O
T /messages/modules/m/outputs/o/ /messages/modules/m/outputs/o/*
F /messages/modules/m/outputs/oo/ /messages/modules/m/outputs/o
F /messages/modules/m/outputs/o/ /messages/modules/*/outputs/o
T /messages/topics/plant/l1/ /messages/topics/plant/*
T /messages/topics/plant/l1/ /messages/topics/plant/l1
F /messages/topics/plant/l10/ /messages/topics/plant/l1
T /messages/modules/field/outputs/plc-1/ /messages/modules/field/outputs/plc-1
T /messages/modules/field/outputs/plc-1/ /messages/modules/field/*
`

func lines(s string) []string {
	// A line that does not begin with a result belongs to the one before.
	var list []string
	for _, l := range strings.Split(strings.TrimSpace(s), "\n") {
		if len(l) > 1 && strings.IndexByte("TFU", l[0]) >= 0 && l[1] == ' ' {
			list = append(list, l)
		} else {
			list[len(list)-1] += "\n" + l
		}
	}
	return list
}

func TestConditions(t *testing.T) {
	count := 0
	var s Scratch
	for _, l := range lines(conditions) {
		want, cond := l[0], l[2:]
		for _, negated := range []bool{false, true} {
			text := "FROM /messages/* WHERE " + cond + " INTO $upstream"
			if negated {
				text = "FROM /messages/* WHERE NOT (" + cond + ") INTO $upstream"
			}
			r, err := Parse(text, Fixed)
			if err != nil {
				t.Errorf("%s: %v", cond, err)
				continue
			}
			count++
			match := want == 'T' && !negated || want == 'F' && negated
			m := newSample()
			if got := r.Matches(m, &s); got != match {
				t.Errorf("%s: got %v, want %v (%c)", text, got, match, want)
			}
			if m.asked > 1 {
				t.Errorf("%s: the body was read %d times", cond, m.asked)
			}
			roundTrip(t, text, r)
		}
	}
	if count < 300 {
		t.Errorf("only %d pairs of a message and a route", count)
	}
}

func roundTrip(t *testing.T, text string, r *Route) {
	t.Helper()
	printed := r.String()
	again, err := Parse(printed, r.dialect)
	if err != nil {
		t.Errorf("%s prints as %s: %v", text, printed, err)
	} else if again.String() != printed {
		t.Errorf("%s prints as %s and then as %s", text, printed, again)
	}
}

func TestSources(t *testing.T) {
	var s Scratch
	for _, l := range lines(decisions) {
		part := strings.Fields(l)
		m := newSample()
		m.source = part[1]
		for _, text := range []string{
			"FROM " + part[2] + " INTO $upstream",
			"select * from " + part[2] + " where true into $UPSTREAM",
			"FROM " + part[2] + ` INTO BrokeredEndpoint("/modules/a/inputs/b") /* end */`,
		} {
			if strings.HasSuffix(text, "*/") && strings.Contains(part[2], "/*") {
				// Fixed finds no comment in a source.
				if r, err := Parse(text, Compat); err == nil {
					t.Errorf("compatible: %s reads as %s", text, r)
				}
			}
			r, err := Parse(text, Fixed)
			if err != nil {
				t.Errorf("%s: %v", text, err)
				continue
			}
			if got := r.Matches(m, &s); got != (part[0] == "T") {
				t.Errorf("%s with %s: %v", text, part[1], got)
			}
			roundTrip(t, text, r)
		}
	}
}
