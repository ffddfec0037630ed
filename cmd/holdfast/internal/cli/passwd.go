package cli

import (
	"bufio"
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"holdfast/hub/access"
)

func (a *app) passwdCommand() *cobra.Command {
	return verb("passwd", "make a password hash for a hub user", usagePasswd, cobra.NoArgs, func(*cobra.Command, []string) error {
		password, err := a.password()
		if err != nil {
			return err
		}
		hash, err := access.HashPassword([]byte(password))
		if err != nil {
			return usage(err)
		}
		if a.json {
			return a.printJSON(map[string]string{"password": hash})
		}
		a.printf("%s\n", hash)
		return nil
	})
}

// password reads one line, or asks twice on a terminal.
func (a *app) password() (string, error) {
	f, ok := a.In.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(a.In, 64<<10)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	var answers [2]string
	for i, question := range []string{"password: ", "once more: "} {
		a.ask(question)
		line, err := term.ReadPassword(int(f.Fd()))
		a.ask("\n")
		if err != nil {
			return "", err
		}
		answers[i] = string(line)
	}
	if answers[0] != answers[1] {
		return "", usage(errors.New("the two passwords differ"))
	}
	return answers[0], nil
}
