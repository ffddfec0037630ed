package opcua

import (
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk"
	"holdfast/drivers/disk/disktest"
	"holdfast/protocols"
	"holdfast/protocols/opcua/wire"
	"holdfast/protocols/point"
)

// quietAdapter touches nothing: opening its store fails the test.
func quietAdapter(t *testing.T, secure bool) *Adapter {
	o := Options{}
	if secure {
		o.OpenFS = func() (disk.FS, error) {
			t.Error("checking opens the store")
			return disktest.New(), nil
		}
	}
	return New(protocols.Env{Clock: clocktest.New(time.Time{})}, o)
}

// TestCheck: each mistake is told by the name of its key, and the nearest name.
func TestCheck(t *testing.T) {
	a := quietAdapter(t, true)
	base := func(more ...any) map[string]any { return settingsFor("h:4840", more...) }
	for word, set := range map[string]map[string]any{
		"endpoint":                            {},
		"opc.tcp":                             {"endpoint": "opc.tcp://user:pw@h"},
		`did you mean "password_file"`:        base("pasword_file", "x"),
		`did you mean "Basic256Sha256"`:       base("security_policy", "Basic256Sha25"),
		"security_mode":                       base("security_mode", "Sign"),
		`key "password"`:                      base("password", "x"),
		"more than once":                      base("user", "u", "password", "x", "password_env", "X"),
		"go together":                         base("user_certificate", "x"),
		"not both":                            base("user", "u", "user_certificate", "x", "user_key", "y"),
		`key "timeout"`:                       base("timeout", "1"),
		`key "session_timeout"`:               base("session_timeout", "1ms"),
		`key "max_message"`:                   base("max_message", int64(1)),
		`key "reconnect_max"`:                 base("reconnect_min", "5s", "reconnect_max", "1s"),
		`key "check_host"`:                    base("check_host", "yes"),
		`unknown key "enpoint"; did you mean`: {"endpoint": "opc.tcp://h", "enpoint": "x"},
	} {
		err := a.Check(protocols.Device{Settings: set})
		if err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%v: %v, want %s", set, err, word)
		}
	}
	if err := quietAdapter(t, false).Check(protocols.Device{Settings: map[string]any{"endpoint": "opc.tcp://h"}}); err == nil || !strings.Contains(err.Error(), "data directory") {
		t.Errorf("security without a place for certificates: %v", err)
	}
	for _, set := range []map[string]any{
		{"endpoint": "opc.tcp://h"}, {"endpoint": "opc.tcp://[::1]:4840/x", "security_mode": "Sign"},
		base("user", "u", "password_file", "/x"), base("timeout", time.Second),
	} {
		if err := a.Check(protocols.Device{Settings: set}); err != nil {
			t.Errorf("%v: %v", set, err)
		}
	}
}

func TestCheckTags(t *testing.T) {
	a := quietAdapter(t, true)
	with := func(typ, access string, kv ...string) point.Tag {
		tag := point.Tag{Name: "a", Address: "i=1", Type: typ}
		tag.Access, _ = point.ParseAccess(access)
		for i := 0; i < len(kv); i += 2 {
			if tag.Params == nil {
				tag.Params = point.Params{}
			}
			tag.Params[kv[i]] = kv[i+1]
		}
		return tag
	}
	dead := with("", "r", "deadband_percent", "5")
	dead.Dead = point.Deadband{Kind: point.OnChange}
	for word, tag := range map[string]point.Tag{
		`address "x"`:               {Name: "a", Address: "x"},
		`did you mean "Double"`:     with("Dubble", "r"),
		`did you mean "sampling"`:   with("", "r", "samplig", "1s"),
		`key "sampling"`:            with("", "r", "sampling", "5"),
		`key "index"`:               with("", "r", "index", "3:1"),
		`key "queue"`:               with("", "r", "queue", "0"),
		`key "deadband_percent"`:    with("", "r", "deadband_percent", "101"),
		"has a dead-band already":   dead,
		`key "trigger"`:             with("", "r", "trigger", "never"),
		"called by writing":         with("method", "r"),
		`unknown key "index"`:       with("method", "w", "index", "1"),
		`key "object"`:              with("method", "w", "object", "?"),
		"events cannot be written":  with("events", "rw"),
		`key "min_severity"`:        with("alarms", "r", "min_severity", "1001"),
		`key "fields": "a//b"`:      with("events", "r", "fields", "Message,a//b"),
		`unknown key "min_sverity"`: with("events", "r", "min_sverity", "1"),
	} {
		err := a.Check(protocols.Device{Settings: settingsFor("h"), Tags: []point.Tag{tag}})
		if err == nil || !strings.Contains(err.Error(), word) || !strings.Contains(err.Error(), `tag "a"`) {
			t.Errorf("%+v: %v, want %s", tag, err, word)
		}
	}
	for _, tag := range []point.Tag{
		with("", "r"), with("double", "rw"), with("LocalizedText", "w"), with("method", "w", "object", "i=2"),
		with("alarms", "rw", "event_type", "nsu=urn:x;i=1", "fields", "2:Area/Name, Quality"), with("", "r", "index", "0:4,1", "trigger", "status"),
	} {
		if err := a.Check(protocols.Device{Settings: settingsFor("h"), Tags: []point.Tag{tag}}); err != nil {
			t.Errorf("%+v: %v", tag, err)
		}
	}
}

