package sparkplug

import (
	"errors"
	"fmt"
	"time"

	"holdfast/hub"
)

// turn does what can be done now; more says that something is left. After an
// error the link is over.
func (l *link) turn() (more bool, err error) {
	if err := l.why(); err != nil {
		return false, err
	}
	now := l.o.Clock.Elapsed()
	l.mu.Lock()
	letters := l.inbox
	l.inbox, l.inboxLen = nil, 0
	l.mu.Unlock()
	for i := range letters {
		if err := l.read(&letters[i], now); err != nil {
			return false, err
		}
	}
	if l.rebirth {
		if now < l.rebornAt+rebirthPause {
			l.settle(now) // data wait until the births are out (tck-id-operational-behavior-data-commands-rebirth-action-1)
			return false, nil
		}
		l.rebirth, l.rebornAt = false, now
		if err := l.s.birth(); err != nil {
			return false, l.because(err)
		}
	}
	more, err = l.publish(now)
	if err == nil {
		err = l.keep(now)
	}
	if err != nil {
		return false, l.because(err)
	}
	l.probe()
	l.settle(now)
	return more, nil
}

// because prefers the reason for which sending was stopped.
func (l *link) because(err error) error {
	if why := l.why(); why != nil {
		return why
	}
	return err
}

// due returns when turn has something to do by itself.
func (l *link) due() time.Duration {
	now := l.o.Clock.Elapsed()
	next := now + time.Minute
	if l.rebirth {
		next = min(next, l.rebornAt+rebirthPause)
	}
	if l.behind {
		next = min(next, l.historyAt+quiet)
	}
	if l.silentAt > 0 {
		next = min(next, l.silentAt)
	}
	if len(l.sent) > 0 && l.first < l.probed {
		next = min(next, l.sent[0].at+l.o.HostGrace)
	}
	return max(0, next-now)
}

// publish sends what Send has taken, a burst of it.
func (l *link) publish(now time.Duration) (more bool, err error) {
	l.mu.Lock()
	n := min(len(l.queue), burst)
	items := l.queue[:n:n]
	if l.queue = l.queue[n:]; len(l.queue) == 0 {
		l.queue = nil
	}
	more = len(l.queue) > 0
	l.mu.Unlock()
	for i := range items {
		it := &items[i]
		it.at = now
		err := l.record(it.m, now)
		if errors.Is(err, hub.ErrRejected) {
			it.settled(err)
			continue
		}
		l.sent = append(l.sent, *it)
		if err != nil {
			l.sent = append(l.sent, items[i+1:]...)
			return false, err
		}
	}
	return more, nil
}

// record sends one record.
func (l *link) record(m *hub.Outgoing, now time.Duration) error {
	l.batch.Device, l.batch.Readings = "", l.batch.Readings[:0]
	if err := l.o.Decode(&m.Record, &l.batch); err != nil {
		return fmt.Errorf("%w: %w", hub.ErrRejected, err)
	}
	buffered := m.Attempt > 1 || m.Record.Received < l.birthday(now)
	if buffered {
		l.u.stats.historical.Add(1)
		l.behind, l.historyAt = true, now
	}
	return l.s.record(&l.batch, &m.Record, buffered, now)
}

// birthday returns when the session began, in microseconds since 1970 as the
// wall clock has it now: a clock that was set since then moves it.
func (l *link) birthday(now time.Duration) int64 {
	return l.o.Clock.Now().Add(l.bornAt - now).UnixMicro()
}

// keep does what time asks for.
func (l *link) keep(now time.Duration) error {
	if l.behind && now >= l.historyAt+quiet {
		l.behind = false
		if err := l.s.refresh(); err != nil {
			return err
		}
	}
	if l.silentAt > 0 && now >= l.silentAt {
		next, err := l.s.silent(now, l.o.DeviceTimeout)
		if err != nil {
			return err
		}
		if l.silentAt = next; next == 0 {
			l.silentAt = now + l.o.DeviceTimeout
		}
	}
	return nil
}

// probe asks the server whether it has read what was sent, one question at a
// time. Whatever it answers, it has read everything before the question.
func (l *link) probe() {
	l.mu.Lock()
	if l.answered {
		l.answered, l.probing, l.probed = false, false, l.passed
	}
	l.mu.Unlock()
	end := l.first + uint64(len(l.sent))
	if l.probing || l.probed == end {
		return
	}
	l.probing = true
	l.goroutines.Go(func() {
		_, err := l.conn.Unsubscribe(l.ctx, string(l.o.appendTopic(nil, ncmd, "alive")))
		if err != nil && (l.ctx.Err() != nil || l.conn.Err() != nil) {
			return // the link is at its end
		}
		l.mu.Lock()
		l.passed, l.answered = end, true
		l.mu.Unlock()
		l.wakeUp()
	})
}

// settle confirms what the server has read, when the primary host has stayed
// online for long enough behind it.
func (l *link) settle(now time.Duration) {
	n := 0
	for n < len(l.sent) && l.first+uint64(n) < l.probed && now >= l.sent[n].at+l.o.HostGrace {
		n++
	}
	if n == 0 || l.isOffline() {
		return
	}
	for i := range n {
		l.sent[i].settled(nil)
		l.sent[i] = item{}
	}
	l.first += uint64(n)
	if l.sent = l.sent[n:]; len(l.sent) == 0 {
		l.sent = nil
	}
}
