package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"spigot/control/ipsecconf"
	"spigot/control/pfkey"
	"spigot/crypto"
)

// loadOptions is what the flags of load and diff say.
type loadOptions struct {
	keyOptions
	check      bool
	manualAEAD bool
	legacy     bool
}

// newLoad is the command that adds what an ipsec.conf says.
func newLoad(socket *string) *cobra.Command {
	o := &loadOptions{keyOptions: keyOptions{socket: socket}}
	cmd := &cobra.Command{
		Use:   "load FILE",
		Short: "Add the policies and SAs of an ipsec.conf to a running gateway",
		Long: `Add to a running gateway what FILE says and it does not have, by PF_KEY: all of
it, or on an error nothing. A policy of the same direction and selector that
says something else is changed; an SA never is. Nothing is deleted: flush does.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return asFailure(withPlan(cmd, o, args[0], func(l *loader, p *plan) error { return l.apply(cmd.Context(), p) }))
		},
	}
	o.addTo(cmd)
	cmd.Flags().BoolVarP(&o.check, "check", "n", false, "only check FILE; no gateway is asked")
	o.addManual(cmd)
	return cmd
}

// newDiff is the command that shows what load would do.
func newDiff(socket *string) *cobra.Command {
	o := &loadOptions{keyOptions: keyOptions{socket: socket}}
	cmd := &cobra.Command{
		Use:   "diff FILE",
		Short: "Show what load would change: + is added, ~ is changed",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return asFailure(withPlan(cmd, o, args[0], func(_ *loader, p *plan) error { return p.print(cmd.OutOrStdout()) }))
		},
	}
	o.addTo(cmd)
	o.addManual(cmd)
	return cmd
}

func (o *loadOptions) addManual(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&o.manualAEAD, "allow-manual-aead", false,
		"accept manual keys for counter modes (AES-GCM, -CCM, -CTR, ChaCha20), although each load of an SA repeats IVs under them")
	cmd.Flags().BoolVar(&o.legacy, "allow-legacy", false, "accept HMAC-SHA1; the gateway has to allow it, too")
}

func asFailure(err error) error {
	if err != nil {
		return &failure{err}
	}
	return nil
}

// withPlan reads the file, compares it with the gateway and runs f.
func withPlan(cmd *cobra.Command, o *loadOptions, path string, f func(*loader, *plan) error) error {
	conf, err := ipsecconf.Parse(path)
	if err != nil {
		return err
	}
	defer func() {
		for _, sa := range conf.SAs {
			clear(sa.EncKey)
			clear(sa.AuthKey)
		}
	}()
	for _, text := range conf.Warnings {
		fmt.Fprintln(cmd.ErrOrStderr(), "warning:", text)
	}
	w, err := wantedOf(conf, o)
	if err != nil || o.check {
		return err
	}
	defer w.wipe()
	conn, err := o.dial(cmd.Context())
	if err != nil {
		return err
	}
	defer conn.Close()
	l := &loader{conn: conn}
	p, err := l.plan(w)
	if err != nil {
		return err
	}
	return f(l, p)
}

// wanted is a configuration as messages, with where each comes from.
type wanted struct {
	sas, policies []step
}

// step is one thing to be there.
type step struct {
	from string
	m    *pfkey.Message
	old  *pfkey.Message // what is there in its place; nil: nothing
}

func (w *wanted) wipe() {
	for _, s := range w.sas {
		s.m.Wipe()
	}
}

// wantedOf puts conf into messages.
func wantedOf(conf *ipsecconf.Config, o *loadOptions) (*wanted, error) {
	w := &wanted{}
	for _, p := range conf.SAs {
		suite, err := crypto.Lookup(p.Encryption, p.Integrity, len(p.EncKey))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Name, err)
		}
		if crypto.Legacy(p.Integrity) && !o.legacy {
			return nil, fmt.Errorf("%s: %s is for old peers only (RFC 8221, section 6): use hmac-sha2-256 or an AEAD, or allow it "+
				"with --allow-legacy", p.Name, p.Integrity)
		}
		if suite.CounterMode() && !o.manualAEAD {
			return nil, fmt.Errorf("%s: manual key refused: %s must never see an IV twice under one key, and each load starts "+
				"again at IV 1: use aes-cbc with an hmac, or a key daemon, or take the risk with --allow-manual-aead and new keys "+
				"for each load", p.Name, p.Encryption)
		}
		m, err := pfkey.AddOf(p)
		if err != nil {
			return nil, inFile(p.Name, err)
		}
		w.sas = append(w.sas, step{from: p.Name, m: m})
	}
	for _, p := range conf.Policies {
		m, err := pfkey.SPDAddOf(p)
		if err != nil {
			return nil, inFile(p.Name, err)
		}
		w.policies = append(w.policies, step{from: p.Name, m: m})
	}
	return w, nil
}

// inFile says what to do about what load cannot do.
func inFile(name string, err error) error {
	if errors.Is(err, pfkey.ErrNoWord) {
		return fmt.Errorf("%s: %w: put it into the gateway's own ipsec.conf", name, err)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// plan is what load has to do, in order.
type plan struct{ steps []step }

func (p *plan) print(w io.Writer) error {
	for _, s := range p.steps {
		mark := "+"
		if s.old != nil {
			mark = "~"
		}
		if _, err := fmt.Fprintf(w, "%s %s (%s)\n", mark, s.m.Content(), s.from); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// loader talks to the gateway.
type loader struct {
	conn *pfkey.Conn
	seq  uint32
}

// apply does what p says, or nothing: the gateway takes all of the messages
// before it acts on the first.
func (l *loader) apply(ctx context.Context, p *plan) error {
	if len(p.steps) == 0 {
		return nil
	}
	first := l.seq + 1
	for i, s := range p.steps {
		if err := ctx.Err(); err != nil {
			return err // the gateway forgets what it has when the connection ends
		}
		l.seq++
		s.m.Seq, s.m.PID, s.m.More = l.seq, uint32(unix.Getpid()), i < len(p.steps)-1
		if err := l.conn.Send(s.m); err != nil {
			return err
		}
	}
	for {
		answer, err := l.conn.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return errGone
		case err != nil:
			return err
		case answer.PID != uint32(unix.Getpid()) || answer.Seq-first >= uint32(len(p.steps)):
			continue // news
		case answer.Errno != 0:
			return fmt.Errorf("%s: %v: %w", p.steps[answer.Seq-first].from, answer.Type, answer.Errno)
		}
		return nil
	}
}

// dump returns all that the gateway lists.
func (l *loader) dump(typ pfkey.Type) (all []*pfkey.Message, err error) {
	l.seq++
	m := &pfkey.Message{Type: typ, Seq: l.seq, PID: uint32(unix.Getpid())}
	if err := l.conn.Send(m); err != nil {
		return nil, err
	}
	for {
		a, err := l.conn.Receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil, errGone
		case err != nil:
			return nil, err
		case a.Errno == unix.ENOENT:
			return nil, nil
		case a.Errno != 0:
			return nil, fmt.Errorf("%v: %w", typ, a.Errno)
		}
		if all = append(all, a); a.Seq == 0 {
			return all, nil
		}
	}
}
