// Package batch is the frame in which many records travel in one message.
// FORMAT.md has the byte table. It is pure: the far side imports it too.
package batch

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/zstd"

	"holdfast/hub"
)

// An Entry is one record of a frame. When parsed, its slices point into the
// frame, or into what it was unpacked to.
type Entry struct {
	Offset   uint64 // in the journal
	Received int64  // unix microseconds
	Expires  int64  // unix microseconds, 0 = never
	QoS      byte
	Retain   bool
	Sender   []byte
	Topic    []byte
	Props    []byte // MQTT 5 properties as in hub.Record
	Payload  []byte
}

// Of returns the entry of a record on its way.
func Of(m *hub.Outgoing) Entry {
	r := &m.Record
	return Entry{
		Offset: m.Offset, Received: r.Received, Expires: r.Expires, QoS: r.QoS, Retain: r.Retain,
		Sender: r.Sender, Topic: r.Topic, Props: r.Props, Payload: r.Payload,
	}
}

// Overhead is the most that a frame adds to one record's sender, topic,
// properties and payload, in bytes; Header is what it adds once.
const (
	Overhead = 3*binary.MaxVarintLen64 + 1 + 4*5
	Header   = len(magic) + 1 + 8 + binary.MaxVarintLen64
)

const (
	magic      = "HFB\x01"
	packed     = 1 << 0 // flag: what follows is one Zstandard frame (RFC 8878)
	maxEntries = 1 << 20
)

// ErrFrame: the bytes are not a batch frame.
var ErrFrame = errors.New("not a batch frame")

// Append appends a frame of the entries. pack, if not nil, compresses it.
func Append(dst []byte, epoch uint64, entries []Entry, pack *zstd.Encoder) []byte {
	dst = append(dst, magic...)
	flags := len(dst)
	dst = append(dst, 0)
	start := len(dst)
	dst = binary.LittleEndian.AppendUint64(dst, epoch)
	dst = binary.AppendUvarint(dst, uint64(len(entries)))
	var offset uint64
	var received int64
	for i := range entries {
		e := &entries[i]
		dst = binary.AppendVarint(dst, int64(e.Offset-offset))
		dst = binary.AppendVarint(dst, e.Received-received)
		dst = binary.AppendUvarint(dst, uint64(e.Expires))
		offset, received = e.Offset, e.Received
		b := e.QoS & 3
		if e.Retain {
			b |= 4
		}
		dst = append(dst, b)
		for _, part := range [...][]byte{e.Sender, e.Topic, e.Props, e.Payload} {
			dst = binary.AppendUvarint(dst, uint64(len(part)))
			dst = append(dst, part...)
		}
	}
	if pack != nil {
		dst[flags] |= packed
		body := append([]byte(nil), dst[start:]...)
		dst = pack.EncodeAll(body, dst[:start])
	}
	return dst
}

// Parse takes a frame apart. limit bounds the size it may unpack to, in bytes.
// Errors wrap ErrFrame.
func Parse(b []byte, limit int) (epoch uint64, entries []Entry, err error) {
	if len(b) < len(magic)+1 || string(b[:len(magic)]) != magic {
		return 0, nil, ErrFrame
	}
	flags, b := b[len(magic)], b[len(magic)+1:]
	if flags&^packed != 0 {
		return 0, nil, fmt.Errorf("%w: unknown flags 0x%02x", ErrFrame, flags)
	}
	if flags&packed != 0 {
		if b, err = unpack(b, limit); err != nil {
			return 0, nil, err
		}
	}
	if len(b) < 8 {
		return 0, nil, fmt.Errorf("%w: too short", ErrFrame)
	}
	epoch = binary.LittleEndian.Uint64(b)
	r := reader{b: b[8:]}
	n := r.uvarint()
	// The shortest entry has eight bytes, so a count cannot make us allocate
	// more than a small multiple of what came in.
	if r.bad || n > maxEntries || n > uint64(len(r.b)/8) {
		return 0, nil, fmt.Errorf("%w: count of %d", ErrFrame, n)
	}
	entries = make([]Entry, n)
	var before Entry
	for i := range entries {
		e := &entries[i]
		e.Offset = before.Offset + uint64(r.varint())
		e.Received = before.Received + r.varint()
		e.Expires = int64(r.uvarint())
		f := r.byte()
		if f&^7 != 0 || f&3 == 3 {
			r.bad = true
		}
		e.QoS, e.Retain = f&3, f&4 != 0
		e.Sender, e.Topic, e.Props, e.Payload = r.bytes(), r.bytes(), r.bytes(), r.bytes()
		if r.bad {
			return 0, nil, fmt.Errorf("%w: entry %d", ErrFrame, i)
		}
		before = *e
	}
	if len(r.b) > 0 {
		return 0, nil, fmt.Errorf("%w: %d bytes too many", ErrFrame, len(r.b))
	}
	return epoch, entries, nil
}

// unpack undoes the compression, up to limit bytes.
func unpack(b []byte, limit int) ([]byte, error) {
	d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(max(limit, 1))))
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}
	defer d.Close()
	out, err := d.DecodeAll(b, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return out, nil
}

type reader struct {
	b   []byte
	bad bool
}

func (r *reader) uvarint() uint64 {
	v, n := binary.Uvarint(r.b)
	return uint64(r.took(int64(v), n))
}

func (r *reader) varint() int64 {
	v, n := binary.Varint(r.b)
	return r.took(v, n)
}

func (r *reader) took(v int64, n int) int64 {
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) byte() byte {
	if len(r.b) == 0 {
		r.bad = true
		return 0
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n > uint64(len(r.b)) {
		r.bad, r.b = true, nil
		return nil
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v
}
