package fielddaemon

import (
	"context"
	"log/slog"
	"strings"
	"sync"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/hub/client"
	"holdfast/protocols/command"
	"holdfast/protocols/point"
)

// Topics of commands and of their answers.
const (
	CommandTopic = "field/commands"
	ResultPrefix = "field/results/"
)

// Bounds of commands that wait: on their way from the connection, and for one
// device. Overflow rule: refused, with the reason.
const (
	commandQueue = 256
	laneQueue    = 64
)

// commands carries out what arrives on CommandTopic. Those for one device are
// carried out in their order, those for different devices beside each other.
type commands struct {
	handler *command.Handler
	known   func(device string) bool
	enabled bool
	key     []byte // of this machine; see Sign
	log     *slog.Logger
	queue   chan order
}

// An order is one command as it arrived.
type order struct {
	conn        *client.Conn
	payload     []byte
	delivery    command.Delivery
	topic       string // where the sender waits for the answer, "" for the default
	correlation []byte
}

// subscribe asks the hub for commands. The session is a clean one: what was
// sent while nobody listened is not kept, and never carried out late. What was
// published with the retain flag comes with it, and is refused.
func (c *commands) subscribe(ctx context.Context, conn *client.Conn) error {
	if !c.enabled {
		return nil
	}
	_, err := conn.Subscribe(ctx, client.Subscription{Filter: CommandTopic, QoS: 1, RetainAsPublished: true, RetainHandling: 2})
	return err
}

// take is called by the connection for each message. It does not wait.
func (c *commands) take(conn *client.Conn, m *client.Message) {
	o := order{conn: conn, payload: append([]byte(nil), m.Payload...)}
	o.delivery.Retained = m.Retain
	if sum, ok := m.UserProperty(signatureProperty); ok {
		o.delivery.Local = signed(c.key, o.payload, sum)
	}
	topic, correlation := m.ResponseTopic()
	// Answers are sent with the daemon's own rights: a sender must not be able
	// to make it write anywhere else.
	if strings.HasPrefix(topic, ResultPrefix) && !strings.ContainsAny(topic, "+#\x00") {
		o.topic, o.correlation = topic, append([]byte(nil), correlation...)
	}
	select {
	case c.queue <- o:
	default:
		r, _ := command.ParseRequest(o.payload) // an id is all that is needed, and it may be missing
		c.refuse(o, &r)
	}
}

func (c *commands) refuse(o order, r *command.Request) {
	c.answer(o, command.Result{ID: r.ID, Device: r.Device, Tag: r.Tag, Status: command.Refused,
		Quality: point.BadResourceUnavailable, Reason: "too many commands wait already"})
}

// run carries out commands until ctx ends, and then waits for those under way.
func (c *commands) run(ctx context.Context) error {
	lanes := map[string]chan job{}
	var all sync.WaitGroup
	defer all.Wait()
	for {
		var o order
		select {
		case o = <-c.queue:
		case <-ctx.Done():
			return nil
		}
		r, err := command.ParseRequest(o.payload)
		if err != nil || !c.known(r.Device) {
			c.answer(o, c.handler.Handle(ctx, o.payload, o.delivery)) // refuses at once
			continue
		}
		lane := lanes[r.Device]
		if lane == nil {
			lane = make(chan job, laneQueue)
			lanes[r.Device] = lane
			all.Go(func() { c.serve(ctx, lane) })
		}
		select {
		case lane <- job{o, r}:
		default:
			c.refuse(o, &r)
		}
	}
}

type job struct {
	order
	request command.Request
}

// serve carries out the commands for one device.
func (c *commands) serve(ctx context.Context, lane <-chan job) {
	for {
		select {
		case j := <-lane:
			c.answer(j.order, c.handler.Do(ctx, j.request, j.delivery))
		case <-ctx.Done():
			return
		}
	}
}

// answer publishes what came of a command.
func (c *commands) answer(o order, r command.Result) {
	m := client.Message{Topic: []byte(o.topic), Payload: command.AppendResult(nil, &r), QoS: 1}
	if o.topic == "" {
		if point.CheckName(r.ID) != nil {
			return // nobody can wait for an answer without an id
		}
		m.Topic = []byte(ResultPrefix + r.ID)
	}
	m.Props = jsonProps
	if len(o.correlation) > 0 {
		m.Props = client.AppendCorrelation(append([]byte(nil), jsonProps...), o.correlation)
	}
	if err := o.conn.TryPublish(&m, nil); err != nil {
		c.log.Warn("the answer to a command could not be sent", "id", r.ID, "status", string(r.Status), "reason", err)
	}
}

// counts returns how many commands there were, by outcome.
func (c *commands) counts() map[string]uint64 {
	s := c.handler.Stats()
	return map[string]uint64{"done": s.Done, "refused": s.Refused, "failed": s.Failed, "unknown": s.Unknown}
}

// commandOptions turns the configuration into the handler's options.
func commandOptions(c *config.Config, o Options) command.Options {
	return command.Options{
		Clock: o.Clock, Log: o.Log,
		MaxAge:        c.Field.Commands.MaxAge.Std(),
		MaxLifetime:   c.Field.Commands.MaxLifetime.Std(),
		Timeout:       c.Field.Commands.Timeout.Std(),
		AllowUnsynced: c.Field.Commands.AllowUnsynced,
	}
}
