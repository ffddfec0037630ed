package modbus

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// readRequest asks unit for n holding registers from 0.
func readRequest(unit byte, n int) *request {
	r := &request{unit: unit}
	r.set([]byte{3, 0, 0, 0, byte(n)})
	return r
}

// The frame is the example of SL appendix B: unit 2, function 7, CRC 0x1241 sent
// low byte first.
func TestCRCOfTheSpecification(t *testing.T) {
	if got := hex.EncodeToString(appendRTU(nil, 2, []byte{7})); got != "02074112" {
		t.Errorf("frame is %s, want 02074112", got)
	}
}

func TestFindRTU(t *testing.T) {
	frame := func(unit byte, pdu string) string {
		return hex.EncodeToString(appendRTU(nil, unit, unhex(t, pdu)))
	}
	two := frame(1, "030412345678")
	flipped := "01030412345679" + two[14:]
	tests := []struct {
		name, in string
		pdu      string // "" when there is none
	}{
		{"whole", two, "030412345678"},
		{"noise before", "00ff" + two, "030412345678"},
		{"noise after", two + "ff", "030412345678"},
		{"exception", frame(1, "8302"), "8302"},
		{"late exception after noise", "55" + frame(1, "8306"), "8306"},
		{"short", two[:len(two)-2], ""},
		{"bad crc", flipped, ""},
		{"bad crc then good", flipped + two, "030412345678"},
		{"other unit", frame(2, "030412345678"), ""},
		{"other function", frame(1, "040412345678"), ""},
		{"one register less", frame(1, "03021234"), ""},
		{"one register more", frame(1, "0306123456789abc"), ""},
		{"other unit first", frame(2, "030412345678") + two, "030412345678"},
		{"a frame in the data", frame(1, "0304"+frame(1, "8302")[:8]), "0304" + frame(1, "8302")[:8]},
	}
	for _, tt := range tests {
		_, pdu, end := findRTU(unhex(t, tt.in), readRequest(1, 2))
		if hex.EncodeToString(pdu) != tt.pdu || (end == 0) != (tt.pdu == "") {
			t.Errorf("%s: %x, %d, want %s", tt.name, pdu, end, tt.pdu)
		}
	}
}

// TestDataThatLooksLikeAFrame feeds an answer whose data is itself an exception
// frame, byte by byte: nothing may be found before the end.
func TestDataThatLooksLikeAFrame(t *testing.T) {
	inner := appendRTU(nil, 1, []byte{0x83, 2})
	r := readRequest(1, 4)
	whole := appendRTU(nil, 1, append(append([]byte{3, 8}, inner...), 0, 0, 0))
	for n := range len(whole) {
		if _, pdu, end := findRTU(whole[:n], r); end != 0 {
			t.Fatalf("after %d bytes: %x", n, pdu)
		}
	}
	if _, pdu, _ := findRTU(whole, r); pdu == nil || pdu[0] != 3 {
		t.Fatalf("whole: %x", pdu)
	}
}

func TestParseTCP(t *testing.T) {
	whole := appendTCP(nil, tcpFrame{transaction: 0x1234, unit: 7, pdu: []byte{3, 2, 0, 9}})
	if got := hex.EncodeToString(whole); got != "12340000000507"+"03020009" {
		t.Errorf("frame is %s", got)
	}
	for n := range len(whole) {
		if _, used, err := parseTCP(whole[:n]); used != 0 || err != nil {
			t.Fatalf("%d bytes: %d, %v", n, used, err)
		}
	}
	f, used, err := parseTCP(append(whole, 1, 2, 3))
	if err != nil || used != len(whole) || f.transaction != 0x1234 || f.unit != 7 || !bytes.Equal(f.pdu, []byte{3, 2, 0, 9}) {
		t.Errorf("%+v, %d, %v", f, used, err)
	}
	for _, bad := range []string{"00010001", "00010000000001", "000100000002010300", "000100000100010300"} {
		if _, _, err := parseTCP(unhex(t, bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func FuzzParseTCP(f *testing.F) {
	f.Add(appendTCP(nil, tcpFrame{transaction: 1, unit: 1, pdu: []byte{3, 2, 0, 9}}))
	f.Add([]byte{0, 1, 0, 0, 0, 3, 1, 0x83, 2, 0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		frame, n, err := parseTCP(b)
		switch {
		case err != nil && n != 0:
			t.Fatal("an error and a frame")
		case n > len(b) || n > maxTCP:
			t.Fatalf("%d of %d bytes", n, len(b))
		case n > 0:
			if back := appendTCP(nil, frame); !bytes.Equal(back, b[:n]) {
				t.Fatalf("%x becomes %x", b[:n], back)
			}
			for m := range n { // a frame is never found in a part of itself
				if _, used, err := parseTCP(b[:m]); used != 0 || err != nil {
					t.Fatalf("%d of %d bytes: %d, %v", m, n, used, err)
				}
			}
		}
	})
}

func FuzzFindRTU(f *testing.F) {
	f.Add(appendRTU(nil, 1, []byte{3, 4, 1, 2, 3, 4}), byte(1), []byte{3, 0, 0, 0, 2})
	f.Add(appendRTU([]byte{0xff}, 1, []byte{0x83, 2}), byte(1), []byte{3, 0, 0, 0, 2})
	f.Add(appendRTU(nil, 9, []byte{6, 0, 1, 0, 5}), byte(9), []byte{6, 0, 1, 0, 5})
	f.Fuzz(func(t *testing.T, b []byte, unit byte, pdu []byte) {
		if len(pdu) < 5 || len(pdu) > maxPDU {
			return
		}
		r := &request{unit: unit}
		r.set(pdu)
		u, answer, end := findRTU(b, r)
		if end == 0 {
			return
		}
		if end > len(b) || u != unit || len(answer) < 2 {
			t.Fatalf("unit %d, %x, %d of %d", u, answer, end, len(b))
		}
		if back := appendRTU(nil, u, answer); !bytes.HasSuffix(b[:end], back) {
			t.Fatalf("%x is not in %x", back, b[:end])
		}
		if len(answer) <= maxPDU && r.take(u, answer) != nil {
			t.Fatalf("found %x, which does not answer %x", answer, pdu)
		}
	})
}

func FuzzParseAddress(f *testing.F) {
	for _, s := range []string{"holding:100", "40001", "465536.15", "ir:0xffff.0", "coil:7", "di:", "4x100"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := ParseAddress(s)
		if err != nil {
			return
		}
		for _, text := range []string{a.String(), a.Number()} {
			if b, err := ParseAddress(text); err != nil || b != a {
				t.Fatalf("%q: %v becomes %q becomes %v, %v", s, a, text, b, err)
			}
		}
	})
}
