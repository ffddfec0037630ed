package bench

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

const telegrafVersion = "v1.39.0"

var telegrafOnce = sync.OnceValues(func() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "holdfast-bench", "telegraf-"+telegrafVersion+"-modbus-opcua")
	path := filepath.Join(dir, "telegraf")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	cmd := exec.Command("go", "install", "-tags", "custom,inputs.modbus,inputs.opcua_listener,outputs.mqtt,serializers.influx",
		"github.com/influxdata/telegraf/cmd/telegraf@"+telegrafVersion)
	cmd.Env = append(os.Environ(), "GOBIN="+dir, "CGO_ENABLED=0", "GOFLAGS=")
	cmd.Dir = os.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("telegraf %s cannot be built here: %w: %.200s", telegrafVersion, err, out)
	}
	return path, nil
})

// telegraf returns a telegraf program, built with Go on first use.
func telegraf(ctx context.Context, o *Options) (string, error) {
	return telegrafOnce()
}

// startTelegraf starts telegraf with the given inputs, configured for its best:
// it flushes as often as it gathers, and publishes at QoS 0.
func startTelegraf(ctx context.Context, o *Options, dir, inputs string, period time.Duration, upstream string) (*child, error) {
	program, err := telegraf(ctx, o)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "[agent]\ninterval = %q\nflush_interval = %q\nmetric_batch_size = 1000\nmetric_buffer_limit = 100000\nomit_hostname = true\nquiet = true\n", period, period)
	fmt.Fprintf(&b, "[[outputs.mqtt]]\nservers = [\"tcp://%s\"]\ntopic = \"telegraf/{{ .PluginName }}\"\nqos = 0\ndata_format = \"influx\"\n", upstream)
	b.WriteString(inputs)
	path := filepath.Join(dir, "telegraf.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		return nil, err
	}
	return start(nil, program, "--config", path)
}

// telegrafModbus configures one request list for each device of the plant.
func telegrafModbus(addrs string) string {
	var b strings.Builder
	for i, a := range strings.Split(addrs, ",") {
		fmt.Fprintf(&b, "[[inputs.modbus]]\nname = \"d%d\"\ntimeout = \"1s\"\ncontroller = \"tcp://%s\"\nconfiguration_type = \"request\"\n", i, a)
		b.WriteString("[[inputs.modbus.request]]\nslave_id = 1\nbyte_order = \"ABCD\"\nregister = \"holding\"\nmeasurement = \"m\"\nfields = [\n{address=0, name=\"clock\", type=\"UINT64\"},\n")
		for r := clockRegisters; r < clockRegisters+tagsPerDevice-1; r++ {
			fmt.Fprintf(&b, "{address=%d, name=\"r%04d\", type=\"INT16\"},\n", r, r)
		}
		b.WriteString("]\n")
	}
	return b.String()
}
