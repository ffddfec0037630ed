package backoff

import (
	"testing"
	"time"
)

func TestGrowsWithinItsSpan(t *testing.T) {
	for _, c := range []struct {
		name string
		b    Backoff
		want []time.Duration
	}{
		{"defaults, lowest", Backoff{Rand: func() float64 { return 0 }}, seconds(0.5, 1, 2, 4, 8, 16, 30, 30)},
		{"defaults, highest", Backoff{Rand: func() float64 { return 1 }}, seconds(1, 2, 4, 8, 16, 32, 60, 60)},
		{"own limits", Backoff{Min: 10 * time.Second, Max: 25 * time.Second, Rand: func() float64 { return 1 }}, seconds(10, 20, 25, 25)},
		{"max below min", Backoff{Min: 10 * time.Second, Max: 5 * time.Second, Rand: func() float64 { return 1 }}, seconds(5, 5)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i, want := range c.want {
				if got := c.b.Next(); got != want {
					t.Errorf("pause %d is %v, want %v", i+1, got, want)
				}
			}
			c.b.Reset()
			if got := c.b.Next(); got != c.want[0] {
				t.Errorf("after Reset the pause is %v, want %v", got, c.want[0])
			}
		})
	}
}

func TestIsSpread(t *testing.T) {
	seen := map[time.Duration]bool{}
	for range 100 {
		var b Backoff
		d := b.Next()
		if d < time.Second/2 || d > time.Second {
			t.Fatalf("first pause %v is outside 0.5 s to 1 s", d)
		}
		seen[d] = true
	}
	if len(seen) < 50 {
		t.Errorf("100 pauses took only %d different values", len(seen))
	}
}

func seconds(s ...float64) (d []time.Duration) {
	for _, v := range s {
		d = append(d, time.Duration(v*float64(time.Second)))
	}
	return d
}
