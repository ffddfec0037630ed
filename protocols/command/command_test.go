package command

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/clock/clocktest"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/sim"
)

// bench is a handler over a device that does as it is told.
type bench struct {
	t    *testing.T
	clk  *clocktest.Fake
	h    *Handler
	tags map[string]point.Tag
	dev  *device
	n    int
}

type device struct {
	mu     sync.Mutex
	writes []protocols.Write
	fail   error
	short  bool // gives no outcome
	reads  []point.Sample
	hold   chan struct{} // writes wait for it
}

func (d *device) Group([]point.Tag) (protocols.Group, error) { return d, nil }
func (d *device) Close() error                               { return nil }

func (d *device) Read(_ context.Context, out []point.Sample) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.reads) > 0 {
		out[0] = d.reads[0]
		if len(d.reads) > 1 {
			d.reads = d.reads[1:]
		}
		return
	}
	out[0] = point.Sample{Value: d.writes[len(d.writes)-1].Value}
}

func (d *device) Write(_ context.Context, w []protocols.Write) []error {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		<-hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.writes = append(d.writes, w...)
	if d.short {
		return nil
	}
	return []error{d.fail}
}

func (d *device) count() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.writes)
}

type readOnlySession struct{ protocols.Session }

func (b *bench) Lookup(dev, tag string) (point.Tag, protocols.Session, bool) {
	t, ok := b.tags[tag]
	switch dev {
	case "closed":
		return t, nil, ok
	case "reader":
		return t, readOnlySession{b.dev}, ok
	}
	return t, b.dev, ok && dev == "d"
}

func f(v float64) *float64 { return &v }

func newBench(t *testing.T, o Options) *bench {
	b := &bench{t: t, clk: clocktest.New(time.Time{}), dev: &device{}, tags: map[string]point.Tag{
		"plain":  {Name: "plain", Access: point.ReadWrite, Min: f(-10), Max: f(100)},
		"scaled": {Name: "scaled", Access: point.ReadWrite, Scale: point.Scale{Kind: point.Factor, Factor: 0.1}},
		"free":   {Name: "free", Access: point.WriteOnly},
		"input":  {Name: "input"},
	}}
	b.restart(o)
	return b
}

func (b *bench) restart(o Options) {
	b.t.Helper()
	o.Clock = b.clk
	h, err := New(b, o)
	if err != nil {
		b.t.Fatal(err)
	}
	b.h = h
}

// request returns a valid command.
func (b *bench) request(tag string, v point.Value) Request {
	b.n++
	return Request{
		ID: fmt.Sprintf("id-%d", b.n), Device: "d", Tag: tag, Value: v,
		Expires: b.clk.Now().Add(20 * time.Second), Issued: b.clk.Now(),
	}
}

func (b *bench) do(r Request, d Delivery) Result {
	return b.h.Handle(context.Background(), AppendRequest(nil, &r), d)
}

