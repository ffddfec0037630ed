// Package hubdaemon puts the hub together: listeners, the MQTT engine, the
// journal with its sessions, routes, and the upstreams that are fed from it.
package hubdaemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/internal/control"
	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/broker"
	"holdfast/hub/journal"
	"holdfast/hub/route"
	"holdfast/hub/session"
)

// lockFile keeps a second hub out of the data directory.
const lockFile = "hub.lock"

// Options are what a daemon is made with.
type Options struct {
	Clock   clock.Clock
	Log     *slog.Logger
	Version string
	// Upstream makes the far side that a configuration names.
	Upstream  func(config.Upstream) (hub.Upstream, error)
	Tags      *Tags         // what Upstream makes messages of readings with, told of each reload; nil: nothing
	SyncDelay time.Duration // added to each sync of the journal, for measuring slow media on fast ones
}

// A Daemon is the hub with everything around it.
type Daemon struct {
	o       Options
	started time.Time
	lock    interface{ Close() error }
	gate    gate
	hub     *session.Hub
	server  *broker.Server
	doors   []*door

	letters   *journal.Journal // nil without upstreams
	upstreams []*upstream

	mu     sync.Mutex // guards config; held while reloading
	config *config.Config
}

// DataDir returns where a hub keeps what must survive.
func DataDir(c *config.Config) string { return filepath.Join(c.Data, "hub") }

// JournalDir returns where a hub keeps its journal below its data directory.
func JournalDir(data string) string { return filepath.Join(data, "hub", "journal") }

// Open opens the journal and the listeners. Nobody is served before Run.
func Open(c *config.Config, o Options) (d *Daemon, err error) {
	d = &Daemon{o: o, config: c, started: o.Clock.Now()}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.close())
		}
	}()
	if err := os.MkdirAll(DataDir(c), 0o750); err != nil {
		return d, err
	}
	fs, err := disk.OpenHost(DataDir(c))
	if err != nil {
		return d, err
	}
	if d.lock, err = fs.Lock(lockFile); errors.Is(err, disk.ErrLocked) {
		return d, fmt.Errorf("data directory %q: another hub is using it", DataDir(c))
	} else if err != nil {
		return d, err
	}
	if err := d.gate.set(c); err != nil {
		return d, err
	}
	so, err := sessionOptions(c, o)
	if err != nil {
		return d, err
	}
	so.Access = &d.gate
	if d.hub, err = session.Open(fs, so); err != nil {
		return d, err
	}
	d.server = broker.New(d.hub, brokerOptions(c, o))
	if err := d.openUpstreams(c); err != nil {
		return d, err
	}
	d.doors, err = openDoors(c)
	return d, err
}

func sessionOptions(c *config.Config, o Options) (session.Options, error) {
	routes, err := routeTable(c)
	if err != nil {
		return session.Options{}, err
	}
	return session.Options{
		Journal: journal.Options{
			SegmentBytes: int64(c.Hub.Journal.Segment),
			Linger:       c.Hub.Journal.Linger.Std(),
			MaxBytes:     int64(c.Hub.Journal.Budget),
			MaxAge:       c.Hub.Journal.Age.Std(),
			SyncDelay:    o.SyncDelay,
		},
		Routes:      routes,
		Clock:       o.Clock,
		Log:         o.Log,
		MaxSessions: c.Hub.Limits.Sessions,
	}, nil
}

func routeTable(c *config.Config) (*route.Table, error) {
	return route.NewTable(c.Hub.RouteSpecs(), route.Options{Dialect: c.Hub.Dialect(), TTL: c.Hub.TimeToLive.Std()})
}

func brokerOptions(c *config.Config, o Options) broker.Options {
	l := &c.Hub.Limits
	return broker.Options{
		Clock:            o.Clock,
		Log:              o.Log,
		MaxClients:       l.Clients,
		ConnectRate:      float64(l.ConnectsPerSecond),
		MaxPacketSize:    int(l.MessageSize) + packetOverhead,
		ReceiveMaximum:   uint16(l.Inflight),
		MaxInflight:      uint16(l.Inflight),
		MessageRate:      float64(l.MessagesPerSecond),
		MaxSessionExpiry: l.SessionExpiry.Std(),
		ConnectTimeout:   l.ConnectTimeout.Std(),
	}
}

// packetOverhead is what a packet may carry beside its payload: topic,
// properties, header.
const packetOverhead = 8 << 10

