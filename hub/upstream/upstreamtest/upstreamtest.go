// Package upstreamtest is the conformance suite that every upstream passes: it
// holds hub.Upstream and hub.Link to their word.
package upstreamtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast/hub"
)

// An Answer is what the far side does with a message.
type Answer int

// The answers.
const (
	Confirm Answer = iota
	Reject         // refuse for good
	Refuse         // refuse for now
	Ignore         // take it and say nothing, but stay alive
)

// A Far is an upstream and its far side, in the hands of the suite.
//
// It has more than three methods because it is everything that can happen to a
// link.
type Far interface {
	Upstream() hub.Upstream
	// Answer says what happens to messages from now on.
	Answer(a Answer)
	// Got returns the payloads that arrived, in order of arrival.
	Got() []string
	// Cut ends the connections; the upstream is told.
	Cut()
	// Vanish makes the far side silent for good, without telling the upstream.
	Vanish()
	// Bound is the time in which the link ends by itself. Pass lets time go by.
	Bound() time.Duration
	Pass(d time.Duration)
}

// A Limited far side cannot give some answers, because its protocol has no word
// for them. The tests that need one of these are skipped.
type Limited interface {
	Cannot(a Answer) bool
}

// patience is how long the suite waits for what must happen: long, so that a
// loaded machine fails nothing.
const patience = 20 * time.Second

// Run runs the suite; open makes a far side of its own for each test.
func Run(t *testing.T, open func(t *testing.T) Far) {
	for _, c := range []struct {
		name  string
		test  func(*testing.T, Far, *sender)
		needs Answer
	}{
		{"ConfirmsInOrder", confirms, Confirm},
		{"MoreThanFits", moreThanFits, Confirm},
		{"RejectedIsFinal", rejected, Reject},
		{"RefusedIsNotFinal", refused, Refuse},
		{"CutSettlesAll", cut, Ignore},
		{"CloseSettlesAll", closes, Ignore},
		{"SilenceIsSeenInBound", silence, Ignore},
		{"NoConfirmationIsSeenInBound", ignored, Ignore},
		{"ConnectsAgain", again, Confirm},
	} {
		t.Run(c.name, func(t *testing.T) {
			far := open(t)
			if l, ok := far.(Limited); ok && l.Cannot(c.needs) {
				t.Skipf("the far side has no such answer (%d)", c.needs)
			}
			c.test(t, far, connect(t, far))
		})
	}
	t.Run("ConnectEndsWithContext", func(t *testing.T) {
		far := open(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if l, err := far.Upstream().Connect(ctx); err == nil {
			l.Close()
			t.Error("connected although the context had ended")
		}
	})
}

// A sender sends through a link and keeps the books.
type sender struct {
	t    *testing.T
	far  Far
	link hub.Link

	mu       sync.Mutex
	settled  map[int][]error
	order    []int
	errFirst error // what Err said when the first failed one was settled
	count    int
}

func connect(t *testing.T, far Far) *sender {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	l, err := far.Upstream().Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return &sender{t: t, far: far, link: l, settled: map[int][]error{}}
}

func payload(i int) string { return fmt.Sprintf("message %d", i) }

// send sends n messages.
func (s *sender) send(n int) {
	s.t.Helper()
	for range n {
		i := s.count
		s.count++
		m := &hub.Outgoing{
			Record: hub.Record{QoS: 1, Received: int64(i), Sender: []byte("s"), Topic: []byte("t"), Payload: []byte(payload(i))},
			Epoch:  1, Offset: uint64(i + 1), Attempt: 1, Priority: hub.DefaultPriority,
		}
		// The lock makes a settlement from within Send a deadlock that the
		// test's timeout tells of, without a race on what is kept.
		if err := s.locked(func() error { return s.link.Send(m, func(err error) { s.settle(i, err) }) }); err != nil {
			s.t.Fatalf("send %d: %v", i, err)
		}
	}
}

func (s *sender) locked(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return f()
}

func (s *sender) settle(i int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled[i] = append(s.settled[i], err)
	s.order = append(s.order, i)
	if err != nil && s.errFirst == nil {
		if s.errFirst = s.link.Err(); s.errFirst == nil {
			s.errFirst = errors.New("")
		}
	}
}

// wait waits until all that was sent is settled, each exactly once, and returns
// the errors in order of sending.
func (s *sender) wait() (errs []error) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		s.mu.Lock()
		done := len(s.settled) == s.count
		s.mu.Unlock()
		if done {
			break
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%d of %d settled", len(s.settled), s.count)
		}
		s.far.Pass(time.Millisecond)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.count {
		if n := len(s.settled[i]); n != 1 {
			s.t.Errorf("message %d was settled %d times", i, n)
		}
		errs = append(errs, s.settled[i][0])
	}
	return errs
}

