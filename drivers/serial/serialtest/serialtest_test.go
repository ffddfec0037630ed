package serialtest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/drivers/serial"
)

const patience = 20 * time.Second

// soon gives a port a deadline for what must happen.
func soon(ps ...serial.Port) {
	for _, p := range ps {
		p.SetReadDeadline(time.Now().Add(patience))
		p.SetWriteDeadline(time.Now().Add(patience))
	}
}

func TestPipeCarriesBothWays(t *testing.T) {
	a, b := Pipe()
	soon(a, b)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<12) // more than there is room for
	var wg sync.WaitGroup
	for _, way := range [][2]serial.Port{{a, b}, {b, a}} {
		wg.Go(func() {
			if n, err := way[0].Write(data); n != len(data) || err != nil {
				t.Errorf("Write = %d, %v", n, err)
			}
		})
		wg.Go(func() {
			got := make([]byte, len(data))
			if _, err := io.ReadFull(way[1], got); err != nil || !bytes.Equal(got, data) {
				t.Errorf("Read: %v, equal %v", err, bytes.Equal(got, data))
			}
		})
	}
	wg.Wait()
}

func TestPipeDeadlines(t *testing.T) {
	a, _ := Pipe()
	a.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Read = %v", err)
	}
	a.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	if n, err := a.Write(make([]byte, roomPerWay+1)); n != roomPerWay || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Write = %d, %v", n, err)
	}
	// A deadline set later reaches a call that already waits.
	a.SetReadDeadline(time.Time{})
	got := make(chan error, 1)
	go func() { _, err := a.Read(make([]byte, 1)); got <- err }()
	time.Sleep(5 * time.Millisecond) // most likely waiting by now; correct either way
	a.SetReadDeadline(time.Now())
	select {
	case err := <-got:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v", err)
		}
	case <-time.After(patience):
		t.Fatal("the waiting Read did not see its deadline")
	}
}

func TestPipeHangUp(t *testing.T) {
	a, b := Pipe()
	soon(a, b)
	a.Write([]byte("last"))
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 8)
	if n, err := b.Read(got); err != nil || string(got[:n]) != "last" {
		t.Errorf("Read = %q, %v", got[:n], err)
	}
	if _, err := b.Read(got); !errors.Is(err, serial.ErrGone) {
		t.Errorf("Read after hang-up = %v", err)
	}
	if _, err := b.Write([]byte{1}); !errors.Is(err, serial.ErrGone) {
		t.Errorf("Write after hang-up = %v", err)
	}
	if err := b.Discard(); !errors.Is(err, serial.ErrGone) {
		t.Errorf("Discard after hang-up = %v", err)
	}
	for name, err := range map[string]error{
		"Close": a.Close(), "Discard": a.Discard(), "WaitSent": a.WaitSent(t.Context()), "SetReadDeadline": a.SetReadDeadline(time.Time{}),
		"Read":  func() error { _, err := a.Read(got); return err }(),
		"Write": func() error { _, err := a.Write(got); return err }(),
	} {
		if !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s after Close = %v", name, err)
		}
	}
}

