package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spigot/control"
)

// showOptions is what the flags of show say.
type showOptions struct {
	socket string
	format string // "table" or "json"
	all    bool
}

// view is one thing to show: where the gateway answers it, and its table.
type view struct {
	name, short, path string
	table             func(o *showOptions, body []byte, w io.Writer) error
}

var views = [...]view{
	{"ports", "The ports' queues: driver, mode, traffic and losses", control.PathPorts, tableOf(portsTable)},
	{"workers", "The workers: packets, load and cycles a packet", control.PathWorkers, tableOf(workersTable)},
	{"sa", "The security associations (never their keys)", control.PathSAs, tableOf(saTable)},
	{"policy", "The policies, in the order in which they are tried", control.PathPolicy, tableOf(policyTable)},
	{"drops", "Dropped packets by reason", control.PathDrops, tableOf(dropsTable)},
	{"routes", "The routes that packets are forwarded by", control.PathRoutes, tableOf(routesTable)},
	{"audit", "The latest packets that were dropped as by an attack, or a peer gone wrong", control.PathAudit, tableOf(auditTable)},
	{"status", "What the slow path did", control.PathStatus, tableOf(statusTable)},
	{"metrics", "All counters, in Prometheus's format", control.PathMetrics, asIs},
}

func newShow(o *showOptions) *cobra.Command {
	show := &cobra.Command{
		Use:   "show",
		Short: "Show a part of the gateway",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("say what to show: %s", viewNames())
		},
	}
	show.PersistentFlags().StringVarP(&o.format, "output", "o", "table", "`FORMAT`: table or json")
	show.PersistentFlags().BoolVarP(&o.all, "all", "a", false, "in tables, also what is zero")
	for _, v := range views {
		show.AddCommand(&cobra.Command{
			Use:   v.name,
			Short: v.short,
			Args:  cobra.NoArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				if o.format != "table" && o.format != "json" {
					return fmt.Errorf("output %q is neither table nor json", o.format)
				}
				if o.format == "json" && v.path == control.PathMetrics {
					return fmt.Errorf("%s are text: leave the output's format out", v.name)
				}
				if err := v.show(o, cmd); err != nil {
					return &failure{err}
				}
				return nil
			},
		})
	}
	return show
}

// viewNames lists what there is to show.
func viewNames() string {
	text := views[0].name
	for _, v := range views[1:] {
		text += ", " + v.name
	}
	return text
}

// show asks the gateway for v and prints the answer.
func (v *view) show(o *showOptions, cmd *cobra.Command) error {
	body, err := get(cmd.Context(), o.socket, v.path)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	if o.format == "json" {
		err = json.Indent(&out, bytes.TrimSpace(body), "", "  ")
		out.WriteByte('\n')
	} else {
		err = v.table(o, body, &out)
	}
	if err != nil {
		return fmt.Errorf("understand the answer of %s: %w", o.socket, err)
	}
	_, err = cmd.OutOrStdout().Write(out.Bytes())
	return err
}

// asIs is for an answer that is text for people already.
func asIs(_ *showOptions, body []byte, w io.Writer) error {
	_, err := w.Write(body)
	return err
}

// tableOf makes a view's table of a function that fills it from the decoded
// answer, a row a line with tabs between the cells.
func tableOf[T any](fill func(o *showOptions, answer T, w io.Writer)) func(*showOptions, []byte, io.Writer) error {
	return func(o *showOptions, body []byte, w io.Writer) error {
		var answer T
		if err := json.Unmarshal(body, &answer); err != nil {
			return err
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		fill(o, answer, t)
		return t.Flush()
	}
}
