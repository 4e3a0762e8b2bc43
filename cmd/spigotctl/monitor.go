package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"spigot/control/pfkey"
)

// keyOptions is what the commands that speak PF_KEY share.
type keyOptions struct {
	socket *string
	pfkey  string
}

func (o *keyOptions) addTo(cmd *cobra.Command) {
	cmd.Flags().StringVar(&o.pfkey, "pfkey", "", "`PATH` of the gateway's PF_KEY socket (default: pfkey.sock beside --socket)")
}

// dial connects to the gateway.
func (o *keyOptions) dial(ctx context.Context) (*pfkey.Conn, error) {
	path := beside(*o.socket, o.pfkey, "pfkey.sock")
	conn, err := pfkey.Dial(ctx, path)
	if err != nil {
		return nil, explain(path, err)
	}
	return conn, nil
}

// errGone says that the gateway ended the conversation.
var errGone = errors.New("the gateway has ended")

// newMonitor is the command that prints what happens to SAs and policies.
func newMonitor(socket *string) *cobra.Command {
	o := &keyOptions{socket: socket}
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Print PF_KEY messages as they happen: SAs, policies, acquires, expiries",
		Long: `Print what happens to SAs and policies, and what key daemons are asked for, one
line a message, until it is interrupted. It never shows keys.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			if err := monitor(ctx, o, cmd.OutOrStdout()); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	o.addTo(cmd)
	return cmd
}

// monitor writes messages to w until ctx ends.
func monitor(ctx context.Context, o *keyOptions, w io.Writer) error {
	conn, err := o.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	if _, err := request(conn, &pfkey.Message{Type: pfkey.Promisc, SAType: 1}); err != nil {
		return err
	}
	for {
		m, err := conn.Receive()
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF):
			return errGone
		case err != nil:
			return err
		}
		if _, err := fmt.Fprintf(w, "%s %v\n", time.Now().Format("15:04:05.000"), m); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
}

// request sends m and returns the answer.
func request(conn *pfkey.Conn, m *pfkey.Message) (*pfkey.Message, error) {
	m.PID = uint32(unix.Getpid())
	if err := conn.Send(m); err != nil {
		return nil, err
	}
	for {
		answer, err := conn.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errGone
		case err != nil:
			return nil, err
		case answer.Errno == unix.ENFILE && answer.PID == 0:
			return nil, errors.New("the gateway has too many PF_KEY clients: stop some")
		case answer.Type != m.Type || answer.Seq != m.Seq || answer.PID != m.PID:
			continue // news
		case answer.Errno != 0:
			return answer, fmt.Errorf("%v: %w", m.Type, answer.Errno)
		}
		return answer, nil
	}
}
