package broker

// Reason codes that a [Backend] gives or is told (MQTT 5, 2.4). Clients that
// speak MQTT 3.1.1 are told what that version can say; see [Refusal].
const (
	Success               byte = 0x00
	DisconnectWithWill    byte = 0x04
	NoMatchingSubscribers byte = 0x10
	NoSubscriptionExisted byte = 0x11

	UnspecifiedError        byte = 0x80
	MalformedPacket         byte = 0x81
	ProtocolError           byte = 0x82
	ImplementationError     byte = 0x83
	UnsupportedVersion      byte = 0x84
	ClientIDNotValid        byte = 0x85
	BadUserNameOrPassword   byte = 0x86
	NotAuthorized           byte = 0x87
	ServerUnavailable       byte = 0x88
	ServerBusy              byte = 0x89
	Banned                  byte = 0x8A
	ServerShuttingDown      byte = 0x8B
	BadAuthenticationMethod byte = 0x8C
	KeepAliveTimeout        byte = 0x8D
	TakenOver               byte = 0x8E
	TopicFilterInvalid      byte = 0x8F
	TopicNameInvalid        byte = 0x90
	PacketIDInUse           byte = 0x91
	PacketIDNotFound        byte = 0x92
	ReceiveMaximumExceeded  byte = 0x93
	TopicAliasInvalid       byte = 0x94
	PacketTooLarge          byte = 0x95
	MessageRateTooHigh      byte = 0x96
	QuotaExceeded           byte = 0x97
	AdministrativeAction    byte = 0x98
	PayloadFormatInvalid    byte = 0x99
	ConnectionRateExceeded  byte = 0x9F

	// SubscribeFailure is what a SUBACK of MQTT 3.1.1 says for every refusal
	// (3.9.3); MQTT 5 clients are told the code itself.
	SubscribeFailure byte = 0x80
)

// returnCode translates a reason code into the return code of an MQTT 3.1.1
// CONNACK (MQTT 3.1.1, table 3.1).
func returnCode(code byte) byte {
	switch code {
	case Success:
		return 0
	case UnsupportedVersion:
		return 1
	case ClientIDNotValid:
		return 2
	case BadUserNameOrPassword:
		return 4
	case NotAuthorized, Banned, BadAuthenticationMethod:
		return 5
	}
	return 3 // server unavailable: the one that says "perhaps later"
}

// A fault is a client's breach of the protocol or of a limit, as the reason of
// the end of its connection.
type fault struct {
	code byte
	text string
}

func (f *fault) Error() string { return f.text }

func malformed(text string) *fault { return &fault{MalformedPacket, text} }
func violation(text string) *fault { return &fault{ProtocolError, text} }
