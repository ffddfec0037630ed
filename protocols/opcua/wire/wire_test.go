package wire

import (
	"bytes"
	"encoding/binary"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"
)

// encode is gopcua's encoder: the other side of every test here.
func encode(t testing.TB, v any) []byte {
	t.Helper()
	b, err := ua.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestVariantText reads what gopcua writes, for each built-in type.
func TestVariantText(t *testing.T) {
	at := time.Date(2024, 5, 31, 12, 0, 0, 250_000_000, time.UTC)
	for _, tc := range []struct {
		v    any
		want string
	}{
		{true, "true"},
		{int8(-5), "-5"},
		{uint8(200), "200"},
		{int16(-1234), "-1234"},
		{uint16(54321), "54321"},
		{int32(math.MinInt32), "-2147483648"},
		{uint32(math.MaxUint32), "4294967295"},
		{int64(math.MinInt64), "-9223372036854775808"},
		{uint64(math.MaxUint64), "18446744073709551615"},
		{float32(1.1), "1.1"},
		{0.1, "0.1"},
		{math.NaN(), `"NaN"`},
		{math.Inf(-1), `"-Inf"`},
		{"a\"\n<ü", `"a\"\n<ü"`},
		{at, `"2024-05-31T12:00:00.25Z"`},
		{ua.NewGUID("72962B91-FA75-4AE6-8D28-B404DC7DAF63"), `"72962b91-fa75-4ae6-8d28-b404dc7daf63"`},
		{[]byte{0, 255}, `"AP8="`},
		{ua.XMLElement("<a/>"), `"<a/>"`},
		{ua.NewStringNodeID(2, "x"), `"ns=2;s=x"`},
		{ua.NewNumericNodeID(0, 84), `"i=84"`},
		{ua.NewGUIDNodeID(1, "72962B91-FA75-4AE6-8D28-B404DC7DAF63"), `"ns=1;g=72962b91-fa75-4ae6-8d28-b404dc7daf63"`},
		{ua.NewByteStringNodeID(1, []byte{1, 2}), `"ns=1;b=AQI="`},
		{ua.StatusBadTimeout, `"BadTimeout"`},
		{&ua.QualifiedName{NamespaceIndex: 2, Name: "n"}, `"2:n"`},
		{ua.NewLocalizedTextWithLocale("valve", "en"), `"valve"`},
		{&ua.DataValue{EncodingMask: 1 | 2, Value: ua.MustVariant(int32(5)), Status: ua.StatusBad}, `{"value":5,"status":"Bad"}`},
		{[]int16{1, -2}, "[1,-2]"},
		{[]string{"a", ""}, `["a",""]`},
		{[][]int32{{1, 2, 3}, {4, 5, 6}}, "[[1,2,3],[4,5,6]]"},
		{[]*ua.Variant{ua.MustVariant(true), ua.MustVariant([]uint16{7})}, "[true,[7]]"},
	} {
		r := NewReader(encode(t, ua.MustVariant(tc.v)))
		v := r.Variant()
		if r.Err() != nil || r.Left() != 0 {
			t.Errorf("%v: %v, %d bytes left", tc.v, r.Err(), r.Left())
			continue
		}
		got, err := new(Printer).Append(nil, &v)
		if err != nil || string(got) != tc.want {
			t.Errorf("%v is %s, %v; want %s", tc.v, got, err, tc.want)
		}
	}
}

// TestPublish decodes a whole response.
func TestPublish(t *testing.T) {
	at := time.Date(2024, 5, 31, 12, 0, 0, 100, time.UTC)
	body := encode(t, &ua.PublishResponse{
		ResponseHeader: header(ua.StatusOK), SubscriptionID: 7, AvailableSequenceNumbers: []uint32{3, 4}, MoreNotifications: true,
		NotificationMessage: &ua.NotificationMessage{SequenceNumber: 4, PublishTime: at, NotificationData: []*ua.ExtensionObject{
			ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: []*ua.MonitoredItemNotification{
				{ClientHandle: 1, Value: &ua.DataValue{EncodingMask: 0x3f, Value: ua.MustVariant(1.5), Status: 0x480, SourceTimestamp: at, ServerTimestamp: at.Add(time.Second)}},
				{ClientHandle: 2, Value: &ua.DataValue{EncodingMask: 2, Status: ua.StatusBadNoData}},
			}}),
			ua.NewExtensionObject(&ua.EventNotificationList{Events: []*ua.EventFieldList{{ClientHandle: 9, EventFields: []*ua.Variant{ua.MustVariant("x")}}}}),
			ua.NewExtensionObject(&ua.StatusChangeNotification{Status: ua.StatusBadTimeout, DiagnosticInfo: &ua.DiagnosticInfo{}}),
		}},
		Results: []ua.StatusCode{ua.StatusOK},
	})
	var p Publish
	if err := Decode(Message{id.PublishResponse_Encoding_DefaultBinary, body}, &p); err != nil {
		t.Fatal(err)
	}
	n := p.Notification
	if p.Subscription != 7 || len(p.Available) != 2 || !p.More || len(p.Acks) != 1 || n.Sequence != 4 || n.Empty || !n.Time.Equal(at) {
		t.Errorf("%+v", p)
	}
	if len(n.Changes) != 2 || n.Changes[0].Handle != 1 || n.Changes[0].Value.Status != 0x480 || !n.Changes[0].Value.Source.Equal(at) ||
		math.Float64frombits(n.Changes[0].Value.Value.Num) != 1.5 || n.Changes[1].Value.Status != ua.StatusBadNoData || !n.Changes[1].Value.Value.IsNull() {
		t.Errorf("%+v", n.Changes)
	}
	if len(n.Events) != 1 || n.Events[0].Handle != 9 || len(n.Events[0].Fields) != 1 || n.Status != ua.StatusBadTimeout {
		t.Errorf("%+v %v", n.Events, n.Status)
	}
	if err := Decode(Message{id.ServiceFault_Encoding_DefaultBinary, encode(t, &ua.ServiceFault{ResponseHeader: header(ua.StatusBadTooManyOperations)})}, &p); err != ua.StatusBadTooManyOperations {
		t.Errorf("a fault is %v", err)
	}
	if err := Decode(Message{1, body}, &p); err == nil {
		t.Error("a response of another type is taken")
	}
}

