package channel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"holdfast/protocols/opcua/wire"
)

// outbound is the state of what we send, guarded by Channel.send.
type outbound struct {
	channel   uint32
	keys      keys
	sequence  uint32
	chunk     int // most bytes of one chunk that the server takes
	maxBytes  int // most bytes of one message that the server takes, 0 = any
	maxChunks int // likewise
}

const (
	messageHeader  = 12 // type, size, channel id
	sequenceHeader = 8  // sequence number, request id
	ourBuffer      = 65535
	minBuffer      = 8192 // OPC 10000-6, 7.1.2.3
)

// nextSequence counts and wraps as OPC 10000-6, 6.7.2.4 says.
func (o *outbound) nextSequence() uint32 {
	if o.sequence > math.MaxUint32-1024 {
		o.sequence = 0
	}
	o.sequence++
	return o.sequence
}

// encode returns the body of a request message.
func (c *Channel) encode(req ua.Request, token *ua.NodeID, reqID uint32, hint time.Duration) ([]byte, error) {
	typeID := ua.ServiceTypeID(req)
	if typeID == 0 {
		return nil, fmt.Errorf("no service takes a %T", req)
	}
	if token == nil {
		token = ua.NewTwoByteNodeID(0)
	}
	req.SetHeader(&ua.RequestHeader{
		AuthenticationToken: token, Timestamp: c.o.Clock.Now(), RequestHandle: reqID,
		TimeoutHint: uint32(min(hint/time.Millisecond, math.MaxUint32)),
	})
	body, err := ua.Encode(req)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", req, err)
	}
	return append([]byte{1, 0, byte(typeID), byte(typeID >> 8)}, body...), nil
}

// write sends one request under the present keys. deliver may be nil when no
// answer is wanted.
func (c *Channel) write(req ua.Request, token *ua.NodeID, hint time.Duration, kind string, deliver func(wire.Message, error)) (uint32, error) {
	c.mu.Lock()
	if c.err != nil {
		defer c.mu.Unlock()
		return 0, c.err
	}
	if len(c.pending) >= maxPending {
		c.mu.Unlock()
		return 0, fmt.Errorf("%d requests wait for an answer", maxPending)
	}
	c.next++
	if c.next == 0 {
		c.next = 1
	}
	reqID := c.next
	if deliver != nil {
		c.pending[reqID] = deliver
	}
	c.mu.Unlock()
	err := c.writeMessage(req, token, reqID, hint, kind)
	if err != nil && deliver != nil {
		c.mu.Lock()
		_, ours := c.pending[reqID]
		delete(c.pending, reqID)
		c.mu.Unlock()
		if !ours {
			return reqID, nil // the channel failed meanwhile and has delivered that
		}
	}
	return reqID, err
}

func (c *Channel) writeMessage(req ua.Request, token *ua.NodeID, reqID uint32, hint time.Duration, kind string) error {
	body, err := c.encode(req, token, reqID, hint)
	if err != nil {
		return err
	}
	c.send.Lock()
	defer c.send.Unlock()
	algo := c.out.keys.algo
	room := c.bodySize(algo)
	chunks := max((len(body)+room-1)/room, 1)
	if c.out.maxBytes > 0 && len(body) > c.out.maxBytes || c.out.maxChunks > 0 && chunks > c.out.maxChunks {
		return ua.StatusBadRequestTooLarge
	}
	var frame []byte
	for i := range chunks {
		part := body[i*room : min((i+1)*room, len(body))]
		final := byte('C')
		if i == chunks-1 {
			final = 'F'
		}
		frame = c.header(frame[:0], kind, final)
		frame = binary.LittleEndian.AppendUint32(frame, c.out.keys.token)
		secured := len(frame)
		frame = binary.LittleEndian.AppendUint32(frame, c.out.nextSequence())
		frame = binary.LittleEndian.AppendUint32(frame, reqID)
		frame = append(frame, part...)
		if frame, err = c.protect(frame, secured, algo, c.o.Mode == ua.MessageSecurityModeSignAndEncrypt); err != nil {
			return err
		}
		if err := c.flush(frame); err != nil {
			return err
		}
	}
	return nil
}

// flush writes one chunk. After an error nothing is known of what the server got,
// so that the channel is over.
func (c *Channel) flush(frame []byte) error {
	_ = c.conn.SetWriteDeadline(c.o.Clock.Now().Add(c.o.Timeout))
	if _, err := c.conn.Write(frame); err != nil {
		err = fmt.Errorf("send: %w", err)
		c.mu.Lock()
		if c.broken == nil {
			c.broken = err
		}
		c.mu.Unlock()
		c.conn.Close() // Run notices and ends the channel
		return err
	}
	return nil
}

func (c *Channel) header(dst []byte, kind string, final byte) []byte {
	dst = append(dst, kind...)
	dst = append(dst, final, 0, 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, c.out.channel)
}

