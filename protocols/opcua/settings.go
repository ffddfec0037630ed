package opcua

import (
	"errors"
	"net/url"
	"strings"
	"time"

	"github.com/gopcua/opcua/ua"
)

// policyNames are the security policies, as a configuration names them.
var policyNames = []string{"auto", "None", "Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"}

// modeNames has the default first.
var modeNames = []string{"SignAndEncrypt", "Sign"}

// settings is a device's part of the configuration, as checked.
type settings struct {
	endpoint  string
	host      string // of endpoint, without port
	policy    string // URI; "" = the best that the server has
	mode      ua.MessageSecurityMode
	checkHost bool

	user      string
	password  secret
	userCert  string // file
	userKey   string // file
	plainText bool   // the password may travel unencrypted

	timeout, connectTimeout    time.Duration
	channelLifetime            time.Duration
	sessionTimeout             time.Duration
	reconnectMin, reconnectMax time.Duration
	refusedMax                 time.Duration
	maxMessage                 int

	publishing time.Duration // 0 = the scan class's period
	keepAlive  time.Duration
	buffer     time.Duration
	backfill   bool
	maxText    int
}

// secret says where a password is.
type secret struct{ text, file, env string }

// parseSettings reads all keys and returns every mistake.
func parseSettings(m map[string]any) (*settings, error) {
	r := reader{m: m, known: map[string]bool{}}
	s := &settings{}
	s.readEndpoint(&r)
	s.readUser(&r)
	s.timeout = r.duration("timeout", 3*time.Second, 50*time.Millisecond, 5*time.Minute)
	s.connectTimeout = r.duration("connect_timeout", 1500*time.Millisecond, 50*time.Millisecond, 5*time.Minute)
	s.channelLifetime = r.duration("channel_lifetime", time.Hour, time.Second, 24*time.Hour)
	s.sessionTimeout = r.duration("session_timeout", 2*time.Minute, time.Second, 24*time.Hour)
	s.reconnectMin = r.duration("reconnect_min", 100*time.Millisecond, 10*time.Millisecond, time.Minute)
	s.reconnectMax = r.duration("reconnect_max", time.Second, s.reconnectMin, time.Hour)
	s.refusedMax = r.duration("refused_max", 30*time.Second, s.reconnectMin, time.Hour)
	s.maxMessage = r.integer("max_message", 4<<20, 65536, 256<<20)
	s.publishing = r.duration("publishing_interval", 0, 0, time.Hour)
	s.keepAlive = r.duration("keep_alive", 2*time.Second, 100*time.Millisecond, time.Hour)
	s.buffer = r.duration("buffer", 30*time.Second, 0, 24*time.Hour)
	s.backfill = r.boolean("backfill", true)
	s.maxText = r.integer("max_text", 64<<10, 256, 8<<20)
	r.unknown()
	return s, errors.Join(r.errs...)
}

func (s *settings) readEndpoint(r *reader) {
	s.endpoint = r.text("endpoint", "")
	u, err := url.Parse(s.endpoint)
	switch {
	case s.endpoint == "":
		r.fail("endpoint", "is missing: opc.tcp://host:port/path")
	case err != nil || u.Scheme != "opc.tcp" || u.Hostname() == "" || u.User != nil:
		r.fail("endpoint", "%q is not opc.tcp://host:port/path", s.endpoint)
	default:
		s.host = u.Hostname()
	}
	switch i := r.choice("security_policy", policyNames); i {
	case 0:
	case 1:
		s.policy, s.mode = ua.SecurityPolicyURINone, ua.MessageSecurityModeNone
	default:
		s.policy = ua.SecurityPolicyURIPrefix + policyNames[i]
	}
	mode := r.choice("security_mode", modeNames)
	if s.policy == ua.SecurityPolicyURINone {
		if _, given := r.m["security_mode"]; given {
			r.fail("security_mode", "without a security policy nothing is signed or encrypted")
		}
	} else {
		s.mode = []ua.MessageSecurityMode{ua.MessageSecurityModeSignAndEncrypt, ua.MessageSecurityModeSign}[mode]
	}
	s.checkHost = r.boolean("check_host", true)
}

func (s *settings) readUser(r *reader) {
	s.user = r.text("user", "")
	s.password = secret{r.text("password", ""), r.text("password_file", ""), r.text("password_env", "")}
	s.userCert, s.userKey = r.text("user_certificate", ""), r.text("user_key", "")
	s.plainText = r.boolean("allow_plaintext_password", false)
	given := 0
	for _, v := range []string{s.password.text, s.password.file, s.password.env} {
		if v != "" {
			given++
		}
	}
	switch {
	case s.user == "" && given > 0:
		r.fail("password", "needs a user")
	case given > 1:
		r.fail("password", "is given more than once: by password, password_file or password_env")
	}
	switch {
	case (s.userCert == "") != (s.userKey == ""):
		r.fail("user_certificate", "user_certificate and user_key go together")
	case s.userCert != "" && s.user != "":
		r.fail("user", "is either a name or a certificate, not both")
	}
}

// tokenType is how the user is identified.
func (s *settings) tokenType() ua.UserTokenType {
	switch {
	case s.user != "":
		return ua.UserTokenTypeUserName
	case s.userCert != "":
		return ua.UserTokenTypeCertificate
	}
	return ua.UserTokenTypeAnonymous
}

// secured reports whether our own certificate is needed.
func (s *settings) secured() bool { return s.policy != ua.SecurityPolicyURINone }

// policyName returns the short name of a policy.
func policyName(uri string) string { return strings.TrimPrefix(uri, ua.SecurityPolicyURIPrefix) }
