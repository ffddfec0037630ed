package broker

import (
	"sync"
	"sync/atomic"
)

// Sizes of pooled buffers. A connection starts with the smallest and moves up
// while its reads fill them; larger ones are made for single large packets and
// left to the collector.
var bufferSizes = [...]int{4 << 10, 16 << 10, 64 << 10}

// A buffer is a piece of memory that a reader and the batches cut from it share.
type buffer struct {
	b     []byte
	class int // index in bufferSizes, or -1
	refs  atomic.Int32
}

// buffers hands out memory. It is shared by all connections of a server.
type buffers struct {
	pools [len(bufferSizes)]sync.Pool
}

// get returns a buffer of length and capacity n or more with one reference.
func (p *buffers) get(n int) *buffer {
	for class, size := range bufferSizes {
		if n > size {
			continue
		}
		b, _ := p.pools[class].Get().(*buffer)
		if b == nil {
			b = &buffer{b: make([]byte, size), class: class}
		}
		b.b = b.b[:size]
		b.refs.Store(1)
		return b
	}
	b := &buffer{b: make([]byte, n), class: -1}
	b.refs.Store(1)
	return b
}

// release gives up one reference; the last one returns the memory.
func (p *buffers) release(b *buffer) {
	if b.refs.Add(-1) == 0 && b.class >= 0 && cap(b.b) == bufferSizes[b.class] {
		p.pools[b.class].Put(b)
	}
}

// reserve makes room for n more bytes behind b.b, in b or in a buffer that
// takes b's place.
func (p *buffers) reserve(b *buffer, n int) *buffer {
	if cap(b.b)-len(b.b) >= n {
		return b
	}
	bigger := p.get(max(len(b.b)+n, min(2*cap(b.b), bufferSizes[len(bufferSizes)-1])))
	bigger.b = append(bigger.b[:0], b.b...)
	p.release(b)
	return bigger
}

// empty returns a buffer of length 0 and capacity n or more.
func (p *buffers) empty(n int) *buffer {
	b := p.get(n)
	b.b = b.b[:0]
	return b
}
