package fielddaemon

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"holdfast/drivers/clock"
	"holdfast/drivers/disk/disktest"
	"holdfast/hil/fault"
	"holdfast/hub"
	"holdfast/hub/access"
	"holdfast/hub/broker"
	"holdfast/hub/client"
	"holdfast/hub/journal"
	"holdfast/hub/session"
	"holdfast/protocols/point"
)

const patience = 30 * time.Second

// far is a hub on a lying disk, behind a link that can be cut.
type far struct {
	fs   *disktest.FS
	hub  *session.Hub
	link *fault.Link
}

func startFar(t *testing.T, maxPacket int) *far {
	t.Helper()
	a, err := access.New(access.Options{Anonymous: "field", Rules: []access.Rule{{Who: "*", Publish: []string{"#"}, Subscribe: []string{"#"}}}})
	if err != nil {
		t.Fatal(err)
	}
	f := &far{fs: disktest.New()}
	f.hub, err = session.Open(f.fs, session.Options{Access: a, Journal: journal.Options{SegmentBytes: 1 << 20}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if f.link, err = fault.Open(fault.Options{Target: l.Addr().String()}); err != nil {
		t.Fatal(err)
	}
	server := broker.New(f.hub, broker.Options{MaxPacketSize: maxPacket})
	front, stopFront := context.WithCancel(context.Background())
	back, stopBack := context.WithCancel(context.Background())
	var fronts, backs sync.WaitGroup
	fronts.Go(func() { server.Run(front) })
	fronts.Go(func() { server.Serve(front, l, broker.ListenerOptions{}) })
	fronts.Go(func() { f.link.Run(front) })
	backs.Go(func() { f.hub.Run(back) })
	t.Cleanup(func() {
		stopFront()
		fronts.Wait()
		stopBack()
		backs.Wait()
		f.hub.Close()
	})
	return f
}

// startUplink runs an uplink to the far hub.
func startUplink(t *testing.T, f *far, log *slog.Logger) *uplink {
	t.Helper()
	u := newUplink(clock.NewReal(), log)
	u.keeper = client.NewKeeper(client.KeeperOptions{
		Options:  client.Options{URL: "mqtt://" + f.link.Addr(), ClientID: "field", Bound: time.Second, Window: uplinkBatches, Buffer: uplinkBytes},
		OnUp:     func(_ context.Context, c *client.Conn, _ bool) error { u.up(c); return nil },
		OnDown:   func(error) { u.down() },
		MinPause: 5 * time.Millisecond, MaxPause: 50 * time.Millisecond,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() { u.keeper.Run(ctx) })
	all.Go(func() { u.run(ctx) })
	t.Cleanup(func() { cancel(); all.Wait() })
	return u
}

// sequences returns the batches of a device in the far journal, in its order.
func (f *far) sequences(t *testing.T, device string) (list []uint64) {
	t.Helper()
	r := f.hub.Journal().NewReader(0)
	defer r.Release()
	for {
		rec, err := r.Next()
		if err != nil {
			return list
		}
		var m hub.Record
		var b point.Batch
		if rec.Gap != nil || m.Parse(rec.Body) != nil {
			continue
		}
		if err := point.DecodeBatch(m.Payload, &b); err != nil {
			t.Errorf("offset %d: %v", rec.Offset, err)
		}
		if b.Device == device {
			list = append(list, b.Sequence)
		}
	}
}

func batch(sequence uint64) *point.Batch {
	return &point.Batch{Device: "d", Boot: 1, Sequence: sequence, Time: time.Unix(1, 0), Readings: []point.Reading{{Tag: "t", Value: point.IntValue(int64(sequence))}}}
}

func publish(t *testing.T, u *uplink, b *point.Batch) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := u.Publish(ctx, b); err != nil {
		t.Fatal(err)
	}
}

func flush(t *testing.T, u *uplink) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := u.flush(ctx); err != nil {
		batches, readings, confirmed, refusal := u.state()
		t.Fatalf("not confirmed: %d batches with %d readings, %d are; %v", batches, readings, confirmed, refusal)
	}
}

// firstComeInOrder reports what is missing among 1 to n, or came for the first
// time after a later one.
func firstComeInOrder(list []uint64, n uint64) error {
	next := uint64(1)
	for _, s := range list {
		if s > next {
			return fmt.Errorf("%d came before %d", s, next)
		}
		if s == next {
			next++
		}
	}
	if next != n+1 {
		return fmt.Errorf("%d of %d came", next-1, n)
	}
	return nil
}

// TestUplinkThroughCuts: whatever the link does, every batch is stored, in
// order but for repeats, and the count of confirmed ones is exact.
func TestUplinkThroughCuts(t *testing.T) {
	const n = 3000
	f := startFar(t, 0)
	u := startUplink(t, f, slog.New(slog.DiscardHandler))
	for i := uint64(1); i <= n; i++ {
		publish(t, u, batch(i))
		switch i % 500 {
		case 100:
			f.link.Cut()
		case 200:
			f.link.Reset()
		case 300:
			f.link.Set(fault.HalfOpen)
			f.link.Set(fault.Pass)
		}
	}
	flush(t, u)
	if err := firstComeInOrder(f.sequences(t, "d"), n); err != nil {
		t.Error(err)
	}
	if batches, readings, confirmed, refusal := u.state(); batches != 0 || readings != 0 || confirmed != n || refusal != nil {
		t.Errorf("at the end: %d batches, %d readings wait, %d of %d confirmed, refusal %v", batches, readings, confirmed, n, refusal)
	}
}

// TestUplinkWaitsForTheHub: without a hub nothing is dropped, Publish blocks
// when its room is used up, and everything goes when the hub is there.
func TestUplinkWaitsForTheHub(t *testing.T) {
	f := startFar(t, 0)
	f.link.Set(fault.Refuse)
	u := startUplink(t, f, slog.New(slog.DiscardHandler))
	for i := uint64(1); i <= uplinkBatches; i++ {
		publish(t, u, batch(i))
	}
	short, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := u.Publish(short, batch(uplinkBatches+1)); err == nil {
		t.Errorf("batch %d was taken beyond the bound", uplinkBatches+1)
	}
	f.link.Set(fault.Pass)
	flush(t, u)
	if err := firstComeInOrder(f.sequences(t, "d"), uplinkBatches); err != nil {
		t.Error(err)
	}
}

// TestUplinkRefused: while the hub's disk is full its refusals are told, and
// not for each batch; the batches wait, and they go when there is room.
func TestUplinkRefused(t *testing.T) {
	var log bytes.Buffer
	f := startFar(t, 0)
	f.fs.SetCapacity(2 << 20) // of 3 MB that will come
	u := startUplink(t, f, slog.New(slog.NewTextHandler(&log, nil)))
	const n = 60
	for i := uint64(1); i <= n; i++ {
		b := batch(i)
		b.Readings[0].Value = point.StringValue(strings.Repeat("x", 50_000))
		publish(t, u, b)
	}
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		if _, _, _, refusal := u.state(); refusal != nil {
			break
		}
		if time.Since(start) > patience {
			batches, readings, confirmed, refusal := u.state()
			up, since, err := u.keeper.State()
			t.Fatalf("a full disk is not refused: %d batches, %d readings, %d confirmed, %v; link %v since %v, %v; disk %d; hub %+v\n%s", batches, readings, confirmed, refusal, up, since, err, f.fs.Used(), f.hub.Status(), log.String())
		}
	}
	f.fs.SetCapacity(0)
	flush(t, u)
	there := map[uint64]bool{}
	for _, s := range f.sequences(t, "d") {
		there[s] = true
	}
	if len(there) != n {
		t.Errorf("%d of %d batches came", len(there), n)
	}
	if _, _, _, refusal := u.state(); refusal != nil {
		t.Errorf("after the refusals: %v", refusal)
	}
	// More than once if a probe fits into what is left of a segment.
	if told := strings.Count(log.String(), "refuses readings"); told < 1 || told > 5 {
		t.Errorf("the refusal is told %d times:\n%s", told, log.String())
	}
}

// TestUplinkDropsWhatNeverFits: a batch beyond the hub's limit on sizes is
// dropped, loudly, and does not hold up the others.
func TestUplinkDropsWhatNeverFits(t *testing.T) {
	var log bytes.Buffer
	f := startFar(t, 4096)
	u := startUplink(t, f, slog.New(slog.NewTextHandler(&log, nil)))
	publish(t, u, batch(1))
	big := batch(2)
	big.Readings[0].Value = point.StringValue(strings.Repeat("x", 10_000))
	publish(t, u, big)
	publish(t, u, batch(3))
	flush(t, u)
	if got := fmt.Sprint(f.sequences(t, "d")); got != "[1 3]" {
		t.Errorf("stored: %s", got)
	}
	if !strings.Contains(log.String(), "level=ERROR") {
		t.Errorf("nothing was told:\n%s", log.String())
	}
}
