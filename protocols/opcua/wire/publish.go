package wire

import (
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// CreatedSubscription answers CreateSubscription.
type CreatedSubscription struct {
	ID        uint32
	Interval  time.Duration // publishing, as revised
	Lifetime  uint32        // publishing intervals without a publish request until it dies
	KeepAlive uint32        // publishing intervals without data until an empty message
}

// TypeID implements [Response].
func (*CreatedSubscription) TypeID() uint32 {
	return id.CreateSubscriptionResponse_Encoding_DefaultBinary
}

func (m *CreatedSubscription) decode(r *Reader) {
	m.ID, m.Interval, m.Lifetime, m.KeepAlive = r.U32(), millis(r.F64()), r.U32(), r.U32()
}

// A CreatedItem is one monitored item.
type CreatedItem struct {
	Status   ua.StatusCode
	ID       uint32
	Sampling time.Duration // as revised
	Queue    uint32        // as revised
}

// CreatedItems answers CreateMonitoredItems.
type CreatedItems struct{ Results []CreatedItem }

// TypeID implements [Response].
func (*CreatedItems) TypeID() uint32 { return id.CreateMonitoredItemsResponse_Encoding_DefaultBinary }

func (m *CreatedItems) decode(r *Reader) {
	m.Results = array(r, 20, func(r *Reader) (c CreatedItem) {
		c.Status, c.ID, c.Sampling, c.Queue = ua.StatusCode(r.U32()), r.U32(), millis(r.F64()), r.U32()
		r.Extension()
		return c
	})
}

// A Transfer is the outcome for one subscription.
type Transfer struct {
	Status    ua.StatusCode
	Available []uint32 // sequence numbers that Republish can still give
}

// Transferred answers TransferSubscriptions.
type Transferred struct{ Results []Transfer }

// TypeID implements [Response].
func (*Transferred) TypeID() uint32 {
	return id.TransferSubscriptionsResponse_Encoding_DefaultBinary
}

func (m *Transferred) decode(r *Reader) {
	m.Results = array(r, 8, func(r *Reader) (t Transfer) {
		t.Status, t.Available = ua.StatusCode(r.U32()), array(r, 4, (*Reader).U32)
		return t
	})
}

// A Change is a new value of a monitored item.
type Change struct {
	Handle uint32 // ours
	Value  DataValue
}

// An Event is one event of a monitored item.
type Event struct {
	Handle uint32 // ours
	Fields []Variant
}

// A Notification is one message of a subscription.
type Notification struct {
	Sequence uint32 // of a message without content: that of the next one (OPC 10000-4, 5.14.1.1)
	Time     time.Time
	Changes  []Change
	Events   []Event
	Status   ua.StatusCode // of the subscription itself; Good = nothing said
	Empty    bool          // a keep-alive
}

// Publish answers Publish.
type Publish struct {
	Subscription uint32
	Available    []uint32
	More         bool
	Notification Notification
	Acks         []ua.StatusCode // for the acknowledgements in the request
}

// TypeID implements [Response].
func (*Publish) TypeID() uint32 { return id.PublishResponse_Encoding_DefaultBinary }

func (m *Publish) decode(r *Reader) {
	m.Subscription, m.Available = r.U32(), array(r, 4, (*Reader).U32)
	m.More = r.U8() != 0
	m.Notification = r.notification()
	m.Acks = r.statuses()
}

// Republish answers Republish.
type Republish struct{ Notification Notification }

// TypeID implements [Response].
func (*Republish) TypeID() uint32 { return id.RepublishResponse_Encoding_DefaultBinary }

func (m *Republish) decode(r *Reader) { m.Notification = r.notification() }

func (r *Reader) notification() (n Notification) {
	n.Sequence, n.Time = r.U32(), r.Time()
	count := r.Count(3)
	n.Empty = count == 0
	for range count {
		ext := r.Extension()
		if r.err != nil {
			return n
		}
		body := NewReader(ext.Body)
		switch {
		case ext.XML: // nobody sends it over opc.tcp
		case ext.Type.Std(id.DataChangeNotification_Encoding_DefaultBinary):
			n.Changes = append(n.Changes, body.changes()...)
		case ext.Type.Std(id.EventNotificationList_Encoding_DefaultBinary):
			n.Events = append(n.Events, array(body, 8, func(r *Reader) Event {
				return Event{r.U32(), array(r, 1, (*Reader).Variant)}
			})...)
		case ext.Type.Std(id.StatusChangeNotification_Encoding_DefaultBinary):
			n.Status = ua.StatusCode(body.U32())
		}
		r.Fail(body.Err())
	}
	return n
}

// changes reads the items of a DataChangeNotification. An item takes at least
// five bytes and thirty times that in memory, which is the most that a hostile
// message can gain.
func (r *Reader) changes() []Change {
	n := r.Count(5)
	out := make([]Change, 0, n)
	for range n {
		out = append(out, Change{Handle: r.U32(), Value: r.DataValue()})
		if r.err != nil {
			return nil
		}
	}
	return out
}
