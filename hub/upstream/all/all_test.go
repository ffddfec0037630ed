package all

import (
	"strings"
	"testing"
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
	if types := Types(); len(types) != 1 || types[0] != "mqtt" {
		t.Error(types)
	}
}
