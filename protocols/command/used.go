package command

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast/drivers/clock"
)

// A Used is a command id that must not be used again while a copy of the
// command could still be taken for valid.
type Used struct {
	ID      string // "" marks Expires as the horizon: nothing that expires by then is valid
	Expires time.Time
}

// A Store keeps used ids over a restart. Its methods are not called
// concurrently.
type Store interface {
	// Load returns what was added since the last Replace, and that.
	Load() ([]Used, error)
	// Add keeps one more. When it returns nil, a power cut does not lose it.
	Add(Used) error
	// Replace keeps these and nothing else, all or nothing.
	Replace([]Used) error
}

// memory is the ids in use. It is bounded: when it is full of ids that are not
// expired yet, new commands are refused, and no id is forgotten early.
//
// An id is forgotten when its expiry has passed by both clocks: the wall and,
// counted from when it was used, elapsed time, so that a wall that jumps ahead
// does not open the door for a replay after it has jumped back. And whatever
// expires before one that has been forgotten is refused (the horizon), so that a
// wall that is set back later does not either.
type memory struct {
	clock    clock.Clock
	store    Store
	limit    int
	lifetime time.Duration

	mu      sync.Mutex
	ids     map[string]*useOf
	horizon time.Time
	appends int // records in the store since the last Replace
	swept   time.Duration
}

type useOf struct {
	expires time.Time
	until   time.Duration // elapsed time
	trusted bool          // used while the wall clock could be believed
	outcome Status        // "" while it is carried out, or after a restart
}

var errFull = errors.New("too many commands that have not expired yet")

func newMemory(c clock.Clock, s Store, limit int, lifetime time.Duration) (*memory, error) {
	m := &memory{clock: c, store: s, limit: limit, lifetime: lifetime, ids: map[string]*useOf{}}
	if s == nil {
		return m, nil
	}
	loaded, err := s.Load()
	if err != nil {
		return nil, fmt.Errorf("load used command ids: %w", err)
	}
	until := c.Elapsed() + lifetime // when they were used is not known any more
	for _, u := range loaded {
		if u.ID == "" {
			m.horizon = later(m.horizon, u.Expires)
			continue
		}
		m.ids[u.ID] = &useOf{expires: u.Expires, until: until, trusted: true}
	}
	m.appends = len(loaded)
	return m, nil
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

// seen reports whether an id has been used, and with what outcome.
func (m *memory) seen(id string) (outcome Status, used bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.ids[id]; u != nil {
		return u.outcome, true
	}
	return "", false
}

// passed reports whether a command of that expiry may be one whose id has been
// forgotten.
func (m *memory) passed(expires time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !expires.After(m.horizon)
}

// use takes an id, durably. It reports false if somebody has taken it meanwhile.
func (m *memory) use(id string, expires time.Time, trusted bool) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ids[id] != nil {
		return false, nil
	}
	m.sweep()
	if len(m.ids) >= m.limit {
		return false, errFull
	}
	left := min(expires.Sub(m.clock.Now()), m.lifetime)
	m.ids[id] = &useOf{expires: expires, until: m.clock.Elapsed() + left, trusted: trusted}
	if err := m.keep(Used{ID: id, Expires: expires}); err != nil {
		delete(m.ids, id)
		return false, fmt.Errorf("remember the id: %w", err)
	}
	return true, nil
}

// keep makes one more record durable. A store that has grown, or that failed, is
// written anew.
func (m *memory) keep(u Used) error {
	if m.store == nil {
		return nil
	}
	if m.appends < 2*len(m.ids)+1000 {
		if err := m.store.Add(u); err == nil {
			m.appends++
			return nil
		}
	}
	all := make([]Used, 0, len(m.ids)+1)
	if !m.horizon.IsZero() {
		all = append(all, Used{Expires: m.horizon})
	}
	for id, use := range m.ids {
		all = append(all, Used{ID: id, Expires: use.expires})
	}
	if err := m.store.Replace(all); err != nil {
		return err
	}
	m.appends = len(all)
	return nil
}

func (m *memory) finish(id string, s Status) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if u := m.ids[id]; u != nil {
		u.outcome = s
	}
}

// sweep forgets what has expired, at most once a second unless memory is full.
func (m *memory) sweep() {
	elapsed := m.clock.Elapsed()
	if elapsed-m.swept < time.Second && len(m.ids) < m.limit {
		return
	}
	m.swept = elapsed
	now := m.clock.Now()
	for id, u := range m.ids {
		if now.After(u.expires) && elapsed > u.until {
			if u.trusted {
				m.horizon = later(m.horizon, u.expires)
			}
			delete(m.ids, id)
		}
	}
}
