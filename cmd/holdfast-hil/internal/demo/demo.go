// Package demo is the whole system on one workstation: a simulated plant, the
// gateway, and an upstream broker, with a table of what each of them sees. It
// needs no network, no broker and no rights.
//
// The gateway and the upstream are holdfast processes of their own, so that a
// power cut can be real: the gateway is killed with SIGKILL.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"time"

	"holdfast/cmd/internal/control"
	"holdfast/hil/fault"
	"holdfast/hil/plant"
	"holdfast/hub/client"
)

// Options are what a demo is made with.
type Options struct {
	Program  string        // path of the holdfast program
	Duration time.Duration // of the part before the proof
	Cut      bool          // cut the link and the power
	JSON     bool          // print nothing but the verdict, as JSON
	Out      io.Writer
	Width    func() int // of the terminal at Out, 0 when it is none
	Height   func() int
}

// How long things may take.
const (
	startTime  = 15 * time.Second // until the first reading is upstream
	drainTime  = 30 * time.Second // from the end of the last cut until everything is upstream
	askTime    = 500 * time.Millisecond
	viewPause  = 250 * time.Millisecond
	plainPause = time.Second
)

// A demo is one that runs.
type demo struct {
	o       Options
	dir     string
	factory *plant.Factory
	proxy   *fault.Link
	device  *process
	far     *process
	ledger  *ledger
	view    *view
	started time.Time

	hub, field, upstream *control.Client

	mu    sync.Mutex
	wrong error // what arrived that should not have
}

// Run runs a demo and returns an error when something was lost.
func Run(ctx context.Context, o Options) error {
	dir, err := os.MkdirTemp("", "holdfast-demo")
	if err != nil {
		return err
	}
	d := &demo{o: o, dir: dir, ledger: newLedger(), view: newView(o)}
	err = d.run(ctx)
	if err != nil {
		return fmt.Errorf("%w\n(logs are in %s)", err, dir)
	}
	return os.RemoveAll(dir)
}

// run starts everything from the far side to the near one, and stops it the
// other way round.
func (d *demo) run(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	var background sync.WaitGroup
	errs := make(chan error, 8)
	spawn := func(f func() error) {
		background.Go(func() {
			if err := f(); err != nil && ctx.Err() == nil {
				errs <- err
			}
		})
	}
	defer func() {
		cancel()
		background.Wait()
		close(errs)
		for e := range errs {
			err = errors.Join(err, e)
		}
	}()

	if d.factory, err = plant.OpenFactory(d.dir, uint64(time.Now().UnixNano())); err != nil {
		return err
	}
	spawn(func() error { return d.factory.Run(ctx) })

	if err := d.startUpstream(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.far.stop()) }()
	spawn(func() error { return d.proxy.Run(ctx) })
	if err := d.startDevice(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.device.stop()) }()

	first := make(chan struct{})
	spawn(func() error { return d.collect(ctx, first) })
	select {
	case <-first:
	case <-time.After(startTime):
		return fmt.Errorf("no reading arrived upstream within %s: %w", startTime, d.device.lastWords())
	case err := <-errs:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
	d.view.event("first reading is upstream %s after the start of the gateway", time.Since(d.started).Round(time.Millisecond))
	return d.show(ctx)
}

// startUpstream starts a hub that plays the far side, and the link to it.
func (d *demo) startUpstream(ctx context.Context) error {
	run := filepath.Join(d.dir, "up")
	d.upstream = control.NewClient(filepath.Join(run, control.HubSocket))
	path, err := d.write("upstream.toml", upstreamConfig(d.dir))
	if err != nil {
		return err
	}
	d.far = newProcess(d.dir, "upstream", d.o.Program, "hub", "--config", path)
	if err := d.far.start(); err != nil {
		return err
	}
	var s control.HubStatus
	if err := d.await(ctx, d.far, func(ctx context.Context) bool { return d.upstream.Get(ctx, "status", &s) == nil }); err != nil {
		return errors.Join(err, d.far.stop())
	}
	for _, l := range s.Listeners {
		if l.Type == "tcp" {
			if d.proxy, err = fault.Open(fault.Options{Target: l.Address}); err != nil {
				return errors.Join(err, d.far.stop())
			}
		}
	}
	return nil
}

func (d *demo) startDevice() error {
	run := filepath.Join(d.dir, "run")
	d.hub = control.NewClient(filepath.Join(run, control.HubSocket))
	d.field = control.NewClient(filepath.Join(run, control.FieldSocket))
	path, err := d.write("device.toml", deviceConfig(d.dir, d.factory, d.proxy.Addr()))
	if err != nil {
		return err
	}
	d.device = newProcess(d.dir, "gateway", d.o.Program, "run", "--config", path)
	d.started = time.Now()
	return d.device.start()
}

