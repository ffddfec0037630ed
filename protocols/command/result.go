package command

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"holdfast/protocols/point"
)

// Status says what became of a command.
type Status string

// The outcomes.
const (
	Done    Status = "done"    // the device has confirmed, and reads back as asked if that was asked
	Refused Status = "refused" // not carried out: certainly nothing was written
	Failed  Status = "failed"  // the device refused, or reads back something else
	Unknown Status = "unknown" // sent, but not confirmed: it may have been written
)

// A Result answers a command.
type Result struct {
	ID       string // of the command; "" if it could not be read
	Device   string
	Tag      string
	Status   Status
	Quality  point.Quality // why, by OPC UA's names; Good when done
	Reason   string        // the same for people; "" when done
	Value    point.Value   // what the tag read back; Null if it was not read
	Received time.Time     // when the command came
	Finished time.Time     // when this was decided
}

// AppendResult appends the answer as it travels (FORMAT.md).
func AppendResult(dst []byte, r *Result) []byte {
	str := func(key, s string) {
		dst = append(dst, `,"`+key+`":`...)
		dst = point.AppendValue(dst, point.StringValue(s))
	}
	dst = append(dst, `{"id":`...)
	dst = point.AppendValue(dst, point.StringValue(r.ID))
	if r.Device != "" {
		str("device", r.Device)
	}
	if r.Tag != "" {
		str("tag", r.Tag)
	}
	str("status", string(r.Status))
	if r.Quality != point.Good {
		str("quality", r.Quality.String())
	}
	if r.Reason != "" {
		str("reason", r.Reason)
	}
	if r.Value.Kind() != point.Null {
		dst = append(dst, `,"value":`...)
		dst = point.AppendValue(dst, r.Value)
	}
	dst = append(dst, `,"received":`...)
	dst = strconv.AppendInt(dst, r.Received.UnixMicro(), 10)
	dst = append(dst, `,"finished":`...)
	dst = strconv.AppendInt(dst, r.Finished.UnixMicro(), 10)
	return append(dst, '}')
}

// ParseResult reads an answer. Unknown keys are passed over, so that a newer
// gateway's answer can be read.
func ParseResult(data []byte) (Result, error) {
	var r Result
	if len(data) > 2*point.MaxValue {
		return r, fmt.Errorf("answer of %d bytes is too long", len(data))
	}
	members, err := object(data)
	if err != nil {
		return r, err
	}
	for _, m := range members {
		var s string
		switch m.key {
		case "id":
			r.ID, err = text(m.raw, point.MaxValue)
		case "device":
			r.Device, err = text(m.raw, point.MaxValue)
		case "tag":
			r.Tag, err = text(m.raw, point.MaxValue)
		case "status":
			s, err = text(m.raw, MaxID)
			r.Status = Status(s)
		case "quality":
			if s, err = text(m.raw, MaxID); err == nil {
				r.Quality, err = point.ParseQuality(s)
			}
		case "reason":
			r.Reason, err = text(m.raw, point.MaxValue)
		case "value":
			r.Value, err = point.ParseValue(m.raw)
		case "received":
			r.Received, err = parseTime(m.raw)
		case "finished":
			r.Finished, err = parseTime(m.raw)
		}
		if err != nil {
			return r, fmt.Errorf("key %q: %w", m.key, err)
		}
	}
	if !slices.Contains([]Status{Done, Refused, Failed, Unknown}, r.Status) {
		return r, errors.New("the status is missing or unknown")
	}
	return r, nil
}
