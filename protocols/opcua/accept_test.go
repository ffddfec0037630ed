package opcua

import "testing"

// TestAcceptanceSubscribe: values that count come, all of them, in order.
func TestAcceptanceSubscribe(t *testing.T) {
	p := startPeer(t, nil)
	s := openSession(t, newAdapter(t), settingsFor(p.addr(), "publishing_interval", "100ms"))
	r, stop := subscribe(t, s, node("Tick0"), node("String"))
	eventually(t, "30 values", func() bool { return len(r.of(0)) >= 30 })
	stop()
	for i, g := range r.of(0) {
		t.Log(i, g.Value, g.Quality, g.Source, g.Detail)
	}
	t.Log(r.of(1))
}
