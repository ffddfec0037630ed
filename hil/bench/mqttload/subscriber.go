package mqttload

import "encoding/binary"

type subscriber struct {
	sh                      *shared
	c                       *conn
	h                       hist
	last                    []uint64
	seen                    []bitset
	unique, dups, reordered int64
	done                    chan struct{}
}

func (s *subscriber) loop() {
	defer close(s.done)
	var ack [4]byte
	ack[0], ack[1] = 0x40, 2
	for {
		if s.c.r.Buffered() == 0 && s.c.w.Buffered() > 0 {
			if err := s.c.w.Flush(); err != nil && !s.c.closed.Load() {
				s.sh.fail("subscriber write", err)
				return
			}
		}
		typ, flags, body, err := s.c.read()
		if err != nil {
			if !s.c.closed.Load() {
				s.sh.fail("subscriber read", err)
			}
			return
		}
		if typ != 3 {
			continue
		}
		id, payload, err := parsePublish(s.c.version, flags, body)
		if err != nil {
			s.sh.fail("subscriber", err)
			return
		}
		if id != 0 {
			binary.BigEndian.PutUint16(ack[2:], id)
			if _, err := s.c.w.Write(ack[:]); err != nil && !s.c.closed.Load() {
				s.sh.fail("subscriber write", err)
				return
			}
		}
		s.sh.recv.Add(1)
		if len(payload) < headerLen {
			s.unique++
			continue
		}
		at := int64(binary.BigEndian.Uint64(payload))
		n := int(binary.BigEndian.Uint32(payload[8:]))
		seq := binary.BigEndian.Uint64(payload[12:])
		if n < len(s.seen) {
			if s.seen[n].set(seq) {
				s.dups++
			} else {
				s.unique++
			}
			if seq+1 < s.last[n] {
				s.reordered++
			}
			s.last[n] = max(s.last[n], seq+1)
		}
		if s.sh.phase.Load() == phaseMeasure {
			s.h.add(s.sh.now() - at)
		}
	}
}

type bitset []uint64

func (b *bitset) set(i uint64) (was bool) {
	for uint64(len(*b)) <= i/64 {
		*b = append(*b, 0)
	}
	m := uint64(1) << (i % 64)
	was = (*b)[i/64]&m != 0
	(*b)[i/64] |= m
	return was
}
