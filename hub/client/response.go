package client

import "encoding/binary"

// Property identifiers of request and response (MQTT 5, 4.10).
const (
	propResponseTopic = 0x08
	propCorrelation   = 0x09
)

// ResponseTopic returns where the sender of a request waits for its answer, ""
// when it does not say, and the data by which it knows the answer. The data are
// valid as long as the message.
func (m *Message) ResponseTopic() (topic string, correlation []byte) {
	// As in UserProperty: what precedes an error counts.
	_ = eachProp(m.Props, func(id byte, v []byte) bool {
		switch id {
		case propResponseTopic:
			topic = string(v[2:])
		case propCorrelation:
			correlation = v[2:]
		}
		return true
	})
	return topic, correlation
}

// AppendResponseTopic appends to props where an answer is wanted.
func AppendResponseTopic(props []byte, topic string) []byte {
	return appendString(append(props, propResponseTopic), topic)
}

// AppendCorrelation appends correlation data to props, cut at 65535 bytes.
func AppendCorrelation(props, data []byte) []byte {
	data = data[:min(len(data), 65535)]
	props = binary.BigEndian.AppendUint16(append(props, propCorrelation), uint16(len(data)))
	return append(props, data...)
}
