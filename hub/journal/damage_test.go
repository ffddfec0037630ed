package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"holdfast/drivers/disk"
	"holdfast/drivers/disk/disktest"
)

// A patient is a sound, closed journal of several segments for a test to harm.
type patient struct {
	disk    *disktest.FS
	epoch   uint64
	records []string // as all returns them
	base    []Offset // of each segment
	last    Offset
}

func newPatient(t *testing.T) patient {
	d := disktest.New()
	j := open(t, d, Options{})
	c, err := j.Cursor("keeper")
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; len(j.segments()) < 5 || j.active.end.Load() < 30_000; i++ {
		put(t, j, uint8(i%3), strings.Repeat("x", 500)+fmt.Sprint(i))
		if i == 20 {
			if err := c.Save(7, []byte("state")); err != nil {
				t.Fatal(err)
			}
		}
	}
	p := patient{disk: d, epoch: j.Epoch(), records: all(t, j.NewReader(0)), last: j.Committed()}
	for _, s := range j.segments() {
		p.base = append(p.base, s.base)
	}
	j.step(true)
	j.Close()
	return p
}

// edit changes a file behind the journal's back.
func edit(t *testing.T, d disk.FS, name string, change func(f disk.File)) {
	t.Helper()
	f, err := d.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	change(f)
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	f.Close()
}

func flip(t *testing.T, d disk.FS, name string, at int64) {
	t.Helper()
	edit(t, d, name, func(f disk.File) {
		b := make([]byte, 1)
		f.ReadAt(b, at)
		b[0] ^= 0x40
		f.WriteAt(b, at)
	})
}

