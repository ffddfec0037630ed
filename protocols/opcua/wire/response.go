package wire

import (
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// A Message is a response: the id of its encoding and its body, which begins
// with the response header.
type Message struct {
	Type uint32
	Body []byte
}

// A Response is what one service answers.
type Response interface {
	// TypeID is the id of the response's binary encoding (OPC 10000-6, A.3).
	TypeID() uint32
	decode(r *Reader)
}

// Decode reads a message into res. A service result that is not Good is
// returned as a [ua.StatusCode] error, whatever the message holds.
func Decode(m Message, res Response) error {
	r := NewReader(m.Body)
	status := r.header()
	if r.err != nil {
		return r.err
	}
	if status>>30 != 0 {
		return status
	}
	if m.Type != res.TypeID() {
		return fmt.Errorf("got a message of type %d, want %d", m.Type, res.TypeID())
	}
	res.decode(r)
	return r.err
}

// Handle returns the request handle in the header of a response.
func Handle(body []byte) uint32 {
	r := NewReader(body)
	r.U64()
	return r.U32()
}

// header reads a ResponseHeader (OPC 10000-4, 7.33) and returns the result.
func (r *Reader) header() ua.StatusCode {
	r.U64()
	r.U32()
	status := ua.StatusCode(r.U32())
	r.diagnostic()
	r.texts()
	r.Extension()
	return status
}

func (r *Reader) texts() []string {
	n := r.Count(4)
	out := make([]string, 0, n)
	for range n {
		out = append(out, r.Text())
	}
	return out
}

// array reads n elements that take at least size bytes each.
func array[T any](r *Reader, size int, read func(*Reader) T) []T {
	n := r.Count(size)
	if n == 0 {
		return nil
	}
	out := make([]T, 0, min(n, 4096)) // what is declared is not yet what is there
	for range n {
		v := read(r)
		if r.err != nil {
			return nil
		}
		out = append(out, v)
	}
	return out
}

func (r *Reader) statuses() []ua.StatusCode {
	return array(r, 4, func(r *Reader) ua.StatusCode { return ua.StatusCode(r.U32()) })
}

// OpenChannel answers OpenSecureChannel.
type OpenChannel struct {
	Channel, Token uint32
	Lifetime       time.Duration
	Nonce          []byte
}

// TypeID implements [Response].
func (*OpenChannel) TypeID() uint32 { return id.OpenSecureChannelResponse_Encoding_DefaultBinary }

func (m *OpenChannel) decode(r *Reader) {
	r.U32()
	m.Channel, m.Token = r.U32(), r.U32()
	r.U64()
	m.Lifetime = time.Duration(r.U32()) * time.Millisecond
	m.Nonce = r.Bytes()
}

// A TokenPolicy is one way for users to identify themselves.
type TokenPolicy struct {
	ID        string
	Type      ua.UserTokenType
	PolicyURI string // "" = that of the channel
}

// An Endpoint is one way to reach a server.
type Endpoint struct {
	URL         string
	ServerURI   string // ApplicationUri of the server
	Certificate []byte
	Mode        ua.MessageSecurityMode
	PolicyURI   string
	Tokens      []TokenPolicy
	Transport   string
	Level       uint8
}

func (r *Reader) endpoint() (e Endpoint) {
	e.URL, e.ServerURI = r.Text(), r.Text()
	r.Bytes()
	r.localized()
	r.U32()
	r.Bytes()
	r.Bytes()
	r.texts()
	e.Certificate = r.Bytes()
	e.Mode, e.PolicyURI = ua.MessageSecurityMode(r.U32()), r.Text()
	e.Tokens = array(r, 20, func(r *Reader) (t TokenPolicy) {
		t.ID, t.Type = r.Text(), ua.UserTokenType(r.U32())
		r.Bytes()
		r.Bytes()
		t.PolicyURI = r.Text()
		return t
	})
	e.Transport, e.Level = r.Text(), r.U8()
	return e
}

// Endpoints answers GetEndpoints.
type Endpoints struct{ Endpoints []Endpoint }

// TypeID implements [Response].
func (*Endpoints) TypeID() uint32 { return id.GetEndpointsResponse_Encoding_DefaultBinary }

func (m *Endpoints) decode(r *Reader) { m.Endpoints = array(r, 40, (*Reader).endpoint) }

// CreatedSession answers CreateSession.
type CreatedSession struct {
	Session, Token NodeID
	Timeout        time.Duration
	Nonce          []byte
	Certificate    []byte
	Endpoints      []Endpoint
	Signature      []byte
}

// TypeID implements [Response].
func (*CreatedSession) TypeID() uint32 { return id.CreateSessionResponse_Encoding_DefaultBinary }

func (m *CreatedSession) decode(r *Reader) {
	m.Session, m.Token = r.ID(), r.ID()
	m.Timeout = millis(r.F64())
	m.Nonce, m.Certificate = r.Bytes(), r.Bytes()
	m.Endpoints = array(r, 40, (*Reader).endpoint)
	for range r.Count(8) {
		r.Bytes()
		r.Bytes()
	}
	r.Bytes()
	m.Signature = r.Bytes()
	r.U32()
}

// millis converts a Duration of OPC UA; what is not a sane number is 0.
func millis(ms float64) time.Duration {
	if !(ms > 0) || ms > float64(1<<53) {
		return 0
	}
	return time.Duration(ms * float64(time.Millisecond))
}

// ActivatedSession answers ActivateSession.
type ActivatedSession struct{ Nonce []byte }

// TypeID implements [Response].
func (*ActivatedSession) TypeID() uint32 { return id.ActivateSessionResponse_Encoding_DefaultBinary }

func (m *ActivatedSession) decode(r *Reader) { m.Nonce = r.Bytes() }

// Read answers Read.
type Read struct{ Results []DataValue }

// TypeID implements [Response].
func (*Read) TypeID() uint32 { return id.ReadResponse_Encoding_DefaultBinary }

func (m *Read) decode(r *Reader) { m.Results = array(r, 1, (*Reader).DataValue) }

// Statuses answers the services whose result is one status for each operation:
// Write, SetPublishingMode, DeleteSubscriptions, DeleteMonitoredItems. Type says
// which.
type Statuses struct {
	Type    uint32
	Results []ua.StatusCode
}

// TypeID implements [Response].
func (m *Statuses) TypeID() uint32 { return m.Type }

func (m *Statuses) decode(r *Reader) { m.Results = r.statuses() }

// A Reference is one step from a node to another.
type Reference struct {
	Type       NodeID
	Forward    bool
	Target     ExpandedID
	BrowseName Name
	Display    string
	Class      ua.NodeClass
	Definition ExpandedID
}

// A BrowseResult holds the references of one node, or some of them.
type BrowseResult struct {
	Status     ua.StatusCode
	More       []byte // continuation point, nil at the end
	References []Reference
}

// Browsed answers Browse and, with Next, BrowseNext.
type Browsed struct {
	Next    bool
	Results []BrowseResult
}

// TypeID implements [Response].
func (m *Browsed) TypeID() uint32 {
	if m.Next {
		return id.BrowseNextResponse_Encoding_DefaultBinary
	}
	return id.BrowseResponse_Encoding_DefaultBinary
}

func (m *Browsed) decode(r *Reader) {
	m.Results = array(r, 12, func(r *Reader) (b BrowseResult) {
		b.Status, b.More = ua.StatusCode(r.U32()), r.Bytes()
		b.References = array(r, 16, (*Reader).reference)
		return b
	})
}

func (r *Reader) reference() (f Reference) {
	f.Type, f.Forward, f.Target = r.ID(), r.U8() != 0, r.Expanded()
	f.BrowseName, f.Display = r.Qualified(), r.Localized()
	f.Class, f.Definition = ua.NodeClass(r.U32()), r.Expanded()
	return f
}

// A Path is where a browse path leads.
type Path struct {
	Status  ua.StatusCode
	Targets []ExpandedID // only those at the path's end
}

// Translated answers TranslateBrowsePathsToNodeIds.
type Translated struct{ Results []Path }

// TypeID implements [Response].
func (*Translated) TypeID() uint32 {
	return id.TranslateBrowsePathsToNodeIDsResponse_Encoding_DefaultBinary
}

func (m *Translated) decode(r *Reader) {
	m.Results = array(r, 8, func(r *Reader) (p Path) {
		p.Status = ua.StatusCode(r.U32())
		for range r.Count(6) {
			target := r.Expanded()
			if remaining := r.U32(); remaining == 0xffffffff && target.Server == 0 && r.err == nil {
				p.Targets = append(p.Targets, target)
			}
		}
		return p
	})
}

// A CallResult is the outcome of one method.
type CallResult struct {
	Status ua.StatusCode
	Inputs []ua.StatusCode // one for each argument, if the server says
	Output []Variant
}

// Called answers Call.
type Called struct{ Results []CallResult }

// TypeID implements [Response].
func (*Called) TypeID() uint32 { return id.CallResponse_Encoding_DefaultBinary }

func (m *Called) decode(r *Reader) {
	m.Results = array(r, 16, func(r *Reader) (c CallResult) {
		c.Status, c.Inputs = ua.StatusCode(r.U32()), r.statuses()
		r.diagnostics()
		c.Output = array(r, 1, (*Reader).Variant)
		return c
	})
}

// A History is the history of one node, or a part of it.
type History struct {
	Status ua.StatusCode
	More   []byte // continuation point, nil at the end
	Values []DataValue
}

// HistoryRead answers HistoryRead of raw values.
type HistoryRead struct{ Results []History }

// TypeID implements [Response].
func (*HistoryRead) TypeID() uint32 { return id.HistoryReadResponse_Encoding_DefaultBinary }

func (m *HistoryRead) decode(r *Reader) {
	m.Results = array(r, 11, func(r *Reader) (h History) {
		h.Status, h.More = ua.StatusCode(r.U32()), r.Bytes()
		if ext := r.Extension(); ext.Type.Std(id.HistoryData_Encoding_DefaultBinary) && !ext.XML {
			body := NewReader(ext.Body)
			h.Values = array(body, 1, (*Reader).DataValue)
			r.Fail(body.Err())
		}
		return h
	})
}
