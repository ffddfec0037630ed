package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// ErrUnreachable is wrapped by errors that mean that no daemon answers.
var ErrUnreachable = errors.New("not running, or not reachable")

// Client talks to one daemon.
type Client struct {
	path string
	http http.Client
}

// NewClient returns a client of the socket at path.
func NewClient(path string) *Client {
	c := &Client{path: path}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", path)
		},
	}
	return c
}

// Get fills v with the answer to GET /name.
func (c *Client) Get(ctx context.Context, name string, v any) error {
	body, err := c.do(ctx, http.MethodGet, name)
	if err != nil {
		return err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(v); err != nil {
		return fmt.Errorf("answer of %q: %w", c.path, err)
	}
	return nil
}

// Post asks the daemon to do something.
func (c *Client) Post(ctx context.Context, name string) error {
	body, err := c.do(ctx, http.MethodPost, name)
	if err != nil {
		return err
	}
	return body.Close()
}

// Watch calls f with each line of a stream until f fails, ctx ends or the
// daemon goes.
func (c *Client) Watch(ctx context.Context, name string, f func(line []byte) error) error {
	body, err := c.do(ctx, http.MethodGet, name)
	if err != nil {
		return err
	}
	defer body.Close()
	lines := bufio.NewReaderSize(body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%q: the daemon has gone: %w", c.path, ErrUnreachable)
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

func (c *Client) do(ctx context.Context, method, name string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://daemon/"+name, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) {
			return nil, fmt.Errorf("%q: %w (%v)", c.path, ErrUnreachable, op.Err)
		}
		return nil, fmt.Errorf("%q: %w", c.path, err)
	}
	if resp.StatusCode >= 300 {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
		resp.Body.Close()
		return nil, errors.New(strings.TrimSpace(string(text)))
	}
	return resp.Body, nil
}
