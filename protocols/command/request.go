// Package command is write-back: somebody far away asks for a tag to be set,
// and is told what happened.
//
// A command is used at most once, within its expiry, and only when everything
// about it can be judged: the clock, the tag, the type, the range. What is
// refused has certainly not been written. FORMAT.md beside this file describes
// commands and answers. How they travel is not this package's business.
package command

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"holdfast/protocols/point"
)

// Limits of a command as it travels.
const (
	MaxRequest = 64 << 10 // bytes
	MaxID      = 128      // bytes
)

// A Request asks for one tag to be set.
type Request struct {
	ID       string // chosen by the sender, never used again; 1 to MaxID bytes
	Device   string
	Tag      string
	Value    point.Value // engineering value
	Expires  time.Time   // not to be carried out from then on
	Issued   time.Time   // when the sender made it; zero = not told
	Min, Max *float64    // narrow the tag's own limits; nil = not
	Verify   bool        // read back and compare
	// Tolerance is how far the value read back may be off, in engineering units;
	// nil = half a step of the tag's scale, and a millionth of the value.
	Tolerance *float64
}

var requestKeys = []string{"id", "device", "tag", "value", "expires", "issued", "min", "max", "verify"}

// ParseRequest reads one command. It is strict, because what it reads moves
// things: an unknown key, a key twice, a missing one and a number out of range are
// errors. With an error it returns what it could read, so that an answer can
// carry the id.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	if len(data) > MaxRequest {
		return r, fmt.Errorf("command of %d bytes is longer than %d", len(data), MaxRequest)
	}
	members, err := object(data)
	var errs []error
	if err != nil {
		errs = append(errs, err)
	}
	for _, m := range members {
		if err := r.set(m.key, m.raw); err != nil {
			errs = append(errs, fmt.Errorf("key %q: %w", m.key, err))
		}
	}
	for _, needed := range []string{"id", "device", "tag", "value", "expires"} {
		if err == nil && !has(members, needed) {
			errs = append(errs, fmt.Errorf("key %q is missing", needed))
		}
	}
	return r, errors.Join(errs...)
}

type member struct {
	key string
	raw json.RawMessage
}

func has(members []member, key string) bool {
	for _, m := range members {
		if m.key == key {
			return true
		}
	}
	return false
}

// object reads the members of one JSON object, each key once.
func object(data []byte) (members []member, err error) {
	dec := json.NewDecoder(bytes.NewReader(data))
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("want a JSON object")
	}
	for dec.More() {
		t, err := dec.Token()
		if err != nil {
			return members, fmt.Errorf("malformed JSON: %w", err)
		}
		key, ok := t.(string)
		if !ok || has(members, key) {
			return members, fmt.Errorf("key %q twice", key)
		}
		m := member{key: key}
		if err := dec.Decode(&m.raw); err != nil {
			return members, fmt.Errorf("malformed JSON: %w", err)
		}
		members = append(members, m)
	}
	if _, err := dec.Token(); err != nil {
		return members, fmt.Errorf("malformed JSON: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return members, errors.New("something follows the object")
	}
	return members, nil
}

func (r *Request) set(key string, raw json.RawMessage) (err error) {
	switch key {
	case "id":
		if r.ID, err = text(raw, MaxID); err == nil && r.ID == "" {
			err = errors.New("is empty")
		}
	case "device":
		r.Device, err = text(raw, point.MaxName)
	case "tag":
		r.Tag, err = text(raw, point.MaxName)
	case "value":
		r.Value, err = point.ParseValue(raw)
	case "expires":
		r.Expires, err = parseTime(raw)
	case "issued":
		r.Issued, err = parseTime(raw)
	case "min":
		r.Min, err = number(raw)
	case "max":
		r.Max, err = number(raw)
	case "verify":
		err = r.setVerify(raw)
	default:
		err = fmt.Errorf("is unknown; there are %q", requestKeys)
	}
	return err
}

// setVerify reads true, false or {"tolerance": 0.1}.
func (r *Request) setVerify(raw json.RawMessage) error {
	if v, err := point.ParseValue(raw); err == nil && v.Kind() == point.Bool {
		r.Verify = v.Bool()
		return nil
	}
	members, err := object(raw)
	if err != nil {
		return errors.New("want true, false or an object")
	}
	r.Verify = true
	for _, m := range members {
		if m.key != "tolerance" {
			return fmt.Errorf("unknown key %q; there is tolerance", m.key)
		}
		if r.Tolerance, err = number(m.raw); err == nil && *r.Tolerance < 0 {
			err = errors.New("the tolerance must not be negative")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func text(raw json.RawMessage, limit int) (string, error) {
	v, err := point.ParseValue(raw)
	if err != nil {
		return "", err
	}
	if v.Kind() != point.String {
		return "", errors.New("want a text")
	}
	if len(v.Raw()) > limit {
		return "", fmt.Errorf("is longer than %d bytes", limit)
	}
	return v.Text(), nil
}

func number(raw json.RawMessage) (*float64, error) {
	v, err := point.ParseValue(raw)
	if err != nil {
		return nil, err
	}
	f, ok := v.Float()
	if !ok || v.Kind() == point.Bool || math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, errors.New("want a finite number")
	}
	return &f, nil
}

// parseTime reads whole microseconds since 1970, or RFC 3339.
func parseTime(raw json.RawMessage) (time.Time, error) {
	wrong := errors.New("want microseconds since 1970, or a time such as \"2026-01-02T15:04:05Z\"")
	v, err := point.ParseValue(raw)
	switch {
	case err != nil:
		return time.Time{}, err
	case v.Kind() == point.Int && v.Int() >= 0 && v.Int() <= maxMicros:
		return time.UnixMicro(v.Int()).UTC(), nil
	case v.Kind() != point.String:
		return time.Time{}, wrong
	}
	t, err := time.Parse(time.RFC3339Nano, v.Text())
	if err != nil || t.Year() < 1970 || t.Year() > 9999 {
		return time.Time{}, wrong
	}
	return t.UTC().Truncate(time.Microsecond), nil
}

// maxMicros is the last microsecond of the year 9999.
const maxMicros = 253402300799999999

// AppendRequest appends the command as it travels.
func AppendRequest(dst []byte, r *Request) []byte {
	str := func(s string) { dst = point.AppendValue(dst, point.StringValue(s)) }
	num := func(key string, f *float64) {
		if f != nil {
			dst = append(dst, `,"`+key+`":`...)
			dst = point.AppendValue(dst, point.FloatValue(*f))
		}
	}
	dst = append(dst, `{"id":`...)
	str(r.ID)
	dst = append(dst, `,"device":`...)
	str(r.Device)
	dst = append(dst, `,"tag":`...)
	str(r.Tag)
	dst = append(dst, `,"value":`...)
	dst = point.AppendValue(dst, r.Value)
	dst = append(dst, `,"expires":`...)
	dst = strconv.AppendInt(dst, r.Expires.UnixMicro(), 10)
	if !r.Issued.IsZero() {
		dst = append(dst, `,"issued":`...)
		dst = strconv.AppendInt(dst, r.Issued.UnixMicro(), 10)
	}
	num("min", r.Min)
	num("max", r.Max)
	switch {
	case r.Verify && r.Tolerance != nil:
		dst = append(dst, `,"verify":{"tolerance":`...)
		dst = point.AppendValue(dst, point.FloatValue(*r.Tolerance))
		dst = append(dst, '}')
	case r.Verify:
		dst = append(dst, `,"verify":true`...)
	}
	return append(dst, '}')
}
