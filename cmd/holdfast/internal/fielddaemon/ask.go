package fielddaemon

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/hub/client"
	"holdfast/protocols/command"
)

// ErrNoAnswer says that a command was handed to the hub and nobody answered in
// time. It may have been carried out.
var ErrNoAnswer = errors.New("no answer to the command; it may have been carried out")

// Ask sends a command to the field daemon through the hub on this machine and
// waits for the answer until ctx ends, which must have a deadline. took is from
// sending to the answer. A local command was issued by this machine's clock and
// is signed; one that cannot be is judged like one from afar.
func Ask(ctx context.Context, run string, r *command.Request, local bool) (res *command.Result, took time.Duration, err error) {
	topic := ResultPrefix + r.ID
	answers := make(chan *command.Result, 1) // overflow rule: the first answer counts
	conn, _, err := client.Dial(ctx, client.Options{
		URL: "unix://" + filepath.Join(run, config.HubSocket),
		OnMessage: func(_ *client.Conn, m *client.Message) {
			if res, err := command.ParseResult(m.Payload); err == nil && res.ID == r.ID {
				select {
				case answers <- &res:
				default: // a repeated answer
				}
			}
		},
	})
	if err != nil {
		return nil, 0, err
	}
	defer conn.Close()
	if _, err := conn.Subscribe(ctx, client.Subscription{Filter: topic, QoS: 1}); err != nil {
		return nil, 0, err
	}
	payload := command.AppendRequest(nil, r)
	props := client.AppendResponseTopic(client.AppendContentType(nil, "application/json"), topic)
	if local {
		if signed, err := Sign(run, props, payload); err == nil {
			props = signed
		}
	}
	start := time.Now()
	m := client.Message{Topic: []byte(CommandTopic), Payload: payload, Props: props, QoS: 1, Expiry: max(time.Until(r.Expires), time.Second)}
	if err := conn.PublishWait(ctx, &m); err != nil {
		return nil, 0, err
	}
	select {
	case res := <-answers:
		return res, time.Since(start), nil
	case <-conn.Done():
		return nil, 0, conn.Err()
	case <-ctx.Done():
		return nil, 0, ErrNoAnswer
	}
}
