package mqtt_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/mochi-mqtt/server/v2/packets"

	"holdfast/drivers/clock/clocktest"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/mqtt"
)

// split makes a message of each line of a payload; its tag is what precedes the
// first "=". A payload that begins with "{" holds no readings.
type split struct{ lines []string }

func newSplit(mqtt.Form) (mqtt.Readings, error) { return &split{}, nil }

func (s *split) Open(r *hub.Record) (int, bool) {
	if strings.HasPrefix(string(r.Payload), "{") {
		return 0, false
	}
	s.lines = slices.DeleteFunc(strings.Split(string(r.Payload), "\n"), func(l string) bool { return l == "" })
	return len(s.lines), true
}

func (s *split) About(i int) mqtt.About {
	tag, _, _ := strings.Cut(s.lines[i], "=")
	return mqtt.About{Device: "press/7", Tag: tag, Unit: "m/s", Path: "acme/site1/area2", Quality: "BadTimeout"}
}

func (s *split) Append(dst []byte, i int) []byte { return append(dst, s.lines[i]...) }

// three makes three messages of each record.
type three struct{ split }

func newThree(mqtt.Form) (mqtt.Readings, error) { return &three{}, nil }

func (s *three) Open(r *hub.Record) (int, bool) {
	s.lines = nil
	for i := range 3 {
		s.lines = append(s.lines, fmt.Sprintf("%s %d of 3", r.Payload, i+1))
	}
	return 3, true
}

// broker answers by the payload of what it gets and notes that.
type answers struct {
	mu   sync.Mutex
	got  []string
	code map[string]int // by payload; else confirmed
}

func (a *answers) publish(_ *clienttest.Session, p *packets.Packet) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.got = append(a.got, p.TopicName+" "+string(p.Payload))
	return a.code[string(p.Payload)]
}

func (a *answers) take() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	got := a.got
	a.got = nil
	return got
}

func readings(url string) mqtt.Options {
	return mqtt.Options{URL: url, Env: mqtt.Env{Readings: newSplit}, Form: mqtt.Form{Payload: "json", PerReading: true}, ReadingTopic: "{tag}"}
}

// TestSpread checks with what a record is settled whose messages meet different
// answers, and what of it is sent.
func TestSpread(t *testing.T) {
	const passes, final = 0x97, 0x99
	for _, c := range []struct {
		name, payload string
		window        int
		code          map[string]int
		rejected      bool
		says          string // in the error; "" = confirmed
		sent          []string
	}{
		{"all confirmed", "a=1\nb=2\nc=3", 100, nil, false, "", []string{"a a=1", "b b=2", "c c=3"}},
		{"through a narrow window", "a=1\nb=2\nc=3", 1, nil, false, "", []string{"a a=1", "b b=2", "c c=3"}},
		{"nothing in it", "\n", 100, nil, false, "", nil},
		{"one refused for good", "a=1\nb=2\nc=3", 1, map[string]int{"b=2": final}, true, "1 of 3 messages", []string{"a a=1", "b b=2", "c c=3"}},
		{"the last refused for good", "a=1\nb=2", 1, map[string]int{"b=2": final}, true, "1 of 2 messages", []string{"a a=1", "b b=2"}},
		{"one refused for now", "a=1\nb=2\nc=3", 1, map[string]int{"b=2": passes}, false, "quota exceeded", []string{"a a=1", "b b=2"}},
		{"both: what may pass counts", "a=1\nb=2\nc=3", 1, map[string]int{"a=1": final, "b=2": passes}, false, "quota exceeded", []string{"a a=1", "b b=2"}},
		{"for now behind for good", "a=1\nb=2\nc=3", 100, map[string]int{"a=1": passes, "c=3": final}, false, "quota exceeded", nil},
		{"no topic", "a=1\n=2\nc=3", 100, nil, true, "1 of 3 messages, the first: to \"\": message cannot be sent: topic is empty", []string{"a a=1", "c c=3"}},
		{"all without topic", "=1\n=2", 100, nil, true, "2 of 2 messages", nil},
		{"no readings", "{b=2", 100, nil, false, "", []string{"as/stored {b=2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			a := &answers{code: c.code}
			srv := clienttest.Start(t, clienttest.Options{OnPublish: a.publish})
			o := readings(srv.URL)
			o.Window = c.window
			up, err := mqtt.New(o)
			if err != nil {
				t.Fatal(err)
			}
			l := connect(t, up)
			err = send(t, l, &hub.Outgoing{Record: hub.Record{Topic: []byte("as/stored"), Payload: []byte(c.payload)}})
			if errors.Is(err, hub.ErrRejected) != c.rejected || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("settled with %v, want %q", err, c.says)
			}
			if got := a.take(); c.sent != nil && !slices.Equal(got, c.sent) {
				t.Errorf("sent %q, want %q", got, c.sent)
			}
			a.mu.Lock()
			a.code = nil
			a.mu.Unlock()
			if err := send(t, l, &hub.Outgoing{Record: hub.Record{Topic: []byte("t"), Payload: []byte("z=1\ny=2")}}); err != nil {
				t.Errorf("afterwards: %v", err)
			}
			if got := a.take(); !slices.Equal(got, []string{"z z=1", "y y=2"}) {
				t.Errorf("afterwards sent %q", got)
			}
		})
	}
}

