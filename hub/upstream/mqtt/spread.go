package mqtt

import (
	"errors"
	"fmt"

	"holdfast/hub"
	"holdfast/hub/client"
)

// A spread is one record that became several messages. It is settled once, when
// every message that was handed over has been answered:
//
//   - with nil when all were confirmed;
//   - with the first answer that may pass, when there was one. What was not
//     handed over by then is not sent, and the whole record comes again: what
//     arrives twice is known by epoch, offset and index;
//   - else with ErrRejected, when a message was refused for good. All others of
//     the record have been sent.
type spread struct {
	part
	l     *link
	props []byte // that its messages have in common
	done  func(code byte, err error)

	// Guarded by l.mu.
	n, next  int  // messages, and the next to be handed over
	ready    bool // l.made is that one
	waiting  int  // handed over and not answered
	rejected int
	final    error // of the first that was refused for good
	passing  error // of the first that failed otherwise
}

// open makes a spread of a record that holds readings. It reports false when
// that is to travel as stored.
func (l *link) open(p publish) bool {
	if l.readings == nil {
		return false
	}
	n, ok := l.readings.Open(&p[0].m.Record)
	if !ok {
		return false
	}
	s := &spread{part: p[0], l: l, n: n, props: l.u.o.readingProps(&p[0].m.Record)}
	s.done = s.answered
	l.spread = s
	return true
}

// pumpSpread hands messages over while there is room. It reports whether all
// were. The caller holds mu.
func (l *link) pumpSpread() bool {
	s := l.spread
	for s.next < s.n {
		if !s.ready {
			l.made, s.ready = l.readingMessage(s), true
		}
		err := l.conn.TryPublish(&l.made, s.done)
		switch {
		case errors.Is(err, client.ErrInvalid):
			s.reject(fmt.Errorf("to %q: %w", l.made.Topic, err))
		case err != nil:
			return false // as in pumpLocked
		default:
			s.waiting++
		}
		s.next++
		s.ready = false
	}
	l.spread = nil
	if s.waiting == 0 { // none went out
		l.later(s.part, s.outcome())
	}
	return true
}

// answered takes the broker's answer to one message.
func (s *spread) answered(code byte, err error) {
	l := s.l
	l.advanced.Add(1)
	l.mu.Lock()
	s.waiting--
	switch {
	case err == nil:
	case rejects(code, err):
		s.reject(err)
	default:
		if s.passing == nil {
			s.passing = err
		}
		if l.spread == s {
			l.spread = nil
		}
	}
	over := s.waiting == 0 && l.spread != s
	err = s.outcome()
	l.mu.Unlock()
	if over {
		s.settled(err)
	}
	l.pump()
}

func (s *spread) reject(err error) {
	s.rejected++
	if s.final == nil {
		s.final = err
	}
}

// outcome is what the record is settled with once nothing of it waits.
func (s *spread) outcome() error {
	switch {
	case s.passing != nil:
		return s.passing
	case s.rejected > 0:
		return fmt.Errorf("%w: %d of %d messages, the first: %w", hub.ErrRejected, s.rejected, s.n, s.final)
	}
	return nil
}
