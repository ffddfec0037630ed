package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/internal/control"
)

// beHoldfast makes the test binary be the program itself, so that tests run
// the code that they were built with in a process that can be killed.
const beHoldfast = "HOLDFAST_TEST_BE_HOLDFAST"

func TestMain(m *testing.M) {
	if os.Getenv(beHoldfast) != "" {
		main()
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what normally takes milliseconds: the
// machine may be busy with other things.
const patience = 30 * time.Second

// gateway is one holdfast process with its directories.
type gateway struct {
	t    *testing.T
	dir  string
	verb string
	cmd  *exec.Cmd
	log  bytes.Buffer // of all its starts; read only while none runs
}

// newGateway writes a configuration, in which $DIR is the gateway's directory.
func newGateway(t *testing.T, verb, config string) *gateway {
	t.Helper()
	// Names of sockets are limited to 107 bytes, and t.TempDir is long.
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	g := &gateway{t: t, dir: dir, verb: verb}
	t.Cleanup(func() {
		g.kill()
		if t.Failed() {
			t.Logf("log of holdfast %s:\n%s", verb, tail(g.log.String(), 40))
		}
		os.RemoveAll(dir)
	})
	text := "name = \"test\"\ndata = \"$DIR/data\"\nrun = \"$DIR/run\"\n" + config
	if err := os.WriteFile(g.path("config.toml"), []byte(strings.ReplaceAll(text, "$DIR", dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	return g
}

func tail(s string, lines int) string {
	all := strings.Split(s, "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func (g *gateway) path(name string) string { return filepath.Join(g.dir, name) }

func (g *gateway) socket() string { return g.path("run/hub.sock") }

func (g *gateway) command(args ...string) *exec.Cmd {
	c := exec.Command(os.Args[0], append(args, "--config", g.path("config.toml"))...)
	c.Env = append(os.Environ(), beHoldfast+"=1")
	return c
}

// start starts the process and waits until it answers.
func (g *gateway) start() {
	g.t.Helper()
	g.cmd = g.command(g.verb)
	g.cmd.Stdout, g.cmd.Stderr = &g.log, &g.log
	if err := g.cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	hub := control.NewClient(g.path("run/" + control.HubSocket))
	var s control.HubStatus
	g.wait("the hub answers", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		return hub.Get(ctx, "status", &s) == nil && s.PID == g.cmd.Process.Pid
	})
}

// kill ends the process as a power cut does.
func (g *gateway) kill() {
	if g.cmd == nil {
		return
	}
	_ = g.cmd.Process.Kill() // it may have ended already
	_ = g.cmd.Wait()         // with the status of a killed process
	g.cmd = nil
}

// stop ends the process in order.
func (g *gateway) stop() {
	g.t.Helper()
	if err := g.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		g.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			g.t.Errorf("holdfast %s after SIGTERM: %v", g.verb, err)
		}
		g.cmd = nil
	case <-time.After(patience):
		g.t.Fatalf("holdfast %s does not stop", g.verb)
	}
}

// run runs another verb and returns its output.
func (g *gateway) run(args ...string) (string, error) {
	out, err := g.command(args...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("holdfast %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), nil
}

func (g *gateway) wait(what string, ready func() bool) {
	g.t.Helper()
	for start := time.Now(); !ready(); time.Sleep(5 * time.Millisecond) {
		if time.Since(start) > patience {
			status, _ := g.run("status")
			g.t.Fatalf("after %s it is still not so that %s\n%s", patience, what, status)
		}
	}
}

// TestExampleIsCorrect checks the documented configuration with the program
// itself.
func TestExampleIsCorrect(t *testing.T) {
	c := exec.Command(os.Args[0], "config", "check", "--config", "config.example.toml")
	c.Env = append(os.Environ(), beHoldfast+"=1")
	if out, err := c.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
