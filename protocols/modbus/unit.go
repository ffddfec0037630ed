package modbus

import (
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast/protocols/point"
)

// share is the part of a link's time that units which do not answer may cost
// the others, all of them together.
const share = 0.05

// patience is how a device's settings bound the waiting for it.
type patience struct {
	timeout     time.Duration // longest wait for an answer, its travel on the line not counted
	worst       time.Duration // latest that an answer can still come
	demoteAfter int           // time-outs after which the unit is held back
	probeMax    time.Duration // longest pause between tries of a unit that is held back
}

// limit is the time that a unit may keep the link waiting in vain.
func (p *patience) limit() time.Duration { return time.Duration(p.demoteAfter) * p.timeout }

// A unit is one unit id on a link. The link's mutex guards it.
//
// It is a circuit breaker with two fuses. A unit that has kept the link waiting
// for demote_after time-outs since its last answer is dead: it is tried again
// with a single request after a pause that doubles up to probe_max. And what
// a unit wastes is counted in a leaking bucket, so that, when other units use the
// link, neither a dead unit's probes nor one that answers now and then take more
// than their share of its time.
type unit struct {
	id       byte
	sessions int

	silent  time.Duration // waited in vain since the last answer
	waste   time.Duration // in the bucket
	leaked  time.Duration // when the bucket last leaked
	held    bool          // not asked before probeAt and before the bucket has room
	dead    bool          // held because it never answered
	probeAt time.Duration
	backoff time.Duration
	probes  int           // since it was held back
	slowest time.Duration // answer lately, slowly forgotten
	quality point.Quality // of the last failure
	reason  string

	answered bool      // since the session was opened or since the last failure
	since    time.Time // of the present state

	requests, errors uint64

	cuts    [4]cuts // learned borders of each table
	version int     // of cuts
	learned time.Duration
}

// refuse returns why the unit must not be asked now, or nil.
func (l *link) refuse(u *unit, p *patience) *failure {
	if !u.held {
		return nil
	}
	now := l.clk.Elapsed()
	l.leak(u, now)
	wait := u.probeAt - now
	if keep := p.limit() - p.timeout; l.shared() && u.waste > keep {
		wait = max(wait, time.Duration(float64(u.waste-keep)/l.leakRate()))
	}
	if wait <= 0 {
		return nil
	}
	return failed(u.quality, "%s; held back, next try in %v", u.reason, wait.Round(10*time.Millisecond)+10*time.Millisecond)
}

// budget is how long to wait for the unit's next answer. Three of four probes of
// a unit that is held back are short, as long as its answers never were slow: it
// is tried more often for the same cost. The fourth has all the time, for a unit
// that has become slower.
func (u *unit) budget(p *patience) time.Duration {
	if !u.held || u.probes%4 == 3 {
		return p.timeout
	}
	return min(p.timeout, max(p.timeout/4, 4*u.slowest))
}

// shared reports whether more than one unit uses the link.
func (l *link) shared() bool {
	n := 0
	for _, u := range l.units {
		if u.sessions > 0 {
			n++
		}
	}
	return n > 1
}

func (l *link) leakRate() float64 {
	n := 0
	for _, u := range l.units {
		if u.held && u.sessions > 0 {
			n++
		}
	}
	return share / float64(max(n, 1))
}

func (l *link) leak(u *unit, now time.Duration) {
	u.waste = max(0, u.waste-time.Duration(float64(now-u.leaked)*l.leakRate()))
	u.leaked = now
}

// heard notes an answer, an exception included, that took so long to come.
func (l *link) heard(u *unit, took time.Duration) {
	u.silent, u.backoff, u.probes = 0, 0, 0
	u.held = false
	u.slowest = max(took, u.slowest-u.slowest/256)
	if u.dead || !u.answered {
		if u.dead {
			l.log.Info("field device answers again", "link", l.name, "unit", u.id, "after", l.clk.Now().Sub(u.since))
		}
		u.dead, u.answered = false, true
		u.since, u.reason = l.clk.Now(), ""
	}
}

// missed notes that the unit has kept the link waiting for nothing.
func (l *link) missed(u *unit, p *patience, q point.Quality, reason string, wasted, silent time.Duration) {
	now := l.clk.Elapsed()
	l.leak(u, now)
	u.errors++
	u.waste += wasted
	u.silent += silent
	u.quality = q
	if u.answered || u.reason == "" {
		u.answered, u.since = false, l.clk.Now()
	}
	u.reason = reason
	if u.held {
		u.probes++
	}
	switch {
	case u.silent*10 >= p.limit()*9: // time-outs are not exact to the millisecond
		if !u.dead {
			l.log.Warn("field device does not answer", "link", l.name, "unit", u.id, "reason", reason)
		}
		u.dead, u.held = true, true
		u.backoff = min(max(2*u.backoff, p.timeout), p.probeMax)
		u.probeAt = now + jitter(u.backoff)
	case u.waste >= 2*p.limit() && l.shared():
		u.held, u.probeAt = true, now
	}
}

// jitter returns d, up to a fifth more or less, so that many units that were
// lost together are not all tried together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + 0.4*rand.Float64()))
}

// text names the unit for people.
func (u *unit) text() string { return fmt.Sprintf("unit %d", u.id) }
