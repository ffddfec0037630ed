// Package access decides who a client of the hub is and what it may do.
//
// A client is known by the owner of its unix socket connection, by a client
// certificate that the listener has verified, or by user name and password, in
// this order. What it may do is said by rules; what no rule allows is refused.
package access

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"

	"holdfast/hub/broker"
)

// Options are users, peers and rules. The zero value lets nobody in.
type Options struct {
	Users []User

	// Peers give names to the users of this machine, for connections by unix
	// socket. Their names are reserved: no password and no certificate gives
	// them.
	Peers []Peer

	// Certificates accepts client certificates that a listener has verified. A
	// certificate's name is its first URI, else its common name.
	Certificates bool

	// Anonymous is the identity of clients that bring no credentials. Empty:
	// they are refused.
	Anonymous string

	Rules []Rule

	// Hashing bounds how many passwords are checked at a time. Default 2.
	Hashing int
}

// A User is known by a password.
type User struct {
	Name     string
	Password string // as HashPassword or mosquitto_passwd (SHA512-PBKDF2) makes it
}

// A Peer is a user of this machine.
type Peer struct {
	UID  int
	Name string // such as "field" or "cli"
}

// A Rule allows something to an identity, or to everyone.
//
// In filters %u stands for the identity and %c for the client identifier; a
// filter whose value has one of / + # in it does not apply. A publication is
// allowed when its topic matches a filter; a subscription when everything that
// it could match does.
type Rule struct {
	Who       string // an identity, or * for everyone who is let in
	Publish   []string
	Subscribe []string
}

// Access is an authenticator for the hub. It is immutable but for its cache of
// checked passwords.
type Access struct {
	o         Options
	users     map[string]hash
	peers     map[int]string
	reserved  map[string]bool
	passwords *passwords
}

// New checks the options.
func New(o Options) (*Access, error) {
	a := &Access{o: o, users: map[string]hash{}, peers: map[int]string{}, reserved: map[string]bool{}}
	var errs []error
	for _, p := range o.Peers {
		if err := checkName(p.Name); err != nil {
			errs = append(errs, fmt.Errorf("peer with uid %d: %w", p.UID, err))
		}
		if other, taken := a.peers[p.UID]; taken {
			errs = append(errs, fmt.Errorf("uid %d is both %q and %q", p.UID, other, p.Name))
		}
		a.peers[p.UID] = p.Name
		a.reserved[p.Name] = true
	}
	for _, u := range o.Users {
		h, err := parseHash(u.Password)
		switch {
		case err != nil:
			errs = append(errs, fmt.Errorf("password of user %q: %w", u.Name, err))
		case a.reserved[u.Name]:
			errs = append(errs, fmt.Errorf("user %q has the name of a local peer", u.Name))
		default:
			err = checkName(u.Name)
			if _, taken := a.users[u.Name]; taken {
				err = errors.New("is there twice")
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("user %q: %w", u.Name, err))
			}
			a.users[u.Name] = h
		}
	}
	if o.Anonymous != "" && a.reserved[o.Anonymous] {
		errs = append(errs, fmt.Errorf("anonymous identity %q is the name of a local peer", o.Anonymous))
	}
	for _, r := range o.Rules {
		if r.Who == "" {
			errs = append(errs, errors.New("rule without an identity"))
		}
		for _, f := range append(append([]string{}, r.Publish...), r.Subscribe...) {
			if err := checkFilter(f); err != nil {
				errs = append(errs, fmt.Errorf("rule for %q: filter %q: %w", r.Who, f, err))
			}
		}
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	a.passwords = newPasswords(max(o.Hashing, 0))
	return a, nil
}

// maxName is the longest name of an identity, in bytes.
const maxName = 256

func checkName(name string) error {
	switch {
	case name == "":
		return errors.New("name is empty")
	case len(name) > maxName:
		return fmt.Errorf("name is longer than %d bytes", maxName)
	case strings.ContainsFunc(name, func(r rune) bool { return r < 0x20 || r == 0x7f }):
		return errors.New("name has a control character")
	}
	return nil
}

// Authenticate implements the hub's authenticator.
func (a *Access) Authenticate(ctx context.Context, c *broker.Connect) (broker.Principal, error) {
	identity, err := a.identify(ctx, c)
	if err != nil {
		return nil, err
	}
	return a.principal(identity, c.ClientID), nil
}

func (a *Access) identify(ctx context.Context, c *broker.Connect) (string, error) {
	if c.Peer != nil {
		if name, ok := a.peers[c.Peer.UID]; ok {
			return name, nil
		}
	}
	if a.o.Certificates && c.TLS != nil && len(c.TLS.VerifiedChains) > 0 && len(c.TLS.PeerCertificates) > 0 {
		name := certificateName(c.TLS.PeerCertificates[0])
		if checkName(name) != nil || a.reserved[name] {
			return "", &broker.Refusal{Code: broker.NotAuthorized, Reason: "the certificate's name cannot be used"}
		}
		return name, nil
	}
	if c.HasUsername {
		h, known := a.users[c.Username]
		ok, err := a.passwords.check(ctx, c.Username, c.Password, h, known)
		if err != nil {
			return "", fmt.Errorf("check password of %q: %w", c.Username, err)
		}
		if !ok {
			return "", &broker.Refusal{Code: broker.BadUserNameOrPassword, Reason: "user name or password is wrong"}
		}
		return c.Username, nil
	}
	if a.o.Anonymous != "" {
		return a.o.Anonymous, nil
	}
	return "", &broker.Refusal{Code: broker.NotAuthorized, Reason: "credentials are needed"}
}

func certificateName(c *x509.Certificate) string {
	if len(c.URIs) > 0 {
		return c.URIs[0].String()
	}
	return c.Subject.CommonName
}

// principal gives an identity what the rules allow it. Its name is the identity
// itself when the client's identifier is the same, otherwise both, so that
// clients that share an identity are told apart.
func (a *Access) principal(identity, clientID string) *principal {
	p := &principal{name: identity}
	if clientID != identity {
		p.name = identity + "/" + clientID
	}
	for _, r := range a.o.Rules {
		if r.Who != "*" && r.Who != identity {
			continue
		}
		p.publish = substitute(p.publish, r.Publish, identity, clientID)
		p.subscribe = substitute(p.subscribe, r.Subscribe, identity, clientID)
	}
	return p
}
