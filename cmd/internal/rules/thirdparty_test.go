package rules

// thirdParty lists every module from elsewhere that the product may import: in
// which folders, and why it is worth having. A module that is not here, or is
// imported from another folder, fails the test; so does a row that nothing
// uses any more. Folders end with "/..." to include what is below them. Rows
// marked test may be imported by tests only.
var thirdParty = []struct {
	module  string
	folders []string
	test    bool
	reason  string
}{
	{"periph.io/x/conn/v3", []string{"drivers/..."}, false,
		"bus and unit contracts that every chip driver of the periph family meets"},
	{"periph.io/x/host/v3", []string{"drivers/..."}, false,
		"Linux I2C, SPI and GPIO implementations, kept alive upstream"},
	{"periph.io/x/devices/v3", []string{"drivers/sensor/..."}, true,
		"independent drivers of the same chips: the oracle for ours"},
	{"github.com/warthog618/go-gpiocdev", []string{"drivers/gpio/..."}, false,
		"GPIO edges with kernel time stamps and debounce, which periph drops"},
	{"github.com/goburrow/modbus", []string{"protocols/modbus"}, false,
		"Modbus PDU encoding and checks; transport is our own"},
	{"github.com/gopcua/opcua", []string{"protocols/opcua/..."}, false,
		"OPC UA request encoding, identifiers and security policies; channel, decoder and session are our own"},
	{"github.com/mochi-mqtt/server/v2", []string{"hub/broker", "hub/client/..."}, false,
		"MQTT codec for the rare packets; the hot path is our own"},
	{"github.com/coder/websocket", []string{"hub/broker", "hub/client"}, false,
		"MQTT over WebSocket"},
	{"github.com/klauspost/compress", []string{"hub/upstream/..."}, false,
		"zstd for batches on metered links; the standard library has none"},
	{"google.golang.org/protobuf", []string{"hub/upstream/sparkplug/payload", "protocols/payload"}, false,
		"protowire: tags and varints of the Sparkplug payload and of readings; the schemas are compiled by hand"},
	{"github.com/pelletier/go-toml/v2", []string{"cmd/...", "protocols/tagfile", "protocols/library"}, false,
		"TOML with strict decoding and line numbers"},
	{"go.yaml.in/yaml/v3", []string{"cmd/holdfast/internal/importer"}, false,
		"EdgeX profiles and devices are YAML; nodes with line numbers"},
	{"github.com/spf13/cobra", []string{"cmd/..."}, false,
		"verbs, flags and shell completion"},
	{"github.com/prometheus/client_golang", []string{"cmd/..."}, false,
		"the metrics text format and its registry"},
	{"golang.org/x/sys", []string{"drivers/...", "hub/broker", "hub/client", "hil/...", "cmd/..."}, false,
		"ioctls, fdatasync and socket options that package syscall lacks"},
	{"golang.org/x/term", []string{"cmd/..."}, false,
		"terminal width and raw mode for live tables"},
}
