// Package fielddaemon joins the field protocols to the hub: it polls the
// configured devices, publishes their readings over the hub's local socket,
// carries out the commands that come back, and answers the operator's verbs.
//
//	field/<device>/readings   published, QoS 1: a batch of readings (protocols/point/FORMAT.md)
//	field/commands            subscribed: commands (protocols/command)
//	field/results/...         published: what came of a command: on its response topic if that is below field/results/, else under its id
package fielddaemon

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/internal/control"
	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/hub/client"
	"holdfast/protocols"
	"holdfast/protocols/command"
	"holdfast/protocols/poll"
)

// How long a stop may take: the poller hands out what waits, then the hub
// confirms it.
const (
	drainTime = 2 * time.Second
	flushTime = 2 * time.Second
)

// Options are what a daemon is made with.
type Options struct {
	Clock   clock.Clock
	Log     *slog.Logger
	Version string
	// Adapters makes the adapters of all protocols, by name.
	Adapters func(protocols.Env) map[string]protocols.Adapter
}

// A Daemon is the field daemon.
type Daemon struct {
	o        Options
	config   *config.Config
	adapters map[string]protocols.Adapter
	poller   *poll.Poller
	uplink   *uplink
	keeper   *client.Keeper
	commands *commands
	started  time.Time
	reload   sync.Mutex
}

// DataDir returns where the daemon keeps what must survive, below the data
// directory of the configuration.
func DataDir(data string) string { return filepath.Join(data, "field") }

// usedFile is where the ids of commands are kept that must not be used again.
const usedFile = "commands"

// Open makes a daemon of a configuration that was checked. It touches its
// data and run directories, and no device before Run.
func Open(c *config.Config, o Options) (*Daemon, error) {
	d := &Daemon{o: o, config: c, started: o.Clock.Now()}
	for _, dir := range []string{DataDir(c.Data), c.Run} {
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return nil, err
		}
	}
	d.adapters = o.Adapters(protocols.Env{Clock: o.Clock, Log: o.Log})
	d.uplink = newUplink(o.Clock, o.Log)
	var boot [8]byte
	rand.Read(boot[:]) // never fails (crypto/rand)
	d.poller = poll.New(d.adapters, d.uplink, poll.Options{
		Clock: o.Clock, Log: o.Log, Boot: binary.LittleEndian.Uint64(boot[:]), Queue: c.Field.Outbox, Drain: drainTime,
	})
	if err := d.openCommands(); err != nil {
		return nil, errors.Join(err, d.closeAdapters())
	}
	d.keeper = client.NewKeeper(client.KeeperOptions{
		Options: client.Options{
			URL:       "unix://" + filepath.Join(c.Run, config.HubSocket),
			ClientID:  "field",
			Window:    uplinkBatches,
			Buffer:    uplinkBytes,
			OnMessage: d.commands.take,
			Clock:     o.Clock,
			Log:       o.Log,
		},
		OnUp: func(ctx context.Context, conn *client.Conn, _ bool) error {
			if err := d.commands.subscribe(ctx, conn); err != nil {
				return err
			}
			d.uplink.up(conn)
			return nil
		},
		OnDown:   func(error) { d.uplink.down() },
		MinPause: 50 * time.Millisecond,
		MaxPause: 2 * time.Second,
	})
	if _, err := d.poller.Apply(c.Field.PollDevices()); err != nil {
		return nil, errors.Join(fmt.Errorf("field devices: %w", err), d.closeAdapters())
	}
	return d, nil
}

func (d *Daemon) openCommands() error {
	c := d.config
	fs, err := disk.OpenHost(DataDir(c.Data))
	if err != nil {
		return err
	}
	o := commandOptions(c, d.o)
	o.Store = command.NewFileStore(fs, usedFile)
	handler, err := command.New(d.poller, o)
	if err != nil {
		return err
	}
	key, err := makeKey(c.Run)
	if err != nil {
		return err
	}
	d.commands = &commands{
		handler: handler, enabled: c.Field.Commands.Enabled, key: key, log: d.o.Log, queue: make(chan order, commandQueue),
		known: func(device string) bool {
			for _, s := range d.poller.Status() {
				if s.Name == device {
					return true
				}
			}
			return false
		},
	}
	return nil
}

func (d *Daemon) closeAdapters() error {
	var errs []error
	for name, a := range d.adapters {
		if err := a.Close(); err != nil {
			errs = append(errs, fmt.Errorf("protocol %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// Reload makes the devices and tags of c the ones that are polled. What did not
// change goes on undisturbed. Sockets and the outbox stay as they are.
func (d *Daemon) Reload(c *config.Config) error {
	d.reload.Lock()
	defer d.reload.Unlock()
	changes, err := d.poller.Apply(c.Field.PollDevices())
	if err != nil {
		return err
	}
	d.o.Log.Info("configuration read again", "changes", changes)
	return nil
}

// Run works until ctx ends, then stops in order: polling ends, what was read
// is published and confirmed as far as two times two seconds allow, links are
// closed.
func (d *Daemon) Run(ctx context.Context, reload func() error) error {
	l, err := control.Listen(filepath.Join(d.config.Run, control.FieldSocket))
	if err != nil {
		return err
	}
	listeners := []net.Listener{l}
	if addr := d.config.Metrics.FieldListen; addr != "" {
		m, err := net.Listen("tcp", addr)
		if err != nil {
			l.Close()
			return fmt.Errorf("metrics: %w", err)
		}
		listeners = append(listeners, m)
	}
	// The inner context ends after the poller has stopped, so that its last
	// batches still find a connection.
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	var group sync.WaitGroup
	errs := make(chan error, 8)
	spawn := func(f func() error) { group.Go(func() { errs <- f() }) }
	spawn(func() error { return control.Serve(inner, listeners[0], d.handler(reload)) })
	if len(listeners) > 1 {
		spawn(func() error { return control.Serve(inner, listeners[1], d.metricsOnly()) })
	}
	spawn(func() error { return d.keeper.Run(inner) })
	spawn(func() error { return d.uplink.run(inner) })
	spawn(func() error { return d.commands.run(inner) })
	polling := make(chan error, 1)
	pollCtx, stopPolling := context.WithCancel(ctx)
	defer stopPolling()
	go func() { polling <- d.poller.Run(pollCtx) }()

	d.o.Log.Info("field daemon is ready", "version", d.o.Version, "devices", len(d.config.Field.Devices))
	var failed error
	select {
	case failed = <-errs: // none of them ends before its context does
	case <-ctx.Done():
	}
	stopPolling()
	failed = errors.Join(failed, <-polling)
	flush, done := context.WithTimeout(inner, flushTime)
	defer done()
	if err := d.uplink.flush(flush); err != nil {
		batches, readings, _, _ := d.uplink.state()
		d.o.Log.Warn("stopped before the hub had confirmed everything", "batches", batches, "readings", readings)
	}
	cancel()
	group.Wait()
	close(errs)
	for err := range errs {
		failed = errors.Join(failed, err)
	}
	return errors.Join(failed, d.closeAdapters())
}

func (d *Daemon) handler(reload func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /status", control.JSON(d.status))
	mux.Handle("GET /tags", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" {
			control.JSON(d.tags).ServeHTTP(w, r)
			return
		}
		control.Stream(d.watch).ServeHTTP(w, r)
	}))
	mux.Handle("POST /reload", control.Reload(reload))
	control.Profiles(mux)
	mux.Handle("GET /metrics", d.metrics())
	return mux
}

func (d *Daemon) metricsOnly() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", d.metrics())
	return mux
}
