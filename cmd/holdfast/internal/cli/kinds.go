package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/fielddaemon"
	"holdfast/cmd/holdfast/internal/hubdaemon"
	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/drivers/gpio/gpiochip"
	"holdfast/drivers/i2c"
	"holdfast/drivers/i2c/i2cdev"
	"holdfast/drivers/i2c/i2csock"
	sensors "holdfast/drivers/sensor/all"
	"holdfast/drivers/spi"
	"holdfast/drivers/spi/spidev"
	"holdfast/hub"
	upstreams "holdfast/hub/upstream/all"
	"holdfast/hub/upstream/sparkplug"
	"holdfast/protocols"
	fieldprotocols "holdfast/protocols/all"
	"holdfast/protocols/command"
	"holdfast/protocols/opcua"
)

// trustDir holds the certificates, below the field daemon's data directory.
const trustDir = "opcua"

// kinds are the implementations that this program has.
func kinds() config.Kinds {
	checkers := adapters(protocols.Env{Clock: clock.NewReal(), Log: slog.New(slog.DiscardHandler)}, opcua.Options{
		OpenFS: func() (disk.FS, error) { return nil, errors.New("checking opens no certificates") },
	})
	return config.Kinds{
		Protocol: func(name string) config.DeviceCheck {
			if a, ok := checkers[name]; ok {
				return a.Check
			}
			return nil
		},
		Protocols: fieldprotocols.Names(),
		Upstream:  upstreams.Check,
		Upstreams: upstreams.Types(),
	}
}

// certificates returns where the OPC UA adapter keeps certificates, below the
// field daemon's data directory. Nothing is opened before a device needs it.
func certificates(data string) opcua.Options {
	o := opcua.Options{
		OpenFS: func() (disk.FS, error) { return disk.OpenHost(fielddaemon.DataDir(data)) },
		Dir:    trustDir,
		Getenv: os.Getenv,
	}
	// Without a name the certificate names no host: servers look at its URI.
	if host, err := os.Hostname(); err == nil {
		o.Hosts = []string{host}
	}
	return o
}

// adapters makes the adapters of all field protocols on this machine's hardware.
func adapters(env protocols.Env, certificates opcua.Options) map[string]protocols.Adapter {
	return fieldprotocols.New(env, fieldprotocols.Host{
		Lines:       gpiochip.New(gpiochip.Options{}),
		OpenI2C:     openI2C,
		OpenSPI:     openSPI,
		Files:       os.DirFS,
		CheckSensor: sensors.Check,
		OpenSensor:  sensors.Open,
		ReadFile:    os.ReadFile,
		OPCUA:       certificates,
	})
}

// openI2C opens a bus of this machine, or, as unix:/path, one that another
// process serves.
func openI2C(ctx context.Context, name string) (i2c.BusCloser, error) {
	if path, ok := strings.CutPrefix(name, "unix:"); ok {
		return i2csock.New("unix", path), nil
	}
	return i2cdev.Open(ctx, name, i2cdev.Options{})
}

// openSPI opens the connection to a chip of this machine.
func openSPI(ctx context.Context, name string, c spi.Config) (spi.ConnCloser, error) {
	conn, err := spidev.Open(ctx, name, c, spidev.Options{})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// upstreamMaker returns what makes the upstreams of a gateway.
func (a *app) upstreamMaker(c *config.Config, tags *hubdaemon.Tags, clk clock.Clock, log *slog.Logger) func(config.Upstream) (hub.Upstream, error) {
	return func(u config.Upstream) (hub.Upstream, error) {
		env := upstreams.Env{Device: c.Name, ReadFile: os.ReadFile, Clock: clk, Log: log, Readings: tags.Readings}
		if u.Type == "sparkplug" {
			means, err := tags.Sparkplug(c, u.Name, a.Version)
			if err != nil {
				return nil, err
			}
			means.Command = edgeCommands(c, log.With("upstream", u.Name))
			env.Sparkplug = func(string) sparkplug.Means { return means }
		}
		return upstreams.New(u.Type, u.Name, u.Settings, env)
	}
}

// handover is how long a command of an edge node may take beyond the write:
// waiting for its turn, and the way there and back.
const handover = 5 * time.Second

// edgeCommands returns what carries out the commands that come by an upstream: as
// any other client of the hub would, and judged as one from afar, since they
// were issued by another clock. It waits for each answer, so that commands are
// carried out in their order.
func edgeCommands(c *config.Config, log *slog.Logger) func(context.Context, sparkplug.Command) error {
	bound := c.Field.Commands.Timeout.Std() + handover
	return func(ctx context.Context, e sparkplug.Command) error {
		ctx, cancel := context.WithTimeout(ctx, bound)
		defer cancel()
		r := command.Request{ID: e.ID, Device: e.Device, Tag: e.Tag, Value: hubdaemon.PointValue(e.Value), Issued: e.Issued, Expires: e.Expires}
		res, took, err := fielddaemon.Ask(ctx, c.Run, &r, false)
		if err != nil {
			return err
		}
		if res.Status != command.Done {
			return fmt.Errorf("%s: %s", res.Status, res.Reason)
		}
		log.Info("command is carried out", "id", e.ID, "device", e.Device, "tag", e.Tag, "took", took)
		return nil
	}
}
