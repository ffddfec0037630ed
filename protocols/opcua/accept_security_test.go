package opcua

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/protocols/point"
)

// reason waits until the link says why it is not connected.
func reason(t *testing.T, s *session) string {
	t.Helper()
	s.link.start()
	eventually(t, "an attempt to connect", func() bool {
		st := s.Status()
		return st.Connected || st.Reason != "not connected yet"
	})
	return s.Status().Reason
}

// TestAcceptanceSecurity connects with every policy and mode, reads, and
// subscribes.
func TestAcceptanceSecurity(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	a := newAdapter(t, p.cert)
	for _, policy := range policyNames {
		for _, mode := range []string{"Sign", "SignAndEncrypt"} {
			set := settingsFor(p.addr(), "security_policy", policy, "security_mode", mode, "timeout", "20s", "publishing_interval", "100ms")
			if policy == "None" {
				delete(set, "security_mode")
			}
			t.Run(policy+" "+mode, func(t *testing.T) {
				s := openSession(t, a, set)
				if got := readAll(t, s, node("Int32"))[0]; got.Quality != point.Good {
					t.Fatalf("%s: %s", got.Quality, got.Detail)
				}
				r, stop := subscribe(t, s, counting("Tick0"))
				eventually(t, "values", func() bool { return len(r.of(0)) > 5 })
				stop()
				if _, lost := steady(t, r.of(0)); lost > 0 {
					t.Errorf("%d values lost", lost)
				}
			})
		}
	}
}

// TestAcceptanceUsers: every kind of user, right and wrong.
func TestAcceptanceUsers(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	a := newAdapter(t, p.cert)
	dir := t.TempDir()
	file := filepath.Join(dir, "password")
	if err := os.WriteFile(file, []byte("s3cret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	key := newKey(t)
	writePEM(t, filepath.Join(dir, "user.pem"), "CERTIFICATE", newCert(t, key, certOptions{uri: "urn:user"}))
	raw, _ := x509.MarshalPKCS8PrivateKey(key)
	writePEM(t, filepath.Join(dir, "user.key"), "PRIVATE KEY", raw)
	for _, tc := range []struct {
		name string
		set  []any
		fail string
	}{
		{"password", []any{"user", "operator", "password", "s3cret", "security_policy", "auto"}, ""},
		{"password from a file", []any{"user", "operator", "password_file", file, "security_policy", "auto"}, ""},
		{"password encrypted on a plain channel", []any{"user", "operator", "password", "s3cret", "security_policy", "None"}, ""},
		{"wrong password", []any{"user", "operator", "password", "x", "security_policy", "auto"}, "BadUserAccessDenied"},
		{"no such file", []any{"user", "operator", "password_file", file + "2", "security_policy", "auto"}, "password file"},
		{"certificate", []any{"user_certificate", filepath.Join(dir, "user.pem"), "user_key", filepath.Join(dir, "user.key"), "security_policy", "Aes256_Sha256_RsaPss"}, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := openSession(t, a, settingsFor(p.addr(), append(tc.set, "timeout", "20s")...))
			if tc.fail == "" {
				if got := readAll(t, s, node("Int32"))[0]; got.Quality != point.Good {
					t.Errorf("%s: %s", got.Quality, got.Detail)
				}
				return
			}
			if got := reason(t, s); !strings.Contains(got, tc.fail) {
				t.Errorf("refused with %q, want %q", got, tc.fail)
			}
		})
	}
}

// TestAcceptanceTrust: a server that is not trusted is refused and kept for
// a person to look at; trusting it makes the session come up by itself.
func TestAcceptanceTrust(t *testing.T) {
	t.Parallel()
	p := sharedPeer(t)
	a := newAdapter(t)
	s := openSession(t, a, settingsFor(p.addr(), "security_policy", "Basic256Sha256", "refused_max", "200ms", "timeout", "20s"))
	got := reason(t, s)
	if !strings.Contains(got, "not trusted") {
		t.Errorf("refused with %q", got)
	}
	store, _ := a.store()
	list, err := store.List()
	if err != nil || len(list) != 1 || list[0].Trusted || list[0].URI != serverURI {
		t.Fatalf("the store has %+v, %v", list, err)
	}
	g, _ := s.Group([]point.Tag{node("Int32")})
	out := make([]point.Sample, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	g.Read(ctx, out)
	if !out[0].Quality.Bad() || !strings.Contains(out[0].Detail, "not trusted") {
		t.Errorf("a read gives %+v", out[0])
	}
	if _, err := store.Trust(list[0].Thumbprint[:8]); err != nil {
		t.Fatal(err)
	}
	if got := readAll(t, s, node("Int32"))[0]; got.Quality != point.Good {
		eventually(t, "a session", func() bool { return s.Status().Connected })
	}
	if _, err := store.Reject(list[0].Thumbprint); err != nil {
		t.Fatal(err)
	}
	other := openSession(t, a, settingsFor(p.addr(), "security_policy", "Basic256Sha256"))
	if got := reason(t, other); !strings.Contains(got, "not trusted") {
		t.Errorf("after it was rejected: %q", got)
	}
}

// TestAcceptanceRenewal: the channel's keys are renewed many times, and no value
// is lost. With HOLDFAST_LONG the lifetime is one minute and the test takes ten.
func TestAcceptanceRenewal(t *testing.T) {
	t.Parallel()
	life, long := "2s", 12*time.Second
	if os.Getenv("HOLDFAST_LONG") != "" {
		life, long = "60s", 10*time.Minute
	}
	p := sharedPeer(t)
	a := newAdapter(t, p.cert)
	s := openSession(t, a, settingsFor(p.addr(), "security_policy", "Basic256Sha256", "channel_lifetime", life,
		"publishing_interval", "100ms", "timeout", "20s", "keep_alive", "5s"))
	r, stop := subscribe(t, s, counting("Tick1"))
	eventually(t, "values", func() bool { return len(r.of(0)) > 0 })
	first := s.Status().Since
	time.Sleep(long)
	st := s.Status()
	stop()
	values, lost := steady(t, r.of(0))
	t.Logf("%d values, %d lost in %s under a lifetime of %s", values, lost, long, life)
	if lost > 0 || float64(values) < 0.8*float64(long/(100*time.Millisecond)) {
		t.Errorf("%d values, %d lost", values, lost)
	}
	if !st.Connected || !st.Since.Equal(first) {
		t.Errorf("the connection was made again: %+v", st)
	}
}