func (d *demo) write(name, text string) (path string, err error) {
	path = filepath.Join(d.dir, name)
	return path, os.WriteFile(path, []byte(text), 0o600)
}

// await waits until a process answers.
func (d *demo) await(ctx context.Context, p *process, ready func(context.Context) bool) error {
	for start := time.Now(); time.Since(start) < startTime; time.Sleep(10 * time.Millisecond) {
		one, cancel := context.WithTimeout(ctx, askTime)
		ok := ready(one)
		cancel()
		switch {
		case ok:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !p.running():
			return fmt.Errorf("%s: %w", p.name, p.lastWords())
		}
	}
	return fmt.Errorf("%s does not answer: %w", p.name, p.lastWords())
}

// collect is the application behind the upstream broker: it subscribes to
// everything, and hands it to the ledger.
func (d *demo) collect(ctx context.Context, first chan struct{}) error {
	var once sync.Once
	k := client.NewKeeper(client.KeeperOptions{
		Options: client.Options{
			URL: "unix://" + filepath.Join(d.dir, "up", "hub.sock"), ClientID: "historian", KeepSession: true,
			OnMessage: func(_ *client.Conn, m *client.Message) {
				if err := d.ledger.collect(m); err != nil {
					d.mu.Lock()
					d.wrong = err
					d.mu.Unlock()
				}
				once.Do(func() { close(first) })
			},
		},
		OnUp: func(ctx context.Context, c *client.Conn, _ bool) error {
			_, err := c.Subscribe(ctx, client.Subscription{Filter: "#", QoS: 1})
			return err
		},
		MinPause: 50 * time.Millisecond,
	})
	return k.Run(ctx)
}

// show lets the system work, cuts what is to be cut, and proves at the end that
// nothing is missing.
func (d *demo) show(ctx context.Context) error {
	counting := newLeaf(filepath.Join(d.dir, "run", "hub.sock"), d.ledger)
	stop := make(chan struct{})
	counted := make(chan error, 1)
	leafCtx, cancelLeaf := context.WithCancel(ctx)
	defer cancelLeaf()
	go func() { counted <- counting.run(leafCtx, stop) }()

	script := d.script()
	begin := time.Now()
	pause := plainPause
	if d.view.live() {
		pause = viewPause
	}
	for now := begin; now.Sub(begin) < d.o.Duration; now = time.Now() {
		for len(script) > 0 && now.Sub(begin) >= script[0].at {
			if err := script[0].do(); err != nil {
				return err
			}
			script = script[1:]
		}
		d.view.show(d.look(ctx))
		if !sleep(ctx, pause) {
			return ctx.Err()
		}
	}
	for _, s := range script { // whatever was cut is mended
		if err := s.do(); err != nil {
			return err
		}
	}
	close(stop)
	d.view.event("the leaf device stops counting; everything that waits is sent")
	end := time.Now().Add(drainTime)
	for counted != nil || !d.drained() {
		select {
		case err := <-counted:
			if counted = nil; err != nil {
				return err
			}
		default:
		}
		if time.Now().After(end) {
			d.view.event("still not everything is upstream after %s", drainTime)
			break
		}
		d.view.show(d.look(ctx))
		if !sleep(ctx, viewPause) {
			return ctx.Err()
		}
	}
	return d.prove()
}

// drained reports whether the gateway has nothing left to send but what the
// field daemon reads at this moment.
func (d *demo) drained() bool {
	v := d.ledger.verdict()
	return v.Lost == 0 && v.Holes == 0
}

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}

// prove stops the gateway in order, so that it sends what it has, and compares.
func (d *demo) prove() error {
	if err := d.device.stop(); err != nil {
		return err
	}
	v := d.ledger.verdict()
	d.mu.Lock()
	wrong := d.wrong
	d.mu.Unlock()
	if err := d.view.verdict(v); err != nil {
		return err
	}
	switch {
	case wrong != nil:
		return fmt.Errorf("something arrived that nobody sent: %w", wrong)
	case v.Lost > 0 || v.Holes > 0:
		return fmt.Errorf("lost: %d acknowledged counts, %d batches of readings", v.Lost, v.Holes)
	case v.OutOf > 0:
		return fmt.Errorf("%d counts arrived out of order", v.OutOf)
	case v.Acked == 0 || v.Batches == 0:
		return errors.New("nothing was acknowledged: there is nothing to prove")
	}
	return nil
}
