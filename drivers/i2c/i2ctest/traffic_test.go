package i2ctest

import (
	"bytes"
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"holdfast/drivers/i2c"
)

func TestRecordingRoundTrip(t *testing.T) {
	ops := []Op{
		{Addr: 0x76, W: []byte{0xD0}, R: []byte{0x60}},
		{Addr: 0x18, W: []byte{1, 2, 3}},
		{Addr: 0x48, R: []byte{0x19, 0x80}},
		{Addr: 0x48, W: []byte{0}, Err: i2c.ErrNACK},
		{Addr: 0x48, W: []byte{0}, Err: errors.New("input/output error")},
	}
	var b strings.Builder
	if err := WriteOps(&b, ops); err != nil {
		t.Fatal(err)
	}
	const want = `76 w d0 r 60
18 w 01 02 03
48 r 19 80
48 w 00 err not acknowledged
48 w 00 err input/output error
`
	if b.String() != want {
		t.Errorf("recording:\n%s\nwant:\n%s", &b, want)
	}
	got, err := ReadOps(strings.NewReader("# comment\n\n" + want))
	if err != nil || !reflect.DeepEqual(got, ops) {
		t.Errorf("read back %v, %v", got, err)
	}
	if !errors.Is(got[3].Err, i2c.ErrNACK) {
		t.Error("the recorded error is not ErrNACK")
	}
}

func TestReadOpsErrors(t *testing.T) {
	for _, bad := range []string{"zz w 00", "80 w 00", "76", "76 w", "76 w 0", "76 w 00 r", "76 r 00 w 00", "76 w 00 x", "76 w 00 r 00 err nack", "76 w gg", " err x"} {
		if ops, err := ReadOps(strings.NewReader("\n" + bad)); err == nil || !strings.HasPrefix(err.Error(), "line 2: ") {
			t.Errorf("ReadOps(%q) = %v, %v", bad, ops, err)
		}
	}
}

func FuzzReadOps(f *testing.F) {
	f.Add("76 w d0 r 60\n")
	f.Add("76 w f4 25 err not acknowledged\n# x\n\n48 r 00 01")
	f.Add("76 w 00 err  bus   stuck for 3s ")
	f.Fuzz(func(t *testing.T, text string) {
		ops, err := ReadOps(strings.NewReader(text))
		if err != nil {
			return
		}
		var first, second bytes.Buffer
		if err := WriteOps(&first, ops); err != nil {
			t.Fatal(err)
		}
		again, err := ReadOps(bytes.NewReader(first.Bytes()))
		if err != nil {
			t.Fatalf("cannot read what was written: %v\n%s", err, &first)
		}
		WriteOps(&second, again)
		if first.String() != second.String() {
			t.Errorf("written twice:\n%s\n%s", &first, &second)
		}
	})
}

func TestRecorderAndPlayback(t *testing.T) {
	bus := NewBus("i2c-test")
	bus.Put(0x18, NewMCP9808())
	rec := NewRecorder(bus)
	use := func(b i2c.Bus) (got []byte) {
		r := make([]byte, 2)
		b.Tx(t.Context(), 0x18, []byte{6}, r)
		got = append(got, r...)
		b.Tx(t.Context(), 0x19, []byte{6}, r)
		b.Tx(t.Context(), 0x18, []byte{1, 0, 0}, nil)
		return got
	}
	first := use(rec)
	ops, missed := rec.Ops()
	if len(ops) != 3 || missed != 0 || !errors.Is(ops[1].Err, i2c.ErrNACK) {
		t.Fatalf("recorded %v, %d missed", ops, missed)
	}
	play := NewPlayback(ops)
	if second := use(play); !bytes.Equal(first, second) {
		t.Errorf("played % x, recorded % x", second, first)
	}
	if err := play.Close(); err != nil {
		t.Error(err)
	}
}

func TestPlaybackNotices(t *testing.T) {
	op := Op{Addr: 0x18, W: []byte{6}, R: []byte{0, 0x54}}
	tests := map[string]func(b i2c.Bus){
		"left over":     func(b i2c.Bus) {},
		"other address": func(b i2c.Bus) { b.Tx(t.Context(), 0x19, []byte{6}, make([]byte, 2)) },
		"other bytes":   func(b i2c.Bus) { b.Tx(t.Context(), 0x18, []byte{7}, make([]byte, 2)) },
		"other length":  func(b i2c.Bus) { b.Tx(t.Context(), 0x18, []byte{6}, make([]byte, 3)) },
		"one too many": func(b i2c.Bus) {
			b.Tx(t.Context(), 0x18, []byte{6}, make([]byte, 2))
			b.Tx(t.Context(), 0x18, []byte{6}, make([]byte, 2))
		},
	}
	for name, use := range tests {
		p := NewPlayback([]Op{op})
		use(p)
		if err := p.Close(); err == nil {
			t.Errorf("%s: not noticed", name)
		}
	}
}

