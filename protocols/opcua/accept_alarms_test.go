package opcua

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"holdfast/hil/fault"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// alarmState is what the tests look at in an alarm's text.
type alarmState struct {
	EventID   string `json:"event_id"`
	Source    string `json:"source_name"`
	Message   string `json:"message"`
	Severity  int    `json:"severity"`
	Condition string `json:"condition"`
	Name      string `json:"condition_name"`
	Active    *bool  `json:"active"`
	Acked     *bool  `json:"acked"`
	Confirmed *bool  `json:"confirmed"`
	Retain    *bool  `json:"retain"`
	Comment   string `json:"comment"`
}

// lastAlarm returns the newest event of a tag.
func lastAlarm(t *testing.T, got []received) (a alarmState) {
	t.Helper()
	for _, g := range got {
		if g.Quality != point.Good {
			continue
		}
		a = alarmState{}
		if err := json.Unmarshal([]byte(g.Value.Text()), &a); err != nil {
			t.Fatalf("%s: %v", g.Value, err)
		}
	}
	return a
}

func is(b *bool) bool { return b != nil && *b }

// TestAcceptanceAlarms: an alarm comes, is acknowledged and confirmed through the
// gateway, and goes; what happens while the link is down is known afterwards.
func TestAcceptanceAlarms(t *testing.T) {
	t.Parallel()
	p := startPeer(t, nil)
	l := p.link(t)
	s := openSession(t, newAdapter(t), settingsFor(l.Addr(), "publishing_interval", "100ms", "keep_alive", "1s"))
	alarm := point.Tag{Name: "alarms", Address: "i=2253", Type: "alarms", Access: point.ReadWrite}
	event := point.Tag{Name: "events", Address: "i=2253", Type: "events", Params: point.Params{"min_severity": "400"}}
	r, stop := subscribe(t, s, alarm, event)
	eventually(t, "listening", func() bool { return len(r.of(0)) > 0 && len(r.of(1)) > 0 })
	now := func() alarmState { return lastAlarm(t, r.of(0)) }

	p.set(t, "Level", 95)
	eventually(t, "the alarm", func() bool { return is(now().Active) })
	a := now()
	if a.Name != "LevelAlarm" || a.Condition != "nsu=urn:holdfast:test;s=LevelAlarm" || is(a.Acked) || !is(a.Retain) || a.EventID == "" {
		t.Errorf("the alarm is %+v", a)
	}
	write := func(text string) error {
		return s.Write(context.Background(), []protocols.Write{{Tag: alarm, Value: point.StringValue(text)}})[0]
	}
	if err := write(`{"acknowledge":"` + a.Condition + `","comment":"seen"}`); err != nil {
		t.Fatalf("acknowledge: %v", err)
	}
	eventually(t, "acknowledged", func() bool { return is(now().Acked) })
	if got := now().Comment; got != "seen" {
		t.Errorf("the comment is %q", got)
	}
	if err := write(`{"confirm":"` + a.Condition + `"}`); err != nil {
		t.Fatalf("confirm: %v", err)
	}
	eventually(t, "confirmed", func() bool { return is(now().Confirmed) })
	for text, word := range map[string]string{
		`{"acknowledge":"ns=9;s=x"}`: "no event", `{}`: "exactly one", `{"ack":"x"}`: "JSON", `hello`: "JSON",
		`{"acknowledge":"` + a.Condition + `","event_id":"AAAA"}`: "BadEventIDUnknown",
	} {
		if err := write(text); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", text, err)
		}
	}

	// The alarm goes while nobody can see it.
	l.Set(fault.Refuse)
	l.Reset()
	p.set(t, "Level", 50)
	l.Set(fault.Pass)
	eventually(t, "the end of the alarm", func() bool { return !is(now().Active) })

	before := len(r.of(1))
	p.tell(t, map[string]any{"do": "event", "text": "quiet", "severity": 100})
	p.tell(t, map[string]any{"do": "event", "text": "door open", "severity": 500})
	eventually(t, "the event", func() bool {
		for _, g := range r.of(1)[before:] {
			if strings.Contains(g.Value.Text(), "door open") {
				return true
			}
		}
		return false
	})
	stop()
	for _, g := range r.of(1) {
		if strings.Contains(g.Value.Text(), "quiet") {
			t.Error("an event below the least severity came")
		}
	}
}
