package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"holdfast/hub/client"
)

const (
	senders      = 4
	senderWindow = 64
	senderPause  = 2 * time.Millisecond
	// declared is the window of duplicates: what was delivered and confirmed, and
	// then saw this much of one life of the hub, is not delivered again. Positions
	// are saved every second (session.Options.SaveEvery); the rest is for a
	// machine that is busy.
	declared = 3 * time.Second
	longLife = 4 * time.Second // of a hub whose deliveries the window then covers
)

// TestCrashKill kills the real hub process under load, again and again, and
// then counts: every acknowledged message arrives, in the order of its sender,
// nothing arrives that was not sent, and what arrives twice was first delivered
// inside the declared window.
func TestCrashKill(t *testing.T) {
	kills, _ := strconv.Atoi(os.Getenv("HOLDFAST_KILLS"))
	if kills == 0 {
		kills = 5
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, %d kills", seed, kills)
	rnd := rand.New(rand.NewPCG(seed, seed))

	g := newGateway(t, "hub", "[log]\nlevel = \"warn\"\n[hub.journal]\nsegment = \"1MiB\"\nbudget = \"1GiB\"\n[hub.limits]\nmessage_size = \"64KiB\"\n")
	g.start()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	sub := &witness{arrived: map[uint32]*received{}}
	var all sync.WaitGroup
	defer all.Wait()
	defer cancel()
	sub.started()
	all.Go(func() { sub.run(ctx, g.socket()) })
	g.wait("the subscription is there", sub.isReady)
	sending, stopSending := context.WithCancel(ctx)
	defer stopSending()
	list := make([]*sender, senders)
	for i := range list {
		list[i] = &sender{id: uint32(i + 1)}
		all.Go(func() { list[i].run(ctx, sending, g.socket()) })
	}
	for i := range kills {
		if i%20 == 2 {
			time.Sleep(longLife)
		}
		time.Sleep(time.Duration(50+rnd.IntN(400)) * time.Millisecond)
		sub.killed(g.kill)
		g.start()
		sub.started()
	}
	time.Sleep(200 * time.Millisecond)
	stopSending()
	g.wait("everything sent is acknowledged", func() bool {
		for _, s := range list {
			if !s.idle() {
				return false
			}
		}
		return true
	})
	for start := time.Now(); sub.missing(list) > 0; time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			metrics, _ := g.run("status", "--json")
			t.Fatalf("%d acknowledged messages have not arrived after %s\n%s\n%s", sub.missing(list), patience, sub.standing(list), metrics)
		}
	}
	g.stop()

	total := 0
	for _, s := range list {
		total += int(s.acked)
		if s.acked < uint32(kills) {
			t.Errorf("sender %d: only %d messages were acknowledged in %d lives of the hub", s.id, s.acked, kills)
		}
	}
	sub.mu.Lock()
	defer sub.mu.Unlock()
	for _, problem := range sub.problems {
		t.Error(problem)
	}
	t.Logf("%d acknowledged, all arrived; %d duplicates, after up to %s of one life", total, sub.repeats, sub.oldest.Round(time.Millisecond))
	if out, err := g.run("journal", "verify"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// A sender publishes numbers, many in flight, and after each crash sends again
// what was not acknowledged, in its order.
type sender struct {
	id uint32

	mu      sync.Mutex
	acked   uint32 // all up to here are acknowledged
	next    uint32 // of the numbers sent on this connection
	highest uint32 // ever sent
	lost    bool   // the connection has lost something: it has to begin anew
}

func (s *sender) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked == s.highest
}

func (s *sender) run(ctx, sending context.Context, socket string) {
	for ctx.Err() == nil && (sending.Err() == nil || !s.idle()) {
		conn, _, err := client.Dial(ctx, client.Options{URL: "unix://" + socket, ClientID: fmt.Sprintf("sender-%d", s.id), Window: senderWindow})
		if err != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		s.begin()
		for conn.Err() == nil && ctx.Err() == nil && s.one(ctx, conn, sending.Err() == nil) {
			time.Sleep(senderPause)
		}
		conn.Close() // settles all that is in flight
	}
}

func (s *sender) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.next, s.lost = s.acked, false
}

// one publishes the next number if there is one to send, and reports whether
// the connection is still of use.
func (s *sender) one(ctx context.Context, conn *client.Conn, more bool) bool {
	s.mu.Lock()
	if s.lost || !more && s.acked == s.highest {
		s.mu.Unlock()
		return false
	}
	if !more && s.next == s.highest {
		s.mu.Unlock()
		return true // waiting for acknowledgements
	}
	s.next++
	n := s.next
	s.highest = max(s.highest, n)
	s.mu.Unlock()
	m := client.Message{Topic: []byte(fmt.Sprintf("crash/%d", s.id)), Payload: payload(s.id, n), QoS: 1}
	return conn.Publish(ctx, &m, func(code byte, err error) { s.answer(n, err) }) == nil
}

func (s *sender) answer(n uint32, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.lost = true
	case !s.lost:
		s.acked = max(s.acked, n) // acknowledgements come in order (MQTT 5, 4.6)
	}
}

