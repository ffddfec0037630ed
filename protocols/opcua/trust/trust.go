// Package trust keeps the certificates of an OPC UA client: its own, and which
// servers it believes (OPC 10000-12, F.1: a certificate store of folders).
//
//	own/       cert.der and key.pem, made and renewed by [Store.Own]
//	trusted/   servers that are believed, and authorities whose servers are
//	issuers/   intermediate authorities that are not believed by themselves
//	crl/       revocation lists of authorities
//	rejected/  what was offered and refused, for a person to look at
//
// Files are DER, named by the SHA-1 thumbprint; a file of any other name ending in
// .der, .crt, .cer or .pem that a person put there counts as well. Folders are read
// for every new connection, so that a change takes effect by itself.
package trust

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
)

// The folders of a store.
const (
	own      = "own"
	trusted  = "trusted"
	issuers  = "issuers"
	lists    = "crl"
	rejected = "rejected"
)

// maxRejected bounds the folder of what was refused: beyond it another entry
// makes room, since whoever can reach us can offer any number of certificates.
const maxRejected = 100

// maxFile bounds a file that is read from the store.
const maxFile = 1 << 20

// A Store is a certificate store in one folder. Its methods may be called from
// many goroutines.
type Store struct {
	fs  disk.FS
	dir string
	clk clock.Clock
	mu  sync.Mutex // one change at a time
}

// Open makes the folders that are missing.
func Open(fs disk.FS, dir string, clk clock.Clock) (*Store, error) {
	s := &Store{fs: fs, dir: dir, clk: clk}
	for _, sub := range []string{own, trusted, issuers, lists, rejected} {
		if err := fs.MkdirAll(path.Join(dir, sub)); err != nil {
			return nil, fmt.Errorf("certificate store: %w", err)
		}
	}
	return s, nil
}

// A Peer is what a server's certificate must say.
type Peer struct {
	URI  string // the ApplicationUri that its endpoint announced
	Host string // the host by which we reach it, name or address; "" = any
}

// A Refusal says why a certificate is not believed.
type Refusal struct {
	Thumbprint string // under which it lies in rejected/
	Subject    string
	Reason     string
}

// Error tells the reason and what to do.
func (r *Refusal) Error() string {
	return fmt.Sprintf("server certificate %s (%s) refused: %s", r.Thumbprint, r.Subject, r.Reason)
}

// Check decides about a server's certificate, given as DER, leaf first. It
// returns nil, or a [*Refusal] after it has put the certificate into rejected/.
func (s *Store) Check(der []byte, want Peer) error {
	chain, err := x509.ParseCertificates(der)
	if err != nil || len(chain) == 0 {
		return &Refusal{Thumbprint: Thumbprint(der), Subject: "unreadable", Reason: "it is not an X.509 certificate"}
	}
	leaf := chain[0]
	reason := s.judge(chain, want)
	if reason == nil {
		return nil
	}
	r := &Refusal{Thumbprint: Thumbprint(leaf.Raw), Subject: leaf.Subject.String(), Reason: reason.Error()}
	if err := s.keepRejected(leaf.Raw); err != nil {
		return errors.Join(r, err)
	}
	return r
}

// judge does the checks of OPC 10000-4, 6.1.3, cheapest first.
func (s *Store) judge(chain []*x509.Certificate, want Peer) error {
	leaf, now := chain[0], s.clk.Now()
	key, ok := leaf.PublicKey.(*rsa.PublicKey)
	switch {
	case !ok:
		return errors.New("its key is not RSA")
	case key.N.BitLen() < 2048:
		return fmt.Errorf("its key has %d bits, 2048 are the least", key.N.BitLen())
	}
	if err := s.believed(chain, now); err != nil {
		return err
	}
	switch {
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("it is valid from %s, and it is %s here", leaf.NotBefore.Format(time.RFC3339), now.Format(time.RFC3339))
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it expired at %s", leaf.NotAfter.Format(time.RFC3339))
	}
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	if leaf.KeyUsage != 0 && leaf.KeyUsage&usage == 0 {
		return errors.New("its key may neither sign nor encrypt")
	}
	if err := sameURI(leaf, want.URI); err != nil {
		return err
	}
	if want.Host != "" {
		if err := sameHost(leaf, want.Host); err != nil {
			return err
		}
	}
	return nil
}

func sameURI(leaf *x509.Certificate, want string) error {
	if want == "" {
		return errors.New("the server does not say its application URI")
	}
	var has []string
	for _, u := range leaf.URIs {
		has = append(has, u.String())
		if u.String() == want {
			return nil
		}
	}
	if len(has) == 0 {
		return errors.New("it names no application URI")
	}
	return fmt.Errorf("it is for application %q, the server says %q", has, want)
}

// sameHost compares a host with the names and addresses of a certificate. Names
// compare without case, as they are: wildcards are not for applications.
func sameHost(leaf *x509.Certificate, host string) error {
	ip := net.ParseIP(strings.Trim(host, "[]"))
	for _, have := range leaf.IPAddresses {
		if ip != nil && have.Equal(ip) {
			return nil
		}
	}
	for _, name := range leaf.DNSNames {
		if strings.EqualFold(name, host) {
			return nil
		}
	}
	return fmt.Errorf("it is not for host %q but for %q %v", host, leaf.DNSNames, leaf.IPAddresses)
}

