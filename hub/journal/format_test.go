package journal

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"holdfast/drivers/disk/disktest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// The bytes of a small segment are a promise to later versions.
func TestGoldenSegment(t *testing.T) {
	head := segHeader{id: 3, epoch: 0x1122334455667788, salt: 0x99aabbccddeeff00, base: 1000, created: 1767225600_000000, size: 64 << 10}
	buf := make([]byte, dataPos)
	head.append(buf[:0])
	w := frameWriter{salt: head.salt, pos: dataPos, durable: dataPos}
	w.state(1000, flagReset, func(b []byte) []byte { return b })
	w.state(1000, 0, func(b []byte) []byte {
		return appendLost(b, Gap{From: 1, To: 999, Reason: Consumed, Classes: allClasses})
	})
	w.state(1000, 0, func(b []byte) []byte { return appendCursor(b, "upstream", 998, []byte("state")) })
	w.state(1000, 0, func(b []byte) []byte { return appendDelete(b, "gone") })
	w.cur.flags |= flagWhole
	w.close()
	w.entry(1000, 0, 1767225600_000000, []byte("alarm"))
	w.entry(1001, 9, 1767225599_999999, []byte("reading"))
	w.gap(1002, 300, Budget, ClassSet(9))
	w.close()
	s := &segment{segHeader: head}
	buf = append(buf, w.buf...)
	sl := seal{after: 1302, stop: int64(len(buf)), indexPos: int64(len(buf))}
	sl.stats.add(0, 1767225600_000000, 5)
	sl.stats.add(9, 1767225599_999999, 7)
	sl.stats.gapClasses = ClassSet(9)
	copy(buf[sealPos:], sl.append(nil, s.salt))
	w = frameWriter{salt: head.salt, pos: sl.indexPos, durable: sl.stop}
	w.begin(frameIndex, 0, sl.after, 0)
	w.buf = appendIndex(w.buf, []indexEntry{{1000, dataPos}})
	w.close()
	buf = append(buf, w.buf...)

	got := dumpPages(buf)
	golden := filepath.Join("testdata", "segment.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the format has changed:\n%s", got)
	}
	if h, err := parseHeader(buf); err != nil || h != head {
		t.Errorf("header %+v, %v", h, err)
	}
	if p, err := parseSeal(buf[sealPos:], head.salt); err != nil || !reflect.DeepEqual(p, sl) {
		t.Errorf("seal %+v, %v", p, err)
	}
	if _, err := parseSeal(buf[sealPos:], head.salt+1); err == nil {
		t.Error("a seal of another life validates")
	}
}

// dumpPages is hex.Dump without the zeroes between the pages.
func dumpPages(b []byte) string {
	var out strings.Builder
	zero := strings.Repeat("00 ", 8) + " " + strings.Repeat("00 ", 8)
	for line := range strings.Lines(hex.Dump(b)) {
		if !strings.Contains(line, zero) {
			out.WriteString(line)
		}
	}
	return out.String()
}

func TestFrameBelongsToItsPlace(t *testing.T) {
	w := frameWriter{salt: 7, pos: dataPos, durable: dataPos}
	w.entry(1, 2, 3, []byte("body"))
	w.close()
	f, err := parseFrame(w.buf, 7, dataPos, 1<<20)
	if err != nil || !f.bodyValid(w.buf[frameLen:][:f.bodyLen], 7) || f.first != 1 || f.count != 1 || f.classes != ClassSet(2) {
		t.Fatalf("%+v, %v", f, err)
	}
	if _, err := parseFrame(w.buf, 8, dataPos, 1<<20); !errors.Is(err, errInvalid) {
		t.Error("a frame of the file's former life validates")
	}
	if _, err := parseFrame(w.buf, 7, dataPos+8, 1<<20); !errors.Is(err, errInvalid) {
		t.Error("a frame at another place validates")
	}
	if _, err := parseFrame(w.buf, 7, dataPos, dataPos+frameLen); !errors.Is(err, errInvalid) {
		t.Error("a frame beyond the end of the file validates")
	}
	for i := range frameLen {
		b := bytes.Clone(w.buf)
		b[i] ^= 1
		if _, err := parseFrame(b, 7, dataPos, 1<<20); err == nil {
			t.Errorf("a flipped bit in byte %d of the header goes unnoticed", i)
		}
	}
}

