package point

// Quality is an OPC UA StatusCode: the top two bits say Good, Uncertain or Bad,
// the next fourteen why (OPC UA Part 4, 7.39; numbers from Part 6, A.2). The
// low word is kept when a server sends one.
type Quality uint32

// Level is the coarse quality.
type Level uint8

// The levels.
const (
	LevelGood Level = iota
	LevelUncertain
	LevelBad
)

// Level returns the coarse quality of q.
func (q Quality) Level() Level {
	switch q >> 30 {
	case 0:
		return LevelGood
	case 1:
		return LevelUncertain
	}
	return LevelBad
}

// Good reports whether the value may be used without further thought.
func (q Quality) Good() bool { return q>>30 == 0 }

// Bad reports whether the value must not be used.
func (q Quality) Bad() bool { return q>>31 == 1 }

// The qualities that the gateway itself gives. Names are OPC UA's.
const (
	Good                               Quality = 0x00000000
	GoodClamped                        Quality = 0x00300000
	GoodLocalOverride                  Quality = 0x00960000
	Uncertain                          Quality = 0x40000000
	UncertainNoCommunicationLastUsable Quality = 0x408F0000
	UncertainLastUsableValue           Quality = 0x40900000
	UncertainInitialValue              Quality = 0x40920000
	UncertainSensorNotAccurate         Quality = 0x40930000
	UncertainEngineeringUnitsExceeded  Quality = 0x40940000
	UncertainSubNormal                 Quality = 0x40950000
	Bad                                Quality = 0x80000000
	BadUnexpectedError                 Quality = 0x80010000
	BadInternalError                   Quality = 0x80020000
	BadResourceUnavailable             Quality = 0x80040000
	BadCommunicationError              Quality = 0x80050000
	BadDecodingError                   Quality = 0x80070000
	BadTimeout                         Quality = 0x800A0000
	BadServiceUnsupported              Quality = 0x800B0000
	BadShutdown                        Quality = 0x800C0000
	BadUserAccessDenied                Quality = 0x801F0000
	BadNoCommunication                 Quality = 0x80310000
	BadWaitingForInitialData           Quality = 0x80320000
	BadNodeIdUnknown                   Quality = 0x80340000
	BadNotReadable                     Quality = 0x803A0000
	BadNotWritable                     Quality = 0x803B0000
	BadOutOfRange                      Quality = 0x803C0000
	BadNotSupported                    Quality = 0x803D0000
	BadTypeMismatch                    Quality = 0x80740000
	BadConfigurationError              Quality = 0x80890000
	BadNotConnected                    Quality = 0x808A0000
	BadDeviceFailure                   Quality = 0x808B0000
	BadSensorFailure                   Quality = 0x808C0000
	BadOutOfService                    Quality = 0x808D0000
	BadNoData                          Quality = 0x809B0000
	BadInvalidArgument                 Quality = 0x80AB0000
	BadConnectionClosed                Quality = 0x80AE0000
)
