package cli

import (
	"fmt"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/hub"
	"holdfast/protocols"
	"holdfast/protocols/modbus"
)

// kinds are the implementations that this program has.
func kinds() config.Kinds {
	return config.Kinds{
		Protocol: func(name string) config.DeviceCheck {
			a := adapters(protocols.Env{})[name]
			if a == nil {
				return nil
			}
			return a.Check
		},
		Protocols: []string{"modbus"},
		Upstream:  func(string) config.UpstreamCheck { return nil },
	}
}

func adapters(env protocols.Env) map[string]protocols.Adapter {
	return map[string]protocols.Adapter{"modbus": modbus.New(env, modbus.Options{})}
}

func makeUpstream(u config.Upstream) (hub.Upstream, error) {
	return nil, fmt.Errorf("unknown type %q", u.Type)
}
