// Command spigot is the gateway: it reads a configuration, takes the queues of
// the interfaces that it names, and carries packets between them until a
// signal ends it.
//
// Exit codes: 0 it did what it was asked, 1 it could not, 2 the command line
// was wrong.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes the command line args and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	var failed *failure
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errLogged):
		return exitFailure
	case errors.As(err, &failed):
		fmt.Fprintf(stderr, "%v\n", err)
		return exitFailure
	}
	fmt.Fprintf(stderr, "spigot: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
	return exitUsage
}

// errLogged says that the log has told already what failed.
var errLogged = errors.New("failed; see the log")

// A failure is an error of the work itself; every other error of a command is
// one of its command line.
type failure struct{ error }

// Unwrap returns what failed.
func (f *failure) Unwrap() error { return f.error }

// doing makes a command's function of work: what work returns is a failure.
func doing(work func(cmd *cobra.Command) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, _ []string) error {
		if err := work(cmd); err != nil {
			return &failure{err}
		}
		return nil
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "spigot",
		Short:         "A user-space IPsec gateway on AF_XDP",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE:          func(*cobra.Command, []string) error { return errors.New("say what to do: run or check") },
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(newRun(), newCheck())
	return root
}
