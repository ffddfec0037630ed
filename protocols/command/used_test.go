package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
	"holdfast/protocols/point"
)

func TestReplayAfterRestart(t *testing.T) {
	fs := disktest.New()
	b := newBench(t, Options{Store: NewFileStore(fs, "used")})
	r := b.request("plain", point.IntValue(5))
	if got := b.do(r, Delivery{}); got.Status != Done {
		t.Fatalf("%+v", got)
	}
	b.restart(Options{Store: NewFileStore(fs.CrashClone(1), "used")})
	if got := b.do(r, Delivery{}); got.Status != Refused || !strings.Contains(got.Reason, "has been used") {
		t.Errorf("%+v", got)
	}
}

// TestReplayOverClockJumps: whichever way the wall jumps, a command that was
// carried out is not carried out again.
func TestReplayOverClockJumps(t *testing.T) {
	b := newBench(t, Options{})
	r := b.request("plain", point.IntValue(5))
	r.Issued = time.Time{}
	if got := b.do(r, Delivery{}); got.Status != Done {
		t.Fatalf("%+v", got)
	}
	again := func(when string) {
		t.Helper()
		b.do(b.request("plain", point.IntValue(1)), Delivery{}) // makes it sweep
		if got := b.do(r, Delivery{}); got.Status != Refused {
			t.Errorf("%s: %+v", when, got)
		}
	}
	b.clk.Jump(365 * 24 * time.Hour)
	b.clk.Advance(2 * time.Second)
	again("a year ahead")
	b.clk.Jump(-365 * 24 * time.Hour)
	again("and back")
	b.clk.Advance(2 * time.Hour) // forgotten
	again("long after")
	if _, used := b.h.used.seen(r.ID); used {
		t.Error("not forgotten: the test does not test")
	}
	b.clk.Jump(-2*time.Hour - 10*time.Second) // it would be valid by the wall
	if got := b.do(r, Delivery{}); got.Status != Refused || !strings.Contains(got.Reason, "was later before") {
		t.Errorf("set back: %+v", got)
	}
}