// payload is a message that cannot be confused with another one, nor be half of
// one: sender, number, filling that depends on both, checksum.
func payload(sender, n uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, sender)
	b = binary.LittleEndian.AppendUint32(b, n)
	for range n % 300 {
		b = append(b, byte(n^sender))
	}
	return binary.LittleEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
}

// A witness subscribes with a session that survives, and notes what arrives.
type witness struct {
	mu       sync.Mutex
	ready    bool
	arrived  map[uint32]*received
	lives    []life
	repeats  int
	oldest   time.Duration // the longest part of one life that a message saw before it was delivered again
	problems []string
}

// life is from a start of the hub to its kill; to is zero while it lives.
type life struct{ from, to time.Time }

type received struct {
	highest uint32
	times   []time.Time // of the first delivery of each number
}

func (w *witness) isReady() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.ready
}

// started notes that a new life has begun.
func (w *witness) started() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lives = append(w.lives, life{from: time.Now()})
}

// killed ends a life. Its end is noted before the kill, so that nothing that is
// delivered afterwards counts as seen by it.
func (w *witness) killed(kill func()) {
	w.mu.Lock()
	w.lives[len(w.lives)-1].to = time.Now()
	w.mu.Unlock()
	kill()
}

// seen returns the longest part of one finished life after a time. mu is held.
func (w *witness) seen(since time.Time) (longest time.Duration) {
	for i := len(w.lives) - 1; i >= 0; i-- {
		l := w.lives[i]
		if l.to.IsZero() {
			continue
		}
		if l.to.Before(since) {
			break
		}
		from := l.from
		if since.After(from) {
			from = since
		}
		longest = max(longest, l.to.Sub(from))
	}
	return longest
}

func (w *witness) run(ctx context.Context, socket string) {
	k := client.NewKeeper(client.KeeperOptions{
		Options: client.Options{URL: "unix://" + socket, ClientID: "witness", KeepSession: true, OnMessage: w.take},
		OnUp: func(ctx context.Context, c *client.Conn, present bool) error {
			w.mu.Lock()
			again := w.ready
			if again && !present {
				w.problems = append(w.problems, "the hub has forgotten the session")
			}
			w.mu.Unlock()
			if again {
				return nil // the subscription is part of the session
			}
			_, err := c.Subscribe(ctx, client.Subscription{Filter: "crash/+", QoS: 1})
			w.mu.Lock()
			defer w.mu.Unlock()
			w.ready = err == nil
			return err
		},
		MinPause: 5 * time.Millisecond, MaxPause: 50 * time.Millisecond,
	})
	_ = k.Run(ctx) // only options that cannot work make it fail, and then nothing arrives
}

func (w *witness) take(_ *client.Conn, m *client.Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	b := m.Payload
	if len(b) < 12 {
		w.problem("%d bytes that nobody sent", len(b))
		return
	}
	id, n := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:])
	if string(b) != string(payload(id, n)) || string(m.Topic) != fmt.Sprintf("crash/%d", id) {
		w.problem("topic %q, sender %d, number %d: not as it was sent", m.Topic, id, n)
		return
	}
	r := w.arrived[id]
	if r == nil {
		r = &received{}
		w.arrived[id] = r
	}
	now := time.Now()
	switch {
	case n == r.highest+1:
		r.highest = n
		r.times = append(r.times, now)
	case n > r.highest:
		w.problem("sender %d: %d arrives after %d", id, n, r.highest)
		for r.highest < n {
			r.highest++
			r.times = append(r.times, now)
		}
	default:
		w.repeats++
		saw := w.seen(r.times[n-1])
		w.oldest = max(w.oldest, saw)
		if saw > declared {
			w.problem("sender %d: %d is delivered again after %s of one life, more than %s", id, n, saw, declared)
		}
	}
}

func (w *witness) problem(format string, args ...any) {
	if len(w.problems) < 20 {
		w.problems = append(w.problems, fmt.Sprintf(format, args...))
	}
}

// missing returns how many acknowledged messages have not arrived, and notes
// those that arrived and were never sent.
func (w *witness) missing(list []*sender) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range list {
		s.mu.Lock()
		acked, highest := s.acked, s.highest
		s.mu.Unlock()
		r := w.arrived[s.id]
		if r == nil {
			n += int(acked)
			continue
		}
		n += int(max(acked, r.highest) - r.highest)
		if r.highest > highest {
			w.problem("sender %d: %d arrived, and only %d were sent", s.id, r.highest, highest)
		}
	}
	return n
}

// standing tells how far each sender's messages have come.
func (w *witness) standing(list []*sender) (text string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, s := range list {
		s.mu.Lock()
		text += fmt.Sprintf("sender %d: %d sent, %d acknowledged", s.id, s.highest, s.acked)
		s.mu.Unlock()
		if r := w.arrived[s.id]; r != nil {
			text += fmt.Sprintf(", up to %d arrived, the last one new %s ago", r.highest, time.Since(r.times[r.highest-1]).Round(time.Millisecond))
		}
		text += "\n"
	}
	return text + fmt.Sprintf("%d duplicates; %q", w.repeats, w.problems)
}