func header(s ua.StatusCode) *ua.ResponseHeader {
	return &ua.ResponseHeader{ServiceResult: s, ServiceDiagnostics: &ua.DiagnosticInfo{}, AdditionalHeader: ua.NewExtensionObject(nil)}
}

// TestTimes: ticks and back, and what no calendar holds.
func TestTimes(t *testing.T) {
	for _, want := range []time.Time{
		time.Date(1601, 1, 1, 0, 0, 0, 100, time.UTC), time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC),
		time.Date(2024, 2, 29, 23, 59, 59, 999_999_900, time.UTC), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC), {},
	} {
		if got := TimeOf(Ticks(want)); !got.Equal(want) {
			t.Errorf("%s comes back as %s", want, got)
		}
	}
	for _, ticks := range []int64{0, -1, math.MinInt64, math.MaxInt64, 2650467743990000000} {
		if got := TimeOf(ticks); !got.IsZero() {
			t.Errorf("%d is %s", ticks, got)
		}
	}
}

func le(parts ...any) []byte {
	var b bytes.Buffer
	for _, p := range parts {
		if err := binary.Write(&b, binary.LittleEndian, p); err != nil {
			panic(err)
		}
	}
	return b.Bytes()
}

// TestHostile: what cannot be is an error, or a value that says so, and is cheap.
func TestHostile(t *testing.T) {
	deep := bytes.Repeat([]byte{VariantType}, 2<<20)
	diagnostics := append(make([]byte, 16), bytes.Repeat([]byte{0x40}, 2<<20)...)
	for name, tc := range map[string]struct {
		read  func() error
		fails bool
	}{
		"variant in variant, two million deep": {func() error { r := NewReader(deep); r.Variant(); return r.Err() }, true},
		"diagnostics, two million deep":        {func() error { return Decode(Message{1, diagnostics}, &Publish{}) }, true},
		"array of -2":                          {func() error { r := NewReader(le(uint8(0x86), int32(-2))); r.Variant(); return r.Err() }, true},
		"array of two thousand million":        {func() error { r := NewReader(le(uint8(0x8c), int32(math.MaxInt32))); r.Variant(); return r.Err() }, true},
		"type 63":                              {func() error { r := NewReader([]byte{63}); r.Variant(); return r.Err() }, true},
		"string of -2":                         {func() error { r := NewReader(le(uint8(12), int32(-2))); r.Variant(); return r.Err() }, true},
		"string beyond the end":                {func() error { r := NewReader(le(uint8(12), int32(100), uint8(1))); r.Variant(); return r.Err() }, true},
		"matrix whose product overflows": {func() error {
			return printed(le(uint8(0xc6), int32(0), int32(2), int32(65536), int32(65536)))
		}, true},
		"matrix of other dimensions": {func() error {
			return printed(le(uint8(0xc3), int32(2), uint8(1), uint8(2), int32(2), int32(3), int32(3)))
		}, true},
		"matrix of a thousand million nothings": {func() error {
			return printed(le(uint8(0xc6), int32(0), int32(2), int32(1_000_000_000), int32(0)))
		}, true},
		"matrix of 17 dimensions": {func() error {
			return printed(append(le(uint8(0xc3), int32(1), uint8(1), int32(17)), bytes.Repeat(le(int32(1)), 17)...))
		}, true},
		"a boolean of 255":       {func() error { return printed([]byte{1, 255}) }, false},
		"text that is not UTF-8": {func() error { return printed(le(uint8(12), int32(2), uint8(0xff), uint8(0xfe))) }, false},
		"reserved type is bytes": {func() error { return printed(le(uint8(26), int32(1), uint8(1))) }, false},
		"array of null strings":  {func() error { return printed(le(uint8(0x8c), int32(2), int32(-1), int32(-1))) }, false},
		"more references than here": {func() error {
			return Decode(Message{id.BrowseResponse_Encoding_DefaultBinary, le(make([]byte, 24), int32(1<<28))}, &Browsed{})
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			err := tc.read()
			runtime.ReadMemStats(&after)
			if (err != nil) != tc.fails {
				t.Errorf("error is %v", err)
			}
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 16<<20 {
				t.Errorf("it costs %d bytes", grown)
			}
		})
	}
}

