package mqttload

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// A Histogram counts durations from many goroutines.
type Histogram struct {
	mu sync.Mutex
	h  hist
}

// Add counts one duration; negative ones count as zero.
func (h *Histogram) Add(d time.Duration) {
	h.mu.Lock()
	h.h.add(max(0, d.Nanoseconds()))
	h.mu.Unlock()
}

// Summary returns what was counted so far.
func (h *Histogram) Summary() Latency {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.h.summary()
}

// Listen subscribes at QoS 0 and calls f for every message until the result is
// closed. topic and payload are valid during the call.
func Listen(broker, client, filter string, f func(topic, payload []byte)) (io.Closer, error) {
	o := Options{Broker: broker, ClientID: client}.withDefaults()
	c, err := dial(o, "watch", 0)
	if err != nil {
		return nil, err
	}
	if err := c.subscribe(filter, 0); err != nil {
		c.close()
		return nil, err
	}
	l := &listener{c: c, done: make(chan struct{})}
	go l.loop(f)
	return l, nil
}

type listener struct {
	c    *conn
	done chan struct{}
}

func (l *listener) loop(f func(topic, payload []byte)) {
	defer close(l.done)
	for {
		typ, flags, body, err := l.c.read()
		if err != nil {
			return
		}
		if typ != 3 {
			continue
		}
		if _, payload, err := parsePublish(l.c.version, flags, body); err == nil {
			n := 2 + int(body[0])<<8 + int(body[1])
			f(body[2:n], payload)
		}
	}
}

// Close ends the subscription and waits for the last call.
func (l *listener) Close() error {
	l.c.close()
	<-l.done
	return nil
}

// An Asker sends requests and waits for their answers.
type Asker struct {
	out     *conn
	in      io.Closer
	answers chan []byte
}

// Ask connects an Asker whose answers arrive under filter.
func Ask(broker, client, filter string) (*Asker, error) {
	a := &Asker{answers: make(chan []byte, 64)}
	var err error
	a.in, err = Listen(broker, client, filter, func(_, payload []byte) {
		select {
		case a.answers <- append([]byte(nil), payload...):
		default: // nobody waits for that many answers
		}
	})
	if err != nil {
		return nil, err
	}
	if a.out, err = dial(Options{Broker: broker, ClientID: client}.withDefaults(), "ask", 0); err != nil {
		a.in.Close()
		return nil, err
	}
	go func() { // acknowledgements are not waited for: the answer says more
		for {
			if _, _, _, err := a.out.read(); err != nil {
				return
			}
		}
	}()
	return a, nil
}

// Request publishes payload at QoS 1 and returns the first answer that
// contains mark.
func (a *Asker) Request(topic string, payload, mark []byte, wait time.Duration) ([]byte, error) {
	body := append(str(nil, topic), 0, 1)
	body = append(body, payload...)
	if _, err := a.out.nc.Write(append(varint([]byte{0x32}, len(body)), body...)); err != nil {
		return nil, err
	}
	t := time.NewTimer(wait)
	defer t.Stop()
	for {
		select {
		case answer := <-a.answers:
			if bytes.Contains(answer, mark) {
				return answer, nil
			}
		case <-t.C:
			return nil, fmt.Errorf("no answer within %s", wait)
		}
	}
}

// Close ends both connections.
func (a *Asker) Close() error {
	a.out.close()
	return a.in.Close()
}
