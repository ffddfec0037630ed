package modbus

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// queueUp starts callers one after the other, each waiting before the next one
// comes, and returns the order in which they are let in.
func queueUp(t *testing.T, prios ...priority) string {
	t.Helper()
	var s turnstile
	first := newTicket()
	if err := s.acquire(context.Background(), first, forRead); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var order []string
	var wg sync.WaitGroup
	for i, p := range prios {
		wg.Go(func() {
			if err := s.acquire(context.Background(), newTicket(), p); err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			order = append(order, fmt.Sprintf("%c%d", "wr"[p], i))
			mu.Unlock()
			s.release()
		})
		eventually(t, func() bool { return s.length() == i+1 })
	}
	s.release()
	wg.Wait()
	return strings.Join(order, " ")
}

func (s *turnstile) length() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, q := range s.waits {
		for t := q.head; t != nil; t = t.next {
			n++
		}
	}
	return n
}

// eventually waits for a condition that another goroutine brings about.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatal("did not happen within 20 s")
		}
	}
}

func TestWritesOvertakeReads(t *testing.T) {
	if got := queueUp(t, forRead, forRead, forWrite, forWrite); got != "w2 w3 r0 r1" {
		t.Error(got)
	}
}

func TestReadsAreNotStarved(t *testing.T) {
	prios := []priority{forRead, forRead}
	for range maxStreak + 2 {
		prios = append(prios, forWrite)
	}
	want := "w2 w3 w4 w5 w6 w7 w8 w9 r0 w10 w11 r1"
	if got := queueUp(t, prios...); got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestGivingUpAPlace(t *testing.T) {
	var s turnstile
	if err := s.acquire(context.Background(), newTicket(), forRead); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan error)
	go func() { gone <- s.acquire(ctx, newTicket(), forRead) }()
	eventually(t, func() bool { return s.length() == 1 })
	next := make(chan error)
	go func() { next <- s.acquire(context.Background(), newTicket(), forRead) }()
	eventually(t, func() bool { return s.length() == 2 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	s.release()
	if err := <-next; err != nil {
		t.Error(err)
	}
	s.release()
	if s.busy || s.waiting() {
		t.Error("not free in the end")
	}
}

// TestTurnstileUnderLoad has callers that give up at random moments; nobody may
// be let in twice and nobody may be forgotten.
func TestTurnstileUnderLoad(t *testing.T) {
	var s turnstile
	var inside, most, served int
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			tk := newTicket()
			for n := range 200 {
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(n%7)*50*time.Microsecond)
				if n%3 == 0 {
					cancel()
					ctx, cancel = context.WithCancel(context.Background())
				}
				if s.acquire(ctx, tk, priority(i%2)) == nil {
					inside++ // the turnstile is the lock: the race detector watches
					most = max(most, inside)
					served++
					inside--
					s.release()
				}
				cancel()
			}
		})
	}
	wg.Wait()
	if most != 1 || served < 16*200/3 || s.busy {
		t.Errorf("%d inside at once, %d served, busy %v", most, served, s.busy)
	}
}
