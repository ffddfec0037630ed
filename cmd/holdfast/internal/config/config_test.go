package config_test

import (
	"fmt"
	"io/fs"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/protocols"
)

const example = "../../config.example.toml"

// anything are kinds that take whatever they are asked about.
var anything = config.Kinds{
	Protocol:  func(string) config.DeviceCheck { return func(protocols.Device) error { return nil } },
	Upstream:  func(string, string, map[string]any) error { return nil },
	Upstreams: []string{"mqtt", "sparkplug"},
}

// TestExampleNamesEveryKey holds the example against the types: a key that is
// not documented does not exist for the people who need it.
func TestExampleNamesEveryKey(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range keys(reflect.TypeFor[config.Config](), "") {
		key := path[strings.LastIndexByte(path, '.')+1:]
		written := regexp.MustCompile(`(?m)^` + key + ` *=|^\[+([a-z.]+\.)?` + key + `[\].]|\b` + key + ` = `)
		if !written.Match(text) {
			t.Errorf("%s is not in the example", path)
		}
	}
}

// keys returns the paths of all keys of a struct.
func keys(t reflect.Type, prefix string) (all []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := f.Tag.Get("toml")
		if key == "" || key == "-" || key == ",rest" {
			continue
		}
		all = append(all, prefix+key)
		inner := f.Type
		if inner.Kind() == reflect.Slice || inner.Kind() == reflect.Map {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct {
			all = append(all, keys(inner, prefix+key+".")...)
		}
	}
	return all
}

// TestExampleShowsDefaults: what the example writes after a key that has a
// default is that default, but for a few that only make sense as an example.
func TestExampleShowsDefaults(t *testing.T) {
	c, err := config.Load(example, os.ReadFile, anything)
	if err != nil {
		t.Fatal(err)
	}
	d := config.Default()
	for name, pair := range map[string][2]any{
		"log":                  {c.Log, d.Log},
		"data and run":         {c.Data + c.Run, d.Data + d.Run},
		"hub.limits":           {c.Hub.Limits, d.Hub.Limits},
		"hub.journal":          {c.Hub.Journal, d.Hub.Journal},
		"hub.route_dialect":    {c.Hub.RouteDialect, d.Hub.RouteDialect},
		"hub.time_to_live":     {c.Hub.TimeToLive, d.Hub.TimeToLive},
		"field.class":          {c.Field.Class, d.Field.Class},
		"field.outbox":         {c.Field.Outbox, d.Field.Outbox},
		"field.commands":       {c.Field.Commands, d.Field.Commands},
		"field.classes.normal": {c.Field.Classes["normal"], d.Field.Classes["normal"]},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			t.Errorf("%s: the example has %+v, the default is %+v", name, pair[0], pair[1])
		}
	}
}

// TestShowIsAConfiguration: what Text prints, read again, is in force unchanged.
func TestShowIsAConfiguration(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	// Secrets are not shown, so there must be none.
	plain := regexp.MustCompile(`(?s)\[\[hub.user\]\].*?\n\n`).ReplaceAll(text, nil)
	plain = []byte(strings.ReplaceAll(string(plain), `users = ["press7"]`, `users = ["*"]`))
	files := func(text []byte) config.Files {
		return func(name string) ([]byte, error) {
			if name == example {
				return text, nil
			}
			return os.ReadFile(name)
		}
	}
	first, err := config.Load(example, files(plain), anything)
	if err != nil {
		t.Fatal(err)
	}
	shown, err := first.Text()
	if err != nil {
		t.Fatal(err)
	}
	second, err := config.Load(example, files([]byte(strings.ReplaceAll(string(shown), "../../", ""))), anything)
	if err != nil {
		t.Fatalf("%v\n%s", err, shown)
	}
	again, err := second.Text()
	if err != nil {
		t.Fatal(err)
	}
	if string(again) != string(shown) {
		t.Errorf("shown once:\n%s\nshown again:\n%s", shown, again)
	}
}

func TestRoutesAndUpstreams(t *testing.T) {
	c := load(t, `
[hub.routes]
a = "FROM /* INTO $upstream"
b = { route = "FROM /* INTO Upstream(\"second\")", priority = 0, time_to_live = "1h" }
[[hub.upstream]]
name = "first"
type = "mqtt"
ca = "ca.pem"
[[hub.upstream]]
name = "second"
type = "mqtt"
`)
	if got := fmt.Sprint(c.Hub.Endpoint(0), " ", c.Hub.Endpoint(1)); got != "$upstream second" {
		t.Errorf("endpoints: %s", got)
	}
	specs := c.Hub.RouteSpecs()
	if len(specs) != 2 || specs[0].Priority != 5 || specs[1].Priority != 0 || specs[1].TTL.Hours() != 1 {
		t.Errorf("routes: %+v", specs)
	}
	if got := c.Hub.Upstreams[0].Settings["ca"]; got != "/etc/hf/ca.pem" {
		t.Errorf("a file beside the configuration: %v", got)
	}
}

// load loads a text as /etc/hf/c.toml.
func load(t *testing.T, text string) *config.Config {
	t.Helper()
	c, err := config.Load("/etc/hf/c.toml", func(name string) ([]byte, error) {
		if name != "/etc/hf/c.toml" {
			return nil, fs.ErrNotExist
		}
		return []byte(text), nil
	}, anything)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
