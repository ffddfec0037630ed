package opcua

import (
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/channel"
	"holdfast/protocols/opcua/trust"
	"holdfast/protocols/opcua/wire"
)

// A carrier carries the services of a session: one open secure channel. It is
// the seam to the stack below. [channel.Channel] is one; a stack of others that
// keeps what its comments promise can take its place, and tests of the recovery ladder
// put a scripted server here. It has so many methods because a session signs with
// the keys of its channel.
type carrier interface {
	Run(ctx context.Context) error
	Call(ctx context.Context, req ua.Request, token *ua.NodeID, res wire.Response) error
	Start(req ua.Request, token *ua.NodeID, hint time.Duration, deliver func(wire.Message, error)) error
	Done() <-chan struct{}
	Err() error
	Close()

	Secure() bool
	Signature(data []byte) (sig []byte, algorithm string, err error)
	SignWith(policy string, key *rsa.PrivateKey, data []byte) (sig []byte, algorithm string, err error)
	Verify(data, signature []byte) error
	Encrypt(policy string, secret []byte) (out []byte, algorithm string, err error)
}

// A dialer opens carriers to one server.
type dialer interface {
	// dial opens a channel that is not running yet, and returns the endpoint it is for.
	dial(ctx context.Context) (carrier, target, error)
}

// A target is the endpoint of a server that was chosen.
type target struct {
	wire.Endpoint
	me own // who we are to it
}

// A refusedError is a failure that trying again at once does not mend: security
// or identity.
type refusedError struct{ err error }

func (r *refusedError) Error() string { return r.err.Error() }
func (r *refusedError) Unwrap() error { return r.err }

func refuse(format string, args ...any) error { return &refusedError{fmt.Errorf(format, args...)} }

// own is our application's certificate.
type own struct {
	uri  string
	cert []byte
	key  *rsa.PrivateKey
}

// netDialer opens channels over TCP. It remembers the endpoint that it found
// until something about security goes wrong.
type netDialer struct {
	a     *Adapter
	s     *settings
	found *target
}

// dial implements [dialer].
func (d *netDialer) dial(ctx context.Context) (carrier, target, error) {
	me, store, err := d.identity()
	if err != nil {
		return nil, target{}, err
	}
	if d.found == nil {
		if err := d.discover(ctx); err != nil {
			return nil, target{}, err
		}
	}
	t := *d.found
	t.me = me
	if d.needsTrust(t) {
		if store == nil {
			return nil, target{}, refuse("no certificate store: a server cannot be believed")
		}
		peer := trust.Peer{URI: t.ServerURI}
		if d.s.checkHost {
			peer.Host = d.s.host
		}
		if err := store.Check(t.Certificate, peer); err != nil {
			d.found = nil
			return nil, target{}, &refusedError{err}
		}
	}
	o := d.options()
	o.PolicyURI, o.Mode, o.Remote = t.PolicyURI, t.Mode, t.Certificate
	o.Certificate, o.Key = me.cert, me.key
	c, err := channel.Open(ctx, o)
	if err != nil {
		d.found = nil // perhaps the server has another certificate now
		if r, ok := errors.AsType[*channel.Refused](err); ok && security(r.Status) {
			err = &refusedError{fmt.Errorf("%w; if the server has to trust our certificate first, do that there", err)}
		}
		return nil, target{}, err
	}
	return c, t, nil
}

func (d *netDialer) identity() (own, *trust.Store, error) {
	if !d.s.secured() {
		store, err := d.a.store()
		if err != nil {
			return own{uri: d.a.o.uri()}, nil, err
		}
		return own{uri: d.a.o.uri()}, store, nil
	}
	store, err := d.a.store()
	if err != nil {
		return own{}, nil, err
	}
	if store == nil {
		return own{}, nil, refuse("no data directory for certificates")
	}
	me := own{uri: d.a.o.uri()}
	me.cert, me.key, err = store.Own(d.a.o.identity())
	return me, store, err
}

func (d *netDialer) options() channel.Options {
	return channel.Options{
		URL: d.s.endpoint, Clock: d.a.env.Clock, Dial: d.a.o.Dial,
		Connect: d.s.connectTimeout, Timeout: d.s.timeout, Lifetime: d.s.channelLifetime, MaxMessage: d.s.maxMessage,
	}
}

// discover asks the server for its endpoints, over a channel without security:
// nothing that it says is believed before the session says the same.
func (d *netDialer) discover(ctx context.Context) error {
	c, err := channel.Open(ctx, d.options())
	if err != nil {
		return err
	}
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		_ = c.Run(ctx)
	}()
	defer func() {
		c.Close()
		<-ran
	}()
	var res wire.Endpoints
	if err := c.Call(ctx, &ua.GetEndpointsRequest{EndpointURL: d.s.endpoint}, nil, &res); err != nil {
		return fmt.Errorf("ask for endpoints: %w", err)
	}
	e, err := choose(res.Endpoints, d.s)
	if err != nil {
		return err
	}
	d.found = &target{Endpoint: e}
	return nil
}

// needsTrust reports whether the server's certificate secures anything.
func (d *netDialer) needsTrust(t target) bool {
	if t.PolicyURI != ua.SecurityPolicyURINone {
		return true
	}
	p, err := tokenPolicy(t.Endpoint, d.s)
	return err == nil && p.Type != ua.UserTokenTypeAnonymous && p.PolicyURI != "" && p.PolicyURI != ua.SecurityPolicyURINone
}

// ranks orders the policies that "auto" takes, best first.
var ranks = []string{
	ua.SecurityPolicyURIAes256Sha256RsaPss, ua.SecurityPolicyURIAes128Sha256RsaOaep, ua.SecurityPolicyURIBasic256Sha256,
}

