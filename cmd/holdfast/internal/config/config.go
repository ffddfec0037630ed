// Package config is the one file that a person edits, /etc/holdfast/config.toml,
// and the tag tables that it names.
//
// Load reads the files and checks everything in them that can be checked
// without touching the world: it opens no socket, no device and no directory,
// and it is what every command runs before it does anything else, so what
// `holdfast config check` passes, `holdfast run` takes.
package config

import (
	"holdfast/cmd/holdfast/internal/strict"
	"holdfast/protocols/point"
)

// Config is the whole file. The example beside this package
// (config.example.toml of cmd/holdfast) documents every key.
type Config struct {
	Name    string  `toml:"name"`
	Data    string  `toml:"data"`
	Run     string  `toml:"run"`
	Log     Log     `toml:"log"`
	Metrics Metrics `toml:"metrics"`
	Hub     Hub     `toml:"hub"`
	Field   Field   `toml:"field"`

	File string `toml:"-"` // where it was read from
}

// Log says what the daemons write to standard error.
type Log struct {
	Level  string `toml:"level"`  // debug, info, warn, error
	Format string `toml:"format"` // text, json
}

// Metrics says where Prometheus may fetch, besides the control sockets.
type Metrics struct {
	HubListen   string `toml:"hub_listen"`   // "" = only on the control socket
	FieldListen string `toml:"field_listen"` // "" = only on the control socket
}

// Hub configures the daemon that stores and forwards.
type Hub struct {
	Listeners    []Listener       `toml:"listener"`
	Users        []User           `toml:"user"`
	Rules        []Rule           `toml:"rule"`
	FieldUser    string           `toml:"field_user"`  // operating system user of the field daemon; "" = the hub's own
	LocalUsers   []string         `toml:"local_users"` // operating system users who may use the hub's socket, with rules
	Limits       Limits           `toml:"limits"`
	Journal      Journal          `toml:"journal"`
	RouteDialect string           `toml:"route_dialect"` // fixed, compat
	TimeToLive   strict.Duration  `toml:"time_to_live"`  // of routed messages whose route has none; 0 = for ever
	Routes       map[string]Route `toml:"routes"`
	Upstreams    []Upstream       `toml:"upstream"`
}

// Listener is one door of the hub.
type Listener struct {
	Name        string `toml:"name"`
	Type        string `toml:"type"`    // tcp, tls, ws, wss, unix
	Address     string `toml:"address"` // host:port, or a path
	Path        string `toml:"path"`    // ws and wss: of the URL
	Certificate string `toml:"certificate"`
	Key         string `toml:"key"`
	ClientCA    string `toml:"client_ca"`
}

// User is one client of the hub that is known by a password. Clients known by
// a certificate are not listed: the listener's client_ca says who is.
type User struct {
	Name     string `toml:"name"`
	Password string `toml:"password"` // a hash made by `holdfast passwd`
}

// Rule lets users publish and subscribe. What no rule allows is refused.
type Rule struct {
	Users     []string `toml:"users"` // names of users, certificates or users of this machine; see Everybody, Anonymous
	Publish   []string `toml:"publish"`
	Subscribe []string `toml:"subscribe"`
}

// Limits protect the hub from its clients.
type Limits struct {
	Clients           int             `toml:"clients"`             // connections at one time
	Sessions          int             `toml:"sessions"`            // kept, connected or not
	MessageSize       strict.Size     `toml:"message_size"`        // of one publication
	Inflight          int             `toml:"inflight"`            // unacknowledged publications of one client
	MessagesPerSecond int             `toml:"messages_per_second"` // of one client; 0 = no limit
	ConnectsPerSecond int             `toml:"connects_per_second"` // of all clients; 0 = no limit
	SessionExpiry     strict.Duration `toml:"session_expiry"`      // the longest that a session may outlive its connection
	ConnectTimeout    strict.Duration `toml:"connect_timeout"`     // from the first byte to the CONNECT packet
}

// Journal configures the log on disk.
type Journal struct {
	Segment strict.Size     `toml:"segment"`
	Linger  strict.Duration `toml:"linger"`
	Budget  strict.Size     `toml:"budget"`
	Age     strict.Duration `toml:"age"`
}

// Route is one line of the routing table: a text, or a table with priority and
// time to live.
type Route struct {
	Text       string
	Priority   uint8
	TimeToLive strict.Duration
}

// Upstream is one far side.
type Upstream struct {
	Name     string         `toml:"name"`
	Type     string         `toml:"type"`
	Settings map[string]any `toml:",rest"`
}

// Field configures the daemon that talks to field devices.
type Field struct {
	Classes  map[string]Class `toml:"classes"`
	Class    string           `toml:"class"`  // of tags and devices that name none
	Outbox   int              `toml:"outbox"` // readings that may wait for the hub
	Commands Commands         `toml:"commands"`
	Reduce   []map[string]any `toml:"reduce"` // rules for tags by wildcard; a later one wins
	Devices  []Device         `toml:"device"`

	Rules []point.ReduceRule `toml:"-"` // Reduce, read
}

// Class is one scan class: a period, or a table of period, timeout and
// heartbeat.
type Class struct {
	Period    strict.Duration // between the starts of two reads
	Timeout   strict.Duration // of one read; 0 = the period
	Heartbeat strict.Duration // a tag held back by its dead-band is published at least this often; 0 = only on change
}

// Commands bounds write-back.
type Commands struct {
	Enabled       bool            `toml:"enabled"`
	MaxAge        strict.Duration `toml:"max_age"`        // of a command that says when it was issued
	MaxLifetime   strict.Duration `toml:"max_lifetime"`   // the farthest that a command's expiry may be ahead
	Timeout       strict.Duration `toml:"timeout"`        // of the write
	AllowUnsynced bool            `toml:"allow_unsynced"` // carry out commands from elsewhere while the clock is not synchronised
}

// Device is one field device. What is not named here belongs to its protocol.
type Device struct {
	Name      string           `toml:"name"`
	Protocol  string           `toml:"protocol"`
	Product   string           `toml:"product"`      // name in protocols/library, from which protocol, settings and tags come
	Only      []string         `toml:"product_tags"` // patterns of the product's tags that are wanted; none = all
	Class     string           `toml:"class"`        // of its tags that name none
	Path      string           `toml:"path"`         // where it stands in the plant, for topics of upstreams: levels with "/" between them
	KeepLast  bool             `toml:"keep_last"`    // a bad reading carries the last good value
	Subscribe bool             `toml:"subscribe"`    // be told of changes where the protocol can
	TagFile   string           `toml:"tags"`         // .csv or .toml, relative to the configuration
	TagTables []map[string]any `toml:"tag"`
	Settings  map[string]any   `toml:",rest"`

	Tags     []point.Tag    `toml:"-"` // of Product, TagFile and TagTables together
	FileTags []point.Tag    `toml:"-"` // of TagFile alone
	Own      map[string]any `toml:"-"` // the settings that the file gives; Settings has the product's too
}

// HubSocket is the name of the hub's MQTT socket for programs of this machine,
// in the run directory. It is always open.
const HubSocket = "hub.sock"