// TestAdvances checks that the answers to a record's messages are told before it
// is settled.
func TestAdvances(t *testing.T) {
	hold := make(chan struct{})
	srv := clienttest.Start(t, clienttest.Options{OnPublish: func(_ *clienttest.Session, p *packets.Packet) int {
		if p.TopicName == "c" {
			<-hold
		}
		return 0
	}})
	up, err := mqtt.New(readings(srv.URL))
	if err != nil {
		t.Fatal(err)
	}
	l := connect(t, up)
	settled := make(chan error, 1)
	if err := l.Send(&hub.Outgoing{Record: hub.Record{Topic: []byte("t"), Payload: []byte("a=1\nb=2\nc=3")}}, func(err error) { settled <- err }); err != nil {
		t.Fatal(err)
	}
	for deadline := testContext(t); l.(hub.Advancer).Advanced() != 2; time.Sleep(time.Millisecond) {
		if deadline.Err() != nil {
			t.Fatalf("%d answers told", l.(hub.Advancer).Advanced())
		}
	}
	if len(settled) > 0 {
		t.Error("settled early")
	}
	close(hold)
	if err := <-settled; err != nil || l.(hub.Advancer).Advanced() != 3 {
		t.Errorf("%v, %d answers", err, l.(hub.Advancer).Advanced())
	}
}

// TestSpreadsKeepOrder sends many records, of which some hold no readings,
// through windows that fit none of them.
func TestSpreadsKeepOrder(t *testing.T) {
	for _, window := range []int{1, 2, 7, 1000} {
		a := &answers{}
		srv := clienttest.Start(t, clienttest.Options{OnPublish: a.publish})
		o := readings(srv.URL)
		o.Window, o.ReadingTopic = window, "r"
		up, err := mqtt.New(o)
		if err != nil {
			t.Fatal(err)
		}
		l := connect(t, up)
		var want []string
		settled := make(chan int, 200)
		for i := range 200 {
			payload := fmt.Sprintf("{%d", i)
			if i%5 != 0 {
				lines := make([]string, i%9)
				for k := range lines {
					lines[k] = fmt.Sprintf("%d.%d", i, k)
					want = append(want, "r "+lines[k])
				}
				payload = strings.Join(lines, "\n")
			} else {
				want = append(want, "t "+payload)
			}
			out := &hub.Outgoing{Record: hub.Record{Topic: []byte("t"), Payload: []byte(payload)}, Offset: uint64(i)}
			if err := l.Send(out, func(err error) {
				if err != nil {
					t.Error(err)
				}
				settled <- i
			}); err != nil {
				t.Fatal(err)
			}
		}
		seen := map[int]bool{}
		for range 200 {
			select {
			case i := <-settled:
				if seen[i] {
					t.Errorf("%d settled twice", i)
				}
				seen[i] = true
			case <-testContext(t).Done():
				t.Fatal("not settled")
			}
		}
		if got := a.take(); !slices.Equal(got, want) {
			t.Errorf("window %d: sent %d, want %d in order", window, len(got), len(want))
		}
	}
}

