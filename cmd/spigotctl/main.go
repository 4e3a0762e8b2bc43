// Command spigotctl shows an operator what a running gateway does. It talks to
// the gateway's Unix socket and never sees a key. With keyd it runs key daemons
// against the gateway; load, diff, flush and monitor are PF_KEY
// clients of it.
//
// Exit codes: 0 it was done, 1 it could not be, 2 the command line was wrong;
// of keyd: that of the daemon.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// defaultSocket is where `spigot run` listens unless it is told otherwise.
const defaultSocket = "/run/spigot/control.sock"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run executes the command line args and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	cmd, err := root.ExecuteC()
	var failed *failure
	var code exited
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &failed):
		fmt.Fprintf(stderr, "spigotctl: %v\n", err)
		return exitFailure
	}
	fmt.Fprintf(stderr, "spigotctl: %v\nRun '%s --help' for usage.\n", err, cmd.CommandPath())
	return exitUsage
}

// A failure is an error of the work itself; every other error of a command is
// one of its command line.
type failure struct{ error }

// Unwrap returns what failed.
func (f *failure) Unwrap() error { return f.error }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "spigotctl",
		Short:         "Show what a running spigot does",
		SilenceUsage:  true,
		SilenceErrors: true,
		Args:          cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("say what to do: show, load, diff, flush, monitor, keyd or version")
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	o := &showOptions{}
	root.PersistentFlags().StringVar(&o.socket, "socket", defaultSocket, "`PATH` of the gateway's socket")
	root.AddCommand(newShow(o), newLoad(&o.socket), newDiff(&o.socket), newFlush(&o.socket), newMonitor(&o.socket),
		newKeyd(&o.socket), newStage(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which spigotctl this is",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { fmt.Fprintln(cmd.OutOrStdout(), "spigotctl "+version()) },
	}
}

// version returns the module's version and, where the build knows it, the
// commit.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "(unknown)"
	}
	text := info.Main.Version
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			text += " " + s.Value
		}
	}
	return text + " " + info.GoVersion
}
