package demo

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

// stopTime is how long a process may take to stop before it is killed.
const stopTime = 15 * time.Second

// A process is one holdfast that the demo runs. It dies with the demo.
type process struct {
	name string
	args []string
	log  string // file for what it prints

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{}
}

func newProcess(dir, name string, args ...string) *process {
	return &process{name: name, args: args, log: filepath.Join(dir, name+".log")}
}

// start starts it, again after a kill.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	out, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(p.args[0], p.args[1:]...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = dieWithParent()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.name, err)
	}
	p.cmd, p.ended = cmd, make(chan struct{})
	go func(ended chan struct{}) {
		_ = cmd.Wait() // how it ended is for those who stop it to say
		close(ended)
	}(p.ended)
	return nil
}

// running reports whether it still runs.
func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// kill is what a power cut is to a process: no handler runs, nothing is flushed.
func (p *process) kill() {
	p.signal(syscall.SIGKILL)
}

// stop asks it to stop, and insists after stopTime.
func (p *process) stop() error {
	if !p.running() {
		return nil
	}
	if !p.signalWait(syscall.SIGTERM, stopTime) {
		p.kill()
		return fmt.Errorf("%s did not stop within %s", p.name, stopTime)
	}
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		return fmt.Errorf("%s ended with status %d: %w", p.name, code, p.lastWords())
	}
	return nil
}

func (p *process) signal(s syscall.Signal) { p.signalWait(s, stopTime) }

func (p *process) signalWait(s syscall.Signal, limit time.Duration) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return true
	}
	_ = p.cmd.Process.Signal(s) // it may have ended already
	select {
	case <-p.ended:
		return true
	case <-time.After(limit):
		return false
	}
}

// lastWords returns the last line that the process printed, as an error.
func (p *process) lastWords() error {
	data, err := os.ReadFile(p.log)
	if err != nil {
		return err
	}
	lines := strings.Split(string(bytes.TrimSpace(data)), "\n")
	return errors.New(lines[len(lines)-1])
}
