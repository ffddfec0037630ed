// Package journal is the hub's durable log: what it has confirmed survives a
// power cut, in order, until every cursor has passed it or the budget that the
// operator set says otherwise, and then a gap record says so.
//
// # One writer, many readers
//
// Everything on disk is written by one goroutine, the committer, which lives
// inside [Journal.Run]. Submit puts a batch into a bounded queue and returns.
// The committer takes everything that queued while it was busy, encodes it as
// one group, writes the group with one call, syncs once, and only then moves
// the committed offset, calls every Done and hands the group to OnCommit. There
// is no batch timer unless Linger is set: the time of one sync is the batching.
//
// Readers never take a lock that the committer holds during a write or a sync.
// They load an immutable list of segments and read below the durable end that
// each segment publishes atomically. The newest groups are also kept in memory,
// so that a reader that keeps up touches no file.
//
// FORMAT.md describes the bytes and what the journal trusts the disk to do.
package journal