// writeOpen sends an OpenSecureChannel request, which is always one chunk and
// secured with the long keys.
func (c *Channel) writeOpen(op *opening, req *ua.OpenSecureChannelRequest) error {
	body, err := c.encode(req, nil, op.reqID, c.o.Timeout)
	if err != nil {
		return err
	}
	c.send.Lock()
	defer c.send.Unlock()
	frame := c.header(nil, "OPN", 'F')
	var cert, thumb []byte
	if c.secure() {
		cert, thumb = c.o.Certificate, thumbprint(c.o.Remote)
	}
	for _, b := range [][]byte{[]byte(c.o.PolicyURI), cert, thumb} {
		frame = appendBytes(frame, b)
	}
	secured := len(frame)
	frame = binary.LittleEndian.AppendUint32(frame, c.out.nextSequence())
	frame = binary.LittleEndian.AppendUint32(frame, op.reqID)
	frame = append(frame, body...)
	if frame, err = c.protect(frame, secured, op.asym, true); err != nil {
		return err
	}
	return c.flush(frame)
}

func appendBytes(dst, b []byte) []byte {
	if b == nil {
		return binary.LittleEndian.AppendUint32(dst, math.MaxUint32)
	}
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(b)))
	return append(dst, b...)
}

// paddingBytes is how many bytes tell the length of the padding: two when the
// receiver's key is longer than 2048 bits (OPC 10000-6, 6.7.2.5).
func paddingBytes(signature int) int {
	if signature > 256 {
		return 2
	}
	return 1
}

// bodySize returns how much of a message fits into one chunk.
func (c *Channel) bodySize(algo *uapolicy.EncryptionAlgorithm) int {
	room := c.out.chunk - messageHeader - 4
	if !c.secure() {
		return room - sequenceHeader
	}
	if c.o.Mode == ua.MessageSecurityModeSign {
		return room - sequenceHeader - algo.SignatureLength()
	}
	blocks := room / algo.BlockSize()
	return blocks*algo.PlaintextBlockSize() - sequenceHeader - algo.SignatureLength() - 1
}

// protect pads, signs and encrypts a chunk from its byte secured on, and writes
// its final size into the header.
func (c *Channel) protect(frame []byte, secured int, algo *uapolicy.EncryptionAlgorithm, encrypt bool) ([]byte, error) {
	size := len(frame)
	if c.secure() {
		size += algo.SignatureLength()
	}
	if c.secure() && encrypt {
		block, extra := algo.PlaintextBlockSize(), paddingBytes(algo.RemoteSignatureLength())
		pad := 0
		if rest := (size - secured + extra) % block; rest != 0 {
			pad = block - rest
		}
		for range pad + 1 {
			frame = append(frame, byte(pad))
		}
		if extra == 2 {
			frame = append(frame, byte(pad>>8))
		}
		size = secured + (len(frame)-secured+algo.SignatureLength())/block*algo.BlockSize()
	}
	binary.LittleEndian.PutUint32(frame[4:], uint32(size))
	if !c.secure() {
		return frame, nil
	}
	sig, err := algo.Signature(frame)
	if err != nil {
		return nil, fmt.Errorf("sign: %w", err)
	}
	frame = append(frame, sig...)
	if !encrypt {
		return frame, nil
	}
	cipher, err := algo.Encrypt(frame[secured:])
	if err != nil {
		return nil, fmt.Errorf("encrypt: %w", err)
	}
	frame = append(frame[:secured], cipher...)
	if len(frame) != size {
		return nil, errors.New("encrypt: the size is wrong")
	}
	return frame, nil
}

// hello agrees on buffer sizes (OPC 10000-6, 7.1.2.3 and 7.1.2.4).
func (c *Channel) hello() error {
	frame := append([]byte("HELF"), 0, 0, 0, 0)
	for _, n := range []uint32{0, ourBuffer, ourBuffer, uint32(c.o.MaxMessage), 0} {
		frame = binary.LittleEndian.AppendUint32(frame, n)
	}
	frame = appendBytes(frame, []byte(c.o.URL))
	binary.LittleEndian.PutUint32(frame[4:], uint32(len(frame)))
	if _, err := c.conn.Write(frame); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	kind, _, body, err := c.in.frame(c.conn)
	if err != nil {
		return err
	}
	if kind != "ACK" {
		return fmt.Errorf("the server answers hello with %q", kind)
	}
	r := wire.NewReader(body)
	r.U32() // protocol version: there is only one
	take := r.U32()
	r.U32()
	maxBytes, maxChunks := r.U32(), r.U32()
	if r.Err() != nil {
		return r.Err()
	}
	if take < minBuffer {
		return fmt.Errorf("the server takes chunks of %d bytes; %d is the least", take, minBuffer)
	}
	c.out.chunk = min(int(take), ourBuffer)
	c.out.maxBytes, c.out.maxChunks = int(min(maxBytes, math.MaxInt32)), int(min(maxChunks, math.MaxInt32))
	return nil
}
