package trust

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock/clocktest"
	"holdfast/drivers/disk/disktest"
)

var today = time.Date(2024, 6, 1, 12, 0, 0, 0, time.UTC)

// testKey is made once: keys are dear.
var testKey = sync.OnceValue(func() *rsa.PrivateKey {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return key
})

type maker struct {
	key    *rsa.PrivateKey
	ca     bool
	uri    string
	host   string
	from   time.Time
	to     time.Time
	usage  x509.KeyUsage
	serial int64
}

func make1(t *testing.T, m maker, parent *x509.Certificate) *x509.Certificate {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(m.serial + 1), Subject: pkix.Name{CommonName: fmt.Sprintf("c%d", m.serial)},
		NotBefore: m.from, NotAfter: m.to, BasicConstraintsValid: true, IsCA: m.ca, KeyUsage: m.usage,
		SubjectKeyId: []byte{byte(m.serial), 1},
	}
	if m.uri != "" {
		u, err := url.Parse(m.uri)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = []*url.URL{u}
	}
	if ip := net.ParseIP(m.host); ip != nil {
		c.IPAddresses = []net.IP{ip}
	} else if m.host != "" {
		c.DNSNames = []string{m.host}
	}
	if parent == nil {
		parent = c
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &m.key.PublicKey, testKey())
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func good() maker {
	return maker{
		key: testKey(), uri: "urn:plc", host: "plc.local", from: today.Add(-time.Hour), to: today.Add(time.Hour),
		usage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
	}
}

func open(t *testing.T) (*Store, *disktest.FS, *clocktest.Fake) {
	t.Helper()
	fs, clk := disktest.New(), clocktest.New(today)
	s, err := Open(fs, "opcua", clk)
	if err != nil {
		t.Fatal(err)
	}
	return s, fs, clk
}

var peer = Peer{URI: "urn:plc", Host: "plc.local"}

// TestCheck: what is refused, and why.
func TestCheck(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change  func(m *maker)
		unknown bool
		peer    Peer
		reason  string
	}{
		"good":           {func(*maker) {}, false, peer, ""},
		"by address":     {func(m *maker) { m.host = "10.0.0.7" }, false, Peer{"urn:plc", "10.0.0.7"}, ""},
		"host unchecked": {func(m *maker) { m.host = "" }, false, Peer{"urn:plc", ""}, ""},
		"case of a host": {func(*maker) {}, false, Peer{"urn:plc", "PLC.local"}, ""},
		"unknown":        {func(*maker) {}, true, peer, "not trusted"},
		"expired":        {func(m *maker) { m.to = today.Add(-time.Minute) }, false, peer, "expired"},
		"not yet valid":  {func(m *maker) { m.from = today.Add(time.Minute) }, false, peer, "valid from"},
		"other URI":      {func(m *maker) { m.uri = "urn:other" }, false, peer, "urn:other"},
		"no URI":         {func(m *maker) { m.uri = "" }, false, peer, "no application URI"},
		"server silent":  {func(*maker) {}, false, Peer{"", "plc.local"}, "does not say"},
		"other host":     {func(*maker) {}, false, Peer{"urn:plc", "plc2.local"}, "not for host"},
		"host in prefix": {func(*maker) {}, false, Peer{"urn:plc", "plc.local.evil"}, "not for host"},
		"weak key":       {func(m *maker) { m.key = small }, false, peer, "1024 bits"},
		"signs nothing":  {func(m *maker) { m.usage = x509.KeyUsageCRLSign }, false, peer, "neither sign nor encrypt"},
	} {
		t.Run(name, func(t *testing.T) {
			s, _, _ := open(t)
			m := good()
			tc.change(&m)
			c := make1(t, m, nil)
			if !tc.unknown {
				if _, err := s.Add(c.Raw); err != nil {
					t.Fatal(err)
				}
			}
			err := s.Check(c.Raw, tc.peer)
			if tc.reason == "" {
				if err != nil {
					t.Errorf("refused: %v", err)
				}
				return
			}
			var r *Refusal
			if !errors.As(err, &r) || !strings.Contains(r.Reason, tc.reason) {
				t.Fatalf("%v, want %q", err, tc.reason)
			}
			kept := false
			list, err := s.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range list {
				kept = kept || e.Thumbprint == r.Thumbprint && !e.Trusted
			}
			if !kept {
				t.Errorf("it is not in rejected/: %+v", list)
			}
		})
	}
}

func TestCheckRefusesRubbish(t *testing.T) {
	s, _, _ := open(t)
	for _, der := range [][]byte{nil, {1, 2, 3}, bytes.Repeat([]byte{0x30}, 1000)} {
		if err := s.Check(der, peer); err == nil {
			t.Errorf("% x is believed", der[:min(3, len(der))])
		}
	}
}

// TestAuthority: a server below a trusted authority is believed, until it is
// revoked; one below an issuer alone is not.
func TestAuthority(t *testing.T) {
	s, fs, clk := open(t)
	ca := good()
	ca.ca, ca.serial, ca.usage, ca.uri = true, 10, x509.KeyUsageCertSign|x509.KeyUsageCRLSign, ""
	root := make1(t, ca, nil)
	server := make1(t, good(), root)
	if err := s.Check(server.Raw, peer); err == nil {
		t.Error("believed without its authority")
	}
	if err := s.save(issuers, "root.der", root.Raw); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(server.Raw, peer); err == nil {
		t.Error("believed with its authority among the issuers only")
	}
	if err := s.save(trusted, "root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root.Raw})); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(server.Raw, peer); err != nil {
		t.Errorf("not believed with its authority: %v", err)
	}
	list, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{
		Number: big.NewInt(1), ThisUpdate: clk.Now(), NextUpdate: clk.Now().Add(time.Hour),
		RevokedCertificateEntries: []x509.RevocationListEntry{{SerialNumber: server.SerialNumber, RevocationTime: clk.Now()}},
	}, root, testKey())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.save(lists, "root.crl", list); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(server.Raw, peer); err == nil || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("after it was revoked: %v", err)
	}
	_ = fs
}

