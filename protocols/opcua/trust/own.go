package trust

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"path"
	"slices"
	"time"
)

// An Identity is what our own certificate says.
type Identity struct {
	URI   string        // ApplicationUri, such as "urn:gw-17:holdfast"
	Name  string        // common name; "" = holdfast
	Hosts []string      // host names and addresses of this machine
	Life  time.Duration // of a new certificate; 0 = five years
}

const (
	certFile = "cert.der"
	keyFile  = "key.pem"
	keyBits  = 2048 // what all three policies take
)

// Own returns our application instance certificate and its key. It makes them
// when there are none, and makes a new certificate for the same key when the
// old one says something else than id or has less than a fifth of its life left.
// Servers that trust the old certificate must be told of the new one.
func (s *Store) Own(id Identity) (der []byte, key *rsa.PrivateKey, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if key, err = s.ownKey(); err != nil {
		return nil, nil, err
	}
	der, err = s.load(path.Join(s.dir, own, certFile))
	if err == nil && s.fits(der, key, id) {
		return der, key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("own certificate: %w", err)
	}
	if der, err = s.issue(key, id); err != nil {
		return nil, nil, fmt.Errorf("own certificate: %w", err)
	}
	return der, key, s.save(own, certFile, der)
}

// ownKey loads the key or makes one.
func (s *Store) ownKey() (*rsa.PrivateKey, error) {
	data, err := s.load(path.Join(s.dir, own, keyFile))
	if errors.Is(err, fs.ErrNotExist) {
		key, err := rsa.GenerateKey(rand.Reader, keyBits)
		if err != nil {
			return nil, fmt.Errorf("own key: %w", err)
		}
		raw, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("own key: %w", err)
		}
		return key, s.save(own, keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}))
	}
	if err != nil {
		return nil, fmt.Errorf("own key: %w", err)
	}
	return ParseKey(data)
}

// ParseKey reads an RSA key, PKCS #8 or PKCS #1, PEM or DER.
func ParseKey(data []byte) (*rsa.PrivateKey, error) {
	der := unwrap(data)
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	any, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("private key: %w", err)
	}
	key, ok := any.(*rsa.PrivateKey)
	if !ok {
		return nil, errors.New("private key: it is not RSA")
	}
	return key, nil
}

// ParseCertificate reads a certificate, PEM or DER, and returns its DER.
func ParseCertificate(data []byte) ([]byte, error) {
	c, err := x509.ParseCertificate(unwrap(data))
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return c.Raw, nil
}

// fits reports whether a certificate is for the key, says what id says, and
// will do for a while.
func (s *Store) fits(der []byte, key *rsa.PrivateKey, id Identity) bool {
	c, err := x509.ParseCertificate(der)
	if err != nil || !key.PublicKey.Equal(c.PublicKey) || len(c.URIs) != 1 || c.URIs[0].String() != id.URI {
		return false
	}
	for _, h := range id.Hosts {
		if sameHost(c, h) != nil {
			return false
		}
	}
	now := s.clk.Now()
	left := c.NotAfter.Sub(now)
	return !now.Before(c.NotBefore) && left > c.NotAfter.Sub(c.NotBefore)/5
}

// issue signs a certificate with its own key. The key usages are those of
// OPC 10000-6, 6.2.2.
func (s *Store) issue(key *rsa.PrivateKey, id Identity) ([]byte, error) {
	uri, err := uris(id.URI)
	if err != nil {
		return nil, err
	}
	life := id.Life
	if life <= 0 {
		life = 5 * 365 * 24 * time.Hour
	}
	name := id.Name
	if name == "" {
		name = "holdfast"
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := s.clk.Now()
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: name, Organization: []string{"Holdfast"}},
		NotBefore:    now.Add(-24 * time.Hour), // the clocks of field devices are not good
		NotAfter:     now.Add(life),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		URIs:                  uri,
	}
	for _, h := range slices.Compact(slices.Sorted(slices.Values(id.Hosts))) {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else if h != "" {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
}
