package all

import (
	"slices"
	"strings"
	"testing"

	"holdfast/hub"
	"holdfast/hub/upstream/sparkplug"
)

func TestTable(t *testing.T) {
	good := map[string]any{"url": "mqtt://broker"}
	if err := Check("mqtt", "up", good); err != nil {
		t.Error(err)
	}
	if up, err := New("mqtt", "up", good, Env{}); err != nil || up == nil {
		t.Errorf("%v, %v", up, err)
	}
	if up, err := New("mqtt", "up", map[string]any{"urll": "x"}, Env{}); err == nil || up != nil || !strings.Contains(err.Error(), `did you mean "url"`) {
		t.Errorf("%v, %v", up, err)
	}
	if err := Check("mqqt", "up", good); err == nil || !strings.Contains(err.Error(), "mqtt") {
		t.Error(err)
	}
	if types := Types(); !slices.Equal(types, []string{"mqtt", "sparkplug"}) {
		t.Error(types)
	}
}

func TestSparkplug(t *testing.T) {
	good := map[string]any{"url": "mqtt://broker", "group": "plant"}
	if err := Check("sparkplug", "up", good); err != nil {
		t.Error(err)
	}
	if up, err := New("sparkplug", "up", good, Env{Device: "gw"}); err == nil || up != nil {
		t.Errorf("made without a decoder: %v, %v", up, err)
	}
	env := Env{Device: "gw", Sparkplug: func(name string) sparkplug.Means {
		if name != "up" {
			t.Error(name)
		}
		return sparkplug.Means{Decode: func(*hub.Record, *sparkplug.Batch) error { return nil }}
	}}
	if up, err := New("sparkplug", "up", good, env); err != nil || up == nil {
		t.Errorf("%v, %v", up, err)
	}
	if err := Check("sparkplug", "up", map[string]any{"url": "mqtt://broker"}); err == nil || !strings.Contains(err.Error(), `"group" is missing`) {
		t.Error(err)
	}
}