// TestMove: trust, reject and remove by the beginning of the thumbprint.
func TestMove(t *testing.T) {
	s, _, _ := open(t)
	c := make1(t, good(), nil)
	thumb := Thumbprint(c.Raw)
	_ = s.Check(c.Raw, peer)
	if _, err := s.Trust("ffff"); !errors.Is(err, ErrNoSuch) {
		t.Errorf("a thumbprint that is not there: %v", err)
	}
	if _, err := s.Trust(""); !errors.Is(err, ErrNoSuch) {
		t.Errorf("no thumbprint: %v", err)
	}
	colons := strings.ToUpper(thumb[:2] + ":" + thumb[2:4] + ":" + thumb[4:6])
	if e, err := s.Trust(colons); err != nil || e.Thumbprint != thumb || !e.Trusted || e.URI != "urn:plc" {
		t.Errorf("%+v, %v", e, err)
	}
	if err := s.Check(c.Raw, peer); err != nil {
		t.Errorf("after Trust: %v", err)
	}
	if e, err := s.Reject(thumb); err != nil || e.Trusted {
		t.Errorf("%+v, %v", e, err)
	}
	if err := s.Check(c.Raw, peer); err == nil {
		t.Error("believed after Reject")
	}
	if _, err := s.Remove(thumb); err != nil {
		t.Error(err)
	}
	if list, _ := s.List(); len(list) != 0 {
		t.Errorf("after Remove: %+v", list)
	}
}

// TestRejectedIsBounded: whoever can reach us cannot fill the medium.
func TestRejectedIsBounded(t *testing.T) {
	s, fs, _ := open(t)
	for i := range maxRejected {
		if err := s.save(rejected, fmt.Sprintf("%040d.der", i), []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	c := make1(t, good(), nil)
	for range 3 {
		if err := s.Check(c.Raw, peer); err == nil {
			t.Fatal("believed")
		}
	}
	names, err := fs.List(path.Join("opcua", rejected))
	if err != nil || len(names) != maxRejected {
		t.Errorf("%d files, %v", len(names), err)
	}
}

// TestOwn: the certificate is made, kept, and made anew in time or when we are
// called otherwise, for the same key.
func TestOwn(t *testing.T) {
	s, fs, clk := open(t)
	id := Identity{URI: "urn:gw:holdfast", Hosts: []string{"gw", "10.0.0.1"}, Life: 100 * time.Hour}
	first, key, err := s.Own(id)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(first)
	if err != nil {
		t.Fatal(err)
	}
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	if c.URIs[0].String() != id.URI || c.KeyUsage&usage != usage || len(c.ExtKeyUsage) != 2 || sameHost(c, "gw") != nil || sameHost(c, "10.0.0.1") != nil {
		t.Errorf("the certificate is %+v", c)
	}
	own := func(id Identity) []byte {
		t.Helper()
		der, k, err := s.Own(id)
		if err != nil {
			t.Fatal(err)
		}
		if !k.Equal(key) {
			t.Error("another key")
		}
		return der
	}
	if !bytes.Equal(own(id), first) {
		t.Error("another certificate without need")
	}
	clk.Advance(70 * time.Hour)
	if !bytes.Equal(own(id), first) {
		t.Error("renewed with more than a fifth left")
	}
	clk.Advance(10 * time.Hour)
	second := own(id)
	if bytes.Equal(second, first) {
		t.Error("not renewed")
	}
	id.URI = "urn:gw2:holdfast"
	third := own(id)
	if bytes.Equal(third, second) {
		t.Error("not made anew for another name")
	}
	clk.Jump(-1000 * 24 * time.Hour) // the clock was wrong when it was made
	if bytes.Equal(own(id), third) {
		t.Error("one that is not valid yet is kept")
	}
	names, _ := fs.List("opcua/own")
	if len(names) != 2 {
		t.Errorf("own/ has %q", names)
	}
	if _, _, err := s.Own(Identity{URI: "no uri"}); err == nil {
		t.Error("a name that is no URI is taken")
	}
}

// TestErrors: a medium that fails is an error and not a belief.
func TestErrors(t *testing.T) {
	s, fs, _ := open(t)
	c := make1(t, good(), nil)
	if _, err := s.Add(c.Raw); err != nil {
		t.Fatal(err)
	}
	boom := errors.New("boom")
	fs.Fail(disktest.OpRead, 1, 1000, boom)
	if err := s.Check(c.Raw, peer); err == nil {
		t.Error("believed although the store cannot be read")
	}
	fs.Heal()
	if err := s.Check(c.Raw, peer); err != nil {
		t.Errorf("after it healed: %v", err)
	}
	fs.Fail(disktest.OpSync, 1, 1000, boom)
	if _, _, err := s.Own(Identity{URI: "urn:x"}); !errors.Is(err, boom) {
		t.Errorf("a key that is not on the medium: %v", err)
	}
}
