package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	sim "holdfast/hil/plant/modbus"
)

// startMeter serves a unit with a few floating-point numbers, a word and a text.
func startMeter(t *testing.T) string {
	t.Helper()
	p := sim.New(1)
	d := p.Add(3, sim.NewDevice(100))
	for i, v := range []float32{230.5, 229.75, 231.25} {
		bits := math.Float32bits(v)
		d.Set(sim.Holding, 2*i, uint16(bits), uint16(bits>>16)) // registers swapped
	}
	d.Set(sim.Holding, 6, 42)
	d.Deny(sim.Holding, 7, 100)
	d.Set(sim.Coil, 2, 1)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.ServeTCP(ctx, ln) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return "tcp://" + ln.Addr().String()
}

func runMain(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if got := Main(ctx, args, system("", &out, &errs, nil)); got != want {
		t.Fatalf("holdfast %s exits with %d, not %d:\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// TestBrowseModbus finds the unit, its registers and what they mean, and takes the
// tag table that it wrote as a configuration.
func TestBrowseModbus(t *testing.T) {
	target := startMeter(t)
	out, _ := runMain(t, 0, "browse", "modbus", target, "--units", "1-10")
	if lines := strings.Split(out, "\n"); len(lines) != 3 || !strings.HasPrefix(strings.TrimSpace(lines[1]), "3 ") {
		t.Errorf("units:\n%s", out)
	}
	table := filepath.Join(t.TempDir(), "meter.csv")
	out, told := runMain(t, 0, "browse", "modbus", target, "--unit", "3", "--registers", "holding:0-19", "--tags", table)
	for _, want := range []string{"float32 CDAB = 230.5 (100)", "float32 CDAB = 229.75", "uint16 = 42", "7 of 20 registers are there"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if !strings.Contains(told, "4 tags written to") {
		t.Errorf("told %q", told)
	}
	config := filepath.Join(filepath.Dir(table), "c.toml")
	text := "[[field.device]]\nname = \"m\"\nprotocol = \"modbus\"\naddress = \"" + strings.TrimPrefix(target, "tcp://") + "\"\nunit = 3\ntags = \"meter.csv\"\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := runMain(t, 0, "-c", config, "config", "check"); !strings.Contains(out, "1 field device with 4 tags") {
		t.Errorf("check: %s", out)
	}
	if _, told := runMain(t, 3, "browse", "modbus", target, "--unit", "3", "--registers", "holding:0-3", "--tags", table); !strings.Contains(told, "there is a file") {
		t.Errorf("a file was overwritten: %s", told)
	}
	out, _ = runMain(t, 0, "browse", "modbus", target, "--unit", "3", "--registers", "coil:0-9")
	if !strings.Contains(out, "coil:0   0010 0000 00\n") {
		t.Errorf("coils:\n%s", out)
	}
	out, _ = runMain(t, 0, "browse", "modbus", target, "--unit", "3", "--registers", "holding:0-3", "--json")
	var got struct {
		Registers []struct {
			Item   int
			Double []struct{ Type, Order, Value string }
			Likely *struct{ Type string }
		}
	}
	if err := json.Unmarshal([]byte(out), &got); err != nil || len(got.Registers) != 4 || len(got.Registers[0].Double) != 12 || got.Registers[0].Likely.Type != "float32" {
		t.Errorf("json: %v\n%s", err, out)
	}
	out, _ = runMain(t, 0, "browse", "modbus", target, "--unit", "3", "--registers", "holding:0-3", "--all")
	if !strings.Contains(out, "uint32") || !strings.Contains(out, "230.5 (100)") {
		t.Errorf("all:\n%s", out)
	}
	if _, told := runMain(t, 4, "browse", "modbus", target, "--unit", "9", "--registers", "holding:0-3"); !strings.Contains(told, "exception 11") {
		t.Errorf("nobody there: %s", told)
	}
	if _, told := runMain(t, 1, "browse", "modbus", target, "--unit", "3", "--registers", "holding:50-53"); !strings.Contains(told, "nothing is there") {
		t.Errorf("nothing there: %s", told)
	}
}
