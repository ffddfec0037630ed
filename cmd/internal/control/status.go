// Package control is how the operator's verbs talk to the daemons of their
// machine: HTTP on a unix socket of each daemon, with JSON bodies whose types
// stand here.
//
//	GET /status         what the daemon does, as HubStatus or FieldStatus
//	GET /tags           field only: the newest reading of every tag, as []Tag
//	GET /tags?watch=1   the same and then every change, as lines of Update
//	GET /metrics        Prometheus text
//	POST /reload        read the configuration again
//
// The sockets are as private as the directory they are in.
package control

import (
	"encoding/json"
	"time"
)

// Names of the control sockets in the run directory.
const (
	HubSocket   = "hub-control.sock"
	FieldSocket = "field-control.sock"
)

// Process describes a daemon's process.
type Process struct {
	Name     string    `json:"name"` // the gateway's name
	Version  string    `json:"version"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	Resident int64     `json:"resident_bytes"`
}

// Condition is a reported trouble.
type Condition struct {
	Subject string    `json:"subject"` // such as "journal" or a device's name
	Trouble string    `json:"trouble"`
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason"`
}

// HubStatus is what the hub tells about itself.
type HubStatus struct {
	Process
	Listeners  []Listener  `json:"listeners"`
	Clients    int         `json:"clients"`
	Sessions   int         `json:"sessions"`
	Received   uint64      `json:"messages_received"`
	Sent       uint64      `json:"messages_sent"`
	Dropped    uint64      `json:"messages_dropped"`
	Journal    Journal     `json:"journal"`
	Endpoints  []Endpoint  `json:"endpoints"`
	Conditions []Condition `json:"conditions"`
}

// Listener is one open door.
type Listener struct {
	Name    string `json:"name"`
	Type    string `json:"type"`
	Address string `json:"address"`
}

// Journal sums up the log.
type Journal struct {
	Epoch     uint64 `json:"epoch,string"`
	First     uint64 `json:"first"`
	Committed uint64 `json:"committed"`
	Bytes     int64  `json:"bytes"`
	Budget    int64  `json:"budget_bytes"`
}

// Endpoint is one reader of the journal that sends away.
type Endpoint struct {
	Name      string    `json:"name"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason,omitempty"`
	Cursor    uint64    `json:"cursor"`
	Waiting   uint64    `json:"waiting"` // records after the cursor that may be for it
	InFlight  int       `json:"in_flight"`
	Sent      uint64    `json:"sent"`
	Confirmed uint64    `json:"confirmed"`
	Expired   uint64    `json:"expired"`
	Rejected  uint64    `json:"dead_letters"`
	Lost      uint64    `json:"lost"` // dropped by the budget before they were sent
}

// FieldStatus is what the field daemon tells about itself.
type FieldStatus struct {
	Process
	Hub        Link        `json:"hub"`
	Outbox     Outbox      `json:"outbox"`
	Devices    []Device    `json:"devices"`
	Conditions []Condition `json:"conditions"`
}

// Link is a connection.
type Link struct {
	Address   string    `json:"address"`
	Connected bool      `json:"connected"`
	Since     time.Time `json:"since"`
	Reason    string    `json:"reason,omitempty"`
}

// Outbox is what waits for the hub.
type Outbox struct {
	Batches   int    `json:"batches"`
	Readings  int    `json:"readings"`
	Published uint64 `json:"published_batches"` // confirmed by the hub
	Dropped   uint64 `json:"dropped_readings"`
}

// Device is one field device.
type Device struct {
	Name      string `json:"name"`
	Protocol  string `json:"protocol"`
	Link      Link   `json:"link"`
	Tags      int    `json:"tags"`
	Good      int    `json:"good"`
	Uncertain int    `json:"uncertain"`
	Bad       int    `json:"bad"`
	Readings  uint64 `json:"readings"` // samples taken
	Held      uint64 `json:"held"`     // of them held back by dead-bands
	Dropped   uint64 `json:"dropped"`  // replaced by newer ones while the hub did not take them
	Requests  uint64 `json:"requests"`
	Errors    uint64 `json:"errors"`
	Skipped   uint64 `json:"skipped"` // reads left out because the one before was still under way
}

// Tag is the newest reading of one tag.
type Tag struct {
	Device   string          `json:"device"`
	Tag      string          `json:"tag"`
	Value    json.RawMessage `json:"value"` // as in a batch of readings
	Text     string          `json:"text"`  // the value for people
	Unit     string          `json:"unit,omitempty"`
	Quality  string          `json:"quality"`
	Level    string          `json:"level"` // good, uncertain, bad
	Source   time.Time       `json:"source,omitzero"`
	Receive  time.Time       `json:"receive,omitzero"`
	Age      float64         `json:"age_seconds"` // when the daemon answered; -1 when never read
	Comment  string          `json:"comment,omitempty"`
	Detail   string          `json:"detail,omitempty"`
	Class    string          `json:"class"`
	Writable bool            `json:"writable,omitempty"`
}

// Update is one line of a tag stream.
type Update struct {
	Fresh bool  `json:"fresh,omitempty"` // what earlier lines told and this one does not is gone
	Tags  []Tag `json:"tags"`
}
