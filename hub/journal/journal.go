package journal

import (
	"errors"
	"log/slog"
	"time"

	"holdfast/drivers/clock"
)

// An Offset is the number of a record. The first record ever has offset 1;
// numbers ascend by one and are never used twice inside an epoch. Zero means
// no record.
type Offset uint64

// MaxClass is the highest class number and the least important priority.
const MaxClass = 9

// Classes is a set of classes: bit n stands for class n. The empty set means
// every class wherever a filter is asked for.
type Classes uint16

// ClassSet returns the set of the given classes.
func ClassSet(classes ...uint8) Classes {
	var s Classes
	for _, c := range classes {
		s |= 1 << c
	}
	return s
}

// Has reports whether class c is in the set, or the set is empty.
func (s Classes) Has(c uint8) bool { return s == 0 || s&(1<<c) != 0 }

// An Entry is one record to be appended. The journal does not look into Body.
type Entry struct {
	// Class is the priority, 0..MaxClass. Class 0 is the most important and is
	// dropped last when the budget is short.
	Class uint8

	// Volatile entries are not written and have no offset. They travel in
	// order with the others through OnCommit and through readers that ask for
	// them and keep up; any reader that fell behind the tail cache, and every
	// restart, misses them. MQTT QoS 0 is such an entry.
	Volatile bool

	// Time is the record's time in microseconds since 1970 UTC. It serves
	// MaxAge and is given back to readers; nothing else depends on it, so it
	// may jump.
	Time int64

	// Body is the record. It must not change until the batch is done.
	Body []byte
}

// A Batch is what one Submit hands over. Its entries that are not volatile get
// consecutive offsets in the order given. A batch is not a transaction: after a
// power cut, a batch that was never confirmed may be there in part.
//
// The batch and its bodies belong to the journal from Submit until Done has
// returned or, when Options.OnCommit is set, until OnCommit has returned.
type Batch struct {
	Entries []Entry

	// Done is called exactly once for each batch that Submit accepted, by the
	// committer, in the order of Submit. With a nil error the records are on
	// the medium and first is the offset of the first entry that is not
	// volatile, 0 if there is none. With an error nothing was confirmed; the
	// records may or may not turn up after a crash. Done must be quick and must
	// not wait for the journal. It may be nil.
	Done func(first Offset, err error)

	// Tag is the submitter's own; the journal does not touch it.
	Tag any

	// First is set by the committer before Done and OnCommit, as for Done.
	First Offset

	size int // bytes counted against QueueBytes
}

// A Record is one thing read: an entry, or a gap.
type Record struct {
	// Offset is the record's number; the first missing one for a gap; 0 for a
	// volatile entry.
	Offset Offset
	Class  uint8
	Time   int64 // microseconds since 1970 UTC, as submitted

	// Body is valid until the next call of Next, Release or Close on the
	// reader that returned it, and must not be changed.
	Body []byte

	// Gap is set when this is not an entry but a range that is missing.
	Gap *Gap
}

// A Gap says that records are missing, and why. Nothing is ever skipped
// without one.
type Gap struct {
	From, To Offset  // both missing
	Reason   Reason  // why
	Classes  Classes // the classes that may be among them; empty when unknown
}

// Count returns the number of missing records.
func (g Gap) Count() uint64 { return uint64(g.To-g.From) + 1 }

// A Reason says why records are missing. The numbers are part of the format.
type Reason uint8

// The reasons.
const (
	Consumed Reason = 1 // every cursor had passed them and their space was reused
	Budget   Reason = 2 // dropped, lowest priority and oldest first, to stay within MaxBytes
	Aged     Reason = 3 // older than MaxAge
	Damaged  Reason = 4 // their bytes failed the checksum, or could not be read
	Missing  Reason = 5 // the file that held them was not there
)

var reasonNames = [...]string{Consumed: "consumed", Budget: "budget", Aged: "aged", Damaged: "damaged", Missing: "missing"}

// String returns the reason as it stands in messages.
func (r Reason) String() string {
	if int(r) < len(reasonNames) && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return "unknown"
}

