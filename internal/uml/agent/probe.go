package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"time"

	"spigot/internal/uml"
)

const (
	maxDatagram = 65535
	// inFlight is how many datagrams a probe has under way, so that it tries no
	// queue: what is lost was lost for a reason.
	inFlight = 8
)

// ICMP's and ICMPv6's echo (RFC 792, RFC 4443): a request, and its reply.
var echoTypes = map[bool][2]byte{false: {8, 0}, true: {128, 129}}

// probe sends a datagram of each size and waits for them to come back.
func probe(p *uml.Probe) (uml.Report, error) {
	from, to, err := addresses(p.From, p.To)
	if err != nil {
		return uml.Report{}, err
	}
	begin := time.Now()
	end := begin.Add(time.Duration(p.Seconds) * time.Second)
	r := uml.Report{}
	if len(p.UDP) > 0 {
		c, err := net.DialUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), net.UDPAddrFromAddrPort(netip.AddrPortFrom(to, uml.EchoPort)))
		if err != nil {
			return r, err
		}
		defer c.Close()
		exchange(c, "udp", p.UDP, end, &r, func(_ int, payload []byte) (out, back []byte) { return payload, payload })
	}
	if len(p.Echo) > 0 {
		v6 := to.Is6()
		network := map[bool]string{false: "ip4:icmp", true: "ip6:ipv6-icmp"}[v6]
		c, err := net.DialIP(network, &net.IPAddr{IP: from.AsSlice()}, &net.IPAddr{IP: to.AsSlice()})
		if err != nil {
			return r, err
		}
		defer c.Close()
		exchange(echoConn{c, v6}, "echo", p.Echo, end, &r, func(i int, payload []byte) (out, back []byte) {
			return echo(echoTypes[v6][0], i, payload, v6), echo(echoTypes[v6][1], i, payload, v6)
		})
	}
	r.Duration = time.Since(begin).Seconds()
	return r, nil
}

func addresses(a, b string) (from, to netip.Addr, err error) {
	if from, err = netip.ParseAddr(a); err != nil {
		return from, to, err
	}
	to, err = netip.ParseAddr(b)
	return from, to, err
}

// exchange sends over c what message makes of each size's payload and takes off
// what comes back as message says. What else comes is another's, or damaged.
func exchange(c net.Conn, kind string, sizes []int, end time.Time, r *uml.Report, message func(i int, payload []byte) (out, back []byte)) {
	waiting := make(map[string]string) // what has to come: its description
	alien := 0
	buf := make([]byte, maxDatagram)
	receive := func(until time.Time) bool {
		_ = c.SetReadDeadline(until)
		n, err := c.Read(buf)
		switch _, ok := waiting[string(buf[:n])]; {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return false
		case err != nil:
			r.Trouble = append(r.Trouble, fmt.Sprintf("%s: %v", kind, err))
		case ok:
			delete(waiting, string(buf[:n]))
			r.Intact++
		default:
			alien++
		}
		return true
	}
	for i, size := range sizes {
		out, back := message(i, payload(i, size))
		waiting[string(back)] = fmt.Sprintf("%s of %d bytes", kind, size)
		r.Sent++
		if _, err := c.Write(out); err != nil {
			r.Trouble = append(r.Trouble, fmt.Sprintf("%s of %d bytes: %v", kind, size, err))
			delete(waiting, string(back))
		}
		for len(waiting) >= inFlight && receive(end) {
		}
	}
	for len(waiting) > 0 && receive(end) {
	}
	for _, what := range waiting {
		r.Trouble = append(r.Trouble, what+": no answer")
	}
	if len(waiting) > 0 && alien > 0 {
		r.Trouble = append(r.Trouble, fmt.Sprintf("%d other packets, some of them perhaps damaged answers", alien))
	}
}

// payload makes size bytes that tell datagram i from all others, as far as they
// go. Two without any payload are the same.
func payload(i, size int) []byte {
	b := make([]byte, size+8)
	s := rand.New(rand.NewPCG(uint64(i), uint64(size)))
	for k := 0; k < size; k += 8 {
		binary.LittleEndian.PutUint64(b[k:], s.Uint64())
	}
	return b[:size]
}

// echoConn is a raw socket of ICMP or ICMPv6.
type echoConn struct {
	*net.IPConn
	v6 bool
}

// Read reads a message. The kernel has judged ICMPv6's checksum, and has made
// it; it reads as 0. That of ICMP is for the caller.
func (c echoConn) Read(b []byte) (int, error) {
	n, _, err := c.ReadFromIP(b)
	if err == nil && c.v6 && n >= 4 {
		clear(b[2:4])
	}
	return n, err
}

// echo makes an ICMP message of the type, or one of ICMPv6 without its checksum.
func echo(typ byte, i int, payload []byte, v6 bool) []byte {
	b := append([]byte{typ, 0, 0, 0, 0x5b, 0x16, 0, byte(i)}, payload...)
	if v6 {
		return b
	}
	sum := uint32(0)
	for k := 0; k < len(b); k += 2 {
		sum += uint32(b[k]) << 8
		if k+1 < len(b) {
			sum += uint32(b[k+1])
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(b[2:], ^uint16(sum))
	return b
}

// echoes sends every datagram back to where it came from, until c is closed.
func echoes(c *net.UDPConn) {
	buf := make([]byte, maxDatagram)
	for {
		n, from, err := c.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = c.WriteToUDPAddrPort(bytes.Clone(buf[:n]), from) // what cannot be sent is missed by the peer
		}
	}
}
