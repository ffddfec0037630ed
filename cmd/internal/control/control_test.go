package control

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// serve serves a handler on a socket until the test ends.
func serve(t *testing.T, h http.Handler) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	all.Go(func() {
		if err := Serve(ctx, l, h); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); all.Wait() })
	return path
}

func TestGetPostWatch(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("GET /tags", JSON(func() []Tag { return []Tag{{Device: "d", Tag: "t", Value: json.RawMessage("1.5")}} }))
	mux.Handle("GET /stream", Stream(func(_ context.Context, emit func(Update) error) error {
		for i := range 3 {
			if err := emit(Update{Fresh: i == 0}); err != nil {
				return err
			}
		}
		return nil
	}))
	mux.Handle("POST /good", Reload(func() error { return nil }))
	mux.Handle("POST /bad", Reload(func() error { return errors.New("line 7 is wrong") }))
	c := NewClient(serve(t, mux))
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var tags []Tag
	if err := c.Get(ctx, "tags", &tags); err != nil || len(tags) != 1 || string(tags[0].Value) != "1.5" {
		t.Errorf("tags %+v, %v", tags, err)
	}
	lines := 0
	err := c.Watch(ctx, "stream", func(line []byte) error {
		var u Update
		if err := json.Unmarshal(line, &u); err != nil || u.Fresh != (lines == 0) {
			t.Errorf("line %d: %s, %v", lines, line, err)
		}
		lines++
		return nil
	})
	if lines != 3 || !errors.Is(err, ErrUnreachable) {
		t.Errorf("%d lines, then %v", lines, err)
	}
	stop := errors.New("enough")
	if err := c.Watch(ctx, "stream", func([]byte) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the caller's error: %v", err)
	}
	if err := c.Post(ctx, "good"); err != nil {
		t.Error(err)
	}
	if err := c.Post(ctx, "bad"); err == nil || err.Error() != "line 7 is wrong" {
		t.Errorf("a refused reload: %v", err)
	}
}

func TestUnreachable(t *testing.T) {
	err := NewClient(filepath.Join(t.TempDir(), "none.sock")).Get(context.Background(), "status", nil)
	if !errors.Is(err, ErrUnreachable) {
		t.Errorf("no socket: %v", err)
	}
}

// TestListenReplacesOnlyTheDead: the socket of a killed daemon is in nobody's
// way, that of a live one is.
func TestListenReplacesOnlyTheDead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "run", "c.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil {
		t.Error("a live socket was taken over")
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a kill leaves it
	l.Close()
	again, err := Listen(path)
	if err != nil {
		t.Fatalf("a dead socket is in the way: %v", err)
	}
	defer again.Close()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("who may connect: %v, %v", info.Mode(), err)
	}
}
