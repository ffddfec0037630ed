package plant

import (
	"bytes"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPtyIsTransparent sends every byte both ways: a terminal that is not raw
// would change or eat some of them.
func TestPtyIsTransparent(t *testing.T) {
	p, err := OpenPty()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	far, err := os.OpenFile(p.Path, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	all := make([]byte, 256)
	for i := range all {
		all[i] = byte(i)
	}
	for _, way := range []struct {
		name     string
		from, to *os.File
	}{{"device to gateway", p.Line, far}, {"gateway to device", far, p.Line}} {
		if _, err := way.from.Write(all); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(all))
		if _, err := io.ReadFull(way.to, got); err != nil || !bytes.Equal(got, all) {
			t.Errorf("%s: %v\n%x", way.name, err, got)
		}
	}

	// The gateway may close and open its end: the device's end stays.
	far.Close()
	p.Line.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	if _, err := p.Line.Read(make([]byte, 1)); !os.IsTimeout(err) {
		t.Errorf("after a close of the other end: %v, want a timeout", err)
	}
}