// TestChoose: which endpoint is taken, and why none is.
func TestChoose(t *testing.T) {
	ep := func(policy string, mode ua.MessageSecurityMode, tokens ...wire.TokenPolicy) wire.Endpoint {
		if policy != "" {
			policy = ua.SecurityPolicyURIPrefix + policy
		}
		return wire.Endpoint{PolicyURI: policy, Mode: mode, Tokens: tokens}
	}
	anon := wire.TokenPolicy{ID: "anon", Type: ua.UserTokenTypeAnonymous}
	name := wire.TokenPolicy{ID: "name", Type: ua.UserTokenTypeUserName}
	both := ua.MessageSecurityModeSignAndEncrypt
	all := []wire.Endpoint{
		ep("None", ua.MessageSecurityModeNone, anon, name),
		ep("Basic128Rsa15", both, anon), ep("Basic256", both, anon),
		ep("Basic256Sha256", both, anon, name), ep("Aes256_Sha256_RsaPss", ua.MessageSecurityModeSign, anon),
		ep("Aes128_Sha256_RsaOaep", both, anon),
	}
	for _, tc := range []struct {
		set  []any
		want string
		err  string
	}{
		{[]any{"security_policy", "auto"}, "Aes128_Sha256_RsaOaep", ""},
		{[]any{"security_policy", "auto", "security_mode", "Sign"}, "Aes256_Sha256_RsaPss", ""},
		{[]any{"security_policy", "auto", "user", "u"}, "Basic256Sha256", ""},
		{[]any{"security_policy", "None"}, "None", ""},
		{[]any{"security_policy", "None", "user", "u"}, "", "allow_plaintext_password"},
		{[]any{"security_policy", "None", "user", "u", "allow_plaintext_password", true}, "None", ""},
		{[]any{"security_policy", "Aes256_Sha256_RsaPss"}, "", "Basic256Sha256/SignAndEncrypt"},
		{[]any{"security_policy", "Basic256Sha256", "user_certificate", "c", "user_key", "k"}, "", "user certificates"},
	} {
		s, err := parseSettings(settingsFor("h", tc.set...))
		if err != nil {
			t.Fatal(err)
		}
		e, err := choose(all, s)
		if tc.err != "" {
			if err == nil || !strings.Contains(err.Error(), tc.err) {
				t.Errorf("%v: %v, want %s", tc.set, err, tc.err)
			}
			continue
		}
		if err != nil || policyName(e.PolicyURI) != tc.want {
			t.Errorf("%v: %s, %v, want %s", tc.set, e.PolicyURI, err, tc.want)
		}
	}
}

// TestDowngrade: a list of endpoints that somebody shortened on the way is found
// out by the session's list.
func TestDowngrade(t *testing.T) {
	s, err := parseSettings(settingsFor("h", "security_policy", "auto"))
	if err != nil {
		t.Fatal(err)
	}
	mk := func(policy string, cert byte) wire.Endpoint {
		return wire.Endpoint{
			PolicyURI: ua.SecurityPolicyURIPrefix + policy, Mode: s.mode, ServerURI: "urn:x", Certificate: []byte{cert},
			Tokens: []wire.TokenPolicy{{Type: ua.UserTokenTypeAnonymous}},
		}
	}
	weak, strong, bare := mk("Basic256Sha256", 1), mk("Aes256_Sha256_RsaPss", 1), mk("Basic256Sha256", 1)
	bare.Certificate = nil
	for name, tc := range map[string]struct {
		session []wire.Endpoint
		ok      bool
	}{
		"the same":            {[]wire.Endpoint{weak}, true},
		"without certificate": {[]wire.Endpoint{bare}, true},
		"nothing said":        {nil, true},
		"a better one":        {[]wire.Endpoint{weak, strong}, false},
		"not this one":        {[]wire.Endpoint{mk("Aes128_Sha256_RsaOaep", 1)}, false},
		"other certificate":   {[]wire.Endpoint{mk("Basic256Sha256", 2)}, false},
	} {
		if err := downgraded(target{Endpoint: weak}, tc.session, s); (err == nil) != tc.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestBuffer: how long a queue the server is asked for.
func TestBuffer(t *testing.T) {
	set, err := parseSettings(settingsFor("h", "buffer", "30s"))
	if err != nil {
		t.Fatal(err)
	}
	l := newLink(set, clocktest.New(time.Time{}), nil, nil, nil)
	s := newSubscription(l, nil, time.Second, nil)
	for _, tc := range []struct {
		sampling string
		want     int
	}{{"", 32}, {"100ms", 320}, {"0s", 32000}} {
		tag := point.Tag{Name: "a", Address: "i=1"}
		if tc.sampling != "" {
			tag.Params = point.Params{"sampling": tc.sampling}
		}
		sp, err := parseTag(&tag)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.queue(&item{spec: sp}); got != tc.want {
			t.Errorf("sampling %q: a queue of %d, want %d", tc.sampling, got, tc.want)
		}
	}
}
