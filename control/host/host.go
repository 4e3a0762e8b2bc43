// Package host is the host's own side of IPsec: a TUN device, enc0 by
// convention, into which the host's kernel routes what protect policies cover,
// and out of which it receives what came by an SA. A firewall rule on the device
// sees what was received securely, and nothing else; tcpdump sees it, too.
//
//	host's stack -- enc0 -- reader --> HostLink.Sent --> worker --> SPD, SA, wire
//	host's stack -- enc0 -- writer <-- HostLink.Got <--- worker <-- SA, SPD, wire
//	host's stack -- port <- writer <-- HostLink.Got <--- worker <-- SPD, wire (clear)
//
// What is for the host in clear, and a policy lets, gets to the host by the port
// that it came by.
//
// The device has one queue a worker; the kernel keeps a flow on one of them.
// Its routes lie in a table of their own, which the mirror of the kernel's
// routes does not read, so that the gateway never routes into it. IKE stays
// outside: rules in front keep the ports 500 and 4500 on the host's other routes.
package host

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"spigot/control"
	"spigot/internal/fib"
	"spigot/internal/wire"
	"spigot/ring"
)

// ErrDevice is wrapped by the errors of Open.
var ErrDevice = errors.New("host: device")

// Config says what to open.
type Config struct {
	Name    string // of the device
	Workers int
	// Deliver gives the host a frame that the port with that number in the
	// gateway's list received. Any goroutine may call it.
	Deliver func(port int, frame []byte) error
	Log     *slog.Logger
}

// slots is how many packets wait for a worker, or for the host.
const slots = 1024

// Device is an open device. It belongs to the process's network namespace, and
// goes away with Close or with the process.
type Device struct {
	cfg   Config
	tun   []*os.File // by worker
	links []*fib.HostLink
	index int // the kernel's interface index

	plans  chan control.HostPlan
	table  table
	mtu    int
	lost   atomic.Uint64 // packets that the host did not take
	groups atomic.Uint64 // packets to groups of a link and about groups, which the host sends by itself
}

// Open makes the device, up and without routes. Close it.
func Open(cfg Config) (*Device, error) {
	d := &Device{cfg: cfg, plans: make(chan control.HostPlan, 1)}
	for i := range cfg.Workers {
		f, err := openTUN(cfg.Name, i == 0)
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.tun = append(d.tun, f)
		link, err := newLink()
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		d.links = append(d.links, link)
	}
	if err := d.setUp(); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func newLink() (*fib.HostLink, error) {
	wake, err := ring.NewBell()
	if err != nil {
		return nil, err
	}
	tell, err := ring.NewBell()
	if err != nil {
		return nil, errors.Join(err, wake.Close())
	}
	return &fib.HostLink{
		Sent: ring.New[fib.HostPacket](slots), Got: ring.New[fib.HostPacket](slots), Wake: wake, Tell: tell,
	}, nil
}

// Link returns worker i's way to the host.
func (d *Device) Link(i int) *fib.HostLink { return d.links[i] }

// Plan has the device follow p. It does not block.
func (d *Device) Plan(p control.HostPlan) {
	select {
	case <-d.plans:
	default:
	}
	d.plans <- p // has room: nobody else sends
}

// Close takes routes, rules and device away. Run, and the workers, must have
// stopped.
func (d *Device) Close() error {
	errs := []error{d.table.clear()}
	for _, f := range d.tun {
		errs = append(errs, f.Close())
	}
	for _, l := range d.links {
		errs = append(errs, l.Wake.Close(), l.Tell.Close())
	}
	d.tun, d.links = nil, nil
	return errors.Join(errs...)
}

// Run carries packets and follows plans until ctx ends; it returns nil then.
func (d *Device) Run(ctx context.Context) error {
	var pumps sync.WaitGroup
	for i := range d.tun {
		pumps.Go(func() { d.read(ctx, i) })
		pumps.Go(func() { d.write(ctx, i) })
	}
	d.follow(ctx)
	for i := range d.tun {
		_ = d.tun[i].SetReadDeadline(time.Now()) // ends read
		d.links[i].Tell.Ring()                   // ends write
	}
	pumps.Wait()
	d.cfg.Log.Info("the host has left IPsec", "device", d.cfg.Name, "not_taken", d.lost.Load(), "to_groups", d.groups.Load())
	return nil
}

// lookEvery is how often the device is looked at: whoever sets it down and up
// again takes its routes away.
const lookEvery = time.Second

// follow carries out plans.
func (d *Device) follow(ctx context.Context) {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	var plan control.HostPlan
	known, well := false, true
	for {
		select {
		case <-ctx.Done():
			return
		case plan = <-d.plans:
			known = true
		case <-look.C:
			up := d.isUp()
			if up == well {
				continue
			}
			if well = up; !up {
				d.cfg.Log.Error("the host's device is down: what it should carry goes elsewhere, or nowhere",
					"device", d.cfg.Name, "mend", "ip link set "+d.cfg.Name+" up")
				d.table.forget()
				continue
			}
			d.cfg.Log.Info("the host's device is up again", "device", d.cfg.Name)
		}
		if known {
			if err := d.carryOut(plan); err != nil {
				d.cfg.Log.Error("route the host's traffic into the gateway", "device", d.cfg.Name, "err", err)
			}
		}
	}
}

// read hands what the host sends by queue i to worker i. While that has no room
// the queue fills, and the kernel counts what the device loses.
func (d *Device) read(ctx context.Context, i int) {
	link, m := d.links[i], make([]fib.HostPacket, 1)
	for {
		n, err := d.tun[i].Read(m[0].Data[:])
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			d.cfg.Log.Error("the host's device is gone; start the gateway again", "device", d.cfg.Name, "err", err)
			return
		}
		if !forWorkers(m[0].Data[:n]) {
			d.groups.Add(1)
			continue
		}
		m[0].Len = uint16(n)
		for link.Sent.Push(m) == 0 {
			if time.Sleep(fullPause); ctx.Err() != nil {
				return
			}
		}
		link.Wake.Ring()
	}
}

