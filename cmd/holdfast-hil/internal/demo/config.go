package demo

import (
	_ "embed"
	"path/filepath"
	"strings"

	"holdfast/hil/plant"
)

// The configurations of the two processes. $WORDS are replaced.
var (
	//go:embed upstream.toml
	upstreamText string
	//go:embed device.toml
	deviceText string
)

func upstreamConfig(dir string) string {
	return strings.NewReplacer("$DATA", filepath.Join(dir, "up-data"), "$RUN", filepath.Join(dir, "up")).Replace(upstreamText)
}

func deviceConfig(dir string, f *plant.Factory, upstream string) string {
	return strings.NewReplacer(
		"$DATA", filepath.Join(dir, "data"), "$RUN", filepath.Join(dir, "run"), "$UPSTREAM", upstream,
		"$PLC", f.TCP, "$SERIAL", f.Serial, "$I2C", f.I2C,
	).Replace(deviceText)
}
