package sparkplug

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"holdfast/hub"
	"holdfast/hub/client"
)

// Bounds and times of a link.
const (
	maxCommand   = 256 << 10   // bytes of one message from the server; a larger one ends the connection
	inboxBytes   = 1 << 20     // of messages that wait for run. Overflow rule: refused and counted
	commandQueue = 256         // commands that wait for Means.Command. Overflow rule: refused and counted
	burst        = 256         // records sent between two looks at everything else
	rebirthPause = time.Second // between two rebirths on request; requests in between become one
	quiet        = time.Second // without history before current values are told again
	deathWait    = time.Second // for the server to confirm NDEATH
)

// errOffline ends a link, and an attempt to make one.
var errOffline = errors.New("primary host is offline")

var errNextServer = errors.New("a host asked for the next server")

// An item is one record on its way.
type item struct {
	m       *hub.Outgoing
	settled func(error)
	at      time.Duration // Elapsed when it was sent
}

// A link is one session on one connection. Everything but what mu guards belongs
// to Connect and then to run.
type link struct {
	u          *Upstream
	o          *Options
	conn       *client.Conn
	raw        net.Conn
	s          session
	ctx        context.Context // ends when nothing is to be sent any more
	cancel     context.CancelFunc
	wake       chan struct{}
	done       chan struct{}
	goroutines sync.WaitGroup
	orders     chan Command
	walk       bool // the next connection goes to the next server; set before done

	bornAt    time.Duration // Elapsed at the birth
	sent      []item        // published and not settled, in order
	first     uint64        // number of sent[0]
	probed    uint64        // items before this number are covered by a probe
	probing   bool
	behind    bool          // history was sent, and current values have not been told since
	historyAt time.Duration // Elapsed when history was last sent
	rebornAt  time.Duration // Elapsed of the last rebirth on request
	rebirth   bool          // a host has asked for births
	silentAt  time.Duration // Elapsed when the next device may be dead; 0 never
	warnedAt  time.Duration
	batch     Batch

	mu       sync.Mutex
	queue    []item // what Send has taken. Its bound is the sender's window
	inbox    []letter
	inboxLen int // bytes
	passed   uint64
	answered bool // the probe has come back
	host     host
	born     bool
	offline  bool // the primary host went offline after the birth: nothing is settled any more
	ended    bool
	err      error
}

// A letter is a message from the server.
type letter struct {
	topic   string
	payload []byte
	retain  bool
}

func newLink(u *Upstream, bd uint8) *link {
	l := &link{
		u: u, o: &u.o, wake: make(chan struct{}, 1), done: make(chan struct{}), orders: make(chan Command, commandQueue),
		rebornAt: -rebirthPause, warnedAt: -warnPause,
	}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	l.s = session{o: l.o, n: u.node, bd: bd, wall: l.o.Clock.Now, stats: &u.stats, send: func(topic, payload []byte) error {
		return l.conn.Publish(l.ctx, &client.Message{Topic: topic, Payload: payload}, nil)
	}}
	return l
}

func (l *link) wakeUp() {
	select {
	case l.wake <- struct{}{}:
	default: // run has been woken already and looks at everything
	}
}

// Send implements hub.Link.
func (l *link) Send(m *hub.Outgoing, settled func(error)) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return l.err
	}
	l.queue = append(l.queue, item{m: m, settled: settled})
	l.wakeUp()
	return nil
}

// Done implements hub.Link.
func (l *link) Done() <-chan struct{} { return l.done }

// Err implements hub.Link.
func (l *link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// Close implements hub.Link.
func (l *link) Close() error {
	l.stop()
	<-l.done
	return nil
}

func (l *link) stop() {
	l.cancel()
	l.wakeUp()
}

// onMessage is called by the connection for each message, in order.
func (l *link) onMessage(_ *client.Conn, m *client.Message) {
	l.mu.Lock()
	defer l.mu.Unlock()
	topic := string(m.Topic)
	if l.o.PrimaryHost != "" && topic == namespace+"/"+state+"/"+l.o.PrimaryHost {
		l.heardHost(m.Payload)
		return
	}
	if l.inboxLen+len(m.Payload) > inboxBytes {
		l.u.stats.refusedCommands.Add(1)
		return
	}
	l.inboxLen += len(m.Payload)
	l.inbox = append(l.inbox, letter{topic, append([]byte(nil), m.Payload...), m.Retain})
	l.wakeUp()
}

// heardHost takes a STATE. What comes after it on this connection, answers to
// probes included, finds offline set. The caller holds mu.
func (l *link) heardHost(data []byte) {
	believed, err := l.host.take(data)
	if err != nil {
		l.o.Log.Warn("STATE of the primary host is not readable", "host", l.o.PrimaryHost, "reason", err)
	}
	if !believed {
		return
	}
	if l.born && !l.host.online && !l.offline {
		l.offline = true
		l.cancel() // whatever is being sent is too late
	}
	l.wakeUp()
}

// establish subscribes, waits for the primary host, and is born.
func (l *link) establish() error {
	subs := []client.Subscription{{Filter: string(l.o.appendTopic(nil, ncmd, "")), QoS: 1}}
	if l.takesCommands() {
		subs = append(subs, client.Subscription{Filter: string(l.o.appendTopic(nil, dcmd, "+")), QoS: 1})
	}
	if l.o.PrimaryHost != "" {
		subs = append(subs, client.Subscription{Filter: namespace + "/" + state + "/" + l.o.PrimaryHost, QoS: 1})
	}
	if _, err := l.conn.Subscribe(l.ctx, subs...); err != nil {
		return err
	}
	if l.o.PrimaryHost != "" {
		if err := l.awaitHost(); err != nil {
			return err
		}
	}
	l.mu.Lock()
	l.born = l.o.PrimaryHost == "" || l.host.online
	born := l.born
	l.mu.Unlock()
	if !born {
		return errOffline
	}
	l.bornAt = l.o.Clock.Elapsed()
	for _, d := range l.s.n.order {
		d.heard = l.bornAt
	}
	if l.o.DeviceTimeout > 0 {
		l.silentAt = l.bornAt + l.o.DeviceTimeout
	}
	if err := l.s.birth(); err != nil {
		if l.isOffline() {
			err = errOffline
		}
		return err
	}
	return nil
}

func (l *link) takesCommands() bool { return l.o.Commands && l.o.Command != nil }

func (l *link) isOffline() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.offline
}

