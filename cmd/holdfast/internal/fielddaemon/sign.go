package fielddaemon

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/hub/client"
)

// A command from the same machine is judged by one clock, so it is carried out
// even while nobody knows whether that clock is right. Which commands these are
// is proved by a key in the run directory, made anew at each start: who can
// read it could use the field devices anyway.
const (
	keyFile           = "field.key"
	keyLength         = 32
	signatureProperty = "holdfast-local"
)

// makeKey makes the key of this start.
func makeKey(run string) ([]byte, error) {
	key := make([]byte, keyLength)
	rand.Read(key) // never fails (crypto/rand)
	path := filepath.Join(run, keyFile)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	// The group of the run directory's programs may read it, as it may use the
	// control sockets.
	return key, os.WriteFile(path, key, 0o640)
}

// Sign appends to the properties of a command the proof that it comes from this
// machine. Its error says why that cannot be proved.
func Sign(run string, props, payload []byte) ([]byte, error) {
	key, err := os.ReadFile(filepath.Join(run, keyFile))
	if err != nil {
		return props, err
	}
	if len(key) != keyLength {
		return props, fmt.Errorf("%q is not a key", filepath.Join(run, keyFile))
	}
	return client.AppendUserProperty(props, signatureProperty, hex.EncodeToString(sum(key, payload))), nil
}

func sum(key, payload []byte) []byte {
	h := hmac.New(sha256.New, key)
	h.Write(payload)
	return h.Sum(nil)
}

func signed(key, payload []byte, proof string) bool {
	got, err := hex.DecodeString(proof)
	return err == nil && hmac.Equal(got, sum(key, payload))
}
