package mqtt

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/internal/credentials"
	"holdfast/hub/upstream/internal/settings"
)

// Options are what the configuration says about one broker, and what it needs
// from the program.
type Options struct {
	URL         string // as client.Options has it
	Version     byte   // client.Version311 or client.Version5; 0 means Version5
	ClientID    string // settings default to the device's name and the upstream's, with a "/" between
	Username    string
	KeepSession bool // keep a session at the broker, which nothing here needs

	// Credentials are files and texts to prove oneself with.
	Credentials credentials.Options

	// Topic makes the topic of what travels as stored. Names: topic, sender,
	// gateway. Default "{topic}".
	Topic string

	// Form is how readings are written. ReadingTopic makes their topics. Names:
	// those of Topic, device, path and its levels, and tag, unit and class when
	// each reading is a message. Default "{path}/{device}", then with "/{tag}".
	Form         Form
	ReadingTopic string

	Retain   bool // whether the retain flag goes along as published; otherwise it is off
	Identify bool // whether holdfast-epoch and holdfast-offset go along (MQTT 5)
	Annotate bool // whether quality and unit of a reading go along as user properties (MQTT 5)
	Aliases  int  // topics that may be sent as aliases (MQTT 5); the broker may allow fewer

	Compress bool // zstd, where it makes a payload smaller; needs MQTT 5 or Batch

	// Batch packs records into frames (package batch). A frame leaves when it
	// has BatchRecords records or BatchBytes bytes, or BatchDelay after its first
	// record. A single record larger than BatchBytes travels alone.
	Batch        bool
	BatchTopic   string // {gateway} is replaced; default "holdfast/{gateway}/batch"
	BatchRecords int    // default 500
	BatchBytes   int    // before compression; default 64 KiB
	BatchDelay   time.Duration

	Bound     time.Duration // client.Options.Bound; default 10 s
	KeepAlive time.Duration // client.Options.KeepAlive
	Window    int           // publishes in flight; the broker may allow fewer. Default 1024

	Env
}

// Env is what an upstream needs from the program.
type Env struct {
	Device   string                            // this gateway's name
	ReadFile func(name string) ([]byte, error) // os.ReadFile; nil: no files can be used
	Clock    clock.Clock                       // nil: the real one
	Log      *slog.Logger                      // nil: silent

	// Readings makes what writes readings in a form, for each link anew; nil:
	// nothing here can.
	Readings func(Form) (Readings, error)
}

// defaultAliases is how many topics settings allow to be sent as aliases.
const defaultAliases = 256

// Parse reads the settings of the upstream with the given name. It does no I/O.
// The error joins everything that is wrong.
func Parse(name string, table map[string]any, env Env) (Options, error) {
	r := settings.New(table)
	o := Options{
		URL:          r.String("url", ""),
		ClientID:     r.String("client_id", strings.TrimPrefix(env.Device+"/"+name, "/")),
		Username:     r.String("username", ""),
		KeepSession:  !r.Bool("clean_start", true),
		Topic:        r.String("topic", ""),
		ReadingTopic: r.String("reading_topic", ""),
		Annotate:     r.Bool("annotate", false),
		Retain:       r.Bool("retain", true),
		Compress:     r.Choice("compress", "none", "none", "zstd") == "zstd",
		Batch:        r.Bool("batch", false),
		BatchTopic:   r.String("batch_topic", ""),
		BatchRecords: r.Int("batch_records", 0, 1, 10_000),
		BatchBytes:   r.Size("batch_size", 0, 1<<10, 16<<20),
		BatchDelay:   r.Duration("batch_delay", 100*time.Millisecond, 0, time.Minute),
		Bound:        r.Duration("bound", 0, time.Second, time.Hour),
		KeepAlive:    r.Duration("keep_alive", 0, time.Second, 18*time.Hour),
		Window:       r.Int("window", 0, 1, client.MaxWindow),
		Env:          env,
	}
	o.Credentials = credentials.Options{
		Password:     r.String("password", ""),
		PasswordFile: r.String("password_file", ""),
		CAFile:       r.String("ca", ""),
		CertFile:     r.String("certificate", ""),
		KeyFile:      r.String("key", ""),
		ServerName:   r.String("server_name", ""),
	}
	o.Form = Form{
		Payload:    r.Choice("payload", Stored, Stored, "json", "cbor", "protobuf"),
		PerReading: r.Bool("per_reading", false),
		Times:      r.Choice("times", "us", "us", "ms", "s", "rfc3339"),
		Qualities:  r.Choice("qualities", "name", "name", "code"),
		Fields:     r.Texts("fields", Fields()...),
	}
	for _, t := range r.TextTables("paths", "match", "path") {
		o.Form.Paths = append(o.Form.Paths, PathRule{Match: t["match"], Path: t["path"]})
	}
	if v, ok := table["payload"]; ok && v != any(o.Form.Payload) { // told already; what goes with it is not told again
		o.Form, o.ReadingTopic, o.Annotate = Form{}, "", false
	}
	o.Version = client.Version5
	if r.Choice("version", "5", "5", "3.1.1") == "3.1.1" {
		o.Version = client.Version311
	}
	o.Identify = r.Bool("identify", o.Version == client.Version5)
	o.Aliases = r.Int("topic_aliases", defaultAliases, 0, 65535)
	return o, errors.Join(r.Err(), o.check())
}

