package main

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"spigot/control/ipsecconf"
	"spigot/pmd"
)

func newCheck() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say what run would do, or all that is wrong with the configuration",
		Long: "Check reads the configuration and the ipsec.conf that it names, holds them against the machine's cores and\n" +
			"interfaces, and prints what would run. It changes nothing and needs no privilege, but to read the files.",
		Args: cobra.NoArgs,
	}
	fl := newFlags(cmd)
	cmd.RunE = doing(func(cmd *cobra.Command) error { return checkAll(cmd.OutOrStdout(), fl) })
	return cmd
}

// checkAll checks everything that it can read and prints the plan when nothing
// is wrong.
func checkAll(w io.Writer, fl *flags) error {
	m, err := thisMachine()
	if err != nil {
		return err
	}
	c, configErr := loadConfig(fl, m)
	if c == nil {
		return configErr
	}
	conf, policyErr := loadPolicies(c)
	defer wipe(conf)
	if err := errors.Join(configErr, policyErr); err != nil {
		return err
	}
	return printPlan(w, c, conf, m)
}

// printPlan prints what would run.
func printPlan(out io.Writer, c *Config, conf *ipsecconf.Config, m *machine) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PORT\tSIDE\tDRIVER\tMODE\tMTU\tQUEUE@CORE")
	for _, port := range c.Ports {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%s\n", port.Name, port.Side, port.Driver, port.Mode, m.links[port.Name].mtu, owners(port, c.Cores))
	}
	fmt.Fprintln(w, "\nWORKER\tCORE\tFRAMES\tFRAME SIZE\tBURST\tIDLE")
	for i, core := range c.Cores {
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%s\n", i, core, c.Frames, c.FrameSize, c.Burst, idleText(c))
	}
	if c.Jumbo.Count > 0 {
		fmt.Fprintf(w, "jumbo frames: %d a worker of %d bytes (%d MB), for packets of up to %d bytes\n",
			c.Jumbo.Count, c.Jumbo.Size, (c.Jumbo.Bytes()+1<<20-1)>>20, pmd.Room(c.Jumbo.Size))
	}
	core := "every core without a worker"
	if c.ControlCore != anyCore {
		core = fmt.Sprintf("core %d", c.ControlCore)
	}
	fmt.Fprintf(w, "\ncontrol: %s, socket %s\n", core, c.Socket)
	if c.PFKey != "" {
		fmt.Fprintf(w, "key daemons: PF_KEY on %s\n", c.PFKey)
	}
	if c.XFRM != "" {
		fmt.Fprintf(w, "key daemons: netlink XFRM on %s\n", c.XFRM)
	}
	if c.Enc != "" {
		fmt.Fprintf(w, "host: its packets pass IPsec by %s, and what comes in clear from the wire passes the policies\n", c.Enc)
	}
	if c.IPsecConf == "" {
		fmt.Fprintln(w, "ipsec: none")
	} else {
		fmt.Fprintf(w, "ipsec: %s: %d policies, %d manual SAs\n", c.IPsecConf, len(conf.Policies), len(conf.SAs))
	}
	for _, text := range warnings(c, m) {
		fmt.Fprintln(w, "warning:", text)
	}
	return w.Flush()
}

// owners lists a port's queues with the cores of their workers, as "0@1 1@2".
func owners(port PortConfig, cores []int) string {
	var words []string
	for i, queues := range port.Queues {
		for _, queue := range queues {
			words = append(words, fmt.Sprintf("%d@%d", queue, cores[i]))
		}
	}
	return strings.Join(words, " ")
}
