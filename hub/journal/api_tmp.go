package journal

import (
	"context"

	"holdfast/drivers/disk"
)

// A Journal is an open log. Its methods may be called from many goroutines.
type Journal struct{}

// Open opens or creates the journal in the root of fs. It repairs what it
// finds: a torn tail is cut, damage is quarantined and told through OnCondition;
// it returns an error only when the directory cannot be used at all.
// No batch is committed until Run.
func Open(fs disk.FS, o Options) (*Journal, error) { panic("unfinished") }

// Run is the committer. It returns when ctx ends, after a last commit of what
// was queued, and then every accepted batch has had its Done.
func (j *Journal) Run(ctx context.Context) error { panic("unfinished") }

// Submit queues a batch without waiting. Order of Submit is order of offsets.
// Errors: ErrFull, ErrClosed, ErrTooLarge, ErrInvalid; then Done is not called.
func (j *Journal) Submit(b *Batch) error { panic("unfinished") }

// Append submits entries and waits until they are durable.
func (j *Journal) Append(ctx context.Context, entries ...Entry) (Offset, error) { panic("unfinished") }

// Close releases the files. Run must have returned, or never been called.
func (j *Journal) Close() error { panic("unfinished") }

// Epoch returns the identity of this numbering of records. It changes when
// confirmed records were lost to damage.
func (j *Journal) Epoch() uint64 { panic("unfinished") }

// Committed returns the offset of the newest durable record, 0 if none ever.
func (j *Journal) Committed() Offset { panic("unfinished") }

// First returns the offset of the oldest record kept; Committed()+1 when empty.
func (j *Journal) First() Offset { panic("unfinished") }

// Wait returns nil once a record after the given offset is committed.
func (j *Journal) Wait(ctx context.Context, after Offset) error { panic("unfinished") }

// ReadAt returns the record with the given offset, with a body of its own, or
// the gap that covers it.
func (j *Journal) ReadAt(off Offset) (Record, error) { panic("unfinished") }

// NewReader returns a reader whose first record is the first one at or after
// from. It may be used by one goroutine at a time.
func (j *Journal) NewReader(from Offset) *Reader { panic("unfinished") }

// A Reader walks the journal in order.
type Reader struct {
	// Classes restricts what Next returns; whole frames and segments without
	// such a class are passed over unread. Set it before the first Next.
	Classes Classes
	// Volatile asks for volatile entries too. Set it before the first Next.
	Volatile bool
}

// Next returns the next record or gap, or ErrEnd at the committed end, after
// which it can be called again.
func (r *Reader) Next() (Record, error) { panic("unfinished") }

// Wait returns nil once Next has something to return.
func (r *Reader) Wait(ctx context.Context) error { panic("unfinished") }

// Offset returns the offset after the last record returned or passed over.
func (r *Reader) Offset() Offset { panic("unfinished") }

// Seek moves the reader.
func (r *Reader) Seek(to Offset) { panic("unfinished") }

// Release gives the buffers back while the reader waits for its turn. The
// next Next goes on where it was.
func (r *Reader) Release() { panic("unfinished") }

// MaxState is the largest state of a cursor in bytes.
const MaxState = 64 << 10

// A Cursor is a durable, named position with a small state beside it. It pins
// the records after it against reclaiming, up to the budget. A cursor that was
// never saved pins nothing.
type Cursor struct{}

// Cursor returns the cursor of that name, 1..255 bytes, making an unsaved one if needed.
func (j *Journal) Cursor(name string) (*Cursor, error) { panic("unfinished") }

// Cursors returns the names of all saved cursors, sorted.
func (j *Journal) Cursors() []string { panic("unfinished") }

// Saved reports whether the cursor has a position.
func (c *Cursor) Saved() bool { panic("unfinished") }

// Offset returns the last saved position: this record and all before it are
// done with. State is the state saved with it; it must not be changed.
func (c *Cursor) Offset() Offset { panic("unfinished") }

// State returns the state saved with the position. It must not be changed.
func (c *Cursor) State() []byte { panic("unfinished") }

// Save moves the cursor and replaces its state. It is durable with the next
// commit, or after CursorDelay; a crash before that gives the position back
// that was durable, so records are delivered again, never lost.
func (c *Cursor) Save(low Offset, state []byte) error { panic("unfinished") }

// Flush waits until the last Save is durable.
func (c *Cursor) Flush(ctx context.Context) error { panic("unfinished") }

// Delete forgets the cursor, durably with the next commit.
func (c *Cursor) Delete() { panic("unfinished") }

// A SegmentInfo sums up one segment file.
type SegmentInfo struct {
	Name                string
	State               string // active, sealed, spare, quarantined
	Bytes               int64  // size of the file
	First, Last         Offset // both 0 when it has no record
	FirstTime, LastTime int64  // microseconds
	Records             [MaxClass + 1]uint64
	Damage              []string // empty when sound
}

// Inspect sums up a journal, live or dead, without changing it.
func Inspect(fs disk.FS) ([]SegmentInfo, error) { panic("unfinished") }

// Verify is Inspect with every checksum checked.
func Verify(ctx context.Context, fs disk.FS) ([]SegmentInfo, error) { panic("unfinished") }
