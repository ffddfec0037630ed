package fault

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// echo starts a server that sends back what it gets, and tells of each
// connection's end.
func echo(t *testing.T) (addr string, ends <-chan error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 100)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				_, err := io.Copy(c, c)
				ended <- err
				c.Close()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String(), ended
}

func start(t *testing.T, target string) *Link {
	l, err := Open(Options{Target: target, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return l
}

type peer struct {
	net.Conn
	r *bufio.Reader
	t *testing.T
}

func connect(t *testing.T, l *Link) *peer {
	c, err := net.Dial("tcp", l.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &peer{c, bufio.NewReader(c), t}
}

// say sends a line and returns what comes back in time.
func (p *peer) say(line string, wait time.Duration) (string, error) {
	p.t.Helper()
	if _, err := io.WriteString(p, line+"\n"); err != nil {
		return "", err
	}
	return p.hear(wait)
}

func (p *peer) hear(wait time.Duration) (string, error) {
	p.SetReadDeadline(time.Now().Add(wait))
	s, err := p.r.ReadString('\n')
	if err != nil {
		return s, err
	}
	return s[:len(s)-1], nil
}

const patience = 20 * time.Second

func (p *peer) mustSay(line string) {
	p.t.Helper()
	if s, err := p.say(line, patience); err != nil || s != line {
		p.t.Fatalf("said %q, heard %q, %v", line, s, err)
	}
}

// mustEnd fails unless the connection ends with the given error.
func (p *peer) mustEnd(want error) {
	p.t.Helper()
	if _, err := p.hear(patience); !errors.Is(err, want) {
		p.t.Fatalf("ended with %v, want %v", err, want)
	}
}

func TestEndings(t *testing.T) {
	addr, ends := echo(t)
	l := start(t, addr)
	for _, c := range []struct {
		name string
		end  func()
		want error
	}{
		{"cut", l.Cut, io.EOF},
		{"reset", l.Reset, syscall.ECONNRESET},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := connect(t, l)
			p.mustSay("hello")
			c.end()
			p.mustEnd(c.want)
			<-ends
			p = connect(t, l)
			p.mustSay("again")
			p.Close()
			<-ends
		})
	}
}

func TestSilentModes(t *testing.T) {
	for _, c := range []struct {
		mode    Mode
		told    bool // the target is told
		swallow bool
		heals   bool // the connection goes on afterwards
	}{
		{BlackHole, false, true, false},
		{HalfOpen, true, true, false},
		{Stall, false, false, true},
	} {
		t.Run(c.mode.String(), func(t *testing.T) {
			addr, ends := echo(t)
			l := start(t, addr)
			p := connect(t, l)
			p.mustSay("hello")
			l.Set(c.mode)
			if s, err := p.say("anybody there", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("heard %q, %v", s, err)
			}
			if c.told {
				select {
				case <-ends:
				case <-time.After(patience):
					t.Error("the target was not told")
				}
			} else if len(ends) > 0 {
				t.Error("the target was told")
			}
			fresh := connect(t, l)
			if s, err := fresh.say("new here", 200*time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a new connection heard %q, %v", s, err)
			}
			if n := l.Count().Swallowed; (n > 0) != c.swallow {
				t.Errorf("%d bytes swallowed", n)
			}
			l.Set(Pass)
			fresh.mustEnd(syscall.ECONNRESET)
			if c.heals {
				if s, err := p.hear(patience); err != nil || s != "anybody there" {
					t.Errorf("after the stall heard %q, %v", s, err)
				}
			} else {
				p.mustEnd(syscall.ECONNRESET)
			}
			connect(t, l).mustSay("back")
		})
	}
}

func TestRefuse(t *testing.T) {
	addr, _ := echo(t)
	l := start(t, addr)
	old := connect(t, l)
	old.mustSay("hello")
	l.Set(Refuse)
	mustRefuse(t, l)
	old.mustSay("still here")
}

func TestShape(t *testing.T) {
	addr, _ := echo(t)
	l := start(t, addr)
	p := connect(t, l)
	l.SetShape(Shape{Delay: 50 * time.Millisecond, Jitter: 10 * time.Millisecond})
	begin := time.Now()
	p.mustSay("late")
	if d := time.Since(begin); d < 100*time.Millisecond {
		t.Errorf("there and back took %v, want at least 100 ms", d)
	}
	for range 20 {
		p.mustSay("in order") // would fail if chunks overtook
	}
	l.SetShape(Shape{Bandwidth: 100_000})
	begin = time.Now()
	p.mustSay(string(make([]byte, 20_000)))
	if d := time.Since(begin); d < 200*time.Millisecond {
		t.Errorf("20 kB at 100 kB/s took %v, want at least 200 ms", d)
	}
}

func TestTargetGone(t *testing.T) {
	mustRefuse(t, start(t, "127.0.0.1:1"))
}

// mustRefuse fails unless a connection is reset, during or after connect.
func mustRefuse(t *testing.T, l *Link) {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr())
	if err == nil {
		defer c.Close()
		c.SetReadDeadline(time.Now().Add(patience))
		_, err = c.Read(make([]byte, 1))
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want a reset", err)
	}
}
