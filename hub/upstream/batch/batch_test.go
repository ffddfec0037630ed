package batch

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"

	"github.com/klauspost/compress/zstd"
)

func sample() []Entry {
	return []Entry{
		{Offset: 100, Received: 1_700_000_000_000_000, QoS: 1, Sender: []byte("line 1"), Topic: []byte("a/b"), Props: []byte{1, 1}, Payload: []byte("21.5")},
		{Offset: 99, Received: 1_699_999_999_000_000, Expires: 1_700_000_100_000_000, QoS: 2, Retain: true, Sender: []byte{}, Topic: []byte("c"), Props: []byte{}, Payload: []byte{}},
		{Offset: math.MaxUint64, Received: math.MinInt64, Expires: math.MaxInt64, Sender: []byte{}, Topic: []byte("d"), Props: []byte{}, Payload: bytes.Repeat([]byte("x"), 5000)},
	}
}

func encoder(t testing.TB) *zstd.Encoder {
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestThereAndBack(t *testing.T) {
	for _, pack := range []*zstd.Encoder{nil, encoder(t)} {
		frame := Append([]byte("before"), 77, sample(), pack)[6:]
		epoch, got, err := Parse(frame, 1<<20)
		if err != nil || epoch != 77 || !reflect.DeepEqual(got, sample()) {
			t.Errorf("epoch %d, %+v, %v", epoch, got, err)
		}
		if pack != nil && len(frame) > 300 {
			t.Errorf("5000 equal bytes were packed into %d", len(frame))
		}
		for n := range frame {
			if _, _, err := Parse(frame[:n], 1<<20); err == nil {
				t.Errorf("the first %d of %d bytes are a frame", n, len(frame))
			}
		}
		if _, _, err := Parse(append(frame, 0), 1<<20); err == nil {
			t.Error("a byte too many is a frame")
		}
	}
}

func TestOverheadIsTheMost(t *testing.T) {
	e := sample()[2:]
	size := len(e[0].Topic) + len(e[0].Payload)
	if n := len(Append(nil, math.MaxUint64, e, nil)); n > Header+size+Overhead {
		t.Errorf("%d bytes, promised at most %d", n, Header+size+Overhead)
	}
}

func TestBombIsRefused(t *testing.T) {
	e := []Entry{{Topic: []byte("t"), Payload: make([]byte, 8<<20)}}
	frame := Append(nil, 1, e, encoder(t))
	if _, _, err := Parse(frame, 1<<20); !errors.Is(err, ErrFrame) {
		t.Errorf("%d bytes that unpack to 8 MiB with a limit of 1 MiB: %v", len(frame), err)
	}
	if _, _, err := Parse(frame, 16<<20); err != nil {
		t.Error(err)
	}
}

// TestGolden holds the bytes of a frame fast: they outlive the program.
func TestGolden(t *testing.T) {
	want := "HFB\x01\x00" + "\x02\x00\x00\x00\x00\x00\x00\x00" + "\x02" +
		"\x14\x04\x00\x01\x01s\x01t\x00\x02hi" +
		"\x01\x00\x09\x04\x00\x01u\x01\x2a\x00"
	got := Append(nil, 2, []Entry{
		{Offset: 10, Received: 2, QoS: 1, Sender: []byte("s"), Topic: []byte("t"), Payload: []byte("hi")},
		{Offset: 9, Received: 2, Expires: 9, Retain: true, Topic: []byte("u"), Props: []byte{42}},
	}, nil)
	if string(got) != want {
		t.Errorf("got  % x\nwant % x", got, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(Append(nil, 1, sample(), nil))
	f.Add(Append(nil, 1, sample(), encoder(f)))
	f.Add([]byte("HFB\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		epoch, entries, err := Parse(b, 1<<20)
		if err != nil {
			if !errors.Is(err, ErrFrame) {
				t.Error(err)
			}
			return
		}
		epoch2, again, err := Parse(Append(nil, epoch, entries, nil), 1<<20)
		if err != nil || epoch2 != epoch || !reflect.DeepEqual(again, entries) {
			t.Errorf("%+v becomes %+v, %v", entries, again, err)
		}
	})
}
