// SPDX-License-Identifier: Apache-2.0
//
// The XDP programs that choose which packets go to the AF_XDP sockets.
//
//   steer      on the gateway's ports: what IPsec may have to do with goes to
//              the socket of the receive queue; what is the host's business
//              (ARP, ND, IKE, its own services) goes to the kernel; where the
//              host is guarded, its services by way of the gateway.
//   generator  on a traffic generator's ports: UDP to one port goes to the
//              socket, all else to the kernel.
#include "bpf.h"

// verdict is one case of the table in cases.go, in the same order.
enum verdict {
	PASS_SHORT,       // too short for an Ethernet header
	PASS_ETHERTYPE,   // neither IPv4 nor IPv6 nor one of the next two
	PASS_VLAN,        // tagged for a VLAN: there are no VLAN ports
	PASS_ARP,         // RFC 826
	PASS_GROUP,       // multicast or broadcast, by MAC or by IP address, but for REDIRECT_GROUP
	PASS_ND,          // RFC 4861, and MLD (RFC 3810), for this host
	PASS_FRAGMENT,    // for this host, but neither IPsec nor IKE: the kernel reassembles
	PASS_IKE,         // UDP 500, and 4500 with the non-ESP marker (RFC 3948)
	PASS_LOCAL,       // anything else for this host
	PASS_JUDGED,      // guarded: what came back from the gateway, which has judged it
	PASS_OTHER,       // generator: not the test traffic
	REDIRECT_SHORT,   // says IP, ends before its headers do; two tags, the outer for VLAN 0
	REDIRECT_ESP,     // protocol 50 for this host
	REDIRECT_AH,      // protocol 51 for this host
	REDIRECT_UDPESP,  // ESP in UDP 4500 for this host (RFC 3948)
	REDIRECT_KEEPALIVE, // UDP 4500, NAT-keepalive for this host (RFC 3948, 2.3): consumed
	REDIRECT_PMTU,    // ICMP to this host: ESP or AH that it has sent is too big for the path
	REDIRECT_HOST,    // guarded: for this host, in clear
	REDIRECT_GROUP,   // for a group: IPsec under an SA, or what a policy protects
	REDIRECT_TRANSIT, // for another host
	REDIRECT_TEST,    // generator: the test traffic
	NO_SOCKET,        // to be redirected, but the queue has no socket
	VERDICTS,
};

// The first verdict that redirects.
#define FIRST_REDIRECT REDIRECT_SHORT

struct in6 {
	u8 b[16];
};

struct {
	ATTR(type, MAP_XSKMAP);
	ATTR(max_entries, 64);
	u32 *key;
	u32 *value;
} sockets SEC(".maps"); // by receive queue

struct {
	ATTR(type, MAP_HASH);
	ATTR(max_entries, 4096);
	u32 *key;
	u8 *value;
} local4 SEC(".maps"); // this host's IPv4 addresses

struct {
	ATTR(type, MAP_HASH);
	ATTR(max_entries, 4096);
	struct in6 *key;
	u8 *value;
} local6 SEC(".maps"); // this host's IPv6 addresses

// prefix is some groups: so many leading bits of the address. IPv4 addresses are
// mapped ones (RFC 4291, section 2.5.5.2).
struct prefix {
	u32 bits;
	struct in6 addr;
};

enum { GROUP_IPSEC = 1, GROUP_ALL = 2 };

struct {
	ATTR(type, MAP_LPM_TRIE);
	ATTR(map_flags, 1); // BPF_F_NO_PREALLOC: without it there are no tries
	ATTR(max_entries, 8192);
	struct prefix *key;
	u8 *value;
} groups SEC(".maps"); // the gateway's groups, and what of them: GROUP_ bits

// datagram names one that came in fragments. IPv4 addresses lie in the first word.
struct datagram {
	struct in6 src, dst;
	u32 id;
};

struct {
	ATTR(type, MAP_LRU_HASH);
	ATTR(max_entries, 4096);
	struct datagram *key;
	u8 *value;
} datagrams SEC(".maps"); // ESP in UDP, and IKE, whose first fragment was seen: its verdict

struct {
	ATTR(type, MAP_PERCPU_ARRAY);
	ATTR(max_entries, VERDICTS);
	u32 *key;
	u64 *value;
} counts SEC(".maps"); // packets by verdict

// Set before the program is loaded.
volatile const u32 no_socket = XDP_PASS; // action for a queue without a socket
volatile const u16 test_port = 0;        // generator: destination port, big-endian
// steer: not 0: the host is guarded, so that what is for it in clear goes to the
// gateway first. Its value is the Ethernet source address, a secret, with which
// the gateway sends back what may pass.
volatile const u64 guard = 0;

