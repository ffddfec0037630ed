package channel

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock"
	"holdfast/protocols/opcua/wire"
)

func le(parts ...any) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		if s, ok := p.(string); ok {
			b.WriteString(s)
		} else if err := binary.Write(&b, binary.LittleEndian, p); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// frame puts type and size before a body.
func frame(kind string, body []byte) []byte { return append(le(kind, uint32(len(body)+8)), body...) }

func ack() []byte {
	return frame("ACKF", le(uint32(0), uint32(65535), uint32(65535), uint32(0), uint32(0)))
}

// message is a chunk of a message under channel 5 and token 1.
func message(final string, seq, req uint32, body []byte) []byte {
	return frame("MSG"+final, append(le(uint32(5), uint32(1), seq, req), body...))
}

// service encodes a response with its type.
func service(typeID uint16, v any) []byte {
	b, err := ua.Encode(v)
	if err != nil {
		panic(err)
	}
	return append([]byte{1, 0, byte(typeID), byte(typeID >> 8)}, b...)
}

func header(s ua.StatusCode) *ua.ResponseHeader {
	return &ua.ResponseHeader{ServiceResult: s, ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

func opened(seq, req uint32) []byte {
	body := le(uint32(5), int32(len(ua.SecurityPolicyURINone)), ua.SecurityPolicyURINone, int32(-1), int32(-1), seq, req)
	return frame("OPNF", append(body, service(id.OpenSecureChannelResponse_Encoding_DefaultBinary, &ua.OpenSecureChannelResponse{
		ResponseHeader: header(0), SecurityToken: &ua.ChannelSecurityToken{ChannelID: 5, TokenID: 1, RevisedLifetime: 3600_000},
	})...))
}

// server accepts one connection and gives it to script after the handshakes, which
// are done rightly.
func server(t *testing.T, script func(c net.Conn)) string {
	t.Helper()
	return rawServer(t, func(c net.Conn) {
		request(c)
		c.Write(ack())
		request(c)
		c.Write(opened(1, 1))
		script(c)
	})
}

func rawServer(t *testing.T, script func(c net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		script(c)
	})
	t.Cleanup(func() {
		l.Close()
		work.Wait()
	})
	return "opc.tcp://" + l.Addr().String()
}

// request reads one chunk and returns its request id.
func request(c net.Conn) uint32 {
	head := make([]byte, 8)
	if _, err := io.ReadFull(c, head); err != nil {
		return 0
	}
	body := make([]byte, binary.LittleEndian.Uint32(head[4:])-8)
	io.ReadFull(c, body)
	if string(head[:3]) != "MSG" {
		return 1
	}
	return binary.LittleEndian.Uint32(body[12:])
}

func open(t *testing.T, url string) *Channel {
	t.Helper()
	c, err := Open(context.Background(), Options{URL: url, Clock: clock.NewReal(), Timeout: 10 * time.Second, MaxMessage: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	var work sync.WaitGroup
	work.Go(func() { c.Run(context.Background()) })
	t.Cleanup(func() {
		c.Close()
		work.Wait()
	})
	return c
}

func read() *ua.ReadRequest {
	return &ua.ReadRequest{NodesToRead: []*ua.ReadValueID{{NodeID: ua.NewTwoByteNodeID(1), AttributeID: 13, DataEncoding: &ua.QualifiedName{}}}}
}

func readAnswer() []byte {
	return service(id.ReadResponse_Encoding_DefaultBinary, &ua.ReadResponse{
		ResponseHeader: header(0), Results: []*ua.DataValue{{EncodingMask: 1, Value: ua.MustVariant(int32(7))}},
	})
}

// TestCall: an answer in one chunk, in many, and one that is aborted.
func TestCall(t *testing.T) {
	url := server(t, func(c net.Conn) {
		c.Write(message("F", 2, request(c), readAnswer()))
		req, body, seq := request(c), readAnswer(), uint32(3)
		for _, b := range body[:len(body)-1] {
			c.Write(message("C", seq, req, []byte{b}))
			seq++
		}
		c.Write(message("F", seq, req, body[len(body)-1:]))
		req = request(c)
		c.Write(message("C", seq+1, req, []byte{1}))
		c.Write(message("A", seq+2, req, le(uint32(ua.StatusBadResponseTooLarge), int32(3), "big")))
		request(c)
		io.Copy(io.Discard, c)
	})
	c := open(t, url)
	for range 2 {
		var res wire.Read
		if err := c.Call(context.Background(), read(), nil, &res); err != nil || len(res.Results) != 1 || res.Results[0].Value.Num != 7 {
			t.Fatalf("%+v, %v", res, err)
		}
	}
	if err := c.Call(context.Background(), read(), nil, &wire.Read{}); !errors.Is(err, ua.StatusBadResponseTooLarge) {
		t.Errorf("aborted: %v", err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	var lost *Lost
	if err := c.Call(ctx, read(), nil, &wire.Read{}); !errors.As(err, &lost) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("no answer: %v", err)
	}
	c.Close()
	if err := c.Call(context.Background(), read(), nil, &wire.Read{}); !errors.Is(err, ErrClosed) || errors.As(err, &lost) {
		t.Errorf("after Close: %v", err)
	}
}

// TestHostile: what a server must not send ends the channel with a reason, and
// nobody waits.
func TestHostile(t *testing.T) {
	many := func(c net.Conn, req uint32) {
		part := make([]byte, 60000)
		for seq := uint32(2); seq < 100; seq++ {
			if _, err := c.Write(message("C", seq, req, part)); err != nil {
				return
			}
		}
	}
	for name, tc := range map[string]struct {
		send func(c net.Conn, req uint32)
		word string
	}{
		"a chunk of 4 GB":       {func(c net.Conn, _ uint32) { c.Write(le("MSGF", uint32(0xffffffff))) }, "a chunk of"},
		"a chunk of 3 bytes":    {func(c net.Conn, _ uint32) { c.Write(le("MSGF", uint32(3))) }, "a chunk of 3"},
		"no headers":            {func(c net.Conn, _ uint32) { c.Write(frame("MSGF", nil)) }, "channel 0"},
		"half a header":         {func(c net.Conn, _ uint32) { c.Write(frame("MSGF", le(uint32(5), uint32(1), uint16(1)))) }, "ends too early"},
		"another channel":       {func(c net.Conn, r uint32) { c.Write(frame("MSGF", le(uint32(6), uint32(1), uint32(2), r))) }, "channel 6"},
		"another token":         {func(c net.Conn, r uint32) { c.Write(frame("MSGF", le(uint32(5), uint32(9), uint32(2), r))) }, "token 9"},
		"a number left out":     {func(c net.Conn, r uint32) { c.Write(message("F", 3, r, readAnswer())) }, "sequence number 3"},
		"a number again":        {func(c net.Conn, r uint32) { c.Write(message("F", 1, r, readAnswer())) }, "sequence number 1"},
		"an unknown message":    {func(c net.Conn, _ uint32) { c.Write(frame("XYZF", le(uint32(5)))) }, `"XYZ"`},
		"an unknown chunk":      {func(c net.Conn, r uint32) { c.Write(message("Q", 2, r, nil)) }, "chunk that is"},
		"a message without end": {many, "more than 1048576 bytes"},
		"an error": {func(c net.Conn, _ uint32) {
			c.Write(frame("ERRF", le(uint32(ua.StatusBadTCPServerTooBusy), int32(4), "busy")))
		}, "BadTCPServerTooBusy (busy)"},
		"the end of the channel": {func(c net.Conn, _ uint32) { c.Write(frame("CLOF", le(uint32(5)))) }, "closed the channel"},
		"the end":                {func(net.Conn, uint32) {}, "closed the connection"},
		"another policy":         {func(c net.Conn, _ uint32) { c.Write(frame("OPNF", le(uint32(5), int32(1), "x", int32(-1), int32(-1)))) }, "policy"},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, server(t, func(conn net.Conn) {
				tc.send(conn, request(conn))
			}))
			err := c.Call(context.Background(), read(), nil, &wire.Read{})
			if err == nil || !strings.Contains(err.Error(), tc.word) {
				t.Errorf("%v, want %s", err, tc.word)
			}
			select {
			case <-c.Done():
			case <-time.After(10 * time.Second):
				t.Error("the channel is still open")
			}
		})
	}
}

// TestStrangeAnswers: an answer to nothing is dropped, an answer that cannot be
// read is its caller's error, and the channel goes on.
func TestStrangeAnswers(t *testing.T) {
	c := open(t, server(t, func(c net.Conn) {
		req := request(c)
		c.Write(message("F", 2, req+1000, readAnswer()))
		c.Write(opened(3, 77))
		c.Write(message("F", 4, req, readAnswer()[:20]))
		c.Write(message("F", 5, request(c), readAnswer()))
		io.Copy(io.Discard, c)
	}))
	if err := c.Call(context.Background(), read(), nil, &wire.Read{}); !errors.Is(err, wire.ErrShort) {
		t.Errorf("half an answer: %v", err)
	}
	if err := c.Call(context.Background(), read(), nil, &wire.Read{}); err != nil {
		t.Errorf("the next: %v", err)
	}
}

// TestOpenFails: whatever goes wrong in the handshakes is an error in time.
func TestOpenFails(t *testing.T) {
	for name, tc := range map[string]struct {
		script func(c net.Conn)
		word   string
	}{
		"silence":       {func(c net.Conn) { io.Copy(io.Discard, c) }, "timeout"},
		"silence later": {func(c net.Conn) { request(c); c.Write(ack()); io.Copy(io.Discard, c) }, "timeout"},
		"refused": {func(c net.Conn) {
			request(c)
			c.Write(frame("ERRF", le(uint32(ua.StatusBadTCPEndpointURLInvalid), int32(-1))))
		}, "BadTCPEndpointURLInvalid"},
		"another greeter": {func(c net.Conn) { request(c); io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, "a chunk of"},
		"small buffers": {func(c net.Conn) {
			request(c)
			c.Write(frame("ACKF", le(uint32(0), uint32(100), uint32(100), uint32(0), uint32(0))))
		}, "100 bytes"},
		"a fault": {func(c net.Conn) {
			request(c)
			c.Write(ack())
			request(c)
			body := le(uint32(5), int32(len(ua.SecurityPolicyURINone)), ua.SecurityPolicyURINone, int32(-1), int32(-1), uint32(1), uint32(1))
			c.Write(frame("OPNF", append(body, service(id.ServiceFault_Encoding_DefaultBinary, &ua.ServiceFault{ResponseHeader: header(ua.StatusBadSecurityModeRejected)})...)))
		}, "BadSecurityModeRejected"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(context.Background(), Options{URL: rawServer(t, tc.script), Clock: clock.NewReal(), Timeout: 300 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), tc.word) {
				t.Errorf("%v, want %s", err, tc.word)
			}
		})
	}
	for _, url := range []string{"", "http://x", "opc.tcp://", "://"} {
		if _, err := Open(context.Background(), Options{URL: url, Clock: clock.NewReal()}); err == nil {
			t.Errorf("%q is opened", url)
		}
	}
}

// TestOrder: responses are handed over in the order in which they come.
func TestOrder(t *testing.T) {
	const n = 200
	c := open(t, server(t, func(c net.Conn) {
		var reqs []uint32
		for range n {
			reqs = append(reqs, request(c))
		}
		for i, r := range reqs {
			c.Write(message("F", uint32(2+i), r, readAnswer()))
		}
		io.Copy(io.Discard, c)
	}))
	got := make(chan int, n)
	for i := range n {
		if err := c.Start(read(), nil, 0, func(wire.Message, error) { got <- i }); err != nil {
			t.Fatal(err)
		}
	}
	for want := range n {
		if i := <-got; i != want {
			t.Fatalf("answer %d is handed over in place %d", i, want)
		}
	}
}

// TestFollow: sequence numbers wrap near the end of their range only.
func TestFollow(t *testing.T) {
	for _, tc := range []struct {
		last, next uint32
		ok         bool
	}{{1, 2, true}, {1, 3, false}, {5, 5, false}, {0xfffffff0, 1, true}, {0xfffffff0, 1023, true}, {0xfffffff0, 1024, false}, {0xffff0000, 1, false}} {
		in := inbound{sequence: tc.last, begun: true}
		if err := in.follow(tc.next); (err == nil) != tc.ok {
			t.Errorf("%d after %d: %v", tc.next, tc.last, err)
		}
	}
}

// FuzzReceive: no bytes of a server make a channel panic.
func FuzzReceive(f *testing.F) {
	f.Add(message("F", 2, 2, readAnswer()))
	f.Add(append(message("C", 2, 2, []byte{1}), message("A", 3, 2, nil)...))
	f.Add(opened(2, 9))
	f.Add(frame("ERRF", le(uint32(1), int32(-1))))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &Channel{o: Options{Clock: clock.NewReal()}, conn: script{bytes.NewReader(data)}, pending: map[uint32]func(wire.Message, error){}, done: make(chan struct{})}
		c.o.fill()
		c.in = inbound{max: 1 << 20, chunks: map[uint32]*partial{}, channel: 5, sequence: 1, begun: true}
		algo, err := c.asymmetric(c.o.PolicyURI)
		if err != nil {
			t.Fatal(err)
		}
		c.in.current = keys{token: 1, algo: algo}
		delivered := 0
		c.pending[2] = func(m wire.Message, err error) {
			delivered++
			if err == nil {
				_ = wire.Decode(m, &wire.Read{})
			}
		}
		for c.receive() == nil {
		}
		c.fail(ErrClosed)
		if delivered != 1 {
			t.Errorf("delivered %d times", delivered)
		}
	})
}

// script is a connection that has sent what it has to say.
type script struct{ io.Reader }

func (script) Write(b []byte) (int, error)      { return len(b), nil }
func (script) Close() error                     { return nil }
func (script) LocalAddr() net.Addr              { return nil }
func (script) RemoteAddr() net.Addr             { return nil }
func (script) SetDeadline(time.Time) error      { return nil }
func (script) SetReadDeadline(time.Time) error  { return nil }
func (script) SetWriteDeadline(time.Time) error { return nil }
