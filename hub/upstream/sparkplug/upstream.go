package sparkplug

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"

	"holdfast/hub"
	"holdfast/hub/client"
)

// An Upstream is one edge node. It implements hub.Upstream.
type Upstream struct {
	o     Options
	stats stats

	mu     sync.Mutex // held by Connect
	node   *node
	births births
	server int // index of the one to try next
	last   *link
}

type stats struct {
	births, deviceBirths, deviceDeaths, deaths, data, historical, commands, refusedCommands atomic.Uint64
}

// Stats count since the start of the program.
type Stats struct {
	Births          uint64 // NBIRTH sent
	Deaths          uint64 // NDEATH sent by ourselves
	DeviceBirths    uint64
	DeviceDeaths    uint64
	Data            uint64 // NDATA and DDATA sent
	Historical      uint64 // records sent as history
	Commands        uint64 // taken
	RefusedCommands uint64
}

// Stats returns the counts. It may be called at any time.
func (u *Upstream) Stats() Stats {
	s := &u.stats
	return Stats{
		Births: s.births.Load(), Deaths: s.deaths.Load(), DeviceBirths: s.deviceBirths.Load(), DeviceDeaths: s.deviceDeaths.Load(),
		Data: s.data.Load(), Historical: s.historical.Load(), Commands: s.commands.Load(), RefusedCommands: s.refusedCommands.Load(),
	}
}

// Connect implements hub.Upstream. The node is born when it returns. It tries
// each server once, beginning with the one that worked last, or with the next
// one when the primary host was offline there.
func (u *Upstream) Connect(ctx context.Context) (hub.Link, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.settleLast(ctx); err != nil {
		return nil, err
	}
	servers := u.o.servers()
	var errs []error
	for range servers {
		l, err := u.attempt(ctx, servers[u.server%len(servers)])
		if err == nil {
			u.last = l
			return l, nil
		}
		errs = append(errs, err)
		u.server = (u.server + 1) % len(servers)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// settleLast waits for the end of the link before: the node is connected once
// (tck-id-operational-behavior-primary-application-state-with-multiple-servers-single-server).
func (u *Upstream) settleLast(ctx context.Context) error {
	l := u.last
	if l == nil {
		return nil
	}
	l.stop()
	select {
	case <-l.done:
	case <-ctx.Done():
		return fmt.Errorf("the connection before has not ended: %w", context.Cause(ctx))
	}
	if l.walk {
		u.server = (u.server + 1) % len(u.o.servers())
	}
	u.last = nil
	return nil
}

// attempt makes a session on one server.
func (u *Upstream) attempt(ctx context.Context, server string) (*link, error) {
	t, password, err := u.o.Credentials.Read(u.o.ReadFile)
	if err != nil {
		return nil, err
	}
	if u.o.Devices != nil {
		if err := u.node.configure(u.o.Devices()); err != nil {
			return nil, err
		}
	}
	bd, err := u.births.next()
	if err != nil {
		u.o.Log.Warn("bdSeq is not kept; after a restart an old death may be taken for a new one", "bdSeq", bd, "reason", err)
	}
	l := newLink(u, bd)
	o := u.o.client(server, t, password)
	o.Will = &client.Message{Topic: u.o.appendTopic(nil, ndeath, ""), Payload: appendDeath(nil, bd, u.o.Clock.Now()), QoS: 1}
	o.OnMessage, o.MaxPacket = l.onMessage, maxCommand
	o.Dial = l.capture(o.Dial)
	l.conn, _, err = client.Dial(ctx, o)
	if err != nil {
		l.cancel()
		return nil, err
	}
	stop := context.AfterFunc(ctx, l.cancel)
	err = l.establish()
	if !stop() && err != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		l.leave()
		return nil, fmt.Errorf("edge node %q on %q: %w", u.o.Group+"/"+u.o.Node, server, err)
	}
	l.goroutines.Go(l.carryOut)
	go l.run()
	return l, nil
}

// capture remembers the network connection below everything: closing it is how
// a connection ends without a DISCONNECT.
func (l *link) capture(dial func(context.Context, string, string) (net.Conn, error)) func(context.Context, string, string) (net.Conn, error) {
	if dial == nil {
		dial = (&net.Dialer{KeepAlive: -1}).DialContext
	}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		nc, err := dial(ctx, network, address)
		l.raw = nc
		return nc, err
	}
}