func printed(b []byte) error {
	r := NewReader(b)
	v := r.Variant()
	if r.Err() != nil {
		return r.Err()
	}
	_, err := new(Printer).Append(nil, &v)
	return err
}

// TestPrinterLimit: text is bounded however small the value is.
func TestPrinterLimit(t *testing.T) {
	r := NewReader(encode(t, ua.MustVariant(make([]bool, 60000))))
	v := r.Variant()
	if _, err := (&Printer{Limit: 1000}).Append(nil, &v); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("60000 booleans in 1000 bytes: %v", err)
	}
}

func TestIdentifiers(t *testing.T) {
	for _, s := range []string{"i=0", "i=4294967295", "s=a;b=c", "g=72962b91-fa75-4ae6-8d28-b404dc7daf63", "b=AQI="} {
		n, err := ParseIdentifier(s)
		if err != nil || n.Identifier() != s {
			t.Errorf("%s is %s, %v", s, n.Identifier(), err)
		}
		r := NewReader(encode(t, n.UA()))
		if back := r.ID(); back != n || r.Err() != nil {
			t.Errorf("%s comes back as %s, %v", s, back, r.Err())
		}
	}
	for _, s := range []string{"", "x", "i=", "i=-1", "i=4294967296", "s=", "g=1", "b=!", "b=", "q=1", "ii=1"} {
		if n, err := ParseIdentifier(s); err == nil {
			t.Errorf("%q is %s", s, n)
		}
	}
}

