package point

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// A Reduction holds back readings that say little, beside the dead-band. The
// zero value holds nothing back. A changed quality is always published, and at
// once.
type Reduction struct {
	// Swing is the deviation of the swinging door, above 0, in engineering units
	// or, with SwingPercent, in percent of the scale's engineering span; 0 = no
	// door. Of numbers, only those are published that a straight line from the
	// last published one cannot stand for: at the time of every reading that was
	// looked at, the line through the published ones is within the deviation of it.
	// What is published is a reading as it was, with its own times, and therefore
	// up to a heartbeat late. Other kinds of value are published when they change.
	Swing        float64
	SwingPercent bool

	// MinInterval is the least time between two readings; those that come sooner
	// are dropped, and the swinging door does not look at them. 0 = none.
	MinInterval time.Duration

	// Heartbeat is the most time between two readings: then one is published
	// although nothing has changed. 0 = that of the scan class; with a swinging
	// door and none there, a minute. A tag is not published more often than it
	// is read.
	Heartbeat time.Duration

	// SkipFirst keeps the first reading to oneself, unless it is Bad: those that
	// follow are measured against it. For receivers that know the last value.
	SkipFirst bool
}

// Check reports a reduction that cannot work under a tag's scale and dead-band.
func (r Reduction) Check(s Scale, d Deadband) error {
	switch {
	case !(r.Swing >= 0) || math.IsInf(r.Swing, 0):
		return errors.New("swinging door: the deviation must be above 0")
	case r.SwingPercent && r.Swing == 0:
		return errors.New("swinging door: percent of what deviation?")
	case r.SwingPercent && s.Kind != Linear:
		return errors.New("swinging door: percent needs a linear scale, whose engineering range it is a part of")
	case r.Swing > 0 && d.Kind != NoDeadband:
		return errors.New("a tag has a dead-band or a swinging door, not both")
	case r.Swing > 0 && r.SkipFirst:
		return errors.New("a swinging door cannot skip the first reading: lines begin there")
	case r.MinInterval < 0 || r.Heartbeat < 0:
		return errors.New("reduction: times must not be negative")
	case r.Heartbeat > 0 && r.MinInterval > r.Heartbeat:
		return fmt.Errorf("the least interval %s is above the heartbeat %s", r.MinInterval, r.Heartbeat)
	}
	return nil
}

// swingHeartbeat bounds how late a swinging door may publish where nothing else
// is configured.
const swingHeartbeat = time.Minute

// A Reducer is the state of one tag's dead-band and reduction together: it
// decides, reading by reading, what is published. Make it with NewReducer.
type Reducer struct {
	reduction Reduction
	dead      Filter
	heartbeat time.Duration
	door      door

	begun   bool // a reading has been published or skipped, and the two below are its
	quality Quality
	at      time.Duration
}

// NewReducer returns a reducer for a tag that has passed Check. heartbeat is
// that of its scan class.
func NewReducer(t *Tag, heartbeat time.Duration) *Reducer {
	r := &Reducer{reduction: t.Reduce, dead: NewFilter(t.Dead, t.Scale), heartbeat: heartbeat}
	if t.Reduce.Heartbeat > 0 {
		r.heartbeat = t.Reduce.Heartbeat
	}
	if t.Reduce.Swing > 0 {
		r.door.width = t.Reduce.Swing
		if t.Reduce.SwingPercent {
			r.door.width *= math.Abs(t.Scale.EngHigh-t.Scale.EngLow) / 100
		}
		r.dead = NewFilter(Deadband{Kind: OnChange}, t.Scale) // for what is not a number
		if r.heartbeat == 0 {
			r.heartbeat = swingHeartbeat
		}
	}
	return r
}

// Heartbeat returns the most time between two readings, 0 if there is no bound.
func (r *Reducer) Heartbeat() time.Duration { return r.heartbeat }

// Next takes a reading that was made at a moment of elapsed time, and appends to
// out what is to be published now: nothing, the reading, one that was held
// before, or both. next is when another reading is expected, counted from this
// one: a heartbeat that it would miss is given now.
func (r *Reducer) Next(out []Reading, rd Reading, at, next time.Duration) []Reading {
	if !r.begun && r.reduction.SkipFirst && !rd.Quality.Bad() {
		r.note(&rd, at)
		return out
	}
	if !r.begun || rd.Quality != r.quality {
		return r.publish(r.Flush(out), rd, at)
	}
	if r.reduction.MinInterval > 0 && at-r.at < r.reduction.MinInterval {
		return out
	}
	v, isNumber := r.door.number(&rd)
	if isNumber && r.door.open {
		return r.swing(out, rd, v, at, next)
	}
	if r.due(at, next) || r.dead.Pass(rd.Value, rd.Quality) {
		out = r.publish(r.Flush(out), rd, at)
	}
	return out
}

