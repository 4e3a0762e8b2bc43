package bench_test

import (
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"spigot/internal/affinity"
)

// xdpDrop is XDP_DROP.
const xdpDrop = 1

func program(b testing.TB, name string, ins ...asm.Instruction) *ebpf.Program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Name: name, Type: ebpf.XDP, Instructions: ins, License: "Apache-2.0"})
	if err != nil {
		b.Fatalf("load the XDP program %s: %v", name, err)
	}
	b.Cleanup(func() { p.Close() })
	return p
}

// sink drops what arrives at the interface called name in n, in its driver: the
// cheapest end that still counts rx_packets.
func sink(b testing.TB, n *namespace, name string) {
	b.Helper()
	drop := program(b, "sink", asm.Mov.Imm(asm.R0, xdpDrop), asm.Return())
	index := n.link(b, name).Attrs().Index
	err := n.do(func() error {
		l, err := link.AttachXDP(link.XDPOptions{Program: drop, Interface: index, Flags: link.XDPDriverMode})
		if err == nil {
			b.Cleanup(func() { l.Close() })
		}
		return err
	})
	if err != nil {
		b.Fatalf("attach the sink to %s: %v", name, err)
	}
}

// source sends copies of a frame by an interface. A packet socket would send
// 0.5 to 0.9 million a second; here the kernel makes a batch of XDP frames and
// redirects them again and again, so that 4 to 5 million arrive.
type source struct {
	ns       *namespace
	core     int
	redirect *ebpf.Program
}

func newSource(b testing.TB, n *namespace, name string, core int) *source {
	b.Helper()
	index := n.link(b, name).Attrs().Index
	return &source{n, core, program(b, "source",
		asm.Mov.Imm(asm.R1, int32(index)),
		asm.Mov.Imm(asm.R2, 0), // flags
		asm.FnRedirect.Call(),
		asm.Return(),
	)}
}

// start sends copies of frame until stop is called. The channel tells when and
// why the source ended, if it did so by itself.
func (s *source) start(frame []byte) (stop func(), ended <-chan error) {
	var end atomic.Bool
	thread := make(chan int, 1)
	ended = onThread(func() error {
		thread <- affinity.Thread()
		return s.send(frame, &end)
	})
	tid := <-thread
	return func() {
		end.Store(true)
		for {
			// The signal ends runLive, and means nothing to Go. It has no effect if it
			// comes just before runLive: hence more than one.
			_ = unix.Tgkill(os.Getpid(), tid, unix.SIGURG) // ESRCH: the thread has ended
			select {
			case <-ended:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	}, ended
}

// send sends copies of frame from the source's core until end is set and the
// thread gets a signal.
func (s *source) send(frame []byte, end *atomic.Bool) error {
	if err := netns.Set(s.ns.fd); err != nil {
		return fmt.Errorf("enter the network namespace: %w", err)
	}
	if err := affinity.Pin(s.core); err != nil {
		return err
	}
	if err := affinity.Nice(-20); err != nil {
		return err
	}
	for !end.Load() {
		if err := runLive(s.redirect, frame); err != nil {
			return err
		}
	}
	return nil
}
