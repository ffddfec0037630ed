package client

import "testing"

func TestResponseTopic(t *testing.T) {
	m := Message{Props: AppendCorrelation(AppendResponseTopic(AppendContentType(nil, "application/json"), "a/b"), []byte{0, 1, 2})}
	topic, correlation := m.ResponseTopic()
	if topic != "a/b" || string(correlation) != "\x00\x01\x02" {
		t.Errorf("got %q and %x", topic, correlation)
	}
	if topic, correlation = (&Message{}).ResponseTopic(); topic != "" || correlation != nil {
		t.Errorf("without properties: %q and %x", topic, correlation)
	}
}