// believed reports why neither the certificate itself nor an authority above it
// is in trusted/.
func (s *Store) believed(chain []*x509.Certificate, now time.Time) error {
	leaf := chain[0]
	have, err := s.read(trusted)
	if err != nil {
		return err
	}
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range have {
		if bytes.Equal(c.Raw, leaf.Raw) {
			return nil
		}
		if c.IsCA && c.BasicConstraintsValid {
			roots.AddCert(c)
		}
	}
	more, err := s.read(issuers)
	if err != nil {
		return err
	}
	for _, c := range append(more, chain[1:]...) {
		middle.AddCert(c)
	}
	// The lifetime of the leaf is judged apart, with its own reason.
	at := now
	if at.Before(leaf.NotBefore) || at.After(leaf.NotAfter) {
		at = leaf.NotBefore
	}
	paths, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: middle, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return errors.New("it is not trusted")
	}
	return s.revoked(paths[0])
}

// revoked looks a path up in the revocation lists that are there.
func (s *Store) revoked(path []*x509.Certificate) error {
	files, err := s.files(lists)
	if err != nil {
		return err
	}
	for _, f := range files {
		list, err := x509.ParseRevocationList(unwrap(f.data))
		if err != nil {
			continue // not a list: somebody's note
		}
		for i := 0; i+1 < len(path); i++ {
			if list.CheckSignatureFrom(path[i+1]) != nil {
				continue
			}
			for _, e := range list.RevokedCertificateEntries {
				if e.SerialNumber.Cmp(path[i].SerialNumber) == 0 {
					return fmt.Errorf("it was revoked at %s", e.RevocationTime.Format(time.RFC3339))
				}
			}
		}
	}
	return nil
}

// Thumbprint returns the SHA-1 of a DER certificate in lower-case hex, by which
// OPC UA tools name it.
func Thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return hex.EncodeToString(sum[:])
}

// file is one file of a folder.
type file struct {
	name string
	data []byte
}

// files reads the certificate files of a folder.
func (s *Store) files(folder string) (out []file, err error) {
	dir := path.Join(s.dir, folder)
	names, err := s.fs.List(dir)
	if err != nil {
		return nil, fmt.Errorf("certificate store: %w", err)
	}
	for _, name := range names {
		switch strings.ToLower(path.Ext(name)) {
		case ".der", ".crt", ".cer", ".pem", ".crl":
		default:
			continue
		}
		data, err := s.load(path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("certificate store: %w", err)
		}
		out = append(out, file{name, data})
	}
	return out, nil
}

func (s *Store) load(name string) ([]byte, error) {
	f, err := s.fs.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > maxFile {
		return nil, fmt.Errorf("%q has %d bytes, more than a certificate", name, size)
	}
	data := make([]byte, size)
	if _, err := f.ReadAt(data, 0); err != nil {
		return nil, fmt.Errorf("%q: %w", name, err)
	}
	return data, nil
}

// unwrap returns the DER in PEM, or what it was given.
func unwrap(data []byte) []byte {
	if block, _ := pem.Decode(data); block != nil {
		return block.Bytes
	}
	return data
}

// read parses a folder; what is not a certificate is passed over.
func (s *Store) read(folder string) (out []*x509.Certificate, err error) {
	files, err := s.files(folder)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if c, err := x509.ParseCertificate(unwrap(f.data)); err == nil {
			out = append(out, c)
		}
	}
	return out, nil
}

// save writes a file so that it is there whole or not at all.
func (s *Store) save(folder, name string, data []byte) error {
	dir := path.Join(s.dir, folder)
	temp, final := path.Join(dir, name+".new"), path.Join(dir, name)
	_ = s.fs.Remove(temp) // of an attempt that was interrupted
	f, err := s.fs.Create(temp)
	if err != nil {
		return fmt.Errorf("certificate store: %w", err)
	}
	_, err = f.WriteAt(data, 0)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.fs.Rename(temp, final)
	}
	if err == nil {
		err = s.fs.SyncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("certificate store: %w", err)
	}
	return nil
}

func (s *Store) keepRejected(der []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	names, err := s.fs.List(path.Join(s.dir, rejected))
	if err != nil {
		return fmt.Errorf("certificate store: %w", err)
	}
	name := Thumbprint(der) + ".der"
	if slices.Contains(names, name) {
		return nil // a flash does not like being told the same every second
	}
	if len(names) >= maxRejected {
		if err := s.fs.Remove(path.Join(s.dir, rejected, names[0])); err != nil {
			return fmt.Errorf("certificate store: %w", err)
		}
	}
	return s.save(rejected, name, der)
}

// uris parses one URI for a certificate.
func uris(text string) ([]*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme == "" {
		return nil, fmt.Errorf("application URI %q is not a URI", text)
	}
	return []*url.URL{u}, nil
}
