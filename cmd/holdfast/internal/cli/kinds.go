package cli

import (
	"log/slog"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/drivers/clock"
	"holdfast/hub"
	upstreams "holdfast/hub/upstream/all"
	"holdfast/protocols"
	"holdfast/protocols/modbus"
	"holdfast/protocols/sim"
)

// kinds are the implementations that this program has.
func kinds() config.Kinds {
	checkers := adapters(protocols.Env{Clock: clock.NewReal(), Log: slog.New(slog.DiscardHandler)})
	return config.Kinds{
		Protocol: func(name string) config.DeviceCheck {
			if a, ok := checkers[name]; ok {
				return a.Check
			}
			return nil
		},
		Protocols: []string{"modbus", "sim"},
		Upstream:  upstreams.Check,
		Upstreams: upstreams.Types(),
	}
}

func adapters(env protocols.Env) map[string]protocols.Adapter {
	return map[string]protocols.Adapter{"modbus": modbus.New(env, modbus.Options{}), "sim": sim.New(env, sim.Options{})}
}

// upstreamMaker returns what makes the upstreams of a gateway.
func upstreamMaker(c *config.Config, clk clock.Clock, log *slog.Logger) func(config.Upstream) (hub.Upstream, error) {
	return func(u config.Upstream) (hub.Upstream, error) {
		return upstreams.New(u.Type, u.Name, u.Settings, upstreams.Env{Device: c.Name, Clock: clk, Log: log})
	}
}
