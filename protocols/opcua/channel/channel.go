// Package channel is the client side of an OPC UA secure channel over TCP
// (OPC 10000-6, 6.7 and 7): it carries service requests and their responses, in
// order, signed and encrypted, and renews its keys while it does.
//
// The cryptography is that of gopcua's package uapolicy. The channel around it is
// our own, because a session that must not lose a value needs what gopcua's does not
// give: responses handed over in the order in which they came, so that a hole in
// a subscription's sequence numbers is a hole and not two goroutines that overtook each other; a
// failed renewal that is told; sequence numbers that are checked; and a peer that
// cannot make it panic or allocate without bound.
package channel

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock"
	"holdfast/protocols/opcua/wire"
)

// Options say where and how a channel is opened.
type Options struct {
	URL   string // opc.tcp://host:port/path
	Clock clock.Clock
	// Dial opens the connection; nil = TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	PolicyURI   string // "" = None
	Mode        ua.MessageSecurityMode
	Certificate []byte          // ours, DER; nil with None
	Key         *rsa.PrivateKey // of Certificate
	Remote      []byte          // the server's certificate, DER, which the caller trusts

	Connect    time.Duration // longest wait for TCP; 0 = 1.5 s
	Timeout    time.Duration // of each request; 0 = 3 s
	Lifetime   time.Duration // of the keys, as asked for; 0 = 1 h
	MaxMessage int           // bytes of the largest response; 0 = 4 MiB
}

func (o *Options) fill() {
	def := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	def(&o.Connect, 1500*time.Millisecond)
	def(&o.Timeout, 3*time.Second)
	def(&o.Lifetime, time.Hour)
	if o.MaxMessage <= 0 {
		o.MaxMessage = 4 << 20
	}
	if o.PolicyURI == "" {
		o.PolicyURI = ua.SecurityPolicyURINone
	}
	if o.PolicyURI == ua.SecurityPolicyURINone {
		o.Mode = ua.MessageSecurityModeNone
	}
	if o.Dial == nil {
		o.Dial = (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext
	}
}

// maxPending bounds the requests under way; one more is refused.
const maxPending = 256

// ErrClosed says that the channel was closed on our side.
var ErrClosed = errors.New("channel closed")

// A Channel is one open secure channel. Open it, then run it. Start, Call and
// Close may be called from many goroutines.
type Channel struct {
	o    Options
	conn net.Conn
	in   inbound // of the goroutine that runs Run; of Open before that

	send sync.Mutex // order of what is written
	out  outbound

	mu      sync.Mutex
	pending map[uint32]func(wire.Message, error) // by request id
	next    uint32                               // request id
	opening *opening
	life    time.Duration // of the present keys
	broken  error         // a write that failed, which is why
	err     error
	done    chan struct{}
}

// Open dials, agrees on buffers and opens the channel. The channel answers
// nothing before Run.
func Open(ctx context.Context, o Options) (*Channel, error) {
	o.fill()
	u, err := url.Parse(o.URL)
	if err != nil || u.Scheme != "opc.tcp" || u.Host == "" {
		return nil, fmt.Errorf("endpoint %q is not opc.tcp://host:port", o.URL)
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "4840") // the port that IANA assigned
	}
	dialing, cancel := context.WithTimeout(ctx, o.Connect)
	conn, err := o.Dial(dialing, "tcp", host)
	cancel()
	if err != nil {
		return nil, err
	}
	c := &Channel{o: o, conn: conn, pending: map[uint32]func(wire.Message, error){}, done: make(chan struct{})}
	c.in.max = o.MaxMessage
	c.in.chunks = map[uint32]*partial{}
	if err := c.open(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return c, nil
}

// open does the handshakes; ctx and the timeout bound it.
func (c *Channel) open(ctx context.Context) error {
	_ = c.conn.SetDeadline(c.o.Clock.Now().Add(c.o.Timeout))
	stop := context.AfterFunc(ctx, func() { c.conn.Close() })
	err := c.hello()
	if err == nil {
		err = c.issue()
	}
	if !stop() && err != nil {
		return context.Cause(ctx)
	}
	if err != nil {
		return err
	}
	return c.conn.SetDeadline(time.Time{})
}

// issue opens the channel for the first time and waits for the answer.
func (c *Channel) issue() error {
	var answer error
	answered := false
	if err := c.request(ua.SecurityTokenRequestTypeIssue, func(err error) { answer, answered = err, true }); err != nil {
		return err
	}
	for !answered {
		if err := c.receive(); err != nil {
			return err
		}
	}
	return answer
}

// Run receives until the channel fails or ctx ends, and renews its keys in
// time. It returns why the channel ended, never nil. It is called once.
func (c *Channel) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(ctx, func() { c.fail(ErrClosed) })
	defer stop()
	var renewal sync.WaitGroup
	renewal.Go(func() { c.renew(ctx) })
	defer renewal.Wait()
	defer cancel()
	for {
		if err := c.receive(); err != nil {
			c.fail(err)
			return c.Err()
		}
	}
}