struct eth {
	u8 dst[6], src[6];
	u16 type;
};

struct tag {
	u16 tci, type;
};

struct ip4 {
	u8 vihl, tos;
	u16 len, id, frag;
	u8 ttl, proto;
	u16 check;
	u32 src, dst;
};

struct ip6 {
	u32 vtcfl;
	u16 len;
	u8 next, hops;
	struct in6 src, dst;
};

struct icmp {
	u8 type, code;
	u16 check;
	u32 rest;
};

struct udp {
	u16 sport, dport, len, check;
};

enum { P_HOPOPTS = 0, P_ICMP = 1, P_IGMP = 2, P_TCP = 6, P_UDP = 17, P_ROUTING = 43, P_FRAGMENT = 44,
       P_ESP = 50, P_AH = 51, P_ICMP6 = 58, P_DSTOPTS = 60 };

// More IPv6 extension headers than this are not looked behind.
#define MAX_EXT 6

// local_udp judges a datagram to this host; p is behind the IP headers.
INLINE enum verdict local_udp(void *p, void *end)
{
	struct udp *u = p;
	if ((void *)(u + 1) > end)
		return REDIRECT_SHORT;
	if (u->dport == BE16(500))
		return PASS_IKE;
	if (u->dport != BE16(4500))
		return PASS_LOCAL;
	u8 *b = (u8 *)(u + 1);
	if (u->len == BE16(sizeof(*u) + 1)) {
		if ((void *)(b + 1) > end)
			return REDIRECT_SHORT;
		return *b == 0xff ? REDIRECT_KEEPALIVE : REDIRECT_SHORT;
	}
	u32 *spi = (u32 *)b;
	if (BE16(u->len) < sizeof(*u) + sizeof(*spi) || (void *)(spi + 1) > end)
		return REDIRECT_SHORT;
	return *spi == 0 ? PASS_IKE : REDIRECT_UDPESP;
}

// local_fragment judges a fragment of a datagram to this host; p is behind the IP
// headers. Only the first fragment says whether it is ESP in UDP, or IKE, and it
// has to come first: those that overtake it are the host's other traffic.
INLINE enum verdict local_fragment(struct datagram *d, int first, void *p, void *end)
{
	if (!first) {
		u8 *known = map_lookup(&datagrams, d);
		return known ? *known : PASS_FRAGMENT;
	}
	enum verdict v = local_udp(p, end);
	if (v != REDIRECT_UDPESP && v != PASS_IKE) {
		map_delete(&datagrams, d); // another datagram had this number
		return PASS_FRAGMENT;
	}
	u8 known = v;
	map_update(&datagrams, d, &known, 0);
	return v;
}

// ipsec_quoted says whether an ICMP error's quote is of IPsec's: ESP, AH, or ESP in
// UDP, as far as it can be seen. p is behind the quoted IP header.
INLINE int ipsec_quoted(u8 proto, void *p, void *end)
{
	if (proto == P_ESP || proto == P_AH)
		return 1;
	if (proto != P_UDP)
		return 0;
	struct udp *u = p;
	u32 *spi = (u32 *)(u + 1);
	return (void *)(spi + 1) <= end && u->sport == BE16(4500) && *spi != 0;
}

// local_icmp4 judges an ICMP message to this host; p is behind the IP header.
INLINE enum verdict local_icmp4(void *p, void *end)
{
	struct icmp *m = p;
	struct ip4 *ip = (struct ip4 *)(m + 1);
	if ((void *)(ip + 1) > end || m->type != 3 || m->code != 4)
		return PASS_LOCAL;
	return ipsec_quoted(ip->proto, (void *)ip + (ip->vihl & 15) * 4, end) ? REDIRECT_PMTU : PASS_LOCAL;
}

// local_icmp6 does so for ICMPv6. The quoted packet may be a first fragment.
INLINE enum verdict local_icmp6(void *p, void *end)
{
	struct icmp *m = p;
	struct ip6 *ip = (struct ip6 *)(m + 1);
	if ((void *)(ip + 1) > end || m->type != 2)
		return PASS_LOCAL;
	u8 next = ip->next;
	p = ip + 1;
	if (next == P_FRAGMENT) {
		if (p + 8 > end)
			return PASS_LOCAL;
		next = *(u8 *)p;
		p += 8;
	}
	return ipsec_quoted(next, p, end) ? REDIRECT_PMTU : PASS_LOCAL;
}

// served returns what of the packets to group is the gateway's.
INLINE u8 served(struct in6 *group)
{
	struct prefix one = {.bits = 128, .addr = *group};
	u8 *what = map_lookup(&groups, &one);
	return what ? *what : 0;
}

