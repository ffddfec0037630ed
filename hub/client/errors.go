package client

import (
	"errors"
	"fmt"
)

// Errors that callers branch on.
var (
	// ErrWindow: the window or the buffer is full; try again after a
	// confirmation.
	ErrWindow = errors.New("window is full")
	// ErrClosed: Close was called.
	ErrClosed = errors.New("connection closed")
	// ErrSilent: the far side sent nothing within the bound.
	ErrSilent = errors.New("far side is silent")
	// ErrUnconfirmed: something waited for confirmation and nothing was
	// confirmed within the bound.
	ErrUnconfirmed = errors.New("far side confirms nothing")
	// ErrInvalid: the message can never be sent to this server: a bad topic, a
	// QoS, a retain flag or a size that it does not take.
	ErrInvalid = errors.New("message cannot be sent")
	// ErrMalformed: the far side sent bytes that are not MQTT.
	ErrMalformed = errors.New("malformed packet")
)

// A ReasonError is an answer of the far side that says no.
type ReasonError struct {
	Op     string // connect, publish, disconnect
	Code   byte   // MQTT 5 reason code (2.4); for a 3.1.1 CONNACK its return code (3.2.2.3)
	Reason string // the far side's own words, or the name of the code
}

// Error returns the operation, the words and the code.
func (e *ReasonError) Error() string {
	return fmt.Sprintf("%s refused: %s (code 0x%02x)", e.Op, e.Reason, e.Code)
}

// connackNames are the return codes of MQTT 3.1.1, table 3.1.
var connackNames = [...]string{
	1: "unacceptable protocol version",
	2: "client id rejected",
	3: "server unavailable",
	4: "bad user name or password",
	5: "not authorized",
}

// reasonNames are the reason codes of MQTT 5, 2.4, that say no.
var reasonNames = map[byte]string{
	0x80: "unspecified error",
	0x81: "malformed packet",
	0x82: "protocol error",
	0x83: "implementation specific error",
	0x84: "unsupported protocol version",
	0x85: "client id not valid",
	0x86: "bad user name or password",
	0x87: "not authorized",
	0x88: "server unavailable",
	0x89: "server busy",
	0x8a: "banned",
	0x8b: "server shutting down",
	0x8c: "bad authentication method",
	0x8d: "keep alive timeout",
	0x8e: "session taken over",
	0x8f: "topic filter invalid",
	0x90: "topic name invalid",
	0x91: "packet identifier in use",
	0x92: "packet identifier not found",
	0x93: "receive maximum exceeded",
	0x94: "topic alias invalid",
	0x95: "packet too large",
	0x96: "message rate too high",
	0x97: "quota exceeded",
	0x98: "administrative action",
	0x99: "payload format invalid",
	0x9a: "retain not supported",
	0x9b: "qos not supported",
	0x9c: "use another server",
	0x9d: "server moved",
	0x9e: "shared subscriptions not supported",
	0x9f: "connection rate exceeded",
	0xa0: "maximum connect time",
	0xa1: "subscription identifiers not supported",
	0xa2: "wildcard subscriptions not supported",
}

func reasonError(op string, version, code byte, words string) *ReasonError {
	if words == "" {
		words = reasonNames[code]
	}
	if words == "" && version == Version311 && int(code) < len(connackNames) {
		words = connackNames[code]
	}
	if words == "" {
		words = "unknown reason"
	}
	return &ReasonError{Op: op, Code: code, Reason: words}
}