func TestDone(t *testing.T) {
	b := newBench(t, Options{})
	r := b.request("scaled", point.FloatValue(21.5))
	r.Verify = true
	got := b.do(r, Delivery{})
	want := Result{
		ID: "id-1", Device: "d", Tag: "scaled", Status: Done, Value: point.FloatValue(21.5),
		Received: clocktest.Epoch, Finished: clocktest.Epoch,
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if w := b.dev.writes; len(w) != 1 || w[0].Tag.Name != "scaled" || !w[0].Value.Equal(point.IntValue(215)) {
		t.Errorf("wrote %+v", w)
	}
	if got := b.do(b.request("free", point.StringValue("text")), Delivery{}); got.Status != Done {
		t.Errorf("%+v", got)
	}
	if s := b.h.Stats(); s != (Stats{Done: 2}) {
		t.Errorf("%+v", s)
	}
}

func TestRefused(t *testing.T) {
	b := newBench(t, Options{})
	long := strings.Repeat("x", MaxID+1)
	for name, c := range map[string]struct {
		change  func(*Request)
		d       Delivery
		quality point.Quality
		reason  string
	}{
		"retained":      {nil, Delivery{Retained: true}, point.BadInvalidArgument, "retained"},
		"expired":       {func(r *Request) { r.Expires = b.clk.Now() }, Delivery{}, point.BadTimeout, "expired"},
		"local expired": {func(r *Request) { r.Expires = b.clk.Now() }, Delivery{Local: true}, point.BadTimeout, "expired"},
		"for ever":      {func(r *Request) { r.Expires = b.clk.Now().Add(time.Hour) }, Delivery{}, point.BadInvalidArgument, "10m0s"},
		"stale":         {func(r *Request) { r.Issued = b.clk.Now().Add(-31 * time.Second) }, Delivery{}, point.BadTimeout, "issued 31s ago"},
		"ahead":         {func(r *Request) { r.Issued = b.clk.Now().Add(6 * time.Second) }, Delivery{}, point.BadInvalidArgument, "ahead"},
		"unknown tag":   {func(r *Request) { r.Tag = "nix" }, Delivery{}, point.BadNodeIdUnknown, `no tag "nix"`},
		"other device":  {func(r *Request) { r.Device = "e" }, Delivery{}, point.BadNodeIdUnknown, `device "e"`},
		"read only":     {func(r *Request) { r.Tag = "input" }, Delivery{}, point.BadNotWritable, "read only"},
		"no writer":     {func(r *Request) { r.Device = "reader" }, Delivery{}, point.BadNotWritable, "cannot write"},
		"closed":        {func(r *Request) { r.Device = "closed" }, Delivery{}, point.BadNotConnected, "not open"},
		"null":          {func(r *Request) { r.Value = point.Value{} }, Delivery{}, point.BadTypeMismatch, "null"},
		"text":          {func(r *Request) { r.Value = point.StringValue("5") }, Delivery{}, point.BadTypeMismatch, "want a number"},
		"scaled text":   {func(r *Request) { r.Tag, r.Value = "scaled", point.StringValue("5") }, Delivery{}, point.BadTypeMismatch, "takes a number"},
		"scaled inf":    {func(r *Request) { r.Tag, r.Value = "scaled", point.FloatValue(math.Inf(1)) }, Delivery{}, point.BadOutOfRange, "finite"},
		"above":         {func(r *Request) { r.Value = point.IntValue(101) }, Delivery{}, point.BadOutOfRange, "101 is above 100"},
		"below":         {func(r *Request) { r.Value = point.FloatValue(-10.5) }, Delivery{}, point.BadOutOfRange, "-10.5 is below -10"},
		"nan":           {func(r *Request) { r.Value, _ = point.ParseValue([]byte(`{"float":"NaN"}`)) }, Delivery{}, point.BadOutOfRange, "NaN"},
		"own max":       {func(r *Request) { r.Max = f(4) }, Delivery{}, point.BadOutOfRange, "5 is above 4"},
		"own min":       {func(r *Request) { r.Min = f(6) }, Delivery{}, point.BadOutOfRange, "5 is below 6"},
		"not wider":     {func(r *Request) { r.Max, r.Value = f(1000), point.IntValue(101) }, Delivery{}, point.BadOutOfRange, "above 100"},
		"write-only":    {func(r *Request) { r.Tag, r.Verify = "free", true }, Delivery{}, point.BadNotReadable, "read back"},
		"no id":         {func(r *Request) { r.ID = "" }, Delivery{}, point.BadInvalidArgument, `"id": is empty`},
		"long id":       {func(r *Request) { r.ID = long }, Delivery{}, point.BadInvalidArgument, "longer than 128"},
	} {
		r := b.request("plain", point.IntValue(5))
		if c.change != nil {
			c.change(&r)
		}
		got := b.do(r, c.d)
		if got.Status != Refused || got.Quality != c.quality || !strings.Contains(got.Reason, c.reason) {
			t.Errorf("%s: %+v, want %s, %q", name, got, c.quality, c.reason)
		}
	}
	if n := b.dev.count(); n != 0 {
		t.Errorf("%d of the refused were written", n)
	}
	// What was refused has not used up its id.
	r := b.request("plain", point.IntValue(101))
	b.do(r, Delivery{})
	r.Value = point.IntValue(5)
	if got := b.do(r, Delivery{}); got.Status != Done {
		t.Errorf("%+v", got)
	}
}

func TestClockQuality(t *testing.T) {
	for _, c := range []struct {
		q             clock.Quality
		local, allow  bool
		want          Status
		wantCondition string
	}{
		{clock.Synced, false, false, Done, ""},
		{clock.Unsynced, false, false, Refused, "not synchronised"},
		{clock.Unsynced, true, false, Done, ""},
		{clock.Unsynced, false, true, Done, ""},
		{clock.Stepped, false, true, Refused, "has just been set"},
		{clock.Stepped, true, false, Done, ""},
	} {
		b := newBench(t, Options{AllowUnsynced: c.allow})
		b.clk.SetQuality(c.q)
		got := b.do(b.request("plain", point.IntValue(5)), Delivery{Local: c.local})
		if got.Status != c.want || !strings.Contains(got.Reason, c.wantCondition) {
			t.Errorf("%+v: %+v", c, got)
		}
	}
}

func TestOutcomesOfTheDevice(t *testing.T) {
	cause := errors.New("exception 2 (illegal data address)")
	for name, c := range map[string]struct {
		fail    error
		short   bool
		status  Status
		quality point.Quality
	}{
		"refused":     {&protocols.WriteError{Quality: point.BadNodeIdUnknown, Err: cause}, false, Failed, point.BadNodeIdUnknown},
		"answer lost": {&protocols.WriteError{Quality: point.BadTimeout, Maybe: true, Err: cause}, false, Unknown, point.BadTimeout},
		"wrapped":     {fmt.Errorf("x: %w", &protocols.WriteError{Quality: point.BadTimeout, Err: cause}), false, Failed, point.BadTimeout},
		"other error": {cause, false, Unknown, point.BadUnexpectedError},
		"no outcome":  {nil, true, Unknown, point.BadInternalError},
	} {
		b := newBench(t, Options{})
		b.dev.fail, b.dev.short = c.fail, c.short
		r := b.request("plain", point.IntValue(5))
		got := b.do(r, Delivery{})
		if got.Status != c.status || got.Quality != c.quality || got.Reason == "" {
			t.Errorf("%s: %+v", name, got)
		}
		again := b.do(r, Delivery{})
		if again.Status != Refused || !strings.Contains(again.Reason, "has been used: "+string(c.status)) {
			t.Errorf("%s, again: %+v", name, again)
		}
	}
}

func TestVerify(t *testing.T) {
	good := func(v float64) point.Sample { return point.Sample{Value: point.FloatValue(v)} }
	bad := point.Sample{Quality: point.BadTimeout, Detail: "no answer"}
	for name, c := range map[string]struct {
		tag       string
		write     float64
		tolerance *float64
		reads     []point.Sample // raw
		status    Status
		value     string
	}{
		"at once":             {"plain", 21.5, nil, []point.Sample{good(21.5)}, Done, "21.5"},
		"third time":          {"plain", 21.5, nil, []point.Sample{good(0), bad, good(21.5)}, Done, "21.5"},
		"single precision":    {"plain", 21.55, nil, []point.Sample{good(float64(float32(21.55)))}, Done, "21.549999237060547"},
		"rounded by a step":   {"scaled", 21.55, nil, []point.Sample{good(216)}, Done, "21.6"},
		"two steps off":       {"scaled", 21.55, nil, []point.Sample{good(217)}, Failed, "21.7"},
		"own tolerance":       {"scaled", 21.55, f(1), []point.Sample{good(220)}, Done, "22.0"},
		"stays another":       {"plain", 21.5, f(0), []point.Sample{good(20)}, Failed, "20.0"},
		"cannot be read back": {"plain", 21.5, nil, []point.Sample{bad}, Unknown, "null"},
	} {
		b := newBench(t, Options{})
		b.dev.reads = c.reads
		r := b.request(c.tag, point.FloatValue(c.write))
		r.Verify, r.Tolerance = true, c.tolerance
		done := make(chan Result, 1)
		go func() { done <- b.do(r, Delivery{}) }()
		var got Result
		for waiting := true; waiting; {
			select {
			case got = <-done:
				waiting = false
			case <-time.After(time.Millisecond):
				b.clk.Advance(10 * time.Millisecond)
			}
		}
		if got.Status != c.status || got.Value.String() != c.value {
			t.Errorf("%s: %+v (value %s)", name, got, got.Value)
		}
		if (got.Status == Done) != got.Quality.Good() {
			t.Errorf("%s: %s with %s", name, got.Status, got.Quality)
		}
	}
}

func TestBusy(t *testing.T) {
	b := newBench(t, Options{MaxAtOnce: 2})
	b.dev.hold = make(chan struct{})
	results := make(chan Result, 2)
	var requests []Request
	for range 2 {
		requests = append(requests, b.request("plain", point.IntValue(1)))
	}
	for _, r := range requests {
		go func() { results <- b.do(r, Delivery{}) }()
	}
	for end := time.Now().Add(30 * time.Second); len(b.h.slots) < 2; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the two do not start")
		}
	}
	if got := b.do(b.request("plain", point.IntValue(1)), Delivery{}); got.Status != Refused || got.Quality != point.BadResourceUnavailable {
		t.Errorf("the third: %+v", got)
	}
	close(b.dev.hold)
	for range 2 {
		if got := <-results; got.Status != Done {
			t.Errorf("%+v", got)
		}
	}
}

