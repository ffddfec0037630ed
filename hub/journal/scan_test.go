package journal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/drivers/disk/disktest"
)

// TestScan compares Scan with a reader, over several segments.
func TestScan(t *testing.T) {
	d := disktest.New()
	j := open(t, d, Options{})
	want := map[Offset]string{}
	for i := range 60 {
		body := fmt.Sprint(i) + strings.Repeat("x", 4000)
		want[put(t, j, uint8(i%3), body)] = body
	}
	for _, from := range []Offset{0, 1, 17, 60, 61} {
		next := max(from, 1)
		err := Scan(context.Background(), d, from, func(r Record) error {
			if r.Gap != nil || r.Offset != next || string(r.Body) != want[r.Offset] || r.Class != uint8((r.Offset-1)%3) {
				t.Errorf("from %d: got offset %d class %d gap %v, want offset %d", from, r.Offset, r.Class, r.Gap, next)
			}
			next = r.Offset + 1
			return nil
		})
		if err != nil || next != max(from, 61) {
			t.Errorf("from %d: ended before %d, %v", from, next, err)
		}
	}
	stop := errors.New("enough")
	if err := Scan(context.Background(), d, 0, func(Record) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error: %v", err)
	}
}
