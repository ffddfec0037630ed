// Command holdfast is the gateway: the hub that stores and forwards, the field
// daemon that reads PLCs and sensors, and the verbs to look at them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/term"

	"holdfast/cmd/holdfast/internal/cli"
)

// version is set by the linker.
var version = "unreleased"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	status := cli.Main(ctx, os.Args[1:], cli.System{
		In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv, Version: version, Hangup: hangup,
		Width:  func() int { w, _ := terminal(); return w },
		Height: func() int { _, h := terminal(); return h },
	})
	stop()
	os.Exit(status)
}

// terminal returns the size of the terminal at standard output, zeroes when it
// is none.
func terminal() (width, height int) {
	width, height, err := term.GetSize(int(os.Stdout.Fd()))
	if err != nil {
		return 0, 0
	}
	return width, height
}
