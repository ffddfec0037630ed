package settings

import (
	"strings"
	"testing"
	"time"
)

func TestGood(t *testing.T) {
	r := New(map[string]any{"s": "x", "b": true, "i": int64(5), "j": 6, "d": "1m30s", "z": "64KiB", "c": "two"})
	if s := r.String("s", ""); s != "x" {
		t.Error(s)
	}
	if !r.Bool("b", false) || r.Int("i", 0, 1, 9) != 5 || r.Int("j", 0, 1, 9) != 6 {
		t.Error("bool or int")
	}
	if d := r.Duration("d", 0, 0, time.Hour); d != 90*time.Second {
		t.Error(d)
	}
	if z := r.Size("z", 0, 0, 1<<20); z != 65536 {
		t.Error(z)
	}
	if c := r.Choice("c", "one", "one", "two"); c != "two" {
		t.Error(c)
	}
	if r.String("absent", "def") != "def" || r.Size("absent2", 7, 0, 9) != 7 {
		t.Error("defaults")
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}
}

func TestBad(t *testing.T) {
	r := New(map[string]any{"s": 1, "b": "yes", "i": int64(10), "d": "10", "z": "1GiB", "z2": 12, "c": "three", "clientid": "x", "qqqqqqq": 1})
	r.String("s", "")
	r.Bool("b", false)
	r.Int("i", 0, 1, 9)
	r.Duration("d", 0, 0, time.Hour)
	r.Size("z", 0, 0, 1<<20)
	r.Size("z2", 0, 0, 1<<20)
	r.Choice("c", "one", "one", "two")
	r.String("client-id", "")
	err := r.Err()
	if err == nil {
		t.Fatal("no error")
	}
	lines := strings.Split(err.Error(), "\n")
	for i, want := range []string{
		`"s": must be a string`, `"b": must be true`, `"i": must be a whole number from 1 to 9, not 10`, `"d": must be a time with its unit`,
		`"z": must be a size`, `"z2": must be a size`, `"three" is not one of one, two`,
		`unknown key "clientid", did you mean "client-id"?`, `unknown key "qqqqqqq"`,
	} {
		if i >= len(lines) || !strings.Contains(lines[i], want) {
			t.Fatalf("line %d of\n%v\nwant %s", i, err, want)
		}
	}
	if strings.Contains(lines[8], "mean") {
		t.Error("suggests something far away: ", lines[8])
	}
}

func TestTables(t *testing.T) {
	r := New(map[string]any{
		"fields": map[string]any{"value": "v"},
		"paths":  []any{map[string]any{"match": "a/*", "path": "x"}, map[string]any{"match": "b/*", "path": "y"}},
		"plain":  []map[string]any{{"match": "c", "path": "z"}},
	})
	if f := r.Texts("fields", "value", "time"); len(f) != 1 || f["value"] != "v" {
		t.Error(f)
	}
	if l := r.TextTables("paths", "match", "path"); len(l) != 2 || l[0]["match"] != "a/*" || l[1]["path"] != "y" {
		t.Error(l)
	}
	if l := r.TextTables("plain", "match", "path"); len(l) != 1 || l[0]["path"] != "z" {
		t.Error(l)
	}
	if r.Texts("absent") != nil || r.TextTables("absent2") != nil {
		t.Error("defaults")
	}
	if err := r.Err(); err != nil {
		t.Error(err)
	}

	r = New(map[string]any{
		"fields": map[string]any{"valeu": "v", "time": 5}, "flat": "x", "paths": []any{map[string]any{"path": "x", "mach": "y"}}, "odd": []any{1},
	})
	r.Texts("fields", "value", "time")
	r.Texts("flat")
	r.TextTables("paths", "match", "path")
	r.TextTables("odd")
	err := r.Err()
	if err == nil {
		t.Fatal("no error")
	}
	for _, want := range []string{
		`"fields": unknown key "valeu", did you mean "value"?`, `"fields": "time" must be a string, not 5`, `"flat": must be a table`,
		`"paths": unknown key "mach", did you mean "match"?`, `"paths": an entry has no "match"`, `"odd": must be a list of tables`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v\nlacks %s", err, want)
		}
	}
}