func TestHorizonSurvivesRestart(t *testing.T) {
	fs := disktest.New()
	b := newBench(t, Options{Store: NewFileStore(fs, "used")})
	r := b.request("plain", point.IntValue(5))
	r.Issued = time.Time{}
	b.do(r, Delivery{})
	b.clk.Advance(time.Hour)
	for range 1100 { // until the file is written anew, without the first id
		b.do(b.request("plain", point.IntValue(1)), Delivery{})
		b.clk.Advance(time.Minute)
	}
	b.restart(Options{Store: NewFileStore(fs, "used")})
	if _, used := b.h.used.seen(r.ID); used {
		t.Fatal("the file was not written anew")
	}
	b.clk.Jump(r.Expires.Add(-time.Second).Sub(b.clk.Now()))
	if got := b.do(r, Delivery{}); got.Status != Refused {
		t.Errorf("%+v", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	fs := disktest.New()
	b := newBench(t, Options{MaxUsed: 10, Store: NewFileStore(fs, "used")})
	for range 10 {
		if got := b.do(b.request("plain", point.IntValue(5)), Delivery{}); got.Status != Done {
			t.Fatalf("%+v", got)
		}
	}
	if got := b.do(b.request("plain", point.IntValue(5)), Delivery{}); got.Status != Refused || got.Quality != point.BadResourceUnavailable {
		t.Errorf("%+v", got)
	}
	b.clk.Advance(21 * time.Second)
	if got := b.do(b.request("plain", point.IntValue(5)), Delivery{}); got.Status != Done {
		t.Errorf("after they expired: %+v", got)
	}
	for range 5000 {
		b.do(b.request("plain", point.IntValue(5)), Delivery{})
		b.clk.Advance(21 * time.Second)
	}
	if fs.Used() > 200_000 {
		t.Errorf("the file has %d bytes", fs.Used())
	}
}

// TestStoreFails: a command whose id cannot be kept is not carried out, and one
// that comes when the disk is well again is.
func TestStoreFails(t *testing.T) {
	for _, op := range []disktest.Op{disktest.OpSync, disktest.OpWrite, disktest.OpRename, disktest.OpSyncDir, disktest.OpCreate} {
		fs := disktest.New()
		b := newBench(t, Options{Store: NewFileStore(fs, "used")})
		fs.Fail(disktest.OpSync, 1, 1, errors.New("I/O error")) // brings it to Replace
		if op != disktest.OpSync {
			fs.Fail(op, 1, 1000, errors.New("I/O error"))
		} else {
			fs.Fail(op, 2, 1000, errors.New("I/O error"))
		}
		got := b.do(b.request("plain", point.IntValue(5)), Delivery{})
		if got.Status != Refused || got.Quality != point.BadResourceUnavailable || b.dev.count() != 0 {
			t.Errorf("%v: %+v, %d writes", op, got, b.dev.count())
		}
		fs.Heal()
		r := b.request("plain", point.IntValue(5))
		if got := b.do(r, Delivery{}); got.Status != Done {
			t.Errorf("%v, healed: %+v", op, got)
		}
		b.restart(Options{Store: NewFileStore(fs.CrashClone(3), "used")})
		if got := b.do(r, Delivery{}); got.Status != Refused {
			t.Errorf("%v, restarted: %+v", op, got)
		}
	}
}

// TestStoreCrashSweep cuts the power after every change of the disk: what Add or
// Replace had returned for is there, and nothing is there that was never added.
func TestStoreCrashSweep(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	fs := disktest.New()
	s := NewFileStore(fs, "used")
	if _, err := s.Load(); err != nil {
		t.Fatal(err)
	}
	sure, tried := map[string]bool{}, map[string]bool{}
	cuts := 0
	fs.EachChange(func(clone func(uint64) *disktest.FS) {
		for k := range uint64(5) {
			cuts++
			again := NewFileStore(clone(seed+k), "used")
			used, err := again.Load()
			if err != nil {
				t.Fatalf("cut %d: %v", cuts, err)
			}
			found := map[string]bool{}
			for _, u := range used {
				found[u.ID] = true
				if !tried[u.ID] || !u.Expires.Equal(clocktest.Epoch) {
					t.Fatalf("cut %d: invented %+v", cuts, u)
				}
			}
			for id := range sure {
				if !found[id] {
					t.Fatalf("cut %d: lost %q of %d", cuts, id, len(sure))
				}
			}
			if err := again.Add(Used{ID: "after", Expires: clocktest.Epoch}); err != nil {
				t.Fatalf("cut %d: %v", cuts, err)
			}
		}
	})
	rng := rand.New(rand.NewPCG(seed, 0))
	for i := range 300 {
		id := fmt.Sprintf("id \"%d\"\n%s", i, strings.Repeat("x", rng.IntN(100)))
		tried[id] = true
		if rng.IntN(20) > 0 {
			if err := s.Add(Used{ID: id, Expires: clocktest.Epoch}); err != nil {
				t.Fatal(err)
			}
			sure[id] = true
			continue
		}
		all := []Used{{ID: id, Expires: clocktest.Epoch}}
		for old := range sure {
			all = append(all, Used{ID: old, Expires: clocktest.Epoch})
		}
		if err := s.Replace(all); err != nil {
			t.Fatal(err)
		}
		sure[id] = true
	}
	if cuts < 1000 {
		t.Errorf("only %d cuts", cuts)
	}
}

func TestParseRequestRefuses(t *testing.T) {
	const rest = `"device":"d","tag":"t","value":1,"expires":1760000000000000`
	for name, c := range map[string]struct{ data, want string }{
		"empty":         {``, "want a JSON object"},
		"array":         {`[]`, "want a JSON object"},
		"nothing":       {`{}`, `key "expires" is missing`},
		"unknown key":   {`{"id":"a",` + rest + `,"expire":1}`, `key "expire": is unknown`},
		"other case":    {`{"ID":"a","id":"a",` + rest + `}`, `key "ID": is unknown`},
		"key twice":     {`{"id":"a","id":"b",` + rest + `}`, `key "id" twice`},
		"trailing":      {`{"id":"a",` + rest + `}{}`, "something follows"},
		"id a number":   {`{"id":1,` + rest + `}`, "want a text"},
		"value object":  {`{"id":"a","device":"d","tag":"t","value":{},"expires":1}`, `key "value"`},
		"big value":     {`{"id":"a","device":"d","tag":"t","value":99999999999999999999,"expires":1}`, "beyond 64 bits"},
		"time text":     {`{"id":"a","device":"d","tag":"t","value":1,"expires":"tomorrow"}`, "want microseconds"},
		"time float":    {`{"id":"a","device":"d","tag":"t","value":1,"expires":1e15}`, "want microseconds"},
		"min text":      {`{"id":"a",` + rest + `,"min":"1"}`, "want a finite number"},
		"verify number": {`{"id":"a",` + rest + `,"verify":1}`, "want true, false"},
		"verify key":    {`{"id":"a",` + rest + `,"verify":{"tolerence":1}}`, `unknown key "tolerence"`},
		"verify below":  {`{"id":"a",` + rest + `,"verify":{"tolerance":-1}}`, "negative"},
		"cut":           {`{"id":"a",` + rest, "malformed"},
		"long":          {`{"id":"` + strings.Repeat("a", MaxRequest) + `"}`, "longer than"},
	} {
		if _, err := ParseRequest([]byte(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	r, err := ParseRequest([]byte(`{"id":"known","oops":1}`))
	if err == nil || r.ID != "known" {
		t.Errorf("the id of a wrong command is lost: %+v, %v", r, err)
	}
	r, err = ParseRequest([]byte(`{"id":"a","device":"d","tag":"t","value":true,"expires":"2026-01-02T03:04:05.5+01:00","verify":false}`))
	if err != nil || !r.Expires.Equal(time.Date(2026, 1, 2, 2, 4, 5, 5e8, time.UTC)) || r.Verify {
		t.Errorf("%+v, %v", r, err)
	}
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte(`{"id":"c0ffee-1","device":"press7","tag":"setpoint","value":21.5,"expires":1760000030000000,"issued":"2026-01-02T03:04:05Z","min":10,"max":30,"verify":{"tolerance":0.1}}`))
	f.Add([]byte(`{"id":"\u00e9","device":"d","tag":"t","value":{"base64":"AA=="},"expires":0,"verify":true}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseRequest(data)
		if err != nil {
			return
		}
		first := AppendRequest(nil, &r)
		again, err := ParseRequest(first)
		if err != nil {
			t.Fatalf("own encoding refused: %v\n%s", err, first)
		}
		if second := AppendRequest(nil, &again); !bytes.Equal(first, second) {
			t.Fatalf("%s\nthen\n%s", first, second)
		}
		if r.ID == "" || r.Expires.IsZero() || !json.Valid(first) {
			t.Fatalf("accepted %s", data)
		}
	})
}

func FuzzParseResult(f *testing.F) {
	r := Result{
		ID: "a", Device: "d", Tag: "t", Status: Failed, Quality: point.BadTimeout, Reason: "no \"answer\"",
		Value: point.FloatValue(1.5), Received: clocktest.Epoch, Finished: clocktest.Epoch,
	}
	f.Add(AppendResult(nil, &r))
	f.Add([]byte(`{"id":"","status":"done","new":[1,{}],"received":1,"finished":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := ParseResult(data)
		if err != nil || r.Received.IsZero() || r.Finished.IsZero() {
			return
		}
		again, err := ParseResult(AppendResult(nil, &r))
		if err != nil {
			t.Fatalf("own encoding refused: %v", err)
		}
		if fmt.Sprint(again) != fmt.Sprint(r) {
			t.Fatalf("%+v came back as %+v", r, again)
		}
	})
}

func FuzzParseLines(f *testing.F) {
	f.Add(appendLine(appendLine(nil, Used{ID: "a b\n", Expires: clocktest.Epoch}), Used{Expires: clocktest.Epoch}))
	f.Fuzz(func(t *testing.T, data []byte) {
		used, whole := parseLines(data)
		var back []byte
		for _, u := range used {
			back = appendLine(back, u)
		}
		again, ok := parseLines(back)
		if !ok || fmt.Sprint(again) != fmt.Sprint(used) || len(data) > 0 && whole && len(used) == 0 {
			t.Fatalf("%q: %v, then %v", data, used, again)
		}
	})
}