// counter is a chip whose reads count up.
type counter struct{ n byte }

func (c *counter) Write([]byte) error { return nil }

func (c *counter) Read(b []byte) {
	for i := range b {
		c.n++
		b[i] = c.n
	}
}

func TestFaults(t *testing.T) {
	read := func(f *Faulty) ([]byte, error) {
		r := make([]byte, 4)
		err := f.Tx(t.Context(), 0x20, []byte{0}, r)
		return r, err
	}
	fresh := func(fault Fault) *Faulty {
		bus := NewBus("i2c-test")
		bus.Put(0x20, &counter{})
		f := NewFaulty(bus, 7)
		f.Set(fault)
		return f
	}
	for kind, want := range map[Kind]error{NACK: i2c.ErrNACK, Arbitration: i2c.ErrArbitration, Gone: i2c.ErrGone} {
		if _, err := read(fresh(Fault{Kind: kind})); !errors.Is(err, want) {
			t.Errorf("%v: %v, want %v", kind, err, want)
		}
	}
	for fault, want := range map[Fault]string{
		{Kind: Stuck, Byte: 0xFF}: "\xff\xff\xff\xff",
		{Kind: Stuck}:             "\x00\x00\x00\x00",
		{Kind: Short}:             "\x01\x02\xff\xff",
		{}:                        "\x01\x02\x03\x04",
		{Kind: NACK, Addr: 0x21}:  "\x01\x02\x03\x04",
		{Kind: Slow, Delay: 1}:    "\x01\x02\x03\x04",
	} {
		if r, err := read(fresh(fault)); err != nil || string(r) != want {
			t.Errorf("%v: % x, %v; want % x", fault, r, err, want)
		}
	}
	f := fresh(Fault{Kind: Frozen})
	for range 3 {
		if r, _ := read(f); string(r) != "\x01\x02\x03\x04" {
			t.Errorf("frozen: % x", r)
		}
	}
	f.Clear()
	if r, _ := read(f); r[0] != 13 {
		t.Errorf("after frozen: % x, want the chip's fourth answer", r)
	}
	f = fresh(Fault{Kind: Flip})
	r, _ := read(f)
	ones := 0
	for i, b := range r {
		for d := b ^ byte(i+1); d != 0; d &= d - 1 {
			ones++
		}
	}
	if ones != 1 {
		t.Errorf("flip changed %d bits: % x", ones, r)
	}
}

func TestFaultFrequency(t *testing.T) {
	bus := NewBus("i2c-test")
	bus.Put(0x20, &counter{})
	count := func(fault Fault, n int) (failed int) {
		f := NewFaulty(bus, 7)
		f.Set(fault)
		for range n {
			if f.Tx(t.Context(), 0x20, []byte{0}, nil) != nil {
				failed++
			}
		}
		if total, injected := f.Counts(); total != n || injected != failed {
			t.Errorf("Counts = %d, %d, want %d, %d", total, injected, n, failed)
		}
		return failed
	}
	if n := count(Fault{Kind: NACK, Every: 5}, 100); n != 20 {
		t.Errorf("every 5th of 100: %d failed", n)
	}
	if n := count(Fault{Kind: NACK, Rate: 0.3}, 1000); n < 200 || n > 400 || n != count(Fault{Kind: NACK, Rate: 0.3}, 1000) {
		t.Errorf("three in ten of 1000: %d failed, or not the same again", n)
	}
}

func TestHangEndsWithContextOrFault(t *testing.T) {
	bus := NewBus("i2c-test")
	bus.Put(0x20, &counter{})
	f := NewFaulty(bus, 1)
	f.Set(Fault{Kind: Hang})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
	defer cancel()
	err := f.Tx(ctx, 0x20, []byte{0}, nil)
	if !errors.Is(err, i2c.ErrTimeout) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hung transaction = %v", err)
	}
	done := make(chan error)
	go func() { done <- f.Tx(context.Background(), 0x20, []byte{0}, nil) }()
	for n := 0; n < 2; n, _ = f.Counts() {
		time.Sleep(time.Millisecond)
	}
	f.Clear()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("Clear did not let the transaction go on")
	}
}

func TestKindNames(t *testing.T) {
	for k := None; k <= Gone; k++ {
		if got, err := ParseKind(k.String()); err != nil || got != k {
			t.Errorf("ParseKind(%q) = %v, %v", k.String(), got, err)
		}
	}
	if _, err := ParseKind("nak"); err == nil || Kind(99).String() != "Kind(99)" {
		t.Error("an unknown kind was accepted")
	}
}
