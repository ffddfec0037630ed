package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/cmd/holdfast-hil/internal/demo"
)

// TestDemoWithCuts runs the whole demo, cuts included, in less time than people
// get to watch it.
func TestDemoWithCuts(t *testing.T) {
	program := filepath.Join(t.TempDir(), "holdfast")
	if out, err := exec.Command("go", "build", "-o", program, "../holdfast").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var out bytes.Buffer
	none := func() int { return 0 }
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	err := demo.Run(ctx, demo.Options{Program: program, Duration: 6 * time.Second, Cut: true, JSON: true, Out: &out, Width: none, Height: none})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	var v struct {
		Acked    int `json:"acknowledged"`
		Arrived  int `json:"arrived"`
		Lost     int `json:"lost"`
		Holes    int `json:"missing_batches"`
		Batches  int `json:"batches"`
		Starts   int `json:"field_starts"`
		Unsorted int `json:"out_of_order"`
	}
	if err := json.Unmarshal(out.Bytes(), &v); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	if v.Acked < 100 || v.Arrived != v.Acked || v.Lost != 0 || v.Holes != 0 || v.Unsorted != 0 || v.Batches < 10 || v.Starts != 3 {
		t.Errorf("verdict: %s", out.String())
	}
	t.Logf("%s", out.String())
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"dmo"}, {"plant", "now"}, {"demo", "--ctu"}, {"demo", "--duration", "1ms"}, {"bench", "--only", "("}} {
		c := commands()
		c.SetArgs(args)
		c.SetOut(&bytes.Buffer{})
		if _, ok := c.ExecuteContext(context.Background()).(wrongUsage); !ok {
			t.Errorf("%q is not a usage error", args)
		}
	}
}
