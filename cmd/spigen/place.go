package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"spigot/pmd"
	"spigot/pmd/afxdp"
)

// place is an interface's queue in a network namespace.
type place struct {
	dev   string
	queue int
	netns string // "": the current one
}

// parsePlace reads DEV[:QUEUE][@NETNS].
func parsePlace(s string) (p place, err error) {
	p.dev, p.netns, _ = strings.Cut(s, "@")
	dev, queue, ok := strings.Cut(p.dev, ":")
	if ok {
		if p.queue, err = strconv.Atoi(queue); err != nil || p.queue < 0 {
			return p, fmt.Errorf("queue %q is not a number", queue)
		}
	}
	p.dev = dev
	if dev == "" {
		return p, errors.New("no interface named: want DEV[:QUEUE][@NETNS]")
	}
	return p, nil
}

// enter moves the calling thread to p's namespace.
func (p place) enter() error {
	if p.netns == "" {
		return nil
	}
	ns, err := netns.GetFromName(p.netns)
	if err != nil {
		return fmt.Errorf("network namespace %s (see `ip netns`): %w", p.netns, err)
	}
	defer ns.Close()
	if err := netns.Set(ns); err != nil {
		return fmt.Errorf("enter network namespace %s (needs root): %w", p.netns, err)
	}
	return nil
}

// end is an open port with all that it needs.
type end struct {
	port     pmd.Port
	pool     *pmd.Pool
	mem      *pmd.Memory
	steering *afxdp.Steering
}

const (
	frames    = 8192
	frameSize = 2048
)

// openEnd opens p's interface with driver. Of what arrives there only UDP
// packets to port are taken from the kernel, where the driver can choose.
func openEnd(p place, driver string, port uint16) (*end, error) {
	nic, err := net.InterfaceByName(p.dev)
	if err != nil {
		return nil, fmt.Errorf("interface %s (see `ip link`): %w", p.dev, err)
	}
	mem, err := pmd.Map(frames * frameSize)
	if err != nil {
		return nil, err
	}
	e := &end{mem: mem}
	if e.pool, err = pmd.NewPool(mem, frameSize); err != nil {
		return nil, errors.Join(err, e.close())
	}
	if driver != "packet" {
		if err = e.openXDP(p, port); err == nil {
			return e, nil
		}
		if driver == "afxdp" {
			return nil, errors.Join(err, e.close())
		}
	}
	sock, err := openPacket(nic, e.pool)
	if err != nil {
		return nil, errors.Join(err, e.close())
	}
	e.port = sock
	return e, nil
}

func (e *end) openXDP(p place, port uint16) error {
	st, err := afxdp.Attach(p.dev, afxdp.SteeringOptions{TestPort: port})
	if err != nil {
		return err
	}
	umem, err := afxdp.NewUMEM(e.pool)
	if err != nil {
		return errors.Join(err, st.Close())
	}
	sock, err := afxdp.Open(afxdp.Options{Interface: p.dev, Queue: p.queue, UMEM: umem, Steering: st})
	if err != nil {
		return errors.Join(err, st.Close())
	}
	e.port, e.steering = sock, st
	return nil
}

// close releases all; it reports frames that did not come home.
func (e *end) close() error {
	var errs []error
	if e.port != nil {
		errs = append(errs, e.port.Close())
		if e.pool.Len() != e.pool.Cap() {
			errs = append(errs, fmt.Errorf("%s: %d of %d frames are home", e.port.Info().Name, e.pool.Len(), e.pool.Cap()))
		}
	}
	if e.steering != nil {
		errs = append(errs, e.steering.Close())
	}
	return errors.Join(append(errs, e.mem.Close())...)
}

// nextHop returns the MAC address that the probes go to: as the flags say, or
// that of the next hop that the kernel's routes give, which it is made to resolve.
func (r *run) nextHop(p place) (b [6]byte, err error) {
	if r.o.dstMAC != "" {
		m, err := net.ParseMAC(r.o.dstMAC)
		if err != nil || len(m) != 6 {
			return b, fmt.Errorf("--dst-mac %q: want six bytes as 02:00:00:00:00:01", r.o.dstMAC)
		}
		return mac6(m), nil
	}
	via := r.stream.dst
	if r.o.via != "" {
		if via, err = netip.ParseAddr(r.o.via); err != nil {
			return b, fmt.Errorf("--via: %w", err)
		}
	} else if via, err = gateway(via); err != nil {
		return b, err
	}
	m, err := resolve(p.dev, via)
	return mac6(m), err
}

// gateway returns the next hop towards dst: the route's gateway, or dst itself.
func gateway(dst netip.Addr) (netip.Addr, error) {
	routes, err := netlink.RouteGet(dst.AsSlice())
	if err != nil || len(routes) == 0 {
		return dst, fmt.Errorf("no route to %v (add one, or give --via or --dst-mac): %w", dst, err)
	}
	if gw, ok := netip.AddrFromSlice(routes[0].Gw); ok {
		return gw.Unmap(), nil
	}
	return dst, nil
}

// resolve has the kernel find via's MAC address on dev, within two seconds.
func resolve(dev string, via netip.Addr) (net.HardwareAddr, error) {
	link, err := netlink.LinkByName(dev)
	if err != nil {
		return nil, err
	}
	index := link.Attrs().Index
	for range 40 {
		neighs, err := netlink.NeighList(index, 0)
		if err != nil {
			return nil, err
		}
		for _, n := range neighs {
			if a, ok := netip.AddrFromSlice(n.IP); ok && a.Unmap() == via && len(n.HardwareAddr) == 6 {
				return n.HardwareAddr, nil
			}
		}
		// Any packet makes the kernel ask; to the discard port it does no harm.
		if c, err := net.Dial("udp", netip.AddrPortFrom(via, 9).String()); err == nil {
			_, _ = c.Write([]byte{0}) // the answer shows in the neighbour table
			_ = c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return nil, fmt.Errorf("%v does not answer on %s: is it up? (or give --dst-mac)", via, dev)
}
