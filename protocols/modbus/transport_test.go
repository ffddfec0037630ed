package modbus

import (
	"context"
	"fmt"
	"net"
	"testing"

	sim "holdfast/hil/plant/modbus"
	"holdfast/protocols/point"
)

// overEach runs a test on all three transports.
func overEach(t *testing.T, p *sim.Plant, f func(t *testing.T, set map[string]any)) {
	t.Run("tcp", func(t *testing.T) {
		f(t, map[string]any{"address": serveTCP(t, p)})
	})
	t.Run("rtu", func(t *testing.T) {
		f(t, map[string]any{"transport": "rtu", "port": serveLine(t, p, sim.Line{}), "baud": int64(115200)})
	})
	t.Run("rtu-over-tcp", func(t *testing.T) {
		addr := listen(t, func(ctx context.Context, ln net.Listener) error {
			return p.ServeRTUOverTCP(ctx, ln, sim.Line{})
		})
		f(t, map[string]any{"transport": "rtu-over-tcp", "address": addr})
	})
}

func TestReadAllTables(t *testing.T) {
	p := sim.New(1)
	p.Add(1, ramp(1000))
	overEach(t, p, func(t *testing.T, set map[string]any) {
		s := open(t, newAdapter(t), set)
		var tags []point.Tag
		for i := range 300 {
			table := []string{"coil", "discrete", "input", "holding"}[i%4]
			tags = append(tags, point.Tag{Name: fmt.Sprint(i), Address: fmt.Sprintf("%s:%d", table, 999-3*i)})
		}
		for i, smp := range read(t, s, tags) {
			at := 999 - 3*i
			want := []point.Value{
				point.BoolValue(at%3&1 == 1), point.BoolValue(at%5&1 == 1),
				point.IntValue(int64(at)), point.IntValue(int64(at)),
			}[i%4]
			if smp.Quality != point.Good || !smp.Value.Equal(want) {
				t.Fatalf("%s: %v %v %s, want %v", tags[i].Address, smp.Value, smp.Quality, smp.Detail, want)
			}
		}
	})
}

func TestWriteAndReadBack(t *testing.T) {
	p := sim.New(1)
	dev := p.Add(1, ramp(1000))
	_ = dev
	overEach(t, p, func(t *testing.T, set map[string]any) {
		for _, mode := range writeModeNames {
			for _, mask := range []bool{false, true} {
				set := withSettings(set, "write_function", mode, "mask_write", mask)
				s := open(t, newAdapter(t), set)
				tags := []point.Tag{
					tag("a", "coil:9", ""), tag("b", "holding:20", "int16"), tag("c", "holding:22", "float32"),
					tag("d", "holding:30.3", ""), tag("e", "holding:31", "uint8h"), tag("f", "holding:40", "string(7)"),
					tag("g", "holding:50", "uint64"), tag("h", "40100", "bcd32"), tag("i", "holding:60", "bytes(3)"),
				}
				values := []point.Value{
					point.BoolValue(true), point.IntValue(-5), point.Float32Value(1.5),
					point.BoolValue(true), point.IntValue(200), point.StringValue("pump é"),
					point.UintValue(1 << 63), point.IntValue(12345678), point.BytesValue([]byte{1, 2, 3}),
				}
				for i, tg := range tags {
					if err := write(t, s, tg, values[i]); err != nil {
						t.Fatalf("%s, mask %v: write %s: %v", mode, mask, tg.Address, err)
					}
				}
				for i, smp := range read(t, s, tags) {
					if smp.Quality != point.Good || !smp.Value.Equal(values[i]) {
						t.Errorf("%s, mask %v: %s: %v %v %s, want %v", mode, mask, tags[i].Address, smp.Value, smp.Quality, smp.Detail, values[i])
					}
				}
				if low := dev.Get(sim.Holding, 31, 1)[0] & 0xff; low != 31 {
					t.Errorf("%s, mask %v: writing the high byte changed the low one to %d", mode, mask, low)
				}
				s.Close()
			}
		}
	})
}

func withSettings(set map[string]any, pairs ...any) map[string]any {
	out := map[string]any{}
	for k, v := range set {
		out[k] = v
	}
	for i := 0; i < len(pairs); i += 2 {
		out[pairs[i].(string)] = pairs[i+1]
	}
	return out
}