func TestOpenSurvivesDamage(t *testing.T) {
	const seg1, seg2, seg3, seg5 = "0000000000000001.seg", "0000000000000002.seg", "0000000000000003.seg", "0000000000000005.seg"
	for _, c := range []struct {
		name string
		harm func(t *testing.T, d *disktest.FS)
		// from and to index patient.base: the segments that may have lost
		// records. Everything else must be there.
		from, to   int
		reason     Reason
		quarantine string // file that must be there
		mostLost   int    // 0: no limit
		noCursors  bool
	}{
		{name: "flipped byte in the open segment", from: 4, to: 5, reason: Damaged, quarantine: seg5, mostLost: 1,
			harm: func(t *testing.T, d *disktest.FS) { flip(t, d, seg5, 20_000) }},
		{name: "wiped page in the open segment", from: 4, to: 5, reason: Damaged, quarantine: seg5, mostLost: 9,
			harm: func(t *testing.T, d *disktest.FS) {
				edit(t, d, seg5, func(f disk.File) { f.WriteAt(make([]byte, pageSize), 4*pageSize) })
			}},
		{name: "truncated open segment", from: 4, to: 5, reason: Missing, // its end is simply not there; the seal of its successor would tell
			harm: func(t *testing.T, d *disktest.FS) { edit(t, d, seg5, func(f disk.File) { f.Truncate(16_000) }) }},
		{name: "truncated sealed segment", from: 1, to: 2, reason: Damaged, quarantine: seg2,
			harm: func(t *testing.T, d *disktest.FS) { edit(t, d, seg2, func(f disk.File) { f.Truncate(30_000) }) }},
		{name: "header of a middle segment", from: 1, to: 2, reason: Damaged, quarantine: seg2,
			harm: func(t *testing.T, d *disktest.FS) { flip(t, d, seg2, 33) }},
		{name: "empty middle segment", from: 1, to: 2, reason: Damaged, quarantine: seg2,
			harm: func(t *testing.T, d *disktest.FS) { edit(t, d, seg2, func(f disk.File) { f.Truncate(0) }) }},
		{name: "segment under a wrong name", from: 1, to: 3, reason: Damaged, quarantine: seg2,
			harm: func(t *testing.T, d *disktest.FS) { d.Rename(seg3, seg2) }},
		{name: "missing middle segment", from: 1, to: 2, reason: Missing,
			harm: func(t *testing.T, d *disktest.FS) { d.Remove(seg2) }},
		{name: "missing first segment", from: 0, to: 1, reason: Missing,
			harm: func(t *testing.T, d *disktest.FS) { d.Remove(seg1) }},
		{name: "missing last segment", from: 4, to: 5, reason: Missing,
			harm: func(t *testing.T, d *disktest.FS) { d.Remove(seg5) }},
		{name: "header of the last segment", from: 4, to: 5, reason: Missing, quarantine: seg5,
			harm: func(t *testing.T, d *disktest.FS) { flip(t, d, seg5, 0) }},
		{name: "snapshot of the last segment", from: 4, to: 5, reason: Damaged, quarantine: seg5, mostLost: 1,
			harm: func(t *testing.T, d *disktest.FS) { flip(t, d, seg5, dataPos+frameLen+3) }},
		{name: "seal and a record of a sealed segment", from: 2, to: 3, reason: Damaged, quarantine: seg3, mostLost: 1,
			harm: func(t *testing.T, d *disktest.FS) { flip(t, d, seg3, sealPos+20); flip(t, d, seg3, 30_000) }},
		{name: "garbage beside the segments", from: 5, to: 5, quarantine: "00000000000000aa.seg",
			harm: func(t *testing.T, d *disktest.FS) {
				f, _ := d.Create("00000000000000aa.seg")
				f.WriteAt(bytes.Repeat([]byte("garbage"), 1000), 0)
				f, _ = d.Create("notes.txt")
				f.WriteAt([]byte("not ours"), 0)
			}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPatient(t)
			c.harm(t, p.disk)
			var told []Condition
			j := open(t, p.disk, Options{OnCondition: func(c Condition) { told = append(told, c) }})
			truncatedTail := strings.HasPrefix(c.name, "truncated open")
			if !truncatedTail && (len(told) != 1 || told[0].Trouble != DamageFound || !told[0].On) {
				t.Errorf("conditions %+v", told)
			}
			if !truncatedTail && j.Epoch() == p.epoch {
				t.Error("records were lost and the epoch is the same")
			}
			if c.quarantine != "" {
				if held, _ := p.disk.List(quarantineDir); !slices.Contains(held, c.quarantine) {
					t.Errorf("quarantine holds %q", held)
				}
			}
			var again []Condition
			k := open(t, p.disk.Clone(), Options{OnCondition: func(c Condition) { again = append(again, c) }})
			if !truncatedTail && (len(again) > 0 || k.Epoch() != j.Epoch()) {
				t.Errorf("opened again before anything was appended: %+v, epoch changed %v", again, k.Epoch() != j.Epoch())
			}
			next := put(t, j, 0, "after")
			if next <= p.last && !truncatedTail && c.to < 5 {
				t.Errorf("offset %d was used before", next)
			}
			bounds := append(slices.Clone(p.base), p.last+1)
			checkPatient(t, p, all(t, j.NewReader(0)), bounds[c.from], bounds[c.to], c.reason, c.mostLost)
			if cur, _ := j.Cursor("keeper"); cur.Offset() != 7 || string(cur.State()) != "state" {
				t.Errorf("cursor at %d, state %q", cur.Offset(), cur.State())
			}
			epoch := j.Epoch()
			j.Close()

			told = nil
			j = open(t, p.disk, Options{OnCondition: func(c Condition) { told = append(told, c) }})
			if len(told) > 0 || j.Epoch() != epoch {
				t.Errorf("the second Open finds damage again: %+v, epoch changed %v", told, j.Epoch() != epoch)
			}
			if rec, err := j.ReadAt(next); err != nil || string(rec.Body) != "after" {
				t.Errorf("%+v, %v", rec, err)
			}
		})
	}
}

