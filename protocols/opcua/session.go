package opcua

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"holdfast/protocols/opcua/trust"
	"holdfast/protocols/opcua/wire"
)

// A ticket is a session on the server. It outlives the channel under it: on a
// new channel it is activated again, and then nothing that it has was lost.
type ticket struct {
	token   *ua.NodeID
	nonce   []byte // the server's, for the next activation
	cert    []byte // the server's leaf certificate, as DER
	target  target
	timeout time.Duration
}

// createSession makes a session that is not activated yet (OPC 10000-4, 5.7.2).
func createSession(ctx context.Context, c carrier, t target, s *settings) (*ticket, error) {
	me := t.me
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails (crypto/rand)
	req := &ua.CreateSessionRequest{
		ClientDescription: &ua.ApplicationDescription{
			ApplicationURI: me.uri, ProductURI: "urn:holdfast", ApplicationName: ua.NewLocalizedText("Holdfast"),
			ApplicationType: ua.ApplicationTypeClient,
		},
		EndpointURL: s.endpoint, SessionName: "holdfast", ClientNonce: nonce,
		RequestedSessionTimeout: float64(s.sessionTimeout / time.Millisecond), MaxResponseMessageSize: uint32(s.maxMessage),
	}
	if c.Secure() {
		req.ClientCertificate = me.cert
	}
	var res wire.CreatedSession
	if err := c.Call(ctx, req, nil, &res); err != nil {
		return nil, fmt.Errorf("create session: %w", err)
	}
	tk := &ticket{token: res.Token.UA(), nonce: bytes.Clone(res.Nonce), target: t, timeout: res.Timeout, cert: leaf(t.Certificate)}
	if !c.Secure() {
		if len(res.Certificate) > 0 {
			tk.cert = leaf(bytes.Clone(res.Certificate))
		}
		return tk, nil
	}
	switch {
	case !bytes.Equal(leaf(res.Certificate), tk.cert):
		return nil, refuse("create session: the server shows another certificate than its channel")
	case len(res.Nonce) < 32:
		return nil, refuse("create session: the server's nonce has %d bytes, want 32", len(res.Nonce))
	}
	if err := c.Verify(append(bytes.Clone(me.cert), nonce...), res.Signature); err != nil {
		return nil, refuse("create session: the server's signature is wrong: %w", err)
	}
	return tk, downgraded(t, res.Endpoints, s)
}

// leaf returns the first certificate of a chain: only that is signed for.
func leaf(der []byte) []byte {
	if certs, err := x509.ParseCertificates(der); err == nil && len(certs) > 0 {
		return certs[0].Raw
	}
	return der
}

// activate binds the session to the channel and tells who the user is
// (OPC 10000-4, 5.7.3).
func (tk *ticket) activate(ctx context.Context, c carrier, user *user) error {
	signed := append(bytes.Clone(tk.cert), tk.nonce...)
	sig, algorithm, err := c.Signature(signed)
	if err != nil {
		return err
	}
	req := &ua.ActivateSessionRequest{
		ClientSignature:    &ua.SignatureData{Algorithm: algorithm, Signature: sig},
		LocaleIDs:          []string{"en"},
		UserTokenSignature: &ua.SignatureData{},
	}
	if err := user.identify(c, tk, signed, req); err != nil {
		return err
	}
	var res wire.ActivatedSession
	if err := c.Call(ctx, req, tk.token, &res); err != nil {
		var status ua.StatusCode
		if errors.As(err, &status) && security(status) {
			return &refusedError{fmt.Errorf("activate session: %w", err)}
		}
		return fmt.Errorf("activate session: %w", err)
	}
	tk.nonce = bytes.Clone(res.Nonce)
	return nil
}

// close ends the session and its subscriptions.
func (tk *ticket) close(ctx context.Context, c carrier) {
	_ = c.Call(ctx, &ua.CloseSessionRequest{DeleteSubscriptions: true}, tk.token,
		&wire.Statuses{Type: id.CloseSessionResponse_Encoding_DefaultBinary})
}

// A user is who we are to a server.
type user struct {
	s        *settings
	readFile func(string) ([]byte, error)
	getenv   func(string) string
}

// identify puts the user's token into the request. Secrets are read anew each
// time, so that a changed password takes effect by itself.
func (u *user) identify(c carrier, tk *ticket, signed []byte, req *ua.ActivateSessionRequest) error {
	p, err := tokenPolicy(tk.target.Endpoint, u.s)
	if err != nil {
		return &refusedError{err}
	}
	policy := p.PolicyURI
	if policy == "" {
		policy = tk.target.PolicyURI
	}
	switch p.Type {
	case ua.UserTokenTypeUserName:
		password, err := u.password()
		if err != nil {
			return &refusedError{err}
		}
		token := &ua.UserNameIdentityToken{PolicyID: p.ID, UserName: u.s.user, Password: password}
		if policy != ua.SecurityPolicyURINone {
			secret := binary.LittleEndian.AppendUint32(nil, uint32(len(password)+len(tk.nonce)))
			secret = append(append(secret, password...), tk.nonce...)
			if token.Password, token.EncryptionAlgorithm, err = c.Encrypt(policy, secret); err != nil {
				return fmt.Errorf("encrypt the password: %w", err)
			}
		}
		req.UserIdentityToken = ua.NewExtensionObject(token)
	case ua.UserTokenTypeCertificate:
		return u.certificate(c, p.ID, policy, signed, req)
	default:
		req.UserIdentityToken = ua.NewExtensionObject(&ua.AnonymousIdentityToken{PolicyID: p.ID})
	}
	return nil
}

func (u *user) certificate(c carrier, policyID, policy string, signed []byte, req *ua.ActivateSessionRequest) error {
	raw, err := u.readFile(u.s.userCert)
	if err != nil {
		return refuse("user certificate: %w", err)
	}
	der, err := trust.ParseCertificate(raw)
	if err != nil {
		return refuse("user %w", err)
	}
	if raw, err = u.readFile(u.s.userKey); err != nil {
		return refuse("user key: %w", err)
	}
	key, err := trust.ParseKey(raw)
	if err != nil {
		return refuse("user %w", err)
	}
	sig, algorithm, err := c.SignWith(policy, key, signed)
	if err != nil {
		return fmt.Errorf("sign for the user: %w", err)
	}
	req.UserIdentityToken = ua.NewExtensionObject(&ua.X509IdentityToken{PolicyID: policyID, CertificateData: der})
	req.UserTokenSignature = &ua.SignatureData{Algorithm: algorithm, Signature: sig}
	return nil
}

func (u *user) password() ([]byte, error) {
	switch p := u.s.password; {
	case p.file != "":
		raw, err := u.readFile(p.file)
		if err != nil {
			return nil, fmt.Errorf("password file: %w", err)
		}
		return bytes.TrimRight(raw, "\r\n"), nil
	case p.env != "":
		text := u.getenv(p.env)
		if text == "" {
			return nil, fmt.Errorf("the environment has no %q for the password", p.env)
		}
		return []byte(text), nil
	default:
		return []byte(p.text), nil
	}
}
