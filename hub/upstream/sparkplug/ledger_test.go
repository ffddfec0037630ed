package sparkplug

import (
	"errors"
	"testing"

	"holdfast/drivers/disk/disktest"
)

func TestBirthsAreCounted(t *testing.T) {
	fs := disktest.New()
	ledger := FileLedger{FS: fs, Name: "bdseq"}
	want := uint8(0)
	for restart := range 3 {
		b := births{ledger: ledger}
		for range 100 {
			n, err := b.next()
			if err != nil || n != want {
				t.Fatalf("run %d: %d, %v, want %d", restart, n, err, want)
			}
			want++
		}
	}
	var forgetful births
	for i := range 257 {
		if n, err := forgetful.next(); err != nil || n != uint8(i) {
			t.Fatal(n, err)
		}
	}
}

// TestLedgerSurvives cuts the power at every change of the medium: the number is
// the old or the new one, and once Keep has returned it is the new one.
func TestLedgerSurvives(t *testing.T) {
	fs := disktest.New()
	ledger := FileLedger{FS: fs, Name: "bdseq"}
	kept := -1
	for n := range 4 {
		fs.EachChange(func(clone func(seed uint64) *disktest.FS) {
			for seed := range uint64(8) {
				last, ok, err := FileLedger{FS: clone(seed), Name: "bdseq"}.Last()
				if err != nil || ok && int(last) != n && int(last) != kept || !ok && kept >= 0 {
					t.Fatalf("while %d follows %d: %d, %t, %v", n, kept, last, ok, err)
				}
			}
		})
		if err := ledger.Keep(uint8(n)); err != nil {
			t.Fatal(err)
		}
		fs.EachChange(nil)
		kept = n
		if last, ok, err := (FileLedger{FS: fs.CrashClone(1), Name: "bdseq"}).Last(); err != nil || !ok || int(last) != n {
			t.Fatalf("%d was kept: %d, %t, %v", n, last, ok, err)
		}
	}
}

// TestLedgerIsDamaged: the node goes on, and says so.
func TestLedgerIsDamaged(t *testing.T) {
	for _, text := range []string{"", "256\n", "x", "12345678901"} {
		fs := disktest.New()
		ledger := FileLedger{FS: fs, Name: "bdseq"}
		if err := ledger.replace(text); err != nil {
			t.Fatal(err)
		}
		b := births{ledger: ledger}
		if n, err := b.next(); n != 0 || err == nil {
			t.Errorf("%q: %d, %v", text, n, err)
		}
		if n, err := b.next(); n != 1 || err != nil {
			t.Errorf("%q, afterwards: %d, %v", text, n, err)
		}
	}
	fs := disktest.New()
	b := births{ledger: FileLedger{FS: fs, Name: "bdseq"}}
	full := errors.New("full")
	fs.Fail(disktest.OpSync, 1, 1, full)
	if n, err := b.next(); n != 0 || !errors.Is(err, full) {
		t.Error(n, err)
	}
	if n, err := b.next(); n != 1 || err != nil {
		t.Error(n, err)
	}
}

func TestHost(t *testing.T) {
	var h host
	for i, c := range []struct {
		text             string
		believed, online bool
		bad              bool
	}{
		{`{"online":false,"timestamp":50}`, true, false, false},
		{`{"online":true,"timestamp":49}`, false, false, false}, // older than the offline
		{`{"online":true,"timestamp":50}`, true, true, false},
		{`{"online":false,"timestamp":49}`, false, true, false}, // of an earlier session
		{`{"online":true,"timestamp":60,"more":[1]}`, true, true, false},
		{`{"online":false,"timestamp":59}`, false, true, false},
		{`{"online":false,"timestamp":70}`, true, false, false},
		{`{"online":true,"timestamp":69}`, false, false, false},
		{`{"online":false,"timestamp":60}`, true, false, false}, // not older than the online before
		{`{"online":true,"timestamp":65}`, true, true, false},
		{"ONLINE", false, true, true},
		{`{"online":"false","timestamp":80}`, false, true, true},
		{`{"online":false}`, false, true, true},
		{`{"timestamp":90}`, false, true, true},
		{`{"online":false,"timestamp":1.5}`, false, true, true},
		{``, false, true, true},
	} {
		believed, err := h.take([]byte(c.text))
		if believed != c.believed || h.online != c.online || (err != nil) != c.bad {
			t.Errorf("%d %s: believed %t, online %t, %v", i, c.text, believed, h.online, err)
		}
	}
}

func FuzzHost(f *testing.F) {
	f.Add([]byte(`{"online":true,"timestamp":1}`), []byte(`{"online":false,"timestamp":0}`))
	f.Fuzz(func(t *testing.T, a, b []byte) {
		var h host
		for _, text := range [][]byte{a, b, a} {
			before := h
			believed, err := h.take(text)
			if (!believed || err != nil) && h != before {
				t.Fatalf("%q was not believed and changed %+v to %+v", text, before, h)
			}
			if believed && !h.online && before.born && h.stamp < before.birth {
				t.Fatalf("%q is older than the birth in %+v", text, before)
			}
		}
	})
}

func TestQuality(t *testing.T) {
	for status, want := range map[uint32]int32{
		0: 192, 0x00960000: 192, 0x408F0000: 500, 0x40940000: 500, 0x80000000: 0, 0x80310000: 0, 0xC0000000: 0, 0xFFFFFFFF: 0,
	} {
		if got := quality(status); got != want {
			t.Errorf("%08x: %d, want %d", status, got, want)
		}
	}
	if !lost(0x80310000) || !lost(0x800A0001) || lost(0x803C0000) || lost(0) || lost(0x408F0000) {
		t.Error("lost")
	}
}