// FuzzDecode: no message makes a decoder panic or costs much more than its size.
func FuzzDecode(f *testing.F) {
	f.Add(uint8(0), encode(f, &ua.PublishResponse{ResponseHeader: header(0), NotificationMessage: &ua.NotificationMessage{}}))
	f.Add(uint8(1), encode(f, &ua.ReadResponse{ResponseHeader: header(0), Results: []*ua.DataValue{{EncodingMask: 1, Value: ua.MustVariant([][]int32{{1, 2}, {3, 4}})}}}))
	f.Add(uint8(2), encode(f, &ua.BrowseResponse{ResponseHeader: header(0), Results: []*ua.BrowseResult{}}))
	f.Add(uint8(3), encode(f, &ua.HistoryReadResponse{ResponseHeader: header(0)}))
	f.Add(uint8(4), encode(f, &ua.CallResponse{ResponseHeader: header(0), Results: []*ua.CallMethodResult{{OutputArguments: []*ua.Variant{ua.MustVariant("x")}}}}))
	f.Add(uint8(5), encode(f, &ua.CreateSessionResponse{ResponseHeader: header(0), SessionID: ua.NewTwoByteNodeID(1), AuthenticationToken: ua.NewTwoByteNodeID(2), ServerSignature: &ua.SignatureData{}}))
	f.Fuzz(func(t *testing.T, kind uint8, body []byte) {
		all := []Response{
			&Publish{}, &Read{}, &Browsed{}, &HistoryRead{}, &Called{}, &CreatedSession{}, &Endpoints{}, &Translated{},
			&CreatedItems{}, &Transferred{}, &Statuses{Type: 1}, &OpenChannel{}, &ActivatedSession{}, &CreatedSubscription{}, &Republish{},
		}
		m := all[int(kind)%len(all)]
		if Decode(Message{m.TypeID(), body}, m) != nil {
			return
		}
		show := func(v *Variant) {
			if out, err := (&Printer{Limit: 10000}).Append(nil, v); err == nil && len(out) == 0 {
				t.Error("a value without text")
			}
		}
		switch m := m.(type) {
		case *Read:
			for i := range m.Results {
				show(&m.Results[i].Value)
			}
		case *Publish:
			for i := range m.Notification.Changes {
				show(&m.Notification.Changes[i].Value.Value)
			}
		case *Called:
			for i := range m.Results {
				for j := range m.Results[i].Output {
					show(&m.Results[i].Output[j])
				}
			}
		}
	})
}

// BenchmarkPublish decodes a message of 1000 Doubles.
func BenchmarkPublish(b *testing.B) {
	var items []*ua.MonitoredItemNotification
	at := time.Now()
	for i := range 1000 {
		items = append(items, &ua.MonitoredItemNotification{ClientHandle: uint32(i), Value: &ua.DataValue{
			EncodingMask: 0x0d, Value: ua.MustVariant(float64(i)), SourceTimestamp: at, ServerTimestamp: at,
		}})
	}
	m := Message{id.PublishResponse_Encoding_DefaultBinary, encode(b, &ua.PublishResponse{
		ResponseHeader: header(0), NotificationMessage: &ua.NotificationMessage{NotificationData: []*ua.ExtensionObject{
			ua.NewExtensionObject(&ua.DataChangeNotification{MonitoredItems: items}),
		}},
	})}
	b.Run("own", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var p Publish
			if err := Decode(m, &p); err != nil || len(p.Notification.Changes) != 1000 {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/value")
	})
	b.Run("gopcua", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			var p ua.PublishResponse
			if _, err := ua.Decode(m.Body, &p); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/value")
	})
}
