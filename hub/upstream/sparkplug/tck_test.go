package sparkplug_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub/upstream/sparkplug/payload"
)

// A rule is a sentence about every message of some kind, and the assertions of
// the specification's edge-node profile that it stands for.
type rule struct {
	ids   string // without "tck-id-"
	about string
	life  string // "" is all of them
	kinds string
	holds func(m *seen, before *past) string // "" is yes, else what is wrong
}

// past is what the host knows when a message comes, on its connection.
type past struct {
	kinds   []string
	seq     int              // of the message before, -1 before the first
	will    *seen            // the CONNECT
	earlier *seen            // the CONNECT of the connection before
	nbirth  *seen            // the latest
	devices map[string]*seen // the latest DBIRTH of those that live
	aliases map[uint64]string
	stamps  map[string]uint64 // latest time that was sent as current, by device and metric
}

// TestAssertions holds the edge node to each assertion that is about it, over
// all messages of three long lives. An assertion that met no message fails.
func TestAssertions(t *testing.T) {
	lives := map[string][]*seen{"plain": life(t), "v5": lifeV5(t), "host": lifeWithHost(t)}
	tried := map[string]bool{}
	for _, r := range rules() {
		for _, id := range strings.Fields(r.ids) {
			if tried[id] {
				t.Errorf("%s is in two rules", id)
			}
			tried[id] = true
			t.Run("tck-id-"+id, func(t *testing.T) {
				met := 0
				for name, l := range lives {
					if r.life == "" || r.life == name {
						met += judge(t, name, l, &r)
					}
				}
				if met == 0 {
					t.Errorf("no message to hold it against: %s", r.about)
				}
			})
		}
	}
	t.Logf("%d assertions", len(tried))
}

// judge goes through a life and returns how many messages the rule was about.
func judge(t *testing.T, name string, l []*seen, r *rule) (met int) {
	kinds := strings.Fields(r.kinds)
	var earlier *seen
	now := map[int]*past{}
	for _, m := range l {
		p := now[m.conn]
		if p == nil {
			p = &past{seq: -1, will: m, earlier: earlier, devices: map[string]*seen{}, aliases: map[uint64]string{}, stamps: map[string]uint64{}}
			now[m.conn], earlier = p, m
		}
		if slices.Contains(kinds, m.kind) {
			met++
			if wrong := r.holds(m, p); wrong != "" {
				t.Errorf("%s: life %s, %v after %d messages: %s", r.about, name, m, len(p.kinds), wrong)
			}
		}
		p.add(m)
	}
	return met
}

func (p *past) add(m *seen) {
	p.kinds = append(p.kinds, m.kind)
	if m.p.HasSeq {
		p.seq = int(m.p.Seq)
	}
	switch m.kind {
	case "NBIRTH":
		p.nbirth = m
		clear(p.devices)
		clear(p.aliases)
	case "DBIRTH":
		p.devices[m.device] = m
	case "DDEATH":
		delete(p.devices, m.device)
	}
	for i := range m.p.Metrics {
		w := &m.p.Metrics[i]
		if w.HasAlias && w.Name != "" {
			p.aliases[w.Alias] = w.Name
		}
		if !w.Historical {
			p.stamps[m.device+"/"+p.name(w)] = w.Timestamp
		}
	}
}

// name returns the name of a metric in a message.
func (p *past) name(w *payload.Metric) string {
	if w.Name != "" {
		return w.Name
	}
	return p.aliases[w.Alias]
}

// birth returns the birth of the device or the node of a message.
func (p *past) birth(m *seen) *seen {
	if m.device == "" {
		return p.nbirth
	}
	return p.devices[m.device]
}

const (
	births = "NBIRTH DBIRTH"
	data   = "NDATA DDATA"
)

// each makes a sentence about metrics one about messages.
func each(holds func(w *payload.Metric, m *seen, p *past) string) func(*seen, *past) string {
	return func(m *seen, p *past) string {
		for i := range m.p.Metrics {
			if wrong := holds(&m.p.Metrics[i], m, p); wrong != "" {
				return fmt.Sprintf("metric %q %d: %s", m.p.Metrics[i].Name, m.p.Metrics[i].Alias, wrong)
			}
		}
		return ""
	}
}

func unless(ok bool, format string, args ...any) string {
	if ok {
		return ""
	}
	return fmt.Sprintf(format, args...)
}

func topic(m *seen, _ *past) string {
	want := "spBv1.0/G/" + m.kind + "/N"
	if m.device != "" {
		want += "/" + m.device
	}
	deviceKind := m.kind[0] == 'D'
	return unless(m.packet.TopicName == want && deviceKind == (m.device != ""), "topic %q", m.packet.TopicName)
}

