// Package credentials reads what an upstream proves itself with. Files are read
// anew for each connection, so a renewed certificate needs no restart.
package credentials

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
)

// Options say what there is.
type Options struct {
	Password     string
	PasswordFile string // its last newline is cut
	CAFile       string // PEM; "" means the system's roots
	CertFile     string // PEM
	KeyFile      string // PEM
	ServerName   string // in the server's certificate, when not the host in its address
}

// Check returns what cannot work together, each naming its key of the settings.
func (o Options) Check() error {
	var errs []error
	if o.Password != "" && o.PasswordFile != "" {
		errs = append(errs, errors.New(`"password_file": there is a password already`))
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		errs = append(errs, errors.New(`"certificate" and "key" go together`))
	}
	return errors.Join(errs...)
}

// Read reads the files; readFile nil means that none can be used.
func (o Options) Read(readFile func(string) ([]byte, error)) (t *tls.Config, password []byte, err error) {
	if readFile == nil {
		readFile = func(string) ([]byte, error) { return nil, errors.New("files cannot be read here") }
	}
	password = []byte(o.Password)
	if o.PasswordFile != "" {
		b, err := readFile(o.PasswordFile)
		if err != nil {
			return nil, nil, fmt.Errorf("password: %w", err)
		}
		password = []byte(strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"))
	}
	t = &tls.Config{ServerName: o.ServerName}
	if o.CAFile != "" {
		b, err := readFile(o.CAFile)
		if err != nil {
			return nil, nil, fmt.Errorf("authority: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(b) {
			return nil, nil, fmt.Errorf("authority: %q holds no certificate", o.CAFile)
		}
	}
	if o.CertFile == "" {
		return t, password, nil
	}
	cert, err := readFile(o.CertFile)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate: %w", err)
	}
	key, err := readFile(o.KeyFile)
	if err != nil {
		return nil, nil, fmt.Errorf("key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, nil, fmt.Errorf("certificate %q: %w", o.CertFile, err)
	}
	t.Certificates = []tls.Certificate{pair}
	return t, password, nil
}
