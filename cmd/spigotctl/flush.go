package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"spigot/control/pfkey"
)

// flushes are what flush can delete, in the order in which it does: SAs last,
// so that no policy asks for one that is being deleted.
var flushes = []struct {
	name string
	typ  pfkey.Type
}{
	{"policy", pfkey.SPDFlush},
	{"sa", pfkey.Flush},
}

// newFlush is the command that deletes what key daemons and load have added.
func newFlush(socket *string) *cobra.Command {
	o := &keyOptions{socket: socket}
	cmd := &cobra.Command{
		Use:   "flush [sa|policy]",
		Short: "Delete all SAs and policies but those of the gateway's configuration",
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return fmt.Errorf("%d things to flush: say sa, policy, or nothing for both", len(args))
			case len(args) == 1 && args[0] != "sa" && args[0] != "policy":
				return fmt.Errorf("cannot flush %q: say sa, policy, or nothing for both", args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := flush(cmd.Context(), o, args); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	o.addTo(cmd)
	return cmd
}

func flush(ctx context.Context, o *keyOptions, args []string) error {
	conn, err := o.dial(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for i, f := range flushes {
		if len(args) == 1 && args[0] != f.name {
			continue
		}
		if _, err := request(conn, &pfkey.Message{Type: f.typ, Seq: uint32(i) + 1}); err != nil {
			return err
		}
	}
	return nil
}
