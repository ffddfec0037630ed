package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"holdfast/cmd/internal/control"
	"holdfast/hil/fault"
)

// A step is something that happens at a time of the demo.
type step struct {
	at time.Duration
	do func() error
}

// script is what happens: a command to the plant, and with Cut a cut of the
// link, a cut of the power while the link is down, and another while it is up.
func (d *demo) script() []step {
	at := func(percent int) time.Duration { return d.o.Duration * time.Duration(percent) / 100 }
	steps := []step{{at(10), func() error { return d.command("tank/valve", "65") }}}
	if !d.o.Cut {
		return steps
	}
	return append(steps,
		step{at(25), d.cutLink},
		step{at(40), func() error { return d.cutPower("while the link is down") }},
		step{at(46), d.powerOn},
		step{at(60), d.mendLink},
		step{at(78), func() error { return d.cutPower("while everything is busy") }},
		step{at(82), d.powerOn},
	)
}

func (d *demo) cutLink() error {
	d.proxy.Set(fault.BlackHole)
	d.view.event("CUT: the link to the upstream swallows everything; the gateway notices, and stores")
	return nil
}

func (d *demo) mendLink() error {
	d.proxy.Set(fault.Pass)
	d.view.event("the link is back; the gateway sends what it has stored")
	return nil
}

func (d *demo) cutPower(when string) error {
	d.device.kill()
	d.view.event("CUT: the gateway loses power (kill -9), %s", when)
	return nil
}

func (d *demo) powerOn() error {
	d.view.event("power is back; the gateway starts")
	return d.device.start()
}

// command sends a command to the plant, as an operator does.
func (d *demo) command(tag, value string) error {
	start := time.Now()
	out, err := exec.Command(d.o.Program, "write", tag, value, "--verify", "--json", "--config", filepath.Join(d.dir, "device.toml")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("write %s: %w: %s", tag, err, strings.TrimSpace(string(out)))
	}
	var answer struct {
		Milliseconds float64 `json:"milliseconds"`
	}
	if err := json.Unmarshal(out, &answer); err != nil {
		return fmt.Errorf("answer to a command: %w", err)
	}
	d.view.event("command: %s = %s, confirmed and read back %.1f ms after it was sent (%s with the start of the program)", tag, value,
		answer.Milliseconds, time.Since(start).Round(time.Millisecond))
	return nil
}

// A look is what can be seen at one moment.
type look struct {
	running bool
	tags    []control.Tag
	hub     *control.HubStatus // nil: does not answer
	verdict verdict
}

func (d *demo) look(ctx context.Context) look {
	l := look{running: d.device.running(), verdict: d.ledger.verdict()}
	if !l.running {
		return l
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	// What does not answer is not shown; the next look asks again.
	_ = d.field.Get(ctx, "tags", &l.tags)
	var h control.HubStatus
	if d.hub.Get(ctx, "status", &h) == nil {
		l.hub = &h
	}
	return l
}
