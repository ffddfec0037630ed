package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/fielddaemon"
	"holdfast/cmd/holdfast/internal/hubdaemon"
	"holdfast/drivers/clock"
	"holdfast/protocols"
)

func (a *app) runCommand() *cobra.Command {
	return verb("run", "hub and field in one process", usageRun, cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return a.daemons(c.Context(), true, true)
	})
}

func (a *app) hubCommand() *cobra.Command {
	return verb("hub", "store and forward messages", usageHub, cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return a.daemons(c.Context(), true, false)
	})
}

func (a *app) fieldCommand() *cobra.Command {
	return verb("field", "read and command field devices", usageField, cobra.NoArgs, func(c *cobra.Command, _ []string) error {
		return a.daemons(c.Context(), false, true)
	})
}

// daemons runs one or both daemons until ctx ends.
func (a *app) daemons(ctx context.Context, withHub, withField bool) error {
	c, err := a.load()
	if err != nil {
		return err
	}
	log := a.logger(c.Log)
	set := &daemonSet{load: a.load, log: log}
	real := clock.NewReal()
	if withHub {
		delay, err := a.syncDelay()
		if err != nil {
			return err
		}
		tags := hubdaemon.NewTags(c)
		set.hub, err = hubdaemon.Open(c, hubdaemon.Options{
			Clock: real, Log: log.With("daemon", "hub"), Version: a.Version, Upstream: a.upstreamMaker(c, tags, real, log), Tags: tags, SyncDelay: delay,
		})
		if err != nil {
			return err
		}
	}
	if withField {
		set.field, err = fielddaemon.Open(c, fielddaemon.Options{
			Clock: real, Log: log.With("daemon", "field"), Version: a.Version,
			Adapters: func(env protocols.Env) map[string]protocols.Adapter { return adapters(env, certificates(c.Data)) },
		})
		if err != nil {
			if set.hub != nil {
				err = errors.Join(err, set.hub.Close())
			}
			return err
		}
	}
	var watching sync.WaitGroup
	defer watching.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	watching.Go(func() { a.reloadOnHangup(ctx, set) })
	return set.run(ctx)
}

// syncDelay is added to each sync of the journal: it lets a fast machine be
// measured as if its disk were slow.
func (a *app) syncDelay() (time.Duration, error) {
	text := a.Getenv("HOLDFAST_SYNC_DELAY")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d < 0 {
		return 0, usage(fmt.Errorf("HOLDFAST_SYNC_DELAY: %q is not a duration", text), "write it with its unit, such as 5ms")
	}
	return d, nil
}

func (a *app) logger(l config.Log) *slog.Logger {
	var level slog.Level
	_ = level.UnmarshalText([]byte(l.Level)) // was checked with the configuration
	o := &slog.HandlerOptions{Level: level}
	if l.Format == "json" {
		return slog.New(slog.NewJSONHandler(a.Err, o))
	}
	return slog.New(slog.NewTextHandler(a.Err, o))
}

func (a *app) reloadOnHangup(ctx context.Context, set *daemonSet) {
	for {
		select {
		case <-a.Hangup:
			if err := set.reload(); err != nil {
				set.log.Error("the configuration was not read again; the one before stays in force", "reason", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// daemonSet is the daemons of one process.
type daemonSet struct {
	hub   *hubdaemon.Daemon // nil: runs elsewhere
	field *fielddaemon.Daemon
	load  func() (*config.Config, error)
	log   *slog.Logger
}

// run runs them until ctx ends or one of them does. The field daemon stops
// first, so that the hub still takes its last readings.
func (s *daemonSet) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var fieldErr error
	var field sync.WaitGroup
	if s.field != nil {
		field.Go(func() {
			defer cancel()
			fieldErr = s.field.Run(ctx, s.reload)
		})
	}
	var hubErr error
	if s.hub != nil {
		hubCtx, stopHub := context.WithCancel(context.WithoutCancel(ctx))
		defer stopHub()
		var hub sync.WaitGroup
		hub.Go(func() {
			defer cancel()
			hubErr = s.hub.Run(hubCtx, s.reload)
		})
		<-ctx.Done()
		field.Wait()
		stopHub()
		hub.Wait()
	}
	field.Wait()
	return errors.Join(hubErr, fieldErr)
}

// reload reads the configuration again. A mistake in it changes nothing.
func (s *daemonSet) reload() error {
	c, err := s.load()
	if err != nil {
		return err
	}
	var errs []error
	if s.hub != nil {
		errs = append(errs, s.hub.Reload(c))
	}
	if s.field != nil {
		errs = append(errs, s.field.Reload(c))
	}
	return errors.Join(errs...)
}
