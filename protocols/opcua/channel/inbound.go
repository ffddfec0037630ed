package channel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"holdfast/protocols/opcua/wire"
)

// inbound is the state of what we receive, of one goroutine.
type inbound struct {
	buf      []byte // of one chunk
	channel  uint32
	current  keys
	previous keys          // which the server may still use for a while, mixed with the current ones (OPC 10000-6, 6.7.4)
	until    time.Duration // elapsed time at which the previous ones end
	sequence uint32
	begun    bool                // sequence is known
	chunks   map[uint32]*partial // messages of which the end is missing, by request id
	held     int                 // bytes in them
	max      int                 // most bytes of a message, and of all that are unfinished
}

// A partial message.
type partial struct{ data []byte }

// frame reads one chunk. body is what follows type and size; it is good until the
// next call.
func (in *inbound) frame(r io.Reader) (kind string, final byte, body []byte, err error) {
	if in.buf == nil {
		in.buf = make([]byte, ourBuffer)
	}
	head := in.buf[:8]
	if _, err := io.ReadFull(r, head); err != nil {
		return "", 0, nil, closed(err)
	}
	kind, final = string(head[:3]), head[3]
	size := binary.LittleEndian.Uint32(head[4:])
	if size < 8 || size > ourBuffer {
		return "", 0, nil, fmt.Errorf("a chunk of %d bytes", size)
	}
	body = in.buf[8:size]
	if _, err := io.ReadFull(r, body); err != nil {
		return "", 0, nil, closed(err)
	}
	if kind == "ERR" {
		e := wire.NewReader(body)
		status, reason := ua.StatusCode(e.U32()), e.Text()
		if len(reason) > 200 {
			reason = reason[:200]
		}
		return "", 0, nil, &Refused{status, reason}
	}
	return kind, final, body, nil
}

func closed(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
		return errors.New("the server closed the connection")
	}
	return err
}

// A Refused error is an error message of the server, which ends the connection
// (OPC 10000-6, 7.1.2.5).
type Refused struct {
	Status ua.StatusCode
	Reason string // the server's words, "" if it has none
}

// Error tells the status and the server's words.
func (r *Refused) Error() string {
	text := "the server refused: " + wire.StatusText(r.Status)
	if r.Reason != "" {
		text += " (" + r.Reason + ")"
	}
	return text
}

// Unwrap returns the status.
func (r *Refused) Unwrap() error { return r.Status }

// receive takes one chunk and hands on the message that it ends.
func (c *Channel) receive() error {
	kind, final, body, err := c.in.frame(c.conn)
	if err != nil {
		return err
	}
	r := wire.NewReader(body)
	channel := r.U32()
	var plain []byte
	switch kind {
	case "OPN":
		plain, err = c.unsealOpen(r, body)
	case "MSG":
		if channel != c.in.channel {
			return fmt.Errorf("a message for channel %d, ours is %d", channel, c.in.channel)
		}
		plain, err = c.unseal(r, body)
	case "CLO":
		return errors.New("the server closed the channel")
	default:
		return fmt.Errorf("a message of type %q", kind)
	}
	if err != nil {
		return err
	}
	if len(plain) < sequenceHeader {
		return wire.ErrShort
	}
	reqID := binary.LittleEndian.Uint32(plain[4:])
	if err := c.in.follow(binary.LittleEndian.Uint32(plain)); err != nil {
		return err
	}
	data, abort, err := c.in.join(reqID, final, plain[sequenceHeader:])
	switch {
	case err != nil:
		return err
	case abort != nil:
		c.deliver(reqID, wire.Message{}, abort)
	case data != nil:
		return c.handOn(kind, reqID, data)
	}
	return nil
}

// handOn gives a whole message to who waits for it.
func (c *Channel) handOn(kind string, reqID uint32, data []byte) error {
	r := wire.NewReader(data)
	id := r.ID()
	if r.Err() != nil {
		return r.Err()
	}
	m := wire.Message{Body: data[len(data)-r.Left():]}
	if id.NS == 0 && id.Kind == wire.Numeric {
		m.Type = id.Num
	}
	if kind == "OPN" {
		c.opened(reqID, m)
		return nil
	}
	c.deliver(reqID, m, nil)
	return nil
}

func (c *Channel) deliver(reqID uint32, m wire.Message, err error) {
	c.mu.Lock()
	deliver := c.pending[reqID]
	delete(c.pending, reqID)
	c.mu.Unlock()
	if deliver != nil { // else it came too late
		deliver(m, err)
	}
}

// follow checks that sequence numbers have no holes: on a channel in order, one
// that is missing or repeated was tampered with (OPC 10000-6, 6.7.2.4).
func (in *inbound) follow(n uint32) error {
	want := in.sequence + 1
	wrapped := in.sequence > math.MaxUint32-1024 && n < 1024
	if in.begun && n != want && !wrapped {
		return fmt.Errorf("sequence number %d, want %d", n, want)
	}
	in.sequence, in.begun = n, true
	return nil
}

