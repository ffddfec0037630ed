package trust

import (
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
)

// An Entry is one certificate of the store, for people.
type Entry struct {
	Thumbprint string
	Subject    string
	URI        string // application URI; "" = it names none
	Hosts      []string
	NotBefore  time.Time
	NotAfter   time.Time
	Authority  bool
	Trusted    bool // false = rejected
}

// ErrNoSuch says that no certificate has such a thumbprint.
var ErrNoSuch = errors.New("no such certificate")

// List returns what is trusted and what was rejected, in this order.
func (s *Store) List() (out []Entry, err error) {
	for _, folder := range []string{trusted, rejected} {
		certs, err := s.read(folder)
		if err != nil {
			return nil, err
		}
		for _, c := range certs {
			out = append(out, entry(c, folder == trusted))
		}
	}
	return out, nil
}

func entry(c *x509.Certificate, believed bool) Entry {
	e := Entry{
		Thumbprint: Thumbprint(c.Raw), Subject: c.Subject.String(), Hosts: c.DNSNames,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Authority: c.IsCA && c.BasicConstraintsValid, Trusted: believed,
	}
	if len(c.URIs) > 0 {
		e.URI = c.URIs[0].String()
	}
	for _, ip := range c.IPAddresses {
		e.Hosts = append(e.Hosts, ip.String())
	}
	return e
}

// Trust moves a certificate from rejected/ to trusted/. It is named by its
// thumbprint or by the beginning of it that only it has.
func (s *Store) Trust(thumbprint string) (Entry, error) { return s.move(thumbprint, rejected, trusted) }

// Reject moves a certificate from trusted/ to rejected/. Sessions that are open
// go on; the next connection is refused.
func (s *Store) Reject(thumbprint string) (Entry, error) {
	return s.move(thumbprint, trusted, rejected)
}

// Add puts a certificate, DER or PEM, into trusted/.
func (s *Store) Add(data []byte) (Entry, error) {
	c, err := x509.ParseCertificate(unwrap(data))
	if err != nil {
		return Entry{}, fmt.Errorf("certificate: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return entry(c, true), s.save(trusted, Thumbprint(c.Raw)+".der", c.Raw)
}

// Remove deletes a certificate from trusted/ or rejected/.
func (s *Store) Remove(thumbprint string) (Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, folder := range []string{trusted, rejected} {
		f, c, err := s.find(folder, thumbprint)
		if errors.Is(err, ErrNoSuch) {
			continue
		}
		if err != nil {
			return Entry{}, err
		}
		return entry(c, folder == trusted), s.remove(folder, f.name)
	}
	return Entry{}, fmt.Errorf("%w: %q", ErrNoSuch, thumbprint)
}

func (s *Store) move(thumbprint, from, to string) (Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f, c, err := s.find(from, thumbprint)
	if err != nil {
		return Entry{}, err
	}
	if err := s.save(to, Thumbprint(c.Raw)+".der", c.Raw); err != nil {
		return Entry{}, err
	}
	return entry(c, to == trusted), s.remove(from, f.name)
}

func (s *Store) remove(folder, name string) error {
	dir := path.Join(s.dir, folder)
	err := s.fs.Remove(path.Join(dir, name))
	if err == nil {
		err = s.fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("certificate store: %w", err)
	}
	return nil
}

// find looks for the one certificate whose thumbprint begins so.
func (s *Store) find(folder, thumbprint string) (found file, cert *x509.Certificate, err error) {
	prefix := strings.ToLower(strings.ReplaceAll(strings.TrimSpace(thumbprint), ":", ""))
	files, err := s.files(folder)
	if err != nil {
		return file{}, nil, err
	}
	for _, f := range files {
		c, err := x509.ParseCertificate(unwrap(f.data))
		if err != nil || prefix == "" || !strings.HasPrefix(Thumbprint(c.Raw), prefix) {
			continue
		}
		if cert != nil && !cert.Equal(c) {
			return file{}, nil, fmt.Errorf("thumbprint %q is that of several certificates", thumbprint)
		}
		found, cert = f, c
	}
	if cert == nil {
		return file{}, nil, fmt.Errorf("%w: %q in %s", ErrNoSuch, thumbprint, folder)
	}
	return found, cert, nil
}
