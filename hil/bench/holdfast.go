package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// hubConfig is what a measurement wants of the hub.
type hubConfig struct {
	linger    time.Duration // of the journal
	syncDelay time.Duration // added to every sync
	clients   int           // limit, 0 = default
	budget    string        // of the journal, "" = default
	data      string        // data folder to use and keep, "" = a new one
}

// holdfastProgram returns the path of the program under measurement.
func holdfastProgram(o *Options) (string, error) {
	p := filepath.Join(o.Bin, "holdfast")
	if _, err := os.Stat(p); err != nil {
		return "", fmt.Errorf("no holdfast program in %q; run make build", o.Bin)
	}
	return p, nil
}

// hubSection is the [hub] part of a configuration for measurements: one open
// TCP listener beside the local one.
func hubSection(addr string, c hubConfig) string {
	var b strings.Builder
	fmt.Fprintf(&b, "[[hub.listener]]\nname = \"bench\"\ntype = \"tcp\"\naddress = %q\n", addr)
	b.WriteString("[[hub.rule]]\nusers = [\"anonymous\"]\npublish = [\"#\"]\nsubscribe = [\"#\"]\n")
	if c.clients > 0 {
		fmt.Fprintf(&b, "[hub.limits]\nclients = %d\nsessions = %d\nconnects_per_second = 0\n", c.clients, c.clients)
	}
	b.WriteString("[hub.journal]\n")
	if c.linger > 0 {
		fmt.Fprintf(&b, "linger = %q\n", c.linger)
	}
	if c.budget != "" {
		fmt.Fprintf(&b, "budget = %q\n", c.budget)
	}
	return b.String()
}

// startHub starts `holdfast hub` with a listener for measurements.
func startHub(ctx context.Context, o *Options, c hubConfig) (*child, string, func(), error) {
	program, err := holdfastProgram(o)
	if err != nil {
		return nil, "", nil, err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", nil, err
	}
	dir, err := os.MkdirTemp(o.Dir, "hub")
	if err != nil {
		return nil, "", nil, err
	}
	clean := func() { os.RemoveAll(dir) }
	data := c.data
	if data == "" {
		data = filepath.Join(dir, "data")
	}
	conf := fmt.Sprintf("name = \"bench\"\ndata = %q\nrun = %q\n", data, filepath.Join(dir, "run")) + hubSection(addr, c)
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(conf), 0o600); err != nil {
		return nil, "", clean, err
	}
	var env []string
	if c.syncDelay > 0 {
		env = append(env, "HOLDFAST_SYNC_DELAY="+c.syncDelay.String())
	}
	p, err := start(env, program, "hub", "--config", path)
	if err != nil {
		return nil, "", clean, err
	}
	if err := p.ready(ctx, func() bool { return listening(addr) }); err != nil {
		p.stop()
		return nil, "", clean, err
	}
	return p, addr, clean, nil
}

// deviceConfig is the configuration of a whole device that forwards everything
// to an upstream broker; devices are its [[field.device]] tables.
func deviceConfig(dir, hubAddr string, period time.Duration, devices, upstream string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "name = \"bench\"\ndata = %q\nrun = %q\n", filepath.Join(dir, "data"), filepath.Join(dir, "run"))
	b.WriteString(hubSection(hubAddr, hubConfig{}))
	b.WriteString("[hub.routes]\nall = \"FROM /messages/* INTO $upstream\"\n")
	fmt.Fprintf(&b, "[[hub.upstream]]\nname = \"bench\"\ntype = \"mqtt\"\nurl = \"mqtt://%s\"\ntopic = \"up/{topic}\"\n", upstream)
	fmt.Fprintf(&b, "[field.commands]\nallow_unsynced = true\n[field.classes]\nfast = %q\n", period)
	b.WriteString(devices)
	return b.String()
}

// startHoldfast starts the whole device: its own hub's address is the second
// result.
func startHoldfast(o *Options, dir, tags string, period time.Duration, devices, upstream string) (*child, string, error) {
	program, err := holdfastProgram(o)
	if err != nil {
		return nil, "", err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(dir, "tags.csv"), []byte(tags), 0o644); err != nil {
		return nil, "", err
	}
	path := filepath.Join(dir, "config.toml")
	if err := os.WriteFile(path, []byte(deviceConfig(dir, addr, period, devices, upstream)), 0o600); err != nil {
		return nil, "", err
	}
	c, err := start(nil, program, "run", "--config", path)
	return c, addr, err
}