func TestPipeCloseWakes(t *testing.T) {
	a, _ := Pipe()
	got := make(chan error, 2)
	go func() { _, err := a.Read(make([]byte, 1)); got <- err }()
	go func() { _, err := a.Write(make([]byte, 2*roomPerWay)); got <- err }()
	time.Sleep(2 * time.Millisecond) // most likely both wait by now; correct either way
	a.Close()
	for range 2 {
		select {
		case err := <-got:
			if !errors.Is(err, os.ErrClosed) {
				t.Errorf("got %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Close did not wake a waiting call")
		}
	}
}

func TestPipeDiscard(t *testing.T) {
	a, b := Pipe()
	soon(a, b)
	a.Write([]byte("stale"))
	if err := b.Discard(); err != nil {
		t.Fatal(err)
	}
	a.Write([]byte("new"))
	got := make([]byte, 16)
	if n, err := b.Read(got); err != nil || string(got[:n]) != "new" {
		t.Errorf("Read = %q, %v", got[:n], err)
	}
}

// faulty returns a line whose near end has the fault, and its far end.
func faulty(fault Fault) (near *Faulty, far serial.Port) {
	a, b := Pipe()
	soon(a, b)
	near = NewFaulty(a, 3)
	near.Set(fault)
	return near, b
}

func TestReceiveFaults(t *testing.T) {
	data := bytes.Repeat([]byte{0x55}, 1000)
	receive := func(fault Fault) []byte {
		near, far := faulty(fault)
		far.Write(data)
		far.Close()
		got, err := io.ReadAll(near)
		if !errors.Is(err, serial.ErrGone) {
			t.Errorf("%v: %v", fault.Kind, err)
		}
		return got
	}
	differ := func(got []byte) (n int) {
		for _, c := range got {
			if c != 0x55 {
				n++
			}
		}
		return n
	}
	for _, kind := range []Kind{None, Short, Late} {
		if got := receive(Fault{Kind: kind}); !bytes.Equal(got, data) {
			t.Errorf("%v changed what arrived", kind)
		}
	}
	if got := receive(Fault{Kind: Flip, Rate: 0.1}); len(got) != 1000 || differ(got) < 50 || differ(got) > 150 {
		t.Errorf("flip: %d bytes, %d changed", len(got), differ(got))
	}
	if got := receive(Fault{Kind: Drop, Rate: 0.1}); len(got) < 850 || len(got) > 950 {
		t.Errorf("drop: %d bytes left", len(got))
	}
	if got := receive(Fault{Kind: Noise, Rate: 0.1}); len(got) < 1050 || len(got) > 1150 {
		t.Errorf("noise: %d bytes", len(got))
	}
	if !bytes.Equal(receive(Fault{Kind: Noise, Rate: 0.5}), receive(Fault{Kind: Noise, Rate: 0.5})) {
		t.Error("equal seeds made different noise")
	}
}

func TestSendFaults(t *testing.T) {
	near, far := faulty(Fault{Kind: Mute})
	near.Write([]byte("lost"))
	near.Clear()
	near.Write([]byte("kept"))
	got := make([]byte, 16)
	if n, _ := far.Read(got); string(got[:n]) != "kept" {
		t.Errorf("mute: far end read %q", got[:n])
	}
	near, far = faulty(Fault{Kind: Echo})
	near.Write([]byte("ask"))
	far.Write([]byte("answer"))
	whole := make([]byte, 9)
	if _, err := io.ReadFull(near, whole); string(whole) != "askanswer" {
		t.Errorf("echo: read %q, %v", whole, err)
	}
	near.Write([]byte("ask"))
	near.Discard()
	far.Write([]byte("!"))
	if n, _ := near.Read(got); string(got[:n]) != "!" {
		t.Errorf("echo after Discard: read %q", got[:n])
	}
	near, _ = faulty(Fault{Kind: Hang})
	near.SetWriteDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := near.Write([]byte{1}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("hang: %v", err)
	}
	near.SetWriteDeadline(time.Time{})
	woken := make(chan error, 1)
	go func() { _, err := near.Write([]byte{1}); woken <- err }()
	near.Close()
	if err := <-woken; !errors.Is(err, os.ErrClosed) {
		t.Errorf("hang and Close: %v", err)
	}
	near, _ = faulty(Fault{Kind: Gone})
	_, werr := near.Write([]byte{1})
	_, rerr := near.Read(got)
	for _, err := range []error{werr, rerr, near.Discard()} {
		if !errors.Is(err, serial.ErrGone) {
			t.Errorf("gone: %v", err)
		}
	}
	if near.Injected() == 0 {
		t.Error("no fault was counted")
	}
}

func TestRecorderAndPlayback(t *testing.T) {
	a, b := Pipe()
	soon(a, b)
	rec := NewRecorder(a)
	use := func(p serial.Port, answer func()) string {
		p.Write([]byte{1, 3})
		p.Write([]byte{0xFF})
		answer()
		got := make([]byte, 4)
		io.ReadFull(p, got)
		p.Write([]byte{9})
		return string(got)
	}
	first := use(rec, func() { b.Write([]byte{1, 3, 2, 7}) })
	ops, missed := rec.Ops()
	var text []string
	for _, o := range ops {
		text = append(text, o.String())
	}
	if got := strings.Join(text, " "); got != "> 01 03 ff < 01 03 02 07 > 09" || missed != 0 {
		t.Fatalf("recorded %q, %d missed", got, missed)
	}
	play := NewPlayback(ops)
	if second := use(play, func() {}); second != first {
		t.Errorf("played % x, recorded % x", second, first)
	}
	if err := play.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlaybackNotices(t *testing.T) {
	ops := []Op{{Sent: true, Data: []byte{1, 2}}, {Data: []byte{3}}}
	for name, use := range map[string]func(p *Playback){
		"nothing":     func(p *Playback) {},
		"other bytes": func(p *Playback) { p.Write([]byte{1, 9}) },
		"too much":    func(p *Playback) { p.Write([]byte{1, 2, 3}) },
		"unread":      func(p *Playback) { p.Write([]byte{1, 2}) },
	} {
		p := NewPlayback(ops)
		use(p)
		if p.Close() == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
	p := NewPlayback(ops)
	p.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := p.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("an answer before the question: %v", err)
	}
}

func TestDialer(t *testing.T) {
	d := NewDialer("line", func() (serial.Port, error) { a, _ := Pipe(); return a, nil })
	if p, err := d.Open(t.Context()); p == nil || err != nil {
		t.Errorf("Open = %v, %v", p, err)
	}
	d.Fail(serial.ErrGone)
	if _, err := d.Open(t.Context()); !errors.Is(err, serial.ErrGone) {
		t.Errorf("Open = %v, want ErrGone", err)
	}
	d.Fail(nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := d.Open(ctx); !errors.Is(err, context.Canceled) || d.Opens() != 3 {
		t.Errorf("Open = %v, %d opens", err, d.Opens())
	}
}

func TestPTYWaitsForItsUser(t *testing.T) {
	p, err := NewPTY()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	p.File.Write([]byte("hello"))
	f, err := os.OpenFile(p.Path, os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(f, got); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	f.Close()
	p.File.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
	if _, err := p.File.Read(got); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("far end after the port was closed: %v, want nothing to read", err)
	}
}

func TestKindNames(t *testing.T) {
	for k := None; k <= Gone; k++ {
		if got, err := ParseKind(k.String()); err != nil || got != k {
			t.Errorf("ParseKind(%q) = %v, %v", k.String(), got, err)
		}
	}
	if _, err := ParseKind("flipp"); err == nil {
		t.Error("an unknown kind was accepted")
	}
}
