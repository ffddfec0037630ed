package channel

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/gopcua/opcua/ua"
	"github.com/gopcua/opcua/uapolicy"

	"holdfast/drivers/clock"
	"holdfast/protocols/opcua/wire"
)

// An opening is an OpenSecureChannel request under way.
type opening struct {
	reqID uint32
	nonce []byte
	asym  *uapolicy.EncryptionAlgorithm
	done  func(error) // called from the receiving goroutine
}

// keys are those of one security token.
type keys struct {
	token uint32
	algo  *uapolicy.EncryptionAlgorithm
}

func (c *Channel) secure() bool { return c.o.PolicyURI != ua.SecurityPolicyURINone }

// remoteKey returns the key in the server's certificate.
func remoteKey(der []byte) (*rsa.PublicKey, error) {
	cert, err := uapolicy.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	key, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok {
		return nil, errors.New("server certificate: the key is not RSA")
	}
	return key, nil
}

// asymmetric returns the algorithm of the policy with our and the server's keys.
func (c *Channel) asymmetric(policy string) (*uapolicy.EncryptionAlgorithm, error) {
	if policy == ua.SecurityPolicyURINone {
		return uapolicy.Asymmetric(policy, nil, nil)
	}
	remote, err := remoteKey(c.o.Remote)
	if err != nil {
		return nil, err
	}
	return uapolicy.Asymmetric(policy, c.o.Key, remote)
}

// request sends an OpenSecureChannel request; done is told when new keys are in
// use, or why not.
func (c *Channel) request(kind ua.SecurityTokenRequestType, done func(error)) error {
	asym, err := c.asymmetric(c.o.PolicyURI)
	if err != nil {
		return err
	}
	nonce, err := asym.MakeNonce()
	if err != nil {
		return err
	}
	c.mu.Lock()
	if c.opening != nil {
		c.mu.Unlock()
		return errors.New("an OpenSecureChannel request is under way")
	}
	c.next++
	op := &opening{reqID: c.next, nonce: nonce, asym: asym, done: done}
	c.opening = op
	c.mu.Unlock()
	return c.writeOpen(op, &ua.OpenSecureChannelRequest{
		RequestType: kind, SecurityMode: c.o.Mode, ClientNonce: nonce,
		RequestedLifetime: uint32(c.o.Lifetime / time.Millisecond),
	})
}

// opened takes the answer of an OpenSecureChannel request.
func (c *Channel) opened(reqID uint32, m wire.Message) {
	c.mu.Lock()
	op := c.opening
	if op == nil || op.reqID != reqID {
		c.mu.Unlock()
		return // an answer to nothing
	}
	c.opening = nil
	c.mu.Unlock()
	op.done(c.install(op, m))
}

func (c *Channel) install(op *opening, m wire.Message) error {
	var res wire.OpenChannel
	if err := wire.Decode(m, &res); err != nil {
		return err
	}
	if c.secure() && len(res.Nonce) < op.asym.NonceLength() {
		return fmt.Errorf("the server's nonce has %d bytes, want %d", len(res.Nonce), op.asym.NonceLength())
	}
	algo, err := uapolicy.Symmetric(c.o.PolicyURI, op.nonce, bytes.Clone(res.Nonce))
	if err != nil {
		return err
	}
	life := min(res.Lifetime, c.o.Lifetime)
	if life <= 0 {
		life = c.o.Lifetime
	}
	k := keys{token: res.Token, algo: algo}
	c.in.previous, c.in.current = c.in.current, k
	// They are renewed at three quarters of their life, and count for a quarter more
	// than the whole of it (OPC 10000-4, 5.6.2.1).
	c.in.until = c.o.Clock.Elapsed() + life/2
	c.send.Lock()
	c.out.channel, c.out.keys = res.Channel, k
	c.send.Unlock()
	c.in.channel = res.Channel
	c.mu.Lock()
	c.life = life
	c.mu.Unlock()
	return nil
}

// renew asks for new keys when three quarters of the lifetime have passed
// (OPC 10000-4, 5.6.2.1), again and again until ctx ends.
func (c *Channel) renew(ctx context.Context) {
	for {
		c.mu.Lock()
		life := c.life
		c.mu.Unlock()
		if clock.Sleep(ctx, c.o.Clock, life*3/4) != nil {
			return
		}
		answer := make(chan error, 1)
		err := c.request(ua.SecurityTokenRequestTypeRenew, func(err error) { answer <- err })
		if err == nil {
			timer := c.o.Clock.NewTimer(c.o.Timeout)
			select {
			case err = <-answer:
			case <-timer.C():
				err = fmt.Errorf("no answer within %s", c.o.Timeout)
			case <-ctx.Done():
			}
			timer.Stop()
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			c.fail(fmt.Errorf("renew the secure channel: %w", err))
			return
		}
	}
}

// Signature signs data for the server with our application's key, as
// ActivateSession needs it. It is nil without security.
func (c *Channel) Signature(data []byte) (sig []byte, algorithm string, err error) {
	if !c.secure() {
		return nil, "", nil
	}
	return c.SignWith(c.o.PolicyURI, c.o.Key, data)
}

// SignWith signs data with another key under a policy, as an X.509 user token
// needs it.
func (c *Channel) SignWith(policy string, key *rsa.PrivateKey, data []byte) (sig []byte, algorithm string, err error) {
	remote, err := remoteKey(c.o.Remote)
	if err != nil {
		return nil, "", err
	}
	algo, err := uapolicy.Asymmetric(policy, key, remote)
	if err != nil {
		return nil, "", err
	}
	sig, err = algo.Signature(data)
	return sig, algo.SignatureURI(), err
}

// Verify checks the server's signature of data. Without security everything is
// right.
func (c *Channel) Verify(data, signature []byte) error {
	if !c.secure() {
		return nil
	}
	algo, err := c.asymmetric(c.o.PolicyURI)
	if err != nil {
		return err
	}
	return algo.VerifySignature(data, signature)
}

// Encrypt encrypts a secret for the server under a policy (OPC 10000-4,
// 7.41.2.2).
func (c *Channel) Encrypt(policy string, secret []byte) (out []byte, algorithm string, err error) {
	remote, err := remoteKey(c.o.Remote)
	if err != nil {
		return nil, "", err
	}
	key := c.o.Key
	if key == nil {
		key = &rsa.PrivateKey{PublicKey: *remote} // only the public half is used, for its size
	}
	algo, err := uapolicy.Asymmetric(policy, key, remote)
	if err != nil {
		return nil, "", err
	}
	out, err = algo.Encrypt(secret)
	return out, algo.EncryptionURI(), err
}

// Secure reports whether messages are signed.
func (c *Channel) Secure() bool { return c.secure() }

// thumbprint is the SHA-1 of the leaf certificate (OPC 10000-6, 6.2.1).
func thumbprint(der []byte) []byte {
	if certs, err := x509.ParseCertificates(der); err == nil && len(certs) > 0 {
		der = certs[0].Raw
	}
	sum := sha1.Sum(der)
	return sum[:]
}