// check finds what cannot work. Messages name the key of the settings.
func (o *Options) check() error {
	var errs []error
	add := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	if o.URL == "" {
		errs = append(errs, errors.New(`"url" is missing`))
	} else if err := o.client(nil, nil).Check(); err != nil {
		errs = append(errs, fmt.Errorf(`"url": %w`, err))
	}
	v5 := o.Version != client.Version311
	errs = append(errs, o.Credentials.Check(), o.Form.check())
	add(o.Identify && !v5, `"identify": MQTT 3.1.1 has no properties to carry epoch and offset`)
	add(o.Compress && !v5 && !o.Batch, `"compress": MQTT 3.1.1 has no property to say so; use batch`)
	add(o.Annotate && !v5, `"annotate": MQTT 3.1.1 has no properties to carry quality and unit`)
	add(o.Annotate && !o.Form.PerReading, `"annotate": only messages with "per_reading" have one quality and unit`)
	add(o.ReadingTopic != "" && o.Form.stored(), `"reading_topic": what is sent as stored goes by "topic"; choose a "payload"`)
	add(o.Batch && !o.Form.stored(), `"batch": frames hold messages as stored, not as %s`, o.Form.Payload)
	_, err := o.templates()
	return errors.Join(append(errs, err)...)
}

// templates are those of all kinds of message.
type templates struct{ topic, reading, batch template }

// templates reads the templates, with their defaults.
func (o *Options) templates() (t templates, err error) {
	var errs []error
	parse := func(key, s, def string, names ...[]string) template {
		if s == "" {
			s = def
		}
		t, err := parseTemplate(s, slices.Concat(names...)...)
		if err != nil {
			errs = append(errs, fmt.Errorf("%q: %w", key, err))
		}
		return t
	}
	t.topic = parse("topic", o.Topic, "{topic}", recordNames, gatewayNames)
	t.batch = parse("batch_topic", o.BatchTopic, "holdfast/{gateway}/batch", gatewayNames)
	if o.Form.PerReading {
		t.reading = parse("reading_topic", o.ReadingTopic, "{path}/{device}/{tag}", recordNames, gatewayNames, deviceNames, tagNames)
	} else {
		t.reading = parse("reading_topic", o.ReadingTopic, "{path}/{device}", recordNames, gatewayNames, deviceNames)
	}
	return t, errors.Join(errs...)
}

func (o *Options) client(t *tls.Config, password []byte) client.Options {
	return client.Options{
		URL: o.URL, TLS: t, Version: o.Version, ClientID: o.ClientID, Username: o.Username, Password: password,
		KeepSession: o.KeepSession, Bound: o.Bound, KeepAlive: o.KeepAlive, Window: o.Window, Aliases: o.Aliases, Clock: o.Clock, Log: o.Log,
	}
}

// New returns the upstream. Nothing happens before Connect.
func New(o Options) (hub.Upstream, error) {
	if o.Version == 0 {
		o.Version = client.Version5
	}
	if o.BatchRecords == 0 {
		o.BatchRecords = 500
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 64 << 10
	}
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("mqtt upstream: %w", err)
	}
	u := &upstream{o: o}
	u.templates, _ = o.templates() // checked
	if o.Form.stored() {
		return u, nil
	}
	if o.Readings == nil {
		return nil, errors.New("mqtt upstream: nothing here writes readings")
	}
	if _, err := o.Readings(o.Form); err != nil {
		return nil, fmt.Errorf("mqtt upstream: readings as %s: %w", o.Form.Payload, err)
	}
	return u, nil
}