func (r *Reducer) due(at, next time.Duration) bool {
	return r.heartbeat > 0 && at-r.at+next > r.heartbeat
}

// swing takes a number while the door is open.
func (r *Reducer) swing(out []Reading, rd Reading, v float64, at, next time.Duration) []Reading {
	d := &r.door
	if d.holding && rd.axis().Equal(d.held.axis()) && rd.Value.Equal(d.held.Value) ||
		!d.holding && rd.axis().Equal(d.from) && v == d.pivot {
		if !r.due(at, next) { // told again, not measured again
			return out
		}
		return r.publish(r.Flush(out), rd, at)
	}
	if !d.fits(&rd, v) {
		if !d.holding || !rd.axis().After(d.held.axis()) { // time stands or goes back: begin anew
			return r.publish(r.Flush(out), rd, at)
		}
		out = r.Flush(out)
	}
	if r.due(at, next) {
		d.holding = false // the line to this one stands for it
		return r.publish(out, rd, at)
	}
	d.hold(rd, v, at)
	return out
}

// Flush appends the reading that is held for the line to be drawn, if there is
// one: what follows is not going to continue it.
func (r *Reducer) Flush(out []Reading) []Reading {
	if !r.door.holding {
		return out
	}
	r.door.holding = false
	return r.publish(out, r.door.held, r.door.heldAt)
}

// Force remembers a reading that is published whatever the reducer says. Flush
// comes before.
func (r *Reducer) Force(rd Reading, at time.Duration) { r.note(&rd, at) }

func (r *Reducer) publish(out []Reading, rd Reading, at time.Duration) []Reading {
	r.note(&rd, at)
	return append(out, rd)
}

// note remembers a reading that receivers know, or are taken to know.
func (r *Reducer) note(rd *Reading, at time.Duration) {
	r.begun, r.quality, r.at = true, rd.Quality, at
	r.dead.Force(rd.Value, rd.Quality)
	v, ok := r.door.number(rd)
	r.door.begin(rd, v, ok)
}

// A door is the state of a swinging door. From the last published number two
// rays leave that pass each later reading at the deviation above and below, as
// near as any of them demands. A reading between the rays can end the line; the
// last such one is held, and published when the next is outside.
//
// That is stricter than the common form, in which only the rays must not cross:
// there the line that is drawn in the end may miss readings by up to twice the
// deviation.
type door struct {
	width     float64 // 0 = no door
	open      bool    // pivot is a number from which lines are drawn
	pivot     float64
	from      time.Time // of the pivot
	low, high float64   // slopes of the rays, per second

	holding bool
	held    Reading
	heldAt  time.Duration
}

// number returns the value of a reading as the door sees it.
func (d *door) number(rd *Reading) (v float64, ok bool) {
	if d.width == 0 || rd.Quality.Bad() || rd.Value.kind == Bool {
		return 0, false
	}
	v, ok = rd.Value.Float()
	return v, ok && !math.IsNaN(v) && !math.IsInf(v, 0)
}

// begin puts the pivot of new lines.
func (d *door) begin(rd *Reading, v float64, isNumber bool) {
	d.open, d.pivot, d.from = isNumber, v, rd.axis()
	d.low, d.high = math.Inf(-1), math.Inf(1)
}

// fits reports whether a line from the pivot to v stands for all between.
func (d *door) fits(rd *Reading, v float64) bool {
	dt := rd.axis().Sub(d.from).Seconds()
	if dt <= 0 || d.holding && !rd.axis().After(d.held.axis()) {
		return false
	}
	slope := (v - d.pivot) / dt
	return d.low <= slope && slope <= d.high
}

// hold keeps a reading that fits as the possible end of the line.
func (d *door) hold(rd Reading, v float64, at time.Duration) {
	dt := rd.axis().Sub(d.from).Seconds()
	d.low = math.Max(d.low, (v-d.width-d.pivot)/dt)
	d.high = math.Min(d.high, (v+d.width-d.pivot)/dt)
	d.holding, d.held, d.heldAt = true, rd, at
}

// axis is the time at which a reading lies on a line: the field device's own if
// it gives one.
func (r *Reading) axis() time.Time {
	if r.Source.IsZero() {
		return r.Receive
	}
	return r.Source
}