// join gathers the chunks of a message. data is the whole of it, nil while some
// is missing. Bounded: unfinished messages together hold at most max bytes.
func (in *inbound) join(reqID uint32, final byte, part []byte) (data []byte, abort, err error) {
	p := in.chunks[reqID]
	switch final {
	case 'A':
		in.drop(reqID)
		r := wire.NewReader(part)
		return nil, &Refused{ua.StatusCode(r.U32()), r.Text()}, nil
	case 'C', 'F':
	default:
		return nil, nil, fmt.Errorf("a chunk that is %q", final)
	}
	have := len(part)
	if p != nil {
		have += len(p.data)
	}
	if have > in.max || in.held+len(part) > in.max {
		return nil, nil, fmt.Errorf("a message of more than %d bytes", in.max)
	}
	if final == 'F' && p == nil {
		return bytes.Clone(part), nil, nil
	}
	if p == nil {
		if len(in.chunks) >= maxPending {
			return nil, nil, fmt.Errorf("%d unfinished messages", len(in.chunks))
		}
		p = &partial{}
		in.chunks[reqID] = p
	}
	p.data = append(p.data, part...)
	in.held += len(part)
	if final == 'C' {
		return nil, nil, nil
	}
	in.drop(reqID)
	return p.data, nil, nil
}

func (in *inbound) drop(reqID uint32) {
	if p := in.chunks[reqID]; p != nil {
		in.held -= len(p.data)
		delete(in.chunks, reqID)
	}
}

// unseal verifies and decrypts a message chunk and returns it from the sequence
// header on.
func (c *Channel) unseal(r *wire.Reader, body []byte) ([]byte, error) {
	token := r.U32()
	if r.Err() != nil {
		return nil, r.Err()
	}
	secured := len(body) - r.Left()
	var k keys
	switch token {
	case c.in.current.token:
		k = c.in.current
	case c.in.previous.token:
		if c.o.Clock.Elapsed() < c.in.until {
			k = c.in.previous
		}
	}
	if k.algo == nil {
		return nil, fmt.Errorf("a message under token %d, which is not in use", token)
	}
	if !c.secure() {
		return body[secured:], nil
	}
	return c.openChunk(secured, k.algo, c.o.Mode == ua.MessageSecurityModeSignAndEncrypt, 1, len(body))
}

// unsealOpen does the same for an OpenSecureChannel chunk.
func (c *Channel) unsealOpen(r *wire.Reader, body []byte) ([]byte, error) {
	policy, cert, thumb := r.Text(), r.Bytes(), r.Bytes()
	if r.Err() != nil {
		return nil, r.Err()
	}
	secured := len(body) - r.Left()
	if policy != c.o.PolicyURI {
		return nil, fmt.Errorf("the server opens the channel with policy %q, asked was %q", policy, c.o.PolicyURI)
	}
	if !c.secure() {
		return body[secured:], nil
	}
	if !bytes.Equal(thumbprint(cert), thumbprint(c.o.Remote)) {
		return nil, errors.New("the server opens the channel with another certificate than the one it announced")
	}
	if !bytes.Equal(thumb, thumbprint(c.o.Certificate)) {
		return nil, errors.New("the server's answer is for another certificate than ours")
	}
	c.mu.Lock()
	op := c.opening
	c.mu.Unlock()
	if op == nil {
		return nil, errors.New("an OpenSecureChannel answer that nobody asked for")
	}
	return c.openChunk(secured, op.asym, true, paddingBytes(op.asym.SignatureLength()), len(body))
}

var errSecurity = errors.New("the signature of a message is wrong")

// openChunk opens the chunk in the buffer, whose body is n bytes long and secured
// from the given offset on.
func (c *Channel) openChunk(secured int, algo *uapolicy.EncryptionAlgorithm, encrypted bool, extra, n int) ([]byte, error) {
	chunk := c.in.buf[:8+n]
	start := 8 + secured
	if encrypted {
		plain, err := algo.Decrypt(chunk[start:])
		if err != nil {
			return nil, fmt.Errorf("decrypt: %w", err)
		}
		if len(plain) > len(chunk)-start {
			return nil, errSecurity
		}
		chunk = chunk[:start+copy(chunk[start:], plain)]
	}
	sign := algo.RemoteSignatureLength()
	end := len(chunk) - sign
	if end < start {
		return nil, errSecurity
	}
	if err := algo.VerifySignature(chunk[:end], chunk[end:]); err != nil {
		return nil, errSecurity
	}
	if encrypted {
		if end-extra < start {
			return nil, errSecurity
		}
		pad := int(chunk[end-1])
		if extra == 2 {
			pad = pad<<8 | int(chunk[end-2])
		}
		if end -= pad + extra; end < start {
			return nil, errSecurity
		}
	}
	return chunk[start:end], nil
}
