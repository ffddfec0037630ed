package modbus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/goburrow/modbus"

	"holdfast/protocols/point"
)

// A failure is why a request has no answer.
type failure struct {
	quality point.Quality
	sent    bool          // the unit may have got the request
	blame   time.Duration // how long the link was kept waiting by the unit
	closed  bool          // the peer ended the connection instead of answering
	err     error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func failed(q point.Quality, format string, args ...any) *failure {
	return &failure{quality: q, err: fmt.Errorf(format, args...)}
}

// ended is the failure of a request whose context ended before it was sent.
func ended(err error, where string) *failure {
	if errors.Is(err, context.DeadlineExceeded) {
		return failed(point.BadTimeout, "no time left: %s: %w", where, err)
	}
	return failed(point.BadShutdown, "%s: %w", where, err)
}

// exceptionNames are those of AP 7.
var exceptionNames = map[byte]string{
	1: "illegal function", 2: "illegal data address", 3: "illegal data value", 4: "server device failure",
	5: "acknowledge", 6: "server device busy", 8: "memory parity error",
	10: "gateway path unavailable", 11: "gateway target device failed to respond",
}

func exceptionText(code byte) string {
	name, ok := exceptionNames[code]
	if !ok {
		name = "not in the specification"
	}
	return fmt.Sprintf("exception %d (%s)", code, name)
}

// exceptionQuality maps the code of an exception answer.
func exceptionQuality(code byte, write bool) point.Quality {
	switch code {
	case 1:
		return point.BadNotSupported
	case 2:
		return point.BadConfigurationError
	case 3:
		if write {
			return point.BadOutOfRange
		}
		return point.BadConfigurationError
	case 4, 8:
		return point.BadDeviceFailure
	case 5, 6:
		return point.BadResourceUnavailable
	case 10, 11:
		return point.BadNoCommunication
	}
	return point.BadUnexpectedError
}

// explain returns the quality and the text for people of a request's error.
func explain(err error, write bool) (point.Quality, string) {
	var x *modbus.ModbusError
	if errors.As(err, &x) {
		return exceptionQuality(x.ExceptionCode, write), exceptionText(x.ExceptionCode)
	}
	var f *failure
	if errors.As(err, &f) {
		return f.quality, f.Error()
	}
	return point.BadInternalError, err.Error()
}

// exceptionOf returns the exception code of an error, 0 when it is not one.
func exceptionOf(err error) byte {
	if x, ok := err.(*modbus.ModbusError); ok {
		return x.ExceptionCode
	}
	return 0
}
