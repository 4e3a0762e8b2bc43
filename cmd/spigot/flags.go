package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"spigot/internal/affinity"
)

// flags is what the command line says; it overrides the configuration file.
type flags struct {
	cmd *cobra.Command // knows which flags were given

	config     string
	workers    []int
	controlCPU int
	queues     []queueFlag
	ports      []portFlag
	driver     string
	mode       string
	idle       string
	socket     string
	pfkey      string
	xfrm       string
	keepalive  int
	enc        string
	ipsecConf  string
	manualAEAD bool
	metrics    string
	legacy     bool
	logFormat  string
	logLevel   string
}

// A portFlag is one --port.
type portFlag struct{ Name, Side string }

// newFlags adds the flags that run and check share to cmd.
func newFlags(cmd *cobra.Command) *flags {
	f, set := &flags{cmd: cmd}, cmd.Flags()
	set.StringVarP(&f.config, "config", "c", "", "configuration `FILE` (YAML)")
	set.Var(&flagValue{"cores", f.setWorkers}, "workers", "cores that run a worker each, as in 1,2 or 1-3")
	set.IntVar(&f.controlCPU, "control-cpu", 0, "`CORE` of everything but the workers")
	set.Var(&flagValue{"port:queue@core", f.addQueue}, "queue",
		"queue of a port for the worker of a core, as in red0:0@1; repeatable (default: queue i belongs to worker i)")
	set.Var(&flagValue{"name:side", f.addPort}, "port",
		"add a port, or change its side, as in red0:protected or blue0:wire; repeatable")
	set.StringVar(&f.driver, "driver", "", "`DRIVER` of all ports: afxdp or asavie")
	set.StringVar(&f.mode, "mode", "", "`MODE` of all ports: auto, zerocopy, copy or generic")
	set.StringVar(&f.idle, "idle", "", "idle `POLICY`: spin or adaptive")
	set.StringVar(&f.socket, "socket", "", "`PATH` of the socket that spigotctl talks to")
	set.StringVar(&f.pfkey, "pfkey", "", "`PATH` of the socket for PF_KEY key daemons; '' for none (default: pfkey.sock beside --socket)")
	set.StringVar(&f.xfrm, "xfrm", "", "`PATH` of the socket for netlink XFRM key daemons; '' for none (default: xfrm.sock beside --socket)")
	set.IntVar(&f.keepalive, "nat-keepalive", 0, "`SECONDS` without a packet to a peer of ESP in UDP before a NAT-keepalive; 0 for none (default: 20)")
	set.StringVar(&f.enc, "enc", "", "`NAME` of a device to make, as in enc0, by which the host's own packets enter and leave IPsec (default: none)")
	set.StringVar(&f.metrics, "metrics", "", "also answer /metrics, for Prometheus, on TCP `ADDRESS:PORT`, for whoever can reach it")
	set.StringVar(&f.ipsecConf, "ipsec-conf", "", "ipsec.conf `FILE` with flows and manual SAs")
	set.BoolVar(&f.manualAEAD, "allow-manual-aead", false, "accept manual keys for counter modes (AES-GCM, -CCM, -CTR, ChaCha20), although a restart repeats IVs under them")
	set.BoolVar(&f.legacy, "allow-legacy", false, "accept SAs with HMAC-SHA1, for peers that have nothing better")
	set.StringVar(&f.logFormat, "log-format", "", "`FORMAT` of the log on standard error: text or json")
	set.StringVar(&f.logLevel, "log-level", "", "lowest `LEVEL` that is logged: debug, info, warn or error")
	return f
}

// apply lays the flags that were given over doc and notes them in at.
func (f *flags) apply(doc *document, at *places) {
	for _, o := range []struct {
		flag, part string
		lay        func()
	}{
		{"workers", "workers.cores", func() { doc.Workers.Cores = f.workers }},
		{"control-cpu", "control.core", func() { doc.Control.Core = &f.controlCPU }},
		{"idle", "idle.policy", func() { doc.Idle.Policy = f.idle }},
		{"socket", "control.socket", func() { doc.Control.Socket = f.socket }},
		{"pfkey", "control.pfkey", func() { doc.Control.PFKey = &f.pfkey }},
		{"xfrm", "control.xfrm", func() { doc.Control.XFRM = &f.xfrm }},
		{"metrics", "control.metrics", func() { doc.Control.Metrics = f.metrics }},
		{"nat-keepalive", "control.nat_keepalive", func() { doc.Control.NATKeepalive = f.keepalive }},
		{"enc", "host.enc", func() { doc.Host.Enc = f.enc }},
		{"ipsec-conf", "ipsec", func() { doc.IPsec = f.ipsecConf }},
		{"allow-manual-aead", "allow_manual_aead", func() { doc.Manual = f.manualAEAD }},
		{"allow-legacy", "allow_legacy", func() { doc.Legacy = f.legacy }},
		{"log-format", "log.format", func() { doc.Log.Format = f.logFormat }},
		{"log-level", "log.level", func() { doc.Log.Level = f.logLevel }},
	} {
		if f.cmd.Flags().Changed(o.flag) {
			o.lay()
			at.byFlag(o.part, "--"+o.flag)
		}
	}
	for _, port := range f.ports {
		f.applyPort(doc, at, port)
	}
	for i := range doc.Ports {
		if f.cmd.Flags().Changed("driver") {
			doc.Ports[i].Driver = f.driver
			at.byFlag(fmt.Sprintf("ports[%d].driver", i), "--driver")
		}
		if f.cmd.Flags().Changed("mode") {
			doc.Ports[i].Mode = f.mode
			at.byFlag(fmt.Sprintf("ports[%d].mode", i), "--mode")
		}
	}
}

// applyPort changes the side of the port that flag names, or adds it.
func (f *flags) applyPort(doc *document, at *places, flag portFlag) {
	place := fmt.Sprintf("--port %s:%s", flag.Name, flag.Side)
	for i := range doc.Ports {
		if doc.Ports[i].Name == flag.Name {
			doc.Ports[i].Side = flag.Side
			at.byFlag(fmt.Sprintf("ports[%d].side", i), place)
			return
		}
	}
	at.byFlag(fmt.Sprintf("ports[%d]", len(doc.Ports)), place)
	doc.Ports = append(doc.Ports, portDoc{Name: flag.Name, Side: flag.Side})
}

// parsePort reads "NAME:SIDE".
func parsePort(s string) (portFlag, error) {
	colon := strings.LastIndexByte(s, ':')
	if colon <= 0 || colon == len(s)-1 {
		return portFlag{}, fmt.Errorf("%q is not NAME:SIDE, as in red0:protected", s)
	}
	return portFlag{s[:colon], s[colon+1:]}, nil
}

// setWorkers reads --workers.
func (f *flags) setWorkers(s string) (err error) {
	f.workers, err = affinity.Parse(s)
	return err
}

// addQueue reads one --queue.
func (f *flags) addQueue(s string) error {
	q, err := parseQueue(s)
	if err == nil {
		f.queues = append(f.queues, q)
	}
	return err
}

// addPort reads one --port.
func (f *flags) addPort(s string) error {
	p, err := parsePort(s)
	if err == nil {
		f.ports = append(f.ports, p)
	}
	return err
}

// flagValue is a flag whose values set reads.
type flagValue struct {
	kind string // what usage calls a value
	set  func(string) error
}

// Set reads the value s.
func (v *flagValue) Set(s string) error { return v.set(s) }

// Type names the value in usage.
func (v *flagValue) Type() string { return v.kind }

// String is the flag's default: nothing.
func (v *flagValue) String() string { return "" }
