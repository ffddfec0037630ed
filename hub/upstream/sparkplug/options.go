package sparkplug

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub/client"
	"holdfast/hub/upstream/internal/credentials"
	"holdfast/hub/upstream/internal/settings"
)

// Options are what the configuration says about one edge node, and what it
// needs from the program.
type Options struct {
	URL     string   // as client.Options has it
	Servers []string // further ones; the node is connected to one at a time

	Group string // group ID
	Node  string // edge node ID; settings default to the device's name

	PrimaryHost string        // ID of the host that must be online; "" is none
	HostWait    time.Duration // how long Connect waits for it on one server; default 20 s
	HostGrace   time.Duration // how long it must be online behind a record; see the package comment. At most 20 s

	Version  byte // client.Version311 or client.Version5; 0 means Version311, which every Sparkplug server takes
	ClientID string
	Username string

	// Credentials are files and texts to prove oneself with.
	Credentials credentials.Options

	NoAliases     bool          // names in data messages instead of aliases
	Datatypes     bool          // in data messages too, for hosts that do not remember births; the specification says they should not be there
	MaxMessage    int           // bytes above which a data message is split; default 128 KiB
	MaxMetrics    int           // that may be known; default 100,000. Overflow rule: a record with a further one is refused
	DeviceTimeout time.Duration // a device that nothing came from for so long is dead; 0 = never

	Commands       bool          // whether DCMD is taken
	CommandExpires time.Duration // how long after it was issued a command may be carried out; default 10 s

	Bound     time.Duration // client.Options.Bound; default 10 s
	KeepAlive time.Duration // client.Options.KeepAlive

	Means
}

