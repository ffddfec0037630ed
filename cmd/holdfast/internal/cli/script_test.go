package cli

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite what the scripts compare with")

// TestScripts runs every story in testdata. A script is lines, then files as
// "-- name --" sections that are written into an empty directory first:
//
//	holdfast ARGS...            run it; it must exit with 0
//	status N holdfast ARGS...   run it; it must exit with N
//	start holdfast ARGS...      run it in the background
//	stop                        ask what runs in the background to stop; it must exit with 0
//	until PATTERN holdfast ...  run it until its output matches, for ten seconds
//	stdin TEXT                  what the next command reads; \n is a line's end
//	stdout PATTERN              the last output matches
//	stderr PATTERN
//	! stdout PATTERN            it does not
//	log PATTERN                 what runs in the background logs a match, within ten seconds
//	cmp stdout|stderr FILE      it is this file; -update writes it
//	replace FILE OLD NEW        change a file; \n in NEW is a line's end
//	hangup                      send SIGHUP to what runs in the background
//
// Words may be in single quotes. Each story says above what it is about.
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, f := range files {
		path, err := filepath.Abs(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Run(strings.TrimSuffix(filepath.Base(f), ".txt"), func(t *testing.T) { runScript(t, path) })
	}
}

type script struct {
	t              *testing.T
	stdin          string
	stdout, stderr string
	files          []section
	stops          []func()
	hangup         chan os.Signal
	log            *lockedBuffer // of what was started last
}

type section struct{ name, text string }

func runScript(t *testing.T, path string) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The directory's name is part of socket paths, which are short.
	dir, err := os.MkdirTemp("", "hf")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Chdir(dir)
	s := &script{t: t}
	lines := s.split(string(data))
	for _, f := range s.files {
		if err := os.MkdirAll(filepath.Dir(f.name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(f.name, []byte(strings.ReplaceAll(f.text, "$WORK", dir)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	defer s.stopAll()
	for i, l := range lines {
		if l = strings.TrimSpace(l); l == "" || l[0] == '#' {
			continue
		}
		if err := s.line(words(l)); err != nil {
			t.Fatalf("line %d: %s\n%v\nstdout:\n%s\nstderr:\n%s", i+1, l, err, s.stdout, s.stderr)
		}
	}
	if *update {
		s.write(path, lines)
	}
}

var header = regexp.MustCompile(`(?m)^-- (\S+) --\n`)

func (s *script) split(text string) []string {
	at := header.FindAllStringSubmatchIndex(text, -1)
	end := len(text)
	for i := len(at) - 1; i >= 0; i-- {
		s.files = append([]section{{text[at[i][2]:at[i][3]], text[at[i][1]:end]}}, s.files...)
		end = at[i][0]
	}
	return strings.Split(strings.TrimSuffix(text[:end], "\n"), "\n")
}

func (s *script) write(path string, lines []string) {
	var b strings.Builder
	b.WriteString(strings.Join(lines, "\n") + "\n")
	for _, f := range s.files {
		fmt.Fprintf(&b, "-- %s --\n%s", f.name, f.text)
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func words(l string) []string {
	var out []string
	for l = strings.TrimSpace(l); l != ""; l = strings.TrimSpace(l) {
		if l[0] == '\'' {
			word, rest, _ := strings.Cut(l[1:], "'")
			out, l = append(out, word), rest
			continue
		}
		word, rest, _ := strings.Cut(l, " ")
		out, l = append(out, word), rest
	}
	return out
}

func (s *script) line(w []string) error {
	switch w[0] {
	case "holdfast":
		return s.run(0, w[1:])
	case "status":
		var n int
		fmt.Sscan(w[1], &n)
		return s.run(n, w[3:])
	case "start":
		s.start(w[2:])
	case "stop":
		s.stopAll()
	case "until":
		return s.until(w[1], w[3:])
	case "stdin":
		s.stdin = strings.ReplaceAll(w[1], `\n`, "\n")
	case "stdout":
		return match(s.stdout, w[1], true)
	case "stderr":
		return match(s.stderr, w[1], true)
	case "log":
		for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
			if err := match(s.log.String(), w[1], true); err == nil || time.Since(start) > 10*time.Second {
				return err
			}
		}
	case "!":
		return match(map[string]string{"stdout": s.stdout, "stderr": s.stderr}[w[1]], w[2], false)
	case "cmp":
		return s.compare(map[string]string{"stdout": s.stdout, "stderr": s.stderr}[w[1]], w[2])
	case "replace":
		old, err := os.ReadFile(w[1])
		if err != nil {
			return err
		}
		if !strings.Contains(string(old), w[2]) {
			return fmt.Errorf("%q is not in %s", w[2], w[1])
		}
		return os.WriteFile(w[1], []byte(strings.Replace(string(old), w[2], strings.ReplaceAll(w[3], `\n`, "\n"), 1)), 0o600)
	case "hangup":
		s.hangup <- os.Interrupt // any signal will do on this channel
	default:
		return fmt.Errorf("unknown command %q", w[0])
	}
	return nil
}

func match(text, pattern string, want bool) error {
	re, err := regexp.Compile("(?m)" + pattern)
	if err == nil && re.MatchString(text) != want {
		err = fmt.Errorf("matching %q is not %v", pattern, want)
	}
	return err
}

func (s *script) compare(got, name string) error {
	for i := range s.files {
		f := &s.files[i]
		if f.name != name {
			continue
		}
		if *update {
			f.text = got
		}
		if f.text != got {
			return fmt.Errorf("it is not what %s says:\n%s", name, f.text)
		}
		return nil
	}
	return fmt.Errorf("there is no file %s in the script", name)
}

// system is what a command sees of the world.
func system(in string, out, err io.Writer, hangup chan os.Signal) System {
	return System{In: strings.NewReader(in), Out: out, Err: err, Getenv: func(string) string { return "" }, Version: "v0-test",
		Width: func() int { return 0 }, Height: func() int { return 0 }, Hangup: hangup}
}

func (s *script) run(want int, args []string) error {
	var out, errs bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	got := Main(ctx, args, system(s.stdin, &out, &errs, nil))
	s.stdin, s.stdout, s.stderr = "", out.String(), errs.String()
	if got != want {
		return fmt.Errorf("it exits with %d, not %d", got, want)
	}
	return nil
}

func (s *script) until(pattern string, args []string) error {
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		var out, errs bytes.Buffer
		Main(context.Background(), args, system("", &out, &errs, nil))
		s.stdout, s.stderr = out.String(), errs.String()
		err := match(s.stdout+s.stderr, pattern, true)
		if err == nil || time.Since(start) > 10*time.Second {
			return err
		}
	}
}

func (s *script) start(args []string) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan int, 1)
	errs := &lockedBuffer{}
	s.log, s.hangup = errs, make(chan os.Signal, 1)
	sys := system("", io.Discard, errs, s.hangup)
	go func() { done <- Main(ctx, args, sys) }()
	s.stops = append(s.stops, func() {
		cancel()
		select {
		case status := <-done:
			if status != 0 {
				s.t.Errorf("holdfast %s exits with %d:\n%s", strings.Join(args, " "), status, errs.String())
			}
		case <-time.After(20 * time.Second):
			s.t.Errorf("holdfast %s does not stop:\n%s", strings.Join(args, " "), errs.String())
		}
	})
}

func (s *script) stopAll() {
	for _, stop := range s.stops {
		stop()
	}
	s.stops = nil
}

// lockedBuffer takes the log of what runs in the background.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
