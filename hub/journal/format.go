package journal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// The layout of a segment file; FORMAT.md has the tables. Integers are
// little-endian.
const (
	pageSize  = 4096
	headerPos = 0        // page 0: the header, written once before the file gets its name
	sealPos   = pageSize // page 1: the seal, written once when the segment is full
	dataPos   = 2 * pageSize

	headerLen = 64
	sealLen   = 232
	frameLen  = 48 // header of a frame

	frameBody  = 32 << 10 // a frame is closed when its body has grown to this
	indexEvery = 64 << 10 // bytes of frames between two entries of the index
	indexLen   = 16       // bytes of one entry

	headerMagic = "HFJSEG1\n"
	sealMagic   = "HFJSEAL1"
	frameMagic  = 0x4a48 // "HJ"
)

// Types of frames.
const (
	frameData  = 1 // entries and gaps
	frameState = 2 // cursors and lost ranges
	frameIndex = 3 // sparse index, written when the segment is sealed
)

// Flags of frames.
const (
	flagPadded = 1 << 0 // the next frame starts on the next page
	flagReset  = 1 << 1 // state: first frame of a whole snapshot
	flagWhole  = 1 << 2 // state: last frame of a whole snapshot
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errInvalid is what decoding foreign bytes ends with. It says nothing about
// whether they were torn, damaged or never written; the scan decides that.
var errInvalid = errors.New("invalid bytes")

// A segHeader identifies a segment file.
type segHeader struct {
	id      uint64 // position in the order of segments; also the file's name
	epoch   uint64 // epoch of the journal when the segment began
	salt    uint64 // random; seeds every checksum in the file
	base    Offset // offset of the first record
	created int64  // microseconds since 1970
	size    int64  // bytes reserved for the file
}

func (h segHeader) append(b []byte) []byte {
	at := len(b)
	b = append(b, headerMagic...)
	b = binary.LittleEndian.AppendUint64(b, h.id)
	b = binary.LittleEndian.AppendUint64(b, h.epoch)
	b = binary.LittleEndian.AppendUint64(b, h.salt)
	b = binary.LittleEndian.AppendUint64(b, uint64(h.base))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.created))
	b = binary.LittleEndian.AppendUint64(b, uint64(h.size))
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b[at:], castagnoli))
}

func parseHeader(b []byte) (segHeader, error) {
	if len(b) < headerLen || string(b[:8]) != headerMagic ||
		binary.LittleEndian.Uint32(b[60:]) != crc32.Checksum(b[:60], castagnoli) {
		return segHeader{}, fmt.Errorf("segment header: %w", errInvalid)
	}
	h := segHeader{
		id:      binary.LittleEndian.Uint64(b[8:]),
		epoch:   binary.LittleEndian.Uint64(b[16:]),
		salt:    binary.LittleEndian.Uint64(b[24:]),
		base:    Offset(binary.LittleEndian.Uint64(b[32:])),
		created: int64(binary.LittleEndian.Uint64(b[40:])),
		size:    int64(binary.LittleEndian.Uint64(b[48:])),
	}
	if h.base == 0 || h.size < dataPos || h.size > maxSegmentBytes {
		return segHeader{}, fmt.Errorf("segment header: %w", errInvalid)
	}
	return h, nil
}

// stats sum up the records of a segment.
type stats struct {
	count      [MaxClass + 1]uint64
	bytes      [MaxClass + 1]uint64
	firstTime  int64 // least, microseconds; meaningless without records
	lastTime   int64 // greatest
	gapClasses Classes
}

func (s *stats) add(class uint8, time int64, n int) {
	if s.records() == 0 {
		s.firstTime, s.lastTime = time, time
	}
	s.firstTime, s.lastTime = min(s.firstTime, time), max(s.lastTime, time)
	s.count[class]++
	s.bytes[class] += uint64(n)
}

func (s *stats) records() (n uint64) {
	for _, c := range s.count {
		n += c
	}
	return n
}

// classes returns the classes that have records.
func (s *stats) classes() (set Classes) {
	for c, n := range s.count {
		if n > 0 {
			set |= 1 << c
		}
	}
	return set
}

// A seal sums up a finished segment, so that opening need not read it.
type seal struct {
	after    Offset // offset after the last record
	stop     int64  // position after the last frame before the index
	indexPos int64  // position of the index frame
	stats
}

