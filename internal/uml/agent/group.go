package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"spigot/internal/uml"
)

// castTTL is how many hops what is cast may go. A kernel's own choice is one.
const castTTL = 16

// memberships are the groups joined so far. Requests come one by one.
var memberships = map[string]*net.UDPConn{}

// join becomes a member of a group.
func join(j *uml.Join) error {
	group, err := netip.ParseAddr(j.Group)
	if err != nil {
		return err
	}
	dev, err := net.InterfaceByName(j.Dev)
	if err != nil {
		return err
	}
	c, err := net.ListenMulticastUDP("udp", dev, net.UDPAddrFromAddrPort(netip.AddrPortFrom(group, uml.CastPort)))
	if err == nil {
		memberships[j.Group] = c
	}
	return err
}

// cast sends to a group.
func cast(q *uml.Cast) error {
	from, to, err := addresses(q.From, q.To)
	if err != nil {
		return err
	}
	dev, err := net.InterfaceByName(q.Dev)
	if err != nil {
		return err
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)))
	if err != nil {
		return err
	}
	defer c.Close()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) { err = byDev(int(fd), to.Is6(), dev.Index) }); e != nil || err != nil {
		return errors.Join(e, err)
	}
	for i, size := range q.UDP {
		if _, err := c.WriteToUDPAddrPort(payload(i, size), netip.AddrPortFrom(to, uml.CastPort)); err != nil {
			return fmt.Errorf("cast %d bytes: %w", size, err)
		}
	}
	return nil
}

// byDev has what is sent to groups leave by an interface, and go far.
func byDev(fd int, v6 bool, dev int) error {
	if v6 {
		return errors.Join(
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, dev),
			unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, castTTL))
	}
	return errors.Join(
		unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(dev)}),
		unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, castTTL))
}

// quiet is how long nothing more has to come for what came to be all.
const quiet = 100 * time.Millisecond

// heard says what came to a group.
func heard(q *uml.Heard) (r uml.Report, err error) {
	c := memberships[q.Group]
	if c == nil {
		return r, fmt.Errorf("no member of %s", q.Group)
	}
	want := make(map[string]int)
	for i, size := range q.UDP {
		want[string(payload(i, size))] = q.From
		r.Sent += int64(q.From)
	}
	end := time.Now().Add(time.Duration(q.Seconds) * time.Second)
	buf := make([]byte, maxDatagram)
	for {
		until := end
		if r.Intact == r.Sent {
			until = time.Now().Add(quiet)
		}
		_ = c.SetReadDeadline(until)
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			return r, err
		}
		if want[string(buf[:n])] == 0 {
			r.Trouble = append(r.Trouble, fmt.Sprintf("%d bytes from %v that were not cast, or came before", n, from))
			if len(r.Trouble) > 100 {
				return r, nil
			}
			continue
		}
		want[string(buf[:n])]--
		r.Intact++
	}
	for data, n := range want {
		if n > 0 {
			r.Trouble = append(r.Trouble, fmt.Sprintf("%d bytes: %d did not come", len(data), n))
		}
	}
	return r, nil
}
