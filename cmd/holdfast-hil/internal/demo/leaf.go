package demo

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"holdfast/hub/client"
	"holdfast/protocols/point"
)

// leafTopic is where the leaf device counts.
const leafTopic = "demo/count"

// leafPause is the time between two counts.
const leafPause = 10 * time.Millisecond

// A leaf is a device that speaks MQTT to the gateway: it counts, and keeps
// account of what the gateway has acknowledged. What it was not acknowledged it
// sends again, as every MQTT client does.
type leaf struct {
	ledger *ledger
	keeper *client.Keeper

	mu      sync.Mutex
	waiting []uint64 // sent on some connection and not acknowledged
	resend  bool
}

func newLeaf(socket string, l *ledger) *leaf {
	f := &leaf{ledger: l}
	f.keeper = client.NewKeeper(client.KeeperOptions{
		Options: client.Options{URL: "unix://" + socket, ClientID: "leaf", Window: 256},
		OnUp: func(context.Context, *client.Conn, bool) error {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.resend = true
			return nil
		},
		MinPause: 50 * time.Millisecond, MaxPause: 500 * time.Millisecond,
	})
	return f
}

// run counts until stop ends, and then waits until everything is acknowledged
// or ctx ends.
func (f *leaf) run(ctx context.Context, stop <-chan struct{}) error {
	done := make(chan error, 1)
	keeping, cancel := context.WithCancel(ctx)
	go func() { done <- f.keeper.Run(keeping) }()
	tick := time.NewTicker(leafPause)
	defer tick.Stop()
	next := uint64(1)
	for counting := true; counting || f.unacked() > 0; {
		select {
		case <-tick.C:
		case <-stop:
			counting, stop = false, nil
		case <-ctx.Done():
			cancel()
			return errors.Join(fmt.Errorf("the gateway did not acknowledge %d counts", f.unacked()), <-done)
		}
		conn, err := f.keeper.Conn()
		if err != nil {
			continue
		}
		f.again(conn)
		if counting && f.send(conn, next) {
			next++
		}
	}
	cancel()
	return <-done
}

func (f *leaf) unacked() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}

// again sends what an earlier connection did not get acknowledged.
func (f *leaf) again(conn *client.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.resend {
		return
	}
	f.resend = false
	for _, n := range f.waiting {
		if !f.publish(conn, n) {
			f.resend = true
			return
		}
	}
}

// send publishes a new number and reports whether it is on its way.
func (f *leaf) send(conn *client.Conn, n uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.resend || !f.publish(conn, n) {
		return false
	}
	f.waiting = append(f.waiting, n)
	return true
}

// publish hands one number over. mu is held; acknowledgements come from another
// goroutine and wait for it.
func (f *leaf) publish(conn *client.Conn, n uint64) bool {
	m := client.Message{Topic: []byte(leafTopic), Payload: strconv.AppendUint(nil, n, 10), QoS: 1}
	return conn.TryPublish(&m, func(code byte, err error) { f.answer(n, err) }) == nil
}

func (f *leaf) answer(n uint64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil {
		f.resend = true
		return
	}
	f.ledger.ack(n)
	for i, w := range f.waiting {
		if w == n {
			f.waiting = append(f.waiting[:i], f.waiting[i+1:]...)
			return
		}
	}
}

// collect is called with everything that arrives upstream.
func (l *ledger) collect(m *client.Message) error {
	if string(m.Topic) == leafTopic {
		n, err := strconv.ParseUint(string(m.Payload), 10, 64)
		if err != nil {
			return fmt.Errorf("a count that is none: %w", err)
		}
		l.number(n)
		return nil
	}
	var b point.Batch
	if err := point.DecodeBatch(m.Payload, &b); err != nil {
		return fmt.Errorf("topic %q: %w", m.Topic, err)
	}
	l.batch(b.Device, b.Boot, b.Sequence, len(b.Readings))
	return nil
}