// fullPause is how long read waits for room.
const fullPause = 100 * time.Microsecond

// forWorkers says whether the packet in b is one that a policy may be for. The
// kernel sends reports about groups by every device: IGMP's and those of MLD,
// which are behind a hop-by-hop header, to the groups themselves.
func forWorkers(b []byte) bool {
	switch {
	case len(b) >= wire.IPv4Len && b[0]>>4 == 4:
		dst := wire.IPv4(b).Dst()
		return b[16] < 224 || dst.IsGroup() && !dst.IsNearGroup() && wire.IPv4(b).Proto() != protoIGMP
	case len(b) >= wire.IPv6Len && b[0]>>4 == 6:
		dst := wire.IPv6(b).Dst()
		return !dst.IsGroup() || !dst.IsNearGroup() && wire.IPv6(b).NextHeader() != wire.ProtoHopByHop
	}
	return false
}

const protoIGMP = 2

// write hands what worker i has for the host to the host.
func (d *Device) write(ctx context.Context, i int) {
	link, m := d.links[i], make([]fib.HostPacket, 1)
	for {
		if link.Got.Pop(m) == 1 {
			d.give(i, &m[0])
			continue
		}
		if link.Tell.Sleep(); link.Got.Len() > 0 {
			continue
		}
		if ctx.Err() != nil || !link.Tell.Wait() {
			return
		}
	}
}

// give gives m to the host.
func (d *Device) give(i int, m *fib.HostPacket) {
	var err error
	if m.Port == fib.Secured {
		_, err = d.tun[i].Write(m.Data[:m.Len])
	} else {
		err = d.cfg.Deliver(int(m.Port), m.Data[:m.Len])
	}
	if err == nil {
		return
	}
	if n := d.lost.Add(1); n&(n-1) == 0 { // the first, the second, the fourth ..
		d.cfg.Log.Warn("the host does not take a packet", "err", err, "so_far", n)
	}
}

// wrap is ErrDevice about what failed.
func (d *Device) wrap(what string, err error) error {
	return fmt.Errorf("%w %s: %s: %w", ErrDevice, d.cfg.Name, what, err)
}
