// Package all is the table of upstreams.
package all

import (
	"fmt"
	"maps"
	"slices"

	"holdfast/hub"
	"holdfast/hub/upstream/mqtt"
)

// Env is what upstreams need from the program.
type Env = mqtt.Env

// maker makes an upstream of one type; with check it only looks at the settings.
type maker func(name string, settings map[string]any, env Env, check bool) (hub.Upstream, error)

// table has one line for each type.
func table() map[string]maker {
	return map[string]maker{
		"mqtt": makeMQTT,
	}
}

// Types returns the types of upstreams, sorted.
func Types() []string { return slices.Sorted(maps.Keys(table())) }

// Check looks at the settings of an upstream without any I/O. The error joins
// everything that is wrong, each naming its key in quotes.
func Check(kind, name string, settings map[string]any) error {
	_, err := build(kind, name, settings, Env{}, true)
	return err
}

// New makes the upstream of that type, name and settings. Nothing happens
// before its Connect.
func New(kind, name string, settings map[string]any, env Env) (hub.Upstream, error) {
	return build(kind, name, settings, env, false)
}

func build(kind, name string, settings map[string]any, env Env, check bool) (hub.Upstream, error) {
	m, ok := table()[kind]
	if !ok {
		return nil, fmt.Errorf("unknown type of upstream %q, known are %q", kind, Types())
	}
	return m(name, settings, env, check)
}

func makeMQTT(name string, settings map[string]any, env Env, check bool) (hub.Upstream, error) {
	o, err := mqtt.Parse(name, settings, env)
	if err != nil || check {
		return nil, err
	}
	return mqtt.New(o)
}
