package broker

import "time"

// A bucket is a token bucket: rate tokens per second, at most burst of them.
type bucket struct {
	rate   float64 // 0 = no limit
	burst  float64
	tokens float64
	at     time.Duration // elapsed time at which tokens was right
}

func newBucket(rate, burst float64, now time.Duration) bucket {
	return bucket{rate: rate, burst: burst, tokens: burst, at: now}
}

// fill brings tokens up to date.
func (b *bucket) fill(now time.Duration) {
	b.tokens = min(b.burst, b.tokens+b.rate*(now-b.at).Seconds())
	b.at = now
}

// take takes a token and reports whether there was one.
func (b *bucket) take(now time.Duration) bool {
	if b.rate == 0 {
		return true
	}
	if b.fill(now); b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// owed is how long it takes until no token is owed.
func (b *bucket) owed(now time.Duration) time.Duration {
	if b.rate == 0 {
		return 0
	}
	if b.fill(now); b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

// rateLimits hold a client to its rates: what it has sent is taken from the
// buckets, which may go below zero, and its socket is not read until they have
// come up again.
type rateLimits struct {
	messages, bytes bucket
}

func newRateLimits(o *Options) rateLimits {
	now := o.Clock.Elapsed()
	return rateLimits{
		messages: newBucket(o.MessageRate, max(1, o.MessageRate), now),
		bytes:    newBucket(o.ByteRate, max(1, o.ByteRate), now),
	}
}

func (l *rateLimits) spend(messages, bytes float64) {
	l.messages.tokens -= messages
	l.bytes.tokens -= bytes
}

// wait waits until nothing is owed. It returns false when the connection is to
// end.
func (l *rateLimits) wait(c *conn) bool {
	if l.messages.rate == 0 && l.bytes.rate == 0 {
		return true
	}
	now := c.s.o.Clock.Elapsed()
	d := max(l.messages.owed(now), l.bytes.owed(now))
	if d == 0 {
		return true
	}
	c.s.counters.Throttled.Add(1)
	t := c.s.o.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-c.stop:
		return false
	}
}