// TestSameIDAtOnce: of many copies that arrive together one is carried out.
func TestSameIDAtOnce(t *testing.T) {
	b := newBench(t, Options{})
	r := b.request("plain", point.IntValue(1))
	var all sync.WaitGroup
	var mu sync.Mutex
	count := map[Status]int{}
	for range 30 {
		all.Go(func() {
			got := b.do(r, Delivery{})
			mu.Lock()
			defer mu.Unlock()
			count[got.Status]++
		})
	}
	all.Wait()
	if count[Done] != 1 || count[Refused] != 29 || b.dev.count() != 1 {
		t.Errorf("%v, %d writes", count, b.dev.count())
	}
}

// TestOverSim is the whole way on a real adapter.
func TestOverSim(t *testing.T) {
	clk := clocktest.New(time.Time{})
	a := sim.New(protocols.Env{Clock: clk}, sim.Options{})
	tag := point.Tag{
		Name: "valve", Address: "constant", Type: "int", Access: point.ReadWrite,
		Scale: point.Scale{Kind: point.Linear, RawHigh: 27648, EngHigh: 100, Clamp: true},
	}
	s, err := a.Open(protocols.Device{Name: "d", Tags: []point.Tag{tag}})
	if err != nil {
		t.Fatal(err)
	}
	h, err := New(only{tag, s}, Options{Clock: clk})
	if err != nil {
		t.Fatal(err)
	}
	r := Request{ID: "1", Device: "d", Tag: "valve", Value: point.FloatValue(33.3), Expires: clk.Now().Add(time.Second), Verify: true}
	if got := h.Do(context.Background(), r, Delivery{}); got.Status != Done || got.Value.String() != "33.30078125" {
		t.Errorf("%+v (value %s)", got, got.Value)
	}
	r.ID, r.Value = "2", point.FloatValue(100.5)
	if got := h.Do(context.Background(), r, Delivery{}); got.Status != Refused {
		t.Errorf("%+v", got)
	}
	a.Inject("d", sim.Gone)
	r.ID, r.Value = "3", point.FloatValue(1)
	if got := h.Do(context.Background(), r, Delivery{}); got.Status != Failed || got.Quality != point.BadNoCommunication {
		t.Errorf("%+v", got)
	}
}

type only struct {
	tag point.Tag
	s   protocols.Session
}

func (o only) Lookup(string, string) (point.Tag, protocols.Session, bool) { return o.tag, o.s, true }
