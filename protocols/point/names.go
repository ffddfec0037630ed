package point

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// Further qualities that the gateway gives.
const (
	BadEncodingLimitsExceeded Quality = 0x80080000 // a value too long to travel
	BadInvalidState           Quality = 0x80AF0000 // a command that the present state forbids
)

// qualityNames names the status codes that a gateway gives or meets in data,
// sorted by code: OPC UA Part 4, 7.39.2 (common codes) and Part 8, 6.4.3
// (data access). Codes that are about certificates, browsing, queries and
// sessions never arrive as the quality of a value and print as hex.
var qualityNames = [...]struct {
	code Quality
	name string
}{
	{Good, "Good"},
	{0x002F0000, "GoodOverload"},
	{GoodClamped, "GoodClamped"},
	{GoodLocalOverride, "GoodLocalOverride"},
	{0x00A50000, "GoodNoData"},
	{0x00A60000, "GoodMoreData"},
	{Uncertain, "Uncertain"},
	{UncertainNoCommunicationLastUsable, "UncertainNoCommunicationLastUsableValue"},
	{UncertainLastUsableValue, "UncertainLastUsableValue"},
	{0x40910000, "UncertainSubstituteValue"},
	{UncertainInitialValue, "UncertainInitialValue"},
	{UncertainSensorNotAccurate, "UncertainSensorNotAccurate"},
	{UncertainEngineeringUnitsExceeded, "UncertainEngineeringUnitsExceeded"},
	{UncertainSubNormal, "UncertainSubNormal"},
	{0x40A40000, "UncertainDataSubNormal"},
	{0x40F20000, "UncertainOverRange"},
	{0x40F30000, "UncertainUnderRange"},
	{Bad, "Bad"},
	{BadUnexpectedError, "BadUnexpectedError"},
	{BadInternalError, "BadInternalError"},
	{0x80030000, "BadOutOfMemory"},
	{BadResourceUnavailable, "BadResourceUnavailable"},
	{BadCommunicationError, "BadCommunicationError"},
	{0x80060000, "BadEncodingError"},
	{BadDecodingError, "BadDecodingError"},
	{BadEncodingLimitsExceeded, "BadEncodingLimitsExceeded"},
	{0x80090000, "BadUnknownResponse"},
	{BadTimeout, "BadTimeout"},
	{BadServiceUnsupported, "BadServiceUnsupported"},
	{BadShutdown, "BadShutdown"},
	{0x800D0000, "BadServerNotConnected"},
	{0x800E0000, "BadServerHalted"},
	{0x800F0000, "BadNothingToDo"},
	{0x80100000, "BadTooManyOperations"},
	{BadUserAccessDenied, "BadUserAccessDenied"},
	{BadNoCommunication, "BadNoCommunication"},
	{BadWaitingForInitialData, "BadWaitingForInitialData"},
	{0x80330000, "BadNodeIdInvalid"},
	{BadNodeIdUnknown, "BadNodeIdUnknown"},
	{0x80350000, "BadAttributeIdInvalid"},
	{0x80360000, "BadIndexRangeInvalid"},
	{0x80370000, "BadIndexRangeNoData"},
	{0x80380000, "BadDataEncodingInvalid"},
	{0x80390000, "BadDataEncodingUnsupported"},
	{BadNotReadable, "BadNotReadable"},
	{BadNotWritable, "BadNotWritable"},
	{BadOutOfRange, "BadOutOfRange"},
	{BadNotSupported, "BadNotSupported"},
	{0x803E0000, "BadNotFound"},
	{0x803F0000, "BadObjectDeleted"},
	{0x80400000, "BadNotImplemented"},
	{0x80730000, "BadWriteNotSupported"},
	{BadTypeMismatch, "BadTypeMismatch"},
	{BadConfigurationError, "BadConfigurationError"},
	{BadNotConnected, "BadNotConnected"},
	{BadDeviceFailure, "BadDeviceFailure"},
	{BadSensorFailure, "BadSensorFailure"},
	{BadOutOfService, "BadOutOfService"},
	{BadNoData, "BadNoData"},
	{0x809D0000, "BadDataLost"},
	{0x809E0000, "BadDataUnavailable"},
	{BadInvalidArgument, "BadInvalidArgument"},
	{BadConnectionClosed, "BadConnectionClosed"},
	{BadInvalidState, "BadInvalidState"},
	{0x80B80000, "BadRequestTooLarge"},
	{0x80B90000, "BadResponseTooLarge"},
	{0x80EE0000, "BadServerTooBusy"},
}

var qualityByName = sync.OnceValue(func() map[string]Quality {
	m := make(map[string]Quality, len(qualityNames))
	for _, e := range qualityNames {
		m[e.name] = e.code
	}
	return m
})

// String returns OPC UA's name of q, such as "BadTimeout", or the code as
// "0x80FE0000" when it has none here or when its low word is not zero. What
// String returns, [ParseQuality] accepts.
func (q Quality) String() string {
	if name := q.name(); name != "" {
		return name
	}
	return fmt.Sprintf("0x%08X", uint32(q))
}

// name returns the name of q, "" if it has none.
func (q Quality) name() string {
	i, found := slices.BinarySearchFunc(qualityNames[:], q, func(e struct {
		code Quality
		name string
	}, q Quality) int {
		switch {
		case e.code < q:
			return -1
		case e.code > q:
			return 1
		}
		return 0
	})
	if !found {
		return ""
	}
	return qualityNames[i].name
}

// ParseQuality reads what [Quality.String] prints: an OPC UA name, or 0x and one to
// eight hexadecimal digits.
func ParseQuality(s string) (Quality, error) {
	if q, ok := qualityByName()[s]; ok {
		return q, nil
	}
	if hex, ok := strings.CutPrefix(s, "0x"); ok && hex != "" && hex[0] != '+' && hex[0] != '-' {
		if n, err := strconv.ParseUint(hex, 16, 32); err == nil {
			return Quality(n), nil
		}
	}
	return Bad, fmt.Errorf("unknown quality %q", s)
}

// MarshalText returns the name, for JSON and flags.
func (q Quality) MarshalText() ([]byte, error) { return []byte(q.String()), nil }

// UnmarshalText reads a name or a code.
func (q *Quality) UnmarshalText(text []byte) error {
	v, err := ParseQuality(string(text))
	if err == nil {
		*q = v
	}
	return err
}

// String returns the access as it stands in tag tables: r, rw or w.
func (a Access) String() string {
	switch a {
	case ReadWrite:
		return "rw"
	case WriteOnly:
		return "w"
	}
	return "r"
}

// ParseAccess reads r, rw or w; "" is r.
func ParseAccess(s string) (Access, error) {
	switch s {
	case "", "r":
		return ReadOnly, nil
	case "rw":
		return ReadWrite, nil
	case "w":
		return WriteOnly, nil
	}
	return ReadOnly, fmt.Errorf("unknown access %q: want r, rw or w", s)
}

// String returns the name of the kind in lower case, such as "float".
func (k Kind) String() string {
	names := [...]string{"null", "bool", "int", "uint", "float32", "float", "string", "bytes"}
	if int(k) < len(names) {
		return names[k]
	}
	return "kind " + strconv.Itoa(int(k))
}

// String returns the value for people: text as it is, everything else as in the wire encoding.
func (v Value) String() string {
	switch v.kind {
	case Null:
		return "null"
	case String:
		return string(v.raw)
	}
	return string(AppendValue(nil, v))
}
