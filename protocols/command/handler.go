package command

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"holdfast/drivers/clock"
	"holdfast/protocols"
	"holdfast/protocols/point"
)

// A Source finds tags; poll.Poller is one.
type Source interface {
	// Lookup returns a tag as configured and the session of its device, nil if
	// that could not be opened.
	Lookup(device, tag string) (point.Tag, protocols.Session, bool)
}

// Options are what a Handler is made with. The zero value works but for the
// clock, which is needed.
type Options struct {
	Clock clock.Clock
	Log   *slog.Logger // nil = none
	Store Store        // of used ids; nil = they are forgotten when the process ends

	MaxAge      time.Duration // of a command that says when it was issued; 0 = 30 s
	MaxAhead    time.Duration // how far ahead of our clock it may be issued; 0 = 5 s
	MaxLifetime time.Duration // between now and the expiry; 0 = 10 min
	MaxUsed     int           // ids remembered; more unexpired ones are refused; 0 = 10,000
	MaxAtOnce   int           // commands under way; more are refused; 0 = 64
	Timeout     time.Duration // of the write; 0 = 10 s
	VerifyFor   time.Duration // how long the value read back may take to be the one asked for; 0 = 2 s

	// AllowUnsynced carries out commands from elsewhere while nothing disciplines the
	// clock. Their expiry then means little.
	AllowUnsynced bool
}

// A Delivery is how a command came.
type Delivery struct {
	Retained bool // the broker kept it: nobody knows for how long
	Local    bool // from this machine: sender and receiver share one clock
}

// Stats count commands by outcome since the start.
type Stats struct{ Done, Refused, Failed, Unknown uint64 }

// A Handler carries out commands. Its methods may be called from many
// goroutines.
type Handler struct {
	o      Options
	source Source
	used   *memory
	slots  chan struct{} // one for each command under way
	stats  counters
}

// New returns a handler that knows the ids in its store.
func New(source Source, o Options) (*Handler, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	orElse(&o.MaxAge, 30*time.Second)
	orElse(&o.MaxAhead, 5*time.Second)
	orElse(&o.MaxLifetime, 10*time.Minute)
	orElse(&o.Timeout, 10*time.Second)
	orElse(&o.VerifyFor, 2*time.Second)
	orElse(&o.MaxUsed, 10_000)
	orElse(&o.MaxAtOnce, 64)
	used, err := newMemory(o.Clock, o.Store, o.MaxUsed, o.MaxLifetime)
	if err != nil {
		return nil, err
	}
	return &Handler{o: o, source: source, used: used, slots: make(chan struct{}, o.MaxAtOnce)}, nil
}