// Close releases what Open opened. It is for a daemon that is not run.
func (d *Daemon) Close() error { return d.close() }

func (d *Daemon) close() error {
	closeDoors(d.doors)
	var err error
	if d.hub != nil {
		err = d.hub.Close()
	}
	if d.letters != nil {
		err = errors.Join(err, d.letters.Close())
	}
	if d.lock != nil {
		err = errors.Join(err, d.lock.Close())
	}
	return err
}

// Reload takes over users, rules, routes, certificates and what is known of tags
// of c. What c changes beside them needs a restart, and is told.
func (d *Daemon) Reload(c *config.Config) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	routes, err := routeTable(c)
	if err != nil {
		return err
	}
	for _, door := range d.doors {
		if door.tls != nil {
			if err := door.tls.load(); err != nil {
				return fmt.Errorf("listener %q: %w", door.Name, err)
			}
		}
	}
	if err := d.gate.set(c); err != nil {
		return err
	}
	d.hub.SetRoutes(routes)
	if d.o.Tags != nil {
		d.o.Tags.Set(c)
	}
	if later := needRestart(d.config, c); len(later) > 0 {
		d.o.Log.Warn("some changes take effect after a restart of the hub", "changed", later)
	}
	d.config = c
	return nil
}

// needRestart returns the parts of the configuration in which two differ and
// that Reload does not take over.
func needRestart(old, now *config.Config) (parts []string) {
	for _, p := range []struct {
		name     string
		old, now any
	}{
		{"name", old.Name, now.Name}, {"data", old.Data, now.Data}, {"run", old.Run, now.Run}, {"log", old.Log, now.Log},
		{"metrics", old.Metrics, now.Metrics}, {"hub.listener", old.Hub.Listeners, now.Hub.Listeners},
		{"hub.limits", old.Hub.Limits, now.Hub.Limits}, {"hub.journal", old.Hub.Journal, now.Hub.Journal},
		{"hub.upstream", old.Hub.Upstreams, now.Hub.Upstreams},
	} {
		if !reflect.DeepEqual(p.old, p.now) {
			parts = append(parts, p.name)
		}
	}
	return parts
}

// Run serves until ctx ends, then stops in order: clients are told and leave,
// what they were promised is committed, positions are saved, files are closed.
func (d *Daemon) Run(ctx context.Context, reload func() error) (err error) {
	defer func() { err = errors.Join(err, d.close()) }()
	l, err := control.Listen(filepath.Join(d.config.Run, control.HubSocket))
	if err != nil {
		return err
	}
	metrics, err := listenMetrics(d.config.Metrics.HubListen)
	if err != nil {
		l.Close()
		return err
	}

	// Each stage outlives the one before it: the engine hands its last batches
	// to the hub, which commits them.
	front, stopFront := context.WithCancel(ctx)
	defer stopFront()
	back, stopBack := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBack()
	errs := make(chan error, 8+len(d.doors))
	var fronts, backs sync.WaitGroup
	start := func(g *sync.WaitGroup, f func() error) {
		g.Go(func() {
			errs <- f()
			stopFront() // whoever ends first ends all: a hub without one of its parts is none
		})
	}
	start(&backs, func() error { return d.hub.Run(back) })
	start(&backs, func() error { return control.Serve(back, l, d.handler(reload)) })
	if metrics != nil {
		start(&backs, func() error { return control.Serve(back, metrics, d.metricsOnly()) })
	}
	start(&fronts, func() error { return d.server.Run(front) })
	if len(d.upstreams) > 0 {
		start(&fronts, func() error { return d.runUpstreams(front) })
	}
	for _, door := range d.doors {
		start(&fronts, func() error { return door.serve(front, d.server) })
	}
	d.o.Log.Info("hub is ready", "version", d.o.Version, "offset", uint64(d.hub.Journal().Committed()))
	<-front.Done()
	fronts.Wait()
	d.o.Log.Info("hub stops")
	stopBack()
	backs.Wait()
	close(errs)
	var all []error
	for err := range errs {
		all = append(all, err)
	}
	return errors.Join(all...)
}

func listenMetrics(addr string) (net.Listener, error) {
	if addr == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("metrics: %w", err)
	}
	return l, nil
}

func (d *Daemon) handler(reload func() error) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /status", control.JSON(d.status))
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
