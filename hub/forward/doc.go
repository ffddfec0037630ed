// Package forward drains the journal to an upstream.
//
// A [Forwarder] serves one endpoint. It reads the records that routes have sent
// there, keeps a window of them in flight on one link, and moves its durable
// position when the far side has confirmed. What it promises:
//
//   - Nothing is lost silently. A record leaves the queue because the far side
//     confirmed it, because it expired (counted), because the far side refused it
//     for good (kept as a dead letter, with the reason), or because the journal
//     dropped it (counted, a condition, and a gap message when asked for).
//   - Order. The records of one sender and one lane are sent in the order of the
//     journal. After a failure the failed one is sent again before any that was
//     not in flight with it.
//   - Isolation. A sender whose records fail on a live link steps aside with a
//     back-off of its own; the others go on.
//   - Priority and time to live are looked at before every send, the repeated ones
//     included: nothing is kept in memory while the link is down, so what goes out
//     first is decided when it goes out.
//   - Honest state. The link is up only while it confirms: see [Options.Bound].
//   - Duplicates. After a crash at most [Options.DuplicateWindow] records are sent
//     again, after the loss of a link at most [Options.Window]; each carries its
//     journal epoch and offset, so that the far side can drop it.
//
// # Lanes
//
// Each priority in use has a lane: a reader of its own over the one journal. A
// lane of higher priority is always served first, so a record of priority 0
// waits for one place in the window, whatever the backlog of the others. The
// price is that each lane passes over the records of the others; the journal
// skips what is less important than the lane unread, so the extra reading of a
// lane is what is more important than itself, usually little. See
// [Options.Priorities].
//
// # Detours
//
// A position is "everything before this offset is done, except these". When a
// sender steps aside, its own position splits off from the lane's: a detour is
// the sender's name, an offset and the records still missing. It costs no memory
// for the backlog behind it, and it joins the lane again when it has caught up.
// Both kinds of exception are saved with the cursor; FORMAT.md has the bytes.
package forward
