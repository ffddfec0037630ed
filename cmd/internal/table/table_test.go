package table

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

var columns = []Column{{Title: "TAG", Give: true}, {Title: "VALUE", Right: true}, {Title: "DETAIL", Give: true}}

func TestWrite(t *testing.T) {
	var b bytes.Buffer
	Write(&b, 0, columns, [][]string{{"boiler/level", "1.25", ""}, {"ö", "-17", "no answer\x1b[2J"}})
	want := "TAG           VALUE  DETAIL\nboiler/level   1.25\nö               -17  no answer·[2J\n"
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
}

func TestFit(t *testing.T) {
	rows := [][]string{{strings.Repeat("a", 40), "1", strings.Repeat("b", 60)}}
	for _, width := range []int{120, 80, 40, 30} {
		var b bytes.Buffer
		Write(&b, width, columns, rows)
		for _, l := range strings.Split(b.String(), "\n") {
			if n := utf8.RuneCountInString(l); n > width {
				t.Errorf("line of %d in a terminal of %d: %q", n, width, l)
			}
		}
	}
}

func TestPaint(t *testing.T) {
	var b bytes.Buffer
	s := Screen{W: &b, Height: func() int { return 4 }}
	s.Paint("1\n2\n")
	s.Paint("1\n2\n3\n4\n5\n")
	want := "1\x1b[K\n2\x1b[K\n\x1b[J" + "\x1b[2A\r1\x1b[K\n2\x1b[K\n… 3 more lines\x1b[K\n\x1b[J"
	if b.String() != want {
		t.Errorf("got %q\nwant %q", b.String(), want)
	}
}

func TestNumber(t *testing.T) {
	for in, want := range map[string]string{"1.1953493": "1.19535", "20": "20", "12345678901": "12345678901", "0.1": "0.1",
		"1013.0214453125": "1013.02", "text that is long": "text that is long", "1.5e+300": "1.5e+300"} {
		if got := Number(in); got != want {
			t.Errorf("%s: %s, want %s", in, got, want)
		}
	}
}