// rank returns how good an endpoint is for the settings, -1 when it will not do.
func rank(e *wire.Endpoint, s *settings) int {
	if e.Transport != "" && e.Transport != tcpTransport || e.Mode != s.mode {
		return -1
	}
	if s.policy != "" {
		if e.PolicyURI == s.policy {
			return 0
		}
		return -1
	}
	if i := slices.Index(ranks, e.PolicyURI); i >= 0 {
		return len(ranks) - i
	}
	return -1
}

const tcpTransport = "http://opcfoundation.org/UA-Profile/Transport/uatcp-uasc-uabinary"

// choose picks the endpoint that fits the settings best.
func choose(all []wire.Endpoint, s *settings) (wire.Endpoint, error) {
	best, at := -1, -1
	for i := range all {
		if r := rank(&all[i], s); r > best {
			if _, err := tokenPolicy(all[i], s); err != nil {
				continue
			}
			best, at = r, i
		}
	}
	if at >= 0 {
		return all[at], nil
	}
	var offers []string
	for i := range all {
		e := &all[i]
		if rank(e, s) >= 0 {
			_, err := tokenPolicy(*e, s)
			return wire.Endpoint{}, &refusedError{err}
		}
		offers = append(offers, fmt.Sprintf("%s/%s", policyName(e.PolicyURI), modeName(e.Mode)))
	}
	slices.Sort(offers)
	return wire.Endpoint{}, refuse("the server has no endpoint for the security that is set; it offers %v", slices.Compact(offers))
}

func modeName(m ua.MessageSecurityMode) string {
	switch m {
	case ua.MessageSecurityModeNone:
		return "None"
	case ua.MessageSecurityModeSign:
		return "Sign"
	case ua.MessageSecurityModeSignAndEncrypt:
		return "SignAndEncrypt"
	}
	return fmt.Sprintf("mode %d", m)
}

// tokenPolicy returns the way in which an endpoint lets our user in.
func tokenPolicy(e wire.Endpoint, s *settings) (wire.TokenPolicy, error) {
	want := s.tokenType()
	var why error
	for _, p := range e.Tokens {
		if p.Type != want {
			continue
		}
		uri := p.PolicyURI
		if uri == "" {
			uri = e.PolicyURI
		}
		switch {
		case want == ua.UserTokenTypeAnonymous:
			return p, nil
		case uri == ua.SecurityPolicyURINone && want == ua.UserTokenTypeUserName && e.Mode != ua.MessageSecurityModeSignAndEncrypt && !s.plainText:
			why = errors.New("the password would travel unencrypted; allow_plaintext_password = true allows that")
		case uri == ua.SecurityPolicyURINone && want == ua.UserTokenTypeCertificate:
			why = errors.New("without a security policy a user cannot be known by a certificate")
		case uri != ua.SecurityPolicyURINone && !slices.Contains(ranks, uri):
			why = fmt.Errorf("the server takes the user's secret under %s only, which is not safe", policyName(uri))
		default:
			return p, nil
		}
	}
	if why == nil {
		kinds := map[ua.UserTokenType]string{
			ua.UserTokenTypeAnonymous: "anonymous users", ua.UserTokenTypeUserName: "user names", ua.UserTokenTypeCertificate: "user certificates",
		}
		why = fmt.Errorf("the server does not take %s here", kinds[want])
	}
	return wire.TokenPolicy{}, why
}

// security reports whether a status speaks of security or identity.
func security(s ua.StatusCode) bool {
	switch s {
	case ua.StatusBadSecurityChecksFailed, ua.StatusBadCertificateInvalid, ua.StatusBadCertificateUntrusted,
		ua.StatusBadCertificateTimeInvalid, ua.StatusBadCertificateURIInvalid, ua.StatusBadCertificateUseNotAllowed,
		ua.StatusBadCertificateHostNameInvalid, ua.StatusBadCertificateRevoked, ua.StatusBadCertificateIssuerUseNotAllowed,
		ua.StatusBadCertificateChainIncomplete, ua.StatusBadCertificatePolicyCheckFailed,
		ua.StatusBadIdentityTokenInvalid, ua.StatusBadIdentityTokenRejected, ua.StatusBadUserAccessDenied,
		ua.StatusBadSecurityPolicyRejected, ua.StatusBadSecurityModeRejected, ua.StatusBadUserSignatureInvalid,
		ua.StatusBadApplicationSignatureInvalid, ua.StatusBadNonceInvalid:
		return true
	}
	return false
}

// downgraded compares the endpoints that discovery gave with those that the
// session gives under security (OPC 10000-4, 5.7.2): a list that somebody
// shortened on the way is found out here.
func downgraded(t target, session []wire.Endpoint, s *settings) error {
	if len(session) == 0 {
		return nil // the server's own omission: this channel cannot be tampered with
	}
	here := false
	for i := range session {
		e := &session[i]
		// Servers may leave the certificate out (OPC 10000-4, 5.7.2.2, serverEndpoints);
		// that it is the channel's was checked already.
		if e.Mode == t.Mode && e.PolicyURI == t.PolicyURI && e.ServerURI == t.ServerURI &&
			(len(e.Certificate) == 0 || slices.Equal(leaf(e.Certificate), leaf(t.Certificate))) {
			here = true
		}
		if rank(e, s) > rank(&t.Endpoint, s) {
			return refuse("the server has the better endpoint %s/%s, which was hidden when we asked for its endpoints",
				policyName(e.PolicyURI), modeName(e.Mode))
		}
	}
	if !here {
		return refuse("the session does not have the endpoint %s/%s of %q that discovery gave",
			policyName(t.PolicyURI), modeName(t.Mode), t.ServerURI)
	}
	return nil
}
