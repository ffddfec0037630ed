package clienttest

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"sync"
	"testing"

	"github.com/mochi-mqtt/server/v2/packets"
)

// StartSink starts a server that confirms QoS 1 publishes as fast as it can and
// does nothing else, for measuring. It returns its URL.
func StartSink(t testing.TB) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				sink(c)
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		wg.Wait()
	})
	return "mqtt://" + ln.Addr().String()
}

func sink(c net.Conn) {
	r := bufio.NewReaderSize(c, 256<<10)
	connect, err := ReadPacket(r, 0)
	if err != nil {
		return
	}
	s := &Session{Conn: c, Version: connect.ProtocolVersion}
	ack := packets.Packet{FixedHeader: packets.FixedHeader{Type: packets.Connack}}
	ack.Properties.ReceiveMaximum, ack.Properties.TopicAliasMaximum = 65535, 65535
	if s.Send(&ack) != nil {
		return
	}
	var out []byte
	for {
		head, err := r.ReadByte()
		if err != nil {
			return
		}
		n, err := binary.ReadUvarint(r) // the remaining length is coded the same way
		if err != nil {
			return
		}
		switch head & 0xf0 {
		case packets.Publish << 4:
			topic, err := r.Peek(2)
			if err != nil {
				return
			}
			skip := 2 + int(binary.BigEndian.Uint16(topic))
			r.Discard(skip)
			id, err := r.Peek(2)
			if err != nil {
				return
			}
			out = append(out, typePuback, 2, id[0], id[1])
			n -= uint64(skip)
		case packets.Pingreq << 4:
			out = append(out, packets.Pingresp<<4, 0)
		}
		if _, err := io.CopyN(io.Discard, r, int64(n)); err != nil {
			return
		}
		if r.Buffered() == 0 {
			if _, err := c.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}