// checkPatient holds what is read against the patient: outside from..to all
// records are there, inside each is there or in a gap of the right reason.
func checkPatient(t *testing.T, p patient, got []string, from, to Offset, reason Reason, mostLost int) {
	t.Helper()
	have := map[string]bool{}
	gaps := []string{}
	for _, s := range got {
		have[s] = true
		if strings.HasPrefix(s, "gap") {
			gaps = append(gaps, s)
		}
	}
	lost := 0
	for i, s := range p.records {
		off := Offset(i + 1)
		if have[s] {
			continue
		}
		lost++
		if off < from || off >= to {
			t.Fatalf("record %d is lost, outside of %d to %d; gaps %q", off, from, to-1, gaps)
		}
	}
	if lost == 0 && from < to && mostLost != 1 {
		t.Error("nothing is lost: the harm missed")
	}
	if mostLost > 0 && lost > mostLost {
		t.Errorf("%d records lost, %q", lost, gaps)
	}
	for _, g := range gaps {
		if !strings.HasSuffix(g, reason.String()) {
			t.Errorf("%s, want %v", g, reason)
		}
	}
}

// Damage inside a sealed segment is found by whoever reads it, and by Verify.
func TestDamageFoundWhileReading(t *testing.T) {
	p := newPatient(t)
	flip(t, p.disk, "0000000000000002.seg", 30_000)
	infos, err := Inspect(p.disk)
	if err != nil || len(infos) != 5 || infos[1].Damage != nil {
		t.Fatalf("Inspect: %+v, %v", infos, err)
	}
	if infos, err = Verify(context.Background(), p.disk); err != nil || len(infos[1].Damage) != 1 || infos[0].Damage != nil {
		t.Fatalf("Verify: %+v, %v", infos, err)
	}
	var told []Condition
	j := open(t, p.disk, Options{OnCondition: func(c Condition) { told = append(told, c) }})
	for range 2 {
		got := all(t, j.NewReader(0))
		checkPatient(t, p, got, p.base[1], p.base[2], Damaged, 1)
		if len(got) != len(p.records) {
			t.Errorf("%d records and gaps, want %d", len(got), len(p.records))
		}
	}
	if len(told) != 1 || told[0].Trouble != DamageFound {
		t.Errorf("conditions %+v", told)
	}
	if j.Epoch() != p.epoch {
		t.Error("the epoch changed while the journal was open")
	}
}

// A medium that cannot be read is an error to the reader, not a gap: it may be
// read the next time.
func TestReadErrorMovesNothing(t *testing.T) {
	p := newPatient(t)
	j := open(t, p.disk, Options{})
	p.disk.Fail(disktest.OpRead, 1, -1, syscall.EIO)
	r := j.NewReader(1)
	for range 2 {
		if _, err := r.Next(); !errors.Is(err, syscall.EIO) {
			t.Fatal(err)
		}
	}
	p.disk.Heal()
	if got := all(t, r); len(got) != len(p.records) {
		t.Errorf("%d records after healing, want %d", len(got), len(p.records))
	}
}

func TestQuarantineIsBounded(t *testing.T) {
	p := newPatient(t)
	for i := range 3 * maxQuarantine {
		f, err := p.disk.Create(segName(uint64(100 + i)))
		if err != nil {
			t.Fatal(err)
		}
		f.WriteAt([]byte("junk"), 0)
	}
	open(t, p.disk, Options{})
	held, err := p.disk.List(quarantineDir)
	if err != nil || len(held) != maxQuarantine || held[0] != segName(100+2*maxQuarantine) {
		t.Errorf("quarantine holds %q, %v", held, err)
	}
}

func TestInspectAgreesWithVerify(t *testing.T) {
	p := newPatient(t)
	a, err := Inspect(p.disk)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Verify(context.Background(), p.disk)
	if err != nil {
		t.Fatal(err)
	}
	if fmt.Sprintf("%+v", a) != fmt.Sprintf("%+v", b) {
		t.Errorf("Inspect %+v\nVerify  %+v", a, b)
	}
	var records uint64
	for i, s := range a {
		if want := p.base[i]; s.First != want || s.Epoch != p.epoch || s.FirstTime != 1000 || s.LastTime != 1000 {
			t.Errorf("segment %d: %+v, want first %d", i, s, want)
		}
		for _, n := range s.Records {
			records += n
		}
	}
	if records != uint64(p.last) || a[len(a)-1].Last != p.last || a[4].State != StateOpen || a[3].State != StateSealed {
		t.Errorf("%d records of %d, %+v", records, p.last, a)
	}
}