// Errors that callers branch on.
var (
	// ErrFull: the queue holds QueueBytes already. Try again after a Done.
	ErrFull = errors.New("journal queue is full")
	// ErrNoSpace: the medium is full and the budget frees nothing. The journal
	// recovers by itself when space returns.
	ErrNoSpace = errors.New("no space for the journal")
	// ErrFailed: the medium refused a write or a sync. The journal goes on in a
	// new segment as soon as one can be made.
	ErrFailed = errors.New("journal medium failed")
	// ErrClosed: the journal no longer takes batches.
	ErrClosed = errors.New("journal is closed")
	// ErrTooLarge: a batch or a cursor's state exceeds its limit.
	ErrTooLarge = errors.New("too large for the journal")
	// ErrInvalid: an entry's class is above MaxClass, or a name is unusable.
	ErrInvalid = errors.New("not valid for the journal")
	// ErrEnd: the reader has reached the committed end.
	ErrEnd = errors.New("end of the journal")
	// ErrNotFound: no such offset is or was committed.
	ErrNotFound = errors.New("no such record")
)

// A Trouble names a condition of the journal.
type Trouble string

// The troubles a journal can have.
const (
	DiskFull     Trouble = "journal-disk-full"   // appends are refused
	MediumFailed Trouble = "journal-failed"      // appends are refused
	OverBudget   Trouble = "journal-over-budget" // records that nobody had read were dropped
	DamageFound  Trouble = "journal-damaged"     // records were lost to damage
)

// A Condition is a change of state of one trouble.
type Condition struct {
	Trouble Trouble
	On      bool   // raised or cleared
	Reason  string // for a person
}

// Fill says what happens to a segment's unwritten space.
type Fill uint8

// The fills. Space that was never written costs file system metadata at each
// sync; zeroing it first halves the latency of small syncs but writes every
// byte twice until segments are recycled.
const (
	FillAuto   Fill = iota // zero ahead of small groups when Linger is 0, else reserve only
	FillAlways             // zero ahead of small groups
	FillNever              // reserve only
)

// Options tune a journal. The zero value works.
type Options struct {
	Clock clock.Clock  // nil: the real one
	Log   *slog.Logger // nil: silent

	// SegmentBytes is the size of a segment file, a multiple of 4096 between
	// 64 KiB and 1 GiB. Default 64 MiB. Changing it affects new segments only.
	SegmentBytes int64

	// Linger is how long a group may wait for more entries. Default 0: commit
	// what queued during the last sync. Longer saves flash writes and costs
	// latency.
	Linger time.Duration

	// GroupBytes bounds one group; a group that is full ends its linger.
	// Default 4 MiB, at most SegmentBytes/4.
	GroupBytes int

	Fill Fill

	// MaxBytes is the budget of all segment files, spares included; at least
	// four segments. Over it, records are dropped, highest class number and
	// oldest first. Default 0: no budget, the medium's free space is the limit
	// and then batches are refused.
	MaxBytes int64

	// MaxAge drops whole segments whose newest record is older, while the
	// clock is synced. Default 0: no limit.
	MaxAge time.Duration

	// KeepConsumed is how many bytes of records to keep although every cursor
	// has passed them. Default 0. A journal without saved cursors regards
	// nothing as consumed.
	KeepConsumed int64

	// QueueBytes bounds what Submit has taken and the committer has not yet
	// confirmed. Overflow rule: refuse with ErrFull. Default 16 MiB.
	QueueBytes int

	// TailBytes bounds the cache of the newest groups. Overflow rule: the
	// oldest group leaves; its readers go on from the file. Default 4 MiB.
	TailBytes int

	// CursorDelay is the longest time that a saved cursor waits for its own
	// sync when no append carries it. Default 1 s.
	CursorDelay time.Duration

	// OnCommit is called by the committer after the Dones of a group, with its
	// batches in order. It is how the hub fans out without reading back. It
	// must be quick and must not keep the slice. Batches that failed are not in
	// it.
	OnCommit func(group []*Batch)

	// OnCondition is called by the committer or a reader when a trouble begins
	// or ends. It must be quick and must not call the journal.
	OnCondition func(Condition)

	// SyncDelay is added to each sync, for measuring slow media on fast ones.
	SyncDelay time.Duration
}
