package client

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub/internal/backoff"
)

// ErrDown: there is no connection at the moment.
var ErrDown = errors.New("not connected")

// A Keeper holds one connection at a time and dials again when it ends. It
// keeps no messages: what a connection did not confirm is its publisher's to
// send again.
type Keeper struct {
	o KeeperOptions

	mu    sync.Mutex
	conn  *Conn
	since time.Time // wall time of the last change
	err   error     // why it is down
}

// KeeperOptions say what a Keeper keeps.
type KeeperOptions struct {
	Options

	// OnUp is called with each new connection before Conn returns it, to
	// subscribe. An error ends the connection and counts as a failed attempt.
	// nil: nothing to do.
	OnUp func(ctx context.Context, c *Conn, present bool) error

	// OnDown is called when a connection that was up has ended. nil: nothing.
	OnDown func(err error)

	// MinPause and MaxPause are the limits of the back-off between attempts.
	// 0 means 1 s and 60 s.
	MinPause, MaxPause time.Duration
}

// NewKeeper returns a Keeper; Run makes it connect.
func NewKeeper(o KeeperOptions) *Keeper {
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Inbox == nil {
		o.Inbox = &Inbox{} // lives as long as the session may
	}
	return &Keeper{o: o, since: o.Clock.Now(), err: ErrDown}
}

// Conn returns the connection, or ErrDown.
func (k *Keeper) Conn() (*Conn, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conn == nil {
		return nil, ErrDown
	}
	return k.conn, nil
}

// State returns whether there is a connection, since when that is so, and why
// not if not.
func (k *Keeper) State() (up bool, since time.Time, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.conn != nil, k.since, k.err
}

func (k *Keeper) set(c *Conn, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if (c != nil) != (k.conn != nil) {
		k.since = k.o.Clock.Now()
	}
	k.conn, k.err = c, err
}

// Run connects, again and again, until ctx ends; then it closes the connection
// and returns nil. It returns an error only for options that can never work.
func (k *Keeper) Run(ctx context.Context) error {
	if _, _, err := k.o.Options.withDefaults(); err != nil {
		return err
	}
	pause := backoff.Backoff{Min: k.o.MinPause, Max: k.o.MaxPause}
	for ctx.Err() == nil {
		start := k.o.Clock.Elapsed()
		up, err := k.once(ctx)
		if ctx.Err() != nil {
			break
		}
		if _, _, before := k.State(); up || before == nil || before.Error() != err.Error() {
			k.o.Log.Warn("connection is down", "url", k.o.URL, "reason", err)
		}
		k.set(nil, err)
		if up && k.o.OnDown != nil {
			k.o.OnDown(err)
		}
		if up && k.o.Clock.Elapsed()-start > time.Minute {
			pause.Reset() // one that falls over at once must not be dialled at full speed
		}
		if clock.Sleep(ctx, k.o.Clock, pause.Next()) != nil {
			break
		}
	}
	k.set(nil, ErrClosed)
	return nil
}

// once is the life of one connection. It always returns an error.
func (k *Keeper) once(ctx context.Context) (up bool, err error) {
	c, present, err := Dial(ctx, k.o.Options)
	if err != nil {
		return false, err
	}
	defer c.Close()
	if k.o.OnUp != nil {
		if err := k.o.OnUp(ctx, c, present); err != nil {
			return false, err
		}
	}
	k.set(c, nil)
	k.o.Log.Info("connection is up", "url", k.o.URL, "session", present)
	select {
	case <-c.Done():
		return true, c.Err()
	case <-ctx.Done():
		return true, ctx.Err()
	}
}
