package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"spigot/control"
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
		Short: "Print what happens as it does: SAs, policies, acquires, expiries, audit events",
		Long: `Print what happens to SAs and policies, what key daemons are asked for, and which
packets were dropped as by an attack, one line each, until it is interrupted. It never shows keys.`,
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
	auditing, end := context.WithCancel(ctx) // a name of its own: it ends after ctx, which closes conn
	out := &lines{w: w}
	var audits sync.WaitGroup
	audits.Go(func() { monitorAudit(auditing, *o.socket, out) })
	defer audits.Wait()
	defer end()
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
		if err := out.print(time.Now(), "%v", m); err != nil {
			return err
		}
	}
}

// lines is where lines of two goroutines go.
type lines struct {
	mu sync.Mutex
	w  io.Writer
}

// print writes one line about what happened at at.
func (l *lines) print(at time.Time, format string, args ...any) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, err := fmt.Fprintf(l.w, "%s %s\n", at.Format("15:04:05.000"), fmt.Sprintf(format, args...)); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// auditEvery is how often the gateway is asked for audit events.
const auditEvery = 500 * time.Millisecond

// monitorAudit prints the audit events that are new until ctx ends. A gateway
// whose operators' socket does not answer has none to tell.
func monitorAudit(ctx context.Context, socket string, out *lines) {
	last, started := uint64(0), false
	for {
		var list []control.AuditInfo
		body, err := get(ctx, socket, control.PathAudit)
		if err == nil && json.Unmarshal(body, &list) == nil {
			for _, a := range list {
				if started && a.Number > last {
					_ = out.print(a.Time.Local(), "AUDIT %s spi %s seq %d %s -> %s: %s", a.Reason, spi(a.SPI), a.Seq, a.Src, a.Dst, a.Flow)
				}
				last = max(last, a.Number)
			}
			started = true
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(auditEvery):
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
