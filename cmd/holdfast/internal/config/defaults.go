package config

import (
	"time"

	"holdfast/cmd/holdfast/internal/strict"
)

// Default returns what is in force where the file says nothing.
func Default() Config {
	return Config{
		Name: "holdfast",
		Data: "/var/lib/holdfast",
		Run:  "/run/holdfast",
		Log:  Log{Level: "info", Format: "text"},
		Hub: Hub{
			Limits: Limits{
				Clients:           1000,
				Sessions:          10_000,
				MessageSize:       1 << 20,
				Inflight:          1000,
				ConnectsPerSecond: 500,
				SessionExpiry:     strict.Duration(7 * 24 * time.Hour),
				ConnectTimeout:    strict.Duration(10 * time.Second),
			},
			Journal:      Journal{Segment: 64 << 20, Budget: 2 << 30},
			RouteDialect: "fixed",
		},
		Field: Field{
			Classes: map[string]Class{"normal": {Period: strict.Duration(time.Second)}},
			Class:   "normal",
			Outbox:  100_000,
			Commands: Commands{
				Enabled:     true,
				MaxAge:      strict.Duration(30 * time.Second),
				MaxLifetime: strict.Duration(10 * time.Minute),
				Timeout:     strict.Duration(10 * time.Second),
			},
		},
	}
}
