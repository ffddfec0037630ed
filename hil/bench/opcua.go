package bench

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

//go:embed testdata/opcua.js
var opcuaServer []byte

// opcuaModules is where hil/setup.sh installs node-opcua, below the repository.
const opcuaModules = "protocols/opcua/testdata/node/node_modules"

// opcuaTags and opcuaPeriod make 10,000 values a second.
const (
	opcuaTags   = 1000
	opcuaPeriod = 100 * time.Millisecond
)

// startOPCUA starts node-opcua's server; its address is host:port.
func startOPCUA(ctx context.Context, dir string) (*child, string, error) {
	modules, err := filepath.Abs(opcuaModules)
	if err != nil {
		return nil, "", err
	}
	if _, err := os.Stat(filepath.Join(modules, "node-opcua")); err != nil {
		return nil, "", fmt.Errorf("node-opcua is not installed in %q; run hil/setup.sh in the repository and measure there", opcuaModules)
	}
	node, err := findProgram("node")
	if err != nil {
		return nil, "", err
	}
	addr, err := freeAddr()
	if err != nil {
		return nil, "", err
	}
	_, port := splitAddr(addr)
	script := filepath.Join(dir, "opcua.js")
	if err := os.WriteFile(script, opcuaServer, 0o644); err != nil {
		return nil, "", err
	}
	c, err := startPiped([]string{"NODE_PATH=" + modules}, node, script, port, fmt.Sprint(opcuaTags), fmt.Sprint(opcuaPeriod.Milliseconds()), dir)
	if err != nil {
		return nil, "", err
	}
	if err := c.ready(ctx, func() bool { return listening(addr) }); err != nil {
		c.stop()
		return nil, "", err
	}
	return c, addr, nil
}

// startPiped is start for a program that lives until its standard input ends.
func startPiped(env []string, program string, args ...string) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer r.Close()
	c, err := startWith(r, env, program, args...)
	if err != nil {
		w.Close()
		return nil, err
	}
	c.closers = append(c.closers, w)
	return c, nil
}

var opcuaGateways = []gateway{
	{name: "holdfast run", topic: "up/#", stamp: []byte(`"source":`), tags: func(p []byte) int { return bytes.Count(p, []byte(`"value":`)) },
		start: func(_ context.Context, o *Options, dir, endpoint, upstream string) (*child, error) {
			var tags strings.Builder
			tags.WriteString("name,address\n")
			for i := range opcuaTags {
				fmt.Fprintf(&tags, "t%04d,nsu=urn:holdfast:bench;s=T%04d\n", i, i)
			}
			device := fmt.Sprintf("[[field.device]]\nname = \"d0\"\nprotocol = \"opcua\"\nclass = \"fast\"\nsubscribe = true\nendpoint = \"opc.tcp://%s\"\npublishing_interval = \"100ms\"\nsecurity_policy = \"None\"\ntags = \"tags.csv\"\n", endpoint)
			c, _, err := startHoldfast(o, dir, tags.String(), opcuaPeriod, device, upstream)
			return c, err
		}},
	{name: "telegraf", topic: "telegraf/#", nanoseconds: true,
		tags: func(p []byte) int { return bytes.Count(p, []byte("\n")) }, // a line for each value, with its quality
		start: func(ctx context.Context, o *Options, dir, endpoint, upstream string) (*child, error) {
			var b strings.Builder
			fmt.Fprintf(&b, "[[inputs.opcua_listener]]\nname = \"d0\"\nendpoint = \"opc.tcp://%s\"\nsecurity_policy = \"None\"\nsecurity_mode = \"None\"\nauth_method = \"Anonymous\"\ntimestamp = \"source\"\nsubscription_interval = \"100ms\"\n", endpoint)
			b.WriteString("nodes = [\n")
			for i := range opcuaTags {
				fmt.Fprintf(&b, "{name=\"t%04d\", namespace_uri=\"urn:holdfast:bench\", identifier_type=\"s\", identifier=\"T%04d\"},\n", i, i)
			}
			b.WriteString("]\n")
			return startTelegraf(ctx, o, dir, b.String(), opcuaPeriod, upstream)
		}},
}

// opcuaRates compares subscribed OPC UA values to the upstream with Telegraf.
func opcuaRates(ctx context.Context, o *Options) ([]Row, error) {
	if _, err := telegraf(ctx, o); err != nil {
		return nil, err
	}
	a, b, err := fieldPair(ctx, o, o.Rounds, opcuaGateways, func(ctx context.Context, dir string) (string, float64, io.Closer, error) {
		c, addr, err := startOPCUA(ctx, dir)
		if err != nil {
			return "", 0, nil, err
		}
		return addr, opcuaTags / opcuaPeriod.Seconds(), stopper{c}, nil
	})
	if err != nil {
		return nil, err
	}
	return pairRows("10 k subscribed OPC UA values/s to the upstream", "at most 0.5", 0.5, a, b, "from the server's source time to arrival"), nil
}

type stopper struct{ c *child }

// Close stops the program.
func (s stopper) Close() error {
	s.c.stop()
	return nil
}
