package cli

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"holdfast/cmd/holdfast/internal/config"
	"holdfast/cmd/holdfast/internal/fielddaemon"
	"holdfast/cmd/internal/table"
	"holdfast/drivers/clock"
	"holdfast/drivers/disk"
	"holdfast/protocols/opcua/trust"
)

const usageTrust = `
Usage:
    holdfast trust list                 certificates and what is thought of them
    holdfast trust add FILE             trust a certificate, or an authority
    holdfast trust accept THUMBPRINT    trust one that was rejected
    holdfast trust reject THUMBPRINT    trust one no longer
    holdfast trust remove THUMBPRINT    forget one

Says which OPC UA servers are believed. A server whose certificate nobody
trusts is refused, and its certificate is kept for a person to look at:
compare its thumbprint with what the server shows, then accept it. The first
letters of a THUMBPRINT will do. What changes holds from the next connection
on; the field daemon need not be restarted. Run it as the field daemon's user:
the certificates are in its data directory.

Examples:
    $ holdfast trust list
    $ holdfast trust accept 3fa9
    $ holdfast trust add plant-authority.pem
`

const usageTrustList = `
Usage:
    holdfast trust list [--json]

Shows which certificates of OPC UA servers are trusted, authorities among
them, and which were rejected.
`

const usageTrustAdd = `
Usage:
    holdfast trust add FILE

Trusts the certificate in FILE, DER or PEM. Of an authority, every server that
it has signed is believed.
`

const usageTrustAccept = `
Usage:
    holdfast trust accept THUMBPRINT

Trusts a certificate that was rejected.
`

const usageTrustReject = `
Usage:
    holdfast trust reject THUMBPRINT

Trusts a certificate no longer. A connection that is open goes on; the next one
is refused.
`

const usageTrustRemove = `
Usage:
    holdfast trust remove THUMBPRINT

Forgets a certificate, trusted or rejected.
`

// maxCertificate bounds a file that is read as a certificate.
const maxCertificate = 1 << 20

// certificateJSON is one certificate as trust prints it.
type certificateJSON struct {
	Thumbprint string    `json:"thumbprint"`
	Trusted    bool      `json:"trusted"`
	Authority  bool      `json:"authority"`
	Subject    string    `json:"subject"`
	URI        string    `json:"uri,omitempty"`
	Hosts      []string  `json:"hosts,omitempty"`
	NotBefore  time.Time `json:"not_before"`
	NotAfter   time.Time `json:"not_after"`
}

func certificateOf(e trust.Entry) certificateJSON {
	return certificateJSON{Thumbprint: e.Thumbprint, Trusted: e.Trusted, Authority: e.Authority, Subject: e.Subject, URI: e.URI,
		Hosts: e.Hosts, NotBefore: e.NotBefore.UTC(), NotAfter: e.NotAfter.UTC()}
}

func (a *app) trustCommand() *cobra.Command {
	return group("trust", "which OPC UA servers are believed", usageTrust,
		verb("list", "certificates that are trusted or were rejected", usageTrustList, cobra.NoArgs, func(*cobra.Command, []string) error {
			return a.listTrust()
		}),
		verb("add FILE", "trust the certificate in a file", usageTrustAdd, cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
			return a.addTrust(args[0])
		}),
		a.changeTrust("accept", "trust a certificate that was rejected", usageTrustAccept, "is trusted", (*trust.Store).Trust),
		a.changeTrust("reject", "trust a certificate no longer", usageTrustReject, "is rejected", (*trust.Store).Reject),
		a.changeTrust("remove", "forget a certificate", usageTrustRemove, "is removed", (*trust.Store).Remove),
	)
}

// changeTrust makes a verb that changes what is thought of one certificate.
func (a *app) changeTrust(name, short, long, done string, change func(*trust.Store, string) (trust.Entry, error)) *cobra.Command {
	return verb(name+" THUMBPRINT", short, long, cobra.ExactArgs(1), func(_ *cobra.Command, args []string) error {
		store, there, err := a.openTrust(false)
		if err != nil {
			return err
		}
		e := trust.Entry{}
		if err = fmt.Errorf("%w: %q", trust.ErrNoSuch, args[0]); there {
			e, err = change(store, args[0])
		}
		if errors.Is(err, trust.ErrNoSuch) {
			return usage(err, "see \"holdfast trust list\"")
		}
		if err != nil {
			return err
		}
		return a.printTrust(e, done)
	})
}

// openTrust opens the store of the configured data directory. One that is not
// there is made only for changing it: looking makes nothing.
func (a *app) openTrust(create bool) (store *trust.Store, there bool, err error) {
	data, err := config.DataDir(a.config, os.ReadFile)
	if err != nil {
		return nil, false, err
	}
	dir := fielddaemon.DataDir(data)
	if !create {
		_, err := os.Stat(filepath.Join(dir, trustDir))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, false, nil
		}
		if err != nil {
			return nil, false, err
		}
	} else if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, false, err
	}
	host, err := disk.OpenHost(dir)
	if err != nil {
		return nil, false, err
	}
	store, err = trust.Open(host, trustDir, clock.NewReal())
	return store, err == nil, err
}

func (a *app) listTrust() error {
	store, there, err := a.openTrust(false)
	if err != nil {
		return err
	}
	var entries []trust.Entry
	if there {
		if entries, err = store.List(); err != nil {
			return err
		}
	}
	list, rows := []certificateJSON{}, [][]string{}
	for _, e := range entries {
		list = append(list, certificateOf(e))
		state := "rejected"
		switch {
		case e.Trusted && e.Authority:
			state = "authority"
		case e.Trusted:
			state = "trusted"
		}
		rows = append(rows, []string{e.Thumbprint, state, e.NotAfter.UTC().Format(time.DateOnly), e.URI, strings.Join(e.Hosts, " "), e.Subject})
	}
	switch {
	case a.json:
		return a.printJSON(list)
	case len(rows) == 0:
		a.printf("no certificates\n")
	default:
		table.Write(a.Out, a.Width(), []table.Column{{Title: "THUMBPRINT"}, {Title: "STATE"}, {Title: "UNTIL"}, {Title: "URI"}, {Title: "HOSTS", Give: true},
			{Title: "SUBJECT", Give: true}}, rows)
	}
	return nil
}

func (a *app) addTrust(file string) error {
	data, err := readAtMost(file, maxCertificate)
	if err != nil {
		return usage(err)
	}
	// What is no certificate is told before anything is made.
	if _, err := trust.ParseCertificate(data); err != nil {
		return usage(fmt.Errorf("%q: %w", file, err), "it is a certificate, as DER or PEM")
	}
	store, _, err := a.openTrust(true)
	if err != nil {
		return err
	}
	e, err := store.Add(data)
	if err != nil {
		return err
	}
	return a.printTrust(e, "is trusted")
}

func (a *app) printTrust(e trust.Entry, done string) error {
	if a.json {
		return a.printJSON(certificateOf(e))
	}
	a.printf("%s (%s) %s\n", e.Thumbprint, e.Subject, done)
	return nil
}

// readAtMost reads a file that a person names.
func readAtMost(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%q has more than %d bytes", name, limit)
	}
	return data, err
}