// awaitHost waits until the primary host is online. When there are several
// servers, one on which it is offline is left at once
// (tck-id-operational-behavior-primary-application-state-with-multiple-servers-walk).
func (l *link) awaitHost() error {
	timer := l.o.Clock.NewTimer(l.o.HostWait)
	defer timer.Stop()
	for {
		l.mu.Lock()
		h := l.host
		l.mu.Unlock()
		if h.online {
			return nil
		}
		if h.known && len(l.o.Servers) > 0 {
			return fmt.Errorf("%w: %q", errOffline, l.o.PrimaryHost)
		}
		select {
		case <-l.wake:
		case <-timer.C():
			return fmt.Errorf("%w: %q", errOffline, l.o.PrimaryHost)
		case <-l.conn.Done():
			return l.conn.Err()
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// leave ends the connection as the specification wants it: NDEATH first
// (tck-id-operational-behavior-edge-node-intentional-disconnect-ndeath), and with
// MQTT 5 no DISCONNECT, because one without "with will message" would be wrong
// (tck-id-payloads-ndeath-will-message-publisher-disconnect-mqtt50); the will
// that the server sends then has the same bdSeq, so hosts ignore it.
func (l *link) leave() {
	l.cancel()
	if l.conn.Err() == nil {
		l.die()
	}
	if l.o.Version == client.Version5 {
		l.raw.Close()
		<-l.conn.Done()
	}
	l.conn.Close()
}

// die publishes NDEATH and waits a little for the server to confirm it. QoS 1,
// unlike data, is allowed for it, and tells when the connection may be closed.
func (l *link) die() {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	m := client.Message{Topic: l.o.appendTopic(nil, ndeath, ""), Payload: appendDeath(nil, l.s.bd, l.o.Clock.Now()), QoS: 1}
	answer := make(chan error, 1)
	go func() { answer <- l.conn.PublishWait(ctx, &m) }()
	timer := l.o.Clock.NewTimer(deathWait)
	defer timer.Stop()
	select {
	case <-answer:
	case <-timer.C():
		cancel()
		<-answer
	}
	l.u.stats.deaths.Add(1)
}

// run is the life of the link after its birth.
func (l *link) run() {
	defer close(l.done)
	timer := l.o.Clock.NewTimer(time.Hour)
	defer timer.Stop()
	var err error
	for {
		var more bool
		if more, err = l.turn(); err != nil {
			break
		}
		if more {
			continue
		}
		timer.Reset(max(l.due(), time.Millisecond))
		select {
		case <-l.wake:
		case <-timer.C():
		case <-l.ctx.Done():
		case <-l.conn.Done():
		}
	}
	l.finish(err)
}

// finish ends the connection and settles what is left.
func (l *link) finish(err error) {
	l.mu.Lock()
	l.ended, l.err = true, err
	left := append(l.sent, l.queue...)
	l.sent, l.queue = nil, nil
	l.mu.Unlock()
	l.walk = errors.Is(err, errOffline) || errors.Is(err, errNextServer)
	l.leave()
	l.goroutines.Wait()
	for _, i := range left {
		i.settled(err)
	}
}

// why returns why the link has to end now, nil if it has not.
func (l *link) why() error {
	if l.isOffline() {
		return fmt.Errorf("%w: %q", errOffline, l.o.PrimaryHost)
	}
	if err := l.conn.Err(); err != nil {
		return err
	}
	if l.ctx.Err() != nil {
		return client.ErrClosed
	}
	return nil
}
