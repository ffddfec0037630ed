package credentials_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/hub/client/clienttest"
	"holdfast/hub/upstream/internal/credentials"
)

func TestRead(t *testing.T) {
	m := clienttest.StartMosquitto(t, "")
	word := filepath.Join(t.TempDir(), "word")
	if err := os.WriteFile(word, []byte("secret\n\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := credentials.Options{PasswordFile: word, CAFile: m.CAFile, CertFile: m.CertFile, KeyFile: m.KeyFile, ServerName: "broker"}
	tls, password, err := o.Read(os.ReadFile)
	if err != nil || string(password) != "secret\n" || tls.ServerName != "broker" || tls.RootCAs == nil || len(tls.Certificates) != 1 {
		t.Errorf("%q, %+v, %v", password, tls, err)
	}
	tls, password, err = credentials.Options{Password: "p"}.Read(nil)
	if err != nil || string(password) != "p" || tls.RootCAs != nil || len(tls.Certificates) != 0 {
		t.Errorf("%q, %+v, %v", password, tls, err)
	}
}

func TestBad(t *testing.T) {
	broken := func(string) ([]byte, error) { return []byte("no PEM"), nil }
	missing := func(string) ([]byte, error) { return nil, fs.ErrNotExist }
	for _, c := range []struct {
		o    credentials.Options
		read func(string) ([]byte, error)
		want string
	}{
		{credentials.Options{CAFile: "ca"}, broken, `authority: "ca" holds no certificate`},
		{credentials.Options{CAFile: "ca"}, missing, "authority: "},
		{credentials.Options{CertFile: "c", KeyFile: "k"}, broken, `certificate "c"`},
		{credentials.Options{CertFile: "c", KeyFile: "k"}, missing, "certificate: "},
		{credentials.Options{PasswordFile: "p"}, missing, "password: "},
		{credentials.Options{PasswordFile: "p"}, nil, "files cannot be read here"},
	} {
		if _, _, err := c.o.Read(c.read); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.o, err, c.want)
		}
	}
	if _, _, err := (credentials.Options{CAFile: "x"}).Read(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
	err := credentials.Options{Password: "a", PasswordFile: "b", KeyFile: "k"}.Check()
	if err == nil || !strings.Contains(err.Error(), `"password_file"`) || !strings.Contains(err.Error(), `"certificate" and "key"`) {
		t.Error(err)
	}
	if err := (credentials.Options{PasswordFile: "b", CertFile: "c", KeyFile: "k"}).Check(); err != nil {
		t.Error(err)
	}
}