// Means are what the edge node needs from the program.
type Means struct {
	Device   string                            // this gateway's name
	ReadFile func(name string) ([]byte, error) // os.ReadFile; nil: no files can be used
	Clock    clock.Clock                       // nil: the real one
	Log      *slog.Logger                      // nil: silent

	// Decode makes batches of records. It is needed.
	Decode Decoder

	// Devices returns the field devices as they are configured. It is called for
	// each connection. nil: everything is learned from records.
	Devices func() []Device

	// Command carries a command out, or hands it over. It may take its time, until
	// ctx ends; the error is logged. nil: commands are not taken.
	Command func(ctx context.Context, c Command) error

	// Properties are told in NBIRTH as "Properties/" and the name.
	Properties map[string]string

	// Ledger keeps bdSeq across restarts. nil: it starts at zero each time.
	Ledger Ledger

	// Dial opens network connections; nil means net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// MaxHostGrace keeps the wait for the host below the bound within which a
// forwarder expects confirmations (30 s).
const MaxHostGrace = 20 * time.Second

// Parse reads the settings of the upstream with the given name. It does no I/O.
// The error joins everything that is wrong.
func Parse(name string, table map[string]any, means Means) (Options, error) {
	r := settings.New(table)
	o := Options{
		URL:         r.String("url", ""),
		Servers:     r.Strings("servers"),
		Group:       r.String("group", ""),
		Node:        r.String("node", means.Device),
		PrimaryHost: r.String("primary_host", ""),
		HostWait:    r.Duration("host_wait", 0, time.Second, 25*time.Second),
		ClientID:    r.String("client_id", strings.TrimPrefix(means.Device+"/"+name, "/")),
		Username:    r.String("username", ""),
		Credentials: credentials.Options{
			Password:     r.String("password", ""),
			PasswordFile: r.String("password_file", ""),
			CAFile:       r.String("ca", ""),
			CertFile:     r.String("certificate", ""),
			KeyFile:      r.String("key", ""),
			ServerName:   r.String("server_name", ""),
		},
		NoAliases:      !r.Bool("aliases", true),
		Datatypes:      r.Bool("datatypes", false),
		MaxMessage:     r.Size("max_message", 0, 1<<10, 16<<20),
		MaxMetrics:     r.Int("max_metrics", 0, 1, 10_000_000),
		DeviceTimeout:  r.Duration("device_timeout", 0, time.Second, 24*365*time.Hour),
		Commands:       r.Bool("commands", false),
		CommandExpires: r.Duration("command_expires", 0, time.Second, 10*time.Minute),
		Bound:          r.Duration("bound", 0, time.Second, time.Hour),
		KeepAlive:      r.Duration("keep_alive", 0, time.Second, 18*time.Hour),
		Means:          means,
	}
	grace := time.Duration(0)
	if o.PrimaryHost != "" {
		grace = 2 * time.Second
	}
	o.HostGrace = r.Duration("host_grace", grace, 0, MaxHostGrace)
	o.Version = client.Version311
	if r.Choice("version", "3.1.1", "3.1.1", "5") == "5" {
		o.Version = client.Version5
	}
	return o, errors.Join(r.Err(), o.check())
}

// servers returns all addresses, the first to be tried first.
func (o *Options) servers() []string { return append([]string{o.URL}, o.Servers...) }

type property struct{ name, value string }

func (o *Options) properties() (list []property) {
	for _, k := range slices.Sorted(maps.Keys(o.Properties)) {
		list = append(list, property{k, o.Properties[k]})
	}
	return list
}

// check finds what cannot work. Messages name the key of the settings.
func (o *Options) check() error {
	var errs []error
	add := func(key string, err error) {
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", key, err))
		}
	}
	if o.URL == "" {
		errs = append(errs, errors.New(`"url" is missing`))
	} else {
		add("url", o.client(o.URL, nil, nil).Check())
	}
	for _, s := range o.Servers {
		add("servers", o.client(s, nil, nil).Check())
	}
	if o.Group == "" {
		errs = append(errs, errors.New(`"group" is missing`))
	} else {
		add("group", CheckID(o.Group))
	}
	if o.Node != "" || o.Device != "" {
		add("node", CheckID(o.Node))
	}
	if o.PrimaryHost != "" {
		add("primary_host", CheckID(o.PrimaryHost))
	} else if o.HostGrace > 0 || o.HostWait > 0 {
		errs = append(errs, errors.New(`"host_wait" and "host_grace" need "primary_host"`))
	}
	if o.HostGrace > MaxHostGrace {
		errs = append(errs, fmt.Errorf(`"host_grace" is more than %v`, MaxHostGrace))
	}
	return errors.Join(append(errs, o.Credentials.Check())...)
}

// client returns the options of a connection to a server. Its session is a
// clean one (tck-id-principles-persistence-clean-session-311 and -50).
func (o *Options) client(url string, t *tls.Config, password []byte) client.Options {
	return client.Options{
		URL: url, TLS: t, Version: o.Version, ClientID: o.ClientID, Username: o.Username, Password: password,
		Bound: o.Bound, KeepAlive: o.KeepAlive, Clock: o.Clock, Log: o.Log, Dial: o.Dial,
	}
}

// New returns the edge node. Nothing happens before Connect.
func New(o Options) (*Upstream, error) {
	defaulted(&o.Version, client.Version311)
	defaulted(&o.MaxMessage, 128<<10)
	defaulted(&o.MaxMetrics, 100_000)
	defaulted(&o.CommandExpires, 10*time.Second)
	defaulted(&o.Bound, client.DefaultBound)
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	err := o.check()
	if o.Node == "" {
		err = errors.Join(err, errors.New(`"node" is missing`))
	}
	if o.Decode == nil {
		err = errors.Join(err, errors.New("there is nothing to read records with"))
	}
	if err != nil {
		return nil, fmt.Errorf("sparkplug upstream: %w", err)
	}
	defaulted(&o.HostWait, 20*time.Second)
	return &Upstream{o: o, node: newNode(o.MaxMetrics), births: births{ledger: o.Ledger}}, nil
}

func defaulted[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