// FuzzItems: whatever parses prints back, and nothing reads beyond its input.
func FuzzItems(f *testing.F) {
	f.Add(appendEntry(nil, 3, -5, []byte("hello")), int64(1000))
	f.Add(appendGap(appendEntry(nil, 0, 1<<50, nil), 1<<40, Budget, ClassSet(9)), int64(0))
	f.Add([]byte{0x0a}, int64(0))
	f.Add([]byte{3, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, int64(0))
	f.Fuzz(func(t *testing.T, b []byte, base int64) {
		for len(b) > 0 {
			it, rest, err := cutItem(b, base)
			if err != nil {
				return
			}
			if it.size != len(b)-len(rest) {
				t.Fatalf("size %d of %d bytes", it.size, len(b)-len(rest))
			}
			var again []byte
			if it.gap > 0 {
				again = appendGap(nil, it.gap, it.reason, it.classes)
			} else {
				again = appendEntry(nil, it.class, it.time-base, it.body)
			}
			it2, rest2, err := cutItem(again, base)
			it2.size = it.size // varints have longer forms too
			if err != nil || len(rest2) != 0 || !reflect.DeepEqual(it, it2) && len(it.body)+len(it2.body) > 0 {
				t.Fatalf("%+v became %+v, %v", it, it2, err)
			}
			b = rest
		}
	})
}

func FuzzState(f *testing.F) {
	f.Add(uint8(flagReset|flagWhole), appendCursor(appendLost(nil, Gap{From: 1, To: 5, Reason: Budget}), "c", 3, []byte("s")))
	f.Add(uint8(0), appendDelete(nil, "c"))
	f.Fuzz(func(t *testing.T, flags uint8, b []byte) {
		var s state
		if err := s.apply(flags, b); err != nil {
			return
		}
		w := frameWriter{}
		w.state(1, flagReset, func(b []byte) []byte { return b })
		for _, g := range s.lost {
			w.state(1, 0, func(b []byte) []byte { return appendLost(b, g) })
		}
		for name, c := range s.cursors {
			w.buf = appendCursor(w.buf, name, c.low, c.state)
		}
		var again state
		if err := again.apply(flagReset, w.buf[frameLen:]); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(s.lost, again.lost) && len(s.lost) > 0 || len(s.cursors) != len(again.cursors) {
			t.Fatalf("%+v became %+v", s, again)
		}
	})
}

// FuzzSegment opens a journal with foreign bytes somewhere in one of its segments.
func FuzzSegment(f *testing.F) {
	f.Add(uint32(0), []byte("HFJSEG1\n"))
	f.Add(uint32(sealPos), make([]byte, sealLen))
	f.Add(uint32(dataPos), make([]byte, frameLen))
	f.Add(uint32(20_000), []byte{1})
	f.Add(uint32(minSegmentBytes+20_000), []byte{1})
	f.Add(uint32(3*minSegmentBytes+dataPos+frameLen), []byte{0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, at uint32, b []byte) {
		d := disktest.New()
		j := open(t, d, Options{})
		for range 150 {
			put(t, j, 1, filler)
		}
		n := uint32(len(j.segments()))
		if n < 3 {
			t.Fatalf("%d segments", n)
		}
		j.Close()
		file, err := d.Open(segName(uint64(1 + at/minSegmentBytes%n)))
		if err != nil {
			t.Fatal(err)
		}
		file.WriteAt(b, int64(at%minSegmentBytes))
		if _, err := Verify(context.Background(), d); err != nil {
			t.Fatal(err)
		}
		j = open(t, d, Options{})
		for _, got := range all(t, j.NewReader(0)) {
			if !strings.HasSuffix(got, filler) && !strings.HasPrefix(got, "gap") {
				t.Fatalf("invented %q", got)
			}
		}
		put(t, j, 1, "goes on")
	})
}