func qos0(m *seen, _ *past) string {
	h := m.packet.FixedHeader
	return unless(h.Qos == 0 && !h.Retain, "QoS %d, retain %t", h.Qos, h.Retain)
}

func isTime(ms uint64) bool {
	return ms >= uint64(clocktest.Epoch.Add(-2*time.Hour).UnixMilli()) && ms <= uint64(clocktest.Epoch.Add(2*time.Hour).UnixMilli())
}

func timed(m *seen, _ *past) string {
	return unless(m.p.HasTimestamp && isTime(m.p.Timestamp), "timestamp %d", m.p.Timestamp)
}

func next(m *seen, p *past) string {
	want := uint64((p.seq + 1) % 256)
	return unless(m.p.HasSeq && p.seq >= 0 && m.p.Seq == want, "sequence number %d, want %d", m.p.Seq, want)
}

func zero(m *seen, _ *past) string {
	return unless(m.p.HasSeq && m.p.Seq == 0, "sequence number %d", m.p.Seq)
}

func numbered(m *seen, _ *past) string {
	return unless(m.p.HasSeq && m.p.Seq <= 255, "sequence number %d", m.p.Seq)
}

func unnumbered(m *seen, _ *past) string { return unless(!m.p.HasSeq, "sequence number %d", m.p.Seq) }

func afterBirth(m *seen, p *past) string { return unless(p.birth(m) != nil, "nothing was born") }

func noted(m *seen) uint64 {
	if w := m.metric("bdSeq"); w != nil && w.Datatype == payload.Int64 && w.Scalar.Field == payload.LongField {
		return w.Scalar.Bits
	}
	return 1 << 63
}

func sameDeath(m *seen, p *past) string {
	return unless(noted(m) == noted(p.will) && noted(m) <= 255, "bdSeq %d, in the will %d", noted(m), noted(p.will))
}

func stepped(m *seen, p *past) string {
	want := uint64(0)
	if p.earlier != nil && p.earlier != m {
		want = (noted(p.earlier) + 1) % 256
	}
	return unless(noted(m) == want, "bdSeq %d, want %d", noted(m), want)
}

func rebirthControl(m *seen, _ *past) string {
	w := m.metric("Node Control/Rebirth")
	ok := w != nil && w.Datatype == payload.Boolean && w.Scalar.Field == payload.BoolField && w.Scalar.Bits == 0 && !w.HasAlias
	return unless(ok, "%+v", w)
}

func complete(w *payload.Metric, _ *seen, _ *past) string {
	v, err := w.Value(w.Datatype)
	hasValue := err == nil && v.Kind() != payload.NullKind
	return unless(w.Name != "" && w.Datatype.Valid() && hasValue != w.Null, "%+v", w)
}

// announced says that a birth has told of every metric that data are about.
func announced(w *payload.Metric, m *seen, p *past) string {
	b := p.birth(m)
	return unless(b != nil && b.metric(p.name(w)) != nil, "is in no birth")
}

// ordered says that current values never go back in time.
func ordered(m *seen, p *past) string {
	at := uint64(0)
	for i := range m.p.Metrics {
		w := &m.p.Metrics[i]
		if w.Historical {
			continue
		}
		if w.Timestamp < at && m.kind[1:] == "DATA" || w.Timestamp < p.stamps[m.device+"/"+p.name(w)] {
			return fmt.Sprintf("metric %q goes back in time", p.name(w))
		}
		at = w.Timestamp
	}
	return ""
}

func subscribed(filter string) func(*seen, *past) string {
	return func(m *seen, _ *past) string {
		for _, f := range m.packet.Filters {
			if f.Filter == filter && f.Qos == 1 {
				return ""
			}
		}
		return fmt.Sprintf("%+v", m.packet.Filters)
	}
}

func qualities(holds func(p *payload.Property) bool) func(*seen, *past) string {
	return each(func(w *payload.Metric, _ *seen, _ *past) string {
		for i := range w.Properties {
			if p := &w.Properties[i]; !holds(p) {
				return fmt.Sprintf("property %+v", p)
			}
		}
		return ""
	})
}

func anyOf(code uint64, codes ...uint64) bool { return slices.Contains(codes, code) }

// died says that NDEATH is the last message before a DISCONNECT.
func died(_ *seen, p *past) string {
	return unless(p.kinds[len(p.kinds)-1] == "NDEATH", "the message before is %s", p.kinds[len(p.kinds)-1])
}

func will(holds func(c *packets.ConnectParams) bool) func(*seen, *past) string {
	return func(m *seen, _ *past) string {
		return unless(m.packet.Connect.WillFlag && holds(&m.packet.Connect), "%+v", m.packet.Connect)
	}
}