// to_group judges a packet of proto to a group of which what is the gateway's.
INLINE enum verdict to_group(u8 what, u8 proto)
{
	if (what & GROUP_ALL || (what & GROUP_IPSEC && (proto == P_ESP || proto == P_AH)))
		return REDIRECT_GROUP;
	return PASS_GROUP;
}

// group4 judges a packet to a group. Those of one link stay there (RFC 5771,
// section 4), and memberships are the kernel's, which IGMP tells to the groups
// themselves.
INLINE enum verdict group4(struct ip4 *ip)
{
	if ((ip->dst & BE32(0xffffff00)) == BE32(0xe0000000) || ip->proto == P_IGMP)
		return PASS_GROUP;
	struct in6 group = {.b = {[10] = 0xff, [11] = 0xff}};
	*(u32 *)(group.b + 12) = ip->dst;
	return to_group(served(&group), ip->proto);
}

INLINE enum verdict steer4(void *p, void *end)
{
	struct ip4 *ip = p;
	if ((void *)(ip + 1) > end)
		return REDIRECT_SHORT;
	u32 ihl = (ip->vihl & 15) * 4;
	if (ip->vihl >> 4 != 4 || ihl < sizeof(*ip))
		return REDIRECT_SHORT;
	u32 dst = ip->dst;
	if ((dst & BE32(0xf0000000)) == BE32(0xe0000000))
		return group4(ip);
	if (dst == BE32(0xffffffff))
		return PASS_GROUP;
	if (!map_lookup(&local4, &dst))
		return REDIRECT_TRANSIT;
	if (ip->proto == P_ESP)
		return REDIRECT_ESP;
	if (ip->proto == P_AH)
		return REDIRECT_AH;
	if (ip->frag & BE16(0x3fff)) { // more fragments, or not the first
		struct datagram d = {};
		*(u32 *)&d.src = ip->src;
		*(u32 *)&d.dst = dst;
		d.id = ip->id;
		if (ip->proto != P_UDP)
			return PASS_FRAGMENT;
		return local_fragment(&d, !(ip->frag & BE16(0x1fff)), p + ihl, end);
	}
	if (ip->proto == P_UDP)
		return local_udp(p + ihl, end);
	if (ip->proto == P_ICMP)
		return local_icmp4(p + ihl, end);
	return PASS_LOCAL;
}

// is_nd says whether an ICMPv6 type is neighbour discovery's or MLD's.
INLINE int is_nd(u8 type)
{
	return (type >= 130 && type <= 137) || type == 143;
}

INLINE enum verdict steer6(void *p, void *end)
{
	struct ip6 *ip = p;
	if ((void *)(ip + 1) > end)
		return REDIRECT_SHORT;
	if ((*(u8 *)p) >> 4 != 6)
		return REDIRECT_SHORT;
	struct in6 dst = ip->dst;
	u8 group = 0;
	if (dst.b[0] == 0xff) {
		// Those of one link or host stay there (RFC 4291, section 2.7).
		if ((dst.b[1] & 15) > 2)
			group = served(&dst);
		if (!group)
			return PASS_GROUP;
	}
	int local = !group && map_lookup(&local6, &dst) != 0;
	// ND goes up when it is for this host or for this link. Other unicast ND is
	// transit: the kernel, given it, would forward it in clear, around the SPD.
	if (!local && !group && !(dst.b[0] == 0xfe && (dst.b[1] & 0xc0) == 0x80))
		return REDIRECT_TRANSIT;

	enum verdict other = local ? PASS_LOCAL : REDIRECT_TRANSIT;
	int fragment = 0, first = 1;
	struct datagram d = {.src = ip->src, .dst = dst};
	u8 next = ip->next;
	p = ip + 1;
	for (int i = 0; i < MAX_EXT; i++) {
		if (next != P_HOPOPTS && next != P_ROUTING && next != P_DSTOPTS && next != P_FRAGMENT)
			break;
		u8 *h = p;
		if ((void *)(h + 8) > end)
			return REDIRECT_SHORT;
		if (next == P_FRAGMENT) {
			u16 off = *(u16 *)(h + 2);
			p += 8;
			fragment |= (off & BE16(0xfff9)) != 0;
			d.id = *(u32 *)(h + 4);
			next = h[0];
			if (off & BE16(0xfff8)) { // what follows is no header
				first = 0;
				break;
			}
		} else {
			next = h[0];
			p += 8 + 8 * (u32)h[1];
		}
	}
	if (local && next == P_ESP)
		return REDIRECT_ESP;
	if (local && next == P_AH)
		return REDIRECT_AH;
	if (group && (next != P_ICMP6 || fragment))
		return to_group(group, next);
	if (fragment && local && next == P_UDP)
		return local_fragment(&d, first, p, end);
	if (fragment)
		return local ? PASS_FRAGMENT : REDIRECT_TRANSIT;
	if (next == P_ICMP6) {
		u8 *type = p;
		if ((void *)(type + 4) > end)
			return REDIRECT_SHORT;
		if (is_nd(*type))
			return PASS_ND; // MLD, too, which hosts send to the group itself
		if (group)
			return to_group(group, next);
		return local ? local_icmp6(p, end) : other;
	}
	if (local && next == P_UDP)
		return local_udp(p, end);
	return other;
}

