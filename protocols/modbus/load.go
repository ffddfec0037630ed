package modbus

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"holdfast/protocols/point"
)

// A LoadGroup is a set of tags that is read together every period: those of one
// scan class of one field device.
type LoadGroup struct {
	Device, Class string
	Period        time.Duration
	Settings      map[string]any // of the device, as in protocols.Device
	Tags          []point.Tag    // that are read
}

// LoadOptions are what cannot be known of field devices and networks before
// they are measured. The zero value works.
type LoadOptions struct {
	// Answer is the time from the end of a request on a serial line to the start
	// of its answer; 0 = 10 ms, which few meters and drives keep below and many are
	// slower than.
	Answer time.Duration
	// RoundTrip is the time from sending a request over TCP to having its answer;
	// 0 = 5 ms.
	RoundTrip time.Duration
}

// A LinkLoad is what reading costs a link: a serial line, or the connection to
// one host and port.
type LinkLoad struct {
	Link   string // as in protocols.Status
	Serial bool   // the time is that of a line whose speed is known, else a matter of LoadOptions.RoundTrip
	Groups []GroupLoad
}

// Share returns the part of its time that a link is busy, 1 being all of it.
// Above 1 not all periods can be kept.
func (l *LinkLoad) Share() float64 {
	sum := 0.0
	for i := range l.Groups {
		sum += l.Groups[i].Share()
	}
	return sum
}

// A GroupLoad is what one scan of a group costs its link.
type GroupLoad struct {
	Device, Class string
	Period        time.Duration
	Tags          int
	Requests      int           // frames sent, as many come back
	Items         int           // registers and bits read, those in between that no tag asked for included
	Bytes         int           // both ways, framing included
	Time          time.Duration // that the link is busy
}

// Share returns the part of the period that one scan takes.
func (g *GroupLoad) Share() float64 {
	if g.Period <= 0 {
		return 0
	}
	return float64(g.Time) / float64(g.Period)
}

// PredictLoad plans the requests for groups as a session does that has learned
// nothing yet, and adds up what they cost each link. It does no I/O. Writes,
// time-outs and what a device refuses come on top. Groups whose device or tags do
// not pass Check are an error.
func PredictLoad(groups []LoadGroup, o LoadOptions) ([]LinkLoad, error) {
	o.Answer, o.RoundTrip = cmp.Or(o.Answer, 10*time.Millisecond), cmp.Or(o.RoundTrip, 5*time.Millisecond)
	var links []LinkLoad
	first := map[string]*settings{} // of a link: its own settings hold for all on it
	var errs []error
	for i := range groups {
		g := &groups[i]
		set, err := parseSettings(g.Settings)
		if err != nil {
			errs = append(errs, fmt.Errorf("device %q: %w", g.Device, err))
			continue
		}
		name := transportNames[set.transport] + " " + set.address
		at := slices.IndexFunc(links, func(l LinkLoad) bool { return l.Link == name })
		if at < 0 {
			at = len(links)
			links = append(links, LinkLoad{Link: name, Serial: set.transport == transportRTU})
			first[name] = set
		}
		load, err := g.predict(set, first[name], o)
		if err != nil {
			errs = append(errs, fmt.Errorf("device %q: %w", g.Device, err))
			continue
		}
		links[at].Groups = append(links[at].Groups, load)
	}
	return links, errors.Join(errs...)
}

// predict plans one group. on holds the settings of its link.
func (g *LoadGroup) predict(set, on *settings, o LoadOptions) (GroupLoad, error) {
	load := GroupLoad{Device: g.Device, Class: g.Class, Period: g.Period, Tags: len(g.Tags)}
	var items [4][]item
	for i, t := range g.Tags {
		f, err := compile(t, set)
		if err != nil {
			return load, fmt.Errorf("tag %q: %w", t.Name, err)
		}
		from, to := f.span()
		items[f.addr.Table] = append(items[f.addr.Table], item{tag: i, from: from, to: to})
	}
	var waits int // round trips over TCP
	for t := Coil; t <= Holding; t++ {
		spans := planSpans(items[t], set.limitsOf(t), nil)
		for _, sp := range spans {
			count := sp.to - sp.from
			pdu, err := encodeRead(t, sp.from, count)
			if err != nil {
				return load, fmt.Errorf("%s %d to %d: %w", t, sp.from, sp.to-1, err)
			}
			load.Requests++
			load.Items += count
			bytes, busy := on.cost(pdu, o)
			load.Bytes += bytes
			load.Time += busy
		}
		waits += len(spans)
	}
	if on.transport == transportTCP {
		depth := max(1, on.link.pipeline)
		turns := (waits + depth - 1) / depth // what is under way together waits together
		load.Time += time.Duration(turns) * (o.RoundTrip + on.link.requestPause)
	}
	if on.link.closeAfterRead && on.transport != transportRTU && load.Requests > 0 {
		load.Time += o.RoundTrip + on.link.connectDelay
	}
	return load, nil
}

// limitsOf returns what bounds the requests for a table.
func (s *settings) limitsOf(t Table) limits {
	if t.Bits() {
		return limits{items: s.maxBits, gap: s.maxGapBits}
	}
	return limits{items: s.maxRegisters, gap: s.maxGap}
}

// cost returns the bytes that a request and its answer take, and how long they
// keep the link. For Modbus TCP the time is counted in turns, not here.
func (s *settings) cost(pdu []byte, o LoadOptions) (bytes int, busy time.Duration) {
	answer := answerLength(pdu)
	switch s.transport {
	case transportTCP:
		return 2*mbapSize + len(pdu) + answer, 0
	case transportRTUOverTCP:
		return 2*3 + len(pdu) + answer, o.RoundTrip + s.link.requestPause
	}
	out, in := 1+len(pdu)+2, 1+answer+2
	gap := max(s.line.T35(), s.link.requestPause)
	rts := s.line.RS485.DelayBefore + s.line.RS485.DelayAfter
	return out + in, gap + rts + s.line.Duration(out) + o.Answer + s.line.Duration(in)
}
