// Spigen generates test traffic and measures what becomes of it.
//
//	spigen --tx veth0@host-a --rx veth1@host-b --src 10.1.0.2 --dst 10.2.0.2 --duration 10s
//
// Each packet carries a sequence number and the time at which it was sent, so
// that the sink knows loss, order and latency.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// options are the flags.
type options struct {
	tx, rx   string // DEV[:QUEUE][@NETNS]
	src, dst string
	via      string
	dstMAC   string
	size     string
	dport    uint16
	flows    int
	rate     float64
	duration time.Duration
	settle   time.Duration
	driver   string
	output   string
	txCPU    int
	rxCPU    int
	quiet    bool
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "spigen:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var o options
	c := &cobra.Command{
		Use:   "spigen --tx DEV[:QUEUE][@NETNS] --rx DEV[:QUEUE][@NETNS] --src ADDR --dst ADDR",
		Short: "send probes, receive them, and report loss, order, latency and rate",
		Long: `Spigen sends UDP probes out of one interface and takes them back from another,
over AF_XDP where there is AF_XDP, else over AF_PACKET. Either end may be left
out: without --rx it only sends, without --tx it only counts what comes in.
Both ends must see the same clock for latency to mean anything: one machine.`,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return generate(cmd.Context(), &o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringVar(&o.tx, "tx", "", "send from this interface, in this network namespace")
	f.StringVar(&o.rx, "rx", "", "receive on this interface")
	f.StringVar(&o.src, "src", "", "source address of the probes")
	f.StringVar(&o.dst, "dst", "", "destination address of the probes")
	f.StringVar(&o.via, "via", "", "next hop whose MAC address the probes get (default: what the kernel's routes say)")
	f.StringVar(&o.dstMAC, "dst-mac", "", "destination MAC address of the probes, instead of --via")
	f.StringVar(&o.size, "size", "imix", "frame size in bytes without FCS, or imix (66, 576 and 1400 bytes, 7:4:1)")
	f.Uint16Var(&o.dport, "dport", 9, "UDP destination port; the sink takes only this port from the interface")
	f.IntVar(&o.flows, "flows", 1, "distinct flows (source ports)")
	f.Float64Var(&o.rate, "rate", 0, "packets a second; 0: as fast as the interface takes them")
	f.DurationVar(&o.duration, "duration", 5*time.Second, "how long to send")
	f.DurationVar(&o.settle, "settle", 300*time.Millisecond, "how long to wait for the last packets")
	f.StringVar(&o.driver, "driver", "auto", "afxdp, packet, or auto: afxdp where it is to be had")
	f.StringVarP(&o.output, "output", "o", "table", "table or json")
	f.IntVar(&o.txCPU, "tx-cpu", -1, "pin the sender to this core")
	f.IntVar(&o.rxCPU, "rx-cpu", -1, "pin the sink to this core")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no line a second on standard error")
	return c
}

func (o *options) check() error {
	var errs []error
	if o.tx == "" && o.rx == "" {
		errs = append(errs, errors.New("give --tx, --rx or both"))
	}
	if o.output != "table" && o.output != "json" {
		errs = append(errs, fmt.Errorf("--output %q: want table or json", o.output))
	}
	if o.driver != "auto" && o.driver != "afxdp" && o.driver != "packet" {
		errs = append(errs, fmt.Errorf("--driver %q: want auto, afxdp or packet", o.driver))
	}
	if o.dport == 0 {
		errs = append(errs, errors.New("--dport 0: want 1 to 65535"))
	}
	if o.duration <= 0 || o.rate < 0 || o.settle < 0 {
		errs = append(errs, errors.New("--duration, --rate and --settle cannot be negative, and --duration not 0"))
	}
	return errors.Join(errs...)
}

// stream makes the stream of the flags, but for its MAC addresses.
func (o *options) stream() (stream, error) {
	s := stream{id: uint32(os.Getpid()), dport: o.dport, flows: o.flows}
	if o.tx == "" {
		s.src, s.dst = netip.IPv4Unspecified(), netip.IPv4Unspecified()
		return s, s.check()
	}
	var err error
	if s.src, err = netip.ParseAddr(o.src); err != nil {
		return s, fmt.Errorf("--src: %w", err)
	}
	if s.dst, err = netip.ParseAddr(o.dst); err != nil {
		return s, fmt.Errorf("--dst: %w", err)
	}
	return s, s.check()
}

// generate runs one measurement and prints its report to out.
func generate(ctx context.Context, o *options, out, progress io.Writer) error {
	if err := o.check(); err != nil {
		return err
	}
	s, err := o.stream()
	if err != nil {
		return err
	}
	prof, err := parseProfile(o.size, s.src.Is6())
	if err != nil {
		return err
	}
	r := &run{o: o, stream: s, profile: prof, progress: progress}
	rep, err := r.measure(ctx)
	if err != nil {
		return err
	}
	return rep.write(out, o.output)
}
