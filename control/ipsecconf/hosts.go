package ipsecconf

import (
	"math"
	"net/netip"
	"slices"
	"strings"

	"spigot/internal/flow"
)

// hosts are the two sides of a rule.
type hosts struct {
	src, dst               []flow.AddrRange
	sports, dports         []flow.PortRange // any port, if none was given
	srcPos, dstPos         Position
	srcPortPos, dstPortPos Position // zero: no port was given
}

// hosts reads "from S [port N] to D [port N]" in either order. A rule of SAs
// has no ports.
func (c *cursor) hosts(ports bool) (h hosts, err *Error) {
	h.sports = []flow.PortRange{flow.AnyPort}
	h.dports = h.sports
	for range 2 {
		t := c.peek()
		side, port, pos, portPos := &h.src, &h.sports, &h.srcPos, &h.srcPortPos
		if t.is("to") {
			side, port, pos, portPos = &h.dst, &h.dports, &h.dstPos, &h.dstPortPos
		}
		if !t.is("to") && !t.is("from") || *side != nil {
			want := "\"from\""
			if h.src != nil {
				want = "\"to\""
			} else if h.dst == nil {
				want = "\"from\" or \"to\""
			}
			return h, errorAt(t.pos, "found %v: want %s and an address", t, want)
		}
		c.next()
		*pos = c.peek().pos
		if *side, err = c.addrs(); err != nil {
			return h, err
		}
		if t := c.peek(); ports && t.is("port") {
			c.next()
			*portPos = t.pos
			if *port, err = c.ports(); err != nil {
				return h, err
			}
		}
	}
	return h, nil
}

// What "any" stands for.
var (
	any4 = flow.RangeOf(netip.MustParsePrefix("0.0.0.0/0"))
	any6 = flow.RangeOf(netip.MustParsePrefix("::/0"))
)

// addrs reads an address, a prefix, a range, "any", or a list of those.
func (c *cursor) addrs() (ranges []flow.AddrRange, err *Error) {
	err = c.list("an address", func() *Error {
		t, err := c.text("an address, a prefix, a range \"a - b\" or any")
		if err != nil {
			return err
		}
		if c.peek().is("(") {
			return errorAt(c.peek().pos, "translation of addresses, \"(\", is not offered: let the flow name the addresses that packets have")
		}
		if t.is("any") {
			ranges = append(ranges, any4, any6)
			return nil
		}
		r, err := c.addrRange(t)
		ranges = append(ranges, r)
		return err
	})
	return ranges, err
}

// addrRange reads what starts with t: "a", "a/n", "a-b" or "a - b".
func (c *cursor) addrRange(t token) (r flow.AddrRange, err *Error) {
	if strings.Contains(t.text, "/") {
		return prefixOf(t)
	}
	from, to, isRange := strings.Cut(t.text, "-")
	last := token{t.kind, to, t.pos}
	if !isRange && c.accept("-") {
		isRange = true
		if last, err = c.text("the last address of the range"); err != nil {
			return r, err
		}
	}
	if r.Lo, err = addrOf(token{t.kind, from, t.pos}); err != nil {
		return r, err
	}
	if r.Hi = r.Lo; !isRange {
		return r, nil
	}
	if r.Hi, err = addrOf(last); err != nil {
		return r, err
	}
	if r.Lo.Is4() != r.Hi.Is4() {
		return r, errorAt(t.pos, "the range %v - %v mixes IPv4 and IPv6: write two", r.Lo, r.Hi)
	}
	if r.Hi.Less(r.Lo) {
		return r, errorAt(t.pos, "the range %v - %v is upside down: swap its ends", r.Lo, r.Hi)
	}
	return r, nil
}

// addrOf reads a host's address.
func addrOf(t token) (flow.Addr, *Error) {
	a, err := netip.ParseAddr(t.text)
	switch {
	case err != nil:
		return flow.Addr{}, errorAt(t.pos, "%v is no address: write it in numbers, names are not resolved", t)
	case a.Zone() != "":
		return flow.Addr{}, errorAt(t.pos, "address %v has a zone: policies know addresses only, leave %s out", t, show("%"+a.Zone()))
	case a.Is4In6():
		return flow.Addr{}, errorAt(t.pos, "%v is an IPv4 address in IPv6's clothes: write %v", t, a.Unmap())
	}
	return flow.FromNetip(a), nil
}

// prefixOf reads a prefix. As in OpenBSD, an IPv4 one may leave out zeros at
// the end, "10/8", and the bits behind the prefix do not matter.
func prefixOf(t token) (flow.AddrRange, *Error) {
	addr, bits, _ := strings.Cut(t.text, "/")
	if !strings.Contains(addr, ":") {
		addr += strings.Repeat(".0", max(0, 3-strings.Count(addr, ".")))
	}
	p, err := netip.ParsePrefix(addr + "/" + bits)
	if err != nil {
		return flow.AddrRange{}, errorAt(t.pos, "%v is no prefix: write it as 192.0.2.0/24 or 2001:db8::/32", t)
	}
	r := flow.RangeOf(p)
	if p.Addr().Is4In6() || r.Lo.Is4() != r.Hi.Is4() {
		return flow.AddrRange{}, errorAt(t.pos, "%v reaches into ::ffff:0:0/96, which stands for IPv4: write an IPv4 prefix", t)
	}
	return r, nil
}

