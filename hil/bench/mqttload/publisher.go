package mqttload

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

type slot struct {
	at    int64
	phase int32
}

type publisher struct {
	sh       *shared
	c        *conn
	n        int
	free     chan uint16
	slots    []slot
	h        hist
	readDone chan struct{}
	dead     chan struct{}
}

func newPublisher(sh *shared, c *conn, n int) *publisher {
	p := &publisher{sh: sh, c: c, n: n, readDone: make(chan struct{}), dead: make(chan struct{})}
	w := sh.cfg.Window
	if c.receiveMax > 0 && w > c.receiveMax {
		w = c.receiveMax
	}
	p.free = make(chan uint16, w)
	p.slots = make([]slot, w+1)
	for i := 1; i <= w; i++ {
		p.free <- uint16(i)
	}
	go p.readLoop()
	return p
}

func (p *publisher) writeLoop() {
	cfg := p.sh.cfg
	topic := strings.NewReplacer("{n}", fmt.Sprint(p.n), "{client}", p.c.id).Replace(cfg.Topic)
	pkt := buildPublish(cfg.Version, topic, byte(cfg.QoS), cfg.Size)
	var interval, due int64
	if cfg.Rate > 0 {
		interval = int64(float64(time.Second) * float64(cfg.Publishers) / cfg.Rate)
		due = p.sh.now() + interval*int64(p.n)/int64(cfg.Publishers)
	}
	var seq uint64
	for {
		ph := p.sh.phase.Load()
		if ph == phaseDone {
			break
		}
		if p.sh.sent.Load() >= cfg.Count {
			break
		}
		var id uint16
		now := p.sh.now()
		if interval > 0 {
			if due > now {
				if p.c.w.Buffered() > 0 {
					if err := p.c.w.Flush(); err != nil {
						p.sh.fail("write", err)
						return
					}
				}
				time.Sleep(time.Duration(due - now))
				now = p.sh.now()
			}
			// A late wake-up of our own is not the broker's latency; being
			// held back by a full window is.
			if now-due > int64(2*time.Millisecond) {
				now = due
			}
			due += interval
		}
		if cfg.QoS == 1 {
			select {
			case id = <-p.free:
			default:
				if err := p.c.w.Flush(); err != nil {
					p.sh.fail("write", err)
					return
				}
				select {
				case id = <-p.free:
				case <-p.dead:
					return
				case <-time.After(30 * time.Second):
					p.sh.fail("publish", fmt.Errorf("no ack within 30 s"))
					return
				}
			}
			if interval == 0 {
				now = p.sh.now()
			}
			p.slots[id] = slot{now, ph}
		}
		pkt.stamp(id, now, uint32(p.n), seq)
		seq++
		if _, err := p.c.w.Write(pkt.b); err != nil {
			p.sh.fail("write", err)
			return
		}
		p.sh.sent.Add(1)
	}
	if err := p.c.w.Flush(); err != nil {
		p.sh.fail("write", err)
	}
}

func (p *publisher) readLoop() {
	defer close(p.readDone)
	defer close(p.dead)
	for {
		typ, _, body, err := p.c.read()
		if err != nil {
			if !p.c.closed.Load() {
				p.sh.fail("publisher read", err)
			}
			return
		}
		switch typ {
		case 4: // PUBACK
			if len(body) < 2 {
				p.sh.fail("puback", fmt.Errorf("short packet"))
				return
			}
			id := binary.BigEndian.Uint16(body)
			if id == 0 || int(id) >= len(p.slots) {
				p.sh.fail("puback", fmt.Errorf("unknown packet id"))
				return
			}
			if len(body) > 2 && body[2] >= 0x80 {
				p.sh.refused.Add(1)
			} else {
				p.sh.acked.Add(1)
			}
			if p.slots[id].phase == phaseMeasure {
				p.h.add(p.sh.now() - p.slots[id].at)
			}
			p.free <- id
		case 14:
			p.sh.fail("publisher", fmt.Errorf("broker sent DISCONNECT %x", body))
			return
		}
	}
}
