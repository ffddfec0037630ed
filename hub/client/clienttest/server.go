// Package clienttest has far sides for tests of MQTT clients: a server that
// answers as the test says, and a real mosquitto.
package clienttest

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// Silent as an answer means none.
const Silent = -1

const typePuback = packets.Puback << 4

// Options say how a [Server] behaves. The zero value confirms everything.
type Options struct {
	// OnConnect may change the CONNACK; a nil packet means no answer.
	OnConnect func(connect, connack *packets.Packet) *packets.Packet
	// OnPublish returns the reason code of the PUBACK, or Silent. It is called
	// in order for each connection. The packet belongs to it.
	OnPublish func(s *Session, p *packets.Packet) int
	// OnPacket sees every other packet first; true means that it was dealt with.
	OnPacket func(s *Session, p *packets.Packet) bool
}

// A Server is an MQTT server on 127.0.0.1 that does what the test says. It
// keeps no sessions and routes nothing.
type Server struct {
	URL  string
	Addr string

	o  Options
	ln net.Listener
	wg sync.WaitGroup

	mu       sync.Mutex
	sessions []*Session
	closed   bool
}

// A Session is one connection of a client.
type Session struct {
	Conn    net.Conn
	Version byte
	mu      sync.Mutex // held while writing
}

// Start starts a server that ends with the test.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{o: o, ln: ln, Addr: ln.Addr().String(), URL: "mqtt://" + ln.Addr().String()}
	s.wg.Go(s.accept)
	t.Cleanup(func() {
		ln.Close()
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.Cut()
		s.wg.Wait()
	})
	return s
}

// Cut closes all connections.
func (s *Server) Cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.sessions {
		c.Conn.Close()
	}
	s.sessions = nil
}

// Sessions returns the connections there are.
func (s *Server) Sessions() []*Session {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*Session(nil), s.sessions...)
}

func (s *Server) accept() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		ses := &Session{Conn: c}
		s.mu.Lock()
		if s.closed {
			c.Close()
		}
		s.sessions = append(s.sessions, ses)
		s.mu.Unlock()
		s.wg.Go(func() {
			s.serve(ses)
			c.Close()
		})
	}
}

func (s *Server) serve(ses *Session) {
	r := bufio.NewReader(ses.Conn)
	for {
		p, err := ReadPacket(r, ses.Version)
		if err != nil {
			return
		}
		if ses.Version == 0 {
			ses.Version = p.ProtocolVersion
		}
		if p.FixedHeader.Type != packets.Publish && s.o.OnPacket != nil && s.o.OnPacket(ses, p) {
			continue
		}
		reply := packets.Packet{PacketID: p.PacketID}
		switch p.FixedHeader.Type {
		case packets.Connect:
			ack := &packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}
			if s.o.OnConnect != nil {
				if ack = s.o.OnConnect(p, ack); ack == nil {
					continue
				}
			}
			reply = *ack
		case packets.Publish:
			code := 0
			if s.o.OnPublish != nil {
				code = s.o.OnPublish(ses, p)
			}
			if code == Silent || p.FixedHeader.Qos == 0 {
				continue
			}
			reply.FixedHeader.Type = packets.Puback
			reply.ReasonCode = byte(code)
		case packets.Subscribe:
			reply.FixedHeader.Type = packets.Suback
			for _, f := range p.Filters {
				reply.ReasonCodes = append(reply.ReasonCodes, f.Qos)
			}
		case packets.Unsubscribe:
			reply.FixedHeader.Type = packets.Unsuback
			reply.ReasonCodes = make([]byte, len(p.Filters))
		case packets.Pingreq:
			reply.FixedHeader.Type = packets.Pingresp
		case packets.Disconnect:
			return
		default:
			continue
		}
		if ses.Send(&reply) != nil {
			return
		}
	}
}

// Send sends one packet to the client.
func (s *Session) Send(p *packets.Packet) error {
	p.ProtocolVersion = s.Version
	var b bytes.Buffer
	var err error
	switch p.FixedHeader.Type {
	case packets.Connack:
		err = p.ConnackEncode(&b)
	case packets.Publish:
		err = p.PublishEncode(&b)
	case packets.Puback:
		b.Write([]byte{typePuback, 2, byte(p.PacketID >> 8), byte(p.PacketID)})
		if p.ReasonCode != 0 && s.Version == 5 { // the codec drops codes below 0x80
			b.Bytes()[1] = 3
			b.WriteByte(p.ReasonCode)
		}
	case packets.Pubrel:
		p.FixedHeader.Qos = 1
		err = p.PubrelEncode(&b)
	case packets.Suback:
		err = p.SubackEncode(&b)
	case packets.Unsuback:
		err = p.UnsubackEncode(&b)
	case packets.Pingresp:
		err = p.PingrespEncode(&b)
	case packets.Disconnect:
		err = p.DisconnectEncode(&b)
	}
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err = s.Conn.Write(b.Bytes())
	return err
}

// ReadPacket reads one packet that a client sends; version is 0 for CONNECT.
func ReadPacket(r *bufio.Reader, version byte) (*packets.Packet, error) {
	head, err := r.ReadByte()
	if err != nil {
		return nil, err
	}
	p := &packets.Packet{ProtocolVersion: version}
	if err := p.FixedHeader.Decode(head); err != nil {
		return nil, err
	}
	n, _, err := packets.DecodeLength(r)
	if err != nil {
		return nil, err
	}
	p.FixedHeader.Remaining = n
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		return nil, err
	}
	switch p.FixedHeader.Type {
	case packets.Connect:
		err = p.ConnectDecode(body)
	case packets.Publish:
		err = p.PublishDecode(body)
	case packets.Puback:
		err = p.PubackDecode(body)
	case packets.Pubrec:
		err = p.PubrecDecode(body)
	case packets.Pubcomp:
		err = p.PubcompDecode(body)
	case packets.Subscribe:
		err = p.SubscribeDecode(body)
	case packets.Unsubscribe:
		err = p.UnsubscribeDecode(body)
	case packets.Disconnect:
		err = p.DisconnectDecode(body)
	}
	return p, err
}
