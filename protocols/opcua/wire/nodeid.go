package wire

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"

	"github.com/gopcua/opcua/ua"
)

// The kinds of identifier, as they stand in texts (OPC 10000-6, 5.3.1.10).
const (
	Numeric = 'i'
	Text    = 's'
	GUID    = 'g'
	Opaque  = 'b'
)

// A NodeID names a node on one server. It is comparable. The zero value is the
// null id once Kind is set by [Num]; an all-zero NodeID is null too.
type NodeID struct {
	NS   uint16
	Kind byte   // Numeric, Text, GUID or Opaque; 0 counts as Numeric
	Num  uint32 // Numeric
	Data string // Text: UTF-8; GUID: its 16 bytes as encoded; Opaque: bytes
}

// Num returns a numeric id.
func Num(ns uint16, n uint32) NodeID { return NodeID{NS: ns, Kind: Numeric, Num: n} }

// IsNull reports whether the id names nothing.
func (n NodeID) IsNull() bool {
	return n.NS == 0 && (n.Kind == Numeric || n.Kind == 0) && n.Num == 0
}

// Std reports whether the id is the numeric id n of the OPC UA namespace.
func (n NodeID) Std(num uint32) bool { return n.NS == 0 && n.Kind == Numeric && n.Num == num }

// Identifier returns the part after the namespace, such as "s=Tag".
func (n NodeID) Identifier() string {
	switch n.Kind {
	case Text:
		return "s=" + n.Data
	case GUID:
		return "g=" + guidText([]byte(n.Data))
	case Opaque:
		return "b=" + base64.StdEncoding.EncodeToString([]byte(n.Data))
	}
	return "i=" + strconv.FormatUint(uint64(n.Num), 10)
}

// String returns the id with its namespace index, such as "ns=2;s=Tag".
func (n NodeID) String() string {
	if n.NS == 0 {
		return n.Identifier()
	}
	return fmt.Sprintf("ns=%d;%s", n.NS, n.Identifier())
}

// ParseIdentifier reads what [NodeID.Identifier] prints, into namespace 0.
func ParseIdentifier(s string) (NodeID, error) {
	kind, text, ok := strings.Cut(s, "=")
	if !ok || len(kind) != 1 {
		return NodeID{}, fmt.Errorf("identifier %q: want i=, s=, g= or b=", s)
	}
	switch kind[0] {
	case Numeric:
		n, err := strconv.ParseUint(text, 10, 32)
		if err != nil {
			return NodeID{}, fmt.Errorf("identifier %q is not a number from 0 to 4294967295", s)
		}
		return Num(0, uint32(n)), nil
	case Text:
		if text == "" {
			return NodeID{}, fmt.Errorf("identifier %q is empty", s)
		}
		return NodeID{Kind: Text, Data: text}, nil
	case GUID:
		g, err := parseGUID(text)
		return NodeID{Kind: GUID, Data: g}, err
	case Opaque:
		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil || len(b) == 0 {
			return NodeID{}, fmt.Errorf("identifier %q is not base64", s)
		}
		return NodeID{Kind: Opaque, Data: string(b)}, nil
	}
	return NodeID{}, fmt.Errorf("identifier %q: want i=, s=, g= or b=", s)
}

// guidText prints the 16 bytes of a Guid: the first three fields are little
// endian (OPC 10000-6, 5.2.2.6).
func guidText(b []byte) string {
	if len(b) != 16 {
		return hex.EncodeToString(b)
	}
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]),
		binary.LittleEndian.Uint16(b[6:]), b[8:10], b[10:])
}

func parseGUID(s string) (string, error) {
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil || len(b) != 16 || len(s) != 36 {
		return "", fmt.Errorf("%q is not a GUID", s)
	}
	b[0], b[1], b[2], b[3] = b[3], b[2], b[1], b[0]
	b[4], b[5], b[6], b[7] = b[5], b[4], b[7], b[6]
	return string(b), nil
}

// UA returns the id for gopcua's encoder.
func (n NodeID) UA() *ua.NodeID {
	switch n.Kind {
	case Text:
		return ua.NewStringNodeID(n.NS, n.Data)
	case GUID:
		return ua.NewGUIDNodeID(n.NS, guidText([]byte(n.Data)))
	case Opaque:
		return ua.NewByteStringNodeID(n.NS, []byte(n.Data))
	}
	return ua.NewNumericNodeID(n.NS, n.Num)
}

// ID reads a NodeId (OPC 10000-6, 5.2.2.9).
func (r *Reader) ID() NodeID {
	n, _ := r.id()
	return n
}

// id also returns the flags of an ExpandedNodeId.
func (r *Reader) id() (n NodeID, flags byte) {
	mask := r.U8()
	n.Kind = Numeric
	switch mask & 0x3f {
	case 0:
		n.Num = uint32(r.U8())
	case 1:
		n.NS, n.Num = uint16(r.U8()), uint32(r.U16())
	case 2:
		n.NS, n.Num = r.U16(), r.U32()
	case 3:
		n.NS, n.Kind, n.Data = r.U16(), Text, string(r.Bytes())
	case 4:
		n.NS, n.Kind, n.Data = r.U16(), GUID, string(r.take(16))
	case 5:
		n.NS, n.Kind, n.Data = r.U16(), Opaque, string(r.Bytes())
	default:
		r.Fail(fmt.Errorf("node id of kind %d", mask&0x3f))
	}
	return n, mask & 0xc0
}

// An ExpandedID is a NodeId that may name its namespace by URI, and a node of
// another server.
type ExpandedID struct {
	NodeID
	URI    string // "" = NS is the index
	Server uint32 // 0 = this server
}

// Expanded reads an ExpandedNodeId (OPC 10000-6, 5.2.2.10).
func (r *Reader) Expanded() (e ExpandedID) {
	var flags byte
	e.NodeID, flags = r.id()
	if flags&0x80 != 0 {
		e.URI = r.Text()
	}
	if flags&0x40 != 0 {
		e.Server = r.U32()
	}
	return e
}
