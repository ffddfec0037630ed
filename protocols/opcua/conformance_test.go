package opcua

import (
	"testing"

	"holdfast/hil/fault"
	"holdfast/protocols"
	"holdfast/protocols/point"
	"holdfast/protocols/protocoltest"
)

// TestConformance runs the suite that every adapter passes, against node-opcua
// behind a link that can break.
func TestConformance(t *testing.T) {
	p := startPeer(t, nil)
	protocoltest.Run(t, func(t *testing.T) protocoltest.Harness {
		l := p.link(t)
		set := settingsFor(l.Addr(), "reconnect_max", "250ms", "keep_alive", "500ms")
		device := func(set map[string]any, tags ...point.Tag) protocols.Device {
			return protocols.Device{Name: "plc", Protocol: "opcua", Settings: set, Tags: tags}
		}
		writable := func(name string) point.Tag {
			tag := node(name)
			tag.Access = point.ReadWrite
			return tag
		}
		word, real, text := writable("Int16"), writable("Double"), writable("String")
		path := point.Tag{Name: "path", Address: "nsu=urn:holdfast:test;path=Plant/UInt32"}
		return protocoltest.Harness{
			Adapter: newAdapter(t),
			Device:  device(set, word, real, text, path, node("ReadOnly"), node("Doubles")),
			Refused: map[string]protocols.Device{
				"timeout":         device(settingsFor("h:1", "tiemout", "1s")),
				"opc.tcp":         device(map[string]any{"endpoint": "http://x"}),
				"security_policy": device(settingsFor("h:1", "security_policy", "Basic256")),
				"bad":             device(set, point.Tag{Name: "bad", Address: "s:Tag"}),
				"deadband":        device(set, point.Tag{Name: "a", Address: "i=1", Params: point.Params{"deadband": "1"}}),
			},
			Writes: []protocols.Write{
				{Tag: word, Value: point.IntValue(-5)}, {Tag: real, Value: point.FloatValue(1.5)},
				{Tag: text, Value: point.StringValue("pump")}, {Tag: word, Value: point.IntValue(77)},
			},
			BadWrites: []protocols.Write{
				{Tag: word, Value: point.IntValue(40000)}, {Tag: node("ReadOnly"), Value: point.IntValue(1)},
				{Tag: real, Value: point.StringValue("x")},
			},
			Gone:   func() { l.Set(fault.Refuse); l.Reset() },
			Silent: func() { l.Set(fault.BlackHole) },
			Back:   func() { l.Set(fault.Pass) },
		}
	})
}