func (s seal) append(b []byte, salt uint64) []byte {
	at := len(b)
	b = append(b, sealMagic...)
	b = binary.LittleEndian.AppendUint64(b, uint64(s.after))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.stop))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.indexPos))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.firstTime))
	b = binary.LittleEndian.AppendUint64(b, uint64(s.lastTime))
	for c := range s.count {
		b = binary.LittleEndian.AppendUint64(b, s.count[c])
		b = binary.LittleEndian.AppendUint64(b, s.bytes[c])
	}
	b = binary.LittleEndian.AppendUint32(b, uint32(s.gapClasses))
	b = append(b, make([]byte, sealLen-4-(len(b)-at))...)
	return binary.LittleEndian.AppendUint32(b, crc32.Update(seed(salt, sealPos), castagnoli, b[at:]))
}

func parseSeal(b []byte, salt uint64) (seal, error) {
	if len(b) < sealLen || string(b[:8]) != sealMagic ||
		binary.LittleEndian.Uint32(b[sealLen-4:]) != crc32.Update(seed(salt, sealPos), castagnoli, b[:sealLen-4]) {
		return seal{}, fmt.Errorf("seal: %w", errInvalid)
	}
	s := seal{
		after:    Offset(binary.LittleEndian.Uint64(b[8:])),
		stop:     int64(binary.LittleEndian.Uint64(b[16:])),
		indexPos: int64(binary.LittleEndian.Uint64(b[24:])),
	}
	s.firstTime = int64(binary.LittleEndian.Uint64(b[32:]))
	s.lastTime = int64(binary.LittleEndian.Uint64(b[40:]))
	for c := range s.count {
		s.count[c] = binary.LittleEndian.Uint64(b[48+16*c:])
		s.bytes[c] = binary.LittleEndian.Uint64(b[56+16*c:])
	}
	s.gapClasses = Classes(binary.LittleEndian.Uint32(b[208:]))
	if s.stop < dataPos || s.stop > s.indexPos || s.indexPos > maxSegmentBytes {
		return seal{}, fmt.Errorf("seal: %w", errInvalid)
	}
	return s, nil
}

// seed is the start of every checksum below the header. It binds bytes to
// their file and place: what a recycled file still holds from its former life,
// or what was written to the wrong sector, does not validate.
func seed(salt uint64, pos int64) uint32 {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	binary.LittleEndian.PutUint64(b[8:], uint64(pos))
	return crc32.Checksum(b[:], castagnoli)
}

// A frame is the header of a run of items.
type frame struct {
	kind, flags uint8
	bodyLen     int
	bodyCRC     uint32
	first       Offset  // of the first record; for state, the next to be given
	count       int     // offsets covered
	durable     int64   // the file was synced up to this position when the frame was written
	time        int64   // base of the items' times
	classes     Classes // classes of entries and gaps inside

	pos int64 // where it was found; not stored
}

// next returns the position of the frame after this one.
func (f frame) next() int64 {
	end := f.pos + frameLen + int64(f.bodyLen)
	if f.flags&flagPadded != 0 {
		return alignUp(end, pageSize)
	}
	return alignUp(end, 8)
}

func alignUp(n, to int64) int64 { return (n + to - 1) &^ (to - 1) }

// put writes the header into b and seals header and body with checksums.
func (f frame) put(b []byte, salt uint64, body []byte) {
	sd := seed(salt, f.pos)
	binary.LittleEndian.PutUint16(b[0:], frameMagic)
	b[2], b[3] = f.kind, f.flags
	binary.LittleEndian.PutUint32(b[8:], uint32(len(body)))
	binary.LittleEndian.PutUint32(b[12:], crc32.Update(sd, castagnoli, body))
	binary.LittleEndian.PutUint64(b[16:], uint64(f.first))
	binary.LittleEndian.PutUint32(b[24:], uint32(f.count))
	binary.LittleEndian.PutUint32(b[28:], uint32(f.durable))
	binary.LittleEndian.PutUint64(b[32:], uint64(f.time))
	binary.LittleEndian.PutUint16(b[40:], uint16(f.classes))
	clear(b[42:frameLen])
	binary.LittleEndian.PutUint32(b[4:], headerCRC(b, sd))
}

func headerCRC(b []byte, sd uint32) uint32 {
	return crc32.Update(crc32.Update(sd, castagnoli, b[:4]), castagnoli, b[8:frameLen])
}

