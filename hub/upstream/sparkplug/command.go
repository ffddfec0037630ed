package sparkplug

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"holdfast/hub/upstream/sparkplug/payload"
)

// warnPause keeps a host that sends nonsense from filling the log.
const warnPause = 10 * time.Second

var (
	errRetained  = errors.New("it is retained, so nobody knows how old it is")
	errNoTime    = errors.New("it has no timestamp, so nobody knows how old it is")
	errNotTaken  = errors.New("commands to devices are not taken")
	errManyWait  = errors.New("too many commands wait already")
	errNoDevice  = errors.New("the device is not known")
	errNoMetric  = errors.New("the metric is not known")
	errReadOnly  = errors.New("the metric is not writable")
	errNoValue   = errors.New("it has no value")
	errNoControl = errors.New("this node has no such control")
)

// read takes a message from the server. An error ends the link.
func (l *link) read(m *letter, now time.Duration) error {
	err := l.command(m, now)
	if errors.Is(err, errNextServer) {
		return err
	}
	if err != nil {
		l.u.stats.refusedCommands.Add(1)
		if now >= l.warnedAt+warnPause {
			l.warnedAt = now
			l.o.Log.Warn("command is refused", "topic", m.topic, "reason", err)
		}
	}
	return nil
}

func (l *link) command(m *letter, now time.Duration) error {
	var p payload.Payload
	if m.retain {
		return errRetained
	}
	if err := payload.Decode(m.payload, &p); err != nil {
		return err
	}
	if m.topic == string(l.o.appendTopic(nil, ncmd, "")) {
		return l.nodeCommand(&p)
	}
	prefix := string(l.o.appendTopic(nil, dcmd, "")) + "/"
	name, ok := strings.CutPrefix(m.topic, prefix)
	switch {
	case !ok || !l.takesCommands():
		return errNotTaken
	case !p.HasTimestamp || p.Timestamp > math.MaxInt64:
		return errNoTime // tck-id-payloads-dcmd-timestamp
	}
	d := l.s.n.devices[name]
	if d == nil {
		return fmt.Errorf("%w: %q", errNoDevice, name)
	}
	var errs []error
	for i := range p.Metrics {
		c, err := l.deviceCommand(d, &p.Metrics[i])
		if err != nil {
			errs = append(errs, err)
			continue
		}
		c.ID = commandID(m, i)
		c.Issued = time.UnixMilli(int64(p.Timestamp)).UTC()
		c.Expires = c.Issued.Add(l.o.CommandExpires)
		select {
		case l.orders <- c:
			l.u.stats.commands.Add(1)
		default:
			errs = append(errs, errManyWait)
		}
	}
	return errors.Join(errs...)
}

// commandID returns the same text for the same message, so that one which comes
// twice is carried out once.
func commandID(m *letter, index int) string {
	h := sha256.New()
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(len(m.topic))))
	h.Write([]byte(m.topic))
	h.Write(m.payload)
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(index)))
	return "sparkplug-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// nodeCommand takes NCMD: the controls of the node.
func (l *link) nodeCommand(p *payload.Payload) error {
	var errs []error
	next := false
	for i := range p.Metrics {
		m := &p.Metrics[i]
		v, err := m.Value(payload.Boolean)
		switch {
		case m.Name != metricRebirth && (m.Name != metricNextServer || len(l.o.Servers) == 0):
			errs = append(errs, fmt.Errorf("%w: %q", errNoControl, m.Name))
		case err != nil:
			errs = append(errs, fmt.Errorf("%q: %w", m.Name, err))
		case !v.Bool(): // false asks for nothing
		case m.Name == metricRebirth:
			l.rebirth = true
		default:
			next = true
		}
	}
	if next {
		return errNextServer
	}
	return errors.Join(errs...)
}

// deviceCommand makes a command of one metric of DCMD, named by alias or name.
func (l *link) deviceCommand(d *device, w *payload.Metric) (Command, error) {
	m := d.metrics[w.Name]
	if w.Name == "" && w.HasAlias && !l.o.NoAliases {
		for _, known := range d.order {
			if known.alias == w.Alias {
				m = known
			}
		}
	}
	switch {
	case m == nil:
		return Command{}, fmt.Errorf("%w: %q, alias %d", errNoMetric, w.Name, w.Alias)
	case m.configured && m.readOnly:
		return Command{}, fmt.Errorf("%w: %q", errReadOnly, m.name)
	}
	v, err := w.Value(m.shown())
	if err != nil {
		return Command{}, fmt.Errorf("%q: %w", m.name, err)
	}
	if v.Kind() == payload.NullKind {
		return Command{}, fmt.Errorf("%q: %w", m.name, errNoValue)
	}
	if _, err := payload.Encode(m.shown(), v); err != nil {
		return Command{}, fmt.Errorf("%q: %w", m.name, err)
	}
	return Command{Device: d.name, Tag: m.name, Value: v}, nil
}

// carryOut hands commands over, one after the other, until the link ends.
func (l *link) carryOut() {
	for {
		select {
		case c := <-l.orders:
			if err := l.o.Command(l.ctx, c); err != nil {
				l.o.Log.Warn("command is not handed over", "id", c.ID, "device", c.Device, "tag", c.Tag, "reason", err)
			}
		case <-l.ctx.Done():
			return
		}
	}
}