// Done is closed when the channel has ended.
func (c *Channel) Done() <-chan struct{} { return c.done }

// Err returns why the channel ended, nil while it is open.
func (c *Channel) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// fail ends the channel and all requests with err, the first time.
func (c *Channel) fail(err error) {
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	if c.broken != nil {
		err = c.broken
	}
	c.err = err
	pending := c.pending
	c.pending = nil
	close(c.done)
	c.mu.Unlock()
	c.conn.Close()
	for _, deliver := range pending {
		deliver(wire.Message{}, err)
	}
}

// Close tells the server, as far as that goes without waiting, and ends the channel.
func (c *Channel) Close() {
	if c.Err() == nil {
		_ = c.conn.SetWriteDeadline(c.o.Clock.Now().Add(100 * time.Millisecond))
		_, _ = c.write(&ua.CloseSecureChannelRequest{}, nil, 0, "CLO", nil)
	}
	c.fail(ErrClosed)
}

// Start sends a request. deliver is called exactly once if Start returned nil:
// with the response, or with why there is none. It is called in the order in which
// responses arrive, from the channel's own goroutine, and must not block.
// hint tells the server how long the answer is wanted; 0 = for ever.
func (c *Channel) Start(req ua.Request, token *ua.NodeID, hint time.Duration, deliver func(wire.Message, error)) error {
	_, err := c.write(req, token, hint, "MSG", deliver)
	return err
}

// Call sends a request and waits for its response, for as long as ctx and the
// channel's timeout allow, and decodes it into res. An error that is a
// [ua.StatusCode] is the server's; a [*Lost] may have been acted on.
func (c *Channel) Call(ctx context.Context, req ua.Request, token *ua.NodeID, res wire.Response) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	type answer struct {
		m   wire.Message
		err error
	}
	answers := make(chan answer, 1)
	reqID, err := c.write(req, token, c.o.Timeout, "MSG", func(m wire.Message, err error) { answers <- answer{m, err} })
	if err != nil {
		return err
	}
	timer := c.o.Clock.NewTimer(c.o.Timeout)
	defer timer.Stop()
	select {
	case a := <-answers:
		if a.err != nil {
			return &Lost{a.err}
		}
		return wire.Decode(a.m, res)
	case <-ctx.Done():
		c.forget(reqID)
		return &Lost{ctx.Err()}
	case <-timer.C():
		c.forget(reqID)
		return &Lost{fmt.Errorf("no answer within %s", c.o.Timeout)}
	}
}

// A Lost error says that a request was sent and its answer never came: the
// server may have acted on it.
type Lost struct{ Err error }

// Error returns the text of the cause.
func (l *Lost) Error() string { return l.Err.Error() }

// Unwrap returns the cause.
func (l *Lost) Unwrap() error { return l.Err }

// forget drops what waits for an answer; the answer, if it comes, is dropped too.
func (c *Channel) forget(reqID uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, reqID)
}