// ended waits for the link's end and checks everything that holds then.
func (s *sender) ended() {
	s.t.Helper()
	select {
	case <-s.link.Done():
	case <-time.After(patience):
		s.t.Fatal("the link did not end")
	}
	if s.link.Err() == nil {
		s.t.Error("the link has ended and Err is nil")
	}
	s.mu.Lock()
	n := len(s.settled)
	s.mu.Unlock()
	if n != s.count {
		s.t.Errorf("when Done was closed %d of %d were settled", n, s.count)
	}
	for i, err := range s.wait() {
		if err == nil || errors.Is(err, hub.ErrRejected) {
			s.t.Errorf("message %d was settled with %v, want an error that is not final", i, err)
		}
	}
	if s.count > 0 && s.errFirst.Error() == "" {
		s.t.Error("Err was nil when the first message was settled because of the end")
	}
	err := s.link.Send(&hub.Outgoing{Record: hub.Record{Topic: []byte("t")}}, func(error) { s.t.Error("settled although Send failed") })
	if err == nil || errors.Is(err, hub.ErrRejected) {
		s.t.Errorf("Send on an ended link says %v", err)
	}
	if err := s.link.Close(); err != nil {
		s.t.Errorf("Close of an ended link says %v", err)
	}
}

func confirms(t *testing.T, far Far, s *sender) {
	s.send(500)
	for i, err := range s.wait() {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
	checkGot(t, far, 500)
}

func checkGot(t *testing.T, far Far, n int) {
	t.Helper()
	var want []string
	for i := range n {
		want = append(want, payload(i))
	}
	if got := far.Got(); !slices.Equal(got, want) {
		t.Errorf("%d arrived, want %d in order; first %.3q", len(got), n, got)
	}
}

// moreThanFits sends more at once than any far side has room for: Send does
// not wait, so the link keeps them.
func moreThanFits(t *testing.T, far Far, s *sender) {
	s.send(5000)
	for i, err := range s.wait() {
		if err != nil {
			t.Fatalf("message %d: %v", i, err)
		}
	}
	checkGot(t, far, 5000)
}

func rejected(t *testing.T, far Far, s *sender) {
	far.Answer(Reject)
	s.send(3)
	for i, err := range s.wait() {
		if !errors.Is(err, hub.ErrRejected) {
			t.Errorf("message %d: %v, want ErrRejected", i, err)
		}
	}
	s.goesOn(far)
}

func refused(t *testing.T, far Far, s *sender) {
	far.Answer(Refuse)
	s.send(3)
	for i, err := range s.wait() {
		if err == nil || errors.Is(err, hub.ErrRejected) {
			t.Errorf("message %d: %v, want an error that is not final", i, err)
		}
	}
	s.goesOn(far)
}

// goesOn checks that the link lives.
func (s *sender) goesOn(far Far) {
	s.t.Helper()
	if err := s.link.Err(); err != nil {
		s.t.Fatalf("the link has ended: %v", err)
	}
	far.Answer(Confirm)
	s.send(1)
	if errs := s.wait(); errs[len(errs)-1] != nil {
		s.t.Errorf("afterwards: %v", errs[len(errs)-1])
	}
}

func cut(t *testing.T, far Far, s *sender) {
	far.Answer(Ignore)
	s.send(2000)
	far.Cut()
	s.ended()
}

func closes(t *testing.T, far Far, s *sender) {
	far.Answer(Ignore)
	s.send(2000)
	closed := make(chan error, 1)
	go func() { closed <- s.link.Close() }()
	for {
		select {
		case err := <-closed:
			if err != nil {
				t.Error(err)
			}
			s.ended()
			return
		case <-time.After(time.Millisecond):
			far.Pass(10 * time.Millisecond)
		}
	}
}

func silence(t *testing.T, far Far, s *sender) {
	far.Vanish()
	s.dies(far)
	s.ended()
}

func ignored(t *testing.T, far Far, s *sender) {
	far.Answer(Ignore)
	s.send(10)
	s.dies(far)
	s.ended()
}

// dies lets the bound pass, and checks that the link ends then and not long
// before.
func (s *sender) dies(far Far) {
	s.t.Helper()
	const steps = 100
	step := far.Bound() / steps
	for i := range steps + steps/10 {
		select {
		case <-s.link.Done():
			if i < steps*8/10 {
				s.t.Errorf("the link gave up after %v already, its bound is %v: %v", time.Duration(i)*step, far.Bound(), s.link.Err())
			}
			return
		default:
			far.Pass(step)
			time.Sleep(5 * time.Millisecond) // what the passing of time set off must get through
		}
	}
	select {
	case <-s.link.Done():
	case <-time.After(patience): // no more time passes, so it must be on its way
		s.t.Fatalf("the link is up after its bound of %v", far.Bound())
	}
}

func again(t *testing.T, far Far, s *sender) {
	far.Cut()
	s.ended()
	s = connect(t, far)
	s.send(10)
	for i, err := range s.wait() {
		if err != nil {
			t.Errorf("message %d: %v", i, err)
		}
	}
}
