package access

import (
	"context"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
)

// Parameters of new hashes: OWASP's number of rounds for PBKDF2 with
// HMAC-SHA512 (Password Storage Cheat Sheet, 2023), salt and key as long as NIST
// SP 800-132 asks for at least.
const (
	rounds     = 210_000
	saltLength = 16
	keyLength  = 32

	maxRounds   = 10_000_000
	maxPassword = 1024 // bytes; longer ones are wrong
)

// hash is a stored password.
type hash struct {
	rounds int
	salt   []byte
	key    []byte
}

// HashPassword returns what is stored of a password:
//
//	$pbkdf2-sha512$i=<rounds>$<salt>$<key>
//
// with salt and key in base64. It is an error for a password to be empty or
// longer than 1024 bytes.
func HashPassword(password []byte) (string, error) {
	if len(password) == 0 || len(password) > maxPassword {
		return "", fmt.Errorf("a password has 1 to %d bytes", maxPassword)
	}
	h := hash{rounds: rounds, salt: make([]byte, saltLength)}
	if _, err := rand.Read(h.salt); err != nil {
		return "", fmt.Errorf("make salt: %w", err)
	}
	key, err := h.derive(password, keyLength)
	if err != nil {
		return "", err
	}
	enc := base64.RawStdEncoding
	return fmt.Sprintf("$pbkdf2-sha512$i=%d$%s$%s", rounds, enc.EncodeToString(h.salt), enc.EncodeToString(key)), nil
}

func (h *hash) derive(password []byte, length int) ([]byte, error) {
	return pbkdf2.Key(sha512.New, string(password), h.salt, h.rounds, length)
}

var errHash = errors.New(`is not a hash of the form "$pbkdf2-sha512$i=..." or "$7$..."`)

// parseHash reads a hash of ours, or one of mosquitto_passwd:
// $7$<rounds>$<salt>$<key>.
func parseHash(s string) (hash, error) {
	part := strings.Split(s, "$")
	if len(part) != 5 || part[0] != "" {
		return hash{}, errHash
	}
	number := part[2]
	switch part[1] {
	case "pbkdf2-sha512":
		var ok bool
		if number, ok = strings.CutPrefix(number, "i="); !ok {
			return hash{}, errHash
		}
	case "7":
	default:
		return hash{}, errHash
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > maxRounds {
		return hash{}, errHash
	}
	h := hash{rounds: n}
	if h.salt, err = decode(part[3]); err != nil {
		return hash{}, errHash
	}
	if h.key, err = decode(part[4]); err != nil || len(h.key) < 16 || len(h.key) > 128 {
		return hash{}, errHash
	}
	return h, nil
}

func decode(s string) ([]byte, error) {
	return base64.RawStdEncoding.DecodeString(strings.TrimRight(s, "="))
}

// passwords checks passwords, and remembers the right ones by a keyed digest,
// so that a storm of reconnections does not cost a hash each.
type passwords struct {
	slots chan struct{} // how many are hashed at a time
	key   [32]byte      // of the digests, new for each process
	decoy hash          // hashed for unknown users, so that time tells nothing

	mu    sync.Mutex
	known map[[sha256.Size]byte]struct{} // at most maxKnown. Overflow rule: emptied
}

const maxKnown = 10_000

func newPasswords(hashing int) *passwords {
	if hashing == 0 {
		hashing = 2
	}
	p := &passwords{slots: make(chan struct{}, hashing), known: map[[sha256.Size]byte]struct{}{}}
	rand.Read(p.key[:]) // never fails; see crypto/rand
	p.decoy = hash{rounds: rounds, salt: p.key[:saltLength], key: make([]byte, keyLength)}
	return p
}

// check reports whether password is the user's. It costs the same time for a
// user that is not known.
func (p *passwords) check(ctx context.Context, user string, password []byte, h hash, known bool) (bool, error) {
	if len(password) > maxPassword {
		return false, nil
	}
	if !known {
		h = p.decoy
	}
	digest := p.digest(user, password, h)
	p.mu.Lock()
	_, right := p.known[digest]
	p.mu.Unlock()
	if right {
		return true, nil
	}
	select {
	case p.slots <- struct{}{}:
	case <-ctx.Done():
		return false, ctx.Err()
	}
	key, err := h.derive(password, len(h.key))
	<-p.slots
	if err != nil {
		return false, err
	}
	if subtle.ConstantTimeCompare(key, h.key) != 1 || !known {
		return false, nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.known) >= maxKnown {
		clear(p.known)
	}
	p.known[digest] = struct{}{}
	return true, nil
}

// digest covers the stored hash too: a changed password is not taken for the
// old one.
func (p *passwords) digest(user string, password []byte, h hash) (d [sha256.Size]byte) {
	m := hmac.New(sha256.New, p.key[:])
	for _, part := range [][]byte{[]byte(user), password, h.salt, h.key} {
		m.Write([]byte{byte(len(part)), byte(len(part) >> 8)})
		m.Write(part)
	}
	m.Sum(d[:0])
	return d
}
