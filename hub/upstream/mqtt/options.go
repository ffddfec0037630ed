package mqtt

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"holdfast/drivers/clock"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/upstream/internal/settings"
)

// Options are what the configuration says about one broker, and what it needs
// from the program.
type Options struct {
	URL         string // as client.Options has it
	Version     byte   // client.Version311 or client.Version5; 0 means Version5
	ClientID    string // settings default to the device's name and the upstream's, with a "/" between
	Username    string
	Password    string
	KeepSession bool // keep a session at the broker, which nothing here needs

	// PEM files; they are read anew for each connection, so a renewed
	// certificate needs no restart. PasswordFile likewise; its last newline is cut.
	CAFile, CertFile, KeyFile, PasswordFile string
	ServerName                              string // in the broker's certificate, when not the host in URL

	// Topic makes the topic of a publish from a record's. {topic}, {sender} and
	// {device} are replaced; "/", "+", "#" and "%" in the latter two are
	// percent-encoded, so that each stays one level. Default "{topic}".
	Topic string

	Retain   bool // whether the retain flag goes along as published; otherwise it is off
	Identify bool // whether holdfast-epoch and holdfast-offset go along (MQTT 5)

	Compress bool // zstd, where it makes a payload smaller; needs MQTT 5 or Batch

	// Batch packs records into frames (package batch). A frame leaves when it
	// has BatchRecords records or BatchBytes bytes, or BatchDelay after its first
	// record. A single record larger than BatchBytes travels alone.
	Batch        bool
	BatchTopic   string // {device} is replaced; default "holdfast/{device}/batch"
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
	Device   string                            // this device's name
	ReadFile func(name string) ([]byte, error) // os.ReadFile; nil: no files can be used
	Clock    clock.Clock                       // nil: the real one
	Log      *slog.Logger                      // nil: silent
}

// Parse reads the settings of the upstream with the given name. It does no I/O.
// The error joins everything that is wrong.
func Parse(name string, table map[string]any, env Env) (Options, error) {
	r := settings.New(table)
	o := Options{
		URL:          r.String("url", ""),
		ClientID:     r.String("client_id", strings.TrimPrefix(env.Device+"/"+name, "/")),
		Username:     r.String("username", ""),
		Password:     r.String("password", ""),
		PasswordFile: r.String("password_file", ""),
		KeepSession:  !r.Bool("clean_start", true),
		CAFile:       r.String("ca", ""),
		CertFile:     r.String("certificate", ""),
		KeyFile:      r.String("key", ""),
		ServerName:   r.String("server_name", ""),
		Topic:        r.String("topic", ""),
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
	o.Version = client.Version5
	if r.Choice("version", "5", "5", "3.1.1") == "3.1.1" {
		o.Version = client.Version311
	}
	o.Identify = r.Bool("identify", o.Version == client.Version5)
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
	add(o.Password != "" && o.PasswordFile != "", `"password_file": there is a password already`)
	add((o.CertFile == "") != (o.KeyFile == ""), `"certificate" and "key" go together`)
	add(o.Identify && !v5, `"identify": MQTT 3.1.1 has no properties to carry epoch and offset`)
	add(o.Compress && !v5 && !o.Batch, `"compress": MQTT 3.1.1 has no property to say so; use batch`)
	if err := checkTemplate(o.Topic, "topic", "sender", "device"); err != nil {
		errs = append(errs, fmt.Errorf(`"topic": %w`, err))
	}
	if err := checkTemplate(o.BatchTopic, "device"); err != nil {
		errs = append(errs, fmt.Errorf(`"batch_topic": %w`, err))
	}
	return errors.Join(errs...)
}

func (o *Options) client(t *tls.Config, password []byte) client.Options {
	return client.Options{
		URL: o.URL, TLS: t, Version: o.Version, ClientID: o.ClientID, Username: o.Username, Password: password,
		KeepSession: o.KeepSession, Bound: o.Bound, KeepAlive: o.KeepAlive, Window: o.Window, Clock: o.Clock, Log: o.Log,
	}
}

// New returns the upstream. Nothing happens before Connect.
func New(o Options) (hub.Upstream, error) {
	if o.Version == 0 {
		o.Version = client.Version5
	}
	if o.Topic == "" {
		o.Topic = "{topic}"
	}
	if o.BatchTopic == "" {
		o.BatchTopic = "holdfast/{device}/batch"
	}
	if o.BatchRecords == 0 {
		o.BatchRecords = 500
	}
	if o.BatchBytes == 0 {
		o.BatchBytes = 64 << 10
	}
	if o.ReadFile == nil {
		o.ReadFile = func(string) ([]byte, error) { return nil, errors.New("files cannot be read here") }
	}
	if o.Clock == nil {
		o.Clock = clock.NewReal()
	}
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("mqtt upstream: %w", err)
	}
	return &upstream{o: o, topic: parseTemplate(o.Topic), batchTopic: parseTemplate(o.BatchTopic)}, nil
}

// credentials reads the files.
func (o *Options) credentials() (t *tls.Config, password []byte, err error) {
	password = []byte(o.Password)
	if o.PasswordFile != "" {
		b, err := o.ReadFile(o.PasswordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("password: %w", err)
		}
		password = []byte(strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"))
	}
	t = &tls.Config{ServerName: o.ServerName}
	if o.CAFile != "" {
		b, err := o.ReadFile(o.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, nil, fmt.Errorf("authority: %q holds no certificate", o.CAFile)
		}
	}
	if o.CertFile != "" {
		cert, err := o.ReadFile(o.CertFile)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate: %w", err)
		}
		key, err := o.ReadFile(o.KeyFile)
		if err != nil {
			return nil, nil, fmt.Errorf("key: %w", err)
		}
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, nil, fmt.Errorf("certificate %q: %w", o.CertFile, err)
		}
		t.Certificates = []tls.Certificate{pair}
	}
	return t, password, nil
}
