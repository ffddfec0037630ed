package sensor

import (
	"context"
	"time"

	"holdfast/drivers/clock"
)

// Wait waits for d of c's time, or until ctx ends, whose error it returns. A nil
// clock is the machine's own.
func Wait(ctx context.Context, c clock.Clock, d time.Duration) error {
	if c != nil {
		return clock.Sleep(ctx, c, d)
	}
	if d <= 0 {
		return ctx.Err()
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
