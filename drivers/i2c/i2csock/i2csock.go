// Package i2csock carries I2C transactions over a stream socket: one process
// serves a bus, others use it. The bench puts emulated chips behind one so that
// an unmodified gateway reads them; a bus can also be reached through the
// process that owns it.
//
// A request is address, length to write, length to read, each two bytes with
// the low byte first, and the bytes to write. The answer is one byte of status
// and, when that is zero, the bytes read. One transaction is under way on a
// connection at a time.
package i2csock

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"holdfast/drivers/i2c"
)

// The longest time for one transaction when the context allows more: ours, and
// that of the process that serves.
const (
	limit      = 2 * time.Second
	serveLimit = time.Second
)

const requestHeader = 6

// statuses are the answers that tell errors of package i2c apart, in the order
// of their numbers from 1 on. The last one stands for every other error.
var statuses = []error{i2c.ErrNACK, i2c.ErrTimeout, i2c.ErrStuck, i2c.ErrArbitration, i2c.ErrGone, errFailed}

var errFailed = errors.New("the bus's owner could not carry out the transaction")

// Bus is a bus behind a socket. It connects on first use, and again after an
// error.
type Bus struct {
	network, address string

	turn   chan struct{} // holds one token: a transaction is never interleaved with another
	conn   net.Conn      // nil while there is none
	mu     sync.Mutex
	closed bool
}

// New returns the bus served at an address, such as "unix", "/run/plant/i2c".
func New(network, address string) *Bus {
	b := &Bus{network: network, address: address, turn: make(chan struct{}, 1)}
	b.turn <- struct{}{}
	return b
}

// String names the bus.
func (b *Bus) String() string { return b.network + ":" + b.address }

// Tx does one transaction on the far bus. Errors that package i2c names arrive
// as they were; a socket that fails is ErrGone.
func (b *Bus) Tx(ctx context.Context, addr uint16, w, r []byte) error {
	if err := i2c.CheckTx(addr, w, r); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	select {
	case <-b.turn:
		defer func() { b.turn <- struct{}{} }()
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", b, i2c.ErrTimeout)
	}
	conn, err := b.connection(ctx)
	if err != nil {
		return err
	}
	status, err := transact(ctx, conn, addr, w, r)
	if err != nil {
		b.drop() // an answer may still come: the connection cannot be used again
		if errors.Is(err, os.ErrDeadlineExceeded) || ctx.Err() != nil {
			return fmt.Errorf("%s: %w", b, i2c.ErrTimeout)
		}
		return fmt.Errorf("%s: %w: %w", b, i2c.ErrGone, err)
	}
	switch {
	case status == 0:
		return nil
	case int(status) <= len(statuses):
		return fmt.Errorf("%s 0x%02x: %w", b, addr, statuses[status-1])
	}
	b.drop()
	return fmt.Errorf("%s: %w: answer of unknown status %d", b, i2c.ErrGone, status)
}

func (b *Bus) connection(ctx context.Context) (net.Conn, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, i2c.ErrClosed
	}
	if b.conn != nil {
		return b.conn, nil
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, b.network, b.address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", b, i2c.ErrGone, err)
	}
	b.conn = conn
	return conn, nil
}

func (b *Bus) drop() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.conn != nil {
		b.conn.Close()
		b.conn = nil
	}
}

func transact(ctx context.Context, conn net.Conn, addr uint16, w, r []byte) (status byte, err error) {
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return 0, err
	}
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	req := make([]byte, requestHeader, requestHeader+len(w))
	binary.LittleEndian.PutUint16(req[0:], addr)
	binary.LittleEndian.PutUint16(req[2:], uint16(len(w)))
	binary.LittleEndian.PutUint16(req[4:], uint16(len(r)))
	if _, err := conn.Write(append(req, w...)); err != nil {
		return 0, err
	}
	var s [1]byte
	if _, err := io.ReadFull(conn, s[:]); err != nil || s[0] != 0 {
		return s[0], err
	}
	_, err = io.ReadFull(conn, r)
	return 0, err
}

// Close ends the connection. A transaction under way fails.
func (b *Bus) Close() error {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.drop()
	return nil
}

// Serve answers requests on l with transactions on bus until ctx ends.
func Serve(ctx context.Context, l net.Listener, bus i2c.Bus) error {
	var all sync.WaitGroup
	defer all.Wait()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		all.Go(func() {
			defer conn.Close()
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			defer stop()
			_ = serve(ctx, conn, bus) // the caller has gone, or sent nonsense: the connection ends either way
		})
	}
}

// serve answers one connection until it ends or a request makes no sense.
func serve(ctx context.Context, conn io.ReadWriter, bus i2c.Bus) error {
	in := bufio.NewReader(conn)
	var h [requestHeader]byte
	for {
		if _, err := io.ReadFull(in, h[:]); err != nil {
			return err
		}
		addr := binary.LittleEndian.Uint16(h[0:])
		w := make([]byte, binary.LittleEndian.Uint16(h[2:]))
		answer := make([]byte, 1+int(binary.LittleEndian.Uint16(h[4:])))
		if err := i2c.CheckTx(addr, w, answer[1:]); err != nil {
			return err
		}
		if _, err := io.ReadFull(in, w); err != nil {
			return err
		}
		one, cancel := context.WithTimeout(ctx, serveLimit)
		err := bus.Tx(one, addr, w, answer[1:])
		cancel()
		if err != nil {
			answer = []byte{statusOf(err)}
		}
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

func statusOf(err error) byte {
	for i, known := range statuses {
		if errors.Is(err, known) {
			return byte(i + 1)
		}
	}
	return byte(len(statuses))
}
