package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"holdfast/cmd/internal/control"
	"holdfast/drivers/disk"
	"holdfast/hub"
	"holdfast/hub/client"
	"holdfast/hub/journal"
)

// TestDiskFull fills the medium under the real hub process. While it is full, a
// publication of QoS 1 is refused, never taken and lost; the trouble is a
// condition; and when there is room again the hub takes publications again by
// itself. Everything that was acknowledged is there at the end.
func TestDiskFull(t *testing.T) {
	g := newGateway(t, "hub", "[log]\nlevel = \"error\"\n[hub.journal]\nsegment = \"256KiB\"\nbudget = \"0B\"\n[hub.limits]\nmessage_size = \"64KiB\"\n")
	data := g.path("data")
	if err := os.Mkdir(data, 0o750); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", data, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small file system needs the right to mount one: %v", err)
	}
	defer syscall.Unmount(data, syscall.MNT_DETACH)
	// Somebody else fills the disk too.
	ballast := filepath.Join(data, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	g.start()
	f := &filler{t: t, acked: map[int]bool{}}
	f.dial(g.socket())
	defer func() { f.conn.Close() }()

	var refused int
	for refused < 20 {
		if f.one() {
			refused = 0
		} else {
			refused++
		}
		if f.n > 10_000 {
			t.Fatal("ten thousand messages of 4 KiB fit on 4 MiB")
		}
	}
	full := f.count()
	var s control.HubStatus
	if err := control.NewClient(g.path("run/"+control.HubSocket)).Get(context.Background(), "status", &s); err != nil {
		t.Fatal(err)
	}
	if len(s.Conditions) == 0 || s.Conditions[0].Reason == "" {
		t.Errorf("the disk is full and there is no condition that says so: %+v", s.Conditions)
	}
	t.Logf("full after %d messages; %+v", full, s.Conditions)

	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	g.wait("publications are taken again", f.one)
	for range 50 {
		f.one()
	}
	if f.count() < full+40 {
		t.Errorf("only %d of 51 publications were taken after there was room again", f.count()-full)
	}
	g.wait("the condition is cleared", func() bool {
		var s control.HubStatus
		err := control.NewClient(g.path("run/"+control.HubSocket)).Get(context.Background(), "status", &s)
		return err == nil && len(s.Conditions) == 0
	})
	f.conn.Close()
	g.kill()
	f.check(filepath.Join(data, "hub", "journal"))
}

// filler publishes one message after the other.
type filler struct {
	t      *testing.T
	socket string
	conn   *client.Conn
	n      int

	mu    sync.Mutex
	acked map[int]bool
}

func (f *filler) dial(socket string) {
	f.t.Helper()
	f.socket = socket
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var err error
	if f.conn, _, err = client.Dial(ctx, client.Options{URL: "unix://" + socket, ClientID: "filler"}); err != nil {
		f.t.Fatal(err)
	}
}

// one publishes the next number and reports whether it was acknowledged. A
// refusal is an answer; a lost connection or none in time is not.
func (f *filler) one() bool {
	f.n++
	n := f.n
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	m := client.Message{Topic: []byte("fill"), Payload: append(strconv.AppendInt(nil, int64(n), 10), bytes.Repeat([]byte{' '}, 4096)...), QoS: 1}
	err := f.conn.PublishWait(ctx, &m)
	var no *client.ReasonError
	switch {
	case err == nil:
		f.mu.Lock()
		f.acked[n] = true
		f.mu.Unlock()
		return true
	case errors.As(err, &no):
		time.Sleep(time.Millisecond)
		return false
	}
	f.t.Fatalf("message %d was neither acknowledged nor refused: %v", n, err)
	return false
}

func (f *filler) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked)
}

// check reads the journal of the killed hub.
func (f *filler) check(dir string) {
	f.t.Helper()
	d, err := disk.OpenHost(dir)
	if err != nil {
		f.t.Fatal(err)
	}
	left := f.acked
	err = journal.Scan(context.Background(), d, 0, func(r journal.Record) error {
		var rec hub.Record
		if r.Gap != nil || rec.Parse(r.Body) != nil {
			return nil
		}
		n, err := strconv.Atoi(string(bytes.TrimSpace(rec.Payload)))
		if err != nil || n > f.n {
			return fmt.Errorf("offset %d holds what was not sent: %.20q", r.Offset, rec.Payload)
		}
		delete(left, n)
		return nil
	})
	if err != nil {
		f.t.Error(err)
	}
	if len(left) > 0 {
		f.t.Errorf("%d acknowledged messages are not in the journal", len(left))
	}
}
