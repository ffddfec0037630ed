package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"errors"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/hub/broker"
)

func b64(b []byte) string { return base64.RawStdEncoding.EncodeToString(b) }

// quick is "secret" with few rounds, made by this package.
func quick(t *testing.T, password string) string {
	t.Helper()
	h := hash{rounds: 10, salt: []byte("0123456789abcdef")}
	key, err := h.derive([]byte(password), keyLength)
	if err != nil {
		t.Fatal(err)
	}
	return "$pbkdf2-sha512$i=10$" + b64(h.salt) + "$" + b64(key)
}

func house(t *testing.T) *Access {
	t.Helper()
	a, err := New(Options{
		Users:        []User{{"ann", quick(t, "secret")}, {"a/b", quick(t, "x")}},
		Peers:        []Peer{{UID: 990, Name: "field"}, {UID: 0, Name: "cli"}},
		Certificates: true,
		Anonymous:    "guest",
		Rules: []Rule{
			{Who: "*", Subscribe: []string{"news/#"}},
			{Who: "ann", Publish: []string{"u/%u/+", "c/%c/#"}, Subscribe: []string{"u/%u/#"}},
			{Who: "a/b", Publish: []string{"u/%u/x", "own"}},
			{Who: "field", Publish: []string{"field/#"}},
			{Who: "urn:press:7", Publish: []string{"press"}},
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func certificate(name string, uris ...string) *tls.ConnectionState {
	c := &x509.Certificate{Subject: pkix.Name{CommonName: name}}
	for _, u := range uris {
		p, err := url.Parse(u)
		if err != nil {
			panic(err)
		}
		c.URIs = append(c.URIs, p)
	}
	return &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}, VerifiedChains: [][]*x509.Certificate{{c}}}
}

func TestIdentity(t *testing.T) {
	user := func(name, password string) broker.Connect {
		return broker.Connect{ClientID: "c1", Username: name, Password: []byte(password), HasUsername: true, HasPassword: true}
	}
	unverified := certificate("x")
	unverified.VerifiedChains = nil
	for _, tt := range []struct {
		about string
		c     broker.Connect
		name  string
		code  byte
	}{
		{"password", user("ann", "secret"), "ann/c1", 0},
		{"wrong password", user("ann", "Secret"), "", broker.BadUserNameOrPassword},
		{"empty password", user("ann", ""), "", broker.BadUserNameOrPassword},
		{"endless password", user("ann", strings.Repeat("x", 2000)), "", broker.BadUserNameOrPassword},
		{"unknown user", user("bob", "secret"), "", broker.BadUserNameOrPassword},
		{"name of a peer", user("field", "secret"), "", broker.BadUserNameOrPassword},
		{"nothing", broker.Connect{ClientID: "c1"}, "guest/c1", 0},
		{"peer", broker.Connect{ClientID: "field", Peer: &broker.PeerCredentials{UID: 990}}, "field", 0},
		{"peer with another identifier", broker.Connect{ClientID: "x", Peer: &broker.PeerCredentials{UID: 0}}, "cli/x", 0},
		{"unknown peer", broker.Connect{ClientID: "x", Peer: &broker.PeerCredentials{UID: 1}}, "guest/x", 0},
		{"certificate", broker.Connect{ClientID: "press7", TLS: certificate("press7")}, "press7", 0},
		{"certificate with URI", broker.Connect{ClientID: "c", TLS: certificate("cn", "urn:press:7")}, "urn:press:7/c", 0},
		{"certificate with the name of a peer", broker.Connect{ClientID: "c", TLS: certificate("field")}, "", broker.NotAuthorized},
		{"certificate without a name", broker.Connect{ClientID: "c", TLS: certificate("")}, "", broker.NotAuthorized},
		{"certificate that nobody verified", broker.Connect{ClientID: "c", TLS: unverified}, "guest/c", 0},
	} {
		t.Run(tt.about, func(t *testing.T) {
			p, err := house(t).Authenticate(t.Context(), &tt.c)
			var r *broker.Refusal
			switch {
			case tt.code != 0:
				if !errors.As(err, &r) || r.Code != tt.code {
					t.Errorf("got %v, want code %#x", err, tt.code)
				}
			case err != nil:
				t.Error(err)
			case p.Name() != tt.name:
				t.Errorf("got %q, want %q", p.Name(), tt.name)
			}
		})
	}
}

func TestZeroValueLetsNobodyIn(t *testing.T) {
	a, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(t.Context(), &broker.Connect{ClientID: "c", Peer: &broker.PeerCredentials{}, TLS: certificate("x")}); err == nil {
		t.Error("somebody is let in")
	}
}

func TestRules(t *testing.T) {
	a := house(t)
	for _, tt := range []struct {
		who, client string
		publish     bool
		topic       string
		want        bool
	}{
		{"ann", "c1", true, "u/ann/x", true},
		{"ann", "c1", true, "u/ann/x/y", false},
		{"ann", "c1", true, "u/bob/x", false},
		{"ann", "c1", true, "c/c1", true},
		{"ann", "c1", true, "c/c1/a/b", true},
		{"ann", "c1", true, "c/c2/a", false},
		{"ann", "c1", true, "news/x", false},
		{"ann", "c1", false, "news/#", true},
		{"ann", "c1", false, "news/+/x", true},
		{"ann", "c1", false, "news", true},
		{"ann", "c1", false, "#", false},
		{"ann", "c1", false, "+/x", false},
		{"ann", "c1", false, "u/ann/#", true},
		{"ann", "c1", false, "u/+/#", false},
		{"ann", "#", true, "c/x/a", false},
		{"ann", "+", true, "c/x", false},
		{"ann", "a/b", true, "c/a/b", false},
		{"a/b", "c", true, "u/a/b/x", false},
		{"a/b", "c", true, "own", true},
		{"field", "field", true, "field/x/readings", true},
		{"field", "field", true, "$SYS/x", false},
		{"guest", "c", true, "own", false},
		{"guest", "c", false, "news/a", true},
	} {
		p := a.principal(tt.who, tt.client)
		if len(tt.topic)%2 == 0 { // as many filters as make it remember
			p.publish = append(p.publish, strings.Split("1,2,3,4,5,6,7,8,9", ",")...)
		}
		for range 2 { // the second answer may come from memory
			got := p.MaySubscribe(tt.topic)
			if tt.publish {
				got = p.MayPublish([]byte(tt.topic))
			}
			if got != tt.want {
				t.Errorf("%+v: got %v", tt, got)
			}
		}
	}
}

func TestCovers(t *testing.T) {
	for _, tt := range []struct {
		rule, filter string
		want         bool
	}{
		{"#", "#", true}, {"#", "+/a", true}, {"#", "$SYS/#", false}, {"+/#", "$SYS/#", false}, {"$SYS/#", "$SYS/#", true},
		{"a/#", "a", true}, {"a/#", "a/#", true}, {"a/#", "a/b/+", true}, {"a/+", "a/b", true}, {"a/+", "a/+", true},
		{"a/+", "a/#", false}, {"a/+", "a", false}, {"a/b", "a/+", false}, {"a", "a/b", false}, {"a/b", "a", false},
		{"+", "a", true}, {"+", "a/b", false}, {"+", "#", false}, {"a/+/c", "a/b/c", true}, {"a/+/c", "a/#", false}, {"a", "", false},
	} {
		if got := covers(tt.rule, tt.filter); got != tt.want {
			t.Errorf("covers(%q, %q) = %v", tt.rule, tt.filter, got)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	good := quick(t, "x")
	for _, tt := range []struct {
		about string
		o     Options
		says  string
	}{
		{"hash", Options{Users: []User{{"u", "plain"}}}, `password of user "u": is not a hash`},
		{"twice", Options{Users: []User{{"u", good}, {"u", good}}}, `user "u": is there twice`},
		{"reserved", Options{Users: []User{{"cli", good}}, Peers: []Peer{{0, "cli"}}}, "name of a local peer"},
		{"reserved anonymous", Options{Anonymous: "cli", Peers: []Peer{{0, "cli"}}}, "name of a local peer"},
		{"empty name", Options{Users: []User{{"", good}}}, "name is empty"},
		{"control character", Options{Peers: []Peer{{1, "a\nb"}}}, "control character"},
		{"two names", Options{Peers: []Peer{{1, "a"}, {1, "b"}}}, `uid 1 is both "a" and "b"`},
		{"nobody", Options{Rules: []Rule{{}}}, "rule without an identity"},
		{"hash in filter", Options{Rules: []Rule{{Who: "*", Publish: []string{"a/#/b"}}}}, "# must be the whole last level"},
		{"plus in filter", Options{Rules: []Rule{{Who: "*", Subscribe: []string{"a+"}}}}, "+ must be a whole level"},
		{"empty filter", Options{Rules: []Rule{{Who: "*", Subscribe: []string{""}}}}, "is empty"},
		{"shared filter", Options{Rules: []Rule{{Who: "*", Subscribe: []string{"$share/g/a"}}}}, "without $share"},
	} {
		if _, err := New(tt.o); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: %v", tt.about, err)
		}
	}
}

func TestHashPassword(t *testing.T) {
	s, err := HashPassword([]byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	other, _ := HashPassword([]byte("correct horse"))
	if s == other {
		t.Error("two hashes of one password are the same: there is no salt")
	}
	h, err := parseHash(s)
	if err != nil {
		t.Fatal(err)
	}
	if h.rounds != rounds || len(h.salt) != saltLength || len(h.key) != keyLength {
		t.Errorf("hash %+v", h)
	}
	p := newPasswords(1)
	for password, want := range map[string]bool{"correct horse": true, "correct": false} {
		if ok, err := p.check(t.Context(), "u", []byte(password), h, true); ok != want || err != nil {
			t.Errorf("%q: %v %v", password, ok, err)
		}
	}
	for _, bad := range []int{0, maxPassword + 1} {
		if _, err := HashPassword(make([]byte, bad)); err == nil {
			t.Errorf("a password of %d bytes was hashed", bad)
		}
	}
}

// TestVectors: PBKDF2-HMAC-SHA512 of "password" and "salt" as computed with
// Python's hashlib, in both notations.
func TestVectors(t *testing.T) {
	// hashlib.pbkdf2_hmac("sha512", b"password", b"salt", 4096)
	const key = "0Zexsz2wFD4BixLz0dFHnmzevcyXxcD4f2kC4HL0V7UUPzBgJkGz1VzTNZiMs2uEN2Bg7NUy4Dm3QqI5Q0ry1Q"
	for _, s := range []string{"$7$4096$c2FsdA==$" + key + "==", "$pbkdf2-sha512$i=4096$c2FsdA$" + key} {
		h, err := parseHash(s)
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := newPasswords(1).check(t.Context(), "u", []byte("password"), h, true); !ok || err != nil {
			t.Errorf("%s: %v %v", s, ok, err)
		}
	}
}

// TestMosquittoPasswd reads what the tool writes.
func TestMosquittoPasswd(t *testing.T) {
	tool, err := exec.LookPath("mosquitto_passwd")
	if err != nil {
		t.Skip("mosquitto_passwd is not installed")
	}
	file := filepath.Join(t.TempDir(), "p")
	if out, err := exec.Command(tool, "-c", "-b", file, "ann", "secret").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	line, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	name, stored, _ := strings.Cut(strings.TrimSpace(string(line)), ":")
	a, err := New(Options{Users: []User{{name, stored}}})
	if err != nil {
		t.Fatal(err)
	}
	c := broker.Connect{ClientID: "c", Username: "ann", HasUsername: true, Password: []byte("secret")}
	if _, err := a.Authenticate(t.Context(), &c); err != nil {
		t.Error(err)
	}
}

func TestRightPasswordIsRemembered(t *testing.T) {
	p := newPasswords(1)
	h, err := parseHash(quick(t, "secret"))
	if err != nil {
		t.Fatal(err)
	}
	if ok, _ := p.check(t.Context(), "u", []byte("secret"), h, true); !ok {
		t.Fatal("refused")
	}
	p.slots <- struct{}{} // nobody can hash any more
	var wait sync.WaitGroup
	for range 50 {
		wait.Go(func() {
			if ok, err := p.check(t.Context(), "u", []byte("secret"), h, true); !ok || err != nil {
				t.Errorf("the second time: %v %v", ok, err)
			}
		})
	}
	wait.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	changed, _ := parseHash(quick(t, "changed"))
	for _, tt := range []struct {
		user, password string
		h              hash
	}{{"u", "wrong", h}, {"v", "secret", h}, {"u", "secret", changed}} {
		if ok, err := p.check(ctx, tt.user, []byte(tt.password), tt.h, true); ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s %s: %v %v, without hashing", tt.user, tt.password, ok, err)
		}
	}
}

func FuzzParseHash(f *testing.F) {
	f.Add("$7$101$c2FsdA==$AAAAAAAAAAAAAAAAAAAAAA==")
	f.Add("$pbkdf2-sha512$i=4096$c2FsdA$AAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, s string) {
		if h, err := parseHash(s); err == nil && (h.rounds < 1 || h.rounds > maxRounds || len(h.key) < 16) {
			t.Errorf("%q gives %+v", s, h)
		}
	})
}

func FuzzCovers(f *testing.F) {
	f.Add("a/+/#", "a/b/c", "a/b/c")
	f.Fuzz(func(t *testing.T, rule, filter, topic string) {
		if checkFilter(rule) != nil || checkFilter(filter) != nil || topic == "" || strings.ContainsAny(topic, "+#") {
			return
		}
		// What a covered filter matches, the rule matches.
		if covers(rule, filter) && matches(filter, []byte(topic)) && !matches(rule, []byte(topic)) {
			t.Errorf("rule %q covers %q, but only the latter matches %q", rule, filter, topic)
		}
	})
}

func BenchmarkMayPublish(b *testing.B) {
	p := &principal{publish: []string{"a/b/c", "x/+/y", "plant/+/data"}}
	topics := [][]byte{[]byte("plant/1/data"), []byte("plant/2/data")}
	b.Run("same", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			p.MayPublish(topics[0])
		}
	})
	many := &principal{publish: append(strings.Split("a,b,c,d,e,f,g,h", ","), p.publish...)}
	b.Run("many", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			many.MayPublish(topics[0])
		}
	})
	b.Run("other", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			p.MayPublish(topics[i%2])
		}
	})
}