// decodeFrame takes a header as it is, for bytes that this process encoded.
func decodeFrame(b []byte, pos int64) frame {
	return frame{
		kind: b[2], flags: b[3],
		bodyLen: int(binary.LittleEndian.Uint32(b[8:])),
		bodyCRC: binary.LittleEndian.Uint32(b[12:]),
		first:   Offset(binary.LittleEndian.Uint64(b[16:])),
		count:   int(binary.LittleEndian.Uint32(b[24:])),
		durable: int64(binary.LittleEndian.Uint32(b[28:])),
		time:    int64(binary.LittleEndian.Uint64(b[32:])),
		classes: Classes(binary.LittleEndian.Uint16(b[40:])),
		pos:     pos,
	}
}

// parseFrame decodes the header of a frame at pos in a file of that size. The
// body is not looked at; see bodyValid.
func parseFrame(b []byte, salt uint64, pos, size int64) (frame, error) {
	if len(b) < frameLen || binary.LittleEndian.Uint16(b) != frameMagic ||
		binary.LittleEndian.Uint32(b[4:]) != headerCRC(b, seed(salt, pos)) {
		return frame{}, errInvalid
	}
	f := decodeFrame(b, pos)
	if f.bodyLen < 0 || f.count < 0 || int64(f.bodyLen) > size-pos-frameLen || f.kind < frameData || f.kind > frameIndex {
		return frame{}, errInvalid
	}
	return f, nil
}

// bodyValid checks the body's checksum.
func (f frame) bodyValid(body []byte, salt uint64) bool {
	return crc32.Update(seed(salt, f.pos), castagnoli, body) == f.bodyCRC
}

// An item is one entry or gap in a data frame.
type item struct {
	class   uint8
	time    int64
	body    []byte
	gap     uint64  // > 0: this many offsets are missing
	reason  Reason  // of the gap
	classes Classes // of the gap
	size    int     // encoded bytes
}

const gapBit = 0x10 // in an item's first byte: the rest is a Reason

func appendEntry(b []byte, class uint8, dt int64, body []byte) []byte {
	b = append(b, class)
	b = binary.AppendVarint(b, dt)
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}

func appendGap(b []byte, n uint64, r Reason, classes Classes) []byte {
	b = append(b, gapBit|byte(r))
	b = binary.AppendUvarint(b, n)
	return binary.LittleEndian.AppendUint16(b, uint16(classes))
}

// entryBound is the most bytes that appendEntry adds for a body of n bytes.
func entryBound(n int) int { return n + 1 + binary.MaxVarintLen64 + 5 }

// cutItem takes the first item off the body of a data frame. base is the
// frame's time.
func cutItem(b []byte, base int64) (it item, rest []byte, err error) {
	if len(b) == 0 {
		return it, nil, errInvalid
	}
	kind, p := b[0], 1
	if kind&gapBit != 0 {
		n, w := binary.Uvarint(b[p:])
		if w <= 0 || n == 0 || len(b) < p+w+2 {
			return it, nil, errInvalid
		}
		p += w
		it = item{gap: n, reason: Reason(kind &^ gapBit), classes: Classes(binary.LittleEndian.Uint16(b[p:])), size: p + 2}
		return it, b[p+2:], nil
	}
	if kind > MaxClass {
		return it, nil, errInvalid
	}
	dt, w := binary.Varint(b[p:])
	if w <= 0 {
		return it, nil, errInvalid
	}
	p += w
	n, w := binary.Uvarint(b[p:])
	if w <= 0 || n > uint64(len(b)-p-w) {
		return it, nil, errInvalid
	}
	p += w
	end := p + int(n)
	return item{class: kind, time: base + dt, body: b[p:end:end], size: end}, b[end:], nil
}

// An indexEntry says at which position the frame with an offset starts.
type indexEntry struct {
	first Offset
	pos   int64
}

func appendIndex(b []byte, index []indexEntry) []byte {
	for _, e := range index {
		b = binary.LittleEndian.AppendUint64(b, uint64(e.first))
		b = binary.LittleEndian.AppendUint64(b, uint64(e.pos))
	}
	return b
}

// findIndex returns the last position in an encoded index at or before off.
func findIndex(b []byte, off Offset) (pos int64) {
	lo, hi := 0, len(b)/indexLen
	for lo < hi {
		mid := (lo + hi) / 2
		if Offset(binary.LittleEndian.Uint64(b[mid*indexLen:])) <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return dataPos
	}
	return int64(binary.LittleEndian.Uint64(b[(lo-1)*indexLen+8:]))
}
