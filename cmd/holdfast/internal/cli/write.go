package cli

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/fielddaemon"
	"holdfast/hub/client"
	"holdfast/protocols/command"
	"holdfast/protocols/point"
)

// answerGrace is how long an answer may take beyond the expiry of its command:
// one that was begun in time may still be under way.
const answerGrace = 15 * time.Second

// written is what write --json prints.
type written struct {
	ID           string          `json:"id"`
	Device       string          `json:"device"`
	Tag          string          `json:"tag"`
	Value        json.RawMessage `json:"value"`
	Status       command.Status  `json:"status"`
	Quality      string          `json:"quality"`
	Reason       string          `json:"reason,omitempty"`
	ReadBack     json.RawMessage `json:"read_back,omitempty"`
	Milliseconds float64         `json:"milliseconds"` // from sending to the answer
}

func (a *app) writeCommand() *cobra.Command {
	var expires time.Duration
	var verify bool
	c := verb("write DEVICE/TAG VALUE", "command a field device", usageWrite, cobra.ExactArgs(2), func(c *cobra.Command, args []string) error {
		device, tag, ok := strings.Cut(args[0], "/")
		if !ok || point.CheckName(device) != nil || point.CheckName(tag) != nil {
			return usage(fmt.Errorf("%q is not DEVICE/TAG", args[0]), "\"holdfast tags\" lists them")
		}
		value, err := parseValue(args[1])
		if err != nil {
			return usage(fmt.Errorf("value %q: %w", args[1], err))
		}
		if expires <= 0 {
			return usage(fmt.Errorf("--expires %s is not a time to come", expires))
		}
		run, err := a.runDir()
		if err != nil {
			return err
		}
		now := time.Now()
		r := command.Request{ID: rand.Text(), Device: device, Tag: tag, Value: value, Issued: now, Expires: now.Add(expires), Verify: verify}
		result, took, err := send(c.Context(), run, &r, expires)
		if err != nil {
			return err
		}
		return a.printWritten(&r, result, took)
	})
	c.Flags().DurationVarP(&expires, "expires", "e", 5*time.Second, "the latest that the command may be carried out, from now")
	c.Flags().BoolVarP(&verify, "verify", "v", false, "read the value back and compare")
	return c
}

// parseValue reads a value as a person writes it: JSON where it is JSON, text
// everywhere else.
func parseValue(s string) (point.Value, error) {
	if v, err := point.ParseValue([]byte(s)); err == nil {
		return v, nil
	}
	if s == "" || s[0] == '"' || s[0] == '{' || s[0] == '[' {
		return point.Value{}, errors.New("it is not a value; text with quotes in it is written as JSON")
	}
	return point.StringValue(s), nil
}

// send publishes a command through the hub and waits for its answer.
func send(ctx context.Context, run string, r *command.Request, expires time.Duration) (*command.Result, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, expires+answerGrace)
	defer cancel()
	res, took, err := fielddaemon.Ask(ctx, run, r, true)
	switch {
	case errors.Is(err, fielddaemon.ErrNoAnswer):
		return nil, 0, unreachable(fmt.Errorf("no answer to the command within %s; it may have been carried out", expires+answerGrace),
			"the field daemon does not run, or commands are disabled; see \"holdfast status\"")
	case err != nil:
		return nil, 0, hubFailure(err)
	}
	return res, took, nil
}

func hubFailure(err error) error {
	var no *client.ReasonError
	if errors.As(err, &no) {
		return refused(fmt.Errorf("hub: %w", err))
	}
	return unreachable(fmt.Errorf("hub: %w", err), "start it with \"holdfast run\", or look at \"systemctl status holdfast-hub\"")
}

func (a *app) printWritten(r *command.Request, res *command.Result, took time.Duration) error {
	w := written{
		ID: r.ID, Device: r.Device, Tag: r.Tag, Value: point.AppendValue(nil, r.Value), Status: res.Status,
		Quality: res.Quality.String(), Reason: res.Reason, Milliseconds: float64(took.Microseconds()) / 1000,
	}
	if res.Value.Kind() != point.Null {
		w.ReadBack = point.AppendValue(nil, res.Value)
	}
	if a.json {
		if err := a.printJSON(w); err != nil {
			return err
		}
	}
	err := fmt.Errorf("%s/%s: %s: %s", r.Device, r.Tag, res.Status, res.Reason)
	switch res.Status {
	case command.Refused:
		return a.quiet(refused(err))
	case command.Failed:
		return a.quiet(failed(err))
	case command.Unknown:
		return a.quiet(unreachable(err, "it may have been carried out: look at the device before you repeat it"))
	}
	if !a.json {
		a.printf("%s/%s = %s, confirmed", r.Device, r.Tag, r.Value)
		if r.Verify {
			a.printf(" and read back as %s", res.Value)
		}
		a.printf(" after %s\n", took.Round(100*time.Microsecond))
	}
	return nil
}

// quiet keeps report from printing a second JSON document after an answer that
// has said everything.
func (a *app) quiet(err error) error {
	if f, ok := err.(*failure); ok && a.json {
		f.told = true
	}
	return err
}
