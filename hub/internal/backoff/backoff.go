// Package backoff spaces out attempts that keep failing.
package backoff

import (
	"math/rand/v2"
	"time"
)

// A Backoff is a growing pause. The zero value grows from Min 1 s to Max 60 s.
// It is used by one goroutine.
type Backoff struct {
	Min, Max time.Duration  // 0 means 1 s and 60 s
	Rand     func() float64 // in [0,1); nil means math/rand

	next time.Duration
}

// Next returns how long to wait now: a random time between the half and the
// whole of a span that starts at Min and doubles with each call up to Max. The
// spread keeps a fleet that lost its server from coming back all at once.
func (b *Backoff) Next() time.Duration {
	least, most, random := b.Min, b.Max, b.Rand
	if least <= 0 {
		least = time.Second
	}
	if most <= 0 {
		most = 60 * time.Second
	}
	if random == nil {
		random = rand.Float64
	}
	span := min(max(b.next, least), most)
	b.next = 2 * span
	return span/2 + time.Duration(random()*float64(span/2))
}

// Reset starts again at Min.
func (b *Backoff) Reset() { b.next = 0 }
