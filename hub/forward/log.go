package forward

import (
	"context"

	"holdfast/hub/journal"
)

// A Log is the journal as a forwarder sees it; FromJournal makes one.
//
// It has more than three methods because it is the reading half of one store.
type Log interface {
	Epoch() uint64
	First() journal.Offset
	Committed() journal.Offset
	Wait(ctx context.Context, after journal.Offset) error
	NewReader(from journal.Offset, classes journal.Classes) Reader
	Cursor(name string) (Cursor, error)
}

// A Reader is a journal.Reader; its methods promise what that one's promise.
type Reader interface {
	Next() (journal.Record, error)
	Offset() journal.Offset
	Seek(to journal.Offset)
	Release()
}

// A Cursor is a journal.Cursor; its methods promise what that one's promise.
type Cursor interface {
	Saved() bool
	Offset() journal.Offset
	State() []byte
	Save(low journal.Offset, state []byte) error
	Flush(ctx context.Context) error
}

// FromJournal returns the journal as a Log.
func FromJournal(j *journal.Journal) Log { return journalLog{j} }

type journalLog struct{ *journal.Journal }

func (l journalLog) NewReader(from journal.Offset, classes journal.Classes) Reader {
	r := l.Journal.NewReader(from)
	r.Classes = classes
	return r
}

func (l journalLog) Cursor(name string) (Cursor, error) { return l.Journal.Cursor(name) }