func orElse[T int | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// refusal is why a command is not carried out.
type refusal struct {
	status  Status
	quality point.Quality
	reason  string
}

func refuse(q point.Quality, format string, args ...any) *refusal {
	return &refusal{Refused, q, fmt.Sprintf(format, args...)}
}

// Handle carries out one command, or does not, and says what happened. It
// returns within Timeout and VerifyFor.
func (h *Handler) Handle(ctx context.Context, payload []byte, d Delivery) Result {
	r, err := ParseRequest(payload)
	if err != nil {
		return h.answer(&r, h.now(), point.Value{}, refuse(point.BadInvalidArgument, "%v", err))
	}
	return h.Do(ctx, r, d)
}

// Do is Handle for a command that has been parsed.
func (h *Handler) Do(ctx context.Context, r Request, d Delivery) Result {
	received := h.now()
	select {
	case h.slots <- struct{}{}:
		defer func() { <-h.slots }()
	default:
		return h.answer(&r, received, point.Value{}, refuse(point.BadResourceUnavailable, "%d commands are under way already", h.o.MaxAtOnce))
	}
	if no := h.valid(&r, d); no != nil {
		return h.answer(&r, received, point.Value{}, no)
	}
	target, no := h.target(&r)
	if no != nil {
		return h.answer(&r, received, point.Value{}, no)
	}
	// From here on the id is used, whatever happens. It is remembered before
	// the write: a power cut between the two costs a write, never makes a second one.
	fresh, err := h.used.use(r.ID, r.Expires, !d.Local && h.o.Clock.Quality() == clock.Synced)
	switch {
	case err != nil:
		no = refuse(point.BadResourceUnavailable, "%v", err)
	case !fresh:
		no = refuse(point.BadInvalidArgument, "the id %q is being used", r.ID)
	}
	if no != nil {
		return h.answer(&r, received, point.Value{}, no)
	}
	value, no := h.write(ctx, &r, target)
	result := h.answer(&r, received, value, no)
	h.used.finish(r.ID, result.Status)
	return result
}

func (h *Handler) now() time.Time { return h.o.Clock.Now().UTC().Truncate(time.Microsecond) }

// answer makes the result, counts and logs it.
func (h *Handler) answer(r *Request, received time.Time, v point.Value, no *refusal) Result {
	res := Result{
		ID: r.ID, Device: r.Device, Tag: r.Tag, Status: Done, Value: v,
		Received: received, Finished: h.now(),
	}
	if no != nil {
		res.Status, res.Quality, res.Reason = no.status, no.quality, no.reason
	}
	h.stats.count(res.Status)
	h.o.Log.Info("command", "id", res.ID, "device", res.Device, "tag", res.Tag,
		"value", r.Value.String(), "status", string(res.Status), "reason", res.Reason)
	return res
}

// valid judges the command by itself: its delivery, times and id.
func (h *Handler) valid(r *Request, d Delivery) *refusal {
	now := h.o.Clock.Now()
	quality := h.o.Clock.Quality()
	switch {
	case d.Retained:
		return refuse(point.BadInvalidArgument, "a retained command is never carried out")
	case !d.Local && quality == clock.Stepped:
		return refuse(point.BadInvalidState, "the clock has just been set; commands cannot be judged for a minute")
	case !d.Local && quality != clock.Synced && !h.o.AllowUnsynced:
		return refuse(point.BadInvalidState, "the clock is not synchronised; the expiry cannot be judged")
	}
	if outcome, used := h.used.seen(r.ID); used {
		if outcome == "" {
			return refuse(point.BadInvalidArgument, "the id %q has been used", r.ID)
		}
		return refuse(point.BadInvalidArgument, "the id %q has been used: %s", r.ID, outcome)
	}
	left := r.Expires.Sub(now)
	switch {
	case left <= 0:
		return refuse(point.BadTimeout, "expired %s ago", (-left).Round(time.Millisecond))
	case left > h.o.MaxLifetime:
		return refuse(point.BadInvalidArgument, "expires in %s, more than %s from now", left.Round(time.Second), h.o.MaxLifetime)
	case !d.Local && h.used.passed(r.Expires):
		return refuse(point.BadTimeout, "expired: the clock was later before")
	case r.Issued.IsZero():
		return nil
	}
	age := now.Sub(r.Issued)
	switch {
	case age > h.o.MaxAge:
		return refuse(point.BadTimeout, "issued %s ago, more than %s", age.Round(time.Millisecond), h.o.MaxAge)
	case -age > h.o.MaxAhead:
		return refuse(point.BadInvalidArgument, "issued %s ahead of our clock", (-age).Round(time.Millisecond))
	}
	return nil
}

// target is where a command goes.
type target struct {
	tag     point.Tag
	scaler  point.Scaler
	session protocols.Session
	writer  protocols.Writer
	raw     point.Value
}

// target judges the command against the tag.
func (h *Handler) target(r *Request) (*target, *refusal) {
	tag, session, ok := h.source.Lookup(r.Device, r.Tag)
	if !ok {
		return nil, refuse(point.BadNodeIdUnknown, "no tag %q of device %q", r.Tag, r.Device)
	}
	if !tag.Access.Writable() {
		return nil, refuse(point.BadNotWritable, "tag %q is read only", r.Tag)
	}
	if r.Verify && !tag.Access.Readable() {
		return nil, refuse(point.BadNotReadable, "tag %q cannot be read back", r.Tag)
	}
	if no := inRange(r.Value, tag.Min, tag.Max, r.Min, r.Max); no != nil {
		return nil, no
	}
	t := &target{tag: tag, session: session, scaler: tag.Scale.Compile()}
	var err error
	if t.raw, err = t.scaler.Invert(r.Value); err != nil {
		q := point.BadOutOfRange
		if _, numeric := r.Value.Float(); !numeric || r.Value.Kind() == point.Bool {
			q = point.BadTypeMismatch
		}
		return nil, refuse(q, "%v", err)
	}
	if session == nil {
		return nil, refuse(point.BadNotConnected, "device %q is not open", r.Device)
	}
	if t.writer, ok = session.(protocols.Writer); !ok {
		return nil, refuse(point.BadNotWritable, "the protocol of device %q cannot write", r.Device)
	}
	return t, nil
}

// inRange holds the value against the tag's and the command's limits.
func inRange(v point.Value, limits ...*float64) *refusal {
	if v.Kind() == point.Null {
		return refuse(point.BadTypeMismatch, "null cannot be written")
	}
	f, numeric := v.Float()
	for i, limit := range limits {
		switch {
		case limit == nil:
		case !numeric:
			return refuse(point.BadTypeMismatch, "want a number, not %s", v.Kind())
		case math.IsNaN(f):
			return refuse(point.BadOutOfRange, "NaN is in no range")
		case i%2 == 0 && f < *limit:
			return refuse(point.BadOutOfRange, "%s is below %g", v, *limit)
		case i%2 == 1 && f > *limit:
			return refuse(point.BadOutOfRange, "%s is above %g", v, *limit)
		}
	}
	return nil
}

// write writes, and reads back if asked to.
func (h *Handler) write(ctx context.Context, r *Request, t *target) (point.Value, *refusal) {
	wctx, cancel := context.WithTimeout(ctx, h.o.Timeout)
	defer cancel()
	err := errors.New("the adapter gave no outcome")
	if out := t.writer.Write(wctx, []protocols.Write{{Tag: t.tag, Value: t.raw}}); len(out) == 1 {
		err = out[0]
	} else {
		err = &protocols.WriteError{Quality: point.BadInternalError, Maybe: true, Err: err}
	}
	if err != nil {
		no := &refusal{Unknown, point.BadUnexpectedError, err.Error()} // any other error: nobody says that it was not written
		if we, ok := errors.AsType[*protocols.WriteError](err); ok {
			no.quality = we.Quality
			if !we.Maybe {
				no.status = Failed
			}
		}
		return point.Value{}, no
	}
	if !r.Verify {
		return point.Value{}, nil
	}
	return h.verify(ctx, r, t)
}

// verify reads the tag until it shows what was written, for as long as
// VerifyFor: many devices take a cycle or two to take over a value.
func (h *Handler) verify(ctx context.Context, r *Request, t *target) (point.Value, *refusal) {
	g, err := t.session.Group([]point.Tag{t.tag})
	if err != nil {
		return point.Value{}, &refusal{Unknown, point.BadUnexpectedError, "written, but cannot be read back: " + err.Error()}
	}
	end := h.o.Clock.Elapsed() + h.o.VerifyFor
	for pause := 20 * time.Millisecond; ; pause *= 2 {
		sample := []point.Sample{{Quality: point.BadNoData, Detail: "the adapter gave no answer"}}
		rctx, cancel := context.WithTimeout(ctx, h.o.VerifyFor)
		g.Read(rctx, sample)
		cancel()
		no := &refusal{Unknown, sample[0].Quality, "written, but not read back: " + sample[0].Detail}
		var v point.Value
		if !sample[0].Quality.Bad() {
			v, _ = t.scaler.Apply(sample[0].Value)
			if same(v, r.Value, t.tolerance(r)) {
				return v, nil
			}
			no = &refusal{Failed, point.BadInvalidState, fmt.Sprintf("reads back %s, not %s", v, r.Value)}
		}
		if h.o.Clock.Elapsed()+pause > end || clock.Sleep(ctx, h.o.Clock, pause) != nil {
			return v, no
		}
	}
}

// tolerance returns how far the value read back may be off.
func (t *target) tolerance(r *Request) float64 {
	if r.Tolerance != nil {
		return *r.Tolerance
	}
	step := 0.0
	switch s := t.tag.Scale; s.Kind {
	case point.Factor:
		step = math.Abs(s.Factor)
	case point.Linear:
		step = math.Abs((s.EngHigh - s.EngLow) / (s.RawHigh - s.RawLow))
	}
	f, _ := r.Value.Float()
	return step/2*(1+1e-9) + math.Abs(f)*1e-6
}

// same compares the value read back with the one asked for. Integers that are
// exactly equal need no tolerance; other numbers differ by at most it.
func same(got, want point.Value, tolerance float64) bool {
	a, ok1 := got.Float()
	b, ok2 := want.Float()
	if !ok1 || !ok2 || math.IsNaN(a) || math.IsNaN(b) || math.IsInf(b, 0) {
		return got.Equal(want)
	}
	return a == b || math.Abs(a-b) <= tolerance
}