// TestReadingProperties looks at what goes with the messages of one record, at a
// broker that nobody here wrote.
func TestReadingProperties(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	type full struct {
		topic, payload, contentType, quality, unit, epoch, offset, index, own, response, correlation string
		text                                                                                         bool
		expiry                                                                                       time.Duration
	}
	got := make(chan full, 10)
	sub, _, err := client.Dial(testContext(t), client.Options{URL: m.URL, OnMessage: func(_ *client.Conn, m *client.Message) {
		f := full{topic: string(m.Topic), payload: string(m.Payload), contentType: m.ContentType(), expiry: m.Expiry}
		for name, to := range map[string]*string{
			mqtt.PropQuality: &f.quality, mqtt.PropUnit: &f.unit, mqtt.PropEpoch: &f.epoch, mqtt.PropOffset: &f.offset, mqtt.PropIndex: &f.index, "own": &f.own,
		} {
			*to, _ = m.UserProperty(name)
		}
		response, correlation := m.ResponseTopic()
		f.response, f.correlation = response, string(correlation)
		f.text = strings.Contains(string(m.Props), "\x01\x01") // the payload format indicator; nothing else here has these bytes
		got <- f
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer sub.Close()
	if _, err := sub.Subscribe(testContext(t), client.Subscription{Filter: "#", QoS: 1}); err != nil {
		t.Fatal(err)
	}
	clk := clocktest.New(time.Time{})
	o := readings(m.URL)
	o.Identify, o.Annotate, o.Clock, o.Device, o.Bound, o.Aliases = true, true, clk, "line/7", time.Minute, 100
	o.ReadingTopic = "{enterprise}/{path[1:]}/{cell}/{gateway}/{device}/{class|any}/{unit}/{tag}/{topic[-1]}"
	up, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	props := client.AppendUserProperty(client.AppendContentType(nil, "application/json"), "own", "x")
	props = client.AppendCorrelation(client.AppendResponseTopic(props, "answers/1"), []byte("c1"))
	rec := hub.Record{Topic: []byte("field/press7/readings"), Payload: []byte("a=1\nb=2"), Props: props, Expires: clocktest.Epoch.Add(90 * time.Second).UnixMicro()}
	if err := send(t, connect(t, up), &hub.Outgoing{Record: rec, Epoch: 5, Offset: 6}); err != nil {
		t.Fatal(err)
	}
	for i, tag := range []string{"a", "b"} {
		want := full{
			topic: "acme/site1/area2/line%2F7/press%2F7/any/m%2Fs/" + tag + "/readings", payload: fmt.Sprintf("%s=%d", tag, i+1),
			contentType: "application/json", quality: "BadTimeout", unit: "m/s", epoch: "5", offset: "6", index: fmt.Sprint(i),
			own: "x", response: "answers/1", correlation: "c1", text: true, expiry: 90 * time.Second,
		}
		if g := <-got; g != want {
			t.Errorf("got  %+v\nwant %+v", g, want)
		}
	}
}

// TestReadingsCompressed checks that messages made of readings are compressed
// one by one, and not marked when they are not.
func TestReadingsCompressed(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	o := readings(m.URL)
	o.Compress = true
	up, err := mqtt.New(o)
	if err != nil {
		t.Fatal(err)
	}
	got := subscribe(t, m.URL, "#")
	long := "a=" + strings.Repeat("0123456789", 50)
	if err := send(t, connect(t, up), &hub.Outgoing{Record: hub.Record{Topic: []byte("t"), Payload: []byte(long + "\nb=2")}}); err != nil {
		t.Fatal(err)
	}
	d, err := zstd.NewReader(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	first, second := <-got, <-got
	plain, err := d.DecodeAll([]byte(first.payload), nil)
	if err != nil || string(plain) != long || first.encoding != "zstd" {
		t.Errorf("%d bytes, encoding %q, %v", len(first.payload), first.encoding, err)
	}
	if second.payload != "b=2" || second.encoding != "" {
		t.Errorf("got %+v", second)
	}
}

func TestPathOf(t *testing.T) {
	f := mqtt.Form{Paths: []mqtt.PathRule{{"*/*", "all"}, {"press*/temp?", "temps"}, {"press7/*", "seven"}, {"x/temp*", "x"}}}
	for _, c := range []struct{ device, tag, want string }{
		{"oven", "a", "all"}, {"press8", "temp1", "temps"}, {"press8", "temp10", "all"}, {"press7", "temp1", "seven"}, {"press7", "", "seven"}, {"x", "", "all"},
	} {
		if got := f.PathOf(c.device, c.tag, "own"); got != c.want {
			t.Errorf("%s/%s: %q, want %q", c.device, c.tag, got, c.want)
		}
	}
	if got := (&mqtt.Form{}).PathOf("a", "b", "own"); got != "own" {
		t.Error(got)
	}
}
