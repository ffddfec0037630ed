package sparkplug

// Qualities of Sparkplug (specification 3.0.0, 6.4.10).
const (
	qualityBad   = 0
	qualityGood  = 192
	qualityStale = 500
)

// Status codes of OPC UA (Part 6, A.2) that are looked at here.
const (
	statusBadCommunicationError    = 0x80050000
	statusBadTimeout               = 0x800A0000
	statusBadShutdown              = 0x800C0000
	statusBadServerNotConnected    = 0x800D0000
	statusBadNoCommunication       = 0x80310000
	statusBadWaitingForInitialData = 0x80320000
	statusBadNotConnected          = 0x808A0000
	statusBadDeviceFailure         = 0x808B0000
	statusBadConnectionClosed      = 0x80AE0000
	statusWithoutDetail            = 0xFFFF0000
)

// quality maps a status code to one of Sparkplug's three: good as it is, bad as
// it is, and uncertain as stale, because a host must not show it as current and
// good. The code itself travels beside it; see propertyStatus.
func quality(status uint32) int32 {
	switch status >> 30 {
	case 0:
		return qualityGood
	case 1:
		return qualityStale
	}
	return qualityBad
}

// lost reports whether a status says that the device cannot be reached.
func lost(status uint32) bool {
	switch status & statusWithoutDetail {
	case statusBadCommunicationError, statusBadTimeout, statusBadShutdown, statusBadServerNotConnected,
		statusBadNoCommunication, statusBadNotConnected, statusBadDeviceFailure, statusBadConnectionClosed:
		return true
	}
	return false
}
