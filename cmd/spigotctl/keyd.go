package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"spigot/control/keyd"
)

// exited is the exit code of a program that was run: it becomes our own.
type exited int

// Error says the code.
func (e exited) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// newKeyd is the command that runs a key daemon against the gateway.
func newKeyd(socket *string) *cobra.Command {
	c := keyd.Config{Stdin: os.Stdin}
	var verbose bool
	cmd := &cobra.Command{
		Use:   "keyd [flags] -- COMMAND...",
		Short: "Run an unmodified key daemon, or ip xfrm, against spigot instead of the kernel",
		Long: `Run COMMAND so that its PF_KEY and netlink XFRM sockets, and those of its
descendants, reach the gateway instead of the kernel. It takes root, or a
user that may open the gateway's sockets. The exit code is COMMAND's, or 75
if the gateway has ended or was restarted: COMMAND is ended then, since its
SAs and policies are gone, and should be started again.`,
		Example: `  spigotctl keyd -- charon-systemd
  spigotctl keyd -- iked -d
  spigotctl keyd -- ip xfrm state`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c.Argv = args
			c.PFKey, c.XFRM = beside(*socket, c.PFKey, "pfkey.sock"), beside(*socket, c.XFRM, "xfrm.sock")
			c.Stdout, c.Stderr = cmd.OutOrStdout(), cmd.ErrOrStderr()
			level := slog.LevelWarn
			if verbose {
				level = slog.LevelDebug
			}
			c.Log = slog.New(slog.NewTextHandler(c.Stderr, &slog.HandlerOptions{Level: level}))
			signals := make(chan os.Signal, 16)
			signal.Notify(signals, unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
			defer signal.Stop(signals)
			c.Signals = signals
			code, err := keyd.Run(cmd.Context(), c)
			if err != nil {
				return &failure{err}
			}
			return exited(code)
		},
	}
	cmd.Flags().SetInterspersed(false) // what follows COMMAND is COMMAND's, even without --
	cmd.Flags().StringVar(&c.PFKey, "pfkey", "", "`PATH` of the gateway's PF_KEY socket (default: pfkey.sock beside --socket)")
	cmd.Flags().StringVar(&c.XFRM, "xfrm", "", "`PATH` of the gateway's netlink XFRM socket (default: xfrm.sock beside --socket)")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "log the daemon's sockets")
	return cmd
}

// beside returns path, or if it is empty, name in the folder of socket.
func beside(socket, path, name string) string {
	if path != "" {
		return path
	}
	return filepath.Join(filepath.Dir(socket), name)
}

// newStage is what keyd runs first: it becomes the daemon.
func newStage() *cobra.Command {
	return &cobra.Command{
		Use:                keyd.StageCommand,
		Hidden:             true,
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, args []string) error { return exited(keyd.Exec(args)) },
	}
}