// end reads the address of an SA's end, a host or a multicast group, for the
// option what.
func (c *cursor) end(what string) (flow.Addr, *Error) {
	t, err := c.text("the address of a host for " + what)
	if err != nil {
		return flow.Addr{}, err
	}
	a, err := addrOf(t)
	if err == nil && a.Netip().IsUnspecified() {
		err = errorAt(t.pos, "%v is the address of no host: give the one that %s has on the wire", t, what)
	}
	return a, err
}

// host is end where no group can be.
func (c *cursor) host(what string) (flow.Addr, *Error) {
	at := c.peek()
	a, err := c.end(what)
	if err == nil && a.IsGroup() {
		err = errorAt(at.pos, "%v is a multicast group: give the address of a host for %s", at, what)
	}
	return a, err
}

// isAny says whether ranges are what "any" stands for.
func isAny(ranges []flow.AddrRange) bool {
	return len(ranges) == 2 && ranges[0] == any4 && ranges[1] == any6
}

// isHost says whether r is one address.
func isHost(r flow.AddrRange) bool { return r.Lo == r.Hi }

// services are the names of ports, as IANA has them.
var services = map[string]uint16{
	"ftp-data": 20, "ftp": 21, "ssh": 22, "telnet": 23, "smtp": 25, "domain": 53, "bootps": 67, "bootpc": 68,
	"tftp": 69, "http": 80, "www": 80, "kerberos": 88, "pop3": 110, "sunrpc": 111, "ntp": 123, "imap": 143,
	"snmp": 161, "snmptrap": 162, "bgp": 179, "ldap": 389, "https": 443, "microsoft-ds": 445, "submission": 587,
	"isakmp": 500, "syslog": 514, "ldaps": 636, "domain-s": 853, "imaps": 993, "pop3s": 995, "l2tp": 1701,
	"radius": 1812, "nfs": 2049, "mysql": 3306, "ipsec-nat-t": 4500, "sip": 5060, "postgresql": 5432, "vxlan": 4789,
}

// ports reads a port, a range, "opaque", or a list of those.
func (c *cursor) ports() (ranges []flow.PortRange, err *Error) {
	err = c.list("a port", func() *Error {
		t, err := c.text("a port, a service, a range \"a:b\" or opaque")
		if err != nil {
			return err
		}
		if t.is("opaque") {
			ranges = append(ranges, flow.OpaquePort)
			return nil
		}
		r, err := c.portRange(t)
		ranges = append(ranges, r)
		return err
	})
	return ranges, err
}

// portRange reads what starts with t: "a", "a:b" or "a - b".
func (c *cursor) portRange(t token) (r flow.PortRange, err *Error) {
	from, to, isRange := strings.Cut(t.text, ":")
	if _, named := services[t.text]; !isRange && !named {
		from, to, isRange = strings.Cut(t.text, "-")
	}
	last := token{t.kind, to, t.pos}
	if !isRange && (c.accept("-") || c.accept(":")) {
		isRange = true
		if last, err = c.text("the last port of the range"); err != nil {
			return r, err
		}
	}
	if r.Lo, err = portOf(token{t.kind, from, t.pos}); err != nil {
		return r, err
	}
	if r.Hi = r.Lo; !isRange {
		return r, nil
	}
	if r.Hi, err = portOf(last); err == nil && r.Hi < r.Lo {
		err = errorAt(t.pos, "the port range %d - %d is upside down: swap its ends", r.Lo, r.Hi)
	}
	return r, err
}

func portOf(t token) (uint16, *Error) {
	if n, ok := services[t.text]; ok {
		return n, nil
	}
	if t.text != "" && (t.text[0] < '0' || t.text[0] > '9') {
		return 0, errorAt(t.pos, "unknown service %v: write the port's number", t)
	}
	n, err := parseNumber(t.text, t.pos, "port", 0, math.MaxUint16)
	return uint16(n), err
}

// protocols are the names of IP protocols, as IANA and OpenBSD have them.
var protocols = map[string]uint8{
	"icmp": protoICMP, "igmp": 2, "ipencap": 4, "ipip": 4, "tcp": protoTCP, "udp": protoUDP, "ipv6": 41, "rsvp": 46, "gre": 47,
	"esp": protoESP, "ah": protoAH, "icmp6": protoICMPv6, "ipv6-icmp": protoICMPv6, "ospf": 89, "etherip": 97, "pim": 103,
	"ipcomp": 108, "vrrp": 112, "carp": 112, "l2tp": 115, "sctp": protoSCTP, "udplite": protoUDPLite,
}

const (
	protoICMP    = 1
	protoTCP     = 6
	protoUDP     = 17
	protoESP     = 50
	protoAH      = 51
	protoICMPv6  = 58
	protoSCTP    = 132
	protoUDPLite = 136
)

// hasPorts says whether packets of the protocol carry ports.
func hasPorts(proto uint8) bool {
	return slices.Contains([]uint8{protoTCP, protoUDP, protoSCTP, protoUDPLite}, proto)
}

// protos reads a protocol or a list of those.
func (c *cursor) protos() (protos []uint8, err *Error) {
	err = c.list("a protocol", func() *Error {
		t, err := c.text("a protocol")
		if err != nil {
			return err
		}
		n, ok := protocols[t.text]
		if !ok {
			if t.text != "" && (t.text[0] < '0' || t.text[0] > '9') {
				return errorAt(t.pos, "unknown protocol %v: write its number", t)
			}
			// 0 is IPv6's hop-by-hop header and never an upper-layer protocol.
			v, err := parseNumber(t.text, t.pos, "protocol", 1, math.MaxUint8)
			if err != nil {
				return err
			}
			n = uint8(v)
		}
		protos = append(protos, n)
		return nil
	})
	return protos, err
}
