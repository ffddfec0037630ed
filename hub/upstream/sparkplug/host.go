package sparkplug

import (
	"encoding/json"
	"errors"
	"fmt"
)

// A host is what is known of the primary host application on one connection:
// the retained STATE that the server sends first is the latest there is, and
// what was known on another server or from an earlier connection does not count
// (a host keeps its time per server).
type host struct {
	known  bool  // a STATE has been believed
	online bool  // what it said
	stamp  int64 // timestamp of the latest STATE that was believed
	birth  int64 // timestamp of the latest online STATE that was believed
	born   bool  // there was one
}

var errState = errors.New("STATE is not {\"online\":…,\"timestamp\":…}")

// take takes the payload of a STATE message and reports whether it was believed.
// An online message is when it is not older than the STATE before
// (tck-id-message-flow-edge-node-birth-publish-phid-wait-timestamp), an offline
// one when it is not older than the online one before
// (tck-id-operational-behavior-edge-node-termination-host-offline-timestamp).
func (h *host) take(data []byte) (bool, error) {
	var m struct {
		Online    *bool  `json:"online"`
		Timestamp *int64 `json:"timestamp"`
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return false, fmt.Errorf("%w: %w", errState, err)
	}
	if m.Online == nil || m.Timestamp == nil {
		return false, errState
	}
	if *m.Online && h.known && *m.Timestamp < h.stamp || !*m.Online && h.born && *m.Timestamp < h.birth {
		return false, nil
	}
	h.known, h.online, h.stamp = true, *m.Online, *m.Timestamp
	if h.online {
		h.born, h.birth = true, h.stamp
	}
	return true, nil
}
