// Package all is the table of upstreams.
package all

import (
	"fmt"
	"log/slog"
	"maps"
	"slices"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/upstream/mqtt"
	"holdfast/hub/upstream/sparkplug"
)

// Env is what upstreams need from the program.
type Env struct {
	Device   string                            // this gateway's name
	ReadFile func(name string) ([]byte, error) // os.ReadFile; nil: no files can be used
	Clock    clock.Clock                       // nil: the real one
	Log      *slog.Logger                      // nil: silent

	// Readings is mqtt.Env's.
	Readings func(mqtt.Form) (mqtt.Readings, error)

	// Sparkplug returns what the edge node of the upstream with that name needs,
	// the fields above aside. nil: there can be no edge node.
	Sparkplug func(name string) sparkplug.Means
}

// maker makes an upstream of one type; with check it only looks at the settings.
type maker func(name string, settings map[string]any, env Env, check bool) (hub.Upstream, error)

// table has one line for each type.
func table() map[string]maker {
	return map[string]maker{
		"mqtt":      makeMQTT,
		"sparkplug": makeSparkplug,
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
	o, err := mqtt.Parse(name, settings, mqtt.Env{Device: env.Device, ReadFile: env.ReadFile, Clock: env.Clock, Log: env.Log, Readings: env.Readings})
	if err != nil || check {
		return nil, err
	}
	return mqtt.New(o)
}

func makeSparkplug(name string, settings map[string]any, env Env, check bool) (hub.Upstream, error) {
	var means sparkplug.Means
	if env.Sparkplug != nil {
		means = env.Sparkplug(name)
	}
	means.Device, means.ReadFile, means.Clock, means.Log = env.Device, env.ReadFile, env.Clock, env.Log
	o, err := sparkplug.Parse(name, settings, means)
	if err != nil || check {
		return nil, err
	}
	up, err := sparkplug.New(o)
	if err != nil {
		return nil, err // not up: a nil pointer is not a nil interface
	}
	return up, nil
}
