package mqttload

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"
)

type conn struct {
	nc         net.Conn
	r          *bufio.Reader
	w          *bufio.Writer
	id         string
	version    int
	receiveMax int
	closed     atomic.Bool
	buf        []byte
}

func dial(o *Options, role string, n int) (*conn, error) {
	nc, err := net.DialTimeout("tcp", o.Broker, 10*time.Second)
	if err != nil {
		return nil, err
	}
	id := fmt.Sprintf("%s-%s-%d", o.ClientID, role, n)
	c := &conn{nc: nc, r: bufio.NewReaderSize(nc, 64<<10), w: bufio.NewWriterSize(nc, 64<<10), id: id, version: o.Version}

	var flags byte
	if !o.Persistent {
		flags |= 2
	}
	user := o.Username
	if user != "" {
		flags |= 0x80
	}
	if o.Password != "" {
		flags |= 0x40
	}
	body := str(nil, "MQTT")
	body = append(body, byte(o.Version), flags, 0, 0) // keep-alive off: runs are short
	if o.Version == 5 {
		if !o.Persistent {
			body = append(body, 0)
		} else {
			body = append(body, 5, 0x11, 0, 0, 0x0e, 0x10) // session expiry: an hour
		}
	}
	body = str(body, id)
	if user != "" {
		body = str(body, user)
	}
	if o.Password != "" {
		body = str(body, o.Password)
	}
	nc.SetDeadline(time.Now().Add(15 * time.Second))
	if _, err := nc.Write(append(varint([]byte{0x10}, len(body)), body...)); err != nil {
		nc.Close()
		return nil, err
	}
	typ, _, b, err := c.read()
	if err != nil {
		nc.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	if typ != 2 || len(b) < 2 || b[1] != 0 {
		nc.Close()
		return nil, fmt.Errorf("connect refused: type %d, % x", typ, b)
	}
	if o.Version == 5 {
		c.receiveMax = receiveMaximum(b[2:])
	}
	nc.SetDeadline(time.Time{})
	return c, nil
}

// receiveMaximum reads that one property of a CONNACK's property block.
func receiveMaximum(b []byte) int {
	n, used := uvarint(b)
	if used == 0 || len(b) < used+n {
		return 65535
	}
	for b = b[used : used+n]; len(b) > 1; {
		id := b[0]
		b = b[1:]
		var l int
		switch id {
		case 0x21:
			if len(b) < 2 {
				return 65535
			}
			return int(binary.BigEndian.Uint16(b))
		case 0x24, 0x25, 0x28, 0x29, 0x2a:
			l = 1
		case 0x13, 0x22:
			l = 2
		case 0x11, 0x27:
			l = 4
		case 0x26:
			if len(b) < 2 {
				return 65535
			}
			l = 2 + int(binary.BigEndian.Uint16(b))
			if len(b) < l+2 {
				return 65535
			}
			l += 2 + int(binary.BigEndian.Uint16(b[l:]))
		default: // every other CONNACK property is one string or binary
			if len(b) < 2 {
				return 65535
			}
			l = 2 + int(binary.BigEndian.Uint16(b))
		}
		if len(b) < l {
			return 65535
		}
		b = b[l:]
	}
	return 65535
}

func (c *conn) subscribe(filter string, qos byte) error {
	body := []byte{0, 1}
	if c.version == 5 {
		body = append(body, 0)
	}
	body = append(str(body, filter), qos)
	if _, err := c.nc.Write(append(varint([]byte{0x82}, len(body)), body...)); err != nil {
		return err
	}
	c.nc.SetReadDeadline(time.Now().Add(10 * time.Second))
	defer c.nc.SetReadDeadline(time.Time{})
	typ, _, b, err := c.read()
	if err != nil {
		return err
	}
	if typ != 9 || len(b) < 3 || b[len(b)-1] >= 0x80 {
		return fmt.Errorf("subscribe refused: type %d, % x", typ, b)
	}
	return nil
}

// read returns the next packet; body is valid until the next call.
func (c *conn) read() (typ, flags byte, body []byte, err error) {
	h, err := c.r.ReadByte()
	if err != nil {
		return 0, 0, nil, err
	}
	n, shift := 0, 0
	for {
		b, err := c.r.ReadByte()
		if err != nil {
			return 0, 0, nil, err
		}
		n |= int(b&0x7f) << shift
		if b < 0x80 {
			break
		}
		if shift += 7; shift > 21 {
			return 0, 0, nil, errors.New("bad remaining length")
		}
	}
	if cap(c.buf) < n {
		c.buf = make([]byte, n)
	}
	c.buf = c.buf[:n]
	_, err = io.ReadFull(c.r, c.buf)
	return h >> 4, h & 15, c.buf, err
}

func (c *conn) close() {
	c.closed.Store(true)
	c.nc.SetWriteDeadline(time.Now().Add(time.Second))
	c.nc.Write([]byte{0xe0, 0})
	c.nc.Close()
}

func parsePublish(version int, flags byte, b []byte) (id uint16, payload []byte, err error) {
	short := errors.New("malformed PUBLISH")
	if len(b) < 2 {
		return 0, nil, short
	}
	i := 2 + int(binary.BigEndian.Uint16(b))
	if flags&6 != 0 {
		if len(b) < i+2 {
			return 0, nil, short
		}
		id = binary.BigEndian.Uint16(b[i:])
		i += 2
	}
	if len(b) < i {
		return 0, nil, short
	}
	if version == 5 {
		n, used := uvarint(b[i:])
		i += used + n
		if used == 0 || len(b) < i {
			return 0, nil, short
		}
	}
	return id, b[i:], nil
}

// publishPacket is one PUBLISH that is restamped for every message.
type publishPacket struct {
	b       []byte
	idAt    int // 0: QoS 0
	payload []byte
}

func buildPublish(version int, topic string, qos byte, size int) *publishPacket {
	var body []byte
	body = str(body, topic)
	idAt := 0
	if qos > 0 {
		idAt = len(body)
		body = append(body, 0, 0)
	}
	if version == 5 {
		body = append(body, 0)
	}
	payAt := len(body)
	for i := 0; i < size; i++ { // mildly compressible text, as telemetry is
		body = append(body, filler[i%len(filler)])
	}
	h := byte(0x30) | qos<<1
	b := varint([]byte{h}, len(body))
	hl := len(b)
	b = append(b, body...)
	p := &publishPacket{b: b, payload: b[hl+payAt:]}
	if qos > 0 {
		p.idAt = hl + idAt
	}
	return p
}

func (p *publishPacket) stamp(id uint16, at int64, n uint32, seq uint64) {
	if p.idAt > 0 {
		binary.BigEndian.PutUint16(p.b[p.idAt:], id)
	}
	if len(p.payload) >= headerLen {
		binary.BigEndian.PutUint64(p.payload, uint64(at))
		binary.BigEndian.PutUint32(p.payload[8:], n)
		binary.BigEndian.PutUint64(p.payload[12:], seq)
	}
}

func str(b []byte, s string) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(len(s)))
	return append(b, s...)
}

func varint(b []byte, n int) []byte { return binary.AppendUvarint(b, uint64(n)) }

func uvarint(b []byte) (n, used int) {
	v, k := binary.Uvarint(b)
	if k <= 0 || k > 4 {
		return 0, 0
	}
	return int(v), k
}

const filler = `{"t":21.5,"ok":true,"id":"m-0001"} `

// Connect opens one connection that does nothing, with a clean session.
func Connect(broker, client string) (net.Conn, error) {
	o := Options{Broker: broker, ClientID: client}.withDefaults()
	c, err := dial(o, "idle", 0)
	if err != nil {
		return nil, err
	}
	// Its buffers are this process's cost, not the broker's, but there may be
	// many of them.
	c.r, c.w = nil, nil
	return c.nc, nil
}

// Park makes a lasting session with one QoS 1 subscription and leaves.
func Park(broker, client, filter string) error {
	o := Options{Broker: broker, ClientID: client, Persistent: true}.withDefaults()
	c, err := dial(o, "sub", 0)
	if err != nil {
		return err
	}
	defer c.close()
	return c.subscribe(filter, 1)
}