// is_tag says whether a type is that of an 802.1Q or 802.1ad tag.
INLINE int is_tag(u16 type)
{
	return type == BE16(0x8100) || type == BE16(0x88a8);
}

// grouped is v, unless the frame is for a group. The kernel takes a packet for
// this host from such a frame, too; a guarded host does not.
INLINE enum verdict grouped(struct eth *e, enum verdict v)
{
	if (!(e->dst[0] & 1) || v == REDIRECT_GROUP || (guard && (v == PASS_LOCAL || v == PASS_FRAGMENT)))
		return v;
	return PASS_GROUP;
}

INLINE enum verdict steer_frame(void *p, void *end)
{
	struct eth *e = p;
	if ((void *)(e + 1) > end)
		return PASS_SHORT;
	u16 type = e->type;
	p = e + 1;
	if (is_tag(type)) {
		struct tag *t = p;
		if ((void *)(t + 1) > end || t->tci & BE16(0x0fff))
			return PASS_VLAN;
		// VLAN 0 is none: the kernel strips such tags and takes the packet as
		// untagged. Given transit, it would forward it in clear, around the SPD.
		type = t->type;
		p = t + 1;
		if (is_tag(type))
			return REDIRECT_SHORT;
	}
	switch (type) {
	case BE16(0x0806):
		return PASS_ARP;
	case BE16(0x0800):
		return grouped(e, steer4(p, end));
	case BE16(0x86dd):
		return grouped(e, steer6(p, end));
	}
	return PASS_ETHERTYPE;
}

INLINE enum verdict test_frame(void *p, void *end)
{
	struct eth *e = p;
	if ((void *)(e + 1) > end)
		return PASS_SHORT;
	p = e + 1;
	if (e->type == BE16(0x0800)) {
		struct ip4 *ip = p;
		if ((void *)(ip + 1) > end || ip->vihl != 0x45 || ip->proto != P_UDP ||
		    (ip->frag & BE16(0x3fff)))
			return PASS_OTHER;
		p = ip + 1;
	} else if (e->type == BE16(0x86dd)) {
		struct ip6 *ip = p;
		if ((void *)(ip + 1) > end || ip->next != P_UDP)
			return PASS_OTHER;
		p = ip + 1;
	} else {
		return PASS_OTHER;
	}
	struct udp *u = p;
	if ((void *)(u + 1) > end || u->dport != test_port)
		return PASS_OTHER;
	return REDIRECT_TEST;
}

// act carries v out and counts it.
INLINE int act(struct xdp_md *ctx, u32 v)
{
	int action = XDP_PASS;
	if (v >= FIRST_REDIRECT) {
		action = redirect_map(&sockets, ctx->rx_queue_index, no_socket);
		if (action != XDP_REDIRECT)
			v = NO_SOCKET;
	}
	u64 *n = map_lookup(&counts, &v);
	if (n)
		*n += 1;
	return action;
}

// guarded is v, unless the gateway has to judge what v gives to the host, or has
// judged it: what comes back from there passes, whatever it is for, or it would go
// around for ever.
INLINE enum verdict guarded(enum verdict v, void *p, void *end)
{
	struct eth *e = p;
	if (!guard || (v != PASS_LOCAL && v != PASS_FRAGMENT && v < FIRST_REDIRECT) || (void *)(e + 1) > end)
		return v;
	u64 source = 0;
	for (int i = 0; i < 6; i++)
		source = source << 8 | e->src[i];
	if (source == guard)
		return PASS_JUDGED;
	return v < FIRST_REDIRECT ? REDIRECT_HOST : v;
}

SEC("xdp/steer") int steer(struct xdp_md *ctx)
{
	void *p = (void *)(long)ctx->data, *end = (void *)(long)ctx->data_end;
	return act(ctx, guarded(steer_frame(p, end), p, end));
}

SEC("xdp/generator") int generator(struct xdp_md *ctx)
{
	return act(ctx, test_frame((void *)(long)ctx->data, (void *)(long)ctx->data_end));
}

char _license[] SEC("license") = "Apache-2.0";
