package forward

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"holdfast/hub"
	"holdfast/hub/journal"
)

// A DeadLetter is a record that the far side has refused for good.
type DeadLetter struct {
	Endpoint string
	Time     time.Time // of the refusal, by the hub's clock
	Reason   string    // the far side's
	Epoch    uint64    // of the journal that held the record
	Offset   uint64    // in it
	Attempt  int       // the sending that was refused
	Record   hub.Record
}

// A DeadLetterStore keeps dead letters.
type DeadLetterStore interface {
	// Put stores d and calls done, from any goroutine but never from within Put,
	// when it is durable, or with the reason why not. When Put itself fails done
	// is not called. d is valid until Put returns.
	Put(d *DeadLetter, done func(error)) error
}

// deadLetterKind is the first byte of an encoded dead letter. It differs from
// hub.KindMessage, so that neither is taken for the other.
const deadLetterKind = 2

const deadLetterHeader = 1 + 8 + 8 + 8 + 4 + 1 + 2

var errDeadLetter = errors.New("not a dead letter")

// Append appends the encoding of d; see FORMAT.md. Endpoint and Reason are cut
// at 255 and 65535 bytes.
func (d *DeadLetter) Append(dst []byte) []byte {
	endpoint := d.Endpoint[:min(len(d.Endpoint), 255)]
	reason := d.Reason[:min(len(d.Reason), 65535)]
	dst = append(dst, deadLetterKind)
	dst = binary.LittleEndian.AppendUint64(dst, uint64(d.Time.UnixMicro()))
	dst = binary.LittleEndian.AppendUint64(dst, d.Epoch)
	dst = binary.LittleEndian.AppendUint64(dst, d.Offset)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(d.Attempt))
	dst = append(dst, byte(len(endpoint)))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(reason)))
	dst = append(dst, endpoint...)
	dst = append(dst, reason...)
	return d.Record.Append(dst)
}

// Parse sets d to the dead letter encoded in body, whose memory its record keeps.
func (d *DeadLetter) Parse(body []byte) error {
	if len(body) < deadLetterHeader || body[0] != deadLetterKind {
		return errDeadLetter
	}
	d.Time = time.UnixMicro(int64(binary.LittleEndian.Uint64(body[1:]))).UTC()
	d.Epoch = binary.LittleEndian.Uint64(body[9:])
	d.Offset = binary.LittleEndian.Uint64(body[17:])
	d.Attempt = int(binary.LittleEndian.Uint32(body[25:]))
	endpoint, reason := int(body[29]), int(binary.LittleEndian.Uint16(body[30:]))
	rest := body[deadLetterHeader:]
	if len(rest) < endpoint+reason {
		return errDeadLetter
	}
	d.Endpoint = string(rest[:endpoint])
	d.Reason = string(rest[endpoint : endpoint+reason])
	if err := d.Record.Parse(rest[endpoint+reason:]); err != nil {
		return fmt.Errorf("dead letter: %w", err)
	}
	return nil
}

// NewDeadLetters returns a store that keeps dead letters in a journal of their
// own, which the caller opens, runs and closes. The journal's MaxBytes bounds it.
// Overflow rule: the oldest are dropped, and a gap in that journal says so. They
// are read back with a reader of the journal and DeadLetter.Parse.
func NewDeadLetters(j *journal.Journal) DeadLetterStore { return deadLetters{j} }

type deadLetters struct{ j *journal.Journal }

func (s deadLetters) Put(d *DeadLetter, done func(error)) error {
	return s.j.Submit(&journal.Batch{
		Entries: []journal.Entry{{Class: journal.MaxClass, Time: d.Time.UnixMicro(), Body: d.Append(nil)}},
		Done:    func(_ journal.Offset, err error) { done(err) },
	})
}
